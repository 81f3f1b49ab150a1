"""How each launch of the homepage ends: what JSON, history, rows and command line must say, all the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sagas_framework.core.ids import operation_id
from tests.acceptance.application import Application


@dataclass(frozen=True)
class Ending:
    """A launch and its end.

    Args:
        outcome: kind, name and step of the outcome.
        history: entries, in this order; others may stand between them.
        order, ticket, authorization: status of the rows; None where there must be none.
    """

    path: str
    status: str
    outcome: tuple[str, str, str]
    history: tuple[str, ...]
    order: str
    ticket: str | None
    authorization: str | None

    @property
    def name(self) -> str:
        return self.path.removeprefix("/run-")


def _did(step: str) -> tuple[str, str]:
    return f"{step}.running", f"{step}.succeeded"


def _undid(*steps: str) -> tuple[str, ...]:
    return tuple(f"{step}.{word}" for step in steps for word in ("compensating", "compensated"))


_VERIFIED: Final = ("started", *_did("reject_order"), *_did("verify_consumer_details"))
_TICKET_OPENED: Final = (*_VERIFIED, *_did("create_restaurant_ticket"))
_AUTHORIZED: Final = (*_TICKET_OPENED, *_did("authorize_card"))
_REJECTED: Final = (*_undid("verify_consumer_details", "reject_order"), "compensated")
_TICKET_REJECTED: Final = (*_undid("create_restaurant_ticket"), *_REJECTED)
_APPROVAL: Final = "approve_restaurant_ticket"
_TRIED_AGAIN: Final = (
    "create_restaurant_ticket.compensating",
    "create_restaurant_ticket.compensation_failed",
)

ENDINGS: Final = (
    Ending(
        "/run-success-saga",
        "completed",
        ("ok", "", ""),
        (*_AUTHORIZED, *_did(_APPROVAL), *_did("approve_order"), "completed"),
        order="approved",
        ticket="APPROVED",
        authorization="AUTHORIZED",
    ),
    Ending(
        "/run-saga-failing-on-consumer-verification-because-of-incorrect-id",
        "compensated",
        ("refused", "IncorrectConsumerId", "verify_consumer_details"),
        (
            "started",
            *_did("reject_order"),
            "verify_consumer_details.running",
            "verify_consumer_details.failed",
            *_undid("reject_order"),
            "compensated",
        ),
        order="rejected",
        ticket=None,
        authorization=None,
    ),
    Ending(
        "/run-saga-where-orchestrator-code-fails",
        "compensated",
        ("failed", "KeyError", "create_restaurant_ticket"),
        (*_VERIFIED, "create_restaurant_ticket.running", "create_restaurant_ticket.failed", *_REJECTED),
        order="rejected",
        ticket=None,
        authorization=None,
    ),
    Ending(
        "/run-saga-failing-on-card-authorization",
        "compensated",
        ("refused", "InsufficientBalance", "authorize_card"),
        (*_TICKET_OPENED, "authorize_card.running", "authorize_card.failed", *_TICKET_REJECTED),
        order="rejected",
        ticket="REJECTED",
        authorization=None,
    ),
    Ending(
        "/run-saga-where-restaurant-never-answers",
        "compensated",
        ("expired", "NoAnswer", "create_restaurant_ticket"),
        (
            *_VERIFIED,
            "create_restaurant_ticket.running",
            "create_restaurant_ticket.failed",
            *_TICKET_REJECTED,
        ),
        order="rejected",
        ticket=None,
        authorization=None,
    ),
    Ending(
        "/run-saga-where-compensation-fails-and-recovers",
        "compensated",
        ("refused", "InsufficientBalance", "authorize_card"),
        (
            *_TICKET_OPENED,
            "authorize_card.running",
            "authorize_card.failed",
            *_TRIED_AGAIN,
            *_TRIED_AGAIN,
            *_TICKET_REJECTED,
        ),
        order="rejected",
        ticket="REJECTED",
        authorization=None,
    ),
    # The last one: its pauses take 15 s.
    Ending(
        "/run-saga-failing-on-ticket-approval",
        "compensated",
        ("failed", "OSError", _APPROVAL),
        (
            *_AUTHORIZED,
            f"{_APPROVAL}.running",
            f"{_APPROVAL}.attempt_failed",
            f"{_APPROVAL}.running",
            f"{_APPROVAL}.attempt_failed",
            f"{_APPROVAL}.running",
            f"{_APPROVAL}.attempt_failed",
            f"{_APPROVAL}.settling",
            f"{_APPROVAL}.failed",
            *_undid("authorize_card"),
            *_TICKET_REJECTED,
        ),
        order="rejected",
        ticket="REJECTED",
        authorization="REVERSED",
    ),
)
"""All launches but the random one, whose end nobody knows."""

RANDOM: Final = "/run-random-saga"
PARKS: Final = "/run-saga-that-needs-a-person"
PATHS: Final = (*(ending.path for ending in ENDINGS), RANDOM, PARKS)
"""The launches of `create_order`."""

OF_ITEMS: Final = {
    "/run-order-that-needs-no-approval": "completed",
    "/run-order-that-is-approved-early": "completed",
    "/run-order-to-approve": "waits",
    "/run-order-to-reject": "the same; *reject* it",
    "/run-order-that-nobody-approves": "compensated",
    "/run-order-for-what-is-out-of-stock": "compensated",
    "/run-order-with-a-refused-payment": "compensated",
    "/run-order-while-shipping-is-in-maintenance": "compensated",
}
"""The launches of `process_order`, and how their endings are told: `test_processing` sees them end."""


def assert_ended_as_meant(saga: Any, ending: Ending) -> None:
    """The saga ended as the launch's name says, and its history says so step by step."""
    assert saga["saga"] == "create_order"
    assert saga["status"] == ending.status
    outcome = saga["outcome"]
    assert (outcome["kind"], outcome["name"], outcome["step"]) == ending.outcome
    assert missing_in_order([line["entry"] for line in saga["history"]], ending.history) is None
    assert saga["history"][-1]["entry"] == ending.status


