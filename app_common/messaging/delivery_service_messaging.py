"""What the delivery service is asked: to ship an order's items, or to call the shipment back."""

from typing import Annotated

from pydantic import Field

from app_common.messaging.inventory_service_messaging import StockItem
from app_common.texts import Name, OrderId
from sagas_framework import Command, Compensation, Failure, Reply, Service

delivery_service = Service("delivery_service")


class ShippingDeactivated(Failure):
    """Nothing is shipped while the service is in maintenance mode."""


class OrderShipped(Reply):
    """The items are on their way."""

    shipment_id: int = Field(examples=[8817])


class ShipOrder(
    Command[OrderShipped], service=delivery_service, name="ship_order", failures=[ShippingDeactivated]
):
    """Send the items to the customer."""

    order_id: OrderId
    customer: Annotated[Name, Field(examples=["Riley"])]
    items: list[StockItem] = Field(min_length=1, max_length=100)


class CancelShipment(Compensation[ShipOrder], service=delivery_service, name="cancel_shipment"):
    """Call the shipment back. `shipment_id` is None when `ShipOrder` was never answered."""

    shipment_id: int | None = Field(examples=[8817])
