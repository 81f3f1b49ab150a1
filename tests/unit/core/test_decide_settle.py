"""Settling: the pivot's timeout, cancel while it is in flight, what operators take over (rules 16, 17)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sagas_framework.core.events import Act, Policy, Result
from sagas_framework.core.ids import Kind, message_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN
from sagas_framework.core.instance import OutcomeKind, Phase, Status
from tests.unit.core.stories import DELIVER_ORDER, SAGA_ID, OrderState, Run, error_of

TIMEOUT = timedelta(minutes=5)
PIVOT = "approve_restaurant_ticket"


def settling_the_pivot() -> Run:
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.after(TIMEOUT)
    return run


# ---- the pivot ------------------------------------------------------------------------------------


def test_a_pivot_without_an_answer_is_settled_not_given_up() -> None:
    """Rule 16 (W4)."""
    run = settling_the_pivot()

    (settle,) = run.decision.commands
    assert settle.kind is Kind.SETTLE
    assert settle.task == "restaurant_service.approve_ticket.settle"
    assert settle.message_id == message_id(SAGA_ID, PIVOT, Kind.SETTLE, 1)
    assert (settle.payload, settle.hand_over) == (None, False)
    assert run.status is Status.RUNNING
    assert run.outcome is None


def test_a_pivot_timed_out_in_its_pause_is_settled() -> None:
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.after(298)
    run.fails()

    run.after(2)

    assert run.in_flight == [f"{PIVOT} settle 1"]


def test_a_pivot_that_turns_out_done_lets_the_saga_go_on() -> None:
    """Rule 16 (W4): it had happened, so nothing is compensated."""
    run = settling_the_pivot()

    run.settles("done", reply=None)

    assert run.phase(PIVOT) is Phase.SUCCEEDED
    assert run.in_flight == ["start_delivery do 1"]
    assert run.outcome is None


def test_a_pivot_that_turns_out_withdrawn_turns_the_saga_back_for_the_reason_it_was_settled() -> None:
    run = settling_the_pivot()

    run.settles("withdrawn")

    assert run.phase(PIVOT) is Phase.WITHDRAWN
    assert run.in_flight == ["authorize_card undo 1"]
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name) == (OutcomeKind.EXPIRED, "NoAnswer")


def test_a_pivot_that_turns_out_refused_turns_the_saga_back_for_the_refusal() -> None:
    run = settling_the_pivot()

    run.settles("refused", error=error_of("TicketGone"))

    assert run.phase(PIVOT) is Phase.REFUSED
    assert run.in_flight == ["authorize_card undo 1"]
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name) == (OutcomeKind.REFUSED, "TicketGone")


@pytest.mark.parametrize("error", [None, [], "no", {"step": "x", "message": None}])
def test_whatever_a_refusal_brings_along_it_is_a_refusal(error: object) -> None:
    run = settling_the_pivot()

    run.settles("refused", error=error)

    assert run.phase(PIVOT) is Phase.REFUSED
    assert run.status is Status.COMPENSATING


def test_attempts_used_up_that_turn_out_not_done_say_so_in_the_outcome() -> None:
    run = Run(DELIVER_ORDER).until(PIVOT)
    for pause in (5, 10):
        run.fails()
        run.after(pause)
    run.fails(error="KitchenOnFire")

    run.settles("withdrawn")

    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name) == (OutcomeKind.FAILED, "KitchenOnFire")


def test_a_late_success_while_settling_is_taken() -> None:
    """Rule 12: also while settling."""
    run = settling_the_pivot()

    run.happens(run.reply_of(PIVOT, Kind.DO, 1, Result.SUCCESS))

    assert run.phase(PIVOT) is Phase.SUCCEEDED
    assert run.in_flight == ["start_delivery do 1"]


def test_the_settlings_answer_after_a_late_success_changes_nothing() -> None:
    run = settling_the_pivot()
    run.happens(run.reply_of(PIVOT, Kind.DO, 1, Result.SUCCESS))

    decision = run.happens(run.reply_of(PIVOT, Kind.SETTLE, 1, Result.SUCCESS, {"answer": "done"}))

    assert decision.ignored
    assert run.in_flight == ["start_delivery do 1"]


def test_a_late_failure_while_settling_does_not_count() -> None:
    run = settling_the_pivot()

    decision = run.happens(run.reply_of(PIVOT, Kind.DO, 1, Result.FAILED))

    assert decision.ignored == "try 1 is over"
    assert run.phase(PIVOT) is Phase.SETTLING


def test_the_command_that_comes_after_its_settling_does_not_hide_why_the_saga_turned_back() -> None:
    """The settling overtook the command; the command's own answer is the first to arrive."""
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.operator(Act.CANCEL)

    run.happens(run.reply_of(PIVOT, Kind.DO, 1, Result.REFUSED, error=error_of(WITHDRAWN)))

    assert run.phase(PIVOT) is Phase.WITHDRAWN
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.CANCELLED


