"""Taking an order: its rows and its saga commit together, or neither does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app_common.messaging.restaurant_service_messaging import OrderItem as TicketItem
from app_common.money import Amount
from order_service.models import Order, OrderItem
from order_service.orchestrator import sagas
from order_service.sagas.create_order import CreateOrderSaga, CreateOrderState

Id = Annotated[int, Field(gt=0, lt=2**31)]


class Line(BaseModel):
    """A dish and how many of it."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1, max_length=200)]
    quantity: Id


class NewOrder(BaseModel):
    """An order as it comes in."""

    model_config = ConfigDict(extra="forbid")

    consumer_id: Id
    card_id: Id
    price: Amount
    items: Annotated[list[Line], Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Placed:
    """The ids of an order that was taken and of the saga that decides about it."""

    order_id: int
    saga_id: str


def place(new: NewOrder) -> Placed:
    """Take an order and start its saga. No step of it runs here."""
    with Session(sagas.engine) as session, session.begin():
        order = Order(
            consumer_id=new.consumer_id,
            card_id=new.card_id,
            price=new.price,
            items=[OrderItem(name=line.name, quantity=line.quantity) for line in new.items],
        )
        session.add(order)
        session.flush()  # the database gives the id
        state = CreateOrderState(
            order_id=order.id,
            consumer_id=new.consumer_id,
            card_id=new.card_id,
            amount=new.price,
            items=[TicketItem(name=line.name, quantity=line.quantity) for line in new.items],
        )
        run = sagas.start(CreateOrderSaga, state, key=f"order-{order.id}", session=session)
        return Placed(order.id, run.id)
