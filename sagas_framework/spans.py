"""What is decided, sent and handled, as spans and measurements; nothing here decides anything.

A span is made when what it tells of is over, and begins at the time that the row has kept: so a wait of a day
is one span, whichever process saw its beginning, and none is kept in memory. All spans of a saga are below
the span of its start, whose context its row keeps; a participant's are below the sending that they answer.

Values of the business (payloads, keys, messages of errors) are in none of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import datetime
from time import perf_counter
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

from sagas_framework.core.events import (
    Decision,
    Event,
    LocalCall,
    OperatorActed,
    Outgoing,
    Recorded,
    ReplyReceived,
    Result,
    SignalReceived,
    TimerFired,
)
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import Stored
from sagas_framework.core.instance import OutcomeKind, Phase, SagaInstance, StepRecord
from sagas_framework.telemetry import NOWHERE, Carrier, Telemetry, active, carried_by, nanoseconds

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span

Turn = tuple[Event, SagaInstance, Decision]
"""What happened, the instance before it, and what was decided."""

_SYSTEM: Final = "messaging.system"
_OPERATION: Final = "messaging.operation.type"
_DESTINATION: Final = "messaging.destination.name"
_MESSAGE: Final = "messaging.message.id"
_KINDS: Final = {Kind.DO: "step", Kind.UNDO: "compensate", Kind.SETTLE: "settle"}
# Lines of the history that begin something, or say that it goes on.
_BEGINNINGS: Final = frozenset({"running", "sent_again", "unroutable", "waiting", "delayed", "compensating"})
_WENT_WRONG: Final = frozenset({"failed", "attempt_failed", "compensation_failed"})


# ---- starting -------------------------------------------------------------------------------------


def begin_starts(telemetry: Telemetry, instances: Sequence[SagaInstance]) -> list[tuple[Span, Carrier]]:
    """For each instance that is to be started, the span of its start and its context; see `end_starts`."""
    spans = [
        telemetry.span(f"start {one.saga}", "PRODUCER", None, {"saga.name": one.saga}) for one in instances
    ]
    return [(span, telemetry.carrier(span)) for span in spans]


def end_starts(
    telemetry: Telemetry, begun: Sequence[tuple[Span, Carrier]], runs: Sequence[tuple[str, str, int, bool]]
) -> None:
    """They were started, or had been: each has an id, its saga's name and version, and may be new."""
    for (span, _), (saga_id, saga, version, new) in zip(begun, runs, strict=True):
        span.set_attributes({"saga.id": saga_id, "saga.version": version, "saga.new": new})
        span.end()
        if new:
            telemetry.started.add(1, {"saga": saga})


# ---- the orchestrator -----------------------------------------------------------------------------


def local_step(instance: SagaInstance, call: LocalCall) -> AbstractContextManager[Any]:
    """Around the work of a local step; it is the current span meanwhile."""
    telemetry = active()
    return nullcontext() if telemetry is None else _local_step(telemetry, instance, call)


@contextmanager
def _local_step(telemetry: Telemetry, instance: SagaInstance, call: LocalCall) -> Iterator[None]:
    undo = call.kind is Kind.UNDO
    span = telemetry.span(
        f"{'compensate' if undo else 'step'} {call.step}",
        "INTERNAL",
        telemetry.of_saga(instance.id, instance.trace),
        _of(instance) | {"saga.step": call.step, "saga.local": True},
    )
    begun = perf_counter()
    result = "compensated" if undo else "succeeded"
    with telemetry.current(span):
        try:
            yield
        except Exception as error:
            result = "compensation_failed" if undo else "failed"
            telemetry.fail(span, type(error).__name__)
            raise
        finally:
            span.set_attribute("saga.result", result)
            _measure_step(telemetry, instance, call.step, call.kind, result, perf_counter() - begun)


def sending(
    telemetry: Telemetry, commands: Sequence[Outgoing], turns: Sequence[Turn]
) -> list[tuple[Span, Carrier]]:
    """For each command, the span of its sending and the context that it carries; see `end_sending`."""
    instances = {decision.instance.id: decision.instance for _, _, decision in turns}
    return [_sending(telemetry, one, instances.get(one.saga_id)) for one in commands]


def _sending(telemetry: Telemetry, one: Outgoing, instance: SagaInstance | None) -> tuple[Span, Carrier]:
    again = one.again
    told = {} if instance is None else _of(instance)
    if instance is not None:
        whose = {"saga": instance.saga, "task": one.task}
        if again:
            telemetry.resends.add(1, whose)
        elif one.attempt > 1:
            telemetry.retries.add(1, whose)
    span = telemetry.span(
        f"send {one.task}{' again' if again else ''}",
        "PRODUCER",
        telemetry.of_saga(one.saga_id, None if instance is None else instance.trace),
        told | _of_message("send", one.queue, one.message_id) | {"saga.attempt": one.attempt},
    )
    return span, telemetry.carrier(span)