def test_settling_that_is_not_answered_parks_and_goes_on_being_sent() -> None:
    run = settling_the_pivot()
    first = run.sent[-1]

    run.after(TIMEOUT, {"restaurant_service.commands": run.now + timedelta(minutes=1)})

    (again,) = run.decision.commands
    assert (again.message_id, again.again) == (first.message_id, True)
    assert run.status is Status.PARKED


def test_settling_that_is_answered_late_un_parks() -> None:
    run = settling_the_pivot()
    run.after(TIMEOUT)
    status_before = run.status

    run.settles("done", reply=None)

    assert (status_before, run.status) == (Status.PARKED, Status.RUNNING)


@pytest.mark.parametrize("answer", ["yours_to_undo", "perhaps", None, ["done"]])
def test_a_senseless_answer_parks_and_can_be_asked_again_under_a_new_id(answer: object) -> None:
    """ "Yours to undo" would close the row, and nobody would have been told to undo anything."""
    run = settling_the_pivot()
    run.settles(answer)  # type: ignore[arg-type]
    parked = run.status

    run.operator(Act.RETRY)

    assert parked is Status.PARKED
    assert run.in_flight == [f"{PIVOT} settle 2"]
    assert run.status is Status.RUNNING


def test_an_answer_of_an_earlier_settling_does_not_count() -> None:
    run = settling_the_pivot()
    run.settles("perhaps")
    run.operator(Act.RETRY)

    decision = run.happens(run.reply_of(PIVOT, Kind.SETTLE, 1, Result.SUCCESS, {"answer": "withdrawn"}))

    assert decision.ignored
    assert run.in_flight == [f"{PIVOT} settle 2"]


def test_settling_asked_again_still_knows_why_the_saga_would_turn_back() -> None:
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.operator(Act.CANCEL)
    run.settles("perhaps")
    run.operator(Act.RETRY)

    run.settles("withdrawn")

    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.CANCELLED


# ---- cancel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "phase", "status"),
    [("done", Phase.SUCCEEDED, Status.RUNNING), ("withdrawn", Phase.WITHDRAWN, Status.COMPENSATING)],
)
def test_cancel_while_the_pivot_is_in_flight_asks_first(answer: str, phase: Phase, status: Status) -> None:
    """Rule 16 (W10), both answers."""
    run = Run(DELIVER_ORDER).until(PIVOT)

    run.operator(Act.CANCEL)
    asked = run.sends
    run.settles(answer)

    assert asked == ["restaurant_service.approve_ticket.settle 1"]
    assert (run.phase(PIVOT), run.status) == (phase, status)


def test_cancel_in_the_pivots_pause_asks_first() -> None:
    """A duplicate of the failed attempt may have executed (A1c)."""
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.fails()

    run.operator(Act.CANCEL)

    assert run.in_flight == [f"{PIVOT} settle 1"]


def test_a_second_cancel_waits_for_the_answer() -> None:
    run = settling_the_pivot()

    decision = run.operator(Act.CANCEL)

    assert decision.refused


