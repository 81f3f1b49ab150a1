"""The homepage and the API. A request takes an order or reads a row; it never runs a step."""

from __future__ import annotations

import logging

from flask import Flask, Response, jsonify, redirect, render_template, request, url_for
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.wrappers import Response as BaseResponse

from order_service.launches import ENDS, LAUNCHES, Launch
from order_service.orchestrator import sagas
from order_service.orders import NewOrder, place
from sagas_framework import Filter, UnknownRun

logger = logging.getLogger(__name__)


def create_app() -> Flask:
    """The Flask application."""
    app = Flask(__name__)
    app.json.sort_keys = False  # type: ignore[attr-defined]  # steps and fields come in a meaningful order
    app.add_url_rule("/", view_func=homepage)
    app.add_url_rule("/ping", view_func=ping)
    app.add_url_rule("/sagas/<saga_id>", view_func=show_saga)
    app.add_url_rule("/orders", view_func=take_order, methods=["POST"])
    for launch in LAUNCHES:
        app.add_url_rule(
            launch.path, launch.path, view_func=run, methods=["POST"], defaults={"launch": launch}
        )
    app.register_error_handler(HTTPException, refused)
    app.register_error_handler(ValidationError, invalid)
    app.register_error_handler(UnknownRun, unknown)
    app.register_error_handler(SQLAlchemyError, database_trouble)
    return app


# ---- pages ----------------------------------------------------------------------------------------


def homepage() -> str:
    groups = {ends: [launch for launch in LAUNCHES if launch.ends == ends] for ends in ENDS}
    return render_template("home.html", groups=groups, last=sagas.list(Filter(limit=10)))


def ping() -> Response:
    return Response("ping response", mimetype="text/plain")


def show_saga(saga_id: str) -> Response:
    return jsonify(sagas.describe(saga_id))


def run(launch: Launch) -> BaseResponse:
    """Take the launch's order."""
    return _accepted(launch.order())


def take_order() -> BaseResponse:
    """Take an order given as JSON; dishes and numbers that decide how it ends are in the README."""
    return _accepted(NewOrder.model_validate_json(request.get_data()))


def _accepted(order: NewOrder) -> BaseResponse:
    placed = place(order)
    saga = url_for("show_saga", saga_id=placed.saga_id)
    if request.accept_mimetypes.best_match(["application/json", "text/html"]) == "text/html":
        return redirect(saga, 303)  # a browser shows what became of its button
    answer = jsonify(saga_id=placed.saga_id, order_id=placed.order_id)
    answer.status_code = 202
    answer.headers["Location"] = saga
    return answer


# ---- errors ---------------------------------------------------------------------------------------


def _problem(status: int, error: str, do: str) -> Response:
    response = jsonify(error=error, do=do)
    response.status_code = status
    return response


def refused(error: HTTPException) -> Response:
    """An HTTP error, as JSON with what to do."""
    status = error.code or 500
    if isinstance(error, MethodNotAllowed):
        methods = ", ".join(sorted(set(error.valid_methods or ()) - {"OPTIONS", "HEAD"}))
        launches = request.path in {launch.path for launch in LAUNCHES}
        do = "POST to launch" if launches else f"Use {methods}"
        response = _problem(status, f"{request.method} is not allowed on {request.path}", do)
        response.headers["Allow"] = methods
        return response
    if status >= 500:
        return _problem(status, error.name, "The log of order_service says what happened")
    return _problem(status, error.name, "See / for what there is")


def invalid(error: ValidationError) -> Response:
    """An order that cannot be taken."""
    wrong = [
        {"field": ".".join(map(str, one["loc"])) or "$", "problem": one["msg"]}
        for one in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    response = jsonify(
        error="The order cannot be taken", fields=wrong, do="Mend the fields and send it again"
    )
    response.status_code = 422
    return response


def unknown(error: UnknownRun) -> Response:
    return _problem(404, str(error), "See / for the latest sagas")


def database_trouble(error: SQLAlchemyError) -> Response:
    logger.error("the database of order_service failed: %s", error)
    return _problem(
        503,
        f"The database of order_service failed ({type(error).__name__})",
        "See that it runs and that `saga -A order_service.worker db upgrade` was run; then look at / "
        "whether the order was taken before you repeat it",
    )
