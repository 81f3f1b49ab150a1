"""Operators: what they may do and when, that an old page is refused, that the history names them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas_framework.core.events import Act
from sagas_framework.core.instance import Phase, Status
from tests.unit.core.stories import DELIVER_ORDER, OrderState, Run

TIMEOUT = timedelta(minutes=5)
TICKET = "create_restaurant_ticket"


def late_delivery() -> Run:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(TIMEOUT)
    return run


@pytest.mark.parametrize("act", list(Act))
def test_an_act_decided_on_an_older_revision_is_refused_with_what_to_do(act: Act) -> None:
    """Rule 17."""
    run = late_delivery()
    seen = run.instance.revision
    run.succeeds()

    decision = run.operator(act, revision=seen)

    assert decision.refused
    assert decision.answer == (
        f"it was decided on revision {seen}, and the saga is at {run.instance.revision} by now: "
        "read its history since, then decide again"
    )


def test_an_act_decided_on_the_present_revision_is_obeyed() -> None:
    run = late_delivery()

    decision = run.operator(Act.SKIP, revision=run.instance.revision)

    assert not decision.refused


def test_sending_again_does_not_make_an_operators_page_old() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    seen = run.instance.revision

    run.after(10, {"delivery_service.commands": run.now + timedelta(seconds=1)})

    assert run.sends == ["delivery_service.start_delivery 1"]
    assert run.instance.revision == seen


def test_every_act_is_in_the_history_with_name_and_reason() -> None:
    run = Run().until(TICKET)

    run.operator(Act.CANCEL)

    (line,) = (line for line in run.history if line.entry == "operator.cancel")
    assert line.detail == {"by": "ann", "reason": "I know why"}


def test_a_refused_act_changes_nothing() -> None:
    run = Run().until(TICKET)
    before = run.instance

    decision = run.operator(Act.SKIP)

    assert decision.refused
    assert decision.history == ()
    assert run.instance == before


# ---- retry ----------------------------------------------------------------------------------------


def test_retry_of_a_late_step_is_the_next_attempt_under_the_same_key() -> None:
    """Rule 17; scenario 15 (W9)."""
    run = late_delivery()
    first = run.sent[-1]

    run.operator(Act.RETRY)

    (second,) = run.decision.commands
    assert (second.attempt, second.operation_id) == (2, first.operation_id)
    assert run.status is Status.RUNNING


def test_retry_gives_a_step_a_new_timeout() -> None:
    run = late_delivery()
    run.now += timedelta(hours=1)

    run.operator(Act.RETRY)

    assert run.step("start_delivery").deadline == run.now + TIMEOUT


def test_retry_in_a_pause_does_not_wait_for_its_end() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.fails()

    run.operator(Act.RETRY)

    assert run.in_flight == ["approve_restaurant_ticket do 2"]
    assert run.step("approve_restaurant_ticket").resume_at is None


def test_retry_of_a_parked_compensation_is_the_next_try_with_a_new_timeout() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")
    run.refuses("InvalidPayload")
    run.now += timedelta(hours=1)

    run.operator(Act.RETRY)

    assert run.in_flight == [f"{TICKET} undo 2"]
    assert run.step(TICKET).deadline == run.now + TIMEOUT
    assert run.status is Status.COMPENSATING


def test_retry_after_repairing_the_request_sends_the_first_attempt() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="start_delivery")).until("approve_restaurant_ticket")
    run.succeeds()
    run.repair()

    run.operator(Act.RETRY)

    assert run.in_flight == ["start_delivery do 1"]
    assert run.status is Status.RUNNING


def test_retry_after_repairing_a_hook_takes_the_stored_reply_and_sends_nothing_again() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="remember_courier")).until("start_delivery")
    run.succeeds()
    run.repair()

    run.operator(Act.RETRY)

    assert run.order.courier == "Ann"
    assert run.in_flight == ["send_receipt do 1"]


def test_retry_with_a_hook_still_broken_parks_again() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="remember_courier")).until("start_delivery")
    run.succeeds()

    run.operator(Act.RETRY)

    assert run.phase("start_delivery") is Phase.ANSWERED
    assert run.status is Status.PARKED


def test_retry_after_repairing_a_local_step_runs_it() -> None:
    run = Run(state=OrderState(broken="mark_order_approved")).until("approve_restaurant_ticket")
    run.succeeds()
    run.repair()

    run.operator(Act.RETRY)

    assert run.status is Status.COMPLETED
    assert run.order.order == "approved"


def test_retry_of_a_refused_step_is_refused_because_the_answer_would_be_the_same() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")

    decision = run.operator(Act.RETRY)

    assert decision.refused
    assert decision.answer == (
        "start_delivery was refused, and its participant will say so again: complete or skip it"
    )


# ---- skip and complete ----------------------------------------------------------------------------


@pytest.mark.parametrize("act", [Act.SKIP, Act.COMPLETE])
def test_a_step_before_the_pivot_is_not_taken_over(act: Act) -> None:
    run = Run().until(TICKET)
    run.fails()

    decision = run.operator(act, reply={"ticket_id": 1})

    assert decision.refused
    assert decision.answer == f"{TICKET} is not past the pivot: cancel the saga, or let it go on"


def test_the_pivot_is_not_skipped() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.fails()

    decision = run.operator(Act.SKIP, force=True)

    assert decision.refused
    assert "is the pivot" in (decision.answer or "")


def test_a_pivot_that_nobody_can_settle_is_completed_with_force() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.after(TIMEOUT)
    run.after(TIMEOUT)

    run.operator(Act.COMPLETE, force=True)

    assert run.status is Status.COMPLETED
    assert run.order.order == "approved"


@pytest.mark.parametrize("act", [Act.SKIP, Act.COMPLETE])
def test_a_step_that_happened_is_kept_whatever_the_acts_name(act: Act) -> None:
    """Its reply could not be taken: the effect is there, and going on keeps it."""
    run = Run(DELIVER_ORDER, OrderState(broken="remember_courier")).until("start_delivery")
    run.succeeds()

    run.operator(act)

    assert run.phase("start_delivery") is Phase.SUCCEEDED
    assert run.in_flight == ["send_receipt do 1"]


@pytest.mark.parametrize(("act", "phase"), [(Act.SKIP, Phase.SKIPPED), (Act.COMPLETE, Phase.SUCCEEDED)])
def test_a_local_step_is_taken_over_at_once(act: Act, phase: Phase) -> None:
    run = Run(state=OrderState(broken="mark_order_approved")).until("approve_restaurant_ticket")
    run.succeeds()

    run.operator(act)

    assert run.phase("approve_order") is phase
    assert run.status is Status.COMPLETED


@pytest.mark.parametrize(("act", "phase"), [(Act.SKIP, Phase.SKIPPED), (Act.COMPLETE, Phase.COMPENSATED)])
def test_a_local_compensation_is_taken_over_at_once(act: Act, phase: Phase) -> None:
    run = Run(state=OrderState(broken="mark_order_rejected")).until("verify_consumer_details")
    run.refuses("ConsumerUnknown")

    run.operator(act)

    assert run.phase("reject_order") is phase
    assert run.status is Status.COMPENSATED


# ---- which step -----------------------------------------------------------------------------------


def test_an_act_on_a_step_that_the_saga_does_not_have_names_those_there_are() -> None:
    run = late_delivery()

    decision = run.operator(Act.RETRY, "deliver")

    assert decision.refused
    assert (decision.answer or "").startswith("the saga has no step 'deliver'; it has: reject_order, verify_")


def test_a_step_that_needs_no_person_is_left_alone() -> None:
    run = Run().until(TICKET)

    decision = run.operator(Act.RETRY, TICKET)

    assert decision.refused
    assert decision.answer == f"{TICKET} is running, which needs no person: nothing to retry"


def test_force_retries_even_what_is_only_in_flight() -> None:
    """Harmless: one key for every attempt (rule 1)."""
    run = Run().until(TICKET)

    run.operator(Act.RETRY, TICKET, force=True)

    assert run.in_flight == [f"{TICKET} do 2"]


def test_without_a_name_the_act_means_the_only_step_that_waits() -> None:
    run = late_delivery()

    decision = run.operator(Act.RETRY)

    assert decision.answer == "try 2"


def test_without_a_name_nothing_is_done_when_none_waits() -> None:
    run = Run().until(TICKET)

    decision = run.operator(Act.SKIP)

    assert decision.refused
    assert decision.answer == "no step is parked or pausing: nothing to skip"


def test_without_a_name_nothing_is_done_when_more_than_one_waits() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")
    run.refuses("Unwilling", "authorize_card")
    run.refuses("Unwilling", TICKET)

    decision = run.operator(Act.RETRY)

    assert decision.refused
    assert decision.answer == f"more than one step waits; name one: {TICKET}, authorize_card"


def test_with_a_name_one_of_several_parked_steps_is_retried() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")
    run.refuses("Unwilling", "authorize_card")
    run.refuses("Unwilling", TICKET)

    run.operator(Act.RETRY, TICKET)

    assert run.in_flight == [f"{TICKET} undo 2"]
    assert run.status is Status.PARKED


# ---- cancel ---------------------------------------------------------------------------------------


def test_cancel_undoes_what_was_done_and_says_why() -> None:
    run = Run().until("authorize_card")

    run.operator(Act.CANCEL)
    run.until_end()

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert run.outcome.to_json() == {
        "kind": "cancelled",
        "name": "Cancelled",
        "message": "I know why",
        "step": "",
    }


def test_a_saga_that_is_being_undone_is_not_cancelled_again() -> None:
    run = Run().until("authorize_card")
    run.operator(Act.CANCEL)

    decision = run.operator(Act.CANCEL)

    assert decision.refused
    assert decision.answer == "the saga is being undone already"


def test_a_saga_parked_after_its_pivot_is_not_cancelled() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")

    decision = run.operator(Act.CANCEL)

    assert decision.refused