def end_sending(
    telemetry: Telemetry, sent: Sequence[tuple[Span, Carrier]], receipts: Sequence[str], confirmed: str
) -> None:
    """The broker said of each what became of it."""
    for (span, _), receipt in zip(sent, receipts, strict=True):
        if receipt != confirmed:
            telemetry.fail(span, receipt)
        span.end()


def tell(telemetry: Telemetry, turns: Sequence[Turn], committed_at: datetime) -> None:
    """What these turns ended: a span for each, made after the commit."""
    for event, before, decision in turns:
        _Teller(telemetry, event, before, decision).tell(committed_at)


class _Period(NamedTuple):
    """What goes on with a step, and since when. Two with the same `mark` are the same one."""

    what: str
    mark: object
    since: datetime
    kind: Kind | None = None
    attempt: int | None = None


class _Teller:
    """Tells of one turn."""

    def __init__(self, telemetry: Telemetry, event: Event, before: SagaInstance, decision: Decision) -> None:
        self._telemetry = telemetry
        self._event = event
        self._before = before
        self._decision = decision
        self._after = decision.instance
        self._parent = telemetry.of_saga(before.id, before.trace)

    def tell(self, committed_at: datetime) -> None:
        telemetry, event, before, after = self._telemetry, self._event, self._before, self._after
        if isinstance(event, ReplyReceived):
            telemetry.commit_duration.record((committed_at - event.at).total_seconds(), {"saga": after.saga})
            if self._decision.ignored is not None:
                telemetry.late_replies.add(1, {"saga": after.saga})
                self._moment(f"late reply to {event.task}", links=telemetry.links(event.trace))
        elif isinstance(event, TimerFired) and before.due_at is not None:
            lag = max((event.at - before.due_at).total_seconds(), 0.0)
            telemetry.lag.record(lag, {"saga": after.saga})
        elif isinstance(event, OperatorActed) and not self._decision.refused:
            self._moment(f"operator {event.act.value}", {"saga.step": event.step})
        if after is before:
            return
        for name, record in after.steps.items():
            was = before.steps.get(name)
            if was is not None and was is not record:
                self._step(was, record)
        if after.status.ended and not before.status.ended:
            self._end()

    def _step(self, was: StepRecord, now: StepRecord) -> None:
        going_on = {period.mark for period in _periods(now, self._after)}
        for period in _periods(was, self._before):
            if period.mark not in going_on:
                self._period(period, was, now)

    def _period(self, period: _Period, was: StepRecord, now: StepRecord) -> None:
        telemetry, event = self._telemetry, self._event
        line = self._said_of(was.name)
        result = "" if line is None else line.entry.removeprefix(f"{was.name}.")
        if now.phase is Phase.REFUSED:
            result = "refused"
        links: Sequence[Link] = ()
        if isinstance(event, ReplyReceived | SignalReceived):
            links = telemetry.links(event.trace)
        span = telemetry.span(
            f"{period.what} {was.name}",
            "INTERNAL",
            self._parent,
            _of(self._after)
            | {"saga.step": was.name, "saga.attempt": period.attempt, "saga.result": result or None},
            start=period.since,
            links=links,
        )
        why = None if line is None else line.detail.get("type")
        if result in _WENT_WRONG:
            telemetry.fail(span, str(why or result))
        elif result == "refused" and why:
            span.set_attribute("saga.refusal", str(why))
        self._finish(span, event.at)
        if period.kind in (Kind.DO, Kind.UNDO):
            lasted = (event.at - period.since).total_seconds()
            _measure_step(telemetry, self._after, was.name, period.kind, result, lasted)

    def _said_of(self, step: str) -> Recorded | None:
        """The line of the history that says how it went on with the step."""
        for line in self._decision.history:
            if line.step == step and line.entry.removeprefix(f"{step}.") not in _BEGINNINGS:
                return line
        return None

    def _end(self) -> None:
        telemetry, after = self._telemetry, self._after
        outcome = OutcomeKind.OK if after.outcome is None else after.outcome.kind
        ended_at = after.ended_at or self._event.at
        told = {"saga.status": after.status.value, "saga.outcome": outcome.value}
        span = telemetry.span(
            f"saga {after.saga}", "INTERNAL", self._parent, _of(after) | told, start=after.created_at
        )
        if outcome is OutcomeKind.FAILED and after.outcome is not None:
            telemetry.fail(span, after.outcome.name or outcome.value)
        self._finish(span, ended_at)
        whose = {"saga": after.saga, "status": after.status.value, "outcome": outcome.value}
        telemetry.ended.add(1, whose)
        telemetry.duration.record(max((ended_at - after.created_at).total_seconds(), 0.0), whose)

    def _moment(self, name: str, told: Mapping[str, Any] | None = None, links: Sequence[Link] = ()) -> None:
        at = self._event.at
        span = self._telemetry.span(
            name, "INTERNAL", self._parent, _of(self._after) | dict(told or {}), start=at, links=links
        )
        self._finish(span, at)

    def _finish(self, span: Span, at: datetime) -> None:
        span.end(nanoseconds(at))


