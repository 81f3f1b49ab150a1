"""When two moments of a run are the same: whatever may happen next is the same, and so is what it breaks."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Hashable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.core.instance import Phase, SagaInstance, StepRecord
from sagas_framework.storage.ports import ActRow, HistoryLine, SignalRow
from sagas_framework.testing.network import expires, identity
from sagas_framework.testing.processes import TICK, ParticipantProcess
from sagas_framework.testing.run import ACTS, BOUNDS, Run

_COARSE: Final = 600.0
"""Seconds. What is only about lifetimes and retention is compared by this grain."""
_SOON: Final = 1.0
"""Seconds. What comes sooner falls between two messages, and it matters between which."""
_GRID: Final = (1.0, 3.0)
_REMEMBERED: Final = 100_000
_TOLD: Final = (".succeeded", ".compensating", ".compensated")
"""Words of the history that an invariant looks at."""

Awaited = list[tuple[float, Hashable]]
"""What is to come: in how many seconds, and what."""


class States:
    """Makes the key of a run's present state: equal keys, equal futures.

    What is to come within a second is compared to the millisecond; anything later by its order, and by
    the two of the run's timers between which it will come. Left out is what nothing depends on (the
    history's other lines, how often something was sent), what only says within a few seconds when a lost
    message is noticed (when a timekeeper looks at the queues), and the bounds of the run itself.

    Args:
        moments: seconds; between two of them one time is as good as another.
    """

    def __init__(self, moments: Sequence[float]) -> None:
        self._grid = sorted({*_GRID, *moments})
        self._still: dict[int, tuple[object, Hashable]] = {}

    def key(self, run: Run[Any]) -> Hashable:
        """The key of the state that the run is in, between two events."""
        if len(self._still) > _REMEMBERED:
            self._still.clear()
        now = run.world.now
        awaited: Awaited = []
        database = run.database
        found = (
            run.choices.closed,
            tuple(self._instance(instance, now, awaited) for instance in database.instances.values()),
            tuple(line.recorded.entry for line in database.history if _is_told(line)),
            tuple(self._act(act, database.instances[act.saga_id]) for act in database.acts.values()),
            tuple(self._signal(signal, now) for signal in database.signals.values()),
            len(run.looked),
            len(run.sayers.seen),
            hash(repr(database.rows)),
            tuple(self._participant(process, now, awaited) for process in run.participants.values()),
            frozenset(run.effects.provider.there),
            self._failures(run),
            tuple(identity(message) for message in run.network.queued()),
            tuple((process.up, process.clock.ahead) for process in run.orchestrators),
        )
        for message in run.network.queued():
            if (expiry := expires(message)) is not None:
                awaited.append(((expiry - now).total_seconds(), ("expires", *identity(message))))
        for planned in run.world.planned():
            what = planned.what
            if what in BOUNDS or what[0] == TICK:
                continue
            if what[0] == ACTS:
                _, saga_id, revision, *act = what
                what = (ACTS, saga_id, revision in (None, database.instances[str(saga_id)].revision), *act)
            awaited.append(((planned.at - now).total_seconds(), what))
        awaited.sort(key=_when)
        return found, tuple((self._moment(seconds), what) for seconds, what in awaited)

    def _moment(self, seconds: float) -> float:
        return round(seconds, 3) if seconds < _SOON else 1 + bisect(self._grid, seconds)

    def _instance(self, instance: SagaInstance, now: datetime, awaited: Awaited) -> Hashable:
        return (
            instance.status,
            self._once(instance.outcome),
            self._once(instance.state),
            instance.late,
            self._deadline(instance, now, awaited),
            tuple(self._record(record, now, awaited) for record in instance.steps.values()),
        )

    @staticmethod
    def _signal(signal: SignalRow, now: datetime) -> Hashable:
        """When it was said matters only until it is answered."""
        said = None if signal.handled_at else round((now - signal.said_at).total_seconds(), 3)
        return signal.key, signal.signal, signal.said_id, signal.became, signal.look_at is None, said

    @staticmethod
    def _act(act: ActRow, instance: SagaInstance) -> Hashable:
        """One that waits is refused if the saga has moved on since; what was done is in the saga."""
        waits = act.handled_at is None
        return act.act, act.step, act.force, waits and act.revision in (None, instance.revision), waits

    @staticmethod
    def _deadline(instance: SagaInstance, now: datetime, awaited: Awaited) -> Hashable:
        if instance.deadline is None or instance.outcome is not None or instance.late:
            return None
        awaited.append(((instance.deadline - now).total_seconds(), ("deadline", instance.id)))
        return True

    def _record(self, record: StepRecord, now: datetime, awaited: Awaited) -> Hashable:
        flight, first = record.flight, record.first_sent_at
        if record.deadline is not None:
            awaited.append(((record.deadline - now).total_seconds(), ("deadline", record.name)))
        if record.resume_at is not None:
            awaited.append(((record.resume_at - now).total_seconds(), ("resume", record.name)))
        if flight is not None and flight.check_at is not None:
            awaited.append(((flight.check_at - now).total_seconds(), ("look", record.name)))
        found = self._still.get(id(record))
        if found is None:
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
                flight and (flight.message_id, flight.stalled, flight.hand_over, repr(flight.payload)),
            )
            found = self._still[id(record)] = record, hash(still)
        # Never less than 0: to Python's `hash`, -1 and -2 are the same.
        return found[1], first and round((now - first).total_seconds() / _COARSE)

    def _participant(self, process: ParticipantProcess, now: datetime, awaited: Awaited) -> Hashable:
        rows = []
        for row, _ in process.database.inbox.values():
            rows.append(self._row(row))
            if row.lease_until is not None:
                awaited.append(((row.lease_until - now).total_seconds(), ("lease", row.key)))
        how = process.up, process.in_batches, process.clock.ahead
        return how, tuple(rows), hash(repr(process.database.rows))

    def _row(self, row: InboxRow) -> Hashable:
        found = self._still.get(id(row))
        if found is None:
            tried = row.attempt if row.state in (RowState.CLAIMED, RowState.FAILED) else 0
            still = replace(row, attempt=tried, claim=row.claim and "claimed", lease_until=None)
            found = self._still[id(row)] = row, hash(repr(still))
        return found[1]

    def _once(self, thing: object) -> Hashable:
        found = self._still.get(id(thing))
        if found is None:
            found = self._still[id(thing)] = thing, hash(repr(thing))
        return found[1]

    @staticmethod
    def _failures(run: Run[Any]) -> Hashable:
        """The attempts that must not be executed any more; a row that is done sees to that itself."""
        rows = run.effects.rows
        return tuple(
            (key, frozenset(said))
            for key, said in sorted(run.effects.failures_answered.items())
            if key not in rows or rows[key].state is not RowState.DONE
        )


def _when(awaited: tuple[float, Hashable]) -> float:
    return awaited[0]


def _is_told(line: HistoryLine) -> bool:
    return line.recorded.step is None or line.recorded.entry.endswith(_TOLD)
