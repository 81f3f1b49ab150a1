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
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar, assert_never
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
from sagas_framework.core.records import replace
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
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import is_unavailable
from sagas_framework.storage.ports import (
    BatchInbox,
    Busy,
    Inbox,
    InboxTurn,
    InboxTurns,
    LostRace,
    Quarantined,
    StoreUnavailable,
)
from sagas_framework.storage.sql_inbox import SqlInbox
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

CLOCK_SKEW: Final = timedelta(minutes=5)
"""By how much the clocks of two workers may differ; see `Policy.clock_skew`."""
DEFAULT_LEASE: Final = timedelta(minutes=15)


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


class CompensationType(Protocol[K_co, C_co]):
    """A compensation class, seen so that a type checker knows what it undoes."""

    def itself(self) -> type[K_co]: ...
    def undoes(self) -> type[C_co]: ...


@dataclass(frozen=True)
class Handling:
    """A task of this participant: what it takes and who handles it."""

    kind: Kind
    command: type[Command[Any]]
    outside: bool = False
    handler: Callable[[Any, Any], Any] | None = None


@dataclass(frozen=True)
class _Work:
    """A message that can be handled. `handling`: None for a task that is not here."""

    envelope: Envelope
    delivery: Delivery
    handling: Handling | None


class Participant:
    """A service's side of its commands.

    Args:
        database: address of the service's own database, in which the inbox is kept.
        inbox: another place for the inbox, in which case every handler is `outside`.
        migrations: folder of the service's own Alembic scripts (``versions/*.py`` in it).
        lease: how long the claim of an `outside` handler holds. Its process is killed earlier by the
            clock skew and half a minute: another worker, whose clock is ahead, may see the lease end.
        retention: how long inbox rows are kept; at least as long as the orchestrators believe (rule 10).

    Raises:
        ConfigurationError: neither a database nor an inbox, or both.
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
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if (database is None) == (inbox is None):
            raise ConfigurationError(
                f"The participant {service.name} needs a place for its inbox: database='postgresql://...', "
                "or inbox=RedisInbox(...), not both."
            )
        self.service = service
        self.database = None if database is None else Database(service.name, database, migrations)
        self._inbox = inbox
        self.lease = lease
        self.retention = retention
        self.clock = clock
        self._handlings: dict[str, Handling] = {}

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

    def forget_old(self) -> int:
        """Delete inbox rows past their retention, in small batches; how many there were."""
        before, total = self.clock() - self.retention, 0
        while gone := self.inbox.forget(before):
            total += gone
        return total

    # ---- declaring --------------------------------------------------------------------------------

    def handles(
        self, command: CommandType[C, R], *, outside: bool = False
    ) -> Callable[[Callable[[C, Context], R]], Callable[[C, Context], R]]:
        """Register the handler of a command.

        Args:
            outside: it touches something outside its transaction (a payment provider, a file): its
                claim is committed first, then it works, then the row is written. It must pass
                `Context.key` to the third party, and its undo must be a no-op for an unknown key.

        Raises:
            DefinitionError: another service's command, or one that has a handler.
        """
        contract = command.itself()

        def register(handler: Callable[[C, Context], R]) -> Callable[[C, Context], R]:
            self._register(contract.contract.task, contract, Handling(Kind.DO, contract, outside, handler))
            self._register(settle_task(contract), contract, Handling(Kind.SETTLE, contract, outside))
            return handler

        return register

    def undoes(
        self, compensation: CompensationType[K, C]
    ) -> Callable[[Callable[[K, Undo[C]], None]], Callable[[K, Undo[C]], None]]:
        """Register the handler that undoes a command. It runs once for each operation that happened.

        Raises:
            DefinitionError: another service's compensation, or one that has a handler.
        """
        contract: type[Compensation[Any]] = compensation.itself()

        def register(handler: Callable[[K, Undo[C]], None]) -> Callable[[K, Undo[C]], None]:
            handling = Handling(Kind.UNDO, contract.command, handler=handler)
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
        reach(Point.COMMAND_TAKEN)
        try:
            work = self._work(message)
        except UnreadableError as error:
            self.set_aside(message, error.reason, error.path)
            return None
        return self._alone(work)

    def receive_all(self, messages: Sequence[WireMessage]) -> list[WireMessage | None]:
        """Handle a batch in one transaction; for each message what `receive` would return.

        Two messages of one operation are handled in their order. A command that fails takes its own work
        back and leaves the others'. If the transaction as a whole cannot be committed, each is handled
        again by itself.

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
                replies[place] = None if stored is None else to_wire(reply(work.envelope, stored))
        for place, work in works.items():
            if place not in together:
                try:
                    replies[place] = self._alone(work)
                except Exception:  # not even as a failure: it comes again, and the others are answered
                    logger.exception("%s for saga %s", work.envelope.task, work.envelope.saga_id)
        for message, why in unfit:  # last: if this fails, all come again, and are answered from their rows
            self.set_aside(message, why.reason, why.path)
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
        return _Work(envelope, delivery, handling)

    def _alone(self, work: _Work) -> WireMessage | None:
        """Handle one by itself; its reply."""
        envelope = work.envelope
        try:
            stored = self._stored_reply(work)
        except (Unavailable, StoreUnavailable) as error:
            self._tell_unanswered(envelope, error)
            return None
        if stored is None:
            return None
        reach(Point.COMMAND_COMMITTED)
        return to_wire(reply(envelope, stored))

    @staticmethod
    def _tell_unanswered(envelope: Envelope, error: Exception) -> None:
        # No reply that is not in the row (rule 4): it comes again, and no attempt is used up.
        logger.warning("%s for saga %s is not answered now: %s", envelope.task, envelope.saga_id, error)

    @staticmethod
    def _tell_busy(envelope: Envelope) -> None:
        logger.info("%s for saga %s is being handled right now", envelope.task, envelope.saga_id)

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
        begun = False
        try:
            with inbox.turns(list(dict.fromkeys(work.delivery.key for work in works)), self.clock()) as turns:
                begun = True
                answers = [self._in_batch(turns, work) for work in works]
                turns.write()
                reach(Point.COMMANDS_HANDLED)
        except Exception as error:
            if not begun and isinstance(error, StoreUnavailable):
                raise
            # A lost race, a deadlock, a row that the database does not take: whose it was, only going
            # through them one by one can tell.
            logger.warning("a batch of %d commands is handled one by one: %r", len(works), error)
            return None
        reach(Point.COMMANDS_COMMITTED)
        return answers

    def _in_batch(self, turns: InboxTurns, work: _Work) -> Stored | None:
        turn = turns.get(work.delivery.key)
        if turn is None:
            self._tell_busy(work.envelope)
            return None
        verdict = judge(turn.row, work.delivery, now=self.clock(), outside=False)
        try:
            return self._carried_out(verdict, turn, work)
        except Unavailable as error:
            turn.undo_work()
            self._tell_unanswered(work.envelope, error)
            return None

    def _stored_reply(self, work: _Work) -> Stored | None:
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        outside = self._outside(handling)
        doomed: Exception | None = None
        while True:
            try:
                with self.inbox.turn(delivery.key, self.clock()) as turn:
                    verdict = judge(turn.row, delivery, now=self.clock(), outside=outside)
                    if not (isinstance(verdict, Execute) and handling is not None and outside):
                        stored = self._carried_out(verdict, turn, work, doomed)
                        if isinstance(verdict, Execute | UndoVerdict):
                            reach(Point.COMMAND_HANDLED)
                        return stored
                    first = turn.row is None
                    claim = self._claim(turn, envelope, delivery, handling)
                reach(Point.COMMAND_CLAIMED)
                return self._work_outside(envelope, delivery, handling, claim, first=first)
            except Busy:
                self._tell_busy(envelope)
                return None
            except LostRace:
                continue  # read again and decide anew (rule 6)
            except (Unavailable, StoreUnavailable):
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
    ) -> Stored | None:
        """Do within the turn what was judged; the reply, None for none.

        Args:
            doomed: why what the handler did could not be committed, when it was tried before.
        """
        envelope, delivery, handling = work.envelope, work.delivery, work.handling
        match verdict:
            case Execute():
                return self._execute(turn, envelope, delivery, handling, doomed)
            case UndoVerdict():
                return self._undo(turn, envelope, delivery, handling, verdict, doomed)
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

    def _execute(
        self,
        turn: InboxTurn,
        envelope: Envelope,
        delivery: Delivery,
        handling: Handling | None,
        doomed: Exception | None,
    ) -> Stored:
        if doomed is not None:
            state, stored = RowState.FAILED, Stored(Result.FAILED, error_payload(doomed))
        else:
            state, stored = self._handled(envelope, delivery, handling, turn.session, turn.finish_work)
        if stored.result is not Result.SUCCESS:
            turn.undo_work()
        turn.save(
            self._row(turn, envelope, delivery, handling, state=state, reply=stored, attempt=delivery.attempt)
        )
        return stored

    def _handled(
        self,
        envelope: Envelope,
        delivery: Delivery,
        handling: Handling | None,
        session: Callable[[], Session | None],
        finish: Callable[[], None],
    ) -> tuple[RowState, Stored]:
        """Run the handler; the row's next state and the reply.

        Raises:
            Unavailable, StoreUnavailable: nothing may be stored or answered (rule 4).
        """
        if handling is None:
            known = ", ".join(sorted(self._handlings))
            why = f"{self.service.name} has no task {envelope.task!r}; it has: {known}"
            return RowState.REFUSED, refusal("UnknownTask", why)
        try:
            command = handling.command.model_validate(envelope.payload or {})
        except ValidationError as error:
            return RowState.REFUSED, refusal("InvalidPayload", readable(error))
        assert handling.handler is not None
        try:
            answer = handling.handler(
                command, Context(delivery.key, envelope.saga_id, delivery.attempt, session)
            )
            payload = _payload(handling.command, answer)
            finish()
        except (Unavailable, StoreUnavailable, LostRace):
            raise
        except Failure as failure:
            if declared_failure(handling.command, failure.wire_name):
                said = {
                    "type": failure.wire_name,
                    "message": str(failure),
                    "module": type(failure).__module__,
                }
                return RowState.REFUSED, Stored(Result.REFUSED, said)
            logger.exception("%s is not in the failures of %s", failure.wire_name, handling.command.__name__)
            said = error_payload(failure)
            said["message"] += (
                f" [{failure.wire_name} is not declared in failures= of {handling.command.__name__}]"
            )
            return RowState.FAILED, Stored(Result.FAILED, said)
        except Exception as error:
            if is_unavailable(error):
                raise StoreUnavailable(str(error)) from error
            self._log_fault(envelope, delivery, error)
            return RowState.FAILED, Stored(Result.FAILED, error_payload(error))
        return RowState.DONE, Stored(Result.SUCCESS, payload)

    @staticmethod
    def _log_fault(envelope: Envelope, delivery: Delivery, error: Exception) -> None:
        """The traceback once; then a line for each attempt."""
        told = "%s for saga %s failed (attempt %d): %s: %s"
        details = (envelope.task, envelope.saga_id, delivery.attempt, type(error).__name__, error)
        logger.warning(told, *details, exc_info=error if delivery.attempt == 1 else None)

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

    def _work_outside(
        self, envelope: Envelope, delivery: Delivery, handling: Handling, claim: str, *, first: bool
    ) -> Stored | None:
        held = _Held(self.inbox, delivery.key, self.clock)
        try:
            state, stored = self._handled(envelope, delivery, handling, held.session, held.finish_work)
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
        envelope: Envelope,
        delivery: Delivery,
        handling: Handling | None,
        verdict: UndoVerdict,
        doomed: Exception | None,
    ) -> Stored:
        """Undo once: decided on the row's state, not on the compensation's id."""
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
            failed = self._undo_failure(turn, envelope, delivery, undo, undoing)
        if failed is None:
            turn.save(replace(turn.row, state=RowState.UNDONE, claim=None, lease_until=None))
            return verdict.answer
        turn.undo_work()
        if delivery.kind is Kind.UNDO:
            turn.save(replace(turn.row, undo_attempt=delivery.attempt, undo_reply=failed))
        elif failed.result is Result.FAILED:
            # A settling's failure has no place in the row, so it is no reply (rule 4): it comes again.
            raise Unavailable(f"what {handling.command.__name__} did could not be undone for its settling")
        return failed

    def _undo_failure(
        self,
        turn: InboxTurn,
        envelope: Envelope,
        delivery: Delivery,
        undo: type[Compensation[Any]],
        undoing: Handling,
    ) -> Stored | None:
        assert turn.row is not None
        assert undoing.handler is not None
        stored = (
            turn.row.reply.payload if turn.row.reply and turn.row.reply.result is Result.SUCCESS else None
        )
        wanted = undoing.command.reply_type()
        try:
            message = undo.model_validate(envelope.payload or {})
            was = (
                wanted.model_validate(stored)
                if stored is not None and issubclass(wanted, BaseModel)
                else None
            )
        except ValidationError as error:
            return refusal("InvalidPayload", readable(error))
        context: Undo[Any] = Undo(delivery.key, envelope.saga_id, delivery.attempt, turn.session, was)
        try:
            undoing.handler(message, context)
            turn.finish_work()
        except (Unavailable, StoreUnavailable, LostRace):
            raise
        except Failure as failure:
            said = {"type": failure.wire_name, "message": str(failure), "module": type(failure).__module__}
            return Stored(Result.REFUSED, said)
        except Exception as error:
            if is_unavailable(error):
                raise StoreUnavailable(str(error)) from error
            self._log_fault(envelope, delivery, error)
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

    def finish_work(self) -> None:
        if self._turn is not None:
            self._turn.finish_work()

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
