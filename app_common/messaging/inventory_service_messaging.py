"""What the inventory service is asked: to set items aside for an order, or to put them back.

And what it tells: that an item is low.
"""

from typing import Annotated

from pydantic import Field

from app_common.texts import Name, OrderId
from sagas_framework import Command, Compensation, Event, Failure, Message, Reply, Service

inventory_service = Service("inventory_service")


class OutOfStock(Failure):
    """There are fewer of an item than are ordered, or it is not in the catalogue. Nothing is reserved."""


class StockItem(Message):
    """An item and how many of it."""

    name: Annotated[Name, Field(examples=["milk"])]
    quantity: int = Field(gt=0, le=1_000_000, examples=[2])


class ItemsReserved(Reply):
    """All items are set aside for the order."""

    reservation_id: int = Field(examples=[5])


class ReserveItems(
    Command[ItemsReserved], service=inventory_service, name="reserve_items", failures=[OutOfStock]
):
    """Set all items aside, or none. An item that comes twice is wanted as often as both say together."""

    order_id: OrderId
    items: list[StockItem] = Field(min_length=1, max_length=100)


class ReleaseItems(Compensation[ReserveItems], service=inventory_service, name="release_items"):
    """Put them back. `reservation_id` is None when `ReserveItems` was never answered."""

    reservation_id: int | None = Field(examples=[5])


class LowStock(Event, service=inventory_service, name="low_stock"):
    """An order has brought an item below the number at which it is low."""

    item: Annotated[Name, Field(examples=["milk"])]
    available: int = Field(ge=0, examples=[2])
