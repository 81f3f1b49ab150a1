"""Creating an order across four services.

Reference:
    C. Richardson, "Microservices Patterns", chapter 4.
"""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy.orm import Session

from app_common.magic import INCORRECT_QUANTITY
from app_common.messaging import accounting_service_messaging as accounting
from app_common.messaging import consumer_service_messaging as consumer
from app_common.messaging import restaurant_service_messaging as restaurant
from app_common.money import Amount
from app_common.settings import step_timeouts
from order_service.models import Order, OrderStatus
from sagas_framework import NOTHING_TO_UNDO, Retry, Saga, Steps

timeouts = step_timeouts()


class CreateOrderState(BaseModel):
    """What the saga knows of its order. The last two fields come with replies."""

    order_id: int
    consumer_id: int
    card_id: int
    amount: Amount
    items: list[restaurant.OrderItem]
    ticket_id: int | None = None
    transaction_id: int | None = None


def verify(state: CreateOrderState) -> consumer.VerifyConsumerDetails:
    return consumer.VerifyConsumerDetails(consumer_id=state.consumer_id)


def open_ticket(state: CreateOrderState) -> restaurant.CreateTicket:
    """Ask for a ticket. Raises on a magic number: an example of our own code failing in mid-saga."""
    if any(item.quantity == INCORRECT_QUANTITY for item in state.items):
        raise KeyError("Incorrect quantity")
    return restaurant.CreateTicket(order_id=state.order_id, customer_id=state.consumer_id, items=state.items)


def remember_ticket(state: CreateOrderState, reply: restaurant.TicketCreated) -> None:
    state.ticket_id = reply.ticket_id


def reject_ticket(state: CreateOrderState) -> restaurant.RejectTicket:
    return restaurant.RejectTicket(ticket_id=state.ticket_id)


def authorize(state: CreateOrderState) -> accounting.AuthorizeCard:
    return accounting.AuthorizeCard(card_id=state.card_id, amount=state.amount)


def remember_authorization(state: CreateOrderState, reply: accounting.CardAuthorized) -> None:
    state.transaction_id = reply.transaction_id


def reverse_authorization(state: CreateOrderState) -> accounting.ReverseAuthorization:
    return accounting.ReverseAuthorization(transaction_id=state.transaction_id)


def approve_ticket(state: CreateOrderState) -> restaurant.ApproveTicket:
    assert state.ticket_id is not None, "create_restaurant_ticket comes first"
    return restaurant.ApproveTicket(ticket_id=state.ticket_id)


def mark_order_approved(state: CreateOrderState, session: Session) -> None:
    _close_order(state, session, OrderStatus.APPROVED)


def mark_order_rejected(state: CreateOrderState, session: Session) -> None:
    _close_order(state, session, OrderStatus.REJECTED)


def its_order(state: CreateOrderState) -> tuple[type[Order], int]:
    return Order, state.order_id


def _close_order(state: CreateOrderState, session: Session, status: OrderStatus) -> None:
    order = session.get_one(*its_order(state))
    order.status = status
    order.restaurant_ticket_id = state.ticket_id
    order.transaction_id = state.transaction_id


step = Steps(CreateOrderState)


class CreateOrderSaga(Saga[CreateOrderState], name="create_order", version=1):
    """Create an order across consumer, restaurant and accounting."""

    reject_order = step.local(compensation=mark_order_rejected, loads=its_order)
    verify_consumer_details = step.command(
        consumer.VerifyConsumerDetails,
        verify,
        compensation=NOTHING_TO_UNDO,
        timeout=timeouts.consumer,
    )
    create_restaurant_ticket = step.command(
        restaurant.CreateTicket,
        open_ticket,
        on_success=remember_ticket,
        compensation=reject_ticket,
        timeout=timeouts.restaurant,
    )
    authorize_card = step.command(
        accounting.AuthorizeCard,
        authorize,
        on_success=remember_authorization,
        compensation=reverse_authorization,
        timeout=timeouts.accounting,
    )
    approve_restaurant_ticket = step.command(
        restaurant.ApproveTicket,
        approve_ticket,
        pivot=True,
        retry=Retry(3, pause=timedelta(seconds=5)),
    )
    approve_order = step.local(mark_order_approved, loads=its_order)
