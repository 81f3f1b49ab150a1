"""What the shell asks of a store. Each promise here is a test in ``tests/contract``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, runtime_checkable

from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.inbox import InboxRow
from sagas_framework.core.instance import Cause, OutcomeKind, SagaInstance, Status
from sagas_framework.core.why import QueueSeen

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


# ---- values ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """A recorded line as it is read back. `revision`: of the instance after it."""

    saga_id: str
    seq: int
    revision: int
    recorded: Recorded


@dataclass(frozen=True, slots=True)
class ActRow:
    """An operator's act on its way to the timekeeper, and what became of it."""

    id: int
    saga_id: str
    act: Act
    by: str
    reason: str
    created_at: datetime
    revision: int | None = None
    step: str | None = None
    reply: Mapping[str, Any] | None = None
    force: bool = False
    until: datetime | None = None
    handled_at: datetime | None = None
    refused: bool = False
    answer: str | None = None

    @property
    def became(self) -> str:
        """``stored`` until it is taken, then ``done`` or ``refused``."""
        if self.handled_at is None:
            return "stored"
        return "refused" if self.refused else "done"


class Became(StrEnum):
    """What became of a signal."""

    STORED = "stored"  # nobody has looked at it yet
    KEPT = "kept"  # its saga does not wait for it yet, or is not there yet
    TAKEN = "taken"
    TOO_LATE = "too_late"


AT_ONCE: Final = datetime(1970, 1, 1, tzinfo=UTC)
"""No moment of anybody's clock: whoever signals may be ahead of whoever looks."""


@dataclass(frozen=True, slots=True)
class SignalRow:
    """A signal on its way to a saga, and what became of it.

    Args:
        saga, key: for whom it is, whether or not it exists.
        said_id: the sender's; the same saga and key never have two of the same.
        by, reason: who sent it and why, for the history; either may be empty.
        look_at: when the timekeeper looks at it, `AT_ONCE` if nobody has yet; None if it is kept or was
            answered.
        answer: why it is too late, or what hinders it from being taken.
        trace: the context in which it was said, if that is traced.
    """

    id: int
    saga: str
    key: str
    said_id: str
    signal: str
    payload: Mapping[str, Any]
    said_at: datetime
    by: str = ""
    look_at: datetime | None = None
    became: Became = Became.STORED
    handled_at: datetime | None = None
    answer: str | None = None
    reason: str = ""
    trace: Mapping[str, str] | None = None

    @property
    def too_late(self) -> bool:
        """Whether nothing will ever take it."""
        return self.became is Became.TOO_LATE


@dataclass(frozen=True, slots=True)
class SignalAnswer:
    """What becomes of a signal that was looked at.

    Args:
        look_again: when to look at it once more, if it could not be decided.
    """

    id: int
    became: Became
    answer: str | None = None
    look_again: datetime | None = None


