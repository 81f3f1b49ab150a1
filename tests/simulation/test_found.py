"""What the simulator has found, kept as the schedules that found it."""

from __future__ import annotations

from sagas_framework import Act, Status
from tests.simulation.shapes import SHAPES


def test_an_outside_handler_that_has_ended_does_not_hold_its_claim_when_its_row_cannot_be_written() -> None:
    """The claim stayed until its lease ended, long after the step's timeout: a commit that failed once undid
    a step that had worked, and left a pivot to a person."""
    run = SHAPES["outside comp"].replay({"committing reserve 1 #2": "database away"})

    assert run.step("reserve").attempts == 1
    assert run.status is Status.COMPLETED


def test_an_undo_that_fails_while_its_step_is_handed_over_is_tried_again() -> None:
    """``settle reserve 1`` was answered with the fault, which no row had; the operator had to ask again."""
    run = SHAPES["outside comp"].replay(
        {
            "handling reserve 1": "fails after it worked",
            "handling reserve 2": "fails after it worked",
            "handling undo reserve 1": "fails",
            "handling undo reserve 1 #2": "fails",  # called by the settling
        },
        meanwhile={5.5: lambda run: run.operator(Act.COMPLETE, "reserve")},
    )

    assert run.sent.count("settle reserve 1") == 2
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a_failed_attempt_that_takes_over_the_claim_of_the_next_has_one_effect() -> None:
    """``reserve 2`` claimed the row and is gone; a late copy of ``reserve 1``, whose failure was answered,
    finds a claim that nobody holds and is executed, as rule 3 has it."""
    run = SHAPES["outside comp"].replay(
        {
            "sending reserve 1": "twice, 15 s apart",
            "handling reserve 1": "fails after it worked",
            "handling reserve 2": "is away",
        }
    )

    assert run.effects.executions[run.key("reserve"), 1] == 2
    assert run.effects.provider.keys["reserve"] == {run.key("reserve")}
    assert run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_an_outside_handler_that_refuses_after_an_attempt_that_worked_is_undone() -> None:
    """The row said ``refused``, so nothing was undone, and what attempt 1 had charged stayed."""
    run = SHAPES["outside comp,comp"].replay(
        {"handling hold 1": "fails after it worked", "handling hold 2": "refuses"}
    )

    assert run.count("hold") == 0
    assert run.status is Status.COMPENSATED


def test_what_was_committed_with_the_saga_is_undone_when_it_is_cancelled_before_its_first_decision() -> None:
    """The order stayed pending for ever: its step had not begun, so it was not among those to be undone."""
    run = SHAPES["a local end"].replay(
        {"an operator cancels": "after 0.005 s", "deciding a timer": "dies before"}
    )

    assert run.words[0] == "operator.cancel"
    assert run.count("begin") == 0
    assert run.state.noted == "undone"
    assert run.status is Status.COMPENSATED
