"""The sentence that says why a saga stands where it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone

import pytest

from sagas_framework.core.events import Act
from sagas_framework.core.why import MOST, QueueSeen, clock_time, count, in_words, queue_of, times, why
from tests.unit.core.stories import DELIVER_ORDER, NOON, OrderState, Run, new_instance, seconds

TICKETS = "restaurant_service.commands"


def sentence(run: Run) -> str:
    """What is said of the saga, with its declaration at hand."""
    return why(run.instance, run.now, run.saga)


# ---- going forward ----------------------------------------------------------------------------------


def test_a_saga_that_nobody_has_taken_up_waits_for_an_orchestrator() -> None:
    instance = new_instance(DELIVER_ORDER)

    soon, late = why(instance, NOON + seconds(3)), why(instance, NOON + seconds(40))

    assert soon == "Waiting 3 s for an orchestrator to take it up."
    assert late == "Waiting 40 s for an orchestrator to take it up: is one running?"


def test_a_command_in_flight_says_for_whom_since_when_and_until_when() -> None:
    run = Run().until("create_restaurant_ticket")

    run.now += seconds(4)

    assert sentence(run) == (
        "Waiting 4 s for restaurant_service.create_ticket (try 1); turns back in 4 min 56 s."
    )


def test_a_command_sent_again_still_counts_from_when_it_was_first_sent() -> None:
    run = Run().until("create_restaurant_ticket")

    for _ in range(2):
        run.after(30, {TICKETS: run.now + seconds(30)})
    run.now += seconds(4)

    assert sentence(run) == (
        "Waiting 1 min 4 s for restaurant_service.create_ticket (try 1, sent again twice, last 4 s ago); "
        "turns back in 3 min 56 s."
    )


def test_a_later_try_says_why_the_one_before_failed() -> None:
    run = Run().until("create_restaurant_ticket")
    run.fails(error="KitchenBusy")

    run.after(1)
    run.now += seconds(2)

    assert sentence(run) == (
        "Waiting 2 s for restaurant_service.create_ticket (try 2); turns back in 4 min 57 s. "
        "Try 1 failed (KitchenBusy: says KitchenBusy)."
    )


def test_a_later_try_that_was_sent_again_counts_from_when_that_try_was_first_sent() -> None:
    run = Run().until("create_restaurant_ticket")
    run.fails()
    run.after(1)

    run.after(10, {TICKETS: run.now + seconds(10)})
    run.now += seconds(3)

    assert sentence(run).startswith(
        "Waiting 13 s for restaurant_service.create_ticket (try 2, sent again once, last 3 s ago); "
    )


def test_a_pause_says_what_failed_and_when_the_next_try_is() -> None:
    run = Run().until("approve_restaurant_ticket")

    run.fails(error="KitchenBusy")
    run.now += seconds(2)

    assert sentence(run) == (
        "approve_restaurant_ticket: try 1 failed (KitchenBusy: says KitchenBusy); try 2 is in 3 s."
    )


def test_what_comes_of_silence_depends_on_the_pivot() -> None:
    before = Run(DELIVER_ORDER).until("authorize_card")
    pivot = Run(DELIVER_ORDER).until("approve_restaurant_ticket")
    after = Run(DELIVER_ORDER).until("start_delivery")

    assert sentence(before).endswith("; turns back in 5 min.")
    assert sentence(pivot).endswith("; its participant is asked how it stands in 5 min.")
    assert sentence(after).endswith("; counts as late in 5 min.")


def test_without_the_declaration_the_sentence_does_not_guess() -> None:
    run = Run().until("create_restaurant_ticket")

    assert why(run.instance, run.now).endswith("(try 1); given up in 5 min.")


def test_a_deadline_that_has_come_is_acted_on_any_moment() -> None:
    run = Run().until("create_restaurant_ticket")

    run.now += timedelta(minutes=5)

    assert "; turns back any moment now." in sentence(run)


# ---- settling ---------------------------------------------------------------------------------------


def test_a_pivot_that_was_not_answered_is_being_settled() -> None:
    run = Run().until("approve_restaurant_ticket")

    run.after(timedelta(minutes=5))

    assert sentence(run) == (
        "Waiting 0 ms for restaurant_service.approve_ticket.settle (try 1); counts as late in 5 min. "
        "The participant is asked how approve_restaurant_ticket stands, and to close it: "
        "unless it happened, the saga turns back."
    )


@pytest.mark.parametrize(("act", "told"), [(Act.SKIP, "skips it"), (Act.COMPLETE, "completes it by hand")])
def test_an_act_that_asks_the_participant_first_names_who_wants_it(act: Act, told: str) -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(timedelta(minutes=5))

    run.operator(act, reply={"courier": "Ann"})

    assert f"ann {told}, unless it happened." in sentence(run)


def test_an_undoing_that_is_handed_over_names_who_takes_it() -> None:
    run = an_undo_that_keeps_failing()

    run.operator(Act.COMPLETE)

    assert "ann takes over undoing it." in sentence(run)


# ---- turning back -----------------------------------------------------------------------------------


def test_a_saga_that_is_being_undone_says_what_it_waits_for_and_why_it_turned_back() -> None:
    run = Run().until("authorize_card")

    run.refuses("CardRefused")

    assert sentence(run) == (
        "Undoing create_restaurant_ticket: waiting 0 ms for restaurant_service.reject_ticket (try 1); "
        "counts as late in 5 min. It turned back because authorize_card was refused "
        "(CardRefused: says CardRefused)."
    )


def test_a_failed_undo_says_when_the_next_try_is() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")

    run.fails(error="KitchenOffline")

    assert sentence(run).startswith(
        "Undoing create_restaurant_ticket: try 1 failed (KitchenOffline: says KitchenOffline); "
        "try 2 is in 1 s."
    )


def test_a_step_that_was_not_answered_is_why_the_saga_turned_back() -> None:
    run = Run().until("create_restaurant_ticket")

    run.after(timedelta(minutes=5))

    assert sentence(run).endswith(
        "It turned back because restaurant_service.create_ticket gave no answer in 300 s."
    )


def test_a_cancelled_saga_quotes_the_reason() -> None:
    run = Run().until("create_restaurant_ticket")

    run.operator(Act.CANCEL)

    assert sentence(run).endswith("It turned back because it was cancelled (I know why).")


def test_our_own_code_that_raised_is_named() -> None:
    run = Run(state=OrderState(broken="open_ticket")).start()
    run.succeeds()

    assert "create_restaurant_ticket failed (KeyError: 'open_ticket is broken')" in sentence(run)


# ---- parked -----------------------------------------------------------------------------------------


def an_undo_that_keeps_failing() -> Run:
    """Turned back, and the ticket could not be rejected five times."""
    run = Run().until("authorize_card")
    run.refuses("CardRefused")
    for _ in range(5):
        run.fails("create_restaurant_ticket", "KitchenOffline")
        if not run.step("create_restaurant_ticket").parked:
            run.after(60)
    return run


def test_a_parked_undo_needs_a_person_and_goes_on_being_tried() -> None:
    run = an_undo_that_keeps_failing()

    pausing = sentence(run)
    run.after(16)
    run.now += seconds(2)

    assert pausing.startswith(
        "create_restaurant_ticket needs a person: its compensation failed 5 times "
        "(KitchenOffline: says KitchenOffline); it goes on being tried; the next try is in 16 s. "
    )
    assert "it goes on being tried; try 6 was last sent 2 s ago. It turned back" in sentence(run)


def test_a_refusal_after_the_pivot_needs_a_person() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.refuses("NoCourier")

    assert sentence(run) == (
        "start_delivery needs a person: refused after the pivot (NoCourier: says NoCourier): "
        "it cannot be undone; complete or skip it by hand."
    )


# ---- ended ------------------------------------------------------------------------------------------


def test_a_completed_saga_keeps_every_effect() -> None:
    assert sentence(Run().start().until_end()) == "Completed: every effect is kept."


def test_a_compensated_saga_says_why_it_was_undone() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")

    run.until_end()

    assert sentence(run) == "Undone because authorize_card was refused (CardRefused: says CardRefused)."


def test_what_was_skipped_by_hand_is_said_of_an_ended_saga() -> None:
    forward = Run(DELIVER_ORDER).until("start_delivery")
    forward.refuses("NoCourier")
    forward.operator(Act.SKIP)
    forward.until_end()
    backward = an_undo_that_keeps_failing()
    backward.operator(Act.SKIP, force=True)
    backward.until_end()

    assert sentence(forward) == "Completed, without start_delivery, skipped by hand."
    assert sentence(backward).endswith(
        "But for create_restaurant_ticket, skipped by hand: what it did may still be there."
    )


# ---- the broker's side --------------------------------------------------------------------------------


def seen(messages: int = 0, consumers: int | None = 0, *, at: datetime = NOON) -> QueueSeen:
    """The queue of restaurant_service, looked at once."""
    return QueueSeen(TICKETS, at, messages, consumers).after(None)


def waiting_for_a_ticket() -> Run:
    """For 9 s."""
    run = Run().until("create_restaurant_ticket")
    run.now += seconds(9)
    return run


def test_the_sentence_says_that_no_worker_takes_from_the_queue_and_who_else_waits() -> None:
    run = waiting_for_a_ticket()
    queue = QueueSeen(TICKETS, run.now, 1204, 0, unattended_since=NOON)

    assert why(run.instance, run.now, run.saga, queue=queue, same=1203) == (
        "Waiting 9 s for restaurant_service.create_ticket (try 1); turns back in 4 min 51 s. "
        "No worker has taken from restaurant_service.commands since 12:00. "
        "1,204 messages wait in restaurant_service.commands. 1,203 more sagas wait for the same."
    )


def test_of_a_queue_that_workers_take_from_only_what_waits_is_told() -> None:
    run = waiting_for_a_ticket()

    def told(queue: QueueSeen) -> str:
        return why(run.instance, run.now, run.saga, queue=queue).partition("in 4 min 51 s.")[2]

    assert told(seen(1, 3, at=run.now)) == " 1 message waits in restaurant_service.commands."
    assert told(seen(0, 3, at=run.now)) == ""
    assert told(seen(20_000, None, at=run.now)) == " 20,000 messages wait in restaurant_service.commands."


def test_what_was_seen_of_a_queue_long_ago_is_not_told() -> None:
    run = waiting_for_a_ticket()

    just_now = why(run.instance, run.now, queue=seen(at=run.now - seconds(60)))
    long_ago = why(run.instance, run.now, queue=seen(at=run.now - seconds(61)))

    assert "No worker has taken" in just_now
    assert long_ago == sentence_without_declaration(run)


def sentence_without_declaration(run: Run) -> str:
    return why(run.instance, run.now)


@pytest.mark.parametrize(
    ("same", "told"),
    [
        (0, ""),
        (1, " 1 more saga waits for the same."),
        (MOST, " 10,000 more sagas wait for the same."),
        (MOST + 1, " 10,000+ more sagas wait for the same."),
    ],
)
def test_how_many_more_wait_is_counted_up_to_a_bound(same: int, told: str) -> None:
    run = waiting_for_a_ticket()

    assert why(run.instance, run.now, same=same) == sentence_without_declaration(run) + told


def test_others_that_are_parked_stand_at_the_same_step() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.refuses("NoCourier")

    assert why(run.instance, run.now, same=1).endswith(" 1 more saga is parked at the same step.")
    assert why(run.instance, run.now, same=2).endswith(" 2 more sagas are parked at the same step.")


def test_a_late_step_is_parked_and_its_queue_still_tells_why() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    run.after(timedelta(minutes=5))
    queue = QueueSeen("delivery_service.commands", run.now, 0, 0).after(None)

    assert queue_of(run.instance) == "delivery_service.commands"
    assert "No worker has taken from delivery_service.commands since 12:05." in why(
        run.instance, run.now, run.saga, queue=queue
    )


def test_only_what_is_in_flight_has_a_queue() -> None:
    waiting, pausing, ended = Run().until("create_restaurant_ticket"), Run(), Run().start()
    pausing.until("create_restaurant_ticket").fails()
    ended.until_end()

    assert queue_of(waiting.instance) == TICKETS
    assert queue_of(pausing.instance) is None
    assert queue_of(ended.instance) is None
    assert queue_of(new_instance(DELIVER_ORDER)) is None


def test_a_queue_is_unattended_since_the_first_look_that_found_nobody() -> None:
    first = seen(5, 0)
    second = QueueSeen(TICKETS, NOON + seconds(2), 6, 0).after(first)
    attended = QueueSeen(TICKETS, NOON + seconds(4), 6, 1).after(second)
    again = QueueSeen(TICKETS, NOON + seconds(6), 6, 0).after(attended)

    assert first.unattended_since == second.unattended_since == NOON
    assert attended.unattended_since is None
    assert again.unattended_since == NOON + seconds(6)


def test_a_look_long_ago_does_not_say_since_when_a_queue_is_unattended() -> None:
    later = QueueSeen(TICKETS, NOON + timedelta(hours=8), 0, 0).after(seen(5, 0))

    assert later.unattended_since == NOON + timedelta(hours=8)


def test_a_broker_that_does_not_count_consumers_says_nothing_of_them() -> None:
    assert seen(5, None).unattended_since is None


def test_a_queue_as_json() -> None:
    assert seen(5, 0).to_json() == {
        "name": TICKETS,
        "messages": 5,
        "consumers": 0,
        "unattended_since": NOON.isoformat(),
        "seen_at": NOON.isoformat(),
    }
    assert seen(5, 1).to_json()["unattended_since"] is None


# ---- nobody looks -----------------------------------------------------------------------------------


def test_a_row_that_was_due_long_ago_asks_for_an_orchestrator() -> None:
    run = Run().until("approve_restaurant_ticket")
    run.fails()

    run.now += timedelta(minutes=3, seconds=5)

    assert sentence(run).endswith(
        "try 2 is due now. It should have been looked at 3 min ago: is an orchestrator running?"
    )


def test_what_others_said_is_quoted_in_one_line_and_not_at_length() -> None:
    run = Run().until("authorize_card")
    run.refuses("CardRefused")
    assert run.outcome is not None
    run.instance = replace(run.instance, outcome=replace(run.outcome, message="no\nmoney " + 300 * "x"))

    told = sentence(run)

    assert "\n" not in told
    assert "(CardRefused: no money xxx" in told
    assert "xxx...)." in told


# ---- spans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "told"),
    [
        (timedelta(milliseconds=12), "12 ms"),
        (timedelta(seconds=14.9), "14 s"),
        (timedelta(minutes=2, seconds=5), "2 min 5 s"),
        (timedelta(minutes=15), "15 min"),
        (timedelta(hours=3, minutes=42, seconds=9), "3 h 42 min"),
        (timedelta(hours=3, seconds=9), "3 h"),
        (timedelta(days=5, hours=2), "5 d 2 h"),
        (timedelta(seconds=-3), "0 ms"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span: timedelta, told: str) -> None:
    assert in_words(span) == told


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (0, "0 sagas"),
        (1, "1 saga"),
        (1204, "1,204 sagas"),
        (MOST, "10,000 sagas"),
        (MOST + 1, "10,000+ sagas"),
    ],
)
def test_a_count_stops_at_its_bound(number: int, told: str) -> None:
    assert count(number, "saga", "sagas") == told


def test_a_time_of_day_is_utc_and_has_its_date_unless_it_is_today() -> None:
    in_india = NOON.astimezone(timezone(timedelta(hours=5, minutes=30)))

    assert clock_time(in_india, NOON + seconds(1)) == "12:00"
    assert clock_time(NOON - timedelta(hours=13), NOON) == "2026-02-28 23:00"


def test_how_often_is_told_in_words() -> None:
    assert [times(n) for n in (1, 2, 3)] == ["once", "twice", "3 times"]
