"""A saga's story as a test: what it sends, what is answered, how it ends. Driven by the core alone.

(
    scenario(CreateOrderSaga, an_order)
    .expects(CreateTicket, order_id=1).replies(ticket_id=7)
    .expects(AuthorizeCard).refuses("insufficient funds")
    .expects(RejectTicket, ticket_id=7).replies()
    .runs("reject_order", undo=True)
    .ends(Status.COMPENSATED)
)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, Generic, NoReturn, TypeVar, cast, overload

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework.core.decide import DEFAULT_POLICY, decide, error_payload
from sagas_framework.core.events import (
    Act,
    Confirmed,
    Decision,
    Event,
    LocalCall,
    LocalRan,
    OperatorActed,
    Outgoing,
    Policy,
    Recorded,
    ReplyReceived,
    Result,
    SignalReceived,
    Started,
    TimerFired,
)
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import SettleAnswer
from sagas_framework.core.instance import Phase, SagaInstance, Status
from sagas_framework.errors import DefinitionError, Failure
from sagas_framework.examples import example
from sagas_framework.messages import Command, Compensation, Reply, Signal, settle_task
from sagas_framework.participant import CompensationType
from sagas_framework.saga import CommandType, Saga, SagaDefinition
from sagas_framework.steps import LocalStep
from sagas_framework.storage.memory import MemorySession
from sagas_framework.testing.sessions import StandInSession
from sagas_framework.testing.world import BEGINNING

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=Command[Any])
K = TypeVar("K", bound=Compensation[Any])
R = TypeVar("R", bound=Reply | None)

_SAGA_ID: Final = "019ca91d-4200-7000-8000-000000000000"
_PATIENCE: Final = 1000
"""Looks at the clock after which nothing is expected to happen any more."""


def scenario(
    saga: type[Saga[S]], state: S, *, session: Session | None = None, policy: Policy = DEFAULT_POLICY
) -> Scenario[S]:
    """Start the saga with this state; what comes back tells the story.

    Time passes by itself, to the next moment at which the saga would do something.

    Args:
        session: for local steps. Without one they get a stand-in that takes everything and keeps only
            what is put into its ``rows``.
    """
    return Scenario(saga.definition, state, session, policy)


@dataclass
class _Happened:
    """Something that the saga did: sent a message, or ran a local step."""

    outgoing: Outgoing | None = None
    local: LocalCall | None = None

    def told(self) -> str:
        if self.outgoing is not None:
            body = ", ".join(f"{name}={value!r}" for name, value in (self.outgoing.payload or {}).items())
            return f"it sent {self.outgoing.task}({body})"
        assert self.local is not None
        return f"it ran the local step {_local(self.local.step, self.local.kind is Kind.UNDO)}"


class Scenario(Generic[S]):
    """The story so far. Every method raises AssertionError, with the story, when it goes another way."""

    def __init__(self, definition: SagaDefinition, state: S, session: Session | None, policy: Policy) -> None:
        self._definition = definition
        self._policy = policy
        self._session = session or cast(Session, StandInSession(MemorySession({})))
        self._now = BEGINNING
        self._open: list[_Happened] = []
        self._kept: list[Signal] = []
        self._story: list[str] = []
        self._type = type(state)
        self.history: list[Recorded] = []
        self.instance = SagaInstance(
            id=_SAGA_ID,
            saga=definition.name,
            version=definition.version,
            shape=definition.shape,
            key="scenario",
            status=Status.RUNNING,
            state=state.model_dump(mode="json"),
            created_at=self._now,
            updated_at=self._now,
            due_at=self._now,
        )
        self._happens(Started(_SAGA_ID, self._now))

    @property
    def state(self) -> S:
        """The saga's state."""
        return self._type.model_validate(dict(self.instance.state))

    @property
    def words(self) -> list[str]:
        """The entries of its history."""
        return [line.entry for line in self.history]

    # ---- what is expected of it -------------------------------------------------------------------

    @overload
    def expects(self, message: CommandType[C, R], /, **fields: object) -> Expected[S, R]: ...
    @overload
    def expects(self, message: CompensationType[K, C], /, **fields: object) -> Expected[S, None]: ...
    def expects(self, message: Any, /, **fields: object) -> Expected[S, Any]:
        """The next message is this command or compensation, with these fields among its own."""
        contract: type[Command[Any]] | type[Compensation[Any]] = message
        sent = self._next_sent(contract.__name__)
        if sent.task != contract.contract.task:
            self._fail(f"{contract.__name__} to be sent", _Happened(sent).told())
        body = contract.model_validate(sent.payload or {})
        for name, wanted in fields.items():
            if name not in contract.model_fields:
                known = ", ".join(contract.model_fields)
                self._fail(f"{contract.__name__} with a field {name!r}", f"its fields are: {known}")
            if getattr(body, name) != wanted:
                self._fail(
                    f"{contract.__name__} with {name}={wanted!r}", f"it has {name}={getattr(body, name)!r}"
                )
        self._story.append(f"{contract.__name__} is sent")
        return Expected(self, sent, contract)

    def settles(self, command: type[Command[Any]]) -> Settling[S]:
        """The saga asks the participant how this command stands, and to close it."""
        sent = self._next_sent(f"the settling of {command.__name__}")
        if sent.task != settle_task(command):
            self._fail(f"{command.__name__} to be settled", _Happened(sent).told())
        self._story.append(f"{command.__name__} is settled")
        return Settling(self, sent, command)

    def runs(self, step: str, *, undo: bool = False) -> Scenario[S]:
        """This local step was run, or is when time passes. Local steps that are not mentioned may run too."""
        wanted = LocalCall(step, Kind.UNDO if undo else Kind.DO)
        if not isinstance(self._definition.steps[self._index(step)], LocalStep):
            self._fail(f"the local step {step}", "that step is a command: write .expects(...)")
        while True:
            for position, happened in enumerate(self._open):
                if happened.local == wanted:
                    del self._open[: position + 1]
                    self._story.append(_local(step, undo))
                    return self
                if happened.outgoing is not None:
                    self._fail(f"the local step {_local(step, undo)} to run", happened.told())
            if not self._time_passes():
                self._fail(f"the local step {_local(step, undo)} to run", self._nothing())

    def ends(self, status: Status) -> Scenario[S]:
        """The saga comes to this status (or is parked, for `Status.PARKED`) without sending anything more."""
        while True:
            for happened in self._open:
                if happened.outgoing is not None:
                    self._fail(f"the saga to be {status.value}", happened.told())
            self._open.clear()
            if self.instance.status is status:
                return self
            if self.instance.status.ended or not self._time_passes():
                self._fail(f"the saga to be {status.value}", f"it is {self.instance.status.value}")

    # ---- what is done to it -----------------------------------------------------------------------

    def operator(
        self,
        act: Act,
        step: str | None = None,
        *,
        reply: Any = None,
        force: bool = False,
    ) -> Scenario[S]:
        """An operator acts, and is obeyed. `reply`: for completing; of a plain task its result."""
        body = reply.to_json() if isinstance(reply, Reply) else reply
        decision = self._happens(
            OperatorActed(_SAGA_ID, self._now, act, "scenario", "it says so", None, step, body, force)
        )
        if decision.refused:
            self._fail(f"an operator to {act.value}", f"it was refused: {decision.answer}")
        self._story.append(f"an operator: {act.value}")
        return self

    def signalled(self, signal: Signal, *, too_late: bool = False) -> Scenario[S]:
        """Somebody signals the saga. Said before it waits, it is kept and taken when it does.

        Args:
            too_late: whether that is the answer.
        """
        decision = self._happens(self._signal(signal))
        name = signal.signal_name
        if decision.too_late is not too_late:
            answer = f"too late: {decision.answer}" if decision.too_late else "taken, or kept"
            self._fail(f"{name} to be {'too late' if too_late else 'taken, or kept'}", f"it was {answer}")
        if decision.ignored is not None:
            self._kept.append(signal)
        self._story.append(f"somebody says {name}")
        self._take_kept()
        return self

    def waits(self, step: str) -> Scenario[S]:
        """The saga waits at this step, for a signal or for its time."""
        for happened in self._open:
            if happened.outgoing is not None:
                self._fail(f"{step} to wait", happened.told())
        phase = self.instance.steps[self._definition.steps[self._index(step)].name].phase
        if phase not in (Phase.WAITING, Phase.DELAYED):
            self._fail(f"{step} to wait", f"it is {phase.value}")
        return self

    def in_vain(self, step: str) -> Scenario[S]:
        """Nobody signals the saga at this step, until its deadline; or its time comes."""
        record = self.waits(step).instance.steps[step]
        moment = record.deadline or record.resume_at
        if moment is None:
            self._fail(f"a moment at which {step} is over", "it waits for ever")
        self._now = max(self._now, moment)
        self._happens(TimerFired(_SAGA_ID, self._now))
        self._story.append(f"the time of {step} is over")
        self._take_kept()
        return self

    def _signal(self, signal: Signal) -> SignalReceived:
        return SignalReceived(_SAGA_ID, self._now, 0, signal.signal_name, signal.to_json(), self._now)

    def _take_kept(self) -> None:
        """What was said before, in its order, as long as something takes it."""
        position = 0
        while position < len(self._kept):
            decision = self._happens(self._signal(self._kept[position]))
            if decision.ignored is not None:
                position += 1
            else:
                del self._kept[position]
                position = 0

    def cancels(self) -> Scenario[S]:
        """An operator cancels the saga."""
        return self.operator(Act.CANCEL)

    # ---- how it goes on ---------------------------------------------------------------------------

    def answer(
        self, sent: Outgoing, result: Result, payload: Any = None, error: Mapping[str, str] | None = None
    ) -> Scenario[S]:
        """An answer to a message; `Expected` and `Settling` say it better."""
        refs = (sent.message_id,)
        self._happens(ReplyReceived(_SAGA_ID, self._now, refs, sent.task, result, payload, error or {}))
        self._take_kept()
        self._story.append(f"    {result.value}" + (f": {error['message']}" if error else ""))
        return self

    def confirm(self, sent: Outgoing) -> Scenario[S]:
        """The broker has the message, which nobody answers; `Expected.confirmed` says it better."""
        self._happens(Confirmed(_SAGA_ID, self._now, sent.message_id))
        self._story.append("    confirmed by the broker")
        return self

    def silence(self) -> Scenario[S]:
        """No answer to the last message."""
        self._story.append("    no answer")
        return self

    def _next_sent(self, wanted: str) -> Outgoing:
        while True:
            while self._open:
                happened = self._open.pop(0)
                if happened.outgoing is not None:
                    return happened.outgoing
            if not self._time_passes():
                self._fail(f"{wanted} to be sent", self._nothing())

    def _time_passes(self) -> bool:
        """Look at the clock when it is due, until something happens; whether it did."""
        for _ in range(_PATIENCE):
            before = self.instance.status
            due = self.instance.due_at
            if due is None:
                return False
            self._now = max(self._now, due)
            self._happens(TimerFired(_SAGA_ID, self._now))
            if self._open or self.instance.status is not before:
                return True
            self._now += timedelta(milliseconds=1)
        return False

    def _happens(self, event: Event) -> Decision:
        decision = first = self._decides(event)
        while decision.local is not None:
            decision = self._decides(self._ran(decision.local))
        return first

    def _decides(self, event: Event) -> Decision:
        decision = decide(self._definition, self.instance, event, self._policy)
        self.instance = decision.instance
        self.history.extend(decision.history)
        self._open += [_Happened(outgoing=sent) for sent in decision.commands if not sent.again]
        if decision.local is not None:
            self._open.append(_Happened(local=decision.local))
        return decision

    def _ran(self, call: LocalCall) -> LocalRan:
        step = self._definition.steps[self._index(call.step)]
        assert isinstance(step, LocalStep)
        if not callable(step.action if call.kind is Kind.DO else step.compensation):
            return LocalRan(_SAGA_ID, self._now, call.step, call.kind)
        state = self._definition.state.model_validate(dict(self.instance.state))
        try:
            if call.kind is Kind.DO:
                step.do(state, self._session)
            else:
                step.undo(state, self._session, self.instance.outcome)
            changed = state.model_dump(mode="json", warnings="error")
        except Exception as error:
            self._story.append(f"{_local(call.step, call.kind is Kind.UNDO)} raised {error!r}")
            return LocalRan(_SAGA_ID, self._now, call.step, call.kind, error=error_payload(error))
        return LocalRan(_SAGA_ID, self._now, call.step, call.kind, state=changed)

    # ---- telling ----------------------------------------------------------------------------------

    def _index(self, step: str) -> int:
        try:
            return self._definition.index(step)
        except KeyError:
            known = ", ".join(known.name for known in self._definition.steps)
            self._fail(f"a step {step!r}", f"the saga has: {known}")

    def _nothing(self) -> str:
        why = "; ".join(record.parked for record in self.instance.steps.values() if record.parked)
        return f"nothing more happened: it is {self.instance.status.value}" + (f" ({why})" if why else "")

    def _fail(self, expected: str, instead: str) -> NoReturn:
        story = "".join(f"\n    {line}" for line in self._story) or "\n    nothing"
        words = "".join(f"\n    {word}" for word in self.words)
        raise AssertionError(
            f"expected {expected}, but {instead}\n  the story so far:{story}\n  the history:{words}"
        )