def answered(signal: SignalRow, answer: SignalAnswer, at: datetime) -> SignalRow:
    """The signal after it was looked at."""
    over = answer.became in (Became.TAKEN, Became.TOO_LATE)
    return replace(
        signal,
        became=answer.became,
        answer=answer.answer,
        look_at=answer.look_again,
        handled_at=at if over else None,
    )


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A message set aside for a person.

    Args:
        queue: that it was taken from.
        body: as it came; bytes that are not text are written as ``\\xNN``.
        path: where in the body the trouble is, as a JSON path (``$.items[0].quantity``).
        replay: who wants it sent again to its queue, and has not been served yet.
    """

    queue: str
    task: str
    headers: Mapping[str, Any]
    body: str
    reason: str
    at: datetime
    path: str = "$"
    saga_id: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    id: int = 0
    replay: str | None = None

    def storable(self) -> Quarantined:
        """The message without what a database refuses; one that cannot be set aside would come for ever.

        What is no JSON becomes text, what is no text in PostgreSQL is written as an escape, and what a
        column is too short for is cut off; the body is kept in full.
        """
        return replace(
            self,
            queue=_text(self.queue)[:255],
            task=_text(self.task)[:255],
            headers=_json(self.headers),
            properties=_json(self.properties),
            body=_text(self.body),
            reason=_text(self.reason),
            path=_text(self.path)[:255],
            saga_id=None if self.saga_id is None else _text(self.saga_id)[:64],
        )

    def not_sent(self, trouble: str) -> Quarantined:
        """The message after a replay that failed: it says why, and nobody asks for one any more.

        A note about an earlier replay gives way to this one.
        """
        reason = self.reason.partition(_NOT_SENT)[0]
        return replace(self, reason=f"{reason}{_NOT_SENT}{_text(trouble)})", replay=None)


_NOT_SENT: Final = " (not sent again: "

SendAgain = Callable[[Sequence[Quarantined]], Sequence[str | None]]
"""Sends messages to their queues again; for each, in order, why it was not sent, or None if it was."""


def is_storable(text: str) -> bool:
    """Whether every database can keep the text: no NUL, which PostgreSQL refuses, and no lone surrogate."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _text(value: object) -> str:
    """As text without NUL and lone surrogates, which PostgreSQL does not store."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def _json(value: Any) -> Any:
    match value:
        case Mapping():
            return {_text(name): _json(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_json(inner) for inner in value]
        case None | bool() | int():
            return value
        case float() if isfinite(value):
            return value
        case _:
            return _text(value)


@dataclass(frozen=True, slots=True)
class Beat:
    """The last turn of one loop of one worker process."""

    worker: str
    role: str
    started_at: datetime
    turned_at: datetime
    detail: str = ""


# ---- the orchestrator's store ---------------------------------------------------------------------


class StoreTransaction(Protocol):
    """One transaction. Leaving its block without an error commits; with one it rolls back."""

    def lock(self, saga_ids: Collection[str]) -> dict[str, SagaInstance]:
        """The instances with these ids, locked until the end, waiting for who has them now.

        Replies wait for the lock (rule 19). Unknown ids are left out. Always locks in the order of ids.
        """

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        """Instances of these sagas and versions that are due, earliest first; locked ones are skipped."""

    def write(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        """Replace these instances and append `(saga id, revision, line)` to their histories, set-wise."""

    def lock_open(self, saga: str, versions: Collection[int]) -> list[SagaInstance]:
        """Every instance of these versions that has not ended, locked, waiting for who has them now.

        In the order of ids, like `lock`.
        """

    def move(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        """`write`, for instances whose version and shape have changed as well."""

    def savepoint(self) -> AbstractContextManager[Session]:
        """A session for a local step. An error that leaves its block undoes what the step wrote, no more."""

    def sharing(self) -> AbstractContextManager[Session]:
        """The one session that local steps share; what they leave in it is written before the commit.

        Raises:
            Entangled: an error left the block, or the step did to the session what others would pay for,
                such as to commit. From `write`, `savepoint` and the end of the transaction, too: what was
                left in the session cannot be written. Nothing of the transaction is kept then; do it again
                with a `savepoint` for each step.
        """

    def load(self, wanted: Iterable[Wanted]) -> None:
        """Read rows that local steps will get from the session that they share, by class and primary key.

        Raises:
            Entangled: the database refuses.
        """

    def lock_acts(self, limit: int) -> list[ActRow]:
        """Operators' acts that nobody has handled, oldest first; locked ones are skipped."""

    def answer_act(self, act_id: int, answer: str, *, refused: bool, at: datetime) -> None:
        """Note what became of an act."""

    def new_signals(
        self, now: datetime, sagas: Collection[tuple[str, int]], limit: int
    ) -> list[tuple[int, str | None]]:
        """`(number, saga id)` of signals that are to be looked at, oldest first; not locked.

        The id is that of the instance that has its saga and key, None if there is none. Those of sagas and
        versions that are not among these are left out.
        """

    def open_signals(self, whose: Collection[tuple[str, str]]) -> list[SignalRow]:
        """The signals for these sagas and keys that were not answered, locked, in the order of storing."""

    def answer_signals(self, answers: Sequence[SignalAnswer], at: datetime) -> None:
        """Note what became of signals; one that was answered meanwhile stays as it is."""

    def quarantine(self, messages: Sequence[Quarantined]) -> None:
        """Set messages aside."""


