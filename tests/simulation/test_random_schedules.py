"""Schedules of faults over every shape: all of one fault, and long ones at random.

SAGAS_SIMULATION_RUNS says how many random ones of each shape: those in every run of the tests take
about a minute with all the rest; a release takes 20000.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Final

import pytest

from sagas_framework import Status
from sagas_framework.testing import BrokenPromise, Scripted, Simulation
from sagas_framework.testing.effects import Tally
from tests.simulation.shapes import SHAPES, Comp, Order, sown

RUNS: Final = int(os.environ.get("SAGAS_SIMULATION_RUNS", "300"))


@pytest.mark.parametrize("shape", [name for name in SHAPES if name != "two sagas at once"])
@pytest.mark.timeout(600)
def test_whichever_single_fault_there_is_a_saga_ends(shape: str) -> None:
    explored = SHAPES[shape].exhaust(1)

    assert explored.schedules > 70


@pytest.mark.timeout(600)
def test_whichever_two_faults_there_are_a_saga_ends() -> None:
    explored = SHAPES["comp"].exhaust(2)

    assert explored.schedules > 3000


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.timeout(600)
def test_whatever_fails_a_saga_ends_and_its_effects_agree(shape: str) -> None:
    SHAPES[shape].check(RUNS)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_saga_completes_when_nothing_goes_wrong(shape: str) -> None:
    run = SHAPES[shape].replay({})

    assert run.status is Status.COMPLETED
    assert run.schedule == {}


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (SHAPES["local steps mixed in"].run(sown(11)) for _ in range(2))

    assert first.trace() == second.trace()
    assert first.schedule == second.schedule


def test_the_schedule_of_a_run_gives_the_same_run_again() -> None:
    first = SHAPES["comp,pivot,retriable"].run(sown(4))

    assert first.schedule
    assert SHAPES["comp,pivot,retriable"].replay(first.schedule).trace() == first.trace()


def test_the_seeds_come_to_every_end_by_every_kind_of_fault() -> None:
    ends: Counter[Status] = Counter()
    words: set[str] = set()
    faults: set[str] = set()
    for seed in range(400):
        run = SHAPES["local steps mixed in"].run(sown(seed))
        ends[run.status] += 1
        words |= {word.rpartition(".")[2] for word in run.words}
        faults |= {choice.split()[0] for choice in run.schedule.values()}

    assert set(ends) == {Status.COMPLETED, Status.COMPENSATED, Status.PARKED}
    assert words >= {
        "attempt_failed",
        "settling",
        "compensation_failed",
        "sent_again",
        "reply_ignored",
        "parked",
    }
    assert faults >= {
        "lost",
        "late",
        "twice,",
        "broker",
        "dies",
        "database",
        "fails",
        "refuses",
        "takes",
        "stalls",
        "corrupted",
        "commit",
        "jumps",
    }


def test_a_schedule_that_breaks_a_promise_is_shrunk_and_told_as_a_test(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: Any, key: str) -> Tally:
        return Tally(1, 0, 1)  # as if no undo ever worked

    monkeypatch.setattr("sagas_framework.testing.effects.Effects.tally", broken)
    simulation = Simulation(Comp, Order())

    with pytest.raises(BrokenPromise) as found:
        simulation.check(200)

    told = str(found.value)
    assert "def test_the_saga_is_compensated_and_the_effect_of_reserve_stays" in told
    assert "simulation.replay({" in told
    assert "reserve 1 is sent" in told


def test_only_the_faults_that_a_failure_needs_are_left_of_a_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagas_framework.testing.effects.Effects.tally", lambda self, key: Tally(1, 0, 1))
    schedule = {
        "an operator cancels": "after 0.005 s",
        "handling undo reserve 1": "fails",
        "sending answer to undo reserve 2": "lost",
    }

    assert Simulation(Comp, Order()).shrunk(schedule) == {"an operator cancels": "after 0.005 s"}


def test_a_schedule_that_no_longer_fits_is_told() -> None:
    with pytest.raises(ValueError, match="never came to 'sending reserve 9'"):
        SHAPES["comp"].replay({"sending reserve 9": "lost"})


def test_a_choice_that_is_not_on_the_menu_is_taken_all_the_same() -> None:
    choices = Scripted({"sending reserve 1": "late 12.5 s"})

    assert choices.at("sending reserve 1", ["arrives", "late 5 s"]) == "late 12.5 s"
    assert choices.at("sending reserve 1", ["arrives", "late 5 s"]) == "arrives"
    assert list(choices.seen) == ["sending reserve 1", "sending reserve 1 #2"]
