"""Which message a reply answers, and which replies count (rule 12)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas_framework.core.events import Result, Unroutable
from sagas_framework.core.ids import Kind, message_id
from sagas_framework.core.instance import Phase, Status
from sagas_framework.saga import Saga
from tests.unit.core.stories import (
    DELIVER_ORDER,
    SAGA_ID,
    CreateTicket,
    OrderState,
    Run,
    open_ticket,
    reject_ticket,
    step,
)

TICKET = "create_restaurant_ticket"
FOREIGN = "5ad0cd09-0000-5000-8000-000000000000"


def second_attempt() -> Run:
    run = Run().until(TICKET)
    run.fails()
    run.after(1)
    return run


# ---- matching -------------------------------------------------------------------------------------


def test_a_reply_is_matched_by_its_first_id() -> None:
    run = Run().until(TICKET)
    ids = (message_id(SAGA_ID, TICKET, Kind.DO, 1), FOREIGN)

    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}, refs=ids))

    assert run.phase(TICKET) is Phase.SUCCEEDED


def test_a_reply_is_matched_by_its_second_id_when_the_first_is_foreign() -> None:
    run = Run().until(TICKET)
    ids = (FOREIGN, message_id(SAGA_ID, TICKET, Kind.DO, 1))

    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}, refs=ids))

    assert run.phase(TICKET) is Phase.SUCCEEDED


def test_a_reply_without_ids_is_matched_by_its_task() -> None:
    run = Run().until(TICKET)

    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}, refs=()))

    assert run.phase(TICKET) is Phase.SUCCEEDED


def test_a_reply_with_an_id_that_does_not_match_is_not_matched_by_its_task() -> None:
    """A8d: an old failure would be counted for the new attempt."""
    run = Run().until(TICKET)

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.FAILED, refs=(FOREIGN,)))

    assert decision.ignored == "matches nothing that was sent"
    assert run.phase(TICKET) is Phase.RUNNING


def test_a_reply_without_ids_of_another_task_matches_nothing() -> None:
    run = Run().until(TICKET)

    decision = run.happens(run.reply_of("authorize_card", Kind.DO, 1, Result.SUCCESS, refs=()))

    assert decision.ignored == "matches nothing that was sent"


def test_a_reply_with_the_right_id_and_another_task_matches_nothing() -> None:
    run = Run().until(TICKET)
    ids = (message_id(SAGA_ID, TICKET, Kind.DO, 1),)

    decision = run.happens(run.reply_of("authorize_card", Kind.DO, 1, Result.SUCCESS, refs=ids))

    assert decision.ignored == "matches nothing that was sent"
    assert run.phase(TICKET) is Phase.RUNNING


class TwoTicketsSaga(Saga[OrderState], name="two_tickets", version=1):
    """The same command twice."""

    first_ticket = step.command(CreateTicket, open_ticket, compensation=reject_ticket)
    second_ticket = step.command(CreateTicket, open_ticket, compensation=reject_ticket)


def test_a_reply_without_ids_that_could_answer_two_messages_matches_neither() -> None:
    run = Run(TwoTicketsSaga.definition).until("second_ticket")
    run.after(timedelta(minutes=5))  # the second is undone
    run.after(timedelta(minutes=5))  # its compensation is parked, so the first is undone too
    assert run.in_flight == ["first_ticket undo 1", "second_ticket undo 1"]

    decision = run.happens(run.reply_of("first_ticket", Kind.UNDO, 1, Result.SUCCESS, refs=()))

    assert decision.ignored == "matches nothing that was sent"


def test_two_steps_with_the_same_command_are_told_apart_by_the_ids() -> None:
    run = Run(TwoTicketsSaga.definition).until("second_ticket")

    decision = run.happens(run.reply_of("first_ticket", Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}))

    assert decision.ignored == "first_ticket is succeeded"
    assert run.phase("second_ticket") is Phase.RUNNING


# ---- what counts ----------------------------------------------------------------------------------


def test_a_success_of_an_older_attempt_counts() -> None:
    run = second_attempt()

    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}))

    assert run.phase(TICKET) is Phase.SUCCEEDED
    assert run.in_flight == ["authorize_card do 1"]


def test_a_refusal_of_an_older_attempt_counts() -> None:
    run = second_attempt()

    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.REFUSED))

    assert run.phase(TICKET) is Phase.REFUSED


def test_a_failure_of_an_older_attempt_does_not_count() -> None:
    """I5 of W0, A8."""
    run = second_attempt()

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.FAILED))

    assert decision.ignored == "try 1 is over"
    assert run.in_flight == [f"{TICKET} do 2"]


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.REFUSED])
def test_a_success_or_refusal_counts_in_the_retry_pause(result: Result) -> None:
    run = Run().until(TICKET)
    run.fails()

    run.happens(run.reply_of(TICKET, Kind.DO, 1, result, {"ticket_id": 7}))

    assert run.phase(TICKET) is (Phase.SUCCEEDED if result is Result.SUCCESS else Phase.REFUSED)
    assert run.step(TICKET).resume_at is None


def test_a_success_counts_while_the_step_is_parked() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(timedelta(minutes=5))
    run.fails()

    run.happens(run.reply_of("start_delivery", Kind.DO, 1, Result.SUCCESS, {"courier": "Ann"}))

    assert run.phase("start_delivery") is Phase.SUCCEEDED
    assert run.status is Status.RUNNING


def test_the_reply_of_the_second_attempt_after_the_first_ones_success_changes_nothing() -> None:
    run = second_attempt()
    run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}))

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 2, Result.SUCCESS, {"ticket_id": 8}))

    assert decision.ignored == f"{TICKET} is succeeded"
    assert run.order.ticket_id == 7


def test_a_reply_that_comes_twice_counts_once() -> None:
    run = Run().until(TICKET)
    reply = run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7})

    run.happens(reply)
    decision = run.happens(reply)

    assert decision.ignored == f"{TICKET} is succeeded"
    assert run.in_flight == ["authorize_card do 1"]


def test_a_success_after_the_step_was_given_up_does_not_move_the_saga_forward() -> None:
    run = Run().until(TICKET)
    run.after(timedelta(minutes=5))

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7}))

    assert decision.ignored == f"{TICKET} is compensating"
    assert run.order.ticket_id is None


@pytest.mark.parametrize("result", list(Result))
def test_a_late_reply_to_an_ended_saga_flips_nothing(result: Result) -> None:
    run = Run().start().until_end()
    before = run.instance

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, result))

    assert decision.ignored == f"{TICKET} is succeeded"
    assert run.instance == before


def test_what_is_ignored_is_in_the_history_with_where_it_came_from() -> None:
    run = Run().until(TICKET)

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.FAILED, refs=(FOREIGN,)))

    (line,) = decision.history
    assert line.entry == "reply_ignored"
    assert line.detail == {
        "task": "restaurant_service.create_ticket",
        "result": "failed",
        "refs": [FOREIGN],
        "why": "matches nothing that was sent",
    }


# ---- what a reply tells of the queue --------------------------------------------------------------


def test_an_answer_tells_when_what_it_answers_was_sent() -> None:
    run = Run().until(TICKET)
    run.now += timedelta(seconds=3)

    decision = run.succeeds()

    assert decision.answered == ("restaurant_service.commands", run.now - timedelta(seconds=3))


def test_an_answer_of_an_older_attempt_tells_when_the_first_was_sent() -> None:
    run = second_attempt()
    first = run.step(TICKET).first_sent_at
    assert first is not None
    assert first < run.flight(TICKET).sent_at

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.FAILED))

    assert decision.answered == ("restaurant_service.commands", first)


def test_an_answer_of_what_was_sent_again_tells_when_it_was_first_sent() -> None:
    """Nobody knows which copy was answered, so it must not tell more than the first one would."""
    run = Run().until(TICKET)
    sent_at = run.now
    run.after(10, {"restaurant_service.commands": run.now + timedelta(seconds=1)})
    assert run.flight(TICKET).sent_at > sent_at

    decision = run.succeeds()

    assert decision.answered == ("restaurant_service.commands", sent_at)


def test_the_answer_of_a_command_that_is_being_undone_tells_when_it_was_sent() -> None:
    """Rule 21: a backlog of orders that were given up moves on while their commands are answered."""
    run = Run().until(TICKET)
    sent_at = run.now
    run.after(timedelta(days=1))
    assert run.flight(TICKET).kind is Kind.UNDO

    decision = run.happens(run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 1}))

    assert decision.answered == ("restaurant_service.commands", sent_at)


# ---- unroutable -----------------------------------------------------------------------------------


def test_a_command_without_a_queue_stays_in_flight_and_is_in_the_history() -> None:
    run = Run().until(TICKET)
    before = run.instance

    decision = run.happens(Unroutable(SAGA_ID, run.now, run.flight(TICKET).message_id))

    assert run.instance == before
    assert [line.entry for line in decision.history] == [f"{TICKET}.unroutable"]


def test_a_command_without_a_queue_that_was_answered_meanwhile_is_nothing() -> None:
    run = Run().until(TICKET)
    its_id = run.flight(TICKET).message_id
    run.succeeds()

    decision = run.happens(Unroutable(SAGA_ID, run.now, its_id))

    assert decision.ignored == "no longer in flight"
    assert decision.history == ()
