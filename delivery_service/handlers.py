"""What this service does when it is asked."""

from __future__ import annotations

from pathlib import Path

from app_common.messaging.delivery_service_messaging import (
    CancelShipment,
    OrderShipped,
    ShipOrder,
    delivery_service,
)
from app_common.settings import service_settings
from delivery_service import shipping
from sagas_framework import Context, Later, Participant, Undo

settings = service_settings("delivery_service")
participant = Participant(
    delivery_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(ShipOrder)
def ship_order(command: ShipOrder, context: Context) -> Later[OrderShipped]:
    """Send the items on their way.

    Raises:
        ShippingDeactivated: the service is in maintenance mode.
    """
    shipment = shipping.ship(
        context.session, context.key, command.order_id, command.customer, command.items, participant.clock()
    )
    return lambda: OrderShipped(shipment_id=shipment.id)  # the database gives the id


@participant.undoes(CancelShipment)
def cancel_shipment(command: CancelShipment, undo: Undo[ShipOrder]) -> None:
    """Call back what the operation sent.

    It is found by the operation's key, since a saga that was never answered does not know its id.
    """
    shipping.cancel(undo.session, undo.key)
