"""`Simulation`: what it takes, and what a run tells."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from sagas_framework import Command, Compensation, DefinitionError, Reply, Saga, Service, Status, Steps
from sagas_framework.testing import BrokenPromise, Run, Simulation

warehouse = Service("warehouse")


class Picked(Reply):
    shelf: str


class Pick(Command[Picked], service=warehouse, name="pick"):
    order: int


class PutBack(Compensation[Pick], service=warehouse, name="put_back"):
    shelf: str | None


class Coded(Reply):
    code: str = Field(pattern="^[0-9]{4}$")


class Label(Command[Coded], service=warehouse, name="label"):
    order: int


class State(BaseModel):
    order: int
    shelf: str = ""
    noted: str = ""


def remember_shelf(state: State, reply: Picked) -> None:
    state.shelf = reply.shelf


def note(state: State, session: Session) -> None:
    for row in session.execute(select(text("1"))):  # written for SQLAlchemy
        raise AssertionError(f"a stand-in has no rows: {row}")
    session.add(object())
    state.noted = "noted"


step = Steps(State)


class PickSaga(Saga[State], name="pick", version=1):
    pick = step.command(
        Pick,
        lambda state: Pick(order=state.order),
        on_success=remember_shelf,
        compensation=lambda state: PutBack(shelf=state.shelf or None),
    )
    note = step.local(note)


class LabelSaga(Saga[State], name="label", version=1):
    label = step.command(Label, lambda state: Label(order=state.order), pivot=True)


class SlowSaga(Saga[State], name="slow", version=1):
    pick = step.command(Pick, lambda state: Pick(order=state.order), pivot=True, timeout=timedelta(days=3))


def test_a_run_tells_its_status_state_history_and_messages() -> None:
    run = Simulation(PickSaga, State(order=1)).replay({})

    assert run.status is Status.COMPLETED
    assert run.state == State(order=1, shelf="text", noted="noted")
    assert run.sent == ["pick 1", "answer to pick 1"]
    assert run.words[-1] == "completed"
    assert run.count("pick") == run.executions("pick") == 1
    assert "pick 1 is handled: works" in run.trace()


def test_a_reply_can_be_given() -> None:
    run = Simulation(PickSaga, State(order=1), examples=[Picked(shelf="A7")]).replay({})

    assert run.state.shelf == "A7"


def test_a_reply_that_cannot_be_guessed_is_the_tests_mistake() -> None:
    with pytest.raises(DefinitionError, match="No example of Coded can be guessed"):
        Simulation(LabelSaga, State(order=1))

    Simulation(LabelSaga, State(order=1), examples=[Coded(code="1234")]).check(20)


def test_sagas_run_side_by_side_each_with_a_state_of_its_own() -> None:
    run = Simulation(PickSaga, lambda number: State(order=10 + number), sagas=3).replay({})

    assert [run.database.instances[one].state["order"] for one in run.ids] == [10, 11, 12]
    assert {run.database.instances[one].status for one in run.ids} == {Status.COMPLETED}


def test_an_outside_handler_claims_its_row_first() -> None:
    run = Simulation(PickSaga, State(order=1), outside=[Pick]).replay({})

    assert "pick 1: the inbox says claimed" in run.trace()
    assert run.effects.provider.keys["pick"] == {run.key("pick")}


def test_a_promise_of_ones_own_is_checked_when_a_run_is_over() -> None:
    def everything_is_picked(run: Run[State]) -> Iterator[str]:
        if run.status is not Status.COMPLETED:
            yield "not everything is picked"

    with pytest.raises(BrokenPromise, match="not everything is picked"):
        Simulation(PickSaga, State(order=1), promises=[everything_is_picked]).check(100)


def test_a_saga_that_may_take_days_is_given_them() -> None:
    simulation = Simulation(SlowSaga, State(order=1))

    assert simulation.ended_by > timedelta(days=3).total_seconds()
    assert simulation.policy.sendable_for > timedelta(days=3)
    simulation.check(30)


def test_a_step_without_an_inbox_is_not_simulated() -> None:
    class ThankSaga(Saga[State], name="thank", version=1):
        thank = step.task("post.thank", lambda state: {"order": state.order}, pivot=True)

    with pytest.raises(DefinitionError, match=r"ThankSaga\.thank is done by post, which keeps no inbox"):
        Simulation(ThankSaga, State(order=1))
