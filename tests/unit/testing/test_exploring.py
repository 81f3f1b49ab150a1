"""Every schedule with up to so many faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework import Act, Context, Participant, Saga, Status, Undo
from sagas_framework.core.instance import OutcomeKind, Phase, StepRecord
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.storage.ports import ActRow
from sagas_framework.testing import BrokenPromise, Choices, Run, Scripted, Simulation
from sagas_framework.testing.exploring import Exploration, moments_after, offered
from sagas_framework.testing.memento import Memento
from sagas_framework.testing.run import ACTS
from sagas_framework.testing.states import States
from sagas_framework.testing.world import BEGINNING
from tests.simulation.shapes import SHAPES, Comp, Order, Release, Reserve, Reserved, sown, step, stock_service


def reserving() -> Any:
    return step.command(
        Reserve,
        lambda state: Reserve(order=state.order),
        compensation=lambda state: Release(reservation=state.reservation),
    )


class Long(Saga[Order], name="long", version=1):
    first, second, third, fourth, fifth = (reserving() for _ in range(5))


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


def test_a_run_with_an_excuse_does_not_stand_for_one_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for a person because a handler refused hides what waits for one without a reason."""
    run: Run[Order] = Run(SHAPES["comp"], Choices())
    exploration = Exploration(run, (), 0.0, 0.0)
    monkeypatch.setattr(States, "key", lambda self, run: "the same")

    def is_known(**taken: str) -> bool:
        exploration._schedules += 1
        run.choices.taken = taken
        return exploration._is_known(left=1)

    assert not is_known(handling="refuses")
    assert is_known(handling="refuses", sending="lost")
    assert not is_known(sending="lost")
    assert is_known(handling="refuses")


def test_a_saga_of_many_steps_is_cancelled_in_each_of_them() -> None:
    cancelled: set[int] = set()

    def note(run: Run[Order]) -> None:
        if run.instance.outcome is not None and run.instance.outcome.kind is OutcomeKind.CANCELLED:
            cancelled.add(sum(record.attempts for record in run.instance.steps.values()))

    Simulation(Long, Order(), promises=[note]).exhaust(1)

    assert cancelled == {1, 2, 3, 4, 5}


def test_states_tell_how_long_ago_a_step_was_first_sent() -> None:
    """-1 and -2 have the same hash."""
    record = StepRecord("reserve", first_sent_at=BEGINNING)
    moments = [BEGINNING + number * timedelta(minutes=10) for number in range(4)]

    assert len({hash(States(())._record(record, now, [])) for now in moments}) == 4


def test_states_tell_an_act_that_will_be_refused_from_one_that_will_not() -> None:
    """Refused is what was decided on an older revision; else how often a saga moved matters to nobody."""
    run: Run[Order] = Run(SHAPES["comp"], Scripted({"sending reserve 1": "lost"}))
    while not run.instance.steps:
        run.world.step(BEGINNING + timedelta(hours=4))
    states, now = States(()), run.instance
    moved_on = replace(now, revision=now.revision + 1)

    def differ() -> bool:
        keys = []
        for instance in (now, moved_on):
            run.database.instances[now.id] = instance
            keys.append(states.key(run))
        return keys[0] != keys[1]

    assert not differ()
    run.world.after(3, lambda: None, (ACTS, now.id, now.revision, "reserve", "retries"))
    assert differ()
    run.world.after(3, lambda: None, (ACTS, now.id, None, "reserve", "completes"))
    run.world._agenda[:] = [planned for planned in run.world.planned() if planned.what[2:3] == (None,)]
    assert not differ()
    run.database.add_act(ActRow(0, now.id, Act.RETRY, "ann", "why", BEGINNING, revision=now.revision))
    assert differ()


def test_states_tell_a_cancel_before_an_answer_comes_from_one_after_it() -> None:
    """What comes within a second falls between two messages."""
    cancelled: set[Phase] = set()

    def note(run: Run[Order]) -> None:
        if run.instance.outcome is not None and run.instance.outcome.kind is OutcomeKind.CANCELLED:
            cancelled.add(run.step("reserve").phase)

    Simulation(Comp, Order(), promises=[note]).exhaust(1)

    assert cancelled == {Phase.COMPENSATED}
