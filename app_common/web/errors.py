"""What the web answers when it says no: what was wrong (`error`), and what to do (`do`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed, NotFound

from sagas_framework.console import wants_html

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is not obeyed; nothing was stored."""

    def __init__(self, status: int, error: str, do: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(error)
        self.status = status
        self.do = do
        self.headers = headers or {}


def problem(status: int, error: str, do: str, **more: Any) -> Response:
    """The answer: a page for who prefers HTML, JSON for everybody else."""
    if wants_html():
        page = render_template("platform/problem.html", title=str(status), error=error, do=do, **more)
        response = Response(page, mimetype="text/html")
    else:
        response = jsonify(error=error, **more, do=do)
    response.status_code = status
    response.cache_control.no_store = True
    return response


def wrong_fields(error: ValidationError) -> list[dict[str, str]]:
    """Every field that is wrong, by its path, and its problem; ``$`` is the body as a whole."""
    return [{"field": ".".join(map(str, one["loc"])) or "$", "problem": _told(one)} for one in _errors(error)]


def add_error_handlers(
    app: Flask,
    service: str,
    *,
    cannot: Callable[[ValidationError], str] = lambda _: "The request cannot be taken",
    look: str = "see at / what was stored before you repeat it",
) -> None:
    """Answer every error of the application in one form.

    Args:
        cannot: says that what has wrong fields is not taken.
        look: what to do after trouble with the database, when it runs again.
    """

    def refused(refusal: Refusal) -> Response:
        response = problem(refusal.status, str(refusal), refusal.do)
        response.headers.extend(refusal.headers)
        return response

    def invalid(error: ValidationError) -> Response:
        errors = _errors(error)
        if [one["type"] for one in errors] == ["json_invalid"]:
            return problem(400, f"The body is not JSON: {_told(errors[0])}", "Send one JSON object, in UTF-8")
        return problem(422, cannot(error), "Mend the fields and send it again", fields=wrong_fields(error))

    def http(error: HTTPException) -> Response:
        status = error.code or 500
        if isinstance(error, MethodNotAllowed):
            methods = ", ".join(sorted(error.valid_methods or ()))
            response = problem(status, f"{request.method} is not allowed on {request.path}", f"Use {methods}")
            response.headers["Allow"] = methods
            return response
        if isinstance(error, NotFound):
            return problem(status, f"There is nothing at {request.path}", "See / for what there is")
        if status >= 500:
            return problem(status, error.name, f"The log of {service} says what happened")
        return problem(status, error.name, "See / for what there is")

    def trouble(error: SQLAlchemyError) -> Response:
        logger.error("the database of %s failed: %s", service, error)
        return problem(
            503,
            f"The database of {service} failed ({type(error).__name__})",
            f"See that it runs and that `saga -A {service}.worker db upgrade` was run; then {look}",
        )

    app.register_error_handler(Refusal, refused)
    app.register_error_handler(ValidationError, invalid)
    app.register_error_handler(HTTPException, http)
    app.register_error_handler(SQLAlchemyError, trouble)


def _errors(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_context=False, include_input=False))


def _told(error: Any) -> str:
    told: str = error["msg"]
    return told.removeprefix("Value error, ").removeprefix("Invalid JSON: ")