def test_a_forced_cancel_takes_the_pivot_for_not_happened_and_says_so() -> None:
    run = settling_the_pivot()

    run.operator(Act.CANCEL, force=True)

    assert run.phase(PIVOT) is Phase.WITHDRAWN
    assert run.in_flight == ["authorize_card undo 1"]
    failed = [line for line in run.history if line.entry == f"{PIVOT}.failed"][-1]
    assert failed.detail["forced"]
    assert failed.detail["by"] == "ann"


@pytest.mark.parametrize("name", ["start_delivery", "send_receipt"])
def test_cancel_after_the_pivot_is_refused(name: str) -> None:
    run = Run(DELIVER_ORDER).until(name)

    decision = run.operator(Act.CANCEL, force=True)

    assert decision.refused
    assert decision.answer == "the saga is past its pivot: it can only go forward"


def test_cancel_of_a_pivot_whose_reply_could_not_be_taken_is_refused() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="note_approval")).until(PIVOT)
    run.succeeds()

    decision = run.operator(Act.CANCEL)

    assert decision.refused


# ---- a step after the pivot is taken over ---------------------------------------------------------


def late_delivery() -> Run:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(TIMEOUT)
    return run


def test_skipping_a_step_after_the_pivot_settles_it_first() -> None:
    """Rule 17 (A17): a command still in the network must not execute after it was skipped."""
    run = late_delivery()

    run.operator(Act.SKIP)

    assert run.sends == ["delivery_service.start_delivery.settle 1"]
    assert run.phase("start_delivery") is Phase.SETTLING


def test_a_step_that_turns_out_done_has_succeeded_and_is_not_skipped() -> None:
    """Rule 17 (A18)."""
    run = late_delivery()
    run.operator(Act.SKIP)

    run.settles("done", reply={"courier": "Bob"})

    assert run.phase("start_delivery") is Phase.SUCCEEDED
    assert run.order.courier == "Bob"
    assert run.in_flight == ["send_receipt do 1"]


@pytest.mark.parametrize("answer", ["withdrawn", "refused"])
def test_a_step_that_turns_out_not_done_is_skipped_and_the_saga_goes_on(answer: str) -> None:
    run = late_delivery()
    run.operator(Act.SKIP)

    run.settles(answer)

    assert run.phase("start_delivery") is Phase.SKIPPED
    assert run.in_flight == ["send_receipt do 1"]
    skipped = next(line for line in run.history if line.entry == "start_delivery.skipped")
    assert (skipped.detail["by"], skipped.detail["reason"]) == ("ann", "I know why")


def test_completing_by_hand_takes_the_operators_reply_once_the_participant_will_not_do_it() -> None:
    run = late_delivery()
    run.operator(Act.COMPLETE, reply={"courier": "myself"})

    run.settles("withdrawn")

    assert run.phase("start_delivery") is Phase.SUCCEEDED
    assert run.order.courier == "myself"
    assert run.in_flight == ["send_receipt do 1"]


def test_completing_what_turns_out_done_takes_the_participants_reply() -> None:
    run = late_delivery()
    run.operator(Act.COMPLETE, reply={"courier": "myself"})

    run.settles("done", reply={"courier": "Bob"})

    assert run.order.courier == "Bob"


def test_completing_by_hand_needs_the_reply_of_the_contract() -> None:
    run = late_delivery()

    decision = run.operator(Act.COMPLETE, reply={"name": "Bob"})

    assert decision.refused
    assert decision.answer == (
        "completing start_delivery needs the reply that it would have had, a DeliveryStarted: "
        "courier: Field required"
    )
    assert run.sends == []


def test_completing_a_step_whose_success_carries_nothing_needs_no_reply() -> None:
    run = Run(DELIVER_ORDER).until("send_receipt")
    run.after(TIMEOUT)
    run.operator(Act.COMPLETE)

    run.settles("withdrawn")

    assert run.status is Status.COMPLETED


