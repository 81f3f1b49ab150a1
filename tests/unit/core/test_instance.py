"""The instance as a value, and its form as JSON in the row."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas_framework.core.events import Act
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import (
    Cause,
    Flight,
    Intent,
    Outcome,
    OutcomeKind,
    Phase,
    Status,
    StepRecord,
    Waiting,
    steps_from_json,
    steps_to_json,
    with_due,
    with_waiting,
)
from tests.unit.core.stories import CREATE_ORDER, DELIVER_ORDER, NOON, Run, new_instance, seconds

# ---- as JSON --------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=3)
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30))])
TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=ZONES)  # noqa: DTZ001
COUNTS = st.integers(0, 20)
TEXTS = st.text(max_size=8)

FLIGHTS = st.builds(
    Flight,
    kind=st.sampled_from(Kind),
    attempt=COUNTS,
    message_id=TEXTS,
    task=TEXTS,
    queue=TEXTS,
    sent_at=TIMES,
    since=TIMES,
    check_at=st.none() | TIMES,
    resends=COUNTS,
    pauses=COUNTS,
    horizon=st.none() | TIMES,
    stalled=COUNTS,
    payload=st.none() | OBJECTS,
    hand_over=st.booleans(),
)
OUTCOMES = st.builds(Outcome, st.sampled_from(OutcomeKind), TEXTS, TEXTS, TEXTS)
INTENTS = st.builds(Intent, act=TEXTS, by=TEXTS, reason=TEXTS, reply=st.none() | OBJECTS)


def records(name: str) -> st.SearchStrategy[StepRecord]:
    return st.builds(
        StepRecord,
        name=st.just(name),
        phase=st.sampled_from(Phase),
        attempts=COUNTS,
        tries=COUNTS,
        settles=COUNTS,
        flight=st.none() | FLIGHTS,
        first_sent_at=st.none() | TIMES,
        deadline=st.none() | TIMES,
        resume_at=st.none() | TIMES,
        known=st.booleans(),
        parked=st.none() | TEXTS,
        error=st.none() | st.dictionaries(TEXTS, TEXTS, max_size=3),
        request=st.none() | OBJECTS,
        reply=st.none() | OBJECTS,
        intent=st.none() | INTENTS,
        turning=st.none() | OUTCOMES,
    )


STEPS = st.lists(TEXTS, unique=True, max_size=3).flatmap(
    lambda names: st.tuples(*(records(name) for name in names)).map(lambda made: {r.name: r for r in made})
)


@given(STEPS)
def test_steps_are_read_back_from_their_json_as_they_were(steps: dict[str, StepRecord]) -> None:
    text = json.dumps(steps_to_json(steps))

    assert steps_from_json(json.loads(text)) == steps


@given(STEPS)
def test_steps_are_read_back_in_their_order(steps: dict[str, StepRecord]) -> None:
    assert list(steps_from_json(steps_to_json(steps))) == list(steps)


@given(OUTCOMES)
def test_an_outcome_is_read_back_from_its_json(outcome: Outcome) -> None:
    assert Outcome.from_json(json.loads(json.dumps(outcome.to_json()))) == outcome


def test_a_step_that_did_not_begin_takes_no_room_in_the_row() -> None:
    assert steps_to_json({"approve_order": StepRecord("approve_order")}) == [{"name": "approve_order"}]


def test_every_field_of_a_step_is_kept_in_the_row() -> None:
    """Also one that is added later: it is neither left out nor unreadable."""
    run = Run().until("authorize_card")
    run.refuses("CardRefused")

    assert steps_from_json(json.loads(json.dumps(steps_to_json(run.instance.steps)))) == run.instance.steps


def test_what_only_has_its_default_in_the_row_of_an_older_release_is_read() -> None:
    (record,) = steps_from_json([{"name": "authorize_card", "phase": "running"}]).values()

    assert record == StepRecord("authorize_card", phase=Phase.RUNNING)


def test_a_message_in_flight_that_an_older_release_has_written_is_read() -> None:
    run = Run().until("authorize_card")
    row = steps_to_json(run.instance.steps)
    for step in row:
        for added_later in ("horizon", "stalled"):
            step.get("flight", {}).pop(added_later, None)

    assert steps_from_json(json.loads(json.dumps(row))) == run.instance.steps


# ---- when it is due -------------------------------------------------------------------------------


def flight(check_at: datetime) -> Flight:
    return Flight(Kind.DO, 1, "id", "task", "queue", NOON, NOON, check_at)


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, None),
        ({"deadline": NOON}, NOON),
        ({"resume_at": NOON}, NOON),
        ({"flight": flight(NOON)}, NOON),
        ({"deadline": NOON + seconds(9), "flight": flight(NOON + seconds(5))}, NOON + seconds(5)),
        ({"deadline": NOON + seconds(4), "resume_at": NOON + seconds(5)}, NOON + seconds(4)),
    ],
)
def test_a_step_is_due_at_the_first_of_its_moments(changes: dict[str, Any], due: datetime | None) -> None:
    assert replace(StepRecord("one"), **changes).due_at == due


def test_a_saga_is_due_with_the_first_of_its_steps() -> None:
    steps = {
        "one": StepRecord("one", deadline=NOON + seconds(9)),
        "two": StepRecord("two", resume_at=NOON + seconds(3)),
        "three": StepRecord("three"),
    }

    instance = with_due(replace(new_instance(CREATE_ORDER), steps=steps))

    assert instance.due_at == NOON + seconds(3)


@pytest.mark.parametrize("status", list(Status))
def test_only_an_ended_saga_is_never_due(status: Status) -> None:
    steps = {"one": StepRecord("one", deadline=NOON)}

    instance = with_due(replace(new_instance(CREATE_ORDER), steps=steps, status=status))

    assert (instance.due_at is None) is (status in (Status.COMPLETED, Status.COMPENSATED))


def test_everything_in_flight_is_named_with_its_step() -> None:
    steps = {
        "one": StepRecord("one", flight=flight(NOON)),
        "two": StepRecord("two"),
        "three": StepRecord("three", flight=flight(NOON)),
    }

    instance = replace(new_instance(CREATE_ORDER), steps=steps)

    assert [record.name for record, _ in instance.in_flight()] == ["one", "three"]


# ---- what it waits for ------------------------------------------------------------------------------


def test_a_saga_that_nobody_has_taken_up_waits_for_an_orchestrator() -> None:
    assert with_waiting(new_instance(CREATE_ORDER), NOON).waiting == Waiting(Cause.START, "", NOON)


def test_it_waits_for_the_answer_of_the_task_in_flight_since_it_was_sent() -> None:
    run = Run().start()
    run.now += seconds(5)

    run.succeeds("verify_consumer_details")

    waits = Waiting(Cause.ANSWER, "restaurant_service.create_ticket", NOON + seconds(5))
    assert run.instance.waiting == waits


def test_sending_again_does_not_begin_the_wait_anew() -> None:
    run = Run().until("create_restaurant_ticket")
    before = run.instance.waiting

    run.after(30, {"restaurant_service.commands": NOON + seconds(30)})

    assert run.flight("create_restaurant_ticket").resends == 1
    assert run.instance.waiting == before


def test_a_failed_try_has_it_wait_for_the_pause_and_the_next_try_for_the_answer_again() -> None:
    run = Run().until("create_restaurant_ticket")

    run.now += seconds(1)
    run.fails()
    pausing = run.instance.waiting
    run.after(1)

    assert pausing == Waiting(Cause.PAUSE, "create_restaurant_ticket", NOON + seconds(1))
    again = Waiting(Cause.ANSWER, "restaurant_service.create_ticket", NOON + seconds(2))
    assert run.instance.waiting == again


def test_what_is_parked_waits_for_a_person_at_its_step_until_somebody_acts() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.now += seconds(3)
    run.refuses("NoCourier")
    parked = run.instance.waiting
    run.operator(Act.SKIP)

    assert parked == Waiting(Cause.PERSON, "start_delivery", NOON + seconds(3))
    assert run.instance.waiting == Waiting(Cause.ANSWER, "consumer_service.send_receipt", NOON + seconds(3))


def test_a_person_is_needed_more_than_an_answer_that_may_still_come() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.after(timedelta(minutes=5))

    assert run.in_flight == ["start_delivery do 1"]
    assert run.instance.waiting == Waiting(Cause.PERSON, "start_delivery", NOON + timedelta(minutes=5))


def test_the_answer_to_an_undoing_is_waited_for_by_the_compensations_name() -> None:
    run = Run().until("authorize_card")

    run.refuses("CardRefused")

    assert run.instance.waiting == Waiting(Cause.ANSWER, "restaurant_service.reject_ticket", NOON)


def test_while_a_local_step_is_to_run_it_waits_for_the_orchestrators_next_look() -> None:
    run = Run(local_by_hand=True)

    run.start()

    assert run.instance.waiting == Waiting(Cause.TURN, "", NOON)


def test_what_has_ended_waits_for_nothing() -> None:
    completed, compensated = Run().start().until_end(), Run().until("authorize_card")
    compensated.refuses("CardRefused")
    compensated.until_end()

    assert completed.instance.waiting is None
    assert compensated.instance.waiting is None
