"""Store and inbox in memory, with the promises of the real ones: for simulations and a user's tests.

One `MemoryDatabase` is one database: what is committed stays, what is rolled back was never there.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy.orm import Session

from sagas_framework.core.events import Recorded
from sagas_framework.core.inbox import InboxRow
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.why import QueueSeen
from sagas_framework.storage.ports import (
    ActRow,
    Ahead,
    Beat,
    Entangled,
    HistoryLine,
    LostRace,
    Quarantined,
    SendAgain,
    SignalAnswer,
    SignalRow,
    Wanted,
    answered,
)


class MemorySession:
    """What a handler or a local step gets in place of a session: `rows`, kept or thrown away as a whole."""

    def __init__(self, rows: dict[str, Any]) -> None:
        self.rows = rows


@dataclass
class MemoryDatabase:
    """Everything that one database holds. `rows` are the service's own."""

    instances: dict[str, SagaInstance] = field(default_factory=dict)
    history: list[HistoryLine] = field(default_factory=list)
    acts: dict[int, ActRow] = field(default_factory=dict)
    inbox: dict[str, tuple[InboxRow, datetime]] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    last_aside: int = 0
    beats: dict[tuple[str, str], Beat] = field(default_factory=dict)
    queues: dict[str, QueueSeen] = field(default_factory=dict)
    signals: dict[int, SignalRow] = field(default_factory=dict)
    last_signal: int = 0
    rows: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # One transaction at a time: coarser than row locks, and never more permissive.
        self.lock = threading.RLock()
        self.last_aside = max([self.last_aside, *(message.id for message in self.quarantined)])

    def copy(self) -> MemoryDatabase:
        """Another database with the same in it; `rows` are shared, as nobody changes them in place."""
        return MemoryDatabase(
            dict(self.instances),
            list(self.history),
            dict(self.acts),
            dict(self.inbox),
            list(self.quarantined),
            self.last_aside,
            dict(self.beats),
            dict(self.queues),
            dict(self.signals),
            self.last_signal,
            self.rows,
        )

    def become(self, other: MemoryDatabase) -> None:
        for name in _FIELDS:
            setattr(self, name, getattr(other, name))

    def set_aside(self, message: Quarantined) -> None:
        self.last_aside += 1  # a number is never given again
        self.quarantined.append(replace(message.storable(), id=self.last_aside))

    def replay(self, send: SendAgain, limit: int) -> None:
        with self.lock:
            messages = [message for message in self.quarantined if message.replay is not None][:limit]
        if not messages:
            return
        troubles = dict(zip((message.id for message in messages), send(messages), strict=True))
        asked = {message.id: message.replay for message in messages}
        with self.lock:
            kept = []
            for message in self.quarantined:
                if message.id not in troubles:
                    kept.append(message)
                elif (trouble := troubles[message.id]) is not None:  # unless asked anew meanwhile
                    same = message.replay == asked[message.id]
                    kept.append(message.not_sent(trouble) if same else message)
            self.quarantined = kept

    def add_act(self, act: ActRow) -> ActRow:
        """Store an operator's act under the next number."""
        act = replace(act, id=len(self.acts) + 1)
        self.acts[act.id] = act
        return act

    def add_signal(self, signal: SignalRow) -> SignalRow:
        """Store a signal under the next number; the first one, if it was said before."""
        whose = signal.saga, signal.key, signal.said_id
        for known in self.signals.values():
            if (known.saga, known.key, known.said_id) == whose:
                return known
        self.last_signal += 1
        made = self.signals[self.last_signal] = replace(signal, id=self.last_signal)
        return made

    def holder(self, saga: str, key: str) -> SagaInstance | None:
        """The instance of this saga with this key."""
        of_it = (one for one in self.instances.values() if (one.saga, one.key) == (saga, key))
        return next(of_it, None)


_FIELDS: Final = tuple(one.name for one in fields(MemoryDatabase))


