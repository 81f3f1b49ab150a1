"""Store and inbox with crash points: before the commit, after it, and a database that is away."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final, cast

from sqlalchemy.orm import Session

from sagas_framework.core.events import Recorded
from sagas_framework.core.inbox import InboxRow
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.why import QueueSeen
from sagas_framework.storage.memory import MemorySession
from sagas_framework.storage.ports import (
    ActRow,
    Ahead,
    BatchInbox,
    Beat,
    Busy,
    InboxTurn,
    InboxTurns,
    Quarantined,
    SendAgain,
    SignalAnswer,
    SignalRow,
    StoreTransaction,
    StoreUnavailable,
    Wanted,
)
from sagas_framework.testing.choices import duration
from sagas_framework.testing.databases import Backing, SqlRows, rows_of
from sagas_framework.testing.effects import Effects
from sagas_framework.testing.network import Names
from sagas_framework.testing.sessions import StandInSession
from sagas_framework.testing.world import Crashed, World

_DECIDING: Final = ("commits", "dies before", "dies after", "database away", "commit refused")
_COMMITTING: Final = (
    "commits",
    "dies before",
    "dies before, not redelivered",
    "dies after",
    "database away",
    "commit refused",
)
_STALLING: Final = ("at once", "stalls 3 s", "stalls 20 s", "stalls 90 s")
_RUNNING: Final = ("runs", "raises")


class CommitRefused(Exception):
    """What a database says at the commit that no repetition will mend, such as a deferred constraint."""


def _fail_as(fate: str) -> None:
    """A transaction that is rolled back where it should commit."""
    if fate == "database away":  # or full, or busy, or not able to serialize: all the same to the library
        raise StoreUnavailable("the simulated database is away")
    if fate == "commit refused":
        raise CommitRefused("the schedule says so")


class LocalStepRaised(Exception):
    """What a local step raises when the schedule says so."""


class SimulatedStore:
    """An orchestrator's store. `trigger` names what is being decided, `local` the local step that runs."""

    def __init__(self, backing: Backing, world: World, effects: Effects, names: Names) -> None:
        self._backing = backing
        self._inner = backing.store()
        self._world = world
        self._effects = effects
        self.names = names
        self.trigger = ""
        self.local: tuple[str, str, bool] | None = None
        self.stall = 0.0
        """Seconds for which the process stalls before its next transaction has its locks."""
        self.closed = False
        """Set when the process has died."""

    @contextmanager
    def transaction(self) -> Iterator[StoreTransaction]:
        self._wait()
        with self._inner.transaction() as inner:
            transaction = _SimulatedTransaction(self, inner)
            yield transaction
            fate = self._end() if transaction.wrote else _DECIDING[0]
        if transaction.wrote:
            self._committed(fate)

    def remembered(self, saga_id: str) -> SagaInstance | None:
        return self._inner.remembered(saga_id)

    def swap(
        self, before: SagaInstance, after: SagaInstance, history: Sequence[tuple[str, int, Recorded]]
    ) -> bool:
        self._wait()
        fate = self._end()
        if swapped := self._inner.swap(before, after, history):
            self._committed(fate)
        return swapped

    def _wait(self) -> None:
        """Stall, if that is chosen, before the locks are had."""
        if not self.stall:
            return
        seconds, self.stall = self.stall, 0.0
        self._world.say(f"{self.trigger}: the process stalls for {seconds:g} s before it has the lock")
        self._world.pass_time(seconds)
        if self.closed:
            raise Crashed("while it stalled")

    def _end(self) -> str:
        """What becomes of a transaction that is about to commit; it may fail right here."""
        fate = self._world.choices.at(f"deciding {self.trigger}", _DECIDING, weight=0.5)
        if fate != _DECIDING[0]:
            self._world.say(f"deciding {self.trigger}: {fate}")
        if fate == "dies before":
            raise Crashed(f"before the commit of {self.trigger}")
        _fail_as(fate)
        return fate

    def _committed(self, fate: str) -> None:
        self._backing.look()
        self._world.changed = True
        if fate == "dies after":
            raise Crashed(f"after the commit of {self.trigger}, before anything is published")

    def next_due(self, sagas: Collection[tuple[str, int]]) -> datetime | None:
        return self._inner.next_due(sagas)

    def ahead(self, sagas: Collection[tuple[str, int]]) -> Ahead:
        return self._inner.ahead(sagas)

    def quarantine(self, message: Quarantined) -> None:
        self._inner.quarantine(message)
        self._backing.look()

    def forget_signals(self, before: datetime, limit: int = 1000) -> int:
        return self._inner.forget_signals(before, limit)

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        self._inner.replay(send, limit)
        self._backing.look()

    def beat(self, beat: Beat) -> None:
        self._inner.beat(beat)

    def note_queues(self, seen: Sequence[QueueSeen]) -> None:
        """They are for people; nothing in a run reads them."""

    def stall_by_choice(self, point: str) -> None:
        """Perhaps stall between the look at the clock and the locks (rule 19)."""
        self.stall = duration(self._world.choices.at(point, _STALLING, weight=0.4))

    def local_ran(self, session: StandInSession) -> None:
        """A local step's hook has run: it may raise after all, otherwise its effect is counted."""
        if self.local is None:
            return
        key, name, undoing = self.local
        if self._world.choices.at(f"running {name}", _RUNNING, weight=0.5) != _RUNNING[0]:
            self._world.say(f"running {name}: raises")
            raise LocalStepRaised(name)
        self._world.say(f"{name} runs")
        if undoing:
            self._effects.undone(session.rows, key)
        else:
            self._effects.done(session.rows, key)


