"""Every schedule with up to so many faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework import Context, Participant, Status, Undo
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.testing import BrokenPromise, Choices, Run, Scripted, Simulation
from sagas_framework.testing.exploring import moments_after, offered
from sagas_framework.testing.memento import Memento
from sagas_framework.testing.world import BEGINNING
from tests.simulation.shapes import SHAPES, Comp, Order, Release, Reserve, Reserved, sown, stock_service


def with_release(release: Callable[[int], bool]) -> Simulation[Order]:
    """A participant that really releases only in those tries of the compensation."""
    stock = Participant(stock_service, inbox=MemoryInbox(MemoryDatabase()))

    @stock.handles(Reserve)
    def reserve(command: Reserve, context: Context) -> Reserved:
        rows(context)["shelf"] = "empty"
        return Reserved(reservation=1)

    @stock.undoes(Release)
    def undo(command: Release, undo: Undo[Reserve]) -> None:
        if release(undo.attempt):
            rows(undo)["shelf"] = "full"

    def nothing_is_left(run: Run[Order]) -> Iterator[str]:
        shelf = run.participants["stock_service"].database.rows.get("shelf", "full")
        if run.status is Status.COMPENSATED and shelf != "full":
            yield "the shelf is empty"

    return Simulation(Comp, Order(), participants=[stock], promises=[nothing_is_left])


def rows(context: Context) -> dict[str, Any]:
    session: Any = context.session
    kept: dict[str, Any] = session.rows
    return kept


def test_what_takes_two_faults_is_found_among_all_schedules_of_two_and_no_sooner() -> None:
    """One that undoes the step after it was done, and one that makes its compensation be tried again."""
    simulation = with_release(lambda attempt: attempt == 1)

    assert simulation.exhaust(1).schedules > 50
    with pytest.raises(BrokenPromise, match="the shelf is empty") as found:
        simulation.exhaust(2)

    assert "all schedules with up to 2 faults" in str(found.value)


def test_what_is_told_is_the_shortest_though_longer_ones_are_allowed() -> None:
    with pytest.raises(BrokenPromise, match="up to 1 fault"):
        with_release(lambda attempt: False).exhaust(2)


def test_without_faults_there_is_one_schedule() -> None:
    explored = SHAPES["comp"].exhaust(0)

    assert explored.schedules == 1
    assert explored.states > 3


def test_states_that_were_seen_are_not_gone_through_again() -> None:
    """Of two schedules that differ in nothing that matters, one is cut short."""
    explored = SHAPES["comp"].exhaust(1)

    assert explored.pruned > explored.schedules / 2


def test_every_end_is_reached() -> None:
    ends: set[Status] = set()

    def note(run: Run[Order]) -> Iterator[str]:
        ends.add(run.status)
        yield from ()

    Simulation(Comp, Order(), promises=[note]).exhaust(1)

    assert ends == {Status.COMPLETED, Status.COMPENSATED}  # one fault alone needs no person


def test_times_stand_for_all_between_two_timers() -> None:
    menu = ("arrives", "lost", "late 0.5 s", "late 5 s", "late 45 s", "twice, 7 s apart")

    assert offered(menu, (11.0, 62.0), 1225.0) == (
        "arrives",
        "lost",
        "late 0.5 s",  # between two messages
        "late 11 s",
        "late 62 s",
        "late 1225 s",  # when it has expired
        "twice, 11 s apart",
        "twice, 62 s apart",
        "twice, 1225 s apart",
    )
    assert moments_after([timedelta(minutes=5), timedelta(seconds=10), timedelta(seconds=10)]) == (
        11.2,
        307.0,
    )
    jump = "jumps ahead after 30.5 s by 50 s"
    assert offered(("is right", jump), (11.0,), 1225.0) == ("is right", "jumps ahead after 11 s by 50 s")


@pytest.mark.parametrize(
    "shape", ["local steps mixed in", "outside comp,pivot,retriable", "two sagas at once"]
)
def test_a_run_that_was_put_back_goes_as_a_fresh_one_does(shape: str) -> None:
    simulation = SHAPES[shape]
    run: Run[Order] = Run(simulation, Choices())
    beginning = Memento(run.stateful())

    for seed in range(30):
        fresh = simulation.run(sown(seed))
        beginning.recall()
        run.world.choices = sown(seed)
        run.go({})

        assert run.trace() == fresh.trace()
        assert run.database.rows == fresh.database.rows


def test_a_moment_between_two_events_can_be_come_back_to_any_number_of_times() -> None:
    run: Run[Order] = Run(SHAPES["comp,pivot"], Scripted({"sending answer to reserve 1": "late 15 s"}))
    end = BEGINNING + timedelta(hours=4)
    for _ in range(6):
        run.world.step(end)
    moment = Memento(run.stateful())
    told = []
    for _ in range(3):
        moment.recall()
        run.go({})
        told.append(run.trace())

    assert told[0] == told[1] == told[2]
    assert run.status is Status.COMPLETED
