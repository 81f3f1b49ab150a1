"""What the order service answers when it says no; see `app_common.web.errors`."""

from __future__ import annotations

from flask import Flask, Response

from app_common.web.errors import add_error_handlers as add_common_handlers
from app_common.web.errors import problem
from order_service.once import KeyReused
from order_service.orders import SagaArchived, UnknownOrder
from order_service.processing import DecidedAlready, DecisionKeyReused, NeedsNoApproval
from sagas_framework import UnknownRun


def add_error_handlers(app: Flask) -> None:
    """Answer every error of the application, as a page or as JSON."""
    add_common_handlers(
        app,
        "order_service",
        cannot=lambda error: f"The {error.title} cannot be taken",
        look="look at / whether the order was taken before you repeat it, or repeat it with the same "
        "Idempotency-Key",
    )
    app.register_error_handler(KeyReused, key_reused)
    app.register_error_handler(UnknownOrder, unknown_order)
    app.register_error_handler(SagaArchived, saga_archived)
    app.register_error_handler(UnknownRun, unknown_saga)
    app.register_error_handler(NeedsNoApproval, needs_no_approval)
    app.register_error_handler(DecidedAlready, decided_already)
    app.register_error_handler(DecisionKeyReused, decision_key_reused)


def key_reused(error: KeyReused) -> Response:
    return problem(
        409,
        str(error),
        "Take a new key for a new order; to ask what became of the first, send what was sent with it",
    )


def unknown_order(error: UnknownOrder) -> Response:
    return problem(404, str(error), "The answer to the POST that took an order has its id")


def saga_archived(error: SagaArchived) -> Response:
    return problem(
        410, str(error), f"Ask who runs this; they look with: saga -A order_service.worker show {error.key}"
    )


def unknown_saga(error: UnknownRun) -> Response:
    return problem(404, str(error), "See / for the latest sagas")


def needs_no_approval(error: NeedsNoApproval) -> Response:
    return problem(409, str(error), "Leave it: it is processed without an approval")


def decided_already(error: DecidedAlready) -> Response:
    return problem(409, str(error), "Look at the order to see how it goes on")


def decision_key_reused(error: DecisionKeyReused) -> Response:
    return problem(409, str(error), "Take a new Idempotency-Key for a new decision")
