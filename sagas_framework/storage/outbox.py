"""The outbox on SQLAlchemy: events written in a transaction of the service's own, and sent from there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    Integer,
    Row,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)

from sagas_framework.storage.engine import reading, translated
from sagas_framework.storage.tables import saga_outbox

OUTBOX_CHANNEL: Final = "saga_outbox"
"""PostgreSQL channel on which a commit with an event in it wakes the relays."""


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event that is to be sent, or was.

    Args:
        number: of one database, growing: see `Outbox.add`.
        topic: under which it is published; the name of its Celery task, too.
        body: its fields as JSON text.
        sent_at: when the broker had confirmed it; None until then.
        trace: the context in which it was published, if that is traced.
    """

    event_id: str
    topic: str
    body: str
    at: datetime
    number: int = 0
    sent_at: datetime | None = None
    trace: Mapping[str, str] | None = None


SendEvents = Callable[[Sequence[OutboxRow]], Sequence[bool]]
"""Sends events; for each, in order, whether the broker has confirmed it."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What has not been sent. `since`: when the oldest of it was published; None if there is nothing."""

    events: int
    since: datetime | None


# Every relay asks this every second, whether there is something or not: so it is made once.
_UNSENT: Final = (
    select(saga_outbox)
    .where(saga_outbox.c.sent_at.is_(None), saga_outbox.c.number > bindparam("after", type_=BigInteger))
    .order_by(saga_outbox.c.number)
    .limit(bindparam("most", type_=Integer))
)
_UNSENT_LOCKED: Final = _UNSENT.with_for_update(skip_locked=True)


class Outbox:
    """The events of one service's database. Any number of relays may send from it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def send(self, send: SendEvents, limit: int, now: datetime, after: int = 0) -> tuple[int, int]:
        """Send events, by number, at most `limit`, those after one of them; `(taken, confirmed)`.

        A row is marked as sent after the broker has confirmed its event. If `send` raises, or the process
        dies meanwhile, it stays unsent: so an event may be sent twice, and none is left out.
        """
        most = {"most": limit, "after": after}
        with translated():
            if self._engine.dialect.name == "postgresql":
                # Locked meanwhile, so that relays share the events out instead of sending each twice.
                with self._engine.begin() as connection:
                    rows = connection.execute(_UNSENT_LOCKED, most)
                    taken = [_outbox_row(row) for row in rows]
                    return len(taken), _mark(connection, taken, send(taken), now) if taken else 0
            # SQLite has one lock, and whoever held it while a broker hesitates would hold up everybody.
            with reading(self._engine) as connection:
                taken = [_outbox_row(row) for row in connection.execute(_UNSENT, most)]
            if not taken:
                return 0, 0
            confirmed = send(taken)
            with self._engine.begin() as connection:
                return len(taken), _mark(connection, taken, confirmed, now)

    def forget(self, before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` events that were sent before a moment; how many there were."""
        old = select(saga_outbox.c.number).where(saga_outbox.c.sent_at < before).limit(limit)
        with translated(), self._engine.begin() as connection:
            return connection.execute(delete(saga_outbox).where(saga_outbox.c.number.in_(old))).rowcount

    def send_again(self, since: datetime) -> int:
        """Have everything sent once more that was sent since a moment and is still kept; how many events."""
        again = update(saga_outbox).where(saga_outbox.c.sent_at >= since).values(sent_at=None)
        with translated(), self._engine.begin() as connection:
            number = connection.execute(again).rowcount
            if number:
                nudge_relays(connection)
        return number


_ADD: Final = insert(saga_outbox).returning(saga_outbox.c.number)


def add_to_outbox(connection: Connection, row: OutboxRow) -> int:
    """Write an event in the transaction of the connection; its number.

    Of two transactions that exclude each other until the commit, for one changes a row that the other has
    changed, the later has the higher numbers, if each changes that row first and publishes then.
    """
    values = {name: getattr(row, name) for name in ("event_id", "topic", "body", "at", "trace")}
    number: int = connection.execute(_ADD, values).scalar_one()
    return number


def nudge_relays(connection: Connection) -> None:
    """Wake the relays when this transaction commits. SQLite has no way to; they look every second."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(OUTBOX_CHANNEL, "")))


def read_backlog(connection: Connection) -> Backlog:
    """What has not been sent."""
    unsent = select(func.count(), func.min(saga_outbox.c.at)).where(saga_outbox.c.sent_at.is_(None))
    count, since = connection.execute(unsent).one()
    return Backlog(count, since)


def read_unsent(connection: Connection, limit: int) -> list[OutboxRow]:
    """Events that have not been sent, by number."""
    return [_outbox_row(row) for row in connection.execute(_UNSENT, {"most": limit, "after": 0})]


def _mark(
    connection: Connection, taken: Sequence[OutboxRow], confirmed: Sequence[bool], now: datetime
) -> int:
    numbers = [row.number for row, sent in zip(taken, confirmed, strict=True) if sent]
    if numbers:
        sent = update(saga_outbox).where(saga_outbox.c.number.in_(numbers)).values(sent_at=now)
        connection.execute(sent)
    return len(numbers)


def _outbox_row(row: Row[Any]) -> OutboxRow:
    return OutboxRow(row.event_id, row.topic, row.body, row.at, row.number, row.sent_at, row.trace)
