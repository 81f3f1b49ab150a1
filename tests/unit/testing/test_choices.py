"""Choices: every fault at a named point."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sagas_framework.testing import Choices, Scripted, Sown
from sagas_framework.testing.choices import DATABASES, KINDS, duration, durations

MENU = ("arrives", "lost", "late 5 s")


def test_nothing_goes_wrong_by_itself() -> None:
    choices = Choices()

    assert [choices.at("sending", MENU) for _ in range(3)] == ["arrives"] * 3
    assert choices.taken == {}


def test_a_point_that_is_come_by_again_is_numbered() -> None:
    choices = Scripted({"sending #2": "lost"})

    assert [choices.at("sending", MENU) for _ in range(3)] == ["arrives", "lost", "arrives"]
    assert choices.taken == {"sending #2": "lost"}
    assert list(choices.seen) == ["sending", "sending #2", "sending #3"]


def test_no_fault_is_taken_once_faults_have_stopped() -> None:
    choices = Scripted({"sending": "lost"})
    choices.closed = True

    assert choices.at("sending", MENU) == "arrives"
    assert choices.unused() == ["sending"]


def test_faults_are_sown_so_far_apart() -> None:
    choices = Sown([(2, 0), (0, 1), (3, 1)])

    made = [choices.at("sending", MENU) for _ in range(9)]

    assert made == ["arrives", "arrives", "lost", "late 5 s", *["arrives"] * 3, "late 5 s", "arrives"]


def test_a_point_of_more_weight_comes_sooner() -> None:
    choices = Sown([(4, 0)])

    assert [choices.at("sending", MENU, weight=2.5) for _ in range(2)] == ["arrives", "lost"]


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 31))), st.integers(0, 2**KINDS - 1))
def test_only_so_many_faults_are_sown_and_none_of_a_kind_that_the_run_does_not_know(
    faults: list[tuple[int, int]], unknown: int
) -> None:
    choices = Sown(faults, unknown)
    for number in range(300):
        choices.at(f"point {number}", MENU)

    assert len(choices.taken) <= len(faults)
    if unknown == 2**KINDS - 1:
        assert choices.taken == {}


def test_where_the_rows_are_kept_is_no_fault() -> None:
    choices = Sown([(0, 0)], on_sqlite=True)

    assert choices.at(*DATABASES) == "on SQLite"
    assert choices.at("sending", MENU) == "lost"


def test_a_choice_names_its_seconds() -> None:
    assert duration("late 12.5 s") == 12.5
    assert duration("arrives") == 0
    assert durations("after 0.015 s for 40 s") == [0.015, 40.0]
    assert durations("twice, 7 s apart") == [7.0]
