"""The sentence that says why a saga stands where it stands."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from sagas_framework.core.events import Act
from sagas_framework.core.why import in_words, times, why
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
        "Waiting 1 min 4 s for restaurant_service.create_ticket (try 1, sent again twice); "
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


def test_of_a_later_try_that_was_sent_again_the_row_knows_only_the_last_time() -> None:
    run = Run().until("create_restaurant_ticket")
    run.fails()
    run.after(1)

    run.after(10, {TICKETS: run.now + seconds(10)})
    run.now += seconds(3)

    assert "Waiting for restaurant_service.create_ticket (try 2, sent again once, last 3 s ago)" in sentence(
        run
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


def test_how_often_is_told_in_words() -> None:
    assert [times(n) for n in (1, 2, 3)] == ["once", "twice", "3 times"]