class Ahead(NamedTuple):
    """What there is to do for a timekeeper.

    Args:
        due: when the next instance is due; None: none waits for a moment.
        acts: whether operators have asked for something.
        signals: whether there are signals to look at, now or later.
        replays: whether somebody wants messages sent again.
    """

    due: datetime | None
    acts: bool
    signals: bool
    replays: bool


class Store(Protocol):
    """Where an orchestrator keeps its sagas."""

    def transaction(self) -> AbstractContextManager[StoreTransaction]:
        """Begin a transaction.

        Raises:
            StoreUnavailable: (from here or any method inside) nothing was written; try again later.
        """

    def remembered(self, saga_id: str) -> SagaInstance | None:
        """An open instance as it was written last from here, if that is known; others may have written since.

        A guess to begin with, for `swap` alone.
        """

    def swap(
        self, before: SagaInstance, after: SagaInstance, history: Sequence[tuple[str, int, Recorded]]
    ) -> bool:
        """Write one instance and its history, in a transaction of its own, if it is still as remembered.

        Waits for who has it now, as `StoreTransaction.lock` does.

        Args:
            before: what `remembered` gave.

        Returns:
            Whether it was. If not, nothing is written: lock it, and see.

        Raises:
            StoreUnavailable: nothing was written; try again later.
        """

    def next_due(self, sagas: Collection[tuple[str, int]]) -> datetime | None:
        """A moment before which no instance of these sagas is due: look then. None if none waits for one."""

    def ahead(self, sagas: Collection[tuple[str, int]]) -> Ahead:
        """What there is to do, now and next, for whoever knows these sagas."""

    def quarantine(self, message: Quarantined) -> None:
        """Set a message aside."""

    def forget_signals(self, before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` signals stored before a moment; how many were.

        Not those that are kept for an instance which is there.
        """

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        """Send messages again that somebody wants sent again, oldest first, at most `limit`.

        A message leaves the quarantine after it was sent. One that was not stays, under its number and
        with the reason, until somebody asks anew. If `send` raises, or the process dies meanwhile, all
        stay asked for. So one may be sent twice, as it may by two workers at once; none is lost.
        """

    def beat(self, beat: Beat) -> None:
        """Note the turn of a loop."""

    def note_queues(self, seen: Sequence[QueueSeen]) -> None:
        """Note what the queues were found like; since when one is unattended is worked out here.

        A look that is older than the one noted changes nothing.
        """


class StoreUnavailable(Exception):
    """The database cannot be reached, is locked, full, or lost a race; a repetition may succeed."""


class Entangled(Exception):
    """Work that was not guarded cannot be taken back by itself, nor told from the others' that shares its
    session: nothing of them all may be kept. Leave the block and begin anew, guarded."""


# ---- reading --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filter:
    """Which instances to list; None means any.

    Args:
        older_than: created before; to the millisecond.
        waits_for: the task or the step that they wait for.
        cause: the kind of what they wait for.
        after: the `Page.next` of the page before.
        parked_first: those that need a person come before the others.
        limit: at least 1.

    Open ones alone come with the oldest first, all others with the newest.
    """

    saga: str | None = None
    status: Status | None = None
    outcome: OutcomeKind | None = None
    key: str | None = None
    older_than: datetime | None = None
    waits_for: str | None = None
    cause: Cause | None = None
    open_only: bool = False
    parked_first: bool = True
    after: str | None = None
    limit: int = 50


@dataclass(frozen=True, slots=True)
class Page:
    """Instances that fit a filter. `next`: where the following page begins; None if this is the last."""

    instances: Sequence[SagaInstance]
    next: str | None


@dataclass(frozen=True, slots=True)
class Stuck:
    """Instances that wait for the same thing.

    Args:
        what: see `Waiting.what`.
        since: when the first of them began to wait.
        example: id of one of them.
    """

    saga: str
    version: int
    cause: Cause
    what: str
    count: int
    since: datetime
    example: str


# ---- a participant's inbox ------------------------------------------------------------------------


class Busy(Exception):
    """The operation is being handled right now by somebody else."""


class LostRace(Exception):
    """Somebody else wrote the row since it was read; read it again and decide anew (rule 6)."""


Wanted = tuple[type, Any]
"""A mapped class, and the primary key of one of its rows."""


class InboxTurn(Protocol):
    """The row of one operation, held.

    Attributes:
        guarded: whether the handler's work can be taken back by itself; set before its session is asked
            for. True unless set. What is not guarded shares its session with others' that is not.
    """

    row: InboxRow | None
    guarded: bool

    def session(self) -> Session | None:
        """The handler's session: what it writes commits with the row, or is rolled back by `undo_work`.

        None for an inbox without a database.
        """

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        """Write out what the handler left in its session; an error of the database comes up here.

        Work that is not guarded may also be written later, with others', by `InboxTurns.finish_work` at
        the latest.

        Args:
            then: called once when it is written, while the session is open. What it raises comes up here,
                too, or in the other case as `Entangled`.

        Raises:
            Entangled: the work is not guarded, and cannot stay.
        """

    def undo_work(self) -> None:
        """Roll back what the handler wrote through the session; the row can still be saved.

        Raises:
            Entangled: the work is not guarded, and the handler asked for its session.
        """

    def save(self, row: InboxRow) -> None:
        """Write the row; it is there for others when the turn's block is left without an error."""


class Inbox(Protocol):
    """A participant's memory of what it has handled."""

    transactional: bool
    """Whether a handler's work and the row commit together. If not, every handler is `outside`."""

    def turn(self, key: str, now: datetime) -> AbstractContextManager[InboxTurn]:
        """Hold the operation's row.

        Raises:
            Busy: at once, if another has it (rule 7).
            LostRace: from the end of the block, if another wrote it meanwhile.
            StoreUnavailable: nothing was written.
        """

    def forget(self, before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` rows last changed before a moment; how many were (rule 10)."""

    def quarantine(self, message: Quarantined) -> None:
        """Set a message aside."""

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        """Send messages again that somebody wants sent again; see `Store.replay`."""

    def beat(self, beat: Beat) -> None:
        """Note the turn of a loop."""


class InboxTurns(Protocol):
    """The rows of several operations, held in one transaction."""

    def get(self, key: str) -> InboxTurn | None:
        """The operation's turn; None if another has it (rule 7).

        One turn after the other: before the next is asked for, the work of this one is finished or undone.
        What undoing takes back is the work of this turn alone.
        """

    def load(self, wanted: Iterable[Wanted]) -> None:
        """Read rows that handlers will get, by mapped class and primary key, for those not guarded.

        Raises:
            Entangled: the database refuses.
        """

    def finish_work(self) -> None:
        """Have all work written, and whoever waits for that called.

        Raises:
            Entangled: some that is not guarded cannot stay.
        """


@runtime_checkable
class BatchInbox(Inbox, Protocol):
    """An inbox that holds several rows at once. Its rows and the handlers' work commit together."""

    def turns(self, keys: Sequence[str], now: datetime) -> AbstractContextManager[InboxTurns]:
        """Hold the rows of these operations, those of them that nobody else has.

        Raises:
            LostRace: from the end of the block, if another wrote one of them meanwhile.
            StoreUnavailable: nothing was written.
        """
