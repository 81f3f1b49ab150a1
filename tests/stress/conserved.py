"""The books of all services after the second journey: stock, money, shipments, what customers were told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from tests.stress.customers import AT_ONCE, ENDS, SCARCE, TOLD, Kind, Wanted, prefixes_of
from tests.stress.fleet import Fleet


def assert_conserved(fleet: Fleet, orders: Mapping[str, Wanted]) -> dict[str, int]:
    """Nothing is lost, doubled or left behind; how many orders ended in which way.

    Args:
        orders: all that were ever taken, by id.

    Raises:
        AssertionError: what does not agree.
    """
    sagas = _sagas(fleet)
    assert set(sagas) == set(orders), "each order has its saga, and each saga its order"
    ended: Counter[str] = Counter()
    completed: dict[str, Wanted] = {}
    unlike: list[str] = []
    for order_id, wanted in orders.items():
        saga = sagas[order_id]
        end = (saga.status, saga.outcome["kind"], saga.outcome["step"])
        if wanted.kind is Kind.SCARCE:
            allowed = [ENDS[Kind.AUTOMATIC], ENDS[Kind.OUT_OF_STOCK]]
        else:
            allowed = [ENDS[wanted.kind]]
        if end not in allowed:
            unlike.append(f"{order_id} ({wanted.kind}): {end}, told as {saga.outcome}")
        ended[" ".join(end).strip()] += 1
        if saga.status == "completed":
            completed[order_id] = wanted
    assert not unlike, unlike
    _stock(fleet, completed, orders)
    _money(fleet, completed, orders)
    _shipments(fleet, completed)
    _told(fleet, orders, completed)
    return dict(ended)


def _sagas(fleet: Fleet) -> dict[str, Any]:
    query = "SELECT key, status, outcome FROM saga_instance WHERE saga = 'process_order'"
    return {row.key: row for row in fleet.query("order_service", query)}


def _stock(fleet: Fleet, completed: Mapping[str, Wanted], orders: Mapping[str, Wanted]) -> None:
    """What came in is there or reserved, and what is reserved is in the orders that completed."""
    kept = fleet.query(
        "inventory_service",
        "SELECT r.order_id, l.item, l.quantity FROM reservations AS r "
        "JOIN reservation_lines AS l ON l.reservation_id = r.id WHERE r.status = 'RESERVED'",
    )
    reserved = Counter[tuple[str, str]]()
    for row in kept:
        reserved[row.order_id, row.item] += row.quantity
    wanted = Counter((order_id, item) for order_id, one in completed.items() for item in one.items)
    assert reserved == wanted, f"reserved and not wanted {reserved - wanted}, the reverse {wanted - reserved}"
    by_item: Counter[str] = Counter()
    for (_, item), number in reserved.items():
        by_item[item] += number
    stock = fleet.query("inventory_service", "SELECT item, available, received FROM stock")
    balance = {row.item: (row.available + by_item[row.item], row.received) for row in stock}
    assert all(there == received for there, received in balance.values()), balance
    scarce = sum(wanted.kind is Kind.SCARCE for wanted in orders.values())
    got = sum(wanted.kind is Kind.SCARCE for wanted in completed.values())
    assert got == min(scarce, balance[SCARCE][1] // AT_ONCE), "who came first gets what is scarce"


def _money(fleet: Fleet, completed: Mapping[str, Wanted], orders: Mapping[str, Wanted]) -> None:
    """What was charged and not given back is what the completed orders cost, with the provider as well."""
    charges = fleet.query(
        "accounting_service",
        "SELECT c.order_id, c.operation_key, c.amount, r.amount AS refunded FROM charges AS c "
        "LEFT JOIN refunds AS r ON r.charge_id = c.id",
    )
    paid = sorted((row.order_id, row.amount) for row in charges if row.refunded is None)
    assert paid == sorted((order_id, wanted.total) for order_id, wanted in completed.items())
    given_back = [row for row in charges if row.refunded is not None]
    assert all(row.refunded == row.amount for row in given_back)
    due = sorted(id for id, wanted in orders.items() if wanted.kind is Kind.IN_MAINTENANCE)
    assert sorted(row.order_id for row in given_back) == due
    payments = fleet.query(
        "accounting_service", "SELECT idempotency_key, amount, refunded FROM provider_payments"
    )
    theirs = sorted((row.idempotency_key, row.amount, row.refunded) for row in payments)
    ours = sorted((row.operation_key, row.amount, row.refunded or Decimal(0)) for row in charges)
    assert theirs == ours, "the provider's books are ours"


def _shipments(fleet: Fleet, completed: Mapping[str, Wanted]) -> None:
    rows = fleet.query("delivery_service", "SELECT order_id, status FROM shipments")
    assert sorted((row.order_id, row.status) for row in rows) == sorted((id, "SHIPPED") for id in completed)


def _told(fleet: Fleet, orders: Mapping[str, Wanted], completed: Mapping[str, Wanted]) -> None:
    told: dict[str, list[str]] = {order_id: [] for order_id in orders}
    rows = fleet.query("notification_service", "SELECT order_id, message FROM notifications ORDER BY at, id")
    for row in rows:
        if row.order_id in told:  # what operators are told is of no order
            told[row.order_id].append(row.message)
    unlike = {}
    for order_id, wanted in orders.items():
        kind = wanted.kind
        if kind is Kind.SCARCE:
            kind = Kind.AUTOMATIC if order_id in completed else Kind.OUT_OF_STOCK
        if not prefixes_of(told[order_id], TOLD[kind]):
            unlike[order_id, kind] = told[order_id]
    assert not unlike, unlike


def assert_nothing_is_left(fleet: Fleet) -> None:
    """No message was set aside, no event waits or is parked, no act or signal is unanswered."""
    for service in fleet.services:
        assert fleet.query(service, "SELECT task, reason FROM saga_quarantine") == []
        assert fleet.query(service, "SELECT topic FROM saga_outbox WHERE sent_at IS NULL") == []
        unfinished = "SELECT topic, subscriber, state, reason FROM saga_event WHERE state <> 'done'"
        assert fleet.query(service, unfinished) == []
    open_signals = "SELECT key, signal, became, answer FROM saga_signal WHERE became <> 'taken'"
    assert fleet.query("order_service", open_signals) == []
