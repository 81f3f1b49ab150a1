"""Taking an order: its rows and its saga commit together, or neither does. And looking at one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.orm import Session

from app_common.messaging.restaurant_service_messaging import OrderItem as TicketItem
from app_common.money import CENT, Amount, written
from app_common.texts import Name
from order_service.models import Order, OrderItem
from order_service.once import KeyReused, digest_of, take_once
from order_service.orchestrator import sagas
from order_service.sagas.create_order import CreateOrderSaga, CreateOrderState
from sagas_framework import Filter, reading


def _in_cents(amount: Decimal) -> Decimal:
    """One way to write each amount: 20, 2E+1 and 20.0 are 20.00, and minus nothing is nothing."""
    return abs(amount).quantize(CENT)


# Strict: `true` is no number, and neither is "70".
_IDS_END: Final = 2**31
Id = Annotated[int, Field(strict=True, gt=0, lt=_IDS_END)]


class Line(BaseModel):
    """A dish and how many of it."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    quantity: Id


class NewOrder(BaseModel):
    """An order as it comes in."""

    model_config = ConfigDict(title="order", extra="forbid")

    consumer_id: Id
    card_id: Id
    price: Annotated[Amount, AfterValidator(_in_cents)]
    items: Annotated[list[Line], Field(min_length=1, max_length=100)]


@dataclass(frozen=True)
class Placed:
    """The ids of an order that was taken and of the saga that decides about it."""

    order_id: int
    saga_id: str


class UnknownOrder(Exception):
    """No order has this id."""

    def __init__(self, order_id: str) -> None:
        super().__init__(f"No order has the id {order_id!r}")


class SagaArchived(Exception):
    """The order is there, and the saga that knows what is asked has gone to the archive.

    Args:
        key: the saga's.
    """

    def __init__(self, order: str, key: str) -> None:
        super().__init__(f"The order {order} has ended long ago: its saga is in the archive")
        self.key = key


# ---- taking ---------------------------------------------------------------------------------------

_ORDERS: Final = insert(Order).returning(Order.id, sort_by_parameter_order=True)
_ITEMS: Final = insert(OrderItem).inline()  # nobody asks for their ids
_NOTE_SAGA: Final = update(Order).where(Order.id == bindparam("its_id")).values(saga_id=bindparam("its_saga"))


def place(new: NewOrder, key: str | None = None) -> Placed:
    """Take an order and start its saga. No step of it runs here.

    With an idempotency key the order is taken once: whoever comes with the key again, at the same
    time or a year later, gets the ids of the first time. The key is in the order's own row, so that it
    commits with the order and its saga, and lives as long as the order does, also when the saga has gone to
    the archive: nothing expires.

    Raises:
        KeyReused: the key was used for another order.
        SagaArchived: an order that an older release has taken with the key; its saga's id was not noted.
    """
    return take_once(key, lambda used: _placed_with(used, new), lambda: _take(new, key))


def place_many(orders: Sequence[NewOrder]) -> Sequence[Placed]:
    """Take all of these orders in one transaction, and start their sagas; in the order of `orders`."""
    return _take_all([(new, None) for new in orders])


def _take(new: NewOrder, key: str | None) -> Placed:
    return _take_all([(new, key)])[0]


def _take_all(orders: Sequence[tuple[NewOrder, str | None]]) -> Sequence[Placed]:
    """Take orders, each with its idempotency key."""
    rows = [
        {
            **new.model_dump(include={"consumer_id", "card_id", "price"}),
            "idempotency_key": key,
            "request_digest": None if key is None else digest_of(new),
        }
        for new, key in orders
    ]
    with sagas.engine.begin() as connection:
        # The database gives the ids, or refuses a key.
        ids = connection.execute(_ORDERS, rows).scalars().all()
        numbered = [(number, new) for number, (new, _) in zip(ids, orders, strict=True)]
        items = [
            {"order_id": number, "name": line.name, "quantity": line.quantity}
            for number, new in numbered
            for line in new.items
        ]
        connection.execute(_ITEMS, items)
        starts = [(_saga_key(number), _state(number, new)) for number, new in numbered]
        runs = sagas.start_many(CreateOrderSaga, starts, session=connection)
        if keyed := [
            {"its_id": number, "its_saga": run.id}
            for number, run, (_, key) in zip(ids, runs, orders, strict=True)
            if key is not None
        ]:
            connection.execute(_NOTE_SAGA, keyed)
    return [Placed(number, run.id) for number, run in zip(ids, runs, strict=True)]


