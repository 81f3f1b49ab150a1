"""Declaring a saga: what a good one becomes, and what a wrong one is told to write instead."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework.errors import DefinitionError, UnknownSaga
from sagas_framework.messages import Command, Compensation, Reply, Service
from sagas_framework.saga import Definitions, Saga, SagaDefinition, Steps
from sagas_framework.steps import DEFAULT_TIMEOUT, NOTHING_TO_UNDO, LocalStep, Retry

kitchen = Service("kitchen")


class Cooked(Reply):
    dish: str


class Cook(Command[Cooked], service=kitchen, name="cook"):
    dish: str


class ThrowAway(Compensation[Cook], service=kitchen, name="throw_away"):
    dish: str | None


class Ring(Command[None], service=kitchen, name="ring"):
    pass


class Dinner(BaseModel):
    dish: str = "soup"


class Lunch(BaseModel):
    dish: str = "salad"


step = Steps(Dinner)


def cook(state: Dinner) -> Cook:
    return Cook(dish=state.dish)


def throw_away(state: Dinner) -> ThrowAway:
    return ThrowAway(dish=state.dish)


def ring(state: Dinner) -> Ring:
    return Ring()


def lay_table(state: Dinner, session: Session) -> None:
    pass


def clear_table(state: Dinner, session: Session) -> None:
    pass


class ServeDinner(Saga[Dinner], name="serve_dinner", version=2):
    """From the kitchen to the table."""

    table = step.local(lay_table, compensation=clear_table)
    cooking = step.command(Cook, cook, compensation=throw_away)
    ringing = step.command(Ring, ring, pivot=True)
    done = step.local(lay_table)


# ---- a good one -----------------------------------------------------------------------------------


def test_a_definition_has_what_its_class_says_with_the_steps_in_order() -> None:
    definition = ServeDinner.definition

    assert (definition.name, definition.version, definition.state) == ("serve_dinner", 2, Dinner)
    assert definition.doc == "From the kitchen to the table."
    assert [s.name for s in definition.steps] == ["table", "cooking", "ringing", "done"]
    assert definition.pivot == 2


def test_a_step_is_found_by_its_name() -> None:
    assert ServeDinner.definition.index("ringing") == 2
    with pytest.raises(KeyError, match="dessert"):
        ServeDinner.definition.index("dessert")


def test_a_step_is_itself_on_the_class_and_on_an_instance() -> None:
    assert ServeDinner.cooking is ServeDinner.definition.steps[1]
    assert ServeDinner().cooking is ServeDinner.cooking


def test_a_step_knows_whether_there_is_something_to_undo() -> None:
    assert ServeDinner.table.undoable
    assert ServeDinner.cooking.undoable
    assert not ServeDinner.ringing.undoable
    assert not ServeDinner.done.undoable
    assert not step.command(Cook, cook, compensation=NOTHING_TO_UNDO).undoable


def test_a_step_is_waited_for_five_minutes_unless_it_says_otherwise() -> None:
    assert ServeDinner.cooking.timeout == DEFAULT_TIMEOUT == timedelta(minutes=5)
    assert step.command(Cook, cook, timeout=timedelta(hours=1)).timeout == timedelta(hours=1)


def test_without_a_pivot_every_step_is_before_it() -> None:
    class OnlyCooking(Saga[Dinner], name="only_cooking", version=1):
        cooking = step.command(Cook, cook, compensation=throw_away)

    assert OnlyCooking.definition.pivot == 1


def test_a_last_local_step_without_compensation_is_the_pivot() -> None:
    """Nothing can fail after it: it is kept, or it never was."""

    class CookAndNote(Saga[Dinner], name="cook_and_note", version=1):
        cooking = step.command(Cook, cook, compensation=throw_away)
        note = step.local(lay_table)

    assert CookAndNote.definition.pivot == 1


# ---- its shape ------------------------------------------------------------------------------------


def _shape(**steps: Any) -> str:
    body = {**steps, "__orig_bases__": (Saga[Dinner],)}
    made = type("Made", (Saga,), body, name="made", version=1)
    definition = made.definition  # type: ignore[attr-defined]
    assert isinstance(definition, SagaDefinition)
    return definition.shape


def test_the_shape_does_not_depend_on_hooks_pauses_and_timeouts() -> None:
    one = _shape(cooking=step.command(Cook, cook, compensation=throw_away))
    other = _shape(
        cooking=step.command(
            Cook,
            lambda state: Cook(dish="other"),
            on_success=lambda state, reply: None,
            compensation=lambda state: ThrowAway(dish=None),
            retry=Retry(9),
            timeout=timedelta(days=1),
        )
    )

    assert one == other


def test_the_shape_depends_on_names_commands_order_pivot_and_compensation() -> None:
    shapes = [
        _shape(a=step.command(Cook, cook, compensation=throw_away)),
        _shape(b=step.command(Cook, cook, compensation=throw_away)),
        _shape(a=step.command(Cook, cook, compensation=NOTHING_TO_UNDO)),
        _shape(a=step.command(Cook, cook, pivot=True)),
        _shape(a=step.command(Ring, ring, compensation=NOTHING_TO_UNDO)),
        _shape(a=step.local(lay_table, compensation=clear_table)),
        _shape(a=step.local(lay_table)),
        _shape(
            a=step.command(Cook, cook, compensation=throw_away), b=step.local(compensation=NOTHING_TO_UNDO)
        ),
        _shape(
            b=step.local(compensation=NOTHING_TO_UNDO), a=step.command(Cook, cook, compensation=throw_away)
        ),
    ]

    assert len(set(shapes)) == len(shapes)


# ---- a wrong one ----------------------------------------------------------------------------------


def test_a_saga_without_a_name_or_a_version_is_told_to_write_both_out() -> None:
    told = (
        'Nameless needs a name and a version from 1 on: class Nameless(Saga[State], name="...", version=1).'
    )

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Nameless(Saga[Dinner], version=1):
            done = step.local(lay_table)

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Nameless(Saga[Dinner], name="nameless"):  # type: ignore[no-redef]
            done = step.local(lay_table)


def test_a_saga_without_steps_is_told_to_have_some() -> None:
    told = "Lazy has no steps: assign step.command(...) or step.local(...) in its body."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Lazy(Saga[Dinner], name="lazy", version=1):
            pass


def test_a_saga_without_a_state_is_told_to_name_one() -> None:
    told = "Stateless names no state: write class Stateless(Saga[SomePydanticModel], ...)."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Stateless(Saga, name="stateless", version=1):  # type: ignore[type-arg]
            done = step.local(lay_table)


def test_a_state_that_is_no_model_is_none() -> None:
    with pytest.raises(DefinitionError, match="Stateful names no state"):

        class Stateful(Saga[dict], name="stateful", version=1):  # type: ignore[type-arg,type-var]
            done = step.local(lay_table)


def test_a_step_made_for_another_state_is_named_with_both_states() -> None:
    told = "Mixed.cooking was made for the state Dinner, but the saga's is Lunch: make it with Steps(Lunch)."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Mixed(Saga[Lunch], name="mixed", version=1):
            cooking = step.command(Cook, cook, compensation=throw_away)


def test_a_second_pivot_is_named_with_the_first() -> None:
    told = "Undecided has more than one pivot (one, two); keep pivot=True on one of them."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Undecided(Saga[Dinner], name="undecided", version=1):
            one = step.command(Ring, ring, pivot=True)
            two = step.command(Ring, ring, pivot=True)


def test_a_step_before_the_pivot_without_a_compensation_must_say_so_on_purpose() -> None:
    told = (
        "Forgetful.cooking is before the pivot and has no compensation. Say how it is undone "
        "(compensation=...), or that it leaves nothing behind: compensation=NOTHING_TO_UNDO."
    )

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Forgetful(Saga[Dinner], name="forgetful", version=1):
            cooking = step.command(Cook, cook)
            ringing = step.command(Ring, ring, pivot=True)


def test_a_saga_without_a_pivot_needs_a_compensation_for_its_last_command_too() -> None:
    with pytest.raises(DefinitionError, match=r"Endless\.ringing is before the pivot"):

        class Endless(Saga[Dinner], name="endless", version=1):
            ringing = step.command(Ring, ring)


@pytest.mark.parametrize("pivot", [True, False])
def test_a_compensation_that_could_never_run_is_told_to_go(pivot: bool) -> None:
    told = (
        "Vain.cooking is the pivot or after it, where nothing is undone: its compensation could never run. "
        "Remove compensation=, or move the pivot."
    )

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Vain(Saga[Dinner], name="vain", version=1):
            if not pivot:
                ringing = step.command(Ring, ring, pivot=True)
            cooking = step.command(Cook, cook, compensation=throw_away, pivot=pivot)


def test_a_compensation_without_a_contract_is_told_to_declare_one() -> None:
    told = "Loud.ringing has a compensation, but no Compensation[Ring] is declared."
    hook: Any = throw_away

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Loud(Saga[Dinner], name="loud", version=1):
            ringing = step.command(Ring, ring, compensation=hook)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(seconds=-1)])
def test_a_step_without_time_is_told_to_have_some(timeout: timedelta) -> None:
    told = f"Hasty.cooking has a timeout of {timeout}: give it more than nothing."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Hasty(Saga[Dinner], name="hasty", version=1):
            cooking = step.command(Cook, cook, compensation=throw_away, timeout=timeout)


def test_one_step_under_two_names_is_told_to_be_two() -> None:
    told = "Twice.two is the same step as Twice.one: call step.command(...) or step.local(...) once for each"
    same = step.local(lay_table, compensation=clear_table)

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Twice(Saga[Dinner], name="twice", version=1):
            one = same
            two = same


def test_a_step_of_another_saga_is_told_to_be_made_anew() -> None:
    with pytest.raises(DefinitionError, match=r"Copied\.cooking is the same step as ServeDinner\.cooking"):

        class Copied(Saga[Dinner], name="copied", version=1):
            cooking = ServeDinner.cooking

    assert ServeDinner.cooking.name == "cooking"


# ---- pauses ---------------------------------------------------------------------------------------


def test_pauses_double_up_to_their_ceiling() -> None:
    retry = Retry(9, pause=timedelta(seconds=5), ceiling=timedelta(seconds=30))

    pauses = [retry.pause_after(attempt).total_seconds() for attempt in (1, 2, 3, 4, 5)]

    assert pauses == [5, 10, 20, 30, 30]


def test_a_factor_of_one_keeps_the_pause() -> None:
    retry = Retry(pause=timedelta(seconds=5), factor=1)

    assert retry.pause_after(100) == timedelta(seconds=5)


@given(
    pause=st.timedeltas(timedelta(0), timedelta(days=400)),
    factor=st.floats(1, 1e300),
    ceiling=st.timedeltas(timedelta(0), timedelta(days=400)),
    attempt=st.integers(1, 10**9),
)
def test_a_pause_is_never_negative_never_above_its_ceiling_and_never_shrinks(
    pause: timedelta, factor: float, ceiling: timedelta, attempt: int
) -> None:
    retry = Retry(pause=pause, factor=factor, ceiling=ceiling)

    this, following = retry.pause_after(attempt), retry.pause_after(attempt + 1)

    assert timedelta(0) <= this <= following <= ceiling


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts": 0},
        {"pause": timedelta(seconds=-1)},
        {"factor": 0.99},
        {"ceiling": timedelta(seconds=-1)},
    ],
)
def test_a_senseless_retry_is_told_what_makes_sense(wrong: dict[str, Any]) -> None:
    told = "attempts and factor are at least 1, and a pause is not negative"

    with pytest.raises(DefinitionError, match=told):
        Retry(**wrong)


# ---- the sagas that a process knows ---------------------------------------------------------------


class ServeDinnerAtFirst(Saga[Dinner], name="serve_dinner", version=1):
    done = step.local(lay_table)


def test_definitions_are_found_by_name_and_version() -> None:
    definitions = Definitions([ServeDinner, ServeDinnerAtFirst])

    assert definitions.get("serve_dinner", 1) is ServeDinnerAtFirst.definition
    assert definitions.get("serve_dinner", 2) is ServeDinner.definition
    assert definitions.known() == [("serve_dinner", 2), ("serve_dinner", 1)]
    assert list(definitions) == [ServeDinner.definition, ServeDinnerAtFirst.definition]


def test_an_unknown_saga_is_told_which_are_known_and_what_to_do() -> None:
    definitions = Definitions([ServeDinner])

    with pytest.raises(UnknownSaga) as raised:
        definitions.get("serve_dinner", 3)

    assert str(raised.value) == (
        "No saga named 'serve_dinner' version 3; known: serve_dinner version 2. "
        "Give its class to Sagas(...) in the worker's module and restart the worker."
    )
    assert (raised.value.name, raised.value.version) == ("serve_dinner", 3)


def test_without_any_saga_none_is_known() -> None:
    with pytest.raises(UnknownSaga, match="known: none"):
        Definitions([]).get("serve_dinner", 1)


def test_two_sagas_of_one_name_and_version_are_told_apart() -> None:
    class Impostor(Saga[Dinner], name="serve_dinner", version=2):
        done = step.local(lay_table)

    told = "Two sagas are named 'serve_dinner' in version 2; give one another name or the next version."

    with pytest.raises(DefinitionError, match=re.escape(told)):
        Definitions([ServeDinner, Impostor])


def test_the_same_saga_twice_is_once() -> None:
    assert Definitions([ServeDinner, ServeDinner]).known() == [("serve_dinner", 2)]


def test_a_step_made_with_nothing_but_its_undoing_is_a_local_one() -> None:
    only_undo = step.local(compensation=clear_table)

    assert isinstance(only_undo, LocalStep)
    assert only_undo.action is None
    assert only_undo.undoable
