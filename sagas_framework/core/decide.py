"""What happens next to a saga. Everything that affects a transition is in this file.

The rules cited are those of ``docs/explanation/protocol.md``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeVar, assert_never

from pydantic import BaseModel, ValidationError

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
    Unroutable,
)
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN, SettleAnswer
from sagas_framework.core.instance import (
    Flight,
    Intent,
    Outcome,
    OutcomeKind,
    Phase,
    SagaInstance,
    Status,
    StepRecord,
    first_due,
    with_waiting,
)
from sagas_framework.core.records import copied, replace
from sagas_framework.core.waiting import moment, too_late
from sagas_framework.errors import DefinitionError, Failure
from sagas_framework.messages import Command, Compensation, WireProtocol, settle_task
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import (
    COMPENSATE,
    AnyStep,
    CommandStep,
    DelayStep,
    EndStep,
    LocalStep,
    Moment,
    NoDeadline,
    WaitStep,
)

DEFAULT_POLICY: Final = Policy()
DEADLINE: Final = "deadline"
"""In `Decision.raised`, in place of a step: what works out the saga's own deadline."""
J = TypeVar("J")

# What an operator's act may find, forward and backward.
_FORWARD: Final = frozenset(
    {
        *(Phase.RUNNING, Phase.PAUSING, Phase.BLOCKED, Phase.ANSWERED, Phase.SETTLING),
        *(Phase.WAITING, Phase.DELAYED),
    }
)
_BACKWARD: Final = frozenset({Phase.COMPENSATING, Phase.UNDO_PAUSING, Phase.HANDED_OVER})
# Behind which the next step begins.
_PASSED: Final = frozenset({Phase.SUCCEEDED, Phase.SKIPPED, Phase.LEFT_OUT})
# Steps whose effect is or may be there, once the saga has turned back (rule 13).
_TO_UNDO: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.UNKNOWN})


def decide(
    saga: SagaDefinition, instance: SagaInstance, event: Event, policy: Policy = DEFAULT_POLICY
) -> Decision:
    """Say what happens next; do nothing about it.

    Equal arguments give equal decisions. The saga's hooks are called with copies of the state; what
    they raise is a fault of the step, never of this function.
    """
    turn = _Turn(saga, instance, event.at, policy)
    match event:
        case Started():
            turn.start()
        case ReplyReceived():
            turn.take_reply(event)
        case TimerFired():
            turn.look_at_the_clock(event)
        case LocalRan():
            turn.take_local(event)
        case Unroutable():
            turn.note_unroutable(event.message_id)
        case Confirmed():
            turn.take_confirmation(event.message_id)
        case OperatorActed():
            turn.obey(event)
        case SignalReceived():
            turn.take_signal(event)
        case _:
            assert_never(event)
    return turn.decision()


