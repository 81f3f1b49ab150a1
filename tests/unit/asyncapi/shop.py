"""Two services and a third without an inbox, as teams declare them. Nothing is connected to."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from pydantic import BaseModel, Field

from sagas_framework import (
    NOTHING_TO_UNDO,
    Command,
    Compensation,
    Context,
    Failure,
    Message,
    Participant,
    Queue,
    QueueType,
    Reply,
    Saga,
    Sagas,
    Service,
    Steps,
    Undo,
    undo_task,
)
from sagas_framework.asyncapi import Contact, License, Specification
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox

BROKER: Final = "amqp://somebody:hidden@broker.example//"
REPLIES: Final = Queue("shop.replies")

kitchen = Service("kitchen")


class Closed(Failure):
    """The kitchen takes no orders.

    It opens at noon.
    """


class TooMuch(Failure):
    """Nobody can eat that much."""

    wire_name = "Gluttony"


class Dish(Message):
    """What is cooked."""

    name: str = Field(examples=["soup"])
    price: Decimal


class Cooked(Reply):
    """It is on the table.

    Eat it warm.
    """

    table: int = Field(examples=[4])


class Cook(Command[Cooked], service=kitchen, name="cook", failures=[Closed, TooMuch]):
    """Cook the dishes."""

    dishes: list[Dish]
    guest: int | None = None


class TakeBack(Compensation[Cook], service=kitchen, name="take_back"):
    """Clear the table."""

    table: int | None


class Bill(Command[None], service=kitchen, name="bill"):
    """Write the bill."""


class Meal(BaseModel):
    """What the saga knows."""

    table: int | None = None


step = Steps(Meal)


class Dinner(Saga[Meal], name="dinner", version=2):
    """Eat."""

    cook = step.command(
        Cook,
        lambda _: Cook(dishes=[]),
        compensation=lambda state: TakeBack(table=state.table),
    )
    reserve = step.task(
        "shop.tasks.reserve_chair",
        lambda _: {"chair": 1},
        compensation=undo_task("shop.tasks.free_chair", lambda _: {"chair": 1}),
    )
    bill = step.command(Bill, lambda _: Bill(), pivot=True)


class Snack(Saga[Meal], name="snack", version=1):
    """Eat little."""

    cook_less = step.command(Cook, lambda _: Cook(dishes=[]), compensation=NOTHING_TO_UNDO)


old_kitchen = Service("old_kitchen", Queue("old.commands", QueueType.CLASSIC), protocol="demo-0.1")


class Warm(Command[Cooked], service=old_kitchen, name="warm", failures=[Closed]):
    """Warm it up."""


class CoolDown(Compensation[Warm], service=old_kitchen, name="cool_down"):
    """Let it get cold."""


class Leftovers(Saga[Meal], name="leftovers", version=1):
    """Eat what is there."""

    warm = step.command(Warm, lambda _: Warm(), compensation=lambda _: CoolDown())


def make_kitchen(database: MemoryDatabase | None = None) -> Participant:
    """The kitchen. What it does depends on the price of the first dish."""
    participant = Participant(kitchen, inbox=MemoryInbox(database or MemoryDatabase()))

    @participant.handles(Cook)
    def cook(command: Cook, context: Context) -> Cooked:
        price = command.dishes[0].price
        if price == 0:
            raise Closed("come back at noon")
        if price > 1000:
            raise TooMuch("think of your health")
        if price < 0:
            raise OSError("the oven is cold")
        return Cooked(table=4)

    @participant.undoes(TakeBack)
    def take_back(command: TakeBack, undo: Undo[Cook]) -> None:
        if command.table == 13:
            raise Closed("nobody is here any more")

    @participant.handles(Bill)
    def bill(command: Bill, context: Context) -> None: ...

    return participant


def make_sagas(sagas: Iterable[type[Saga[Any]]] = (Dinner, Snack), service: str = "shop") -> Sagas:
    return Sagas(service, "sqlite://", sagas=sagas, reply_queue=REPLIES)


def specify(service: str, **changes: Any) -> Specification:
    """The specification of a service, complete unless it is changed."""
    said: dict[str, Any] = {
        "title": service.capitalize(),
        "version": "1.0.0",
        "description": f"The {service}.",
        "contact": Contact("Cooks", "https://cooks.example", "cooks@cooks.example"),
        "license": License("MIT", "https://opensource.org/license/mit"),
        "broker": BROKER,
    }
    return Specification(service, **{**said, **changes})


def of_the_kitchen() -> dict[str, Any]:
    """The document of the kitchen."""
    return specify("kitchen", receives=make_kitchen()).document


def of_the_shop(*sagas: type[Saga[Any]]) -> dict[str, Any]:
    """The document of a service that runs these sagas; `Dinner` and `Snack` if none is named."""
    return specify("shop", sends=make_sagas(sagas or (Dinner, Snack))).document