def missing_in_order(entries: Sequence[str], wanted: Iterable[str]) -> str | None:
    """The first of the wanted entries that does not come after the one wanted before it; None if all do."""
    rest = iter(entries)
    return next((entry for entry in wanted if entry not in rest), None)


def assert_rows_agree(
    application: Application, saga: Any, *, order: str, ticket: str | None, authorization: str | None
) -> None:
    """The rows of all services say what the saga's JSON says: this much, and no more."""
    state = saga["state"]
    rows = application.query(
        "order_service",
        "SELECT status, restaurant_ticket_id, transaction_id FROM orders WHERE id = :id",
        id=state["order_id"],
    )
    assert [tuple(row) for row in rows] == [(order, state["ticket_id"], state["transaction_id"])]

    tickets = application.query(
        "restaurant_service",
        "SELECT id, operation_key, status FROM tickets WHERE order_id = :id",
        id=state["order_id"],
    )
    opened_by = operation_id(saga["id"], "create_restaurant_ticket")
    assert [tuple(row) for row in tickets] == (
        [(state["ticket_id"], opened_by, ticket)] if ticket is not None else []
    )

    authorizations = application.query(
        "accounting_service",
        "SELECT id, status FROM authorizations WHERE operation_key = :key",
        key=operation_id(saga["id"], "authorize_card"),
    )
    assert [tuple(row) for row in authorizations] == (
        [(state["transaction_id"], authorization)] if authorization is not None else []
    )


def assert_rows_are_settled(application: Application, saga: Any) -> None:
    """The same for a saga of which only the status is known: every effect is kept, or every one undone.

    One that was not answered may have opened a ticket of which it does not know: that is undone, too.
    """
    if saga["status"] == "completed":
        assert_rows_agree(application, saga, order="approved", ticket="APPROVED", authorization="AUTHORIZED")
        return
    assert saga["status"] == "compensated"
    order_id = saga["state"]["order_id"]
    ((order,),) = application.query("order_service", "SELECT status FROM orders WHERE id = :id", id=order_id)
    tickets = application.query(
        "restaurant_service", "SELECT status FROM tickets WHERE order_id = :id", id=order_id
    )
    authorizations = application.query(
        "accounting_service",
        "SELECT status FROM authorizations WHERE operation_key = :key",
        key=operation_id(saga["id"], "authorize_card"),
    )
    assert order == "rejected"
    assert [row[0] for row in tickets] in ([], ["REJECTED"])
    assert [row[0] for row in authorizations] in ([], ["REVERSED"])
