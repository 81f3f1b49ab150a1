"""What the restaurant service is asked: to open, approve or reject the kitchen's ticket for an order."""

from pydantic import Field

from app_common.magic import Dish
from sagas_framework import Command, Compensation, Failure, Message, Reply, Service

restaurant_service = Service("restaurant_service")


class RestaurantClosed(Failure):
    """The kitchen takes no orders."""


class TicketNotPending(Failure):
    """There is no such ticket, or it was rejected before."""


class KitchenOffline(Failure):
    """The kitchen cannot be told that a ticket is closed, and somebody must call it."""


class OrderItem(Message):
    """A dish and how many of it."""

    name: str = Field(examples=[Dish.PLAIN.value])
    quantity: int = Field(examples=[2])


class TicketCreated(Reply):
    """The kitchen has the ticket and does not cook it yet."""

    ticket_id: int = Field(examples=[7])


class CreateTicket(
    Command[TicketCreated], service=restaurant_service, name="create_ticket", failures=[RestaurantClosed]
):
    """Open a ticket that waits for its approval."""

    order_id: int = Field(examples=[1])
    customer_id: int = Field(examples=[70])
    items: list[OrderItem]


class RejectTicket(Compensation[CreateTicket], service=restaurant_service, name="reject_ticket"):
    """Close the ticket unapproved. `ticket_id` is None when `CreateTicket` was never answered."""

    ticket_id: int | None = Field(examples=[7])


class ApproveTicket(
    Command[None], service=restaurant_service, name="approve_ticket", failures=[TicketNotPending]
):
    """Let the kitchen cook."""

    ticket_id: int = Field(examples=[7])
