"""Timers: sending again, waiting one's turn, timeouts and lateness, what is due next."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sagas_framework.core.events import Policy, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Phase, Status
from tests.unit.core.stories import DELIVER_ORDER, NOON, OrderState, Run, seconds

TICKET = "create_restaurant_ticket"
QUEUE = "restaurant_service.commands"


def lost(run: Run) -> dict[str, datetime]:
    """A horizon after everything that was sent so far."""
    return {QUEUE: run.now + timedelta(microseconds=1)}


# ---- sending again --------------------------------------------------------------------------------


def test_nothing_is_sent_again_before_the_first_look() -> None:
    run = Run().until(TICKET)

    run.after(9.999, lost(run))

    assert run.sends == []


def test_a_message_that_has_left_its_queue_unanswered_is_sent_again_with_the_same_id() -> None:
    """Rule 2; a broker wiped, a publish that failed, a worker killed: one cure."""
    run = Run().until(TICKET)
    first = run.sent[-1]

    run.after(10, lost(run))

    (again,) = run.decision.commands
    assert again.message_id == first.message_id
    assert (again.attempt, again.again) == (1, True)


def test_sending_again_gives_the_message_a_new_expiry() -> None:
    """Rule 10: of the decision to send it again."""
    run = Run().until(TICKET)

    run.after(10, lost(run))

    assert run.decision.commands[0].not_after == run.now + timedelta(days=1)


def test_a_message_that_waits_its_turn_is_not_sent_again() -> None:
    """A horizon before it was sent, or none: the jam must not get worse."""
    run = Run().until(TICKET)

    run.after(10, {QUEUE: run.now})
    before_its_sending = run.sends
    run.after(20)

    assert (before_its_sending, run.sends) == ([], [])
    assert run.flight(TICKET).pauses == 2


def test_a_horizon_of_another_queue_says_nothing() -> None:
    run = Run().until(TICKET)

    run.after(10, {"accounting_service.commands": run.now + seconds(5)})

    assert run.sends == []


def test_after_a_cap_of_looks_the_message_goes_anyway() -> None:
    """Rule 21: a lost message behind a queue that never empties."""
    run = Run(policy=Policy(resend_cap=4)).until(TICKET)

    sends = []
    for _ in range(4):
        run.at(run.flight(TICKET).check_at)
        sends.append(len(run.sends))

    assert sends == [0, 0, 0, 1]
    assert run.flight(TICKET).pauses == 0


def test_a_queue_that_moves_on_is_waited_for_however_long_that_takes() -> None:
    """Rule 21: it comes to the message, or past it; a copy would only make the jam longer."""
    run = Run(policy=Policy(resend_cap=2)).until(TICKET)
    sent_at, queue = run.flight(TICKET).sent_at, run.flight(TICKET).queue

    for look in range(5):
        run.at(run.flight(TICKET).check_at, {queue: sent_at - seconds(100 - look)})
        assert run.sends == []

    assert run.flight(TICKET).pauses == 5
    run.at(run.flight(TICKET).check_at, {queue: sent_at + seconds(1)})
    assert len(run.sends) == 1


def test_looks_count_towards_the_cap_again_when_a_queue_has_stopped_moving() -> None:
    run = Run(policy=Policy(resend_cap=2)).until(TICKET)
    moments = [run.flight(TICKET).sent_at - seconds(ago) for ago in (100, 90, 90, 90)]

    sends = []
    for moment in moments:
        run.at(run.flight(TICKET).check_at, {run.flight(TICKET).queue: moment})
        sends.append(len(run.sends))

    assert sends == [0, 0, 0, 1]


def test_a_queue_does_not_move_because_two_orchestrators_have_seen_it_at_different_moments() -> None:
    """Each keeps the horizons that it has seen itself, and either may look at the row."""
    run = Run(policy=Policy(resend_cap=4)).until(TICKET)
    early, late = (run.flight(TICKET).sent_at - seconds(ago) for ago in (100, 90))

    sends = []
    for moment in (early, late, early, late, early, late):
        run.at(run.flight(TICKET).check_at, {run.flight(TICKET).queue: moment})
        sends.append(len(run.sends))

    assert sends == [0, 0, 0, 0, 0, 1]


def test_an_orchestrator_that_begins_without_horizons_does_not_forget_how_far_the_queue_was() -> None:
    run = Run(policy=Policy(resend_cap=3)).until(TICKET)
    sent_at, queue = run.flight(TICKET).sent_at, run.flight(TICKET).queue

    for horizons in ({queue: sent_at - seconds(90)}, {}, {queue: sent_at - seconds(80)}, {}, {}):
        run.at(run.flight(TICKET).check_at, horizons)
        assert run.sends == []

    assert run.flight(TICKET).horizon == sent_at - seconds(80)
    run.at(run.flight(TICKET).check_at)
    assert len(run.sends) == 1


def test_a_horizon_of_a_clock_that_was_ahead_holds_up_no_more_than_one_cap() -> None:
    """A row may bear a moment that has not come: what is sent again is counted from what is seen then."""
    run = Run(policy=Policy(resend_cap=2)).until(TICKET)
    queue, ahead = run.flight(TICKET).queue, run.now + timedelta(days=365)
    record = replace(run.step(TICKET), flight=replace(run.flight(TICKET), horizon=ahead))
    run.instance = replace(run.instance, steps={**run.instance.steps, TICKET: record})
    sent_at = run.flight(TICKET).sent_at

    sends = []
    for ago in (100, 90, 80, 70, 60, 50):
        run.at(run.flight(TICKET).check_at, {queue: sent_at - seconds(ago)})
        sends.append(len(run.sends))

    assert sends == [0, 1, 0, 0, 0, 0]


def test_into_a_queue_that_nobody_takes_from_nothing_goes_again_but_what_is_lost() -> None:
    run = Run(policy=Policy(resend_cap=2)).until(TICKET)
    queue = run.flight(TICKET).queue

    for _ in range(4):
        run.at(run.flight(TICKET).check_at, unattended={queue})
        assert run.sends == []

    run.at(run.flight(TICKET).check_at, {queue: run.now}, unattended={queue})
    assert len(run.sends) == 1


def test_the_pauses_between_looks_double_up_to_a_ceiling() -> None:
    run = Run().until(TICKET)

    looks = []
    for _ in range(5):
        check_at = run.flight(TICKET).check_at
        assert check_at is not None
        looks.append(check_at - run.now)
        run.at(check_at)

    assert looks == [seconds(s) for s in (10, 20, 40, 60, 60)]


def test_sending_again_is_in_the_history_with_its_reason() -> None:
    run = Run(policy=Policy(resend_cap=1)).until(TICKET)

    run.after(10)

    line = run.history[-1]
    assert (line.entry, line.detail) == (f"{TICKET}.sent_again", {"times": 1, "why": "unanswered for long"})


def test_sending_again_for_ever_ends_with_the_inboxs_memory() -> None:
    """Rule 10: nothing is sent for a key first sent longer ago than the inbox remembers."""
    run = Run(DELIVER_ORDER, policy=Policy(inbox_retention=timedelta(days=2))).until("start_delivery")

    run.after(timedelta(days=1), {"delivery_service.commands": run.now + seconds(1)})

    assert run.sends == []
    assert run.status is Status.PARKED


def test_a_compensation_is_sent_again_with_its_payload() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")

    run.after(10, lost(run))

    (again,) = run.decision.commands
    assert (again.task, again.payload, again.known) == (
        "restaurant_service.reject_ticket",
        {"ticket_id": 7},
        True,
    )


# ---- timeouts -------------------------------------------------------------------------------------


def test_the_timeout_runs_from_the_first_sending_over_all_attempts() -> None:
    run = Run().until(TICKET)
    first = run.step(TICKET).deadline

    run.fails()
    run.after(1)

    assert first == NOON + timedelta(minutes=5)
    assert run.step(TICKET).deadline == first


def test_sending_again_does_not_move_the_timeout() -> None:
    run = Run().until(TICKET)

    run.after(10, lost(run))

    assert run.step(TICKET).deadline == NOON + timedelta(minutes=5)


def test_a_timeout_never_starts_an_attempt() -> None:
    """Rule 3, before the pivot, at it and after it."""
    for name in (TICKET, "approve_restaurant_ticket", "start_delivery"):
        run = Run(DELIVER_ORDER).until(name)

        run.after(timedelta(minutes=5))

        assert run.step(name).attempts == 1


def test_a_moment_before_the_timeout_nothing_is_given_up() -> None:
    run = Run().until(TICKET)

    run.after(timedelta(minutes=5) - timedelta(microseconds=1))

    assert run.phase(TICKET) is Phase.RUNNING


def test_after_the_pivot_there_is_no_timeout_only_late() -> None:
    """Rule 18."""
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.after(timedelta(minutes=5))

    assert run.phase("start_delivery") is Phase.RUNNING
    assert run.in_flight == ["start_delivery do 1"]
    assert run.status is Status.PARKED
    assert run.step("start_delivery").parked == (
        "delivery_service.start_delivery: no answer in 300 s; it goes on being sent"
    )


def test_a_late_step_after_the_pivot_goes_on_being_sent() -> None:
    run = Run(DELIVER_ORDER, policy=Policy(resend_cap=1)).until("start_delivery")
    run.after(timedelta(minutes=5))

    sent = 0
    for _ in range(10):
        run.at(run.instance.due_at)
        sent += len(run.sends)

    assert sent == 10
    assert {out.attempt for out in run.sent if out.task.endswith("start_delivery")} == {1}


# ---- what is due ----------------------------------------------------------------------------------


def test_what_is_due_next_is_the_earliest_of_everything() -> None:
    run = Run().until(TICKET)
    in_flight = run.instance.due_at

    run.fails()

    assert in_flight == NOON + seconds(10)
    assert run.instance.due_at == NOON + seconds(1)


def test_a_saga_that_only_waits_for_a_person_is_not_due() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.refuses("NoCourier")

    assert run.instance.due_at is None


def test_a_look_when_nothing_is_due_changes_nothing() -> None:
    run = Run().until(TICKET)
    before = run.instance

    run.after(1)

    assert run.instance == before


def test_a_look_at_an_ended_saga_changes_nothing() -> None:
    run = Run().start().until_end()
    before = run.instance

    decision = run.after(timedelta(days=1))

    assert decision.ignored == "ended"
    assert run.instance == before


@pytest.mark.parametrize("pause", [0, 1, 60])
def test_a_look_that_comes_late_finds_the_same(pause: int) -> None:
    run = Run().until(TICKET)
    run.fails()

    run.after(1 + pause)

    assert run.in_flight == [f"{TICKET} do 2"]


def test_two_things_due_at_once_are_both_done_in_one_look() -> None:
    """Two compensations, both lost."""
    run = Run().until("approve_restaurant_ticket")
    run.refuses("TicketGone")
    run.after(timedelta(minutes=5))
    assert run.in_flight == [f"{TICKET} undo 1", "authorize_card undo 1"]
    horizons = {QUEUE: run.now + seconds(1), "accounting_service.commands": run.now + seconds(1)}

    run.after(120, horizons)

    assert run.sends == [
        "restaurant_service.reject_ticket 1",
        "accounting_service.reverse_authorization 1",
    ]


def test_a_late_compensation_is_sent_again_and_lets_the_local_one_before_it_run_in_one_look() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")

    run.after(timedelta(minutes=5), {QUEUE: run.now + seconds(1)})

    assert run.sends == ["restaurant_service.reject_ticket 1"]
    assert run.order.order == "rejected"
    assert run.status is Status.PARKED


def test_what_is_due_behind_a_local_step_is_found_at_the_next_look() -> None:
    """A local step is run before anything else is decided."""
    run = Run(state=OrderState(broken="mark_order_rejected")).until("authorize_card")
    run.refuses("CardRefused")
    run.after(timedelta(minutes=5))
    assert run.phase("reject_order") is Phase.UNDO_PAUSING

    run.local_by_hand = True
    run.after(60, lost(run))
    first_look = run.sends
    run.happens(run.local_ran("reject_order", Kind.UNDO))
    run.after(0, lost(run))

    assert first_look == []
    assert run.sends == ["restaurant_service.reject_ticket 1"]


# ---- two events of one saga (rule 19) -------------------------------------------------------------


def test_a_timeout_that_is_decided_after_the_reply_finds_nothing_to_give_up() -> None:
    """It was due when the row was found, and the reply was taken before the row was locked."""
    run = Run().until(TICKET)
    run.now += timedelta(minutes=5)
    run.succeeds()

    run.after(0)

    assert run.phase(TICKET) is Phase.SUCCEEDED
    assert run.in_flight == ["authorize_card do 1"]
    assert run.outcome is None


def test_a_reply_that_is_decided_after_the_timeout_does_not_take_the_giving_up_back() -> None:
    run = Run().until(TICKET)
    reply = run.reply_of(TICKET, Kind.DO, 1, Result.SUCCESS, {"ticket_id": 7})
    run.after(timedelta(minutes=5))

    decision = run.happens(reply)

    assert decision.ignored == f"{TICKET} is compensating"
    assert run.in_flight == [f"{TICKET} undo 1"]
