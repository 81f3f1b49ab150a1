"""Choices: every fault at a named point."""

from __future__ import annotations

from sagas_framework.testing import Choices, Scripted, Seeded
from sagas_framework.testing.choices import duration, durations

MENU = ("arrives", "lost", "late 5 s")


def test_nothing_goes_wrong_by_itself() -> None:
    choices = Choices()

    assert [choices.at("sending", MENU) for _ in range(3)] == ["arrives"] * 3
    assert choices.taken == {}


def test_a_point_that_is_come_by_again_is_numbered() -> None:
    choices = Scripted({"sending #2": "lost"})

    assert [choices.at("sending", MENU) for _ in range(3)] == ["arrives", "lost", "arrives"]
    assert choices.taken == {"sending #2": "lost"}


def test_no_fault_is_taken_once_faults_have_stopped() -> None:
    choices = Scripted({"sending": "lost"})
    choices.closed = True

    assert choices.at("sending", MENU) == "arrives"


def test_the_same_seed_makes_the_same_choices() -> None:
    def made(seed: int) -> list[str]:
        choices = Seeded(seed)
        return [choices.at(f"point {number}", MENU) for number in range(200)]

    assert made(1) == made(1)
    assert len({tuple(made(seed)) for seed in range(20)}) > 10


def test_a_seed_takes_only_so_many_faults() -> None:
    for seed in range(50):
        choices = Seeded(seed)
        for number in range(2000):
            choices.at(f"point {number}", MENU)

        assert len(choices.taken) <= 14


def test_a_choice_names_its_seconds() -> None:
    assert duration("late 12.5 s") == 12.5
    assert duration("arrives") == 0
    assert durations("after 0.015 s for 40 s") == [0.015, 40.0]
    assert durations("twice, 7 s apart") == [7.0]
