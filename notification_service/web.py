"""The notifications' page and API: ``waitress-serve --call notification_service.web:create_app``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from flask import Flask, Response, render_template, request, url_for
from sqlalchemy.orm import Session

from app_common.web.addresses import page_address
from app_common.web.answers import LIVE, as_json
from app_common.web.app import service_app
from app_common.web.errors import Refusal
from notification_service import notifications
from notification_service.handlers import subscriber
from notification_service.models import Audience, Notification
from sagas_framework import reading

_KINDS: Final = ["application/json", "text/html", "text/plain"]
_LONGEST: Final = 100
"""Characters of an order's id."""


def create_app() -> Flask:
    """The Flask application."""
    app, _ = service_app(__name__, subscriber, page="show_notifications")
    app.add_url_rule("/", "show_notifications", show)
    app.add_url_rule("/notifications", "list_notifications", show)
    return app


def show() -> Response:
    """What customers and operators were told, newest first: as a page, as JSON or, oldest first, in lines.

    Raises:
        Refusal: ``audience``, ``order`` or ``before`` cannot be used.
    """
    audience, order, before = _audience(), _order(), request.args.get("before")
    chosen: dict[str, Any] = {"audience": audience and audience.value, "order": order}
    kind = request.accept_mimetypes.best_match(_KINDS, default=_KINDS[0]) or _KINDS[0]
    with reading(subscriber.engine) as connection, Session(connection) as session:
        try:
            found = notifications.page(session, audience=audience, order=order, before=before)
        except ValueError as error:
            raise Refusal(400, f"before={error}", "Follow the link to older notifications") from None
        # Nothing that is kept ever changes, so those that are on a page tell it apart. The highest number of
        # all would not: of two workers the one that got the lower number may commit later.
        shown = (request.full_path, request.script_root, kind, [one.id for one in found.notifications])
        tag = hashlib.sha256(repr((*shown, found.older)).encode()).hexdigest()[:32]
        if request.if_none_match.contains_weak(tag):
            return _tagged(Response(status=304), tag)
        older = found.older and url_for(str(request.endpoint), before=found.older, **chosen)
        return _tagged(_answer(kind, found.notifications, chosen, before, older), tag)


def _answer(
    kind: str,
    found: Sequence[Notification],
    chosen: dict[str, Any],
    before: str | None,
    older: str | None,
) -> Response:
    if kind == "text/plain":
        lines = "".join(f"{notifications.line(one)}\n" for one in reversed(found))
        return Response(lines, mimetype="text/plain")
    if kind == "application/json":
        return as_json({"notifications": [_in_json(one) for one in found], "older": older})
    days = [(day, list(those)) for day, those in groupby(found, key=lambda one: one.at.date())]
    body = render_template(
        "notifications.html",
        title="Notifications",
        days=days,
        number=len(found),
        chosen=chosen,
        audiences=[one.value for one in Audience],
        stock=page_address("inventory_service"),
        before=before,
        older=older,
        live=None if before else LIVE,
    )
    return Response(body, mimetype="text/html")


def _in_json(one: Notification) -> dict[str, Any]:
    return {
        "id": one.id,
        "audience": one.audience.value,
        "order_id": one.order_id,
        "message": one.message,
        "at": one.at.isoformat(),
        "line": notifications.line(one),
    }


def _audience() -> Audience | None:
    """Those whose messages are asked for; None: all.

    Raises:
        Refusal: there are none of this name.
    """
    wanted = request.args.get("audience")
    try:
        return Audience(wanted) if wanted else None
    except ValueError:
        known = " or ".join(Audience)
        raise Refusal(400, f"audience={wanted} is nobody", f"Write {known}, or leave it out") from None


def _order() -> str | None:
    """The order that is asked for; None: all.

    Raises:
        Refusal: no order can be called so.
    """
    order = request.args.get("order", "").strip()
    if len(order) > _LONGEST or "\0" in order:
        raise Refusal(400, "order= is none that an order can have", "Give the id of an order")
    return order or None


def _tagged(response: Response, tag: str) -> Response:
    response.vary.add("Accept")
    response.cache_control.no_cache = True
    response.set_etag(tag, weak=True)
    return response
