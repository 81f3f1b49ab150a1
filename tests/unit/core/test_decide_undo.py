"""Turning back: what is compensated and in which order, tries, parking, and that nothing stops the rest."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas_framework.core.events import Act, Policy, Result
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING
from sagas_framework.core.instance import OutcomeKind, Phase, Status
from sagas_framework.saga import Saga
from sagas_framework.steps import NOTHING_TO_UNDO
from tests.unit.core.stories import (
    SAGA_ID,
    CreateTicket,
    OrderState,
    Run,
    VerifyConsumer,
    open_ticket,
    reject_ticket,
    step,
    verify,
)

TICKET = "create_restaurant_ticket"


def being_undone(state: OrderState | None = None) -> Run:
    """The card was refused; the ticket's compensation is in flight."""
    run = Run(state=state).until("authorize_card")
    run.refuses("CardRefused")
    return run


# ---- what is undone -------------------------------------------------------------------------------


def test_steps_are_undone_in_reverse_one_after_the_other() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")

    undone = []
    for _ in range(2):
        undone += run.in_flight
        run.succeeds()

    assert undone == ["authorize_card undo 1", "create_restaurant_ticket undo 1"]
    assert run.status is Status.COMPENSATED
    assert run.order.order == "rejected"


def test_a_compensation_names_the_operation_and_says_that_the_saga_saw_it_succeed() -> None:
    """Rules 1 and 2."""
    run = being_undone()

    (undo,) = run.decision.commands

    assert undo.operation_id == operation_id(SAGA_ID, TICKET)
    assert undo.message_id == message_id(SAGA_ID, TICKET, Kind.UNDO, 1)
    assert undo.payload == {"ticket_id": 7}
    assert undo.known


def test_a_step_without_an_answer_is_compensated_with_what_is_known_of_it() -> None:
    """Rules 13 and 14: its compensation is built without the command's reply."""
    run = Run().until(TICKET)

    run.after(timedelta(minutes=5))

    (undo,) = run.decision.commands
    assert undo.task == "restaurant_service.reject_ticket"
    assert undo.payload == {"ticket_id": None}
    assert not undo.known
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.EXPIRED


def test_a_step_cancelled_in_flight_is_compensated() -> None:
    """Rule 13."""
    run = Run().until(TICKET)

    run.operator(Act.CANCEL)

    assert run.sends == ["restaurant_service.reject_ticket 1"]
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.CANCELLED


def test_a_step_cancelled_in_its_retry_pause_is_compensated() -> None:
    """Rule 13; a duplicate of the failed attempt may have executed since (W1, A1)."""
    run = Run().until(TICKET)
    run.fails()

    run.operator(Act.CANCEL)

    assert run.sends == ["restaurant_service.reject_ticket 1"]


def test_a_step_timed_out_in_its_retry_pause_is_compensated() -> None:
    """Rule 13; the timeout covers all attempts."""
    run = Run().until(TICKET)
    run.after(299.5)
    run.fails()

    run.after(0.5)

    assert run.sends == ["restaurant_service.reject_ticket 1"]
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.EXPIRED


def test_a_step_with_nothing_to_undo_needs_no_message() -> None:
    run = Run().until("verify_consumer_details")

    run.after(timedelta(minutes=5))

    assert run.sends == []
    assert run.phase("verify_consumer_details") is Phase.COMPENSATED
    assert run.status is Status.COMPENSATED


def test_steps_that_never_began_are_left_alone() -> None:
    run = being_undone()
    run.until_end()

    assert run.phase("approve_restaurant_ticket") is Phase.PENDING
    assert not [out for out in run.sent if out.task.endswith("approve_ticket")]


def test_a_saga_cancelled_before_its_start_ends_at_once() -> None:
    run = Run()

    run.operator(Act.CANCEL)

    assert run.status is Status.COMPENSATED
    assert run.sent == []
    assert run.instance.due_at is None


# ---- tries ----------------------------------------------------------------------------------------


def test_a_failed_compensation_is_tried_again_after_a_pause_under_the_same_key() -> None:
    """Rule 15."""
    run = being_undone()
    first = run.sent[-1]

    run.fails()
    run.after(1)

    (second,) = run.decision.commands
    assert second.operation_id == first.operation_id
    assert (second.attempt, second.message_id) == (2, message_id(SAGA_ID, TICKET, Kind.UNDO, 2))


