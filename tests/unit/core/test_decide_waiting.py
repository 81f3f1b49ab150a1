"""Waits, conditions, early ends, delays and deadlines: rules 22 to 29."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from sagas_framework.core.events import Act, TimerFired
from sagas_framework.core.instance import (
    Cause,
    OutcomeKind,
    Phase,
    Status,
    steps_from_json,
    steps_to_json,
)
from sagas_framework.errors import Failure
from sagas_framework.messages import Signal
from sagas_framework.saga import Saga, Steps
from sagas_framework.steps import GO_ON, NO_DEADLINE, NOTHING_TO_UNDO, on
from tests.unit.core.stories import (
    NOON,
    ApproveTicket,
    CreateTicket,
    OrderState,
    Run,
    SendReceipt,
    VerifyConsumer,
    approve_ticket,
    mark_order_approved,
    mark_order_rejected,
    open_ticket,
    reject_ticket,
    remember_ticket,
    seconds,
    send_receipt,
    verify,
)

HOUR = timedelta(hours=1)


class Rejected(Failure):
    """The approver says no."""


class Approval(Signal, name="approval"):
    approver: str
    approved: bool = True


class Withdrawal(Signal, name="withdrawal"):
    reason: str = ""


def take_approval(state: OrderState, approval: Approval) -> None:
    state.may_break("take_approval")
    if not approval.approved:
        raise Rejected(f"rejected by {approval.approver}")
    state.courier = approval.approver


def approve_unasked(state: OrderState) -> None:
    state.may_break("approve_unasked")
    if state.broken == "say no":
        raise Rejected("nobody was there")
    state.courier = "nobody"


def is_large(state: OrderState) -> bool:
    state.may_break("is_large")
    return state.quantity >= 3


step = Steps(OrderState)


class ApprovedOrderSaga(Saga[OrderState], name="approved_order", version=1):
    reject_order = step.local(compensation=mark_order_rejected)
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    approve = step.wait(
        on(Approval, take_approval, failures=[Rejected]), on(Withdrawal), deadline=HOUR, when=is_large
    )
    verify = step.command(VerifyConsumer, verify, compensation=NOTHING_TO_UNDO)
    approve_ticket = step.command(ApproveTicket, approve_ticket, pivot=True)
    approve_order = step.local(mark_order_approved)


def approving(state: OrderState | None = None, saga: type[Saga[OrderState]] = ApprovedOrderSaga) -> Run:
    """A run whose ticket is there."""
    run = Run(saga.definition, state)
    run.start()
    run.succeeds("ticket")
    return run


def undo_the_ticket(run: Run) -> None:
    assert run.in_flight == ["ticket undo 1"]
    run.succeeds("ticket")


# ---- signals --------------------------------------------------------------------------------------


def test_a_saga_that_waits_has_nothing_in_flight_and_is_due_at_its_deadline() -> None:
    run = approving()

    assert run.phase("approve") is Phase.WAITING
    assert run.in_flight == []
    assert run.instance.due_at == NOON + HOUR
    assert run.instance.waiting is not None
    assert (run.instance.waiting.cause, run.instance.waiting.what) == (Cause.SIGNAL, "approve")
    assert run.history[-1].detail == {
        "signals": ["approval", "withdrawal"],
        "until": (NOON + HOUR).isoformat(),
    }


def test_a_signal_ends_the_wait_and_its_hook_changes_the_state() -> None:
    run = approving()

    run.signal("approval", {"approver": "ann"})

    assert run.phase("approve") is Phase.SUCCEEDED
    assert run.order.courier == "ann"
    assert run.in_flight == ["verify do 1"]
    assert run.history[-2].entry == "approve.succeeded"
    assert run.history[-2].detail["signal"] == "approval"


def test_a_second_signal_is_too_late_and_changes_nothing() -> None:
    run = approving()
    run.signal("approval", {"approver": "ann"})
    before = run.instance

    decision = run.signal("withdrawal")

    assert decision.too_late
    assert decision.answer == "approve has taken approval"
    assert run.instance == before
    assert run.words[-1] == "signal_ignored"


def test_a_signal_that_comes_before_the_wait_is_left_for_later() -> None:
    run = Run(ApprovedOrderSaga.definition)

    before_the_start = run.signal("approval", {"approver": "ann"})
    run.start()
    before_the_wait = run.signal("approval", {"approver": "ann"})

    for decision in (before_the_start, before_the_wait):
        assert decision.ignored == "nothing waits for it yet"
        assert not decision.too_late
    assert not run.words.count("signal_ignored")


def test_what_the_hook_refuses_turns_the_saga_back_as_a_business_no() -> None:
    run = approving()

    run.signal("approval", {"approver": "ann", "approved": False})
    undo_the_ticket(run)

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name, run.outcome.message, run.outcome.step) == (
        OutcomeKind.REFUSED,
        "Rejected",
        "rejected by ann",
        "approve",
    )
    assert run.order.order == "rejected"
    assert "approve.compensating" not in run.words


def test_a_hook_that_raises_turns_the_saga_back_as_our_own_fault() -> None:
    run = approving(OrderState(broken="take_approval"))

    run.signal("approval", {"approver": "ann"})

    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.FAILED
    assert run.in_flight == ["ticket undo 1"]


@pytest.mark.parametrize("how", ["ended", "turned back", "left out"])
def test_a_signal_that_nothing_will_ever_take_is_too_late(how: str) -> None:
    run = approving(OrderState(quantity=1 if how == "left out" else 3))
    if how != "left out":
        run.operator(Act.CANCEL)
    if how == "ended":
        undo_the_ticket(run)

    decision = run.signal("approval", {"approver": "ann"})

    assert decision.too_late
    assert (
        decision.answer
        == {
            "ended": "the saga has ended: compensated",
            "turned back": "the saga has turned back",
            "left out": "approve was left out",
        }[how]
    )


def test_a_waiting_saga_can_be_cancelled() -> None:
    run = approving()

    run.operator(Act.CANCEL)
    undo_the_ticket(run)

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.message) == (OutcomeKind.CANCELLED, "I know why")


def test_a_waiting_instance_comes_back_from_its_row_as_it_was() -> None:
    run = approving()

    again = steps_from_json(steps_to_json(run.instance.steps))

    assert again == dict(run.instance.steps)


# ---- deadlines of waits ---------------------------------------------------------------------------


def test_at_its_deadline_the_saga_turns_back_as_expired() -> None:
    run = approving()

    run.after(HOUR)
    undo_the_ticket(run)

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step) == (OutcomeKind.EXPIRED, "approve")
    assert run.outcome.message == "approve: no approval or withdrawal by 2026-03-01 13:00:00 UTC"
    assert run.signal("approval", {"approver": "ann"}).too_late


def test_a_signal_stored_before_the_deadline_wins_however_late_it_is_looked_at() -> None:
    run = approving()
    run.now = NOON + 2 * HOUR

    run.signal("approval", {"approver": "ann"}, said_at=NOON + HOUR)

    assert run.in_flight == ["verify do 1"]
    assert not run.after(0).commands


def test_a_signal_stored_after_the_deadline_loses_even_if_no_timer_has_fired() -> None:
    run = approving()
    run.now = NOON + 2 * HOUR

    decision = run.signal("approval", {"approver": "ann"}, said_at=NOON + HOUR + seconds(1))

    assert decision.too_late
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.EXPIRED


class PatientSaga(Saga[OrderState], name="patient", version=1):
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    approve = step.wait(on(Approval, take_approval), deadline=HOUR, at_deadline=approve_unasked)
    remark = step.wait(on(Withdrawal), deadline=HOUR, at_deadline=GO_ON)
    approve_ticket = step.command(ApproveTicket, approve_ticket, pivot=True)


def test_at_the_deadline_a_hook_can_change_the_state_and_the_saga_goes_on() -> None:
    run = approving(saga=PatientSaga)

    run.after(HOUR)
    run.after(HOUR)

    assert run.order.courier == "nobody"
    assert run.in_flight == ["approve_ticket do 1"]
    assert run.step("approve").reply == {"deadline": (NOON + HOUR).isoformat()}


def test_what_the_deadlines_hook_refuses_is_an_expiry_with_its_own_name() -> None:
    run = approving(OrderState(broken="say no"), PatientSaga)

    run.after(HOUR)

    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name, run.outcome.message) == (
        OutcomeKind.EXPIRED,
        "Rejected",
        "nobody was there",
    )


class LateWaitSaga(Saga[OrderState], name="late_wait", version=1):
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, pivot=True)
    approve = step.wait(on(Approval, take_approval), deadline=HOUR, at_deadline=approve_unasked)
    send_receipt = step.command(SendReceipt, send_receipt)


@pytest.mark.parametrize("what", ["signal", "deadline"])
def test_after_the_pivot_a_hook_that_raises_parks_and_a_retry_takes_what_came_again(what: str) -> None:
    broken = "take_approval" if what == "signal" else "approve_unasked"
    run = approving(OrderState(broken=broken), LateWaitSaga)

    if what == "signal":
        run.signal("approval", {"approver": "ann"})
    else:
        run.after(HOUR)
    parked = run.status
    run.repair()
    run.operator(Act.RETRY)

    assert parked is Status.PARKED
    assert run.order.courier == ("ann" if what == "signal" else "nobody")
    assert run.in_flight == ["send_receipt do 1"]


def test_after_the_pivot_a_no_parks_and_a_person_goes_on() -> None:
    run = approving(saga=LateWaitSaga)

    run.signal("approval", {"approver": "ann", "approved": False})
    parked = run.status
    refused = run.operator(Act.RETRY)
    run.operator(Act.COMPLETE)

    assert parked is Status.PARKED
    assert refused.refused
    assert run.in_flight == ["send_receipt do 1"]


def test_a_wait_without_a_deadline_is_due_at_no_moment() -> None:
    class Forever(Saga[OrderState], name="forever", version=1):
        approve = step.wait(on(Approval, take_approval), deadline=NO_DEADLINE)
        done = step.local(mark_order_approved)

    run = Run(Forever.definition).start()

    assert run.instance.due_at is None
    run.signal("approval", {"approver": "ann"})
    assert run.status is Status.COMPLETED


def test_a_deadline_may_come_from_the_state_as_a_moment() -> None:
    class Until(Saga[OrderState], name="until", version=1):
        approve = step.wait(on(Approval, take_approval), deadline=lambda s: NOON + s.quantity * HOUR)
        done = step.local(mark_order_approved)

    run = Run(Until.definition).start()

    assert run.instance.due_at == NOON + 3 * HOUR


@pytest.mark.parametrize("made", [datetime(2026, 3, 1, 12), "noon", timedelta.max])  # noqa: DTZ001
def test_a_deadline_that_is_no_moment_is_our_own_fault(made: Any) -> None:
    class Wrong(Saga[OrderState], name="wrong", version=1):
        approve = step.wait(on(Approval, take_approval), deadline=lambda s: made)
        done = step.local(mark_order_approved)

    run = Run(Wrong.definition).start()

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.FAILED


# ---- conditions -----------------------------------------------------------------------------------


def test_a_step_whose_condition_is_false_is_left_out() -> None:
    run = approving(OrderState(quantity=1))

    assert run.phase("approve") is Phase.LEFT_OUT
    assert "approve.left_out" in run.words
    assert run.in_flight == ["verify do 1"]


def test_a_condition_that_raises_turns_the_saga_back() -> None:
    run = approving(OrderState(broken="is_large"))

    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step) == (OutcomeKind.FAILED, "approve")
    assert run.in_flight == ["ticket undo 1"]


def refusing_close(state: OrderState, session: Session) -> None:
    state.may_break("close")


class ConditionalSaga(Saga[OrderState], name="conditional", version=1):
    reject_order = step.local(compensation=mark_order_rejected, when=lambda s: s.order_id == 1)
    ticket = step.command(
        CreateTicket,
        open_ticket,
        on_success=remember_ticket,
        compensation=reject_ticket,
        when=lambda s: s.consumer_id == 2,
    )
    approve_ticket = step.command(ApproveTicket, approve_ticket, pivot=True, when=lambda s: s.quantity > 3)
    send_receipt = step.command(SendReceipt, send_receipt)
    close = step.local(refusing_close, when=is_large)


def test_what_was_left_out_is_not_undone_although_its_condition_would_hold_by_then() -> None:
    run = Run(ConditionalSaga.definition, OrderState(consumer_id=9, quantity=4, ticket_id=1)).start()
    run.instance = run.instance.__class__(
        **{**vars(run.instance), "state": {**run.instance.state, "consumer_id": 2}}
    )

    run.refuses("Closed", "approve_ticket")

    assert run.status is Status.COMPENSATED
    assert run.phase("ticket") is Phase.LEFT_OUT
    assert [sent.task for sent in run.sent] == ["restaurant_service.approve_ticket"]


def test_past_the_place_of_a_pivot_that_was_left_out_nothing_turns_back() -> None:
    run = Run(ConditionalSaga.definition).start()
    run.succeeds("ticket")

    decision = run.operator(Act.CANCEL)

    assert run.phase("approve_ticket") is Phase.LEFT_OUT
    assert run.in_flight == ["send_receipt do 1"]
    assert decision.refused
    run.succeeds()
    assert run.status is Status.COMPLETED


def test_a_first_local_step_without_an_action_is_not_undone_if_its_condition_is_false() -> None:
    run = Run(ConditionalSaga.definition, OrderState(order_id=7))

    run.operator(Act.CANCEL)

    assert run.status is Status.COMPENSATED
    assert run.order.order == "approval_pending"


def test_after_the_pivot_a_condition_that_raises_parks_until_it_is_repaired() -> None:
    run = Run(ConditionalSaga.definition, OrderState(broken="is_large")).start()
    run.succeeds("ticket")
    run.succeeds("send_receipt")
    parked = run.status

    run.repair()
    run.operator(Act.RETRY)

    assert parked is Status.PARKED
    assert run.status is Status.COMPLETED


# ---- early ends -----------------------------------------------------------------------------------


class EndingSaga(Saga[OrderState], name="ending", version=1):
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    nothing_left = step.end(when=lambda s: s.quantity == 0, because="nothing was ordered")
    approve_ticket = step.command(ApproveTicket, approve_ticket, pivot=True)
    approve_order = step.local(mark_order_approved)


def test_an_early_end_completes_with_every_effect_kept_and_says_so() -> None:
    run = approving(OrderState(quantity=0), EndingSaga)

    assert run.status is Status.COMPLETED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step, run.outcome.message) == (
        OutcomeKind.OK,
        "nothing_left",
        "nothing was ordered",
    )
    assert run.phase("ticket") is Phase.SUCCEEDED
    assert run.phase("approve_ticket") is run.phase("approve_order") is Phase.LEFT_OUT
    assert run.words[-2:] == ["nothing_left.ended", "completed"]


def test_an_end_whose_condition_does_not_hold_is_passed() -> None:
    run = approving(saga=EndingSaga)

    assert run.phase("nothing_left") is Phase.LEFT_OUT
    assert run.in_flight == ["approve_ticket do 1"]


# ---- delays ---------------------------------------------------------------------------------------


class DelayedSaga(Saga[OrderState], name="delayed", version=1):
    cool_down = step.delay(until=lambda s: s.quantity * HOUR)
    verify = step.command(VerifyConsumer, verify, compensation=NOTHING_TO_UNDO)
    done = step.local(mark_order_approved)


def test_a_delay_waits_for_its_moment() -> None:
    run = Run(DelayedSaga.definition).start()

    early = run.after(HOUR)
    assert run.instance.due_at == NOON + 3 * HOUR
    assert run.instance.waiting is not None
    assert run.instance.waiting.cause is Cause.TIME
    run.after(2 * HOUR)

    assert not early.commands
    assert run.words[:3] == ["started", "cool_down.delayed", "cool_down.succeeded"]
    assert run.in_flight == ["verify do 1"]


def test_a_delay_until_a_moment_that_has_passed_is_none() -> None:
    run = Run(DelayedSaga.definition, OrderState(quantity=0)).start()

    assert run.in_flight == ["verify do 1"]


def test_a_delayed_saga_can_be_cancelled() -> None:
    run = Run(DelayedSaga.definition).start()

    run.operator(Act.CANCEL)

    assert run.status is Status.COMPENSATED


# ---- the saga's deadline --------------------------------------------------------------------------


class HurriedSaga(Saga[OrderState], name="hurried", version=1, deadline=lambda s: timedelta(minutes=3)):
    reject_order = step.local(compensation=mark_order_rejected)
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    approve = step.wait(on(Approval, take_approval), deadline=HOUR)
    approve_ticket = step.command(ApproveTicket, approve_ticket, pivot=True)
    send_receipt = step.command(SendReceipt, send_receipt)


DUE = timedelta(minutes=3)


def hurried(until: str) -> Run:
    run = Run(HurriedSaga.definition).start()
    if until != "ticket":
        run.succeeds("ticket")
    if until in ("approve_ticket", "send_receipt"):
        run.signal("approval", {"approver": "ann"})
    if until == "send_receipt":
        run.succeeds()
    return run


@pytest.mark.parametrize("stands_at", ["ticket", "approve"])
def test_at_the_sagas_deadline_it_turns_back_as_expired(stands_at: str) -> None:
    run = hurried(stands_at)

    run.after(DUE)
    undo_the_ticket(run)

    assert run.status is Status.COMPENSATED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step) == (OutcomeKind.EXPIRED, "")
    assert run.order.order == "rejected"
    assert run.instance.due_at is None


@pytest.mark.parametrize("answer", ["done", "withdrawn"])
def test_at_the_sagas_deadline_a_pivot_in_flight_is_settled_and_the_answer_decides(answer: str) -> None:
    run = hurried("approve_ticket")

    run.after(DUE)
    assert run.in_flight == ["approve_ticket settle 1"]
    run.settles(answer)

    assert run.in_flight == (["send_receipt do 1"] if answer == "done" else ["ticket undo 1"])
    assert answer == "done" or (run.outcome and run.outcome.kind is OutcomeKind.EXPIRED)


def test_after_the_pivot_the_saga_is_only_late() -> None:
    run = hurried("send_receipt")

    run.after(DUE)

    assert run.instance.late
    assert run.words[-1] == "late"
    assert run.in_flight == ["send_receipt do 1"]
    run.succeeds()
    assert run.status is Status.COMPLETED
    assert run.words.count("late") == 1


def test_a_reply_that_comes_after_the_sagas_deadline_begins_no_further_step() -> None:
    run = hurried("ticket")
    run.now = NOON + DUE

    run.succeeds("ticket")

    assert run.phase("approve") is Phase.PENDING
    assert run.in_flight == ["ticket undo 1"]


def test_a_saga_that_nobody_took_up_before_its_deadline_undoes_what_its_caller_did() -> None:
    run = Run(HurriedSaga.definition)

    run.after(DUE)

    assert run.status is Status.COMPENSATED
    assert run.order.order == "rejected"
    assert run.sent == []


def test_the_sagas_deadline_counts_from_its_start_and_is_worked_out_once() -> None:
    run = Run(HurriedSaga.definition)
    run.now = NOON + seconds(60)

    run.start()

    assert run.instance.deadline == NOON + DUE


# ---- moving moments -------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["approve", "cool_down", None])
def test_an_operator_moves_the_moment_and_the_history_has_the_old_one(what: str | None) -> None:
    run = {"approve": approving, None: lambda: hurried("approve")}.get(
        what, lambda: Run(DelayedSaga.definition).start()
    )()
    was = run.instance.due_at

    decision = run.reschedules(what, NOON + 5 * HOUR)

    assert not decision.refused
    assert run.words[-1] == "operator.reschedule"
    assert run.history[-1].detail == {
        "by": "ann",
        "reason": "I know why",
        "was": was and was.isoformat(),
        "until": (NOON + 5 * HOUR).isoformat(),
    }
    assert run.happens(TimerFired(run.instance.id, was or NOON)).commands == ()
    assert run.instance.due_at == NOON + (HOUR if what is None else 5 * HOUR)


def test_a_moment_that_is_moved_into_the_past_has_come() -> None:
    run = approving()

    run.reschedules("approve", NOON)
    run.after(0)

    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.EXPIRED


@pytest.mark.parametrize(
    ("what", "why"),
    [
        (None, "the saga has no deadline of its own; name the step that waits: approve"),
        ("verify", "verify is pending: it has no moment that could be moved"),
        ("nothing", "the saga has no step 'nothing'"),
    ],
)
def test_what_has_no_moment_cannot_be_moved(what: str | None, why: str) -> None:
    decision = approving().reschedules(what, NOON + HOUR)

    assert decision.refused
    assert (decision.answer or "").startswith(why)