class Expected(Generic[S, R]):
    """A message that was sent: say how it is answered."""

    def __init__(
        self,
        story: Scenario[S],
        sent: Outgoing,
        contract: type[Command[Any]] | type[Compensation[Any]],
    ) -> None:
        self._story = story
        self._sent = sent
        self._contract = contract

    def replies(self, reply: R | None = None, /, **fields: object) -> Scenario[S]:
        """Success, with this reply or one of these fields; fields not given get an example.

        A plain task `returns` its result.

        Raises:
            DefinitionError: these are not the reply's fields.
        """
        wanted = self._contract.reply_type() if issubclass(self._contract, Command) else type(None)
        if reply is not None:
            return self._story.answer(self._sent, Result.SUCCESS, reply.to_json())
        if not issubclass(wanted, Reply):
            if fields:
                raise DefinitionError(f"{self._contract.__name__} is answered without fields: .replies()")
            return self._story.answer(self._sent, Result.SUCCESS)
        unknown = [name for name in fields if name not in wanted.model_fields]
        if unknown:
            raise DefinitionError(
                f"{wanted.__name__} has no field {unknown[0]!r}; it has: {', '.join(wanted.model_fields)}"
            )
        required = {name for name, field in wanted.model_fields.items() if field.is_required()}
        guessed = example(wanted).model_dump() if required - set(fields) else {}
        body = wanted.model_validate({**guessed, **fields}).to_json()
        return self._story.answer(self._sent, Result.SUCCESS, body)

    def returns(self, result: Any) -> Scenario[S]:
        """Success of a plain task, with this result: any JSON value."""
        return self._story.answer(self._sent, Result.SUCCESS, result)

    def confirmed(self) -> Scenario[S]:
        """The broker has it: all that there is of a compensation that nobody answers.

        Raises:
            DefinitionError: its participant does answer.
        """
        if not self._sent.unanswered:
            raise DefinitionError(f"{self._contract.__name__} is answered: write .replies() or .refuses().")
        return self._story.confirm(self._sent)

    def refuses(self, why: str | type[Failure] | Failure = "") -> Scenario[S]:
        """A business refusal. Given as text it is the contract's first failure."""
        if isinstance(why, str):
            declared = self._contract.failures if issubclass(self._contract, Command) else ()
            why = (declared[0] if declared else Failure)(why)
        failure = why() if isinstance(why, type) else why
        error = {
            "type": failure.wire_name,
            "message": str(failure),
            "module": type(failure).__module__,
        }
        return self._story.answer(self._sent, Result.REFUSED, error=error)

    def fails(self, message: str = "a transient fault") -> Scenario[S]:
        """A transient fault: the step's retry decides what follows."""
        error = {"type": "TransientFault", "message": message, "module": "scenario"}
        return self._story.answer(self._sent, Result.FAILED, error=error)

    def never_answers(self) -> Scenario[S]:
        """No answer to this attempt, however often it is sent again."""
        return self._story.silence()


