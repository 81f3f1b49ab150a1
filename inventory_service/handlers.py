"""What this service does when it is asked."""

from __future__ import annotations

from pathlib import Path

from app_common.messaging.inventory_service_messaging import (
    ItemsReserved,
    ReleaseItems,
    ReserveItems,
    inventory_service,
)
from app_common.settings import service_settings
from inventory_service import stock
from sagas_framework import Context, Later, Participant, Undo

settings = service_settings("inventory_service")
participant = Participant(
    inventory_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(ReserveItems)
def reserve_items(command: ReserveItems, context: Context) -> Later[ItemsReserved]:
    """Set all items aside for the order, or none.

    Raises:
        OutOfStock: there are too few of an item, or it is not in the catalogue.
    """
    reservation = stock.reserve(context.session, context.key, command.order_id, command.items)
    return lambda: ItemsReserved(reservation_id=reservation.id)  # the database gives the id


@participant.undoes(ReleaseItems)
def release_items(command: ReleaseItems, undo: Undo[ReserveItems]) -> None:
    """Put back what the operation set aside.

    It is found by the operation's key, since a saga that was never answered does not know its id.
    """
    stock.release(undo.session, undo.key)
