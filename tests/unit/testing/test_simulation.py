"""`Simulation`: what it takes, and what a run tells."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from sagas_framework import (
    Command,
    Compensation,
    ConfigurationError,
    Context,
    DefinitionError,
    Participant,
    Reply,
    Saga,
    Service,
    Status,
    Steps,
)
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
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


class PatientSaga(Saga[State], name="patient", version=1):
    pick = step.command(
        Pick,
        lambda state: Pick(order=state.order),
        compensation=lambda state: PutBack(shelf=None),
        timeout=timedelta(hours=2),
    )


class EternalSaga(Saga[State], name="eternal", version=1):
    pick = step.command(Pick, lambda state: Pick(order=state.order), pivot=True, timeout=timedelta(days=3650))


def warehouse_with(*, undoes: bool = True) -> Participant:
    """A participant whose second call ever makes the saga's shelf another one."""
    participant = Participant(warehouse, inbox=MemoryInbox(MemoryDatabase()))
    calls = []

    @participant.handles(Pick)
    def pick(command: Pick, context: Context) -> Picked:
        calls.append(command)
        return Picked(shelf="the second" if len(calls) == 2 else "")

    if undoes:

        @participant.undoes(PutBack)
        def put_back(command: PutBack, context: Context) -> None:
            pass

    return participant


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


def test_something_may_go_wrong_after_the_last_timeout_too() -> None:
    assert Simulation(PickSaga, State(order=1)).faults_stop == 2400
    assert Simulation(SlowSaga, State(order=1)).faults_stop > timedelta(days=3).total_seconds()

    run = Simulation(PatientSaga, State(order=1)).replay(
        {"warehouse is stopped": "after 0 s for 7300 s", "handling undo pick 1": "fails"}
    )

    assert run.step("pick").tries == 2


def test_years_of_waiting_do_not_take_years() -> None:
    assert Simulation(EternalSaga, State(order=1)).exhaust(0).schedules == 1


def test_a_step_without_an_inbox_is_not_simulated() -> None:
    class ThankSaga(Saga[State], name="thank", version=1):
        thank = step.task("post.thank", lambda state: {"order": state.order}, pivot=True)

    with pytest.raises(DefinitionError, match=r"ThankSaga\.thank is done by post, which keeps no inbox"):
        Simulation(ThankSaga, State(order=1))


# ---- mistakes of the test ---------------------------------------------------------------------------


def test_numbers_that_make_no_sense_are_refused() -> None:
    simulation = Simulation(PickSaga, State(order=1))

    with pytest.raises(ValueError, match="faults=-1: the least is 0"):
        simulation.exhaust(-1)
    with pytest.raises(ValueError, match="runs=0: at least one"):
        simulation.check(0)
    with pytest.raises(ValueError, match="sagas=0: there must be at least one"):
        Simulation(PickSaga, State(order=1), sagas=0)


def test_a_participant_without_a_handler_is_not_taken_for_one_that_refuses() -> None:
    """The saga would be compensated each time, and every promise kept."""
    nothing = Participant(warehouse, inbox=MemoryInbox(MemoryDatabase()))
    simulation = Simulation(PickSaga, State(order=1), participants=[nothing])

    with pytest.raises(
        DefinitionError, match=r"PickSaga\.pick would always be refused: .* warehouse\.pick\."
    ):
        simulation.exhaust(0)
    with pytest.raises(DefinitionError, match=r"PickSaga\.pick would always be refused"):
        simulation.check(1)


def test_a_participant_that_cannot_undo_what_it_does_is_the_tests_mistake() -> None:
    simulation = Simulation(PickSaga, State(order=1), participants=[warehouse_with(undoes=False)])

    with pytest.raises(DefinitionError, match=r"but not PutBack"):
        simulation.exhaust(0)


def test_of_each_service_there_is_one_participant() -> None:
    with pytest.raises(DefinitionError, match="Two participants of one service"):
        Simulation(PickSaga, State(order=1), participants=[warehouse_with(), warehouse_with()])


def test_a_handler_that_remembers_former_runs_is_told_from_a_broken_promise() -> None:
    def it_is_the_first_shelf(run: Run[State]) -> Iterator[str]:
        if run.state.shelf:
            yield "it is the second shelf"

    def simulation() -> Simulation[State]:
        return Simulation(
            PickSaga, State(order=1), participants=[warehouse_with()], promises=[it_is_the_first_shelf]
        )

    with pytest.raises(ConfigurationError, match=r"not when it was replayed.*remembers something"):
        simulation().exhaust(1)
    with pytest.raises(ConfigurationError, match=r"gave another run.*remembers something"):
        simulation().check(20)


def test_a_promise_may_assert_and_still_tells_the_schedule() -> None:
    def everything_is_picked(run: Run[State]) -> None:
        assert run.status is Status.COMPLETED, "not\neverything"

    simulation = Simulation(PickSaga, State(order=1), promises=[everything_is_picked])

    with pytest.raises(BrokenPromise, match="everything_is_picked raised AssertionError: not") as found:
        simulation.exhaust(1)

    assert "simulation.replay({" in str(found.value)
    with pytest.raises(BrokenPromise, match="everything_is_picked raised AssertionError: not"):
        simulation.check(50)


def test_what_is_printed_can_be_pasted_whatever_a_promise_says() -> None:
    def everything_is_picked(run: Run[State]) -> Iterator[str]:
        if run.status is not Status.COMPLETED:
            yield "it is\nnot 'picked'"

    simulation = Simulation(PickSaga, State(order=1), promises=[everything_is_picked])
    with pytest.raises(BrokenPromise) as found:
        simulation.exhaust(1)
    _, printed, _ = re.split(r"\n\n(?=    def|     0\.000)", str(found.value))
    names: dict[str, Any] = {"simulation": simulation}

    exec(textwrap.dedent(printed), names)

    with pytest.raises(BrokenPromise, match="it is\nnot 'picked'"):
        names["test_it_is_not_picked"]()


def test_a_choice_that_is_no_choice_there_is_told() -> None:
    simulation = Simulation(PickSaga, State(order=1))

    with pytest.raises(ValueError, match=r"'fail' never happens at 'handling pick 1'.*\n.*\n  fails\n"):
        simulation.replay({"handling pick 1": "fail"})

    assert simulation.replay({"sending pick 1": "late 12.345 s"}).status is Status.COMPLETED
