"""What the order service tells: whoever wants to know subscribes to it."""

from pydantic import Field

from app_common.texts import OrderId
from sagas_framework import Event, Service

order_service = Service("order_service")


class CustomerTold(Event, service=order_service, name="customer_told"):
    """The customer was told how the order stands. When: at the moment at which this was published."""

    order_id: OrderId
    message: str = Field(examples=["Order was approved by Chris."])