class _SimulatedTransaction:
    def __init__(self, store: SimulatedStore, inner: StoreTransaction) -> None:
        self._store = store
        self._inner = inner
        self.wrote = False

    def lock(self, saga_ids: Collection[str]) -> dict[str, SagaInstance]:
        return self._inner.lock(saga_ids)

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        return self._inner.lock_due(now, sagas, limit)

    def write(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        self.wrote = self.wrote or bool(instances) or bool(history)
        self._inner.write(instances, history)

    def lock_open(self, saga: str, versions: Collection[int]) -> list[SagaInstance]:
        return self._inner.lock_open(saga, versions)

    def move(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        self.wrote = self.wrote or bool(instances) or bool(history)
        self._inner.move(instances, history)

    @contextmanager
    def savepoint(self) -> Iterator[Session]:
        with self._inner.savepoint() as session, self._standing_in(session) as standing_in:
            yield standing_in

    @contextmanager
    def sharing(self) -> Iterator[Session]:
        with self._inner.sharing() as session, self._standing_in(session) as standing_in:
            yield standing_in

    def load(self, wanted: Iterable[Wanted]) -> None:
        self._inner.load(wanted)

    @contextmanager
    def _standing_in(self, session: Session) -> Iterator[Session]:
        rows = rows_of(session)
        standing_in = StandInSession(rows)
        yield cast(Session, standing_in)
        self._store.local_ran(standing_in)
        if isinstance(rows, SqlRows):
            rows.write()

    def lock_acts(self, limit: int) -> list[ActRow]:
        return self._inner.lock_acts(limit)

    def answer_act(self, act_id: int, answer: str, *, refused: bool, at: datetime) -> None:
        self.wrote = True
        self._inner.answer_act(act_id, answer, refused=refused, at=at)

    def new_signals(
        self, now: datetime, sagas: Collection[tuple[str, int]], limit: int
    ) -> list[tuple[int, str | None]]:
        return self._inner.new_signals(now, sagas, limit)

    def open_signals(self, whose: Collection[tuple[str, str]]) -> list[SignalRow]:
        return self._inner.open_signals(whose)

    def answer_signals(self, answers: Sequence[SignalAnswer], at: datetime) -> None:
        self.wrote = self.wrote or bool(answers)
        self._inner.answer_signals(answers, at)

    def quarantine(self, messages: Sequence[Quarantined]) -> None:
        self._inner.quarantine(messages)


class SimulatedInbox:
    """A participant's inbox. `trigger` names the message that is being handled."""

    transactional = True

    def __init__(self, backing: Backing, world: World, effects: Effects) -> None:
        self.keep_in(backing)
        self._world = world
        self._effects = effects
        self._held: set[str] = set()
        self.trigger = ""
        self.kept: dict[str, list[InboxRow | None]] = {}
        """Of each operation that is being handled, the rows that it has had meanwhile."""

    def keep_in(self, backing: Backing) -> None:
        """Have its rows there from now on."""
        self._backing = backing
        inner = backing.inbox()
        assert isinstance(inner, BatchInbox)
        self._inner: BatchInbox = inner

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[InboxTurn]:
        if not self._may_have(key):
            raise Busy(key)
        with self._committing([key]) as turns, self._inner.turn(key, now) as inner:
            turns[key] = _SimulatedTurn(inner)
            yield turns[key]
            self._end(turns)

    @contextmanager
    def turns(self, keys: Sequence[str], now: datetime) -> Iterator[InboxTurns]:
        ours = [key for key in keys if self._may_have(key)]
        with self._committing(ours) as turns, self._inner.turns(ours, now) as inner:
            yield _SimulatedTurns(inner, ours, turns)
            self._end(turns)

    def _may_have(self, key: str) -> bool:
        """Whether an operation that another has is begun all the same."""
        if key not in self._held:
            return True
        # PostgreSQL finds the key locked; elsewhere the two race, and one loses at its commit.
        name = self.trigger
        fate = self._world.choices.at(f"{name} finds its key busy", ("is dropped", "races"), weight=4)
        self._world.say(f"{name} finds its key busy and {fate}")
        return fate == "races"

    @contextmanager
    def _committing(self, keys: Sequence[str]) -> Iterator[dict[str, _SimulatedTurn]]:
        """Hold the keys around a transaction, and look at what it has committed."""
        name, turns = self.trigger, dict[str, _SimulatedTurn]()
        mine = [key for key in keys if key not in self._held]
        done_before = {key: self._effects.tally(key).done for key in keys}
        self._held.update(mine)
        self._fate = _COMMITTING[0]
        try:
            yield turns
        finally:
            self._held.difference_update(mine)
        fate = self._fate
        for key, turn in turns.items():
            self.kept.setdefault(key, []).extend([turn.found, *turn.saved])
        saved = [row for turn in turns.values() for row in turn.saved]
        if saved:
            self._backing.look()
            self._world.changed = True
        for row in saved:
            self._effects.committed(name, row, done_before[row.key])
            self._world.say(f"{name}: the inbox says {row.state.value}")
        if fate == "dies after":
            raise Crashed(f"after the commit of {name}, before the reply")

    def _end(self, turns: Mapping[str, _SimulatedTurn]) -> None:
        """The end of a transaction, before it commits."""
        name, fate = self.trigger, _COMMITTING[0]
        if any(turn.saved for turn in turns.values()):
            fate = self._world.choices.at(f"committing {name}", _COMMITTING)
        if fate != _COMMITTING[0]:
            self._world.say(f"committing {name}: {fate}")
        if fate.startswith("dies before"):
            raise Crashed(f"before the commit of {name}", redelivered=fate == "dies before")
        _fail_as(fate)
        self._fate = fate

    def forget(self, before: datetime, limit: int = 1000) -> int:
        gone = self._inner.forget(before, limit)
        if gone:
            self._backing.look()
        return gone

    def quarantine(self, message: Quarantined) -> None:
        self._inner.quarantine(message)
        self._backing.look()

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        self._inner.replay(send, limit)
        self._backing.look()

    def beat(self, beat: Beat) -> None:
        self._inner.beat(beat)


class _SimulatedTurn:
    def __init__(self, inner: InboxTurn) -> None:
        self._inner = inner
        self._rows: MemorySession | None = None
        self.found = inner.row
        self.saved: list[InboxRow] = []

    @property
    def row(self) -> InboxRow | None:
        return self._inner.row

    @row.setter
    def row(self, row: InboxRow | None) -> None:
        self._inner.row = row

    def session(self) -> Session | None:
        if self._rows is None:
            self._rows = rows_of(self._inner.session())
        return cast(Session, StandInSession(self._rows))

    @property
    def guarded(self) -> bool:
        return self._inner.guarded

    @guarded.setter
    def guarded(self, guarded: bool) -> None:
        self._inner.guarded = guarded

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        rows, self._rows = self._rows, None
        if isinstance(rows, SqlRows):
            rows.write()
        self._inner.finish_work(then)

    def undo_work(self) -> None:
        self._rows = None
        self._inner.undo_work()

    def save(self, row: InboxRow) -> None:
        self.saved.append(row)
        self._inner.save(row)


class _SimulatedTurns:
    def __init__(self, inner: InboxTurns, ours: Collection[str], turns: dict[str, _SimulatedTurn]) -> None:
        self._inner = inner
        self._ours = ours
        self._turns = turns

    def get(self, key: str) -> _SimulatedTurn | None:
        inner = self._inner.get(key) if key in self._ours else None
        return None if inner is None else self._turns.setdefault(key, _SimulatedTurn(inner))

    def load(self, wanted: Iterable[Wanted]) -> None:
        self._inner.load(wanted)

    def finish_work(self) -> None:
        self._inner.finish_work()