def _state(number: int, new: NewOrder) -> CreateOrderState:
    return CreateOrderState(
        order_id=number,
        consumer_id=new.consumer_id,
        card_id=new.card_id,
        amount=new.price,
        items=[TicketItem(name=line.name, quantity=line.quantity) for line in new.items],
    )


def _placed_with(key: str, new: NewOrder) -> Placed | None:
    """What the key was used for; None if for nothing yet.

    Raises:
        KeyReused: for another order.
        SagaArchived: its saga has gone, and its id was not noted.
    """
    query = select(Order.id, Order.request_digest, Order.saga_id).where(Order.idempotency_key == key)
    with reading(sagas.engine) as connection:
        first = connection.execute(query).one_or_none()
    if first is None:
        return None
    if first.request_digest != digest_of(new):
        raise KeyReused(key, f"number {first.id}")
    if first.saga_id is not None:
        return Placed(first.id, first.saga_id)
    found = sagas.list(_saga_of(first.id))
    if not found:
        raise SagaArchived(f"number {first.id}", _saga_key(first.id))
    return Placed(first.id, found[0].id)


# ---- looking --------------------------------------------------------------------------------------


def describe_order(order_id: str) -> dict[str, Any]:
    """An order as plain JSON.

    Shape: ``id``, ``status``, ``consumer_id``, ``card_id``, ``price`` (a decimal string), ``items``
    (in order: ``name``, ``quantity``), ``ticket_id`` and ``transaction_id`` (None while not known),
    ``saga`` (``id``, ``status``, ``outcome``, and ``why`` it is where it is, None if it has ended; None
    altogether once it has gone to the archive).

    Raises:
        UnknownOrder: there is none with this id.
    """
    number = int(order_id) if order_id.isascii() and order_id.isdecimal() and len(order_id) <= 10 else 0
    if not 0 < number < _IDS_END:
        raise UnknownOrder(order_id)
    # The saga is read first: the order of one that has ended does not change any more, so they agree.
    views = sagas.page(_saga_of(number)).views
    saga = views[0].instance if views else None
    with reading(sagas.engine) as connection, Session(connection) as session:
        order = session.get(Order, number)
        if order is None:
            raise UnknownOrder(order_id)
        return {
            "id": order.id,
            "status": order.status.value,
            "consumer_id": order.consumer_id,
            "card_id": order.card_id,
            "price": written(order.price),
            "items": [{"name": item.name, "quantity": item.quantity} for item in order.items],
            # Known to the saga as soon as the services have answered, to the row when the saga ends.
            "ticket_id": order.restaurant_ticket_id if saga is None else saga.state["ticket_id"],
            "transaction_id": order.transaction_id if saga is None else saga.state["transaction_id"],
            "saga": saga
            and {
                "id": saga.id,
                "status": saga.status.value,
                "outcome": saga.outcome and saga.outcome.to_json(),
                "why": None if saga.status.ended else views[0].why,
            },
        }


def _saga_key(order_id: int) -> str:
    return f"order-{order_id}"


def _saga_of(order_id: int) -> Filter:
    """Finds the saga that decides about an order: it is committed with it, and may go to the archive."""
    return Filter(saga=CreateOrderSaga.definition.name, key=_saga_key(order_id))
