"""Customers and an approver of the second journey, over HTTP: who orders what, and what must come of it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from itertools import cycle, islice
from typing import Any, Final

from app_common.magic import DECLINED_CUSTOMER
from tests.servers import wait_until

APPROVER: Final = "chris"
TOKEN: Final = "0123456789abcdef0123456789abcdef"
SCARCE: Final = "iPhone"
"""There are ten, as the catalogue has it at first; of everything else there is enough."""
AT_ONCE: Final = 2  # of the scarce item that an order wants
PLENTY: Final = ("milk", "bread", "apples", "oranges")

_ANSWERED_WITHIN: Final = 30.0  # seconds
_WAITS_WITHIN: Final = 180.0


class Kind(StrEnum):
    """How an order should end."""

    AUTOMATIC = "nobody needs to approve it"
    APPROVED = "approved while it waits"
    EARLY = "approved before it waits"
    REJECTED = "rejected"
    EXPIRED = "nobody decides in time"
    SCARCE = "it wants of an item that is scarce"
    OUT_OF_STOCK = "it wants an item that nobody has"
    UNPAID = "its payment is refused"
    IN_MAINTENANCE = "it comes while nothing is shipped"


MIXED: Final = (
    *(Kind.AUTOMATIC, Kind.APPROVED, Kind.REJECTED, Kind.EXPIRED, Kind.EARLY),
    *(Kind.SCARCE, Kind.OUT_OF_STOCK, Kind.UNPAID, Kind.APPROVED, Kind.AUTOMATIC),
)

ENDS: Final[Mapping[Kind, tuple[str, str, str]]] = {
    Kind.AUTOMATIC: ("completed", "ok", ""),
    Kind.APPROVED: ("completed", "ok", ""),
    Kind.EARLY: ("completed", "ok", ""),
    Kind.REJECTED: ("compensated", "refused", "approval"),
    Kind.EXPIRED: ("compensated", "expired", "approval"),
    Kind.OUT_OF_STOCK: ("compensated", "refused", "reserve_items"),
    Kind.UNPAID: ("compensated", "refused", "charge"),
    Kind.IN_MAINTENANCE: ("compensated", "refused", "ship_order"),
}
"""The saga's status, and the outcome's kind and step. A scarce order completes or is out of stock."""

_RECEIVED: Final = "Received order for "
_RESERVED: Final = "Reserved inventory for order: "
_WAITING: Final = "Waiting for approval since order >= 1000.00. Deadline = "
_APPROVED: Final = f"Order was approved by {APPROVER}."
_PAID: Final = "Payment was processed successfully"
_SHIPPED: Final = "Order submitted for shipping"
_GONE: Final = (_RECEIVED, "Inventory failed for order: Out of stock: ")

TOLD: Final[Mapping[Kind, Sequence[str]]] = {
    Kind.AUTOMATIC: (_RECEIVED, _RESERVED, _PAID, _SHIPPED),
    Kind.APPROVED: (_RECEIVED, _RESERVED, _WAITING, _APPROVED, _PAID, _SHIPPED),
    Kind.EARLY: (_RECEIVED, _RESERVED, _WAITING, _APPROVED, _PAID, _SHIPPED),
    Kind.REJECTED: (_RECEIVED, _RESERVED, _WAITING, f"Order was rejected by {APPROVER}."),
    Kind.EXPIRED: (_RECEIVED, _RESERVED, _WAITING, "Approval deadline expired."),
    Kind.OUT_OF_STOCK: _GONE,
    Kind.UNPAID: (_RECEIVED, _RESERVED, "Payment failed for order: "),
    Kind.IN_MAINTENANCE: (
        *(_RECEIVED, _RESERVED, _PAID),
        *("Error submitting order for shipping: ", "Payment is being refunded", "Payment of "),
    ),
}
"""How each message begins that the customer gets, none twice and no other."""


@dataclass(frozen=True)
class Wanted:
    """An order, before it is one."""

    number: int
    kind: Kind

    @property
    def total(self) -> Decimal:
        """Of each order another, so that no two can be mistaken for each other in a sum."""
        needs_approval = self.kind in (Kind.APPROVED, Kind.EARLY, Kind.REJECTED, Kind.EXPIRED)
        return Decimal(1000 if needs_approval else 10) + Decimal(self.number) / 100

    @property
    def items(self) -> list[str]:
        """Some twice. Of most kinds all can be had."""
        if self.kind is Kind.SCARCE:
            return [SCARCE] * AT_ONCE
        first = PLENTY[self.number % len(PLENTY)]
        others = ["unobtainium"] if self.kind is Kind.OUT_OF_STOCK else [first, "milk"]
        return [first, *others]

    @property
    def customer(self) -> str:
        return DECLINED_CUSTOMER if self.kind is Kind.UNPAID else f"Customer {self.number}"


def mixed(count: int, first: int) -> list[Wanted]:
    """So many orders of all kinds in turn, but for those that come while nothing is shipped."""
    return [Wanted(first + place, kind) for place, kind in enumerate(islice(cycle(MIXED), count))]


class Market:
    """The front door, with customers at it.

    Args:
        port: of the order service.
        hasty: of another process of it, where orders must be approved at once or never.
    """

    def __init__(self, port: int, hasty: int) -> None:
        self._port, self._hasty = port, hasty
        for one in (port, hasty):
            wait_until(lambda one=one: self._opens(one), "the order service answers", 60)  # type: ignore[misc]

    def order_all(self, wanted: Sequence[Wanted], seconds: float) -> dict[str, Wanted]:
        """Have them ordered one after the other within this time, and decided; by the order's id."""
        begun = time.monotonic()

        def serve(place: int, one: Wanted) -> str:
            time.sleep(max(0.0, begun + seconds * place / len(wanted) - time.monotonic()))
            return self._order(one)

        with ThreadPoolExecutor(16) as pool:
            ids = pool.map(serve, range(len(wanted)), wanted)
            return dict(zip(ids, wanted, strict=True))

    def _order(self, wanted: Wanted) -> str:
        port = self._hasty if wanted.kind is Kind.EXPIRED else self._port
        body = {"customer": wanted.customer, "items": wanted.items, "total": str(wanted.total)}
        order_id: str = self._ask(port, "/processing/orders", body)["order_id"]
        if wanted.kind in (Kind.APPROVED, Kind.REJECTED):
            until = f"{order_id} waits for its approval"
            wait_until(lambda: self._waits(order_id), until, _WAITS_WITHIN)
        if wanted.kind in (Kind.APPROVED, Kind.REJECTED, Kind.EARLY):
            decision = {"approver": APPROVER, "approved": wanted.kind is not Kind.REJECTED}
            self._ask(self._port, f"/processing/orders/{order_id}/approve", decision)
        return order_id

    def _waits(self, order_id: str) -> bool:
        time.sleep(0.2)  # it is asked for many orders at once
        waits: bool = self._ask(self._port, f"/processing/orders/{order_id}")["approval"]["waiting"]
        return waits

    @staticmethod
    def _ask(port: int, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What is answered.

        Raises:
            AssertionError: it is a refusal.
        """
        headers = {"Accept": "application/json", "Authorization": f"Bearer {TOKEN}"}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
        try:
            with urllib.request.urlopen(request, timeout=_ANSWERED_WITHIN) as response:
                return json.load(response)
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{path}: {refused.code} {refused.read().decode()}") from None

    @staticmethod
    def _opens(port: int) -> bool:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
        except urllib.error.HTTPError:
            return True  # no worker beats yet
        except OSError:
            return False
        return True


def prefixes_of(messages: Sequence[str], expected: Sequence[str]) -> bool:
    """Whether the messages are those, each once, in whatever order."""
    left = list(expected)
    for message in messages:
        begins: Callable[[str], bool] = message.startswith
        found = next((prefix for prefix in left if begins(prefix)), None)
        if found is None:
            return False
        left.remove(found)
    return not left
