"""The participant's shell: validation, inbox, transaction and reply around a handler.

A participant is a function; everything that makes it run once, or be undone once, is here::

    participant = Participant(restaurant_service, database="postgresql://...")

    @participant.handles(CreateTicket)
    def create_ticket(command: CreateTicket, context: Context) -> TicketCreated: ...

    @participant.undoes(RejectTicket)
    def reject_ticket(command: RejectTicket, undo: Undo[CreateTicket]) -> None: ...
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, assert_never, overload
from uuid import uuid4

from pydantic import BaseModel, ValidationError

from sagas_framework.clock import utc_now
from sagas_framework.core.decide import error_payload
from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import (
    Answer,
    Close,
    Delivery,
    Drop,
    Execute,
    InboxRow,
    RowState,
    Stored,
    Verdict,
    judge,
    refusal,
)
from sagas_framework.core.inbox import (
    Undo as UndoVerdict,
)
from sagas_framework.core.records import copied, replace
from sagas_framework.errors import ConfigurationError, DefinitionError, Failure, Unavailable
from sagas_framework.messages import (
    Command,
    Compensation,
    Reply,
    Service,
    declared_failure,
    readable,
    settle_task,
)
from sagas_framework.points import Point, reach
from sagas_framework.saga import CommandType
from sagas_framework.spans import Handled
from sagas_framework.storage.database import Database
from sagas_framework.storage.dropping import Gone, InboxArchive
from sagas_framework.storage.engine import is_unavailable
from sagas_framework.storage.ports import (
    BatchInbox,
    Busy,
    Entangled,
    Inbox,
    InboxTurn,
    InboxTurns,
    LostRace,
    Quarantined,
    StoreUnavailable,
    Wanted,
)
from sagas_framework.storage.sql_inbox import SqlInbox
from sagas_framework.telemetry import NOWHERE, Carrier, active, carried_by
from sagas_framework.transport.envelope import (
    ATTEMPT,
    HAND_OVER,
    KNOWN,
    NOT_AFTER,
    OPERATION_ID,
    Envelope,
    UnreadableError,
    WireMessage,
    from_wire,
    reply,
    to_wire,
)

if TYPE_CHECKING:
    from sqlalchemy import Engine
    from sqlalchemy.orm import Session

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=Command[Any])
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
R = TypeVar("R", bound=Reply | None)
K = TypeVar("K", bound=Compensation[Any])
K_co = TypeVar("K_co", bound=Compensation[Any], covariant=True)
R_co = TypeVar("R_co", bound=Reply | None, covariant=True)

CLOCK_SKEW: Final = timedelta(minutes=5)
"""By how much the clocks of two workers may differ; see `Policy.clock_skew`."""
DEFAULT_LEASE: Final = timedelta(minutes=15)
_FORGET: Final = 1000
"""Inbox rows that one transaction takes out."""
GUARDED_FOR: Final = timedelta(minutes=1)
"""For so long commands of a kind are guarded by savepoints, after one of them had work to take back."""


class Context:
    """What a handler may know beside its command.

    Attributes:
        key: the operation's id: one per step and saga, for every attempt. Give it to third parties
            as their idempotency key.
        attempt: 1 for the first.
    """

    def __init__(self, key: str, saga_id: str, attempt: int, session: Callable[[], Session | None]) -> None:
        self.key = key
        self.saga_id = saga_id
        self.attempt = attempt
        self._session = session

    @property
    def session(self) -> Session:
        """A session whose work commits together with the inbox row and the reply.

        Raises:
            ConfigurationError: the participant keeps its inbox in Redis and has no database.
        """
        session = self._session()
        if session is None:
            raise ConfigurationError("This participant's inbox is not in a database, so there is no session.")
        return session


class Undo(Context, Generic[C_co]):
    """What an undo handler may know. `attempt` is the try of the compensation."""

    def __init__(
        self, key: str, saga_id: str, attempt: int, session: Callable[[], Session | None], stored: Any
    ) -> None:
        super().__init__(key, saga_id, attempt, session)
        self._stored = stored

    @property
    def reply(self: Undo[Command[R]]) -> R | None:
        """What the command had answered, from this participant's own inbox.

        None when it never got so far: a handler that works outside its transaction is undone also
        then, and its undo must be a no-op for a key that the third party does not know.
        """
        stored: R | None = self._stored
        return stored


class Later(Protocol[R_co]):
    """What a handler may return in place of its reply: called once what it wrote is in the database.

    That is when ids are there which the database gives. In a batch it is written with the others' work::

        def create_ticket(command: CreateTicket, context: Context) -> Later[TicketCreated]:
            ticket = Ticket(...)
            context.session.add(ticket)
            return lambda: TicketCreated(ticket_id=ticket.id)
    """

    def __call__(self) -> R_co: ...


class CompensationType(Protocol[K_co, C_co]):
    """A compensation class, seen so that a type checker knows what it undoes."""

    def itself(self) -> type[K_co]: ...
    def undoes(self) -> type[C_co]: ...


class Registration(Protocol[C, R]):
    """Takes the handler of a command, and gives it back as it is."""

    @overload
    def __call__(self, handler: Callable[[C, Context], R]) -> Callable[[C, Context], R]: ...
    @overload
    def __call__(self, handler: Callable[[C, Context], Later[R]]) -> Callable[[C, Context], Later[R]]: ...


@dataclass(frozen=True)
class Handling:
    """A task of this participant: what it takes and who handles it.

    `loads`: the row that its handler will get by its primary key.
    """

    kind: Kind
    command: type[Command[Any]]
    outside: bool = False
    handler: Callable[[Any, Any], Any] | None = None
    loads: Callable[[Any], Wanted | None] | None = None


@dataclass
class _Work:
    """A message that can be handled.

    Attributes:
        handling: None for a task that is not here.
        message: the payload, if it has been validated since it began.
        touched: its handler asked for the session.
        told: lines for the log. They are written when it is certain that it is not handled again.
        carried: the context that it came with, if that is traced.
        answer: the context that its reply carries.
    """

    envelope: Envelope
    delivery: Delivery
    handling: Handling | None
    message: Any = None
    touched: bool = False
    told: list[Callable[[], None]] = field(default_factory=list)
    carried: Carrier = field(default_factory=lambda: NOWHERE)
    answer: Carrier = field(default_factory=lambda: NOWHERE)

    def begin(self) -> None:
        """It is handled, perhaps anew: with a message that no handler has changed."""
        self.message = None
        self.touched = False
        self.told.clear()

    def tell(self) -> None:
        """Write to the log."""
        for line in self.told:
            line()
        self.told.clear()

    def touching(self, session: Callable[[], Session | None]) -> Callable[[], Session | None]:
        """The same, but it is noted when the handler asks for it."""

        def noted() -> Session | None:
            self.touched = True
            return session()

        return noted


@dataclass
class _Owed:
    """The reply of a `Later`, which is there when what its handler wrote is."""

    stored: Stored | None = None
    save: Callable[[], None] = lambda: None


class _NotBegun(StoreUnavailable):
    """Nothing at all was done."""


class Participant:
    """A service's side of its commands.

    Args:
        database: address of the service's own database, in which the inbox is kept.
        inbox: another place for the inbox, in which case every handler is `outside`.
        migrations: folder of the service's own Alembic scripts (``versions/*.py`` in it).
        lease: how long the claim of an `outside` handler holds. Its process is killed earlier by the
            clock skew and half a minute: another worker, whose clock is ahead, may see the lease end.
        retention: how long inbox rows are kept; at least as long as the orchestrators believe (rule 10).
        archive: folder for rows whose retention is over; without it they just go.

    Raises:
        ConfigurationError: neither a database nor an inbox, or both; or an archive without a database.
    """

    def __init__(
        self,
        service: Service,
        *,
        database: str | None = None,
        inbox: Inbox | None = None,
        migrations: Path | None = None,
        lease: timedelta = DEFAULT_LEASE,
        retention: timedelta = timedelta(days=30),
        archive: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if (database is None) == (inbox is None):
            raise ConfigurationError(
                f"The participant {service.name} needs a place for its inbox: database='postgresql://...', "
                "or inbox=RedisInbox(...), not both."
            )
        if archive is not None and database is None:
            raise ConfigurationError(
                f"The participant {service.name} keeps its inbox elsewhere, where rows go by themselves: "
                "leave out archive=."
            )
        self.service = service
        self.database = None if database is None else Database(service.name, database, migrations)
        self._inbox = inbox
        self.lease = lease
        self.retention = retention
        self.archive = archive
        self._archive: InboxArchive | None = None
        self.clock = clock
        self._handlings: dict[str, Handling] = {}
        self._guarded_until: dict[str, datetime] = {}

    @property
    def inbox(self) -> Inbox:
        """Where the operations are remembered."""
        if self._inbox is None:
            assert self.database is not None
            self._inbox = SqlInbox(self.database.engine)
        return self._inbox

    @property
    def engine(self) -> Engine:
        """The engine of the service's database.

        Raises:
            ConfigurationError: it has none.
        """
        if self.database is None:
            raise ConfigurationError(f"The participant {self.service.name} has no database.")
        return self.database.engine

    def upgrade(self) -> list[str]:
        """Bring the service's database to this release's schema; the migrations that ran."""
        return [] if self.database is None else self.database.upgrade()

    def forget(self) -> Gone:
        """Take some inbox rows past their retention out of the database: into the archive, if there is one.

        Raises:
            OSError: the archive cannot be written; the rows stay.
            StoreUnavailable: the inbox is away.
        """
        now = self.clock()
        before = now - self.retention
        if self.archive is None:
            dropped = self.inbox.forget(before, _FORGET)
            return Gone(dropped=dropped, more=dropped == _FORGET)
        if self._archive is None:
            self._archive = InboxArchive(self.engine, self.service.name, self.archive)
        return self._archive.take(before, now, _FORGET)

    def close_archive(self) -> None:
        """Leave no segment of the archive open."""
        if self._archive is not None:
            self._archive.close()

    def forget_old(self) -> int:
        """Take out all inbox rows past their retention, in small batches; how many there were."""
        total = gone = self.forget()
        while gone.archived + gone.dropped:
            gone = self.forget()
            total += gone
        self.close_archive()
        return total.archived + total.dropped

    # ---- declaring --------------------------------------------------------------------------------

    def handles(
        self,
        command: CommandType[C, R],
        *,
        outside: bool = False,
        loads: Callable[[C], Wanted | None] | None = None,
    ) -> Registration[C, R]:
        """Register the handler of a command. It returns the reply, or a `Later`.

        Args:
            loads: says which row the handler will `get` from its session, as its class and primary key.
                In a batch the rows of all are then read at once. The handler does not notice.
            outside: it touches something outside its transaction (a payment provider, a file): its
                claim is committed first, then it works, then the row is written. It must pass
                `Context.key` to the third party, and its undo must be a no-op for an unknown key.

        Raises:
            DefinitionError: another service's command, or one that has a handler.
        """
        contract = command.itself()

        def register(handler: Callable[[C, Context], Any]) -> Callable[[C, Context], Any]:
            handling = Handling(Kind.DO, contract, outside, handler, loads)
            self._register(contract.contract.task, contract, handling)
            self._register(settle_task(contract), contract, Handling(Kind.SETTLE, contract, outside))
            return handler

        return register

    def undoes(
        self, compensation: CompensationType[K, C], *, loads: Callable[[K], Wanted | None] | None = None
    ) -> Callable[[Callable[[K, Undo[C]], None]], Callable[[K, Undo[C]], None]]:
        """Register the handler that undoes a command. It runs once for each operation that happened.

        Args:
            loads: see `handles`.

        Raises:
            DefinitionError: another service's compensation, or one that has a handler.
        """
        contract: type[Compensation[Any]] = compensation.itself()

        def register(handler: Callable[[K, Undo[C]], None]) -> Callable[[K, Undo[C]], None]:
            handling = Handling(Kind.UNDO, contract.command, handler=handler, loads=loads)
            self._register(contract.contract.task, contract, handling)
            return handler

        return register

    def _register(
        self, task: str, contract: type[Command[Any]] | type[Compensation[Any]], handling: Handling
    ) -> None:
        if contract.contract.service != self.service:
            raise DefinitionError(
                f"{contract.__name__} belongs to {contract.contract.service.name}, not to "
                f"{self.service.name}: handle it in that service."
            )
        if task in self._handlings:
            raise DefinitionError(f"{task} has a handler already; a task is handled by one function.")
        self._handlings[task] = handling

    @property
    def handlings(self) -> Mapping[str, Handling]:
        """What it takes, by task, in the order in which it was registered."""
        return MappingProxyType(self._handlings)

    @property
    def tasks(self) -> Iterable[str]:
        """Names of the tasks that it takes."""
        return self._handlings.keys()

    @property
    def outside_tasks(self) -> list[str]:
        """Names of the commands whose handlers touch something outside their transaction (rule 8)."""
        return [
            name
            for name, handling in self._handlings.items()
            if handling.kind is Kind.DO and self._outside(handling)
        ]

    def check(self) -> None:
        """See that every command can be undone here.

        Raises:
            DefinitionError: a command has a compensation that nobody handles.
        """
        for handling in list(self._handlings.values()):
            undo = handling.command.compensation
            if undo is not None and undo.contract.task not in self._handlings:
                raise DefinitionError(
                    f"{self.service.name} handles {handling.command.__name__} but not {undo.__name__}, which "
                    f"undoes it: write a function under @participant.undoes({undo.__name__})."
                )

    # ---- receiving --------------------------------------------------------------------------------

    def receive(self, message: WireMessage) -> WireMessage | None:
        """Handle one message; the reply to send, None if there is none (it will come again).

        What cannot be read goes to the quarantine.

        Raises:
            StoreUnavailable: not even that could be stored; do not acknowledge the message.
        """
        try:
            return self._receive(message)
        except _NotBegun:
            return None

    def _receive(self, message: WireMessage) -> WireMessage | None:
        reach(Point.COMMAND_TAKEN)
        try:
            work = self._work(message)
        except UnreadableError as error:
            self.set_aside(message, error.reason, error.path)
            return None
        return self._alone(work)

    def receive_all(self, messages: Sequence[WireMessage]) -> list[WireMessage | None]:
        """Handle a batch in one transaction; for each message what `receive` would return.

        Two messages of one operation are handled in their order. The handlers share a session. If one of
        them has something to take back, the batch is handled again with a savepoint for each, so that a
        command that fails leaves the others' work alone. If the transaction as a whole cannot be
        committed, each is handled again by itself.

        Raises:
            StoreUnavailable: nothing was handled, or something could not be set aside; acknowledge none.
        """
        reach(Point.COMMANDS_TAKEN)
        replies: list[WireMessage | None] = [None] * len(messages)
        works: dict[int, _Work] = {}
        unfit: list[tuple[WireMessage, UnreadableError]] = []
        for place, message in enumerate(messages):
            try:
                works[place] = self._work(message)
            except UnreadableError as error:
                unfit.append((message, error))
        together = {place: work for place, work in works.items() if not self._outside(work.handling)}
        answers = self._together(list(together.values())) if together else None
        if answers is None:
            together = {}
        else:
            for (place, work), stored in zip(together.items(), answers, strict=True):
                replies[place] = (
                    None if stored is None else to_wire(reply(work.envelope, stored, work.answer))
                )
        for place, work in works.items():
            if place not in together:
                try:
                    replies[place] = self._alone(work)
                except _NotBegun:
                    pass
                except Exception:  # not even as a failure: it comes again, and the others are answered
                    logger.exception("%s for saga %s", work.envelope.task, work.envelope.saga_id)
        for message, why in unfit:  # last: if this fails, all come again, and are answered from their rows
            self.set_aside(message, why.reason, why.path)
        return replies

    def receive_each(self, messages: Sequence[WireMessage]) -> list[WireMessage | None]:
        """Handle messages one by one, each in a transaction of its own; for each what `receive` returns.

        Raises:
            StoreUnavailable: the database is away, or something could not be set aside; acknowledge none.
                Those that were handled are answered from their rows when they come again.
        """
        replies: list[WireMessage | None] = []
        for message in messages:
            try:
                replies.append(self._receive(message))
            except (_NotBegun, StoreUnavailable):
                raise
            except Exception:  # not even as a failure: it comes again, and the others are answered
                logger.exception("a message on %s", message.queue)
                replies.append(None)
        return replies

    @property
    def batches(self) -> bool:
        """Whether its commands can be handled in batches: all inside the transactions of a database."""
        return isinstance(self.inbox, BatchInbox) and not self.outside_tasks

    def _work(self, message: WireMessage) -> _Work:
        """What is to be done.

        Raises:
            UnreadableError: it is not to be handled, but to be set aside.
        """
        envelope = from_wire(message)
        deadline = self._deadline(envelope)
        if deadline is not None and self.clock() > deadline:
            raise UnreadableError(f"expired: it was to be delivered until {deadline.isoformat()}")
        if envelope.reply_to is None:
            raise UnreadableError("it names no reply_to, so nobody would learn of what it did")
        handling = self._handlings.get(envelope.task)
        if handling is None and KNOWN in envelope.headers:
            # It undoes or settles something, so only its handler may say how that stands. It is sent
            # again until a worker that has the task comes.
            raise UnreadableError(f"no task {envelope.task!r} here to undo or settle with")
        delivery = Delivery(
            kind=handling.kind if handling else Kind.DO,
            key=envelope.headers.get(OPERATION_ID) or envelope.message_id,
            attempt=envelope.headers.get(ATTEMPT, 1),
            known=envelope.headers.get(KNOWN) == "succeeded",
            hand_over=bool(envelope.headers.get(HAND_OVER)),
        )
        carried = NOWHERE if active() is None else carried_by(message.headers)
        return _Work(envelope, delivery, handling, carried=carried)

    def _alone(self, work: _Work) -> WireMessage | None:
        """Handle one by itself; its reply.

        Raises:
            _NotBegun: the database is away.
        """
        envelope = work.envelope
        work.begin()
        try:
            stored = self._stored_reply(work)
        except (Unavailable, StoreUnavailable) as error:
            self._tell_unanswered(work, error)
            if isinstance(error, _NotBegun):
                raise
            return None
        finally:
            work.tell()
        if stored is None:
            return None
        reach(Point.COMMAND_COMMITTED)
        return to_wire(reply(envelope, stored, work.answer))

    @staticmethod
    def _tell_unanswered(work: _Work, error: Exception) -> None:
        # No reply that is not in the row (rule 4): it comes again, and no attempt is used up.
        told = (work.envelope.task, work.envelope.saga_id, error)
        work.told.append(lambda: logger.warning("%s for saga %s is not answered now: %s", *told))

    @staticmethod
    def _tell_busy(work: _Work) -> None:
        told = (work.envelope.task, work.envelope.saga_id)
        work.told.append(lambda: logger.info("%s for saga %s is being handled right now", *told))

    def set_aside(self, message: WireMessage, reason: str, path: str = "$") -> None:
        """Quarantine a message.

        Raises:
            StoreUnavailable: it was not stored; do not acknowledge it.
        """
        logger.error("a message on %s was set aside: %s", message.queue, reason)
        self.inbox.quarantine(quarantined(message, reason, path, self.clock()))

    @staticmethod
    def _deadline(envelope: Envelope) -> datetime | None:
        value = envelope.headers.get(NOT_AFTER)
        if value is None:
            return None
        try:
            deadline = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            deadline = None
        if deadline is None or deadline.tzinfo is None:
            raise UnreadableError(f"the header {NOT_AFTER} is {value!r}, not a time with a zone in ISO 8601")
        return deadline

    def _together(self, works: Sequence[_Work]) -> list[Stored | None] | None:
        """Handle all in one transaction; the replies to store, None if it could not be committed.

        Raises:
            StoreUnavailable: it could not even be begun.
        """
        inbox = self.inbox
        assert isinstance(inbox, BatchInbox)
        keys = list(dict.fromkeys(work.delivery.key for work in works))
        begun = guarded = False
        while True:
            for work in works:
                work.begin()
            try:
                with inbox.turns(keys, self.clock()) as turns:
                    begun = True
                    answers = self._in_turns(turns, works, guarded=guarded)
                    reach(Point.COMMANDS_HANDLED)
            except Exception as error:
                if not begun and isinstance(error, StoreUnavailable):
                    raise
                if isinstance(error, Entangled) and not guarded:
                    logger.debug("a batch of %d commands is handled with savepoints: %s", len(works), error)
                    guarded, begun = True, False
                    continue
                # A lost race, a deadlock, a row that the database does not take: whose it was, only going
                # through them one by one can tell.
                logger.warning("a batch of %d commands is handled one by one: %r", len(works), error)
                return None
            break
        reach(Point.COMMANDS_COMMITTED)
        for work in works:
            work.tell()
        return answers

    def _in_turns(self, turns: InboxTurns, works: Sequence[_Work], *, guarded: bool) -> list[Stored | None]:
        """Handle one after the other.

        Raises:
            Entangled: somebody's work must be taken back, and is not guarded.
        """
        guards = [guarded or self._is_guarded(work) for work in works]
        self._load(turns, [work for work, its in zip(works, guards, strict=True) if not its])
        answers: list[Stored | None] = []
        owing: dict[str, tuple[int, _Owed]] = {}

        def settle() -> None:
            turns.finish_work()
            for place, owed in owing.values():
                owed.save()
                answers[place] = owed.stored
            owing.clear()

        for work, its in zip(works, guards, strict=True):
            if work.delivery.key in owing:
                settle()  # the next of the same operation is judged on its row
            answer = self._in_batch(turns, work, guarded=its)
            if isinstance(answer, _Owed):
                owing[work.delivery.key] = len(answers), answer
                answer = None
            answers.append(answer)
        settle()
        return answers

    def _in_batch(self, turns: InboxTurns, work: _Work, *, guarded: bool) -> Stored | _Owed | None:
        turn = turns.get(work.delivery.key)
        if turn is None:
            self._tell_busy(work)
            return None
        turn.guarded = guarded
        verdict = judge(turn.row, work.delivery, now=self.clock(), outside=False)
        try:
            return self._carried_out(verdict, turn, work)
        except Unavailable as error:
            self._take_back(turn, work)
            self._tell_unanswered(work, error)
            return None
        except Entangled:
            self._guard(work)
            raise

    def _load(self, turns: InboxTurns, works: Iterable[_Work]) -> None:
        """Read the rows that the handlers will get."""
        of_kind: dict[Handling, tuple[_Work, list[Wanted]]] = {}
        for work in works:
            handling = work.handling
            if handling is None or handling.loads is None:
                continue
            turn = turns.get(work.delivery.key)
            undoing = handling.kind is Kind.UNDO
            if turn is None or (turn.row is None) is undoing:
                continue
            try:
                wanted = handling.loads(self._message(work, handling))
            except Exception:  # the handler will find out, and it is the one to be asked
                continue
            if wanted is not None:
                of_kind.setdefault(handling, (work, []))[1].append(wanted)
        for work, listed in of_kind.values():
            try:
                turns.load(listed)
            except Entangled:
                self._guard(work)
                raise

    # ---- guarding: a savepoint for those who may need it -------------------------------------------

    def _is_guarded(self, work: _Work) -> bool:
        until = self._guarded_until.get(work.envelope.task)
        return until is not None and self.clock() < until

    def _guard(self, work: _Work) -> None:
        """Commands of this kind have work to take back: guard them for a while."""
        self._guarded_until[work.envelope.task] = self.clock() + GUARDED_FOR

    def _take_back(self, turn: InboxTurn, work: _Work) -> None:
        if work.touched:
            self._guard(work)
        turn.undo_work()

    def _stored_reply(self, work: _Work) -> Stored | None:
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        outside = self._outside(handling)
        doomed: Exception | None = None
        guarded = self._is_guarded(work)
        while True:
            begun = False
            try:
                with self.inbox.turn(delivery.key, self.clock()) as turn:
                    begun, turn.guarded = True, guarded or outside
                    verdict = judge(turn.row, delivery, now=self.clock(), outside=outside)
                    if not (isinstance(verdict, Execute) and handling is not None and outside):
                        answer = self._carried_out(verdict, turn, work, doomed)
                        assert not isinstance(answer, _Owed)  # nobody else's work is waited for
                        if isinstance(verdict, Execute | UndoVerdict):
                            reach(Point.COMMAND_HANDLED)
                        return answer
                    first = turn.row is None
                    claim = self._claim(turn, envelope, delivery, handling)
                reach(Point.COMMAND_CLAIMED)
                with _traced(work, "execute") as handled:
                    stored = self._work_outside(work, handling, claim, first=first)
                    if handled is not None:
                        handled.said(stored)
                return stored
            except Busy:
                self._tell_busy(work)
                return None
            except LostRace:
                work.begin()
                continue  # read again and decide anew (rule 6)
            except Entangled:
                self._guard(work)
                work.begin()
                guarded = True
            except StoreUnavailable as error:
                if begun:
                    raise
                raise _NotBegun(str(error)) from error
            except Unavailable:
                raise
            except Exception as error:
                # What the handler left cannot be committed (a deferred constraint, a reply that the
                # database does not take): that is its fault, found out late, and is kept as one.
                if doomed is not None:
                    raise
                logger.warning(
                    "%s for saga %s cannot be committed", envelope.task, envelope.saga_id, exc_info=True
                )
                doomed = error

    def _carried_out(
        self, verdict: Verdict, turn: InboxTurn, work: _Work, doomed: Exception | None = None
    ) -> Stored | _Owed | None:
        """Do within the turn what was judged; the reply, None for none.

        Args:
            doomed: why what the handler did could not be committed, when it was tried before.
        """
        with _traced(work, type(verdict).__name__.lower()) as handled:
            answer = self._do(verdict, turn, work, doomed)
            if handled is not None:
                handled.said(answer)
            return answer

    def _do(
        self, verdict: Verdict, turn: InboxTurn, work: _Work, doomed: Exception | None
    ) -> Stored | _Owed | None:
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        match verdict:
            case Execute():
                return self._execute(turn, work, doomed)
            case UndoVerdict():
                return self._undo(turn, work, verdict, doomed)
            case Answer():
                return verdict.reply
            case Close():
                turn.save(self._row(turn, envelope, delivery, handling, state=verdict.state))
                return verdict.answer
            case Drop():
                return None
            case _:
                assert_never(verdict)

    def _outside(self, handling: Handling | None) -> bool:
        if handling is None:
            return False
        doing = self._handlings.get(handling.command.contract.task)
        return not self.inbox.transactional or (doing is not None and doing.outside)

    @staticmethod
    def _row(
        turn: InboxTurn, envelope: Envelope, delivery: Delivery, handling: Handling | None, **changes: Any
    ) -> InboxRow:
        """The operation's row, changed. A new one bears the command's task, whatever message came first."""
        task = handling.command.contract.task if handling else envelope.task
        row = turn.row or InboxRow(delivery.key, envelope.saga_id, task, RowState.DONE, delivery.attempt)
        return replace(row, **changes)

    # ---- a handler inside its transaction -----------------------------------------------------------

    def _execute(self, turn: InboxTurn, work: _Work, doomed: Exception | None) -> Stored | _Owed:
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        stored: Stored | _Owed
        if doomed is not None:
            state, stored = RowState.FAILED, Stored(Result.FAILED, error_payload(doomed))
        else:
            state, stored = self._handled(work, turn.session, turn.finish_work)

        def save(reply: Stored | None) -> None:
            turn.save(
                self._row(
                    turn, envelope, delivery, handling, state=state, reply=reply, attempt=delivery.attempt
                )
            )

        if isinstance(stored, _Owed):
            owed = stored
            owed.save = lambda: save(owed.stored)
            return owed
        if stored.result is not Result.SUCCESS:
            self._take_back(turn, work)
        save(stored)
        return stored

    def _handled(
        self,
        work: _Work,
        session: Callable[[], Session | None],
        finish: Callable[[Callable[[], None] | None], None],
    ) -> tuple[RowState, Stored | _Owed]:
        """Run the handler; the row's next state and the reply.

        Raises:
            Unavailable, StoreUnavailable: nothing may be stored or answered (rule 4).
        """
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        if handling is None:
            known = ", ".join(sorted(self._handlings))
            why = f"{self.service.name} has no task {envelope.task!r}; it has: {known}"
            return RowState.REFUSED, refusal("UnknownTask", why)
        try:
            command = self._message(work, handling)
        except ValidationError as error:
            return RowState.REFUSED, refusal("InvalidPayload", readable(error))
        assert handling.handler is not None
        owed = _Owed()
        context = Context(delivery.key, envelope.saga_id, delivery.attempt, work.touching(session))

        def keep(answer: Any) -> None:
            owed.stored = Stored(Result.SUCCESS, _payload(wanted, answer))

        wanted = handling.command
        try:
            answer = handling.handler(command, context)
            if callable(answer):
                finish(lambda: keep(answer()))
            else:
                keep(answer)
                finish(None)
        except (Unavailable, StoreUnavailable, LostRace, Entangled):
            raise
        except Failure as failure:
            if declared_failure(handling.command, failure.wire_name):
                said = {
                    "type": failure.wire_name,
                    "message": str(failure),
                    "module": type(failure).__module__,
                }
                return RowState.REFUSED, Stored(Result.REFUSED, said)
            name, trouble = failure.wire_name, failure
            undeclared = "%s is not in the failures of %s"
            work.told.append(lambda: logger.error(undeclared, name, wanted.__name__, exc_info=trouble))
            said = error_payload(failure)
            said["message"] += (
                f" [{failure.wire_name} is not declared in failures= of {handling.command.__name__}]"
            )
            return RowState.FAILED, Stored(Result.FAILED, said)
        except Exception as error:
            if is_unavailable(error):
                raise StoreUnavailable(str(error)) from error
            self._tell_fault(work, error)
            return RowState.FAILED, Stored(Result.FAILED, error_payload(error))
        return RowState.DONE, owed.stored or owed

    @staticmethod
    def _message(work: _Work, handling: Handling) -> Any:
        """The payload as the handler's message, validated once; it shares nothing with the payload.

        Raises:
            ValidationError: it is none.
        """
        if work.message is None:
            wanted: Any = handling.command
            if handling.kind is Kind.UNDO:
                wanted = handling.command.compensation
            work.message = wanted.model_validate(copied(work.envelope.payload or {}))
        return work.message

    @staticmethod
    def _tell_fault(work: _Work, error: Exception) -> None:
        """The traceback once; then a line for each attempt."""
        envelope, attempt = work.envelope, work.delivery.attempt
        told = "%s for saga %s failed (attempt %d): %s: %s"
        details = (envelope.task, envelope.saga_id, attempt, type(error).__name__, error)
        trace = error if attempt == 1 else None
        work.told.append(lambda: logger.warning(told, *details, exc_info=trace))

    # ---- a handler that works outside ---------------------------------------------------------------

    def _claim(self, turn: InboxTurn, envelope: Envelope, delivery: Delivery, handling: Handling) -> str:
        """Say in the row that somebody works, before he does (rule 8)."""
        claim = str(uuid4())
        lease_until = self.clock() + self.lease
        turn.save(
            self._row(
                turn,
                envelope,
                delivery,
                handling,
                state=RowState.CLAIMED,
                claim=claim,
                lease_until=lease_until,
                attempt=delivery.attempt,
            )
        )
        return claim

    def _work_outside(self, work: _Work, handling: Handling, claim: str, *, first: bool) -> Stored | None:
        envelope, delivery = work.envelope, work.delivery
        held = _Held(self.inbox, delivery.key, self.clock)
        try:
            state, stored = self._handled(work, held.session, held.finish_work)
            assert not isinstance(stored, _Owed)
            reach(Point.COMMAND_HANDLED)
        except (Unavailable, StoreUnavailable):
            held.abandon()
            self._release(delivery, claim)
            raise
        except BaseException:
            held.abandon()
            raise
        if stored.result is Result.REFUSED and not first:
            # "Nothing happened" is more than it can know: an earlier attempt died or failed, and may
            # have worked. As a fault it is compensated, as a refusal it would not be.
            state, stored = RowState.FAILED, replace(stored, result=Result.FAILED)
        while True:
            try:
                with held as turn:
                    if turn.row is None or turn.row.claim != claim:
                        held.undo_work()
                        logger.error("the lease on %s ended before its handler did", delivery.key)
                        return None
                    if stored.result is not Result.SUCCESS:
                        held.undo_work()
                    turn.save(replace(turn.row, state=state, reply=stored, claim=None, lease_until=None))
                return stored
            except (Busy, LostRace):
                if held.used:  # what it wrote is rolled back with the race; the message comes again
                    self._release(delivery, claim)
                    raise StoreUnavailable(f"{delivery.key} was busy when its handler had ended") from None
                continue
            except StoreUnavailable:
                # Nobody works any more: the next delivery need not wait for the lease.
                self._release(delivery, claim)
                raise
            except Exception as error:
                if stored.result is not Result.SUCCESS:
                    raise
                logger.warning("%s cannot be committed", envelope.task, exc_info=True)
                state, stored = RowState.FAILED, Stored(Result.FAILED, error_payload(error))

    def _release(self, delivery: Delivery, claim: str) -> None:
        """Give the claim back at once, so that the next delivery need not wait for the lease."""
        try:
            with self.inbox.turn(delivery.key, self.clock()) as turn:
                if turn.row is not None and turn.row.claim == claim:
                    turn.save(replace(turn.row, lease_until=self.clock()))
        except (Busy, LostRace, StoreUnavailable):
            logger.warning("the claim on %s stays until its lease ends", delivery.key)

    # ---- undoing ------------------------------------------------------------------------------------

    def _undo(
        self,
        turn: InboxTurn,
        work: _Work,
        verdict: UndoVerdict,
        doomed: Exception | None,
    ) -> Stored:
        """Undo once: decided on the row's state, not on the compensation's id."""
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        assert handling is not None
        assert turn.row is not None
        undo = handling.command.compensation
        undoing = None if undo is None else self._handlings.get(undo.contract.task)
        settled_blind = delivery.kind is Kind.SETTLE and envelope.payload is None  # nothing says how to undo
        if undo is None or undoing is None or undoing.handler is None or settled_blind:
            return Stored(
                Result.FAILED,
                {
                    "type": "OutcomeUnknown",
                    "message": "its handler died or failed while it worked outside, and this saga does not "
                    f"undo {handling.command.__name__}: ask the third party about the key {delivery.key}",
                    "module": "sagas_framework",
                },
            )
        if doomed is not None:
            failed: Stored | None = Stored(Result.FAILED, error_payload(doomed))
        else:
            failed = self._undo_failure(turn, work, undo, undoing)
        if failed is None:
            turn.save(replace(turn.row, state=RowState.UNDONE, claim=None, lease_until=None))
            return verdict.answer
        self._take_back(turn, work)
        if delivery.kind is Kind.UNDO:
            turn.save(replace(turn.row, undo_attempt=delivery.attempt, undo_reply=failed))
        elif failed.result is Result.FAILED:
            # A settling's failure has no place in the row, so it is no reply (rule 4): it comes again.
            raise Unavailable(f"what {handling.command.__name__} did could not be undone for its settling")
        return failed

    def _undo_failure(
        self,
        turn: InboxTurn,
        work: _Work,
        undo: type[Compensation[Any]],
        undoing: Handling,
    ) -> Stored | None:
        envelope, delivery = work.envelope, work.delivery
        assert turn.row is not None
        assert undoing.handler is not None
        stored = (
            turn.row.reply.payload if turn.row.reply and turn.row.reply.result is Result.SUCCESS else None
        )
        wanted = undoing.command.reply_type()
        try:
            message = undo.model_validate(copied(envelope.payload or {}))
            was = (
                wanted.model_validate(copied(stored))
                if stored is not None and issubclass(wanted, BaseModel)
                else None
            )
        except ValidationError as error:
            return refusal("InvalidPayload", readable(error))
        session = work.touching(turn.session)
        context: Undo[Any] = Undo(delivery.key, envelope.saga_id, delivery.attempt, session, was)
        try:
            undoing.handler(message, context)
            turn.finish_work()
        except (Unavailable, StoreUnavailable, LostRace, Entangled):
            raise
        except Failure as failure:
            said = {"type": failure.wire_name, "message": str(failure), "module": type(failure).__module__}
            return Stored(Result.REFUSED, said)
        except Exception as error:
            if is_unavailable(error):
                raise StoreUnavailable(str(error)) from error
            self._tell_fault(work, error)
            return Stored(Result.FAILED, error_payload(error))
        return None


class _Held:
    """The inbox turn in which an outside handler ends: begun when it first asks for a session.

    So a handler that only calls a third party holds no transaction meanwhile.
    """

    def __init__(self, inbox: Inbox, key: str, clock: Callable[[], datetime]) -> None:
        self._inbox = inbox
        self._key = key
        self._clock = clock
        self._block: AbstractContextManager[InboxTurn] | None = None
        self._turn: InboxTurn | None = None
        self.used = False

    def session(self) -> Session | None:
        self.used = True
        return self._begun().session()

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        if self._turn is not None:
            self._turn.finish_work(then)
        elif then is not None:
            then()

    def undo_work(self) -> None:
        self._begun().undo_work()

    def abandon(self) -> None:
        """Roll the turn back, if it was begun."""
        if self._block is not None:
            block, self._block, self._turn = self._block, None, None
            error = StoreUnavailable("abandoned")
            try:
                block.__exit__(type(error), error, None)
            except StoreUnavailable:
                pass

    def _begun(self) -> InboxTurn:
        if self._turn is None:
            self._block = self._inbox.turn(self._key, self._clock())
            self._turn = self._block.__enter__()
        return self._turn

    def __enter__(self) -> InboxTurn:
        return self._begun()

    def __exit__(self, *raised: Any) -> bool | None:
        assert self._block is not None
        block, self._block, self._turn = self._block, None, None
        return block.__exit__(*raised)


_UNTRACED: Final = nullcontext(None)


def _traced(work: _Work, how: str) -> AbstractContextManager[Handled | None]:
    """Around what is done about a message, if that is traced."""
    telemetry = active()
    if telemetry is None:
        return _UNTRACED
    envelope = work.envelope
    ids = (envelope.saga_id, envelope.task, envelope.queue, envelope.message_id)
    handled = Handled(telemetry, work.carried, *ids, how)
    work.answer = handled.answer
    return handled


def quarantined(message: WireMessage, reason: str, path: str, at: datetime) -> Quarantined:
    """A message as it is set aside."""
    saga_id = None
    try:
        saga_id = from_wire(message).saga_id
    except UnreadableError:
        pass
    return Quarantined(
        queue=message.queue,
        task=str(message.headers.get("task", "")),
        headers=message.headers,
        properties=message.properties,
        body=message.body.decode("utf-8", "backslashreplace"),
        reason=reason,
        path=path,
        at=at,
        saga_id=saga_id,
    )


def _payload(command: type[Command[Any]], answer: Any) -> dict[str, Any] | None:
    wanted = command.reply_type()
    if not isinstance(answer, wanted):
        raise TypeError(f"the handler of {command.__name__} returned {answer!r}, not {wanted.__name__}")
    return answer.to_json() if isinstance(answer, Reply) else None
