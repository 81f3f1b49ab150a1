"""When two moments of a run are the same: whatever may happen next is the same, and so is what it breaks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.core.instance import Phase, SagaInstance, StepRecord
from sagas_framework.testing.network import identity
from sagas_framework.testing.processes import TICK
from sagas_framework.testing.run import BOUNDS, Run

_COARSE: Final = 600.0
"""Seconds. What is only about lifetimes and retention is compared by this grain."""
_REMEMBERED: Final = 100_000
_TOLD: Final = (".succeeded", ".compensating", ".compensated")
"""Words of the history that an invariant looks at."""


class States:
    """Makes the key of a run's present state: equal keys, equal futures.

    Moments count by their distance from now. Left out is what nothing depends on (the history's other
    lines, how often something was sent), what only says within a few seconds when a lost message is
    noticed (when a timekeeper looks at the queues), and the bounds of the run itself.
    """

    def __init__(self) -> None:
        self._static: dict[int, tuple[object, Hashable]] = {}

    def key(self, run: Run[Any]) -> Hashable:
        """The key of the state that the run is in, between two events."""
        if len(self._static) > _REMEMBERED:
            self._static.clear()
        now = run.world.now

        def until(moment: datetime | None) -> float | None:
            return None if moment is None else round((moment - now).total_seconds(), 3)

        def coarse(moment: datetime | None) -> int | None:
            return None if moment is None else round((moment - now).total_seconds() / _COARSE)

        database = run.database
        return (
            run.choices.closed,
            tuple(self._instance(instance, until, coarse) for instance in database.instances.values()),
            tuple(self._once(line, line.recorded.entry) for line in database.history if _is_told(line)),
            tuple(
                (act.act, act.step, act.force, until(act.handled_at) is None)
                for act in database.acts.values()
            ),
            tuple(self._participant(process, until) for process in run.participants.values()),
            hash(repr(database.rows)),
            frozenset(run.effects.provider.there),
            self._failures(run),
            tuple(self._planned(run, until)),
            tuple(identity(message) for message in run.network.queued()),
            tuple((process.up, until(now + process.clock.ahead)) for process in run.orchestrators),
        )

    @staticmethod
    def _failures(run: Run[Any]) -> Hashable:
        """The attempts that must not be executed any more; a row that is done sees to that itself."""
        rows = run.effects.rows
        return tuple(
            (key, frozenset(said))
            for key, said in sorted(run.effects.failures_answered.items())
            if key not in rows or rows[key].state is not RowState.DONE
        )

    def _instance(
        self,
        instance: SagaInstance,
        until: Callable[[datetime | None], float | None],
        coarse: Callable[[datetime | None], int | None],
    ) -> Hashable:
        return (
            instance.status,
            self._once_repr(instance.outcome),
            self._once_repr(instance.state),
            tuple(self._record(record, until, coarse) for record in instance.steps.values()),
        )

    def _record(
        self,
        record: StepRecord,
        until: Callable[[datetime | None], float | None],
        coarse: Callable[[datetime | None], int | None],
    ) -> Hashable:
        found = self._static.get(id(record))
        if found is None:
            flight = record.flight
            # How often a step was tried that has succeeded matters to nobody any more.
            tried = record.attempts if record.phase is not Phase.SUCCEEDED else 0
            still = (
                record.name,
                record.phase,
                tried,
                record.tries,
                record.settles,
                record.known,
                record.parked,
                repr(record.intent),
                repr(record.turning),
                repr(record.error) if tried else None,
                repr(record.reply),
                flight and (flight.message_id, flight.pauses, flight.hand_over, repr(flight.payload)),
            )
            found = self._static[id(record)] = record, hash(still)
        flight = record.flight
        return (
            found[1],
            until(record.deadline),
            until(record.resume_at),
            coarse(record.first_sent_at),
            flight and until(flight.check_at),
        )

    def _participant(self, process: Any, until: Callable[[datetime | None], float | None]) -> Hashable:
        return (
            process.up,
            process.clock.ahead,
            tuple((self._row(row), until(row.lease_until)) for row, _ in process.database.inbox.values()),
            hash(repr(process.database.rows)),
        )

    def _row(self, row: InboxRow) -> Hashable:
        found = self._static.get(id(row))
        if found is None:
            tried = row.attempt if row.state in (RowState.CLAIMED, RowState.FAILED) else 0
            still = replace(row, attempt=tried, claim=row.claim and "claimed", lease_until=None)
            found = self._static[id(row)] = row, hash(repr(still))
        return found[1]

    def _once(self, thing: object, value: Hashable) -> Hashable:
        found = self._static.get(id(thing))
        if found is None:
            found = self._static[id(thing)] = thing, value
        return found[1]

    def _once_repr(self, thing: object) -> Hashable:
        found = self._static.get(id(thing))
        if found is None:
            found = self._static[id(thing)] = thing, hash(repr(thing))
        return found[1]

    @staticmethod
    def _planned(run: Run[Any], until: Callable[[datetime | None], float | None]) -> Iterator[Hashable]:
        for planned in run.world.planned():
            if planned.what not in BOUNDS and planned.what[0] != TICK:
                yield until(planned.at), planned.what


def _is_told(line: Any) -> bool:
    return line.recorded.entry.endswith(_TOLD) or line.recorded.step is None
