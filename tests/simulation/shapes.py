"""The sagas that the simulator is tried on: every shape of a few steps, and what they say to whom."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import (
    NOTHING_TO_UNDO,
    Command,
    Compensation,
    Failure,
    Reply,
    Retry,
    Saga,
    Service,
    Steps,
)
from sagas_framework.testing import Simulation, Sown

stock_service = Service("stock_service")
money_service = Service("money_service")
mail_service = Service("mail_service")

MINUTE: Final = timedelta(minutes=1)
TWICE: Final = Retry(2, pause=timedelta(seconds=5))


class OutOfStock(Failure):
    """There is none left."""


class CardRefused(Failure):
    """The bank says no."""


class NoAddress(Failure):
    """Nobody knows where to write to: a refusal after the pivot, which a person must look at."""


class Reserved(Reply):
    reservation: int


class Paid(Reply):
    receipt: str


class Reserve(Command[Reserved], service=stock_service, name="reserve", failures=[OutOfStock]):
    order: int


class Release(Compensation[Reserve], service=stock_service, name="release"):
    reservation: int | None


class Hold(Command[None], service=money_service, name="hold", failures=[CardRefused]):
    order: int


class Unhold(Compensation[Hold], service=money_service, name="unhold"):
    order: int


class Charge(Command[Paid], service=money_service, name="charge", failures=[CardRefused]):
    order: int


class Ship(Command[None], service=stock_service, name="ship"):
    order: int


class Tell(Command[None], service=mail_service, name="tell", failures=[NoAddress]):
    order: int


class Order(BaseModel):
    order: int = 1
    reservation: int | None = None
    receipt: str | None = None
    noted: str = ""


def remember_reservation(state: Order, reply: Reserved) -> None:
    state.reservation = reply.reservation


def remember_receipt(state: Order, reply: Paid) -> None:
    state.receipt = reply.receipt


def note(state: Order, session: Session) -> None:
    state.noted = "begun"


def unnote(state: Order, session: Session) -> None:
    state.noted = "undone"


def finish(state: Order, session: Session) -> None:
    state.noted = "finished"


step = Steps(Order)


def _reserve() -> Any:
    return step.command(
        Reserve,
        lambda state: Reserve(order=state.order),
        on_success=remember_reservation,
        compensation=lambda state: Release(reservation=state.reservation),
        retry=TWICE,
        timeout=MINUTE,
    )


def _hold() -> Any:
    return step.command(
        Hold,
        lambda state: Hold(order=state.order),
        compensation=lambda state: Unhold(order=state.order),
        retry=TWICE,
        timeout=MINUTE,
    )


def _charge() -> Any:
    return step.command(
        Charge,
        lambda state: Charge(order=state.order),
        on_success=remember_receipt,
        pivot=True,
        retry=TWICE,
        timeout=MINUTE,
    )


def _ship() -> Any:
    return step.command(Ship, lambda state: Ship(order=state.order), retry=TWICE, timeout=MINUTE)


def make(name: str, *, when: Callable[[Order], bool] | None = None) -> Any:
    """The step of this name, for sagas declared elsewhere."""
    made = {"reserve": _reserve, "hold": _hold, "charge": _charge, "ship": _ship}[name]()
    made.when = when
    return made


class Comp(Saga[Order], name="comp", version=1):
    reserve = _reserve()


class CompComp(Saga[Order], name="comp_comp", version=1):
    reserve = _reserve()
    hold = _hold()


class CompPivot(Saga[Order], name="comp_pivot", version=1):
    reserve = _reserve()
    charge = _charge()


class PivotRetriable(Saga[Order], name="pivot_retriable", version=1):
    charge = _charge()
    ship = _ship()


class CompPivotRetriable(Saga[Order], name="comp_pivot_retriable", version=1):
    reserve = _reserve()
    charge = _charge()
    ship = _ship()


class WithLocalSteps(Saga[Order], name="with_local_steps", version=1):
    begin = step.local(note, compensation=unnote)
    reserve = _reserve()
    look = step.local(note, compensation=NOTHING_TO_UNDO)
    hold = _hold()
    charge = _charge()
    between = step.local(note)
    ship = _ship()
    tell = step.command(Tell, lambda state: Tell(order=state.order), retry=TWICE, timeout=MINUTE)
    end = step.local(finish)


class LocalEnd(Saga[Order], name="local_end", version=1):
    begin = step.local(compensation=unnote)
    reserve = _reserve()
    end = step.local(finish)


SHAPES: Final[Mapping[str, Simulation[Order]]] = {
    "comp": Simulation(Comp, Order()),
    "comp,comp": Simulation(CompComp, Order()),
    "comp,pivot": Simulation(CompPivot, Order()),
    "pivot,retriable": Simulation(PivotRetriable, Order()),
    "comp,pivot,retriable": Simulation(CompPivotRetriable, Order()),
    "local steps mixed in": Simulation(WithLocalSteps, Order()),
    "a local end": Simulation(LocalEnd, Order()),
    "outside comp": Simulation(Comp, Order(), outside=[Reserve]),
    "outside comp,comp": Simulation(CompComp, Order(), outside=[Reserve, Hold]),
    "outside comp,pivot,retriable": Simulation(CompPivotRetriable, Order(), outside=[Reserve, Charge, Ship]),
    "two sagas at once": Simulation(CompPivot, lambda number: Order(order=number + 1), sagas=2),
}


def sown(seed: int) -> Sown:
    """Random faults, the same for the same seed."""
    dice = random.Random(seed)
    apart = dice.choice((4, 12, 60))
    faults = [(dice.randint(0, apart), dice.randint(0, 31)) for _ in range(dice.choice((1, 2, 4, 8, 14)))]
    return Sown(faults, dice.getrandbits(16) & dice.getrandbits(16))
