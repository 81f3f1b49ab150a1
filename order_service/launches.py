"""The launches of the homepage: orders that show, one each, how a saga can end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from app_common.magic import DECLINED_CUSTOMER, INCORRECT_QUANTITY, Dish
from app_common.money import written
from app_common.settings import approval_settings
from order_service.orders import Line, NewOrder
from order_service.processing import NewProcessingOrder

COMPLETED: Final = "Every step is done"
COMPENSATED: Final = "What was done is undone"
PARKED: Final = "It needs a person"
APPROVER: Final = "An approver decides"
EITHER: Final = "Decided by chance"
ENDS: Final = (COMPLETED, APPROVER, COMPENSATED, PARKED, EITHER)


CREATE: Final = "create_order"
PROCESS: Final = "process_order"
SAGAS: Final = {
    CREATE: (
        "Create an order",
        "Verify the consumer, create a kitchen ticket, authorize the card, approve ticket and order.",
    ),
    PROCESS: (
        "Process an order",
        "Reserve the items, have it approved if it is expensive, charge, ship; tell the customer each time.",
    ),
}
"""``saga -> (title, what it does)``."""

APPROVALS: Final = "approvals"
SHIPPING: Final = "shipping"
LOGIN: Final = "login"
PLACES: Final = (APPROVALS, SHIPPING, LOGIN)


@dataclass(frozen=True)
class Beside:
    """What a person does for a launch to end as it says.

    Args:
        do: as an imperative.
        at: one of `PLACES`.
        first: whether it comes before the launch.
    """

    do: str
    at: str
    first: bool = False


@dataclass(frozen=True)
class Launch:
    """A button of the homepage.

    Args:
        path: where to POST; its name says how the saga ends.
        ends: the group in which the homepage shows it.
        shows: what to look for in the saga's history.
        order: makes the order; its class says which saga processes it.
        beside: what a person does besides, and where (one of `PLACES`); None if nothing.
        approve_within: how long the order waits for an approval; None: as long as the setting says.
        approved: said together with the order, in the name of who launches it.
    """

    path: str
    title: str
    ends: str
    shows: str
    order: Callable[[], NewOrder | NewProcessingOrder]
    beside: Beside | None = None
    approve_within: timedelta | None = None
    approved: bool = False

    @property
    def saga(self) -> str:
        """The saga that it launches."""
        return CREATE if isinstance(self.order(), NewOrder) else PROCESS


def preview(launch: Launch) -> dict[str, Any]:
    """What a launch would do, as plain JSON: nothing is launched.

    Shape: ``path``, ``title``, ``saga``, ``ends`` (one of `ENDS`), ``shows``, ``order`` (as for
    ``POST /orders`` or ``POST /processing/orders``), ``drawn_anew`` (whether each launch draws another order,
    so that this one is an example), ``first`` (what a person does before, or None), ``do``, ``then`` (what a
    person does afterwards, or None).
    """
    beside = launch.beside
    return {
        "path": launch.path,
        "title": launch.title,
        "saga": launch.saga,
        "ends": launch.ends,
        "shows": launch.shows,
        "order": launch.order().model_dump(mode="json"),
        "drawn_anew": launch.ends == EITHER,
        "first": beside.do if beside and beside.first else None,
        "do": "POST to launch",
        "then": beside.do if beside and not beside.first else None,
    }


def an_order(
    *, consumer_id: int = 70, card_id: int = 1, price: int = 20, dish: str = Dish.PLAIN, quantity: int = 2
) -> NewOrder:
    """An order that is approved, unless told otherwise."""
    return NewOrder(
        consumer_id=consumer_id,
        card_id=card_id,
        price=Decimal(price),
        items=[Line(name=dish, quantity=quantity), Line(name=Dish.PLAIN_TOO, quantity=1)],
    )


def a_processing_order(
    *,
    customer: str = "Riley",
    items: tuple[str, ...] = ("milk", "bread"),
    total: str = "5.25",
) -> NewProcessingOrder:
    """An order from the stock that goes through, unless told otherwise."""
    return NewProcessingOrder(customer=customer, items=list(items), total=Decimal(total))


def an_expensive_order(customer: str) -> NewProcessingOrder:
    """An order that needs an approval, whatever the setting says is expensive."""
    total = max(Decimal(1299), approval_settings().threshold)
    return a_processing_order(customer=customer, items=("iPhone",), total=written(total))


def random_order() -> NewOrder:
    """An order of which nobody knows how it ends; about one in four is approved."""
    return an_order(
        consumer_id=random.randint(1, 100),
        card_id=random.randint(1, 5),
        price=random.randint(1, 100),
        dish=Dish.SOMETIMES_APPROVED,
    )


LAUNCHES: Final = (
    Launch(
        "/run-random-saga",
        "A random order",
        EITHER,
        "One in four is approved; approving its ticket fails 3 times in 10.",
        random_order,
    ),
    Launch(
        "/run-success-saga",
        "An order that is approved",
        COMPLETED,
        "Every step of the saga, in order.",
        an_order,
    ),
    Launch(
        "/run-saga-failing-on-consumer-verification-because-of-incorrect-id",
        "The consumer has an incorrect id",
        COMPENSATED,
        "A refusal at the first service: there is only the order to reject.",
        lambda: an_order(consumer_id=10),
    ),
    Launch(
        "/run-saga-where-orchestrator-code-fails",
        "The orchestrator's own code fails",
        COMPENSATED,
        "A bug of ours in mid-saga is undone like a refusal.",
        lambda: an_order(quantity=INCORRECT_QUANTITY),
    ),
    Launch(
        "/run-saga-failing-on-card-authorization",
        "The card is not authorized",
        COMPENSATED,
        "A refusal by the last service: the ticket is rejected, then the order.",
        lambda: an_order(price=80),
    ),
    Launch(
        "/run-saga-where-restaurant-never-answers",
        "The restaurant never answers",
        COMPENSATED,
        "A step that was not answered may have happened, so it is undone as well.",
        lambda: an_order(dish=Dish.NEVER_ANSWERED),
    ),
    Launch(
        "/run-saga-failing-on-ticket-approval",
        "The ticket is never approved",
        COMPENSATED,
        "Three tries in 15 seconds; then the money is let go again.",
        lambda: an_order(dish=Dish.NEVER_APPROVED),
    ),
    Launch(
        "/run-saga-where-compensation-fails-and-recovers",
        "Undoing fails twice, then recovers",
        COMPENSATED,
        "Rejecting the ticket takes three tries; nothing else is held up.",
        lambda: an_order(price=80, dish=Dish.HARD_TO_REJECT),
    ),
    Launch(
        "/run-saga-that-needs-a-person",
        "Undoing is refused",
        PARKED,
        "The kitchen must be called; then you have its ticket rejected once more.",
        lambda: an_order(price=80, dish=Dish.NEEDS_A_CALL),
    ),
    Launch(
        "/run-order-that-needs-no-approval",
        "A small order",
        COMPLETED,
        "Nobody is asked: it is below what needs an approval.",
        a_processing_order,
    ),
    Launch(
        "/run-order-that-is-approved-early",
        "An order approved before it asks",
        COMPLETED,
        "The approval is said together with the order, kept, and taken when the saga gets there.",
        lambda: an_expensive_order("Casey"),
        beside=Beside("Log in as an approver", LOGIN, first=True),
        approved=True,
    ),
    Launch(
        "/run-order-to-approve",
        "An order to approve",
        APPROVER,
        "It waits, with its item reserved; approved, it is charged and shipped.",
        lambda: an_expensive_order("Riley"),
        beside=Beside("Approve it on the approvals page", APPROVALS),
    ),
    Launch(
        "/run-order-to-reject",
        "An order to reject",
        APPROVER,
        "A business no: its item is put back and the customer told.",
        lambda: an_expensive_order("Robin"),
        beside=Beside("Reject it on the approvals page", APPROVALS),
    ),
    Launch(
        "/run-order-that-nobody-approves",
        "Nobody decides in time",
        COMPENSATED,
        "Its deadline is 20 seconds away: let it pass.",
        lambda: an_expensive_order("Morgan"),
        approve_within=timedelta(seconds=20),
    ),
    Launch(
        "/run-order-for-what-is-out-of-stock",
        "Out of stock",
        COMPENSATED,
        "Of two items one is not there, so neither is reserved.",
        lambda: a_processing_order(customer="Jamie", items=("milk", "unicorn")),
    ),
    Launch(
        "/run-order-with-a-refused-payment",
        "The payment is refused",
        COMPENSATED,
        "The customer has no money: the reserved items are put back.",
        lambda: a_processing_order(customer=DECLINED_CUSTOMER),
    ),
    Launch(
        "/run-order-while-shipping-is-in-maintenance",
        "Shipping is in maintenance",
        COMPENSATED,
        "Charged, then not shipped: the payment is refunded, the items are put back.",
        lambda: a_processing_order(customer="Alex"),
        beside=Beside("Begin maintenance on the shipping page", SHIPPING, first=True),
    ),
)