class MemoryTransaction:
    """See `sagas_framework.storage.ports.StoreTransaction`."""

    def __init__(self, working: MemoryDatabase) -> None:
        self._working = working
        self._shared: MemorySession | None = None
        self.wrote: dict[str, SagaInstance] = {}

    def lock(self, saga_ids: Collection[str]) -> dict[str, SagaInstance]:
        return {i: self._working.instances[i] for i in sorted(saga_ids) if i in self._working.instances}

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        due = [
            (instance.due_at, instance.id)
            for instance in self._working.instances.values()
            if instance.due_at is not None
            and instance.due_at <= now
            and (instance.saga, instance.version) in sagas
        ]
        return [self._working.instances[saga_id] for _, saga_id in sorted(due)[:limit]]

    def write(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        for instance in instances:
            self._working.instances[instance.id] = self.wrote[instance.id] = instance
        for saga_id, revision, line in history:
            seq = len(self._working.history) + 1
            self._working.history.append(HistoryLine(saga_id, seq, revision, line))

    def lock_open(self, saga: str, versions: Collection[int]) -> list[SagaInstance]:
        fitting = (
            instance
            for instance in self._working.instances.values()
            if instance.saga == saga and instance.version in versions and not instance.status.ended
        )
        return sorted(fitting, key=lambda instance: instance.id)

    def move(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        self.write(instances, history)

    @contextmanager
    def savepoint(self) -> Iterator[Session]:
        self._shared = None
        session = MemorySession(copy.deepcopy(self._working.rows))
        yield cast(Session, session)
        self._working.rows = session.rows

    @contextmanager
    def sharing(self) -> Iterator[Session]:
        session = self._shared = self._shared or MemorySession(copy.deepcopy(self._working.rows))
        try:
            yield cast(Session, session)
        except Exception as error:
            raise Entangled(f"{type(error).__name__}: {error}") from error
        self._working.rows = session.rows

    def load(self, wanted: Iterable[Wanted]) -> None:
        """There is nothing to read: rows are here."""

    def lock_acts(self, limit: int) -> list[ActRow]:
        return [act for act in self._working.acts.values() if act.handled_at is None][:limit]

    def answer_act(self, act_id: int, answer: str, *, refused: bool, at: datetime) -> None:
        act = self._working.acts[act_id]
        self._working.acts[act_id] = replace(act, answer=answer, refused=refused, handled_at=at)

    def new_signals(
        self, now: datetime, sagas: Collection[tuple[str, int]], limit: int
    ) -> list[tuple[int, str | None]]:
        found: list[tuple[int, str | None]] = []
        for number, signal in sorted(self._working.signals.items()):
            if signal.look_at is None or signal.look_at > now or signal.saga not in {s for s, _ in sagas}:
                continue
            holder = self._working.holder(signal.saga, signal.key)
            if holder is None or (holder.saga, holder.version) in sagas:
                found.append((number, None if holder is None else holder.id))
        return found[:limit]

    def open_signals(self, whose: Collection[tuple[str, str]]) -> list[SignalRow]:
        return [
            signal
            for _, signal in sorted(self._working.signals.items())
            if (signal.saga, signal.key) in whose and signal.handled_at is None
        ]

    def answer_signals(self, answers: Sequence[SignalAnswer], at: datetime) -> None:
        for one in answers:
            signal = self._working.signals[one.id]
            if signal.handled_at is None:
                self._working.signals[one.id] = answered(signal, one, at)

    def quarantine(self, messages: Sequence[Quarantined]) -> None:
        for message in messages:
            self._working.set_aside(message)


class MemoryStore:
    """See `sagas_framework.storage.ports.Store`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database
        self._known: dict[str, SagaInstance] = {}

    @contextmanager
    def transaction(self) -> Iterator[MemoryTransaction]:
        with self.database.lock:
            working = self.database.copy()
            transaction = MemoryTransaction(working)
            yield transaction
            self.database.become(working)
            for saga_id, instance in transaction.wrote.items():
                if instance.status.ended:
                    self._known.pop(saga_id, None)
                else:
                    self._known[saga_id] = instance

    def remembered(self, saga_id: str) -> SagaInstance | None:
        return self._known.get(saga_id)

    def swap(
        self, before: SagaInstance, after: SagaInstance, history: Sequence[tuple[str, int, Recorded]]
    ) -> bool:
        with self.database.lock:
            if self.database.instances.get(before.id) is not before:
                return False
            with self.transaction() as tx:
                tx.write([after], history)
            return True

    def next_due(self, sagas: Collection[tuple[str, int]]) -> datetime | None:
        with self.database.lock:
            due = [
                instance.due_at
                for instance in self.database.instances.values()
                if instance.due_at is not None and (instance.saga, instance.version) in sagas
            ]
            return min(due, default=None)

    def ahead(self, sagas: Collection[tuple[str, int]]) -> Ahead:
        with self.database.lock:
            return Ahead(
                self.next_due(sagas),
                any(act.handled_at is None for act in self.database.acts.values()),
                any(signal.look_at is not None for signal in self.database.signals.values()),
                any(message.replay is not None for message in self.database.quarantined),
            )

    def quarantine(self, message: Quarantined) -> None:
        with self.database.lock:
            self.database.set_aside(message)

    def forget_signals(self, before: datetime, limit: int = 1000) -> int:
        with self.database.lock:
            old = [
                number
                for number, signal in self.database.signals.items()
                if signal.said_at < before
                and (signal.handled_at or self.database.holder(signal.saga, signal.key) is None)
            ][:limit]
            for number in old:
                del self.database.signals[number]
            return len(old)

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        self.database.replay(send, limit)

    def beat(self, beat: Beat) -> None:
        self.database.beats[beat.worker, beat.role] = beat

    def note_queues(self, seen: Sequence[QueueSeen]) -> None:
        with self.database.lock:
            for queue in seen:
                before = self.database.queues.get(queue.queue)
                if before is None or before.seen_at <= queue.seen_at:
                    self.database.queues[queue.queue] = queue.after(before)


class MemoryInboxTurn:
    """See `sagas_framework.storage.ports.InboxTurn`."""

    def __init__(self, row: InboxRow | None, rows: Mapping[str, Any]) -> None:
        self.row = row
        self.saved = False
        self.guarded = True
        self.rows: dict[str, Any] = dict(rows)
        self._session: MemorySession | None = None

    def session(self) -> Session:
        if self._session is None:
            self._session = MemorySession(copy.deepcopy(self.rows))
        return cast(Session, self._session)

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        if then is not None:
            self._call(then)
        if self._session is not None:
            self.rows = self._session.rows
            self._session = None

    def _call(self, then: Callable[[], None]) -> None:
        try:
            then()
        except Exception as error:
            if self.guarded or self._session is None:
                raise
            raise Entangled(str(error)) from error

    def undo_work(self) -> None:
        session, self._session = self._session, None
        if session is not None and not self.guarded:
            raise Entangled("what a handler did can be taken back with the others' work only")

    def save(self, row: InboxRow) -> None:
        self.row = row
        self.saved = True


class MemoryInboxTurns:
    """See `sagas_framework.storage.ports.InboxTurns`. Each turn goes on from the rows of the one before."""

    def __init__(self, turns: dict[str, MemoryInboxTurn], rows: dict[str, Any]) -> None:
        self.rows = rows
        self._turns = turns
        self._last: MemoryInboxTurn | None = None

    def get(self, key: str) -> MemoryInboxTurn:
        self._leave()
        turn = self._last = self._turns[key]
        turn.rows = dict(self.rows)
        return turn

    def load(self, wanted: Iterable[Wanted]) -> None:
        """There are no mapped classes here."""

    def finish_work(self) -> None:
        """Each is finished by itself."""

    def saved(self) -> list[InboxRow]:
        """The rows to keep, when all turns are over."""
        self._leave()
        return [turn.row for turn in self._turns.values() if turn.saved and turn.row is not None]

    def _leave(self) -> None:
        if self._last is not None:
            self._last.finish_work()
            self.rows = self._last.rows


class MemoryInbox:
    """See `sagas_framework.storage.ports.BatchInbox`."""

    transactional = True

    def __init__(self, database: MemoryDatabase) -> None:
        self.database = database

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[MemoryInboxTurn]:
        # Optimistic: nothing is held while the handler works, so that a simulation can interleave;
        # whoever finds the row or the service's rows changed at the end has lost the race (rule 6).
        with self.database.lock:
            found = self.database.inbox.get(key)
            rows = self.database.rows
        turn = MemoryInboxTurn(found[0] if found else None, rows)
        yield turn
        turn.finish_work()
        with self.database.lock:
            if self.database.inbox.get(key) is not found or self.database.rows is not rows:
                raise LostRace(key)
            self.database.rows = turn.rows
            if turn.saved and turn.row is not None:
                self.database.inbox[key] = (turn.row, now)

    @contextmanager
    def turns(self, keys: Sequence[str], now: datetime) -> Iterator[MemoryInboxTurns]:
        with self.database.lock:
            found = {key: self.database.inbox.get(key) for key in keys}
            rows = self.database.rows
        turns = MemoryInboxTurns(
            {key: MemoryInboxTurn(there and there[0], rows) for key, there in found.items()}, rows
        )
        yield turns
        saved = turns.saved()
        with self.database.lock:
            if self.database.rows is not rows:
                raise LostRace("the service's rows")
            for key, there in found.items():
                if self.database.inbox.get(key) is not there:
                    raise LostRace(key)
            self.database.rows = turns.rows
            self.database.inbox.update({row.key: (row, now) for row in saved})

    def forget(self, before: datetime, limit: int = 1000) -> int:
        with self.database.lock:
            old = [key for key, (_, at) in self.database.inbox.items() if at < before][:limit]
            for key in old:
                del self.database.inbox[key]
            return len(old)

    def quarantine(self, message: Quarantined) -> None:
        with self.database.lock:
            self.database.set_aside(message)

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        self.database.replay(send, limit)

    def beat(self, beat: Beat) -> None:
        self.database.beats[beat.worker, beat.role] = beat