def test_a_late_success_while_settling_for_a_skip_is_taken() -> None:
    """Rule 12."""
    run = late_delivery()
    run.operator(Act.SKIP)

    run.happens(run.reply_of("start_delivery", Kind.DO, 1, Result.SUCCESS, {"courier": "Ann"}))

    assert run.phase("start_delivery") is Phase.SUCCEEDED
    assert run.order.courier == "Ann"


def test_a_forced_skip_does_not_ask_and_says_that_it_was_forced() -> None:
    run = late_delivery()

    run.operator(Act.SKIP, force=True)

    assert run.phase("start_delivery") is Phase.SKIPPED
    assert run.in_flight == ["send_receipt do 1"]
    assert next(line for line in run.history if line.entry == "operator.skip").detail["force"] is True


def test_a_step_never_sent_is_taken_over_without_asking() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="start_delivery")).until(PIVOT)
    run.succeeds()

    run.operator(Act.COMPLETE, reply={"courier": "myself"})

    assert run.order.courier == "myself"
    assert run.in_flight == ["send_receipt do 1"]


def test_a_refused_step_after_the_pivot_is_taken_over_without_asking() -> None:
    """Its row is closed already."""
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")

    run.operator(Act.SKIP)

    assert run.phase("start_delivery") is Phase.SKIPPED
    assert run.in_flight == ["send_receipt do 1"]


# ---- a compensation is taken over -----------------------------------------------------------------

TICKET = "create_restaurant_ticket"


def parked_undo() -> Run:
    """The card was refused; the ticket's compensation is late and still in flight."""
    run = Run().until("authorize_card")
    run.refuses("CardRefused")
    run.after(TIMEOUT)
    return run


def test_completing_a_compensation_by_hand_closes_the_row_first() -> None:
    """Rule 17 (A15, A16): the queued compensation must not undo what a person undid."""
    run = parked_undo()

    run.operator(Act.COMPLETE)

    (settle,) = run.decision.commands
    assert (settle.kind, settle.hand_over, settle.known) == (Kind.SETTLE, True, True)
    assert run.phase(TICKET) is Phase.HANDING_OVER


def test_nothing_to_undo_by_hand_compensates_the_step() -> None:
    run = parked_undo()
    run.operator(Act.COMPLETE)

    run.settles("withdrawn")

    assert run.phase(TICKET) is Phase.COMPENSATED
    assert run.status is Status.COMPENSATED


def test_something_to_undo_by_hand_parks_until_it_was_done() -> None:
    run = parked_undo()
    run.operator(Act.COMPLETE)

    run.settles("yours_to_undo", reply={"ticket_id": 7})
    handed = (run.phase(TICKET), run.status)
    run.operator(Act.COMPLETE)

    assert handed == (Phase.HANDED_OVER, Status.PARKED)
    assert run.phase(TICKET) is Phase.COMPENSATED
    assert run.status is Status.COMPENSATED


def test_skipping_a_compensation_keeps_the_effect_and_says_so() -> None:
    run = parked_undo()
    run.operator(Act.SKIP)

    run.settles("yours_to_undo", reply={"ticket_id": 7})

    assert run.phase(TICKET) is Phase.SKIPPED
    assert run.status is Status.COMPENSATED
    assert next(x for x in run.history if x.entry == f"{TICKET}.skipped").detail["effect"] == "stays"


def test_a_late_answer_of_the_compensation_proves_nothing_while_its_row_is_handed_over() -> None:
    """The row may be closed by our own settling, which answers every undo with success."""
    run = parked_undo()
    run.operator(Act.COMPLETE)

    decision = run.happens(run.reply_of(TICKET, Kind.UNDO, 1, Result.SUCCESS))

    assert decision.ignored
    assert run.phase(TICKET) is Phase.HANDING_OVER


