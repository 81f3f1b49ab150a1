"""What must be true once the orders have ended, counted in the services' databases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from sagas_framework.core.ids import operation_id


class Disagreement(AssertionError):
    """The databases contradict each other, or what was ordered."""


class Query(Protocol):
    """Rows of a service's database."""

    def __call__(self, service: str, statement: str, **values: Any) -> list[Any]: ...


@dataclass(frozen=True)
class Count:
    """How the orders ended. Tickets and authorizations are as many as were approved."""

    approved: int
    rejected: int
    money: Decimal


@dataclass(frozen=True)
class Mark:
    """Where tables ended before the first order: what is counted came later."""

    orders: int
    tickets: int
    authorizations: int

    @classmethod
    def now(cls, query: Query) -> Mark:
        """The ends as they are."""
        return cls(
            *(
                int(query(service, f"SELECT coalesce(max(id), 0) FROM {table}")[0][0])
                for service, table in (
                    ("order_service", "orders"),
                    ("restaurant_service", "tickets"),
                    ("accounting_service", "authorizations"),
                )
            )
        )


def still_open(query: Query, mark: Mark, wanted: int) -> int:
    """How many orders are not there yet or have a saga that has not ended."""
    (row,) = query(
        "order_service",
        "SELECT count(*) AS orders, "
        "count(*) FILTER (WHERE i.status IN ('completed', 'compensated')) AS ended "
        "FROM orders o LEFT JOIN saga_instance i ON i.key = 'order-' || o.id WHERE o.id > :mark",
        mark=mark.orders,
    )
    return max(wanted, int(row.orders)) - int(row.ended)


def count(query: Query, mark: Mark, prefix: str, prices: Sequence[int]) -> Count:
    """See that what came after the mark agrees, one to one.

    Each ticket and authorization is found by the operation that made it, so that a second one, or one
    of an order that was rejected, cannot hide in a sum.

    Args:
        prefix: of the orders' idempotency keys; the rest of a key is the order's place.
        prices: of the orders, by place.

    Raises:
        Disagreement: something is missing, there twice, left over, or not ended.
    """
    approved, rejected = _orders(query, mark, prefix, prices)
    _tickets(query, mark, approved)
    money = _authorizations(query, mark, approved)
    return Count(len(approved), rejected, money)


def count_told(query: Query, prefix: str, wanted: int) -> None:
    """See that each order was told of once.

    Raises:
        Disagreement: one was not, or more than once, or of one that was not placed.
    """
    rows = query(
        "notification_service",
        "SELECT order_id FROM notifications WHERE starts_with(order_id, :prefix)",
        prefix=prefix,
    )
    due = Counter(f"{prefix}{place}" for place in range(wanted))
    _same("events", Counter(row.order_id for row in rows), due)


def _orders(query: Query, mark: Mark, prefix: str, prices: Sequence[int]) -> tuple[dict[str, Decimal], int]:
    """The approved sagas with the price of their order, and how many were rejected."""
    rows = query(
        "order_service",
        "SELECT o.id, o.status, o.price, o.idempotency_key AS key, i.id AS saga, i.status AS saga_status "
        "FROM orders o LEFT JOIN saga_instance i ON i.key = 'order-' || o.id WHERE o.id > :mark",
        mark=mark.orders,
    )
    due = {f"{prefix}{place}": Decimal(price) for place, price in enumerate(prices)}
    _same("orders", Counter(row.key for row in rows), Counter(due.keys()))
    approved: dict[str, Decimal] = {}
    for row in rows:
        if (row.status, row.saga_status) not in (("approved", "completed"), ("rejected", "compensated")):
            raise Disagreement(f"order {row.id} is {row.status}, its saga {row.saga} is {row.saga_status}")
        if row.price != due[row.key]:
            raise Disagreement(f"order {row.id} costs {row.price}, not {due[row.key]}")
        if row.status == "approved":
            approved[row.saga] = row.price
    return approved, len(rows) - len(approved)


def _tickets(query: Query, mark: Mark, approved: Iterable[str]) -> None:
    rows = query("restaurant_service", "SELECT * FROM tickets WHERE id > :mark", mark=mark.tickets)
    kept = [row for row in rows if row.status != "REJECTED"]
    _same(
        "tickets",
        Counter(row.operation_key for row in kept),
        Counter(operation_id(saga, "create_restaurant_ticket") for saga in approved),
    )
    _once("tickets", rows)
    if waiting := [row.id for row in kept if row.status != "APPROVED"]:
        raise Disagreement(f"tickets of approved orders are not approved: {waiting[:3]}")


def _authorizations(query: Query, mark: Mark, approved: Mapping[str, Decimal]) -> Decimal:
    rows = query(
        "accounting_service",
        "SELECT * FROM authorizations WHERE id > :mark",
        mark=mark.authorizations,
    )
    kept = [row for row in rows if row.status != "REVERSED"]
    expected = {operation_id(saga, "authorize_card"): price for saga, price in approved.items()}
    _same("authorizations", Counter(row.operation_key for row in kept), Counter(expected.keys()))
    _once("authorizations", rows)
    for row in kept:
        if row.amount != expected[row.operation_key]:
            raise Disagreement(f"{row.amount} are authorized where {expected[row.operation_key]} were due")
    return sum((row.amount for row in kept), Decimal(0))


def _same(what: str, found: Counter[str], expected: Counter[str]) -> None:
    missing, extra = expected - found, found - expected
    if missing or extra:
        raise Disagreement(
            f"{what}: {found.total()} there, {expected.total()} due; "
            f"missing: {sorted(missing.elements())[:3]}, too many: {sorted(extra.elements())[:3]}"
        )


def _once(what: str, rows: Iterable[Any]) -> None:
    """What was done twice and taken back once is not there any more, and was done twice all the same."""
    made = Counter(row.operation_key for row in rows)
    if twice := sorted(key for key, times in made.items() if times > 1):
        raise Disagreement(f"{what}: made more than once, whatever became of them: {twice[:3]}")
