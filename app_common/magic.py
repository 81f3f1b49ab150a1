"""What decides how an order ends: magic numbers and dish names.

The table is in ``docs/reference/order-platform.md``.

The services look at what is in the order and nowhere else, so that an order ends the same way each
time. One dish brings chance in; only the random launch orders it.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Final

LOWEST_CORRECT_CONSUMER_ID: Final = 50
"""The consumer service refuses consumers below it."""

CARD_LIMIT: Final = Decimal(50)
"""The accounting service refuses this amount and every higher one."""

DECLINED_CUSTOMER: Final = "Penniless Pat"
"""The payment provider charges nothing to this customer, in whatever letters the name is written."""

INCORRECT_QUANTITY: Final = 100500
"""The orchestrator's own code raises on an order for this many of a dish."""

FAILED_APPROVALS: Final = 0.3
"""How often approving a ticket for `Dish.SOMETIMES_APPROVED` fails."""

FAILED_REJECTIONS: Final = 2
"""How many tries of rejecting a ticket for `Dish.HARD_TO_REJECT` fail."""


class Dish(StrEnum):
    """What is on the menu."""

    PLAIN = "Dish 1"
    PLAIN_TOO = "Dish 2"
    SOMETIMES_APPROVED = "Fortune Cookie"  # approving its ticket fails 3 times in 10
    NEVER_APPROVED = "Raw Deal Ramen"  # approving its ticket always fails
    NEVER_ANSWERED = "Silent Soup"  # the restaurant does not answer
    HARD_TO_REJECT = "Boomerang Burger"  # rejecting its ticket fails twice
    NEEDS_A_CALL = "Stubborn Stew"  # rejecting its ticket is refused until a person has it tried again
    OFF_HOURS = "Midnight Moussaka"  # the restaurant is closed
