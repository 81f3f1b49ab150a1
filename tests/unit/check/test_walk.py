"""The walk: which paths there are, and that it ends soon."""

from __future__ import annotations

from datetime import timedelta
from itertools import count
from types import new_class
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sagas_framework import NOTHING_TO_UNDO, Retry, Saga, Steps, undo_task
from sagas_framework.check import walk as walking
from sagas_framework.check.paths import End, Walk, What
from sagas_framework.check.walk import walk
from sagas_framework.core.decide import decide
from sagas_framework.core.events import Act, Decision, Event, OperatorActed, Policy
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Phase, SagaInstance, Status
from tests.unit.check.orders import (
    CreateTicket,
    State,
    TicketCreated,
    authorize,
    charge,
    cook,
    nothing,
    printed,
    step,
    ticket,
)

again = authorize


class Whole(Saga[State], name="whole", version=1):
    mark = step.local(nothing, compensation=nothing)
    ticket = ticket()
    authorize = authorize()
    charge = charge()
    cook = cook()
    close = step.local(nothing)


WALK = walk(Whole.definition)


def ends(walk: Walk, *story: str) -> list[tuple[Status, tuple[str, ...]]]:
    """Status and what is undone, of the paths that tell this story: ``step: what name``."""
    return [(end.status, end.did(Kind.UNDO)) for end in walk.ends if told(end) == list(story)]


def told(end: End) -> list[str]:
    return [f"{happened.step}: {happened.what.value} {happened.name}".strip() for happened in end.story]


def test_when_every_step_succeeds_it_is_completed() -> None:
    (end,) = [end for end in WALK.ends if not end.story]

    assert end.status is Status.COMPLETED
    assert end.did(Kind.DO) == ("mark", "ticket", "authorize", "charge", "cook", "close")
    assert end.did(Kind.UNDO) == ()


def test_a_refused_step_is_not_undone_but_those_before_it_are() -> None:
    assert ends(WALK, "authorize: refused Refused") == [(Status.COMPENSATED, ("ticket", "mark"))]


def test_a_step_that_failed_had_no_answer_or_was_cancelled_is_undone_as_well() -> None:
    undone = (Status.COMPENSATED, ("authorize", "ticket", "mark"))

    assert ends(WALK, "authorize: failed") == [undone]
    assert ends(WALK, "authorize: no answer") == [undone]
    assert ends(WALK, "authorize: cancelled") == [undone]


def test_the_pivot_is_settled_before_it_is_given_up() -> None:
    undone = (Status.COMPENSATED, ("authorize", "ticket", "mark"))

    for first in ("failed", "no answer", "cancelled"):
        assert ends(WALK, f"charge: {first}", "charge: settled: withdrawn") == [undone]
        assert ends(WALK, f"charge: {first}", "charge: settled: refused Refused") == [undone]
        assert ends(WALK, f"charge: {first}") == []
    assert What.SETTLED_DONE in {happened.what for happened in WALK.happened}


def test_after_the_pivot_what_fails_or_is_late_ends_completed_and_is_not_told() -> None:
    late = {happened.what for happened in WALK.happened if happened.step == "cook"}

    assert late == {What.SUCCEEDED, What.FAILED, What.NO_ANSWER}
    assert [told(end) for end in WALK.ends if "cook" in str(end.story)] == []


def test_our_own_code_turns_back_before_the_pivot_and_parks_after_it() -> None:
    assert ends(WALK, "mark: raised") == [(Status.COMPENSATED, ())]
    assert ends(WALK, "close: raised") == [(Status.PARKED, ())]


def test_it_may_be_cancelled_before_its_first_step() -> None:
    assert ends(WALK, ": cancelled") == [(Status.COMPENSATED, ())]


def test_it_is_cancelled_in_flight_and_in_the_pause_after_a_failed_attempt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cancelled: set[tuple[str, Phase]] = set()

    def spying(saga: Any, instance: SagaInstance, event: Event, policy: Policy) -> Decision:
        if isinstance(event, OperatorActed) and event.act is Act.CANCEL:
            cancelled.update((r.name, r.phase) for r in instance.steps.values() if r.due_at)
        return decide(saga, instance, event, policy)

    class Twice(Saga[State], name="twice", version=1):
        authorize = authorize(retry=Retry(attempts=2))
        once = again(retry=Retry(attempts=1))

    monkeypatch.setattr(walking, "decide", spying)
    walk(Twice.definition)

    assert cancelled == {("authorize", Phase.RUNNING), ("authorize", Phase.PAUSING), ("once", Phase.RUNNING)}


