"""The launches of the homepage: orders that show, one each, how a saga can end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from app_common.magic import INCORRECT_QUANTITY, Dish
from order_service.orders import Line, NewOrder

COMPLETED: Final = "Every step is done"
COMPENSATED: Final = "What was done is undone"
PARKED: Final = "It needs a person"
EITHER: Final = "Decided by chance"
ENDS: Final = (COMPLETED, COMPENSATED, PARKED, EITHER)


@dataclass(frozen=True)
class Launch:
    """A button of the homepage.

    Args:
        path: where to POST; its name says how the saga ends.
        ends: the group in which the homepage shows it.
        shows: what to look for in the saga's history.
        order: makes the order.
    """

    path: str
    title: str
    ends: str
    shows: str
    order: Callable[[], NewOrder]


def preview(launch: Launch) -> dict[str, Any]:
    """What a launch would do, as plain JSON: nothing is launched.

    Shape: ``path``, ``title``, ``ends`` (one of `ENDS`), ``shows``, ``order`` (as for ``POST /orders``),
    ``drawn_anew`` (whether each launch draws another order, so that this one is an example), ``do``.
    """
    return {
        "path": launch.path,
        "title": launch.title,
        "ends": launch.ends,
        "shows": launch.shows,
        "order": launch.order().model_dump(mode="json"),
        "drawn_anew": launch.ends == EITHER,
        "do": "POST to launch",
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
)