def _periods(record: StepRecord, instance: SagaInstance) -> Iterator[_Period]:
    """What goes on with the step, if anything does."""
    if record.parked:
        yield _Period("parked", record.parked, _since(record, instance))
    flight = record.flight
    if flight is not None:
        yield _Period(_KINDS[flight.kind], flight.message_id, flight.since, flight.kind, flight.attempt)
    elif record.phase is Phase.WAITING:
        yield _Period("wait", Phase.WAITING, _since(record, instance))
    elif record.phase is Phase.DELAYED:
        yield _Period("delay", Phase.DELAYED, _since(record, instance))
    elif record.phase in (Phase.PAUSING, Phase.UNDO_PAUSING):
        yield _Period("pause", (record.phase, record.attempts, record.tries), _since(record, instance))


def _since(record: StepRecord, instance: SagaInstance) -> datetime:
    """When it began, as far as the row knows: it notes since when the saga waits for the most pressing."""
    waiting = instance.waiting
    if waiting is not None and waiting.what == record.name:
        return waiting.since
    return instance.updated_at


def _of(instance: SagaInstance) -> dict[str, Any]:
    return {"saga.name": instance.saga, "saga.version": instance.version, "saga.id": instance.id}


def _of_message(operation: str, queue: str, message_id: str) -> dict[str, Any]:
    return {_SYSTEM: "celery", _OPERATION: operation, _DESTINATION: queue, _MESSAGE: message_id}


def _measure_step(
    telemetry: Telemetry, instance: SagaInstance, step: str, kind: Kind, result: str, seconds: float
) -> None:
    whose = {"saga": instance.saga, "step": step, "kind": _KINDS[kind], "result": result}
    telemetry.step_duration.record(max(seconds, 0.0), whose)


# ---- participants ---------------------------------------------------------------------------------


class Handled:
    """Around what a participant does about a command; its span is the current one meanwhile.

    Args:
        carried: the context that the command came with.
        how: what was judged: it executes, answers from its row, ...

    Attributes:
        answer: the context that the reply carries.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        carried: Carrier,
        saga_id: str,
        task: str,
        queue: str,
        message_id: str,
        how: str,
    ) -> None:
        self._telemetry = telemetry
        self._span = telemetry.span(
            f"process {task}",
            "CONSUMER",
            telemetry.of_saga(saga_id, carried),
            {"saga.id": saga_id, "saga.verdict": how} | _of_message("process", queue, message_id),
        )
        self._whose = {"task": task, "verdict": how}
        self._result = "unanswered"
        self._begun = perf_counter()
        self.answer: Carrier = telemetry.carrier(self._span)

    def said(self, stored: object) -> None:
        """What it was answered with; nothing yet if that is a promise."""
        if not isinstance(stored, Stored):
            self._result = "unanswered" if stored is None else Result.SUCCESS.value
            return
        self._result = stored.result.value
        if stored.result is Result.FAILED and isinstance(stored.payload, Mapping):
            self._telemetry.fail(self._span, str(stored.payload.get("type", self._result)))

    def __enter__(self) -> Self:
        self._block = self._telemetry.current(self._span)
        self._block.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        self._span.set_attribute("saga.result", self._result)
        whose = self._whose | {"result": self._result}
        self._telemetry.handled.record(perf_counter() - self._begun, whose)
        self._block.__exit__(*raised)


# ---- events ---------------------------------------------------------------------------------------


def said(name: str, attributes: Mapping[str, Any]) -> Carrier:
    """The context of something that is written down to be sent later; empty if nothing is traced."""
    telemetry = active()
    if telemetry is None:
        return NOWHERE
    span = telemetry.span(name, "PRODUCER", None, attributes)
    span.end()
    return telemetry.carrier(span)


def told_by(headers: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Around what a message from elsewhere has us say: it is said below its sender's context."""
    telemetry = active()
    return nullcontext() if telemetry is None else telemetry.below(carried_by(headers))


def subscribing(
    carried: Carrier | None, subscriber: str, topic: str, event_id: str, attempt: int
) -> AbstractContextManager[Any]:
    """Around a subscriber's work on an event; it is the current span meanwhile."""
    telemetry = active()
    if telemetry is None:
        return nullcontext()
    span = telemetry.span(
        f"process {topic}",
        "CONSUMER",
        telemetry.context(carried or NOWHERE),
        {"saga.subscriber": subscriber, "saga.attempt": attempt} | _of_message("process", topic, event_id),
    )
    return _failing(telemetry, span)


@contextmanager
def _failing(telemetry: Telemetry, span: Span) -> Iterator[None]:
    with telemetry.current(span):
        try:
            yield
        except Exception as error:
            telemetry.fail(span, type(error).__name__)
            raise