def test_a_compensation_that_times_out_is_sent_again_never_as_a_new_try() -> None:
    """Rules 3 and 15 (W5)."""
    run = being_undone()

    run.after(timedelta(minutes=5), {"restaurant_service.commands": run.now + timedelta(minutes=1)})

    (again,) = run.decision.commands
    assert (again.message_id, again.again) == (message_id(SAGA_ID, TICKET, Kind.UNDO, 1), True)
    assert run.step(TICKET).tries == 1
    assert run.status is Status.PARKED


def test_a_compensation_that_fails_too_often_parks_and_those_before_it_go_on() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")

    for _ in range(4):
        run.fails("authorize_card")
        run.at(run.step("authorize_card").resume_at)
    run.fails("authorize_card")

    assert run.status is Status.PARKED
    assert run.in_flight == [f"{TICKET} undo 1"]
    assert run.step("authorize_card").resume_at is not None


def test_the_saga_is_not_compensated_while_one_step_is_parked() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")
    run.refuses("Unwilling")

    run.succeeds(TICKET)

    assert run.status is Status.PARKED
    assert run.order.order == "rejected"
    assert run.instance.ended_at is None


def test_a_refused_compensation_parks_and_is_never_taken_for_an_undoing() -> None:
    """Rule 15."""
    run = being_undone()

    run.refuses("InvalidPayload")

    assert run.status is Status.PARKED
    assert run.phase(TICKET) is Phase.UNDO_PAUSING
    assert run.step(TICKET).resume_at is None


def test_a_missing_inbox_row_parks() -> None:
    """Rule 9 (A12)."""
    run = being_undone()

    run.fails(error=INBOX_ROW_MISSING)

    assert run.status is Status.PARKED
    assert run.step(TICKET).parked == (
        f"its compensation was refused ({INBOX_ROW_MISSING}: says {INBOX_ROW_MISSING})"
    )


def test_a_late_success_of_a_parked_compensation_un_parks_and_the_saga_ends() -> None:
    """Rule 15: parking keeps the id in flight."""
    run = being_undone()
    run.after(timedelta(minutes=5))
    status_before = run.status

    run.succeeds()

    assert (status_before, run.status) == (Status.PARKED, Status.COMPENSATED)


def test_a_late_success_of_an_earlier_try_counts_while_the_compensation_pauses() -> None:
    run = being_undone()
    run.fails()

    run.happens(run.reply_of(TICKET, Kind.UNDO, 1, Result.SUCCESS))

    assert run.phase(TICKET) is Phase.COMPENSATED
    assert run.status is Status.COMPENSATED


def test_a_failure_of_an_earlier_try_does_not_count_for_the_one_in_flight() -> None:
    run = being_undone()
    run.fails()
    run.after(1)

    decision = run.happens(run.reply_of(TICKET, Kind.UNDO, 1, Result.FAILED))

    assert decision.ignored == "try 1 is over"
    assert run.in_flight == [f"{TICKET} undo 2"]


# ---- compensations that cannot be built -----------------------------------------------------------


def test_a_compensation_that_cannot_be_built_is_tried_again_and_parks() -> None:
    run = being_undone(OrderState(broken="reject_ticket"))

    for _ in range(4):
        run.at(run.step(TICKET).resume_at)

    assert run.status is Status.PARKED
    assert run.step(TICKET).tries == 5
    assert run.step(TICKET).flight is None
    assert run.order.order == "rejected", "the steps before it went on"


def test_a_compensation_that_was_first_not_built_is_late_after_its_timeout_too() -> None:
    run = being_undone(OrderState(broken="reject_ticket"))
    run.repair()
    run.after(1)
    assert run.in_flight == [f"{TICKET} undo 2"]

    run.after(timedelta(minutes=5))

    assert run.status is Status.PARKED
    assert run.step(TICKET).parked == (
        "restaurant_service.reject_ticket: no answer in 300 s; it goes on being sent"
    )


def test_a_try_after_a_timeout_in_the_pause_is_late_after_a_timeout_of_its_own() -> None:
    run = being_undone()
    run.after(299.5)
    run.fails()
    run.after(1)

    run.after(timedelta(minutes=5))

    assert run.in_flight == [f"{TICKET} undo 2"]
    assert run.status is Status.PARKED


