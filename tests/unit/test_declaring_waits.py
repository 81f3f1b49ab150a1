"""Declaring what waits: what a wrong wait, signal or deadline is told to write instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import (
    GO_ON,
    NO_DEADLINE,
    NOTHING_TO_UNDO,
    Command,
    DefinitionError,
    Saga,
    Service,
    Signal,
    Steps,
    on,
)

kitchen = Service("kitchen")
HOUR = timedelta(hours=1)


class Cook(Command[None], service=kitchen, name="cook"):
    pass


class Approval(Signal, name="approval"):
    approved: bool = True


class OtherApproval(Signal, name="approval"):
    pass


class Dinner(BaseModel):
    guests: int = 2


step = Steps(Dinner)


def serve(state: Dinner, session: Session) -> None: ...


def cooking(**how: Any) -> Any:
    return step.command(Cook, lambda state: Cook(), **how)


def no_signals() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        approve = step.wait(deadline=HOUR)


def twice() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        approve = step.wait(on(Approval), on(Approval), deadline=HOUR)


def two_of_one_name() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        approve = step.wait(on(Approval), deadline=HOUR)
        again = step.wait(on(OtherApproval), deadline=HOUR)


def compensating_after_the_pivot() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        cook = cooking(pivot=True)
        approve = step.wait(on(Approval), deadline=HOUR)


def no_time() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        approve = step.wait(on(Approval), deadline=timedelta(0))


def no_delay() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1):
        later = step.delay(until=-HOUR)


def no_time_for_the_saga() -> None:
    class Wrong(Saga[Dinner], name="wrong", version=1, deadline=timedelta(0)):
        cook = cooking(pivot=True)


def a_signal_without_a_name() -> None:
    class Wrong(Signal):
        pass


def a_signal_of_another_class() -> None:
    on(Cook)  # type: ignore[type-var]


def a_failure_of_another_class() -> None:
    on(Approval, failures=[ValueError])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (no_signals, r"Wrong.approve waits for no signal: give it step.wait\(on\(SomeSignal"),
        (twice, "waits for the signal 'approval' twice"),
        (two_of_one_name, "two signals of the name 'approval': Approval and OtherApproval"),
        (compensating_after_the_pivot, "say at_deadline=GO_ON, give a hook, or deadline=NO_DEADLINE"),
        (no_time, "Wrong.approve has deadline=0:00:00: give it more than nothing"),
        (no_delay, "Wrong.later has until=.*: give it more than nothing"),
        (no_time_for_the_saga, "Wrong has a deadline of 0:00:00"),
        (a_signal_without_a_name, r'class Wrong\(Signal, name="..."\)'),
        (a_signal_of_another_class, "give a subclass of Signal"),
        (a_failure_of_another_class, "is not a subclass of Failure"),
    ],
)
def test_a_wrong_wait_is_told_what_to_write_instead(wrong: Callable[[], None], told: str) -> None:
    with pytest.raises(DefinitionError, match=told):
        wrong()


def test_a_saga_knows_its_signals_and_what_waits() -> None:
    class Right(Saga[Dinner], name="right", version=1, deadline=2 * HOUR):
        approve = step.wait(on(Approval), deadline=NO_DEADLINE)
        cook = cooking(compensation=NOTHING_TO_UNDO, when=lambda state: state.guests > 0)
        nobody = step.end(when=lambda state: state.guests == 0, because="nobody comes")
        later = step.delay(until=lambda state: HOUR)
        serve = step.local(serve)

    saga = Right.definition

    assert saga.waits == ("approve",)
    assert saga.signals == ["approval"]
    assert saga.signal("approval") is Approval
    assert saga.signal("rejection") is None
    assert saga.pivot == 4
    assert saga.deadline == 2 * HOUR


def test_what_two_versions_must_share_of_a_wait_are_its_signals_and_its_place() -> None:
    def made(*signals: Any, **how: Any) -> str:
        class Right(Saga[Dinner], name="right", version=1):
            approve = step.wait(*signals, **how)
            cook = cooking(pivot=True)

        return Right.definition.shape

    class Withdrawal(Signal, name="withdrawal"):
        pass

    first = made(on(Approval), deadline=HOUR)

    assert made(on(Approval), deadline=2 * HOUR, at_deadline=GO_ON, when=lambda state: True) == first
    assert made(on(Approval), on(Withdrawal), deadline=HOUR) != first
