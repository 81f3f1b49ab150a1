"""Keeping notifications, and finding them again: newest first, a page at a time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from sqlalchemy import and_, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from notification_service.models import Audience, Notification

PAGE: Final = 100
"""Notifications on a page."""

_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_KEY: Final = re.compile(r"(-?\d{1,18})\.(\d{1,18})", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def keep(session: Session, event_id: str, message: str, at: datetime, *, order_id: str | None = None) -> bool:
    """Keep what a customer was told about an order or, without one, the operators; whether it was new.

    An event that comes again, also at the same moment, is kept once.

    Args:
        event_id: of the event that it came with.
        at: when they were told, with a zone.
    """
    known = select(Notification.id).where(Notification.event_id == event_id)
    if session.execute(known).first() is not None:
        return False
    try:
        with session.begin_nested():
            session.add(
                Notification(
                    event_id=event_id,
                    audience=Audience.OPERATORS if order_id is None else Audience.CUSTOMERS,
                    order_id=order_id,
                    message=message.replace("\0", ""),  # PostgreSQL stores none
                    at=at,
                )
            )
    except IntegrityError:  # somebody else was quicker with the same event
        return False
    return True


@dataclass(frozen=True)
class Page:
    """Some notifications, newest first. `older`: the key of the next page, None if there is none."""

    notifications: Sequence[Notification]
    older: str | None


def page(
    session: Session,
    *,
    audience: Audience | None = None,
    order: str | None = None,
    before: str | None = None,
    limit: int = PAGE,
) -> Page:
    """Notifications, newest first.

    Args:
        audience: for these only.
        order: of this order only.
        before: older than those of the page that gave this key.

    Raises:
        ValueError: `before` is no key.
    """
    query = select(Notification).order_by(Notification.at.desc(), Notification.id.desc()).limit(limit + 1)
    if audience is not None:
        query = query.where(Notification.audience == audience)
    if order is not None:
        query = query.where(Notification.order_id == order)
    if before is not None:
        at, number = _read_key(before)
        older = and_(Notification.at == at, Notification.id < number)
        query = query.where(or_(Notification.at < at, older))
    found = session.scalars(query).all()
    shown = found[:limit]
    return Page(shown, _key(shown[-1]) if len(found) > limit else None)


def line(notification: Notification) -> str:
    """The notification in one line: ``time | order | message``, or ``time | operators | message``."""
    whom = notification.order_id or notification.audience.value
    parts = (notification.at.isoformat(timespec="seconds"), whom, notification.message)
    return " | ".join(_CONTROLS.sub(" ", part) for part in parts)


def _key(notification: Notification) -> str:
    """Where a page ends: the moment in microseconds since 1970, and the id."""
    return f"{(notification.at - _EPOCH) // timedelta(microseconds=1)}.{notification.id}"


def _read_key(key: str) -> tuple[datetime, int]:
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(f"{key!r} is not where a page ends")
    try:
        return _EPOCH + timedelta(microseconds=int(found[1])), int(found[2])
    except OverflowError:
        raise ValueError(f"{key!r} is not where a page ends") from None