def test_a_local_compensation_that_raises_is_tried_again_and_keeps_nothing_of_its_work() -> None:
    run = Run(state=OrderState(broken="mark_order_rejected")).until("verify_consumer_details")

    run.refuses("ConsumerUnknown")

    assert run.phase("reject_order") is Phase.UNDO_PAUSING
    assert run.order.order == "approval_pending"
    assert run.instance.due_at == run.step("reject_order").resume_at


def test_a_local_compensation_that_goes_on_raising_parks_and_goes_on_being_tried() -> None:
    run = Run(state=OrderState(broken="mark_order_rejected")).until("verify_consumer_details")
    run.refuses("ConsumerUnknown")

    for _ in range(4):
        run.at(run.step("reject_order").resume_at)
    parked = run.status
    run.repair()
    run.at(run.step("reject_order").resume_at)

    assert parked is Status.PARKED
    assert run.status is Status.COMPENSATED


# ---- too old to be sent (rule 10) -----------------------------------------------------------------


SHORT_MEMORY = Policy(inbox_retention=timedelta(days=2))
"""Nothing is sent later than 23 h 55 min after a step's first command."""


def test_a_compensation_that_the_inbox_may_have_forgotten_parks_and_those_before_it_go_on_at_once() -> None:
    run = Run(policy=SHORT_MEMORY)
    run.until("authorize_card")
    run.now += timedelta(days=1)

    run.refuses("CardRefused")

    assert run.sends == []
    assert run.status is Status.PARKED
    assert "may have forgotten" in (run.step(TICKET).parked or "")
    assert run.order.order == "rejected"


def test_what_is_too_old_to_be_sent_does_not_say_later_that_it_goes_on_being_sent() -> None:
    run = Run(policy=SHORT_MEMORY)
    run.until("authorize_card")
    run.now += timedelta(days=1)
    run.refuses("CardRefused")

    run.after(timedelta(hours=1))

    assert "may have forgotten" in (run.step(TICKET).parked or "")


class PatientSaga(Saga[OrderState], name="patient", version=1):
    """Its second step is waited for longer than the participant's inbox remembers."""

    create_restaurant_ticket = step.command(CreateTicket, open_ticket, compensation=reject_ticket)
    verify_consumer_details = step.command(
        VerifyConsumer, verify, compensation=NOTHING_TO_UNDO, timeout=timedelta(days=3)
    )


def test_a_parked_step_with_nothing_to_undo_does_not_stay_parked_when_it_is_given_up() -> None:
    run = Run(PatientSaga.definition, policy=SHORT_MEMORY).until("verify_consumer_details")
    run.after(timedelta(days=2))
    assert run.step("verify_consumer_details").parked

    run.after(timedelta(days=1))

    assert run.phase("verify_consumer_details") is Phase.COMPENSATED
    assert run.step("verify_consumer_details").parked is None


# ---- what the saga says meanwhile -----------------------------------------------------------------


def test_the_outcome_is_that_of_what_turned_the_saga_back_not_of_what_came_later() -> None:
    run = being_undone()

    run.refuses("InvalidPayload")

    assert run.outcome is not None
    assert run.outcome.name == "CardRefused"


@pytest.mark.parametrize("act", [Act.CANCEL, Act.RETRY])
def test_an_ended_saga_obeys_nobody(act: Act) -> None:
    run = being_undone().until_end()

    decision = run.operator(act)

    assert decision.refused
    assert decision.answer == "the saga has ended: compensated"


def test_an_ended_saga_has_the_moment_of_its_end_and_nothing_due() -> None:
    run = being_undone()
    run.now += timedelta(seconds=3)

    run.until_end()

    assert run.instance.ended_at == run.now
    assert run.instance.due_at is None


def test_the_history_says_why_it_turned_back_and_what_is_parked() -> None:
    run = being_undone()
    run.refuses("InvalidPayload")

    told = {line.entry: dict(line.detail) for line in run.history if line.step is None}

    assert told["compensating"] == {
        "kind": "refused",
        "name": "CardRefused",
        "message": "says CardRefused",
        "step": "authorize_card",
    }
    assert told["parked"] == {TICKET: "its compensation was refused (InvalidPayload: says InvalidPayload)"}


def test_what_is_too_old_to_be_sent_is_not_looked_at_every_minute() -> None:
    run = Run(policy=SHORT_MEMORY)
    run.until("authorize_card")
    run.now += timedelta(days=1)
    run.refuses("CardRefused")

    run.after(timedelta(minutes=5))

    assert run.instance.due_at is not None
    assert run.instance.due_at >= run.now + timedelta(days=1)
