"""What happens to the stock: reserved, released, restocked.

Rows are locked in the order of their names, everywhere. So two orders for the same items never wait for
each other in a circle, and the last of an item goes to one of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app_common.messaging.inventory_service_messaging import LowStock, OutOfStock, StockItem
from app_common.settings import low_stock
from app_common.texts import isolated
from inventory_service.models import Reservation, ReservationStatus, ReservedLine, StockRow
from sagas_framework import publish

LOW: Final = low_stock()
"""An item of which fewer are left is low."""
FULL: Final = 10
"""How many of an item there are when it is filled up."""
MOST: Final = 1_000_000
"""How many of an item can be there."""


class UnknownItem(Exception):
    """The catalogue has no such item."""

    def __init__(self, item: str, known: Iterable[str]) -> None:
        super().__init__(
            f"There is no item {isolated(repr(item))}; there are: {', '.join(map(isolated, known))}"
        )


class TooMany(Exception):
    """There is no room for so many of an item."""

    def __init__(self, item: str) -> None:
        super().__init__(
            f"There is no room for so many of {isolated(repr(item))}: {MOST:,} at most can be there"
        )


# ---- by the saga ----------------------------------------------------------------------------------


def reserve(session: Session, key: str, order_id: str, items: Iterable[StockItem]) -> Reservation:
    """Set all items aside, or none.

    Args:
        key: of the operation.

    Raises:
        OutOfStock: it names every item of which there are too few, or none at all.
    """
    wanted: Counter[str] = Counter()
    for line in items:
        wanted[line.name] += line.quantity
    there = _locked(session, wanted)
    missing = [
        f"{isolated(item)} ({number} ordered, {there[item].available if item in there else 'none'} there)"
        for item, number in wanted.items()
        if item not in there or there[item].available < number
    ]
    if missing:
        raise OutOfStock(f"Out of stock: {', '.join(missing)}")
    reservation = Reservation(
        operation_key=key,
        order_id=order_id,
        status=ReservationStatus.RESERVED,
        lines=[ReservedLine(item=item, quantity=number) for item, number in wanted.items()],
    )
    session.add(reservation)
    for item, row in there.items():
        was, row.available = row.available, row.available - wanted[item]
        if row.available < LOW <= was:
            stock_low(session, item, row.available)
    return reservation


def release(session: Session, key: str) -> None:
    """Put back what the operation set aside."""
    found = select(Reservation).where(Reservation.operation_key == key)
    reservation = session.scalars(found).one()
    there = _locked(session, [line.item for line in reservation.lines])
    for line in reservation.lines:
        there[line.item].available += line.quantity
    reservation.status = ReservationStatus.RELEASED


def stock_low(session: Session, item: str, available: int) -> None:
    """Tell that an order has brought an item below `LOW`: with its reservation, or not at all."""
    publish(LowStock(item=item, available=available), session)


# ---- by operators ---------------------------------------------------------------------------------


def restock(session: Session, item: str, quantity: int) -> None:
    """Put in more of an item.

    Raises:
        UnknownItem: the catalogue does not have it.
        TooMany: there is no room for so many.
    """
    row = _locked(session, [item]).get(item)
    if row is None:
        raise UnknownItem(item, session.scalars(select(StockRow.item).order_by(StockRow.item)))
    if row.available + quantity > MOST:
        raise TooMany(item)
    row.available += quantity
    row.received += quantity


def fill_up(session: Session) -> None:
    """Bring every item up to `FULL`. Doing it twice puts in nothing more."""
    for row in session.scalars(select(StockRow).order_by(StockRow.item).with_for_update()):
        lacking = max(0, FULL - row.available)
        row.available += lacking
        row.received += lacking


# ---- looking --------------------------------------------------------------------------------------


def available(session: Session) -> dict[str, int]:
    """How many are there, by item, in the order of the names."""
    rows = session.execute(select(StockRow.item, StockRow.available).order_by(func.lower(StockRow.item)))
    return {row.item: row.available for row in rows}


def reserved(session: Session) -> dict[str, int]:
    """How many are in reservations that were not released, by item; items without any are left out."""
    rows = session.execute(
        select(ReservedLine.item, func.sum(ReservedLine.quantity))
        .join(Reservation, Reservation.id == ReservedLine.reservation_id)
        .where(Reservation.status == ReservationStatus.RESERVED)
        .group_by(ReservedLine.item)
    )
    return {item: int(number) for item, number in rows}


def out_of_balance(session: Session) -> dict[str, int]:
    """Items of which more or fewer are there or reserved than ever came in, with the difference.

    Empty: stock is conserved, whatever was lost, repeated or killed in between.
    """
    held = reserved(session)
    rows = session.execute(select(StockRow.item, StockRow.available, StockRow.received))
    differences = {row.item: row.available + held.get(row.item, 0) - row.received for row in rows}
    return {item: difference for item, difference in differences.items() if difference}


def _locked(session: Session, items: Iterable[str]) -> Mapping[str, StockRow]:
    """The rows of these items, by item, as they are now and until the end of the transaction."""
    rows = session.scalars(
        select(StockRow)
        .where(StockRow.item.in_(items))
        .order_by(StockRow.item)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return {row.item: row for row in rows}