def test_a_step_without_an_inbox_is_never_settled_and_a_person_is_asked() -> None:
    class Printed(Saga[State], name="printed", version=1):
        print = printed()
        charge = charge()

    found = walk(Printed.definition)

    assert ends(found, "print: failed") == [(Status.COMPENSATED, ())]
    assert ends(found, "print: no answer") == [(Status.PARKED, ())]
    assert ends(found, "print: no answer", "print: a person says: withdrawn") == [(Status.COMPENSATED, ())]
    assert ends(found, "charge: refused Refused") == [(Status.COMPENSATED, ("print",))]
    assert ends(found, "print: cancelled") == []
    assert What.SAID_DONE in {happened.what for happened in found.happened}


def test_without_a_pivot_every_step_is_undone() -> None:
    class NoPivot(Saga[State], name="no_pivot", version=1):
        first = authorize()
        second = ticket()

    found = walk(NoPivot.definition)

    assert ends(found, "second: no answer") == [(Status.COMPENSATED, ("second", "first"))]
    assert {end.status for end in found.ends} == {Status.COMPLETED, Status.COMPENSATED}


# ---- how it is walked -----------------------------------------------------------------------------


def test_no_local_step_is_run() -> None:
    def never(state: State, session: object) -> None:
        raise AssertionError("it ran")

    class Local(Saga[State], name="local", version=1):
        mark = step.local(never, compensation=never)
        charge = charge()

    found = walk(Local.definition)

    assert ends(found, "charge: refused Refused") == [(Status.COMPENSATED, ("mark",))]
    assert found.faults == ()


class Filled(BaseModel):
    order_id: int
    number: str | None = Field(None, examples=["N-1"])


filled = Steps(Filled)


def test_what_a_local_step_or_a_plain_task_leaves_is_taken_from_the_fields_example() -> None:
    seen: list[str | None] = []

    def arguments(state: Filled) -> dict[str, Any]:
        seen.append(state.number)
        return {"number": state.number}

    def reserved(state: Filled, result: Any) -> None:
        state.number = result["number"]  # nobody can guess what the task returns

    class ByLocal(Saga[Filled], name="by_local", version=1):
        number = filled.local(nothing, compensation=NOTHING_TO_UNDO)
        reserve = filled.task("shop.reserve", arguments, compensation=undo_task("shop.free", arguments))

    class ByTask(Saga[Filled], name="by_task", version=1):
        first = filled.task("shop.number", lambda s: {}, on_success=reserved, compensation=NOTHING_TO_UNDO)
        reserve = filled.task("shop.reserve", arguments, compensation=NOTHING_TO_UNDO)

    assert walk(ByLocal.definition).faults == ()
    assert walk(ByTask.definition).faults == ()
    assert set(seen) == {"N-1"}


def test_a_hook_that_is_never_twice_the_same_does_not_make_it_endless() -> None:
    numbers = count()

    def remember_another(state: State, reply: TicketCreated) -> None:
        state.ticket_id = next(numbers)

    def dice() -> Any:
        return step.command(
            CreateTicket, lambda s: CreateTicket(order_id=s.order_id), on_success=remember_another
        )

    class Dice(Saga[State], name="dice", version=1):
        charge = charge()
        one, two, three, four = dice(), dice(), dice(), dice()
        five, six, seven, eight = dice(), dice(), dice(), dice()

    assert walk(Dice.definition).situations < 200


def test_hooks_are_called_with_copies_and_the_declaration_is_left_as_it_was() -> None:
    before = [(s.retry, s.undo_retry, s.timeout) for s in Whole.definition.steps]

    first, second = walk(Whole.definition), walk(Whole.definition)

    assert first == second
    assert [(s.retry, s.undo_retry, s.timeout) for s in Whole.definition.steps] == before


def long_saga(steps: int) -> type[Saga[State]]:
    body: dict[str, Any] = {f"before_{n}": authorize(retry=Retry(1000)) for n in range(steps)}
    body["charge"] = charge(timeout=timedelta(days=3000))
    body |= {f"after_{n}": cook(retry=Retry(1_000_000)) for n in range(steps)}
    options = {"name": "long", "version": 1}
    return new_class("Long", (Saga[State],), options, lambda names: names.update(body))


def test_it_grows_with_the_steps_not_with_their_combinations() -> None:
    five, ten = walk(long_saga(5).definition), walk(long_saga(10).definition)

    # Of each of 10 steps after the pivot three things may become: 59,049 ways to come to an end.
    assert ten.situations < 1000
    assert ten.situations < five.situations * 4
    assert len(ten.ends) < len(five.ends) * 3
