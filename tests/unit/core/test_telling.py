"""The words for phases, lines of the history, and what is there of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import pytest

from sagas_framework.core.events import Act, Recorded, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import OutcomeKind, Phase, StepRecord
from sagas_framework.core.telling import Effect, effect, line_in_words, phase_in_words, records_of
from tests.unit.core.stories import CREATE_ORDER, DELIVER_ORDER, NOON, Run, new_instance, seconds

TICKET, CARD = "create_restaurant_ticket", "authorize_card"


# ---- effects ----------------------------------------------------------------------------------------


def effect_of(run: Run, step: str, *, declared: bool = True) -> Effect:
    return effect(run.step(step), run.instance, run.saga if declared else None)


def in_flight() -> Run:
    return Run().until(TICKET)


def turned_back() -> Run:
    """The card was refused, and the ticket is being rejected."""
    run = Run().until(CARD)
    run.refuses("CardRefused")
    return run


def silent() -> Run:
    """Nobody answered whether the card was charged, and that is being undone."""
    run = Run().until(CARD)
    run.after(timedelta(minutes=5))
    return run


def completed() -> Run:
    return Run(DELIVER_ORDER).start().until_end()


def compensated() -> Run:
    run = turned_back()
    run.until_end()
    return run


def handed_over() -> Run:
    run = turned_back()
    for _ in range(5):
        run.fails(TICKET, "KitchenOffline")
        run.after(60)
    run.operator(Act.COMPLETE)
    run.settles("yours_to_undo", TICKET, reply={"ticket_id": 7})
    assert run.phase(TICKET) is Phase.HANDED_OVER
    return run


@pytest.mark.parametrize(
    ("story", "step", "there"),
    [
        (in_flight, TICKET, Effect.UNKNOWN),
        (in_flight, CARD, Effect.NEVER),
        (in_flight, "verify_consumer_details", Effect.NONE),
        (in_flight, "reject_order", Effect.THERE),
        (turned_back, CARD, Effect.NEVER),
        (turned_back, TICKET, Effect.STILL_THERE),
        (turned_back, "reject_order", Effect.STILL_THERE),
        (silent, CARD, Effect.UNKNOWN),
        (compensated, TICKET, Effect.UNDONE),
        (compensated, "verify_consumer_details", Effect.NONE),
        (compensated, "approve_order", Effect.NEVER),
        (completed, TICKET, Effect.KEPT),
        (completed, "start_delivery", Effect.KEPT),
        (completed, "verify_consumer_details", Effect.NONE),
        (handed_over, TICKET, Effect.STILL_THERE),
    ],
)
def test_what_is_there_of_a_step(story: Callable[[], Run], step: str, there: Effect) -> None:
    assert effect_of(story(), step) is there


def test_a_step_before_its_first_sending_has_never_happened() -> None:
    run = Run().start()
    record = replace(run.step(TICKET), phase=Phase.RUNNING)

    assert effect(record, run.instance, CREATE_ORDER) is Effect.NEVER


def test_without_the_declaration_a_question_counts_as_something_that_is_there() -> None:
    assert effect_of(in_flight(), "verify_consumer_details", declared=False) is Effect.THERE
    assert effect_of(compensated(), "verify_consumer_details", declared=False) is Effect.UNDONE


def test_an_undo_that_was_skipped_left_what_was_there() -> None:
    known, unknown = turned_back(), silent()
    for run, step in ((known, TICKET), (unknown, CARD)):
        for _ in range(5):
            run.fails(step, "Offline")
            run.after(60)
        run.operator(Act.SKIP, step, force=True)

    assert effect_of(known, TICKET) is Effect.STILL_THERE
    assert effect_of(unknown, CARD) is Effect.UNKNOWN


def test_a_step_that_was_skipped_forward_never_happened_if_its_participant_closed_it() -> None:
    refused = Run(DELIVER_ORDER).until("start_delivery")
    refused.refuses("NoCourier")
    refused.operator(Act.SKIP)
    asked = Run(DELIVER_ORDER).until("start_delivery")
    asked.after(timedelta(minutes=5))
    asked.operator(Act.SKIP)
    asked.settles("withdrawn")

    assert refused.phase("start_delivery") is asked.phase("start_delivery") is Phase.SKIPPED
    assert effect_of(refused, "start_delivery") is Effect.NEVER
    assert effect_of(asked, "start_delivery") is Effect.NEVER


def test_a_step_that_was_skipped_without_asking_may_yet_happen() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(timedelta(minutes=5))

    run.operator(Act.SKIP, force=True)
    run.until_end()

    assert run.phase("start_delivery") is Phase.SKIPPED
    assert effect_of(run, "start_delivery") is Effect.UNKNOWN


def test_neither_a_failed_try_nor_an_unanswered_question_says_that_it_never_happened() -> None:
    pausing = Run(DELIVER_ORDER).until("start_delivery")
    pausing.fails()
    asking = Run(DELIVER_ORDER).until("start_delivery")
    asking.after(timedelta(minutes=5))
    asking.operator(Act.SKIP)

    for run in (pausing, asking):
        run.operator(Act.SKIP, "start_delivery", force=True)

        assert run.phase("start_delivery") is Phase.SKIPPED
        assert effect_of(run, "start_delivery") is Effect.UNKNOWN


def test_every_phase_has_an_effect_and_a_word() -> None:
    run = completed()

    for phase in Phase:
        record = StepRecord("start_delivery", phase, first_sent_at=NOON)
        assert effect(record, run.instance, run.saga) in Effect
        assert phase_in_words(record, run.saga)


# ---- phases -----------------------------------------------------------------------------------------


def test_what_needs_a_person_is_said_beside_the_phase() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")

    assert phase_in_words(run.step("start_delivery"), run.saga) == "refused, parked"
    assert phase_in_words(run.step("approve_restaurant_ticket"), run.saga) == "done"


def test_a_step_that_needs_a_person_does_not_pause_unless_its_next_try_comes_by_itself() -> None:
    refused, failing = turned_back(), turned_back()
    refused.refuses("KitchenOffline", TICKET)
    for _ in range(5):
        failing.fails(TICKET, "KitchenOffline")
        failing.after(timedelta(hours=1))
    failing.fails(TICKET, "KitchenOffline")

    assert refused.step(TICKET).parked
    assert phase_in_words(refused.step(TICKET), refused.saga) == "undo failed, parked"
    assert phase_in_words(failing.step(TICKET), failing.saga) == "undo pausing, parked"


def test_only_what_left_something_behind_is_undone() -> None:
    run = compensated()

    words = {name: phase_in_words(run.step(name), run.saga) for name in (TICKET, "verify_consumer_details")}

    assert words == {TICKET: "undone", "verify_consumer_details": "nothing to undo"}
    assert phase_in_words(run.step("verify_consumer_details"), None) == "undone"


def test_a_saga_that_has_not_started_has_the_steps_of_its_declaration() -> None:
    instance = new_instance(CREATE_ORDER)

    assert [record.name for record in records_of(instance, CREATE_ORDER)] == [
        step.name for step in CREATE_ORDER.steps
    ]
    assert records_of(instance, None) == []
    assert records_of(in_flight().instance, None) == list(in_flight().instance.steps.values())


# ---- history ----------------------------------------------------------------------------------------


def told(**detail: Any) -> str:
    return line_in_words(Recorded(NOON, "step.entry", "step", MappingProxyType(detail)))


@pytest.mark.parametrize(
    ("detail", "words"),
    [
        ({}, ""),
        ({"attempt": 2}, "try 2"),
        ({"try": 3, "type": "KitchenOffline", "message": "no display"}, "try 3; KitchenOffline: no display"),
        ({"times": 2, "why": "presumed lost"}, "twice; presumed lost"),
        ({"type": "KitchenBusy", "message": "", "module": "kitchen.ovens"}, "KitchenBusy"),
        ({"next_at": (NOON + seconds(10)).isoformat()}, "again in 10 s"),
        ({"by": "ann", "reason": "she called"}, 'by ann: "she called"'),
        ({"reason": "its compensation failed"}, "its compensation failed"),
        ({"nothing_to_undo": True}, "nothing to undo"),
        ({"reply": {"ticket_id": 7, "name": "Crème"}}, 'reply: {"ticket_id": 7, "name": "Crème"}'),
        ({"effect": "may stay"}, "effect: may stay"),
        (
            {"kind": "refused", "name": "CardRefused", "message": "no money", "step": "authorize_card"},
            "refused at authorize_card; CardRefused: no money",
        ),
        ({"kind": "ok", "name": "", "message": "", "step": ""}, "ok"),
    ],
)
def test_what_belongs_to_a_line_is_told_in_words(detail: dict[str, Any], words: str) -> None:
    assert told(**detail) == words


def test_every_line_of_a_story_can_be_told() -> None:
    run = handed_over()

    lines = [line_in_words(line) for line in run.history]

    assert "refused at authorize_card; CardRefused: says CardRefused" in lines
    assert "try 1; KitchenOffline: says KitchenOffline; again in 1 s" in lines
    assert all("\n" not in line for line in lines)


def test_nothing_that_people_read_speaks_of_attempts_or_timeouts() -> None:
    pivot = Run().until("approve_restaurant_ticket")
    pivot.fails()
    pivot.after(5)
    late = pivot.reply_of("approve_restaurant_ticket", Kind.DO, 1, Result.FAILED)
    ignored = pivot.happens(late).ignored or ""
    retried = Run(DELIVER_ORDER).until("start_delivery")
    for _ in range(4):
        retried.fails()
        retried.after(60)
    retried.fails()
    answer = retried.operator(Act.RETRY).answer or ""

    said = [line_in_words(line) for run in (silent(), pivot, retried, handed_over()) for line in run.history]

    assert ignored == "try 1 is over"
    assert answer.startswith("try ")
    assert not [line for line in (*said, ignored, answer) if "attempt" in line or "timeout" in line]
    assert any("no answer in 300 s" in line for line in said)


def test_the_outcome_of_silence_is_that_nobody_answered() -> None:
    outcome = silent().outcome

    assert outcome is not None
    assert (outcome.kind, outcome.name) == (OutcomeKind.EXPIRED, "NoAnswer")
    assert outcome.message == "accounting_service.authorize_card: no answer in 300 s"
