"""What happens to shipments, and the switch that keeps new ones from leaving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import select
from sqlalchemy.orm import Session

from app_common.messaging.delivery_service_messaging import ShippingDeactivated
from app_common.messaging.inventory_service_messaging import StockItem
from delivery_service.models import Maintenance, Shipment, ShipmentStatus

DEACTIVATED: Final = "The shipping service is currently deactivated for routine maintenance."


def ship(
    session: Session, key: str, order_id: str, customer: str, items: Iterable[StockItem], at: datetime
) -> Shipment:
    """Send the items on their way.

    Args:
        key: of the operation.

    Raises:
        ShippingDeactivated: the service is in maintenance mode.
    """
    # Shared with other shipments, and not with the switch: once it is switched, nothing leaves any more.
    if _mode(session, shared=True).active:
        raise ShippingDeactivated(DEACTIVATED)
    shipment = Shipment(
        operation_key=key,
        order_id=order_id,
        customer=customer,
        items=[item.to_json() for item in items],
        status=ShipmentStatus.SHIPPED,
        at=at,
    )
    session.add(shipment)
    return shipment


def cancel(session: Session, key: str) -> None:
    """Call back what the operation sent. It works also in maintenance."""
    found = select(Shipment).where(Shipment.operation_key == key)
    session.scalars(found).one().status = ShipmentStatus.CANCELLED


def switch(session: Session, *, active: bool, by: str, at: datetime) -> bool:
    """Turn the maintenance mode on or off; whether that changed anything."""
    mode = _mode(session)
    if mode.active == active:
        return False
    mode.active, mode.by, mode.at = active, by, at
    return True


def maintenance(session: Session) -> Maintenance:
    """Whether the service is in maintenance, and who switched it last."""
    return session.get_one(Maintenance, 1)


def latest(session: Session, number: int) -> Sequence[Shipment]:
    """The shipments that left last, newest first."""
    return session.scalars(select(Shipment).order_by(Shipment.id.desc()).limit(number)).all()


def _mode(session: Session, *, shared: bool = False) -> Maintenance:
    """The row as it is now and until the end of the transaction."""
    locked = select(Maintenance).with_for_update(read=shared).execution_options(populate_existing=True)
    return session.scalars(locked).one()