@pytest.mark.parametrize("answer", ["done", "perhaps"])
def test_a_senseless_answer_to_a_handing_over_compensates_nothing(answer: str) -> None:
    """ "Done" would leave the row open, and the effect with it."""
    run = parked_undo()
    run.operator(Act.COMPLETE)

    run.settles(answer)

    assert run.phase(TICKET) is Phase.HANDING_OVER
    assert run.status is Status.PARKED


def test_a_missing_row_of_a_known_success_is_never_taken_for_nothing_to_undo() -> None:
    """Rule 9, for the settling as for the undo."""
    run = Run().until("authorize_card")
    run.refuses("CardRefused")
    run.fails(error=INBOX_ROW_MISSING)
    run.operator(Act.COMPLETE)

    run.fails(error=INBOX_ROW_MISSING)

    assert run.phase(TICKET) is Phase.HANDING_OVER
    assert run.status is Status.PARKED
    assert INBOX_ROW_MISSING in (run.step(TICKET).parked or "")


def test_handing_over_that_parks_lets_the_compensations_before_it_go_on() -> None:
    run = Run().until(PIVOT)
    run.refuses("TicketGone")
    run.fails()  # the card's reversal pauses; an operator is faster than its next try
    run.operator(Act.COMPLETE)

    run.settles("perhaps")

    assert run.status is Status.PARKED
    assert run.in_flight == [f"{TICKET} undo 1"]


def test_handing_over_that_is_not_answered_parks_and_lets_those_before_it_go_on() -> None:
    run = Run().until(PIVOT)
    run.refuses("TicketGone")
    run.fails()
    run.operator(Act.COMPLETE)

    run.after(TIMEOUT)

    assert run.status is Status.PARKED
    assert f"{TICKET} undo 1" in run.in_flight


def test_a_forced_completion_of_a_compensation_does_not_ask() -> None:
    run = parked_undo()

    run.operator(Act.COMPLETE, force=True)

    assert run.status is Status.COMPENSATED
    assert next(x for x in run.history if x.entry == f"{TICKET}.compensated").detail["forced"] is True


def test_a_forced_skip_of_a_compensation_says_that_the_effect_may_stay() -> None:
    run = parked_undo()

    run.operator(Act.SKIP, force=True)

    assert run.status is Status.COMPENSATED
    assert next(x for x in run.history if x.entry == f"{TICKET}.skipped").detail["effect"] == "may stay"


def test_taking_over_what_the_inbox_may_have_forgotten_parks_and_asks_for_force() -> None:
    """Rule 10: nothing is sent for so old an operation, a settling neither."""
    run = Run(policy=Policy(inbox_retention=timedelta(days=2))).until("authorize_card")
    run.refuses("CardRefused")
    run.after(TIMEOUT)
    run.now += timedelta(days=1)

    run.operator(Act.COMPLETE)
    parked = run.status
    run.operator(Act.COMPLETE, force=True)

    assert (run.sends, parked) == ([], Status.PARKED)
    assert run.status is Status.COMPENSATED


def test_handing_over_says_what_the_compensation_would_have_said() -> None:
    """A handler that died outside its transaction is undone by settling, which needs the payload."""
    run = parked_undo()

    run.operator(Act.COMPLETE)

    assert run.decision.commands[0].payload == {"ticket_id": 7}


def test_handing_over_sent_again_still_says_it() -> None:
    run = parked_undo()
    run.operator(Act.COMPLETE)

    run.after(10, {"restaurant_service.commands": run.now + timedelta(seconds=1)})

    (again,) = run.decision.commands
    assert (again.kind, again.payload, again.hand_over) == (Kind.SETTLE, {"ticket_id": 7}, True)


def test_a_compensation_that_cannot_be_built_can_still_be_handed_over() -> None:
    run = Run(state=OrderState(broken="reject_ticket")).until("authorize_card")
    run.refuses("CardRefused")

    run.operator(Act.COMPLETE)

    (settle,) = run.decision.commands
    assert (settle.kind, settle.payload, settle.hand_over) == (Kind.SETTLE, None, True)