class Settling(Generic[S]):
    """A settling that was sent: say how the participant's row stands."""

    def __init__(self, story: Scenario[S], sent: Outgoing, command: type[Command[Any]]) -> None:
        self._story = story
        self._sent = sent
        self._command = command

    def done(self, reply: Reply | None = None) -> Scenario[S]:
        """It happened, with this reply."""
        wanted = self._command.reply_type()
        if reply is None and issubclass(wanted, Reply):
            reply = example(wanted)
        return self._answer(SettleAnswer.DONE, reply=reply.to_json() if reply else None)

    def withdrawn(self) -> Scenario[S]:
        """It did not happen, and never will."""
        return self._answer(SettleAnswer.WITHDRAWN)

    def refused(self, why: str = "") -> Scenario[S]:
        """It had been refused."""
        declared = self._command.failures[0].wire_name if self._command.failures else "Failure"
        return self._answer(SettleAnswer.REFUSED, error={"type": declared, "message": why, "module": ""})

    def yours_to_undo(self, reply: Reply | None = None) -> Scenario[S]:
        """It happened, and is handed over to the operator who asked."""
        return self._answer(SettleAnswer.YOURS_TO_UNDO, reply=reply.to_json() if reply else None)

    def never_answers(self) -> Scenario[S]:
        """No answer, however often it is asked."""
        return self._story.silence()

    def _answer(self, answer: SettleAnswer, **more: Any) -> Scenario[S]:
        return self._story.answer(self._sent, Result.SUCCESS, {"answer": answer.value, **more})


def _local(step: str, undo: bool) -> str:
    return f"{step} (undo)" if undo else step
