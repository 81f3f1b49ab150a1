"""Sagas that wait, leave steps out, end early and have deadlines, for the simulator."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from sagas_framework import COMPENSATE, GO_ON, Failure, Saga, Signal, on
from sagas_framework.testing import Simulation
from tests.simulation.shapes import MINUTE, Order, finish, make, step, unnote


class Rejected(Failure):
    """The approver says no."""


class Approval(Signal, name="approval"):
    approved: bool = True


class Withdrawal(Signal, name="withdrawal"):
    pass


def take_approval(state: Order, approval: Approval) -> None:
    if not approval.approved:
        raise Rejected("no")
    state.noted = "approved"


def withdraw(state: Order, withdrawal: Withdrawal) -> None:
    raise Rejected("withdrawn")


def unasked(state: Order) -> None:
    state.noted = "unasked"


def _approve(at_deadline: Any = COMPENSATE) -> Any:
    return step.wait(
        on(Approval, take_approval), on(Withdrawal, withdraw), deadline=MINUTE, at_deadline=at_deadline
    )


class Approved(Saga[Order], name="approved", version=1):
    begin = step.local(compensation=unnote)
    reserve = make("reserve")
    approve = _approve()
    charge = make("charge")
    end = step.local(finish)


class Twice(Saga[Order], name="twice", version=1):
    """Two waits for the same signals: what the first does not take is the second's."""

    first = _approve(unasked)
    reserve = make("reserve")
    second = _approve()
    charge = make("charge")


class AfterPivot(Saga[Order], name="after_pivot", version=1):
    reserve = make("reserve")
    charge = make("charge")
    remark = step.wait(on(Approval, take_approval), deadline=MINUTE, at_deadline=GO_ON)
    ship = make("ship")


class Hurried(Saga[Order], name="hurried", version=1, deadline=2 * MINUTE):
    begin = step.local(compensation=unnote)
    reserve = make("reserve")
    cool_down = step.delay(until=timedelta(seconds=30))
    approve = _approve(GO_ON)
    charge = make("charge")
    ship = make("ship")


def _approved(state: Order) -> bool:
    return state.noted == "approved"


class Conditional(Saga[Order], name="conditional", version=1):
    """What happens depends on whether somebody approved in time."""

    approve = _approve(GO_ON)
    reserve = make("reserve", when=_approved)
    nothing = step.end(when=lambda state: state.noted == "", because="nobody approved")
    charge = make("charge", when=lambda state: state.order == 0)
    ship = make("ship")


WAITING: Final[Mapping[str, Simulation[Order]]] = {
    "approved": Simulation(Approved, Order()),
    "two waits": Simulation(Twice, Order()),
    "a wait after the pivot": Simulation(AfterPivot, Order()),
    "a deadline of its own": Simulation(Hurried, Order()),
    "conditions and an early end": Simulation(Conditional, Order()),
    "two that wait": Simulation(Approved, lambda number: Order(order=number + 1), sagas=2),
}
