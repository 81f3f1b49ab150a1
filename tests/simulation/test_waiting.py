"""Signals early, late, doubled, at a deadline; cancels; crashes: rules 22 to 29 under faults."""

from __future__ import annotations

import os
from collections import Counter
from datetime import timedelta
from typing import Final

import pytest

from sagas_framework import Act, Became, OutcomeKind, Status
from sagas_framework.core.instance import Phase
from sagas_framework.storage.memory import MemoryTransaction
from sagas_framework.testing import BrokenPromise
from tests.simulation.shapes import sown
from tests.simulation.waiting_shapes import WAITING

RUNS: Final = int(os.environ.get("SAGAS_SIMULATION_RUNS", "300"))


@pytest.mark.parametrize("shape", WAITING)
def test_a_saga_that_waits_completes_when_nothing_goes_wrong(shape: str) -> None:
    run = WAITING[shape].replay({})

    assert run.status is Status.COMPLETED


@pytest.mark.parametrize("shape", [name for name in WAITING if name != "two that wait"])
@pytest.mark.timeout(600)
def test_whichever_single_fault_there_is_a_saga_that_waits_ends(shape: str) -> None:
    assert WAITING[shape].exhaust(1).schedules > 70


@pytest.mark.parametrize("shape", WAITING)
@pytest.mark.timeout(600)
def test_whatever_fails_a_saga_that_waits_ends(shape: str) -> None:
    WAITING[shape].check(RUNS)


@pytest.mark.parametrize("restart", ["0 s", "300 s"])
def test_a_signal_that_came_before_the_saga_is_taken_though_its_orchestrator_dies(restart: str) -> None:
    run = WAITING["approved"].replay(
        {
            "approval is said": "before it begins",
            "deciding answer to reserve 1": "dies after",
            "restarting orchestrator 1": restart,
        }
    )

    assert run.words.count("approve.succeeded") == 1
    assert [row.became for row in run.database.signals.values()] == [Became.TAKEN]


def test_a_repetition_under_its_id_is_the_same_signal_and_another_one_is_too_late() -> None:
    same = WAITING["approved"].replay({"approval is said again": "under its id after 2 s"})
    other = WAITING["approved"].replay({"approval is said again": "as another after 2 s"})

    assert [row.became for row in same.database.signals.values()] == [Became.TAKEN]
    assert [row.became for row in other.database.signals.values()] == [Became.TAKEN, Became.TOO_LATE]
    assert "signal_ignored" in other.words


def test_the_second_of_two_waits_takes_the_second_signal() -> None:
    run = WAITING["two waits"].replay({"approval is said": "before it begins"})

    assert run.status is Status.COMPLETED
    assert [row.became for row in run.database.signals.values()] == [Became.TAKEN, Became.TAKEN]


@pytest.mark.parametrize(
    ("when", "wins"), [("just before it", "signal"), ("at it", "signal"), ("just after it", "deadline")]
)
def test_between_a_signal_and_the_deadline_the_moment_of_saying_decides(when: str, wins: str) -> None:
    run = WAITING["approved"].replay(
        {"approval is said": "never", "the deadline of approve": f"approval is said {when}"}
    )

    assert run.status is (Status.COMPLETED if wins == "signal" else Status.COMPENSATED)
    assert run.words.count("approve.succeeded") + run.words.count("approve.failed") == 1


def test_a_signal_in_time_wins_though_the_orchestrator_is_away_until_after_the_deadline() -> None:
    run = WAITING["approved"].replay(
        {
            "approval is said": "after 30 s",
            "deciding answer to reserve 1": "dies after",
            "restarting orchestrator 1": "300 s",
        }
    )

    # The wait begins before the orchestrator dies, and its deadline passes while it is down.
    assert run.status is Status.COMPLETED


def test_a_saga_of_which_nobody_says_anything_expires_and_is_undone() -> None:
    run = WAITING["approved"].replay({"approval is said": "never"})

    assert run.status is Status.COMPENSATED
    assert run.instance.outcome is not None
    assert run.instance.outcome.kind is OutcomeKind.EXPIRED
    assert run.count("reserve") == 0


def test_a_waiting_saga_is_cancelled() -> None:
    run = WAITING["approved"].replay({"approval is said": "never", "an operator cancels": "after 11 s"})

    assert run.status is Status.COMPENSATED
    assert run.instance.outcome is not None
    assert run.instance.outcome.kind is OutcomeKind.CANCELLED


def test_an_operator_gives_an_approver_more_time() -> None:
    simulation = WAITING["approved"]

    def more_time(run: object) -> None:
        until = run.step("approve").deadline + timedelta(minutes=5)  # type: ignore[attr-defined]
        run.operator(Act.RESCHEDULE, "approve", until=until)  # type: ignore[attr-defined]

    run = simulation.replay({"approval is said": "after 150 s"}, meanwhile={20.0: more_time})

    assert run.status is Status.COMPLETED
    assert "operator.reschedule" in run.words


def test_a_pivot_in_flight_at_the_sagas_deadline_is_settled() -> None:
    run = WAITING["a deadline of its own"].replay(
        {"sending answer to charge 1": "lost", "sending charge 1": "late 45 s", "approval is said": "never"}
    )

    assert "late" in run.words
    assert run.status in (Status.COMPLETED, Status.COMPENSATED)


def test_the_pivot_is_left_out_and_what_comes_behind_only_goes_forward() -> None:
    run = WAITING["conditions and an early end"].replay({})

    assert run.step("charge").phase is Phase.LEFT_OUT
    assert run.status is Status.COMPLETED


def test_nobody_approves_and_the_saga_ends_early() -> None:
    run = WAITING["conditions and an early end"].replay({"approval is said": "never"})

    assert run.status is Status.COMPLETED
    assert run.instance.outcome is not None
    assert run.instance.outcome.step == "nothing"
    assert run.step("ship").phase is Phase.LEFT_OUT


def test_the_seeds_come_to_every_kind_of_end() -> None:
    kinds: Counter[object] = Counter()
    became: Counter[Became] = Counter()
    for seed in range(300):
        run = WAITING["approved"].run(sown(seed))
        kinds[run.instance.outcome and run.instance.outcome.kind] += 1
        became.update(row.became for row in run.database.signals.values())

    assert {OutcomeKind.OK, OutcomeKind.REFUSED, OutcomeKind.CANCELLED, OutcomeKind.EXPIRED} <= set(kinds)
    assert {Became.TAKEN, Became.TOO_LATE} <= set(became)


def test_it_is_found_out_if_neither_who_begins_to_wait_nor_who_fires_a_deadline_looks_for_signals(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sagas_framework.orchestrator.listens", lambda saga, instance: ())
    monkeypatch.setattr("sagas_framework.orchestrator.waits_overdue", lambda saga, instance, now: False)

    with pytest.raises(BrokenPromise, match="had been said in time"):
        WAITING["approved"].replay({"approval is said": "before it begins"})


def test_it_is_found_out_if_a_signal_is_not_noted_as_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryTransaction, "answer_signals", lambda self, answers, at: None)

    with pytest.raises(BrokenPromise, match="were taken, and the waits ended with"):
        WAITING["two waits"].replay({})
