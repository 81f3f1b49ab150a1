"""How every page answers: HTML or JSON, 304 for what is known already, errors in the same look, headers."""

from __future__ import annotations

import hashlib
import json as json_
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from flask import Blueprint, Response, current_app, redirect, render_template, request
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as BaseResponse

from sagas_framework.console.desk import RELEASE, Desk
from sagas_framework.console.problem import Problem
from sagas_framework.errors import UnknownRun
from sagas_framework.storage.engine import is_unavailable, reading
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.reads import newest

logger = logging.getLogger(__name__)

SECONDS_SHOWN: Final = 5
"""Ages are as fresh as this where nothing else changes."""

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; object-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}


def wants_html() -> bool:
    """Whether the client prefers HTML. JSON is for who does not say (curl), or takes either."""
    return request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html"


def page(
    template: str,
    json: Callable[[], Any],
    *,
    title: str,
    status: int = 200,
    live: int | None = None,
    refresh: int | None = None,
    live_state: str | None = None,
    tag: str | None = None,
    **context: Any,
) -> Response:
    """A page, as HTML or as JSON.

    Args:
        template: extends ``saga_console/base.html``.
        json: gives the same as plain JSON; only called when that is wanted.
        live: after how many milliseconds to ask again; None: never.
        refresh: the same in seconds without scripts; only for pages without text fields.
        live_state: ``ended`` if nothing will change any more.
        tag: of `etag`, with which the client can ask whether anything changed.
        context: of the template.
    """
    if wants_html():
        body = render_template(
            template, title=title, live=live, refresh=refresh, live_state=live_state, **context
        )
        response = Response(body, status, mimetype="text/html")
    else:
        response = as_json(json(), status)
    if tag is not None:
        response.set_etag(tag, weak=True)
    return response


def as_json(value: Any, status: int = 200) -> Response:
    """Plain JSON, in the order in which it was put together."""
    return Response(json_.dumps(value, ensure_ascii=False) + "\n", status, mimetype="application/json")


def see_other(address: str) -> BaseResponse:
    """303: what was asked is stored; what became of it is there."""
    return redirect(address, 303)


# ---- known already --------------------------------------------------------------------------------


def etag(desk: Desk, *parts: object, now: datetime | None = None) -> str:
    """A tag that changes when the page does: address, form, visitor, release, and `parts`.

    Args:
        now: given if the page shows ages: then it changes every `SECONDS_SHOWN`.
    """
    clock = None if now is None else int(now.timestamp()) // SECONDS_SHOWN
    form = desk.guard.tag() if wants_html() else "json"
    known = [request.full_path, request.script_root, form, RELEASE, clock, *parts]
    return hashlib.sha256(repr(known).encode()).hexdigest()[:32]


def newest_of_all(desk: Desk) -> tuple[int, str]:
    """What changes whenever any saga does: two reads along an index."""
    with reading(desk.sagas.engine) as connection:
        return newest(connection)


def unchanged(tag: str) -> Response | None:
    """304 if the client has the page with this tag, else None."""
    if not request.if_none_match.contains_weak(tag):
        return None
    response = Response(status=304)
    response.set_etag(tag, weak=True)
    return response


# ---- problems -------------------------------------------------------------------------------------


def problem(status: int, error: str, do: str) -> Response:
    """An error as a page in the same look, or as JSON ``{"error", "do"}``."""
    return page(
        "saga_console/problem.html",
        lambda: {"error": error, "do": do},
        title=f"{status}",
        status=status,
        error=error,
        do=do,
    )


def add_answers(blueprint: Blueprint, desk: Desk) -> None:
    """Errors of the blueprint's own pages, and headers. Other pages of the application are not touched."""

    @blueprint.errorhandler(Problem)
    def told(error: Problem) -> Response:
        return problem(error.status, error.error, error.do)

    @blueprint.errorhandler(UnknownRun)
    def unknown(error: UnknownRun) -> Response:
        return problem(
            404, f"No saga has the id {error.saga_id!r} in this database", "Look for it in the list of sagas"
        )

    @blueprint.errorhandler(SQLAlchemyError)
    @blueprint.errorhandler(StoreUnavailable)
    def away(error: Exception) -> Response:
        service = desk.sagas.service
        logger.error("the database of %s failed: %s", service, error)
        if isinstance(error, StoreUnavailable) or is_unavailable(error):
            told = f"The database of {service} cannot be reached, or is busy"
        else:
            told = f"The database of {service} does not do what we ask ({type(error).__name__})"
        return problem(
            503,
            told,
            f"`saga -A {service}.worker health` says what is wrong. If you acted: look whether it was taken "
            "before you repeat it",
        )

    @blueprint.errorhandler(HTTPException)
    def http(error: HTTPException) -> BaseResponse | HTTPException:
        if error.response is not None:  # made by the application, such as the way to its login
            return error
        status = error.code or 500
        if status >= 500:
            return problem(status, error.name, f"The log of {desk.sagas.service} says what happened")
        response = problem(status, error.name, str(error.description or "Go back to the list").rstrip("."))
        for name, value in error.get_headers():
            if name.lower() != "content-type":
                response.headers[name] = value
        return response

    @blueprint.after_request
    def headers(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint != f"{request.blueprint}.static":
            response.vary.add("Accept")
            response.vary.add("Cookie")
            response.cache_control.no_store = True
            desk.guard.set_cookie(response)
        elif not current_app.debug and "v" in request.args:
            response.cache_control.public = True
            response.cache_control.max_age = 86400
        return response
