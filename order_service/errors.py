"""What the web answers when it says no: JSON with what was wrong (`error`) and what to do (`do`)."""

from __future__ import annotations

import logging
from typing import Any

from flask import Flask, Response, jsonify, request
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from order_service.orders import KeyReused, UnknownOrder
from sagas_framework import UnknownRun

logger = logging.getLogger(__name__)


class Refusal(Exception):
    """A request that is not obeyed; nothing was stored."""

    def __init__(self, status: int, error: str, do: str) -> None:
        super().__init__(error)
        self.status = status
        self.do = do


def add_error_handlers(app: Flask) -> None:
    """Answer every error of the application in this form."""
    app.register_error_handler(Refusal, refused)
    app.register_error_handler(ValidationError, invalid)
    app.register_error_handler(KeyReused, key_reused)
    app.register_error_handler(UnknownOrder, unknown_order)
    app.register_error_handler(UnknownRun, unknown_saga)
    app.register_error_handler(HTTPException, http_error)
    app.register_error_handler(SQLAlchemyError, database_trouble)


def problem(status: int, error: str, do: str, **more: Any) -> Response:
    response = jsonify(error=error, **more, do=do)
    response.status_code = status
    response.cache_control.no_store = True
    return response


def refused(refusal: Refusal) -> Response:
    return problem(refusal.status, str(refusal), refusal.do)


def invalid(error: ValidationError) -> Response:
    """An order that cannot be taken: every field that is wrong, by its path. What is no JSON has none."""
    errors = error.errors(include_url=False, include_context=False, include_input=False)
    if [one["type"] for one in errors] == ["json_invalid"]:
        return problem(400, f"The body is not JSON: {_told(errors[0])}", "Send one JSON object, in UTF-8")
    fields = [
        {"field": ".".join(map(str, one["loc"])) or "$", "problem": _told(one)}  # $: the body as a whole
        for one in errors
    ]
    return problem(422, "The order cannot be taken", "Mend the fields and send it again", fields=fields)


def _told(error: Any) -> str:
    told: str = error["msg"]
    return told.removeprefix("Value error, ").removeprefix("Invalid JSON: ")


def key_reused(error: KeyReused) -> Response:
    return problem(
        409,
        str(error),
        "Take a new key for a new order; to ask what became of the first, send what was sent with it",
    )


def unknown_order(error: UnknownOrder) -> Response:
    return problem(404, str(error), "POST /orders answers with the id of the order that it took")


def unknown_saga(error: UnknownRun) -> Response:
    return problem(404, str(error), "See / for the latest sagas")


def http_error(error: HTTPException) -> Response:
    """An error of the web framework: an unknown path, a wrong method, or a bug of ours."""
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        methods = ", ".join(sorted(error.valid_methods or ()))
        response = problem(status, f"{request.method} is not allowed on {request.path}", f"Use {methods}")
        response.headers["Allow"] = methods
        return response
    if status >= 500:
        return problem(status, error.name, "The log of order_service says what happened")
    return problem(status, error.name, "See / for what there is")


def database_trouble(error: SQLAlchemyError) -> Response:
    logger.error("the database of order_service failed: %s", error)
    return problem(
        503,
        f"The database of order_service failed ({type(error).__name__})",
        "See that it runs and that `saga -A order_service.worker db upgrade` was run; then look at / whether "
        "the order was taken before you repeat it, or repeat it with the same Idempotency-Key",
    )