class _Turn:
    """One decision while it is being made."""

    def __init__(self, saga: SagaDefinition, instance: SagaInstance, at: datetime, policy: Policy) -> None:
        self.saga = saga
        self.before = instance
        self.at = at
        self.policy = policy
        self.records: dict[str, StepRecord] = dict(instance.steps) or {
            s.name: StepRecord(s.name) for s in saga.steps
        }
        # Not `instance.steps`, which is empty before the start: what changes nothing must not look like a
        # change there, or the row would lose the moment at which the timekeeper finds it.
        self.found = dict(self.records)
        self.state: Mapping[str, Any] = instance.state
        self.status = instance.status
        self.outcome = instance.outcome
        self.started = instance.started
        self.deadline = instance.deadline
        self.late = instance.late
        self.commands: list[Outgoing] = []
        self.history: list[Recorded] = []
        self.local: LocalCall | None = None
        self.answer: str | None = None
        self.refused = False
        self.too_late = False
        self.ignored: str | None = None
        self.answered: tuple[str, datetime] | None = None
        self.raised: list[tuple[str, Exception]] = []
        self.mattered = False

    # ---- the result -------------------------------------------------------------------------------

    def decision(self) -> Decision:
        instance = self.before
        if self.mattered or self.started != instance.started or self.records != self.found:
            status = self._status()
            instance = replace(
                instance,
                status=status,
                outcome=self.outcome,
                state=self.state,
                steps=self.records,
                started=self.started,
                deadline=self.deadline,
                late=self.late,
                revision=instance.revision + self.mattered,
                updated_at=self.at,
                ended_at=self.at if status.ended and not instance.status.ended else instance.ended_at,
                due_at=None
                if status.ended
                else first_due(
                    self.records.values(), self.deadline if self.outcome is None and not self.late else None
                ),
            )
            instance = with_waiting(instance, self.at)
            self._record_status(instance)
        return Decision(
            instance,
            tuple(self.commands),
            tuple(self.history),
            self.local,
            self.answer,
            self.refused,
            self.ignored,
            self.too_late,
            self.answered,
            tuple(self.raised),
        )

    def _status(self) -> Status:
        if self.status.ended:
            return self.status
        if any(record.parked for record in self.records.values()):
            return Status.PARKED
        return Status.COMPENSATING if self.outcome is not None else Status.RUNNING

    def _record_status(self, instance: SagaInstance) -> None:
        if instance.status is self.before.status:
            return
        detail = (
            instance.outcome.to_json() if instance.outcome and instance.status is not Status.PARKED else {}
        )
        if instance.status is Status.PARKED:
            detail = {r.name: r.parked for r in self.records.values() if r.parked}
        # That the saga turned back is told before what is undone.
        undone = (i for i, line in enumerate(self.history) if line.entry.endswith(".compensating"))
        where = (
            next(undone, len(self.history)) if instance.status is Status.COMPENSATING else len(self.history)
        )
        self.history.insert(where, Recorded(self.at, instance.status.value, None, detail))

    # ---- small tools ------------------------------------------------------------------------------

    def _put(self, name: str, **changes: Any) -> StepRecord:
        record = self.records[name] = replace(self.records[name], **changes)
        return record

    def _log(self, entry: str, step: str | None = None, **detail: Any) -> None:
        self.mattered = True
        self.history.append(
            Recorded(self.at, entry, step, {k: v for k, v in detail.items() if v is not None})
        )

    def _phase(
        self,
        name: str,
        phase: Phase,
        word: str,
        /,
        *,
        changes: Mapping[str, Any] | None = None,
        **detail: Any,
    ) -> None:
        """Move a step and write ``<step>.<word>`` into the history."""
        self._put(name, phase=phase, **(changes or {}))
        self._log(f"{name}.{word}", name, **detail)

    def _park(self, name: str, reason: str) -> None:
        if self.records[name].parked != reason:
            self._put(name, parked=reason)
            self._log(f"{name}.parked", name, reason=reason)
        if self._undoing:  # whatever parks a compensation, those before it go on
            self._compensate_next()

    def _state_copy(self) -> BaseModel:
        # A deep one: pydantic passes on what it finds in a field of type Any.
        return self.saga.state.model_validate(copied(dict(self.state)))

    def _state_after(self, step: CommandStep[Any], payload: Any) -> Mapping[str, Any]:
        """The state once the step's reply was taken. Raises what the reply's contract or the hook raises."""
        reply = _reply(step.command, payload)
        if step.on_success is None:
            return self.state
        state = self._state_copy()
        step.on_success(state, reply)
        # warnings="error": what a hook assigned must be what the field says, or it is the hook's fault.
        return storable(state.model_dump(mode="json", warnings="error"))

    def _step(self, name: str) -> AnyStep:
        return self.saga.steps[self.saga.index(name)]

    def _command_step(self, name: str) -> CommandStep[Any]:
        step = self._step(name)
        assert isinstance(step, CommandStep)
        return step

    def _after_pivot(self, name: str) -> bool:
        return self.saga.index(name) > self.saga.pivot

    def _is_pivot(self, name: str) -> bool:
        return self.saga.index(name) == self.saga.pivot

    @property
    def _undoing(self) -> bool:
        return self.outcome is not None and not self.status.ended

    # ---- going forward ----------------------------------------------------------------------------

    def start(self) -> None:
        if self.started:
            self.ignored = "started before"
            return
        self.started = True
        self._log("started")
        if self.saga.deadline is not None:
            try:
                self.deadline = self._moment(self.saga.deadline, self.before.created_at)
            except Exception as error:
                told = error_payload(error)
                self.raised.append((DEADLINE, error))
                self._note_what_the_caller_did()
                self._turn_back(Outcome(OutcomeKind.FAILED, told["type"], told["message"]))
                return
        self._advance()

    def _advance(self) -> None:
        for step in self.saga.steps:
            if self.records[step.name].phase is Phase.PENDING:
                if self._came_too_late_to(step):
                    return
                self._begin(step)
            if self.status.ended or self.records[step.name].phase not in _PASSED:
                return
        self._complete(Outcome(OutcomeKind.OK))

    def _complete(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.status = Status.COMPLETED
        self.mattered = True

    def _begin(self, step: AnyStep) -> None:
        """Begin the step, or leave it out; whether the next one may begin, its phase says."""
        if not self._holds(step):
            return
        match step:
            case LocalStep():
                self._phase(step.name, Phase.RUNNING, "running", changes={"parked": None})
                self._run_local(step, Kind.DO)
            case CommandStep():
                self._attempt(step)
            case WaitStep():
                self._wait(step)
            case DelayStep():
                self._delay(step)
            case EndStep():
                self._end(step)
            case _:
                assert_never(step)

    def _holds(self, step: AnyStep) -> bool:
        """Whether the step's condition does; asked once, before anything of it was begun (rule 26)."""
        if step.when is None or self.records[step.name].attempts:
            return True
        try:
            if step.when(self._state_copy()):
                return True
        except Exception as error:
            self._our_fault(step.name, error)
            return False
        self._phase(step.name, Phase.LEFT_OUT, "left_out", changes={"parked": None, "error": None})
        return False

    def _end(self, step: EndStep[Any]) -> None:
        """Complete here: what comes behind is left out (rule 26)."""
        behind = [later.name for later in self.saga.steps[self.saga.index(step.name) + 1 :]]
        for name in behind:
            self._put(name, phase=Phase.LEFT_OUT)
        self._phase(step.name, Phase.SUCCEEDED, "ended", changes={"parked": None}, left_out=behind)
        self._complete(Outcome(OutcomeKind.OK, "EndedEarly", step.because, step.name))

    def _run_local(self, step: LocalStep[Any], kind: Kind) -> None:
        self.local = LocalCall(step.name, kind)

    def _attempt(self, step: CommandStep[Any]) -> None:
        """Send the command: its first attempt, or the next one under the same key."""
        record = self.records[step.name]
        attempt = record.attempts + 1
        if attempt == 1:
            self._phase(step.name, Phase.RUNNING, "running", changes={"parked": None})
            try:
                payload = storable(_built(step.request(self._state_copy()), step.command).to_json())
            except Exception as error:
                self._our_fault(step.name, error)
                return
            record = self._put(step.name, request=payload)
        else:
            self._phase(step.name, Phase.RUNNING, "running", changes={"parked": None}, attempt=attempt)
        self._put(
            step.name, attempts=attempt, resume_at=None, deadline=record.deadline or self.at + step.timeout
        )
        self._send(step, Kind.DO, attempt, step.command.contract.task, record.request)

    def _send(
        self,
        step: CommandStep[Any],
        kind: Kind,
        attempt: int,
        task: str,
        payload: dict[str, Any] | None,
        *,
        hand_over: bool = False,
    ) -> None:
        record = self.records[step.name]
        first = record.first_sent_at or self.at
        flight = Flight(
            kind=kind,
            attempt=attempt,
            message_id=message_id(self.before.id, record.identity, kind, attempt),
            task=task,
            queue=step.command.contract.service.queue.name,
            sent_at=self.at,
            since=self.at,
            check_at=self.at + self.policy.resend_pause(0) if step.has_inbox else None,
            payload=None if kind is Kind.DO else payload,  # that of the command is in the record
            hand_over=hand_over,
        )
        record = self._put(step.name, flight=flight, first_sent_at=first)
        if step.has_inbox and self._too_old_to_send(record):
            return
        self.commands.append(self._outgoing(step, record, flight))

    def _outgoing(
        self, step: CommandStep[Any], record: StepRecord, flight: Flight, *, again: bool = False
    ) -> Outgoing:
        unanswered = flight.kind is Kind.UNDO and not step.undo_answers
        # Without an inbox it should not begin any more once a person is asked whether it happened. What
        # nobody answers counts as done when it is sent, so it may wait its turn like any other message.
        by_its_deadline = not step.has_inbox and not unanswered
        return Outgoing(
            saga_id=self.before.id,
            message_id=flight.message_id,
            operation_id=operation_id(self.before.id, record.identity),
            kind=flight.kind,
            task=flight.task,
            queue=flight.queue,
            attempt=flight.attempt,
            not_after=record.deadline
            if by_its_deadline and record.deadline
            else self.at + self.policy.message_lifetime,
            payload=record.request if flight.kind is Kind.DO else flight.payload,
            known=record.known,
            hand_over=flight.hand_over,
            again=again,
            protocol=WireProtocol(step.command.contract.service.protocol),
            unanswered=unanswered,
        )

    def _too_old_to_send(self, record: StepRecord) -> bool:
        """Past this age its participant may have forgotten the operation: nothing may be sent (rule 10)."""
        if record.first_sent_at is None or self.at <= record.first_sent_at + self.policy.sendable_for:
            return False
        flight = record.flight
        self._put(
            record.name, flight=flight and replace(flight, check_at=self.at + self.policy.inbox_retention)
        )
        self._park(
            record.name,
            f"first sent on {record.first_sent_at:%Y-%m-%d}, which the participant's inbox may have "
            "forgotten by now; find out by hand what it did, then complete or skip the step with force",
        )
        return True

    # ---- replies ----------------------------------------------------------------------------------

    def take_reply(self, reply: ReplyReceived) -> None:
        found = self._match(reply)
        if found is None:
            self._ignore(reply, "matches nothing that was sent")
            return
        record, kind, attempt = found
        if reply.result is not Result.SUCCESS:
            reply = replace(reply, error=_failure(reply.error))
        flight = record.flight
        # Nobody knows which copy was answered, nor when an older message was sent: not before the first.
        own = flight is not None and flight.kind is kind and flight.attempt == attempt
        if flight and (sent_at := flight.since if own else record.first_sent_at):
            self.answered = (flight.queue, sent_at)
        match kind:
            case Kind.DO:
                self._did(record, attempt, reply)
            case Kind.UNDO:
                self._undid(record, attempt, reply)
            case Kind.SETTLE:
                self._settled_reply(record, attempt, reply)
            case _:
                assert_never(kind)

    def _ignore(self, reply: ReplyReceived, why: str) -> None:
        """A reply that changes nothing is recorded, so that the history tells what came."""
        self.ignored = why
        self.history.append(
            Recorded(
                self.at,
                "reply_ignored",
                None,
                {"task": reply.task, "result": reply.result.value, "refs": list(reply.refs), "why": why},
            )
        )

    def _match(self, reply: ReplyReceived) -> tuple[StepRecord, Kind, int] | None:
        """The step, kind and attempt that a reply answers (rule 12)."""
        if not reply.refs:
            flights = [(r, f) for r, f in self._flights() if f.task == reply.task]
            if len(flights) == 1:
                record, flight = flights[0]
                return record, flight.kind, flight.attempt
            return None
        for ref in reply.refs:
            for record, flight in self._flights():
                if flight.message_id == ref:
                    return (record, flight.kind, flight.attempt) if flight.task == reply.task else None
            for step in self.saga.steps:
                if isinstance(step, CommandStep) and (found := self._match_older(step, ref, reply.task)):
                    return found
        return None

    def _flights(self) -> list[tuple[StepRecord, Flight]]:
        return [(record, record.flight) for record in self.records.values() if record.flight]

    def _match_older(
        self, step: CommandStep[Any], ref: str, task: str
    ) -> tuple[StepRecord, Kind, int] | None:
        record = self.records[step.name]
        undo = step.command.compensation
        sent = [
            (Kind.DO, step.command.contract.task, record.attempts),
            (Kind.SETTLE, settle_task(step.command), record.settles),
        ]
        if undo is not None:
            sent.append((Kind.UNDO, undo.contract.task, record.tries))
        for kind, its_task, count in sent:
            if its_task == task:
                for attempt in range(count, 0, -1):
                    if message_id(self.before.id, record.identity, kind, attempt) == ref:
                        return record, kind, attempt
        return None

    def _did(self, record: StepRecord, attempt: int, reply: ReplyReceived) -> None:
        """An answer to the command itself, from any of its attempts."""
        without_inbox = _without_inbox(self._step(record.name))
        # A failure is only what one delivery came to, and a person may err: it happened all the same.
        after_all = without_inbox and reply.result is Result.SUCCESS
        # A step that settles for an operator is still open to its late answer (rule 12).
        is_open = record.phase in (Phase.RUNNING, Phase.PAUSING, Phase.SETTLING)
        if after_all and self._undoing and record.phase in (Phase.REFUSED, Phase.WITHDRAWN):
            self._happened_after_all(record.name, reply)
            return
        if not is_open and not (after_all and record.phase is Phase.REFUSED and record.parked):
            self._ignore(reply, f"{record.name} is {record.phase.value}")
            return
        if without_inbox and not after_all and attempt != record.attempts:
            self._ignore(reply, f"try {attempt} is over")
            return
        match reply.result:
            case Result.SUCCESS:
                self._succeeded(record.name, reply.payload)
            case Result.REFUSED:
                if record.phase is Phase.SETTLING and reply.error.get("type") == WITHDRAWN:
                    # It came after its settling, whose answer is still on the way and says the same.
                    self._withdrawn(record)
                else:
                    self._refused(record.name, reply.error)
            case Result.FAILED:
                if record.phase is not Phase.RUNNING or attempt != record.attempts:
                    self._ignore(reply, f"try {attempt} is over")
                elif without_inbox:
                    self._refused(record.name, reply.error)  # rule 11: nothing may be attempted again
                else:
                    self._attempt_failed(record, reply.error)
            case _:
                assert_never(reply.result)

    def _happened_after_all(self, name: str, reply: ReplyReceived) -> None:
        """The saga turned back without undoing a step that kept no inbox, and now its success comes."""
        step = self._command_step(name)
        if not (step.undoable or self._is_pivot(name)):
            self._ignore(reply, f"{name} leaves nothing behind")
            return
        # Not compensated by itself: whoever withdrew it may have undone it by hand.
        self._put(name, known=True, reply=reply.payload)
        self._phase(name, Phase.HANDED_OVER, "handed_over", reply=reply.payload, because="it came late")
        self._park(
            name,
            "it happened after all, and was not undone; undo it by hand, then complete it, or skip it to "
            "leave what it did",
        )

    def _succeeded(self, name: str, payload: Any, *, by: Intent | None = None) -> None:
        step = self._step(name)
        assert isinstance(step, CommandStep)
        self._put(name, **_LANDED, reply=payload, known=True)
        try:
            self.state = self._state_after(step, payload)
        except Exception as error:
            self._our_fault(name, error, answered=True)
            return
        how = {"by": by.by, "reason": by.reason, "by_hand": True} if by else {}
        self._phase(name, Phase.SUCCEEDED, "succeeded", changes={"error": None}, reply=payload, **how)
        self._advance()

    def _refused(self, name: str, error: Mapping[str, str]) -> None:
        intent = self.records[name].intent
        self._put(name, **_LANDED)
        self._phase(name, Phase.REFUSED, "failed", changes={"error": dict(error)}, **error)
        if intent is not None and self._after_pivot(name):
            self._closed_for(name, intent)
        elif self._after_pivot(name):
            hand = "retry, complete or skip it" if _without_inbox(self._step(name)) else "complete or skip it"
            self._park(name, f"refused after the pivot ({_told(error)}): it cannot be undone; {hand} by hand")
        else:
            self._turn_back(
                Outcome(OutcomeKind.REFUSED, error.get("type", ""), error.get("message", ""), name)
            )

    def _attempt_failed(self, record: StepRecord, error: Mapping[str, str]) -> None:
        step = self._step(record.name)
        more = record.attempts < step.retry.attempts
        self._put(record.name, flight=None, error=dict(error))
        if more or self._after_pivot(record.name):
            resume_at = self.at + step.retry.pause_after(record.attempts)
            self._phase(
                record.name,
                Phase.PAUSING,
                "attempt_failed",
                changes={"resume_at": resume_at},
                attempt=record.attempts,
                next_at=resume_at.isoformat(),
                **error,
            )
            if not more:
                self._park(
                    record.name, f"failed {record.attempts} times ({_told(error)}); it goes on being tried"
                )
            return
        outcome = Outcome(OutcomeKind.FAILED, error.get("type", ""), error.get("message", ""), record.name)
        if self._is_pivot(record.name):
            self._log(f"{record.name}.attempt_failed", record.name, attempt=record.attempts, **error)
            self._settle(record.name, turning=outcome)
        else:
            self._give_up(record.name, Phase.FAILED, outcome)

    def _our_fault(self, name: str, error: Exception, *, answered: bool = False, **detail: Any) -> None:
        """A hook, a request or a local step of ours raised (DESIGN: failing, retrying, undoing)."""
        told = error_payload(error)
        self.raised.append((name, error))
        if answered and self.saga.index(name) >= self.saga.pivot:
            self._phase(name, Phase.ANSWERED, "failed", changes={"error": told}, **told, **detail)
            self._park(
                name,
                f"it succeeded, but its reply could not be taken ({_told(told)}); "
                "repair the code, then retry",
            )
        elif self._after_pivot(name):
            self._phase(name, Phase.BLOCKED, "failed", changes={"error": told, "flight": None}, **told)
            self._park(name, f"our own code raised after the pivot ({_told(told)}); repair it, then retry")
        else:
            self._put(name, error=told)
            outcome = Outcome(OutcomeKind.FAILED, told["type"], told["message"], name)
            self._give_up(name, Phase.FAILED, outcome, **detail)

    def _give_up(self, name: str, phase: Phase, outcome: Outcome, **detail: Any) -> None:
        told = {"type": outcome.name, "message": outcome.message}
        self._phase(
            name,
            phase,
            "failed",
            changes={"flight": None, "deadline": None, "resume_at": None, "parked": None},
            **told,
            **detail,
        )
        self._turn_back(outcome)

    # ---- waiting ----------------------------------------------------------------------------------

    def _moment(self, given: Moment[Any], since: datetime) -> datetime:
        """Raises what the hook raises, and DefinitionError if it makes no moment."""
        return moment(given(self._state_copy()) if callable(given) else given, since)

    def _wait(self, step: WaitStep[Any]) -> None:
        try:
            deadline = None if isinstance(step.deadline, NoDeadline) else self._moment(step.deadline, self.at)
        except Exception as error:
            self._our_fault(step.name, error)
            return
        self._phase(
            step.name,
            Phase.WAITING,
            "waiting",
            changes={"parked": None, "error": None, "deadline": deadline},
            signals=list(step.names),
            until=deadline and deadline.isoformat(),
        )

    def _delay(self, step: DelayStep[Any]) -> None:
        try:
            until = self._moment(step.until, self.at)
        except Exception as error:
            self._our_fault(step.name, error)
            return
        self._put(step.name, parked=None, error=None)
        if until <= self.at:
            self._phase(step.name, Phase.SUCCEEDED, "succeeded", until=until.isoformat())
        else:
            self._phase(
                step.name, Phase.DELAYED, "delayed", changes={"resume_at": until}, until=until.isoformat()
            )

    def take_signal(self, said: SignalReceived) -> None:
        record = self._listener(said.signal)
        if record is not None and record.deadline is not None and record.deadline < said.said_at:
            self._deadline_passed(record)  # nobody has looked at the clock yet (rule 24)
            record = None if self.local is not None else self._listener(said.signal)
        if record is not None:
            got = {"signal": said.signal, "payload": dict(said.payload)}
            self._take(record.name, got, by=said.by or None, reason=said.reason or None, number=said.number)
            return
        why = too_late(self.saga, self.status, self.outcome, self.records, said.signal)
        if why is None:
            self.ignored = "nothing waits for it yet"
            return
        self.too_late = True
        self.answer = why
        self.history.append(
            Recorded(
                self.at, "signal_ignored", None, {"signal": said.signal, "number": said.number, "why": why}
            )
        )

    def _listener(self, signal: str) -> StepRecord | None:
        """The step that waits for the signal."""
        for name in self.saga.waits:
            if self.records[name].phase is Phase.WAITING and self._wait_step(name).reaction(signal):
                return self.records[name]
        return None

    def _wait_step(self, name: str) -> WaitStep[Any]:
        step = self._step(name)
        assert isinstance(step, WaitStep)
        return step

    def _take(self, name: str, got: dict[str, Any], **how: Any) -> None:
        """End the wait with what came: a signal, or its deadline (rule 27)."""
        self._put(name, **_LANDED, reply=got, known=True)
        signal = got.get("signal")
        if signal is None:
            how["because"] = "the deadline has passed"
        try:
            self.state = self._state_told(self._wait_step(name), got)
        except Failure as no:
            self._told_no(name, no, OutcomeKind.REFUSED if signal else OutcomeKind.EXPIRED, **how)
            return
        except Exception as error:
            self._our_fault(name, error, answered=True, **how)
            return
        self._phase(name, Phase.SUCCEEDED, "succeeded", changes={"error": None}, **got, **how)
        self._advance()

    def _state_told(self, step: WaitStep[Any], got: Mapping[str, Any]) -> Mapping[str, Any]:
        """The state once a hook has taken what came. Raises what the signal's class or the hook raises."""
        state = self._state_copy()
        if "signal" not in got:
            if callable(step.at_deadline):
                step.at_deadline(state)
        elif (reaction := step.reaction(got["signal"])) is not None:
            signal = reaction.signal.model_validate(copied(got["payload"]))
            if reaction.hook is not None:
                reaction.hook(state, signal)
        return storable(state.model_dump(mode="json", warnings="error"))

    def _told_no(self, name: str, no: Failure, kind: OutcomeKind, **how: Any) -> None:
        error = error_payload(no) | {"type": no.wire_name}
        self._phase(name, Phase.REFUSED, "failed", changes={"error": error}, **error, **how)
        if self._after_pivot(name):
            self._park(
                name,
                f"refused after the pivot ({_told(error)}): nothing turns back; complete or skip it by hand",
            )
        else:
            self._turn_back(Outcome(kind, error["type"], error["message"], name))

    def _deadline_passed(self, record: StepRecord) -> None:
        """What is declared for it (rule 27)."""
        step = self._wait_step(record.name)
        deadline = record.deadline
        assert deadline is not None
        if step.at_deadline is COMPENSATE:
            told = f"{step.name}: no {' or '.join(step.names)} by {deadline:%Y-%m-%d %H:%M:%S} UTC"
            self._give_up(
                step.name, Phase.UNKNOWN, Outcome(OutcomeKind.EXPIRED, "DeadlinePassed", told, step.name)
            )
        else:
            self._take(step.name, {"deadline": deadline.isoformat()})

    # ---- the saga's deadline ----------------------------------------------------------------------

    def _expiry(self) -> Outcome:
        assert self.deadline is not None
        told = f"it was not through by its deadline, {self.deadline:%Y-%m-%d %H:%M:%S} UTC"
        return Outcome(OutcomeKind.EXPIRED, "DeadlinePassed", told)

    def _came_too_late_to(self, step: AnyStep) -> bool:
        """Up to the pivot no step is begun after the saga's deadline: it turns back instead (rule 28)."""
        if self.deadline is None or self.at < self.deadline or self._after_pivot(step.name):
            return False
        self._note_what_the_caller_did()
        self._turn_back(self._expiry())
        return True

    def _expire(self) -> None:
        """The saga's deadline has come (rule 28)."""
        current = self._current()
        if current is None:
            self._turn_back(self._expiry())
            return
        under_way = current.phase in (Phase.ANSWERED, Phase.SETTLING) or (
            _without_inbox(self._step(current.name)) and current.flight is not None
        )
        if self._after_pivot(current.name) or under_way:
            self._now_late()  # what is under way decides first; up to the pivot nothing more is begun then
        elif self._is_pivot(current.name) and current.first_sent_at is not None:
            self._now_late()
            self._settle(current.name, turning=self._expiry())
        else:
            phase = Phase.UNKNOWN if current.flight else Phase.FAILED
            self._give_up(current.name, phase, self._expiry())

    def _now_late(self) -> None:
        self.late = True
        self._log("late", deadline=self.deadline and self.deadline.isoformat())

    # ---- settling ---------------------------------------------------------------------------------

    def _settle(
        self,
        name: str,
        *,
        turning: Outcome | None = None,
        intent: Intent | None = None,
        hand_over: bool = False,
    ) -> None:
        """Ask the participant how the step stands, and to close it (rule 16, 17)."""
        step = self._step(name)
        assert isinstance(step, CommandStep)
        settles = self.records[name].settles + 1
        self._phase(
            name,
            Phase.HANDING_OVER if hand_over else Phase.SETTLING,
            "settling",
            changes={
                "settles": settles,
                "resume_at": None,
                "parked": None,
                "turning": turning,
                "intent": intent,
                "deadline": self.at + step.timeout,
            },
            because=turning and turning.message,
        )
        payload = self._undo_payload(step) if hand_over else None
        self._send(step, Kind.SETTLE, settles, settle_task(step.command), payload, hand_over=hand_over)

    def _undo_payload(self, step: CommandStep[Any]) -> dict[str, Any] | None:
        """What the compensation would say: settling undoes a handler that died outside its transaction."""
        try:
            assert callable(step.compensation)
            return storable(step.compensation(self._state_copy()).to_json())
        except Exception:
            return None  # it cannot be built, which may be why an operator takes over

    def _settled_reply(self, record: StepRecord, attempt: int, reply: ReplyReceived) -> None:
        if record.phase not in (Phase.SETTLING, Phase.HANDING_OVER) or attempt != record.settles:
            self._ignore(reply, f"{record.name} is {record.phase.value}")
            return
        answer = reply.payload if isinstance(reply.payload, Mapping) else {}
        verdict = answer.get("answer")
        # What nobody asked for is no answer: "done" leaves the row open that was to be handed over, and
        # "yours to undo" closes one whose effect nobody was told to undo.
        senseless = SettleAnswer.DONE if record.phase is Phase.HANDING_OVER else SettleAnswer.YOURS_TO_UNDO
        if verdict not in tuple(SettleAnswer) or verdict == senseless:
            self._put(record.name, flight=None)
            self._park(
                record.name,
                f"settling was answered with {_told(reply.error) or reply.payload!r}; retry to ask again, "
                "or find out by hand and decide with force",
            )
            return
        if record.phase is Phase.HANDING_OVER:
            self._handed_over(record, SettleAnswer(verdict), answer)
        elif verdict == SettleAnswer.DONE:
            self._succeeded(record.name, answer.get("reply"))
        elif verdict == SettleAnswer.REFUSED:
            self._refused(record.name, _failure(answer.get("error")))
        else:
            self._withdrawn(record)

    def _withdrawn(self, record: StepRecord) -> None:
        self._put(record.name, **_LANDED)
        self._phase(record.name, Phase.WITHDRAWN, "failed", because="settled: it did not happen and will not")
        if record.intent is not None:
            self._closed_for(record.name, record.intent)
        elif record.turning is not None:
            self._turn_back(record.turning)

    def _closed_for(self, name: str, intent: Intent, *, asked: bool = True) -> None:
        """The operator's act decides how the saga goes on.

        Args:
            asked: the participant said that it will never do it. If not, the skipped step keeps the
                intent, and it may yet happen.
        """
        if intent.act == Act.COMPLETE:
            self._succeeded(name, intent.reply, by=intent)
        else:
            self._phase(
                name,
                Phase.SKIPPED,
                "skipped",
                changes={"intent": None if asked else intent},
                by=intent.by,
                reason=intent.reason,
            )
            self._advance()

    # ---- turning back -----------------------------------------------------------------------------

    def _turn_back(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.mattered = True
        self._compensate_next()

    def _compensate_next(self) -> None:
        """Undo the last step that is not undone; a parked one does not hold up those before it."""
        for step in reversed(self.saga.steps):
            record = self.records[step.name]
            undoing = record.phase in (
                Phase.COMPENSATING,
                Phase.UNDO_PAUSING,
                Phase.HANDING_OVER,
                Phase.HANDED_OVER,
            )
            if undoing and not record.parked:
                return
            if record.phase in _TO_UNDO and self._may_have_happened(step, record):
                if not step.undoable:
                    self._log(f"{step.name}.compensating", step.name)
                    self._phase(step.name, Phase.COMPENSATED, "compensated", nothing_to_undo=True)
                    continue
                self._undo(step)
                return
        if not any(record.parked for record in self.records.values()):
            self.status = Status.COMPENSATED
            self.mattered = True

    @staticmethod
    def _may_have_happened(step: AnyStep, record: StepRecord) -> bool:
        if isinstance(step, LocalStep):  # in a savepoint: what failed never was
            return record.phase is Phase.SUCCEEDED
        # Of what waits there is nothing to undo, and nothing is ever sent.
        return record.first_sent_at is not None  # rule 13

    def _undo(self, step: AnyStep) -> None:
        """Try the compensation: its first try, or the next one."""
        record = self.records[step.name]
        tries = record.tries + 1
        detail = {"try": tries} if tries > 1 else {}
        self._phase(
            step.name,
            Phase.COMPENSATING,
            "compensating",
            changes={"tries": tries, "resume_at": None},
            **detail,
        )
        if isinstance(step, LocalStep):
            self._run_local(step, Kind.UNDO)
            return
        assert isinstance(step, CommandStep)
        assert callable(step.compensation)
        try:
            undo = _built(step.compensation(self._state_copy()), step.command.compensation)
            payload = storable(undo.to_json())
        except Exception as error:
            if tries == 1:  # those after it stand in the history
                self.raised.append((step.name, error))
            self._undo_failed(self.records[step.name], error_payload(error))
            return
        self._put(step.name, deadline=record.deadline or self.at + step.timeout)
        self._send(step, Kind.UNDO, tries, undo.contract.task, payload)

    def _undid(self, record: StepRecord, attempt: int, reply: ReplyReceived) -> None:
        """An answer to the compensation, from any of its tries."""
        # HANDING_OVER: the row may be closed by our own settle, so "undone" proves nothing (rule 17).
        if record.phase not in (Phase.COMPENSATING, Phase.UNDO_PAUSING):
            self._ignore(reply, f"{record.name} is {record.phase.value}")
        elif reply.result is Result.SUCCESS:
            self._compensated(record.name)
        elif attempt != record.tries or record.phase is not Phase.COMPENSATING:
            self._ignore(reply, f"try {attempt} is over")
        elif (
            reply.result is Result.REFUSED
            or reply.error.get("type") == INBOX_ROW_MISSING
            or _without_inbox(self._step(record.name))  # where every failure is final (rule 11)
        ):
            self._put(
                record.name, flight=None, deadline=None, error=dict(reply.error), phase=Phase.UNDO_PAUSING
            )
            self._log(
                f"{record.name}.compensation_failed", record.name, **{"try": record.tries}, **reply.error
            )
            self._park(record.name, f"its compensation was refused ({_told(reply.error)})")
        else:
            self._undo_failed(record, reply.error)

    def _compensated(self, name: str, **how: Any) -> None:
        self._put(name, **_LANDED)
        self._phase(name, Phase.COMPENSATED, "compensated", **how)
        self._compensate_next()

    def _undo_failed(self, record: StepRecord, error: Mapping[str, str]) -> None:
        step = self._step(record.name)
        resume_at = self.at + step.undo_retry.pause_after(record.tries)
        self._phase(
            record.name,
            Phase.UNDO_PAUSING,
            "compensation_failed",
            changes={"flight": None, "error": dict(error), "resume_at": resume_at},
            **{"try": record.tries},
            next_at=resume_at.isoformat(),
            **error,
        )
        if record.tries >= step.undo_retry.attempts:
            self._park(
                record.name,
                f"its compensation failed {record.tries} times ({_told(error)}); it goes on being tried",
            )

    def _handed_over(self, record: StepRecord, verdict: SettleAnswer, answer: Mapping[str, Any]) -> None:
        intent = record.intent
        assert intent is not None
        self._put(record.name, flight=None, deadline=None, parked=None)
        if verdict is not SettleAnswer.YOURS_TO_UNDO:
            self._compensated(record.name, by=intent.by, reason=intent.reason, nothing_to_undo=True)
        elif intent.act == Act.SKIP:
            self._phase(
                record.name, Phase.SKIPPED, "skipped", by=intent.by, reason=intent.reason, effect="stays"
            )
            self._compensate_next()
        else:
            reply = answer.get("reply")
            self._phase(
                record.name, Phase.HANDED_OVER, "handed_over", by=intent.by, reason=intent.reason, reply=reply
            )
            self._park(
                record.name,
                f"it happened ({reply}) and is now yours to undo by hand; then complete it once more",
            )

    # ---- local steps ------------------------------------------------------------------------------

    def take_local(self, ran: LocalRan) -> None:
        step = self._step(ran.step)
        if ran.kind is Kind.DO:
            if ran.error is None:
                self.state = ran.state if ran.state is not None else self.state
                self._phase(step.name, Phase.SUCCEEDED, "succeeded", changes={"known": True, "error": None})
                self._advance()
            else:
                self._local_failed(step.name, ran.error)
        elif ran.error is None:
            self.state = ran.state if ran.state is not None else self.state
            self._compensated(step.name)
        else:
            self._undo_failed(self.records[step.name], ran.error)

    def _local_failed(self, name: str, error: Mapping[str, str]) -> None:
        if self._after_pivot(name):
            self._phase(name, Phase.BLOCKED, "failed", changes={"error": dict(error)}, **error)
            self._park(name, f"our own code raised after the pivot ({_told(error)}); repair it, then retry")
        else:
            self._put(name, error=dict(error))
            outcome = Outcome(OutcomeKind.FAILED, error.get("type", ""), error.get("message", ""), name)
            self._give_up(name, Phase.FAILED, outcome)

    # ---- time -------------------------------------------------------------------------------------

    def look_at_the_clock(self, timer: TimerFired) -> None:
        if not self.started:
            self.start()
            return
        if self.status.ended:
            self.ignored = "ended"
            return
        if self.deadline is not None and self.deadline <= self.at and not (self.late or self._undoing):
            self._expire()
        for name in list(self.records):
            record = self.records[name]
            if record.deadline is not None and record.deadline <= self.at:
                self._overdue(record)
                record = self.records[name]
            if record.resume_at is not None and record.resume_at <= self.at:
                self._resume(record)
                record = self.records[name]
            if (flight := record.flight) and flight.check_at is not None and flight.check_at <= self.at:
                self._look_for(record, flight, timer)
            if self.local is not None or self.status.ended:
                return  # the local step's result comes first; what else is due is found at the next look

    def _overdue(self, record: StepRecord) -> None:
        step = self._step(record.name)
        if isinstance(step, WaitStep):
            self._deadline_passed(record)
            return
        task = record.flight.task if record.flight else record.name
        told = f"{task}: no answer in {step.timeout.total_seconds():g} s"
        before_pivot = not self._after_pivot(record.name) and not self._is_pivot(record.name)
        self._put(record.name, deadline=None)
        if _without_inbox(step):
            self._outcome_unknown(record, told)
        elif record.phase in (Phase.RUNNING, Phase.PAUSING) and before_pivot:
            phase = Phase.UNKNOWN if record.phase is Phase.RUNNING else Phase.FAILED
            self._give_up(record.name, phase, Outcome(OutcomeKind.EXPIRED, "NoAnswer", told, record.name))
        elif record.phase in (Phase.RUNNING, Phase.PAUSING) and self._is_pivot(record.name):
            self._settle(record.name, turning=Outcome(OutcomeKind.EXPIRED, "NoAnswer", told, record.name))
        elif record.flight is not None and not self._too_old_to_send(record):
            # Nothing is given up: it is late, sent again for ever, and a person can see it (rule 15, 18).
            self._park(record.name, f"{told}; it goes on being sent")

    def _outcome_unknown(self, record: StepRecord, told: str) -> None:
        """Without an inbox nobody can be asked, and nothing is sent again: a person finds out (rule 11)."""
        if record.flight is None:
            return  # nothing of it is under way: our own code could not build its compensation
        if record.phase is Phase.COMPENSATING:
            if not self._command_step(record.name).undo_answers:
                told = f"{record.flight.task}: not confirmed by the broker"
            hand = "complete it if it is undone, retry to send it once more, or skip it"
        elif self._after_pivot(record.name):
            hand = "complete it if it happened; if not, retry or skip it"
        else:
            hand = "complete it if it happened, withdraw it if it did not"
        self._put(record.name, error=None)  # of a try before this one, of which nothing is known
        self._park(record.name, f"unknown outcome: {told}; find out by hand, then {hand}")

    def _resume(self, record: StepRecord) -> None:
        self._put(record.name, resume_at=None)
        step = self._step(record.name)
        parked = record.parked
        if record.phase is Phase.DELAYED:
            self._phase(record.name, Phase.SUCCEEDED, "succeeded")
            self._advance()
        elif record.phase is Phase.PAUSING and isinstance(step, CommandStep):
            self._attempt(step)
        elif record.phase is Phase.UNDO_PAUSING:
            self._undo(step)
        now = self.records[record.name]
        if now.flight and _without_inbox(step):
            # What is sent once is not in sight while it is under way: whoever pressed a button would make
            # it happen twice.
            self._put(record.name, parked=None)
        elif parked is not None and now.parked is None:
            self._put(record.name, parked=parked)  # it stays in sight until it has succeeded

    def _look_for(self, record: StepRecord, flight: Flight, timer: TimerFired) -> None:
        """Send again what is presumed lost; not what only waits its turn (rule 21)."""
        if self._too_old_to_send(record):
            return
        horizon = timer.horizons.get(flight.queue)
        lost = horizon is not None and flight.sent_at < horizon
        # A queue that moves comes to this message, or past it: then it is lost. From one that nobody
        # takes from, a copy would not be taken either.
        moved = horizon is not None and flight.horizon is not None and flight.horizon < horizon
        # Another orchestrator may have seen more than this one: going back to less is not moving.
        furthest = max((seen for seen in (flight.horizon, horizon) if seen is not None), default=None)
        stalled = 0 if moved or flight.queue in timer.unattended else flight.stalled + 1
        if lost or stalled >= self.policy.resend_cap:
            resends = flight.resends + 1
            check_at = self.at + self.policy.resend_pause(resends)
            flight = replace(
                flight,
                sent_at=self.at,
                check_at=check_at,
                resends=resends,
                pauses=0,
                horizon=horizon,
                stalled=0,
            )
            record = self._put(record.name, flight=flight)
            self.commands.append(self._outgoing(self._command_step(record.name), record, flight, again=True))
            why = "presumed lost" if lost else "unanswered for long"
            self.history.append(
                Recorded(self.at, f"{record.name}.sent_again", record.name, {"times": resends, "why": why})
            )
        else:
            pauses = flight.pauses + 1
            check_at = self.at + self.policy.resend_pause(flight.resends + pauses)
            looked = replace(flight, check_at=check_at, pauses=pauses, horizon=furthest, stalled=stalled)
            self._put(record.name, flight=looked)

    def note_unroutable(self, its_id: str) -> None:
        for record, flight in self._flights():
            if flight.message_id == its_id:
                self.history.append(
                    Recorded(self.at, f"{record.name}.unroutable", record.name, {"queue": flight.queue})
                )
                return
        self.ignored = "no longer in flight"

    def take_confirmation(self, its_id: str) -> None:
        """The broker has a compensation that nobody answers: there is no more to wait for (rule 11)."""
        for record, flight in self._flights():
            if flight.message_id == its_id and record.phase is Phase.COMPENSATING:
                self._compensated(record.name, because="sent, not acknowledged")
                return
        self.ignored = "no longer in flight"

    # ---- operators --------------------------------------------------------------------------------

    def obey(self, act: OperatorActed) -> None:
        if act.revision is not None and act.revision != self.before.revision:
            self._refuse(
                f"it was decided on revision {act.revision}, and the saga is at {self.before.revision} by "
                "now: read its history since, then decide again"
            )
        elif self.status.ended:
            self._refuse(f"the saga has ended: {self.status.value}")
        elif act.act is Act.CANCEL:
            self._cancel(act)
        elif act.act is Act.RESCHEDULE:
            self._reschedule(act)
        else:
            self._act_on_step(act)

    def _refuse(self, why: str) -> None:
        self.refused = True
        self.answer = why

    def _obeyed(self, act: OperatorActed, answer: str, step: str | None = None, **detail: Any) -> None:
        self.answer = answer
        force = act.force or None
        self._log(f"operator.{act.act.value}", step, by=act.by, reason=act.reason, force=force, **detail)

    def _reschedule(self, act: OperatorActed) -> None:
        """Move the moment at which a wait, a delay or the whole saga is over (rule 29)."""
        until = act.until
        if until is None or until.tzinfo is None:
            self._refuse("say until when, with a time zone")
        elif act.step is not None:
            self._reschedule_step(act, act.step, until)
        elif self._undoing:
            self._refuse("the saga is being undone already: its deadline means nothing any more")
        elif self.deadline is None:
            waiting = [r.name for r in self.records.values() if r.phase in (Phase.WAITING, Phase.DELAYED)]
            told = f"; name the step that waits: {', '.join(waiting)}" if waiting else ""
            self._refuse(f"the saga has no deadline of its own{told}")
        else:
            was, self.deadline, self.late = self.deadline, until, False
            self._obeyed(
                act, f"the saga's deadline is {_at(until)} now", was=was.isoformat(), until=until.isoformat()
            )

    def _reschedule_step(self, act: OperatorActed, name: str, until: datetime) -> None:
        record = self.records.get(name)
        if record is None:
            self._refuse(f"the saga has no step {name!r}; it has: {', '.join(self.records)}")
            return
        waits = record.phase in (Phase.WAITING, Phase.DELAYED)
        was = record.deadline if record.phase is Phase.WAITING else record.resume_at
        if not waits or was is None:
            stands = "waits without a deadline" if waits else f"is {record.phase.value}"
            self._refuse(f"{name} {stands}: it has no moment that could be moved")
            return
        self._put(name, **{"deadline" if record.phase is Phase.WAITING else "resume_at": until})
        detail = {"was": was.isoformat(), "until": until.isoformat()}
        self._obeyed(act, f"{name} waits until {_at(until)} now", name, **detail)

    def _cancel(self, act: OperatorActed) -> None:
        outcome = Outcome(OutcomeKind.CANCELLED, "Cancelled", act.reason)
        if self._undoing:
            self._refuse("the saga is being undone already")
            return
        current = self._current()
        if current is not None and self._cannot_be_taken_back(current):
            return
        if current is not None and self.saga.index(current.name) >= self.saga.pivot:
            if not self._is_pivot(current.name) or current.phase is Phase.ANSWERED:
                self._refuse("the saga is past its pivot: it can only go forward")
                return
            if current.phase is Phase.SETTLING and act.force:
                self._obeyed(act, "taken as never happened, without asking its participant", current.name)
                self._put(current.name, **_LANDED)
                self._phase(
                    current.name, Phase.WITHDRAWN, "failed", by=act.by, reason=act.reason, forced=True
                )
                self._turn_back(outcome)
                return
            if current.phase is Phase.SETTLING:
                self._refuse("the pivot is being settled already, and its answer decides; or use force")
                return
            if current.first_sent_at is not None:
                self._obeyed(act, "the pivot is in flight: its participant is asked first", current.name)
                self._settle(current.name, turning=outcome)
                return
        if current is None and self.records[self.saga.steps[-1].name].phase is not Phase.PENDING:
            self._refuse("nothing is left to cancel")
            return
        self._obeyed(act, "cancelled: what was done is being undone")
        if not self.started:
            self._note_what_the_caller_did()
        self.started = True
        if current is not None:
            phase = Phase.UNKNOWN if current.flight else Phase.FAILED
            self._give_up(current.name, phase, outcome)
        else:
            self._turn_back(outcome)

    def _note_what_the_caller_did(self) -> None:
        """The first steps without an action stand for what was committed together with the saga."""
        for step in self.saga.steps:
            if not isinstance(step, LocalStep) or step.action is not None:
                return
            if self.records[step.name].phase is not Phase.PENDING:
                continue
            if self._surely_did_not(step):
                self._phase(step.name, Phase.LEFT_OUT, "left_out")
            else:
                self._phase(step.name, Phase.SUCCEEDED, "succeeded", changes={"known": True})

    def _surely_did_not(self, step: AnyStep) -> bool:
        try:
            return step.when is not None and not step.when(self._state_copy())
        except Exception:
            return False  # what may have happened is undone

    def _cannot_be_taken_back(self, current: StepRecord) -> bool:
        """Refuse to cancel while nobody knows whether a step without an inbox happened (rule 11)."""
        step = self._step(current.name)
        if not _without_inbox(step) or current.phase is not Phase.RUNNING or self._after_pivot(current.name):
            return False
        if current.parked:
            after = "" if self._is_pivot(current.name) else ", then cancel what comes after it"
            self._refuse(
                f"nobody knows whether {current.name} happened: withdraw it if it did not, and the saga "
                f"turns back; complete it if it did{after}"
            )
        else:
            self._refuse(
                f"{current.name} was sent to {_service(self._command_step(current.name))}, which keeps no "
                f"inbox, so it cannot be taken back: wait for its answer, or for its timeout"
                f"{f' at {current.deadline:%H:%M:%S} UTC' if current.deadline else ''}; "
                "then say whether it happened"
            )
        return True

    def _current(self) -> StepRecord | None:
        """The step at which a saga that goes forward stands."""
        for record in self.records.values():
            if record.phase in _FORWARD or (record.phase is Phase.REFUSED and record.parked):
                return record
        return None

    def _act_on_step(self, act: OperatorActed) -> None:
        record = self._target(act)
        if record is None:
            return
        step = self._step(record.name)
        if _without_inbox(step) and record.flight is not None and not record.parked:
            # Not even with force: sent once more now, or undone by hand, it would happen twice.
            what = "its compensation" if record.phase is Phase.COMPENSATING else record.name
            self._refuse(f"{what} is in flight: wait for its answer, or for its timeout")
        elif _without_inbox(step) and record.phase is Phase.RUNNING:
            self._say_what_happened(act, record, self._command_step(record.name))
        elif act.act is Act.WITHDRAW:
            self._refuse(
                f"{record.name} is {record.phase.value}: only a step whose participant keeps no inbox, and "
                "which was not answered in time, is withdrawn"
            )
        elif record.phase in (Phase.SETTLING, Phase.HANDING_OVER) and not act.force:
            if act.act is Act.RETRY and record.flight is None:
                self._obeyed(act, "asking the participant again", record.name)
                handing = record.phase is Phase.HANDING_OVER
                self._settle(record.name, turning=record.turning, intent=record.intent, hand_over=handing)
                return
            self._refuse(
                f"{record.name} is being settled with its participant; wait for the answer, or use force"
            )
        elif act.act is Act.RETRY:
            self._retry(act, record, step)
        elif record.phase in _BACKWARD or record.phase is Phase.HANDING_OVER:
            self._take_over_undo(act, record, step)
        elif self._is_pivot(record.name) and act.act is Act.SKIP and record.phase is not Phase.ANSWERED:
            self._refuse(
                f"{record.name} is the pivot: with force, complete it if it happened, or cancel if it did not"
            )
        elif (
            not self._after_pivot(record.name)
            and record.phase is not Phase.ANSWERED
            and not (act.force and (record.parked or record.phase is Phase.SETTLING))
        ):
            self._refuse(f"{record.name} is not past the pivot: cancel the saga, or let it go on")
        else:
            self._take_over_step(act, record, step)

    def _say_what_happened(self, act: OperatorActed, record: StepRecord, step: CommandStep[Any]) -> None:
        """A person's word on a step without an inbox that was not answered. Nobody else can be asked."""
        name, after = record.name, self._after_pivot(record.name)
        if act.act is Act.COMPLETE:
            if self._fitting_reply(act, record, step):
                self._obeyed(act, f"{name}: it happened", name)
                self._succeeded(name, act.reply, by=Intent(act.act.value, act.by, act.reason))
        elif act.act is Act.WITHDRAW and after:
            self._refuse(f"{name} is past the pivot, where nothing turns back: retry or skip it")
        elif act.act is Act.WITHDRAW:
            told = f"{step.command.contract.task}: no answer in {step.timeout.total_seconds():g} s"
            self._obeyed(act, f"{name}: it did not happen", name)
            self._put(name, **_LANDED)
            self._phase(name, Phase.WITHDRAWN, "failed", by=act.by, reason=act.reason, by_hand=True)
            self._turn_back(Outcome(OutcomeKind.EXPIRED, "NoAnswer", told, name))
        elif not after:
            self._refuse(
                f"{name} is not past the pivot: complete it if it happened, withdraw it if it did not"
            )
        elif act.act is Act.RETRY:
            self._retry(act, record, step)
        else:
            self._obeyed(act, f"{name}: done by hand", name)
            self._put(name, **_LANDED)
            self._closed_for(name, Intent(act.act.value, act.by, act.reason), asked=False)

    def _target(self, act: OperatorActed) -> StepRecord | None:
        if act.step is not None:
            if act.step not in self.records:
                self._refuse(f"the saga has no step {act.step!r}; it has: {', '.join(self.records)}")
                return None
            record = self.records[act.step]
            waits = record.phase in (Phase.PAUSING, Phase.UNDO_PAUSING, Phase.HANDED_OVER)
            if not record.parked and not waits and not (act.force and record.flight):
                self._refuse(
                    f"{record.name} is {record.phase.value}, which needs no person: "
                    f"nothing to {act.act.value}"
                )
                return None
            return record
        waiting = [r for r in self.records.values() if r.parked]
        waiting = waiting or [
            r for r in self.records.values() if r.phase in (Phase.PAUSING, Phase.UNDO_PAUSING)
        ]
        if not waiting:
            self._refuse(f"no step is parked or pausing: nothing to {act.act.value}")
            return None
        if len(waiting) > 1:
            self._refuse(f"more than one step waits; name one: {', '.join(r.name for r in waiting)}")
            return None
        return waiting[0]

    def _retry(self, act: OperatorActed, record: StepRecord, step: AnyStep) -> None:
        match record.phase:
            case Phase.REFUSED if isinstance(step, WaitStep):
                self._refuse(f"{record.name} was told no, and would be again: complete or skip it")
            case Phase.REFUSED if not _without_inbox(step):
                self._refuse(
                    f"{record.name} was refused, and its participant will say so again: complete or skip it"
                )
            case Phase.HANDED_OVER:
                self._refuse(f"{record.name} was handed over to you: undo it by hand, then complete it")
            case Phase.ANSWERED if isinstance(step, WaitStep):
                self._obeyed(act, "what came is taken again", record.name)
                self._take(record.name, dict(record.reply or {}))
            case Phase.ANSWERED:
                self._obeyed(act, "the reply is taken again", record.name)
                self._put(record.name, parked=None)
                self._succeeded(record.name, record.reply)
            case Phase.COMPENSATING | Phase.UNDO_PAUSING:
                self._obeyed(act, f"compensation, try {record.tries + 1}", record.name)
                self._put(record.name, parked=None, deadline=None)
                self._undo(step)
            case Phase.RUNNING | Phase.PAUSING | Phase.BLOCKED | Phase.REFUSED:
                self._obeyed(act, f"try {record.attempts + 1}", record.name)
                self._put(record.name, parked=None, deadline=None)
                self._begin(step)
                self._advance()
            case _:
                self._refuse(f"{record.name} is {record.phase.value}: nothing to retry")

    def _take_over_step(self, act: OperatorActed, record: StepRecord, step: AnyStep) -> None:
        """Skip or complete a step after the pivot by hand, once its participant can no longer do it."""
        if (
            isinstance(step, CommandStep)
            and act.act is Act.COMPLETE
            and record.phase is not Phase.ANSWERED
            and not self._fitting_reply(act, record, step)
        ):
            return
        intent = Intent(act.act.value, act.by, act.reason, act.reply)
        closed = record.first_sent_at is None or record.phase in (Phase.REFUSED, Phase.ANSWERED)
        if isinstance(step, CommandStep) and step.has_inbox and not closed and not act.force:
            self._obeyed(act, f"asking {_service(step)} first how {record.name} stands", record.name)
            self._settle(record.name, intent=intent)
            return
        self._obeyed(act, f"{record.name}: done by hand", record.name)
        self._put(record.name, **_LANDED)
        if record.phase is Phase.ANSWERED or (
            not isinstance(step, CommandStep) and act.act is Act.COMPLETE
        ):  # it happened: whatever the act's name, going on keeps its effect
            self._phase(record.name, Phase.SUCCEEDED, "succeeded", by=act.by, reason=act.reason, by_hand=True)
            self._advance()
        else:
            self._closed_for(record.name, intent, asked=closed)

    def _fitting_reply(self, act: OperatorActed, record: StepRecord, step: CommandStep[Any]) -> bool:
        """Whether the operator gave a reply that the command could have had; if not, it is refused."""
        try:
            _reply(step.command, act.reply)
        except ValidationError as error:
            self._refuse(
                f"completing {record.name} needs the reply that it would have had, a "
                f"{step.command.reply_type().__name__}: {_first_error(error)}"
            )
            return False
        if step.command.answers_anything and not act.force:
            try:  # no contract describes a task's result, so whoever takes it is asked
                self._state_after(step, act.reply)
            except Exception as error:
                self._refuse(
                    f"completing {record.name} needs the result that {step.command.contract.task} would have "
                    f"had, and on_success cannot take this one ({_told(error_payload(error))}); with force "
                    "that counts as a fault of our own code"
                )
                return False
        return True

    def _take_over_undo(self, act: OperatorActed, record: StepRecord, step: AnyStep) -> None:
        """Skip or complete a compensation by hand, once its participant can no longer undo it as well."""
        if not _has_inbox(step) or act.force or record.phase is Phase.HANDED_OVER:
            self._obeyed(act, f"{record.name}: done by hand", record.name)
            if act.act is Act.COMPLETE:
                self._compensated(
                    record.name, by=act.by, reason=act.reason, by_hand=True, forced=act.force or None
                )
                return
            self._put(record.name, **_LANDED)
            self._phase(
                record.name, Phase.SKIPPED, "skipped", by=act.by, reason=act.reason, effect="may stay"
            )
            self._compensate_next()
            return
        assert isinstance(step, CommandStep)
        self._obeyed(act, f"asking {_service(step)} first whether there is something to undo", record.name)
        self._settle(record.name, intent=Intent(act.act.value, act.by, act.reason), hand_over=True)


# A step whose answer has come: nothing in flight, no timer, no person needed.
_LANDED: Final[dict[str, Any]] = {
    "flight": None,
    "deadline": None,
    "resume_at": None,
    "parked": None,
    "intent": None,
    "turning": None,
}


def _has_inbox(step: AnyStep) -> bool:
    """Whether there is a participant that can be asked how the step stands."""
    return isinstance(step, CommandStep) and step.has_inbox


def _without_inbox(step: AnyStep) -> bool:
    """Whether a participant does the step that is at most once (rule 11)."""
    return isinstance(step, CommandStep) and not step.has_inbox


def _service(step: CommandStep[Any]) -> str:
    """Name of the service that a step asks."""
    return step.command.contract.service.name


def error_payload(error: BaseException) -> dict[str, str]:
    """The failure payload: ``type``, ``message``, ``module``. Never a traceback: peers must not read it."""
    try:
        message = str(error)
    except Exception:  # an error whose text raises is told by its type alone
        message = ""
    # PostgreSQL keeps neither NUL nor the lone surrogates of a file name that is no UTF-8.
    message = message.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()
    return {"type": type(error).__name__, "message": message, "module": type(error).__module__}


_STRICT: Final = json.JSONEncoder(allow_nan=False, ensure_ascii=False)


def storable(value: J) -> J:
    """The value, if it is JSON that every database keeps.

    Raises:
        ValueError: it holds NaN, an infinity, NUL or half a surrogate pair.
    """
    text = _STRICT.encode(value)
    if not text.isascii():
        text.encode()
    if "\\u0000" in text:
        raise ValueError("NUL cannot be stored")
    return value


def _failure(sent: object) -> dict[str, str]:
    """What a participant sent as a failure, whatever else it put there (old ones add a traceback)."""
    error = sent if isinstance(sent, Mapping) else {}
    return {part: str(error[part]) for part in ("type", "message", "module") if error.get(part) is not None}


def _told(error: Mapping[str, str]) -> str:
    return ": ".join(part for part in (error.get("type"), error.get("message")) if part)


def _built(
    made: object, wanted: type[Command[Any]] | type[Compensation[Any]] | None
) -> Command[Any] | Compensation[Any]:
    if wanted is None or not isinstance(made, wanted):
        name = wanted.__name__ if wanted else "a compensation"
        raise DefinitionError(f"the hook made {made!r}, not {name}")
    return made


def _reply(command: type[Command[Any]], payload: Any) -> Any:
    payload = copied(payload)  # the same answer may be decided again
    if command.answers_anything:
        return payload
    wanted = command.reply_type()
    return wanted.model_validate(payload) if issubclass(wanted, BaseModel) else None


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"]) or "$"
    return f"{path}: {first['msg']}"
