"""One run of a saga as a value, and its form as JSON in the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

from sagas_framework.core.ids import Kind
from sagas_framework.core.records import made_of, replace


class Status(StrEnum):
    """Where a saga stands; *why* is its `Outcome`."""

    RUNNING = "running"
    COMPENSATING = "compensating"
    COMPLETED = "completed"
    COMPENSATED = "compensated"
    PARKED = "parked"

    @property
    def ended(self) -> bool:
        return self in (Status.COMPLETED, Status.COMPENSATED)


class OutcomeKind(StrEnum):
    """Why a saga ended, or turned back, as it did."""

    OK = "ok"
    REFUSED = "refused"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Outcome:
    """The reason in a form for machines (`kind`, `name`) and people (`message`)."""

    kind: OutcomeKind
    name: str = ""
    message: str = ""
    step: str = ""

    def to_json(self) -> dict[str, str]:
        return {"kind": self.kind.value, "name": self.name, "message": self.message, "step": self.step}

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> Outcome:
        return cls(OutcomeKind(value["kind"]), value["name"], value["message"], value["step"])


class Phase(StrEnum):
    """Where one step stands."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSING = "pausing"  # an attempt failed; the next one comes after a pause
    BLOCKED = "blocked"  # after the pivot, our own code raised before anything was sent
    ANSWERED = "answered"  # it succeeded, but our own code could not take the reply
    WAITING = "waiting"  # for a signal, or for its deadline
    DELAYED = "delayed"  # until a moment
    SETTLING = "settling"  # the participant is asked how it stands, and to close it
    SUCCEEDED = "succeeded"
    REFUSED = "refused"
    FAILED = "failed"
    UNKNOWN = "unknown"  # given up without an answer: it may have happened, or may still
    WITHDRAWN = "withdrawn"  # settled: it did not happen and never will
    SKIPPED = "skipped"
    LEFT_OUT = "left_out"  # its condition did not hold when it was next, or the saga ended before it
    COMPENSATING = "compensating"
    UNDO_PAUSING = "undo_pausing"  # a try of its compensation failed; the next one comes after a pause
    HANDING_OVER = "handing_over"  # an operator takes the undoing over: the participant closes its row
    HANDED_OVER = "handed_over"  # it happened, and undoing it is now the operator's
    COMPENSATED = "compensated"


@dataclass(frozen=True)
class Flight:
    """A message sent and not yet answered.

    Args:
        sent_at: when it was last decided to send it.
        since: when it was first decided to.
        check_at: when to look next whether it was lost; None for what is never sent again.
        resends: how often it was sent again.
        pauses: looks since the last sending that found it only waiting its turn.
        horizon: of its queue, the furthest that a look since the last sending has found; None if none
            has found one (`sagas_framework.core.lost`).
        stalled: looks in a row that found the queue attended, and its horizon not beyond that.
    """

    kind: Kind
    attempt: int
    message_id: str
    task: str
    queue: str
    sent_at: datetime
    since: datetime
    check_at: datetime | None
    resends: int = 0
    pauses: int = 0
    horizon: datetime | None = None
    stalled: int = 0
    payload: dict[str, Any] | None = None
    hand_over: bool = False


@dataclass(frozen=True)
class Intent:
    """What an operator asked for, kept until the participant has said how the step stands."""

    act: str
    by: str
    reason: str
    reply: Any = None


@dataclass(frozen=True)
class StepRecord:
    """What the row knows of one step.

    Args:
        attempts: of the command, so far; 0 when it was never sent.
        tries: of the compensation.
        settles: how often it was settled anew.
        first_sent_at: when the command was first committed; None means it never left.
        deadline: when the answer in hand counts as timed out (or late); of a wait, when it is over.
        resume_at: when the pause, or the delay, is over.
        known: whether the saga saw it succeed (what a compensation says of it).
        parked: why a person must look, if so.
        reply: what came; of a wait ``{"signal": name, "payload": ...}``, or ``{"deadline": moment}``.
        turning: why the saga turns back if settling finds that nothing happened.
        known_as: the name under which its participant knows the step, if it had another one when the
            saga was begun (`sagas_framework.core.evolving`).
    """

    name: str
    phase: Phase = Phase.PENDING
    attempts: int = 0
    tries: int = 0
    settles: int = 0
    flight: Flight | None = None
    first_sent_at: datetime | None = None
    deadline: datetime | None = None
    resume_at: datetime | None = None
    known: bool = False
    parked: str | None = None
    error: dict[str, str] | None = None
    request: dict[str, Any] | None = None
    reply: dict[str, Any] | None = None
    intent: Intent | None = None
    turning: Outcome | None = None
    known_as: str = ""

    @property
    def identity(self) -> str:
        """The name from which the ids of its messages and its operation derive: it never changes."""
        return self.known_as or self.name

    @property
    def due_at(self) -> datetime | None:
        """The next moment at which time alone changes something."""
        first, flight = self.deadline, self.flight
        if self.resume_at is not None and (first is None or self.resume_at < first):
            first = self.resume_at
        if flight is not None and flight.check_at is not None and (first is None or flight.check_at < first):
            first = flight.check_at
        return first


class Cause(StrEnum):
    """What would move a saga."""

    START = "start"  # an orchestrator that takes it up
    ANSWER = "answer"  # the reply of a participant
    PAUSE = "pause"  # the next try, after one that failed
    PERSON = "person"  # an operator: it is parked
    SIGNAL = "signal"  # somebody outside
    TIME = "time"  # the moment until which a step delays it
    TURN = "turn"  # an orchestrator's next look at it


@dataclass(frozen=True)
class Waiting:
    """What an open saga waits for, so that sagas can be counted and grouped by it.

    Args:
        what: the task whose answer it is (``accounting_service.authorize_card``), the step that is
            parked, pauses, waits or delays; empty when there is neither.
        since: when it began to wait for just this.
    """

    cause: Cause
    what: str
    since: datetime


@dataclass(frozen=True)
class SagaInstance:
    """One run of a saga.

    Args:
        shape: of the definition it started with.
        key: the business key, unique per saga.
        revision: grows with every change that matters to a decision; sending again does not.
        started: whether the first decision was taken.
        due_at: when the timekeeper must look at it; None when it has ended or only waits.
        waiting: for what; None when it has ended.
        deadline: of the whole saga; None if it declares none.
        late: the deadline came, and the saga goes on.
        trace: the context in which it was started, as `sagas_framework.telemetry` carries it; None if
            nothing was traced there. No decision depends on it.
    """

    id: str
    saga: str
    version: int
    shape: str
    key: str
    status: Status
    state: Mapping[str, Any]
    created_at: datetime
    updated_at: datetime
    steps: Mapping[str, StepRecord] = field(default_factory=lambda: MappingProxyType({}))
    outcome: Outcome | None = None
    revision: int = 0
    started: bool = False
    ended_at: datetime | None = None
    due_at: datetime | None = None
    waiting: Waiting | None = None
    deadline: datetime | None = None
    late: bool = False
    trace: Mapping[str, str] | None = None

    def in_flight(self) -> Iterator[tuple[StepRecord, Flight]]:
        """Every command that was sent and not answered, with its step."""
        for record in self.steps.values():
            if record.flight is not None:
                yield record, record.flight


# ---- the row's JSON -------------------------------------------------------------------------------

_TIMES = frozenset({"first_sent_at", "deadline", "resume_at", "sent_at", "since", "check_at", "horizon"})
_RECORD_DEFAULTS = vars(StepRecord("")) | {"name": None}  # a name is always written
_FLIGHT_DEFAULTS = {f.name: None for f in fields(Flight)} | {
    f.name: f.default for f in fields(Flight) if f.default is not MISSING
}
_PHASES = {phase: phase for phase in Phase}


def steps_to_json(steps: Mapping[str, StepRecord]) -> list[dict[str, Any]]:
    """The steps in order, without what still has its default; times in ISO 8601."""
    return [_record_to_json(record) for record in steps.values()]


def steps_from_json(value: list[dict[str, Any]]) -> dict[str, StepRecord]:
    """The inverse of `steps_to_json`."""
    records = [_record_from_json(item) for item in value]
    return {record.name: record for record in records}


def _record_to_json(record: StepRecord) -> dict[str, Any]:
    # Written for every step of every instance that changes, so it looks at each field only once.
    result: dict[str, Any] = {}
    for name, value in record.__dict__.items():
        default = _RECORD_DEFAULTS[name]
        if value is not default and value != default:
            as_json = _AS_JSON.get(type(value))
            result[name] = value if as_json is None else as_json(value)
    return result


def _flight_to_json(flight: Flight) -> dict[str, Any]:
    return {
        name: value.isoformat() if type(value) is datetime else value
        for name, value in flight.__dict__.items()
    }


def _intent_to_json(intent: Intent) -> dict[str, Any]:
    return {"act": intent.act, "by": intent.by, "reason": intent.reason, "reply": intent.reply}


_AS_JSON: Final[Mapping[type, Callable[[Any], Any]]] = {
    datetime: datetime.isoformat,
    Flight: _flight_to_json,
    Intent: _intent_to_json,
    Outcome: Outcome.to_json,
}


def _times(value: Mapping[str, Any]) -> dict[str, Any]:
    return {k: datetime.fromisoformat(v) if k in _TIMES and v else v for k, v in value.items()}


def _record_from_json(value: Mapping[str, Any]) -> StepRecord:
    if len(value) == 1:
        return _pending(value["name"])
    record = _RECORD_DEFAULTS | _times(value)
    if len(record) > len(_RECORD_DEFAULTS):
        raise TypeError(f"a step has {', '.join(sorted(record.keys() - _RECORD_DEFAULTS.keys()))}")
    record["phase"] = _PHASES[record["phase"]]
    if flight := record["flight"]:
        record["flight"] = made_of(Flight, _FLIGHT_DEFAULTS | _times(flight) | {"kind": Kind(flight["kind"])})
    if intent := record["intent"]:
        record["intent"] = Intent(**intent)
    if turning := record["turning"]:
        record["turning"] = Outcome.from_json(turning)
    return made_of(StepRecord, record)


@lru_cache(maxsize=1000)
def _pending(name: str) -> StepRecord:
    return StepRecord(name)


def with_due(instance: SagaInstance) -> SagaInstance:
    """The instance with `due_at` worked out from its steps."""
    if instance.status.ended:
        return replace(instance, due_at=None)
    to_come = instance.deadline if instance.outcome is None and not instance.late else None
    return replace(instance, due_at=first_due(instance.steps.values(), to_come))


def first_due(records: Iterable[StepRecord], deadline: datetime | None = None) -> datetime | None:
    """The next moment at which time alone changes something of these steps, or of the whole saga.

    Args:
        deadline: the saga's own, as long as it is to come.
    """
    first = min((due for record in records if (due := record.due_at)), default=None)
    return first if deadline is None or (first is not None and first < deadline) else deadline


def with_waiting(instance: SagaInstance, at: datetime) -> SagaInstance:
    """The instance with what it waits for from now on; the most pressing, if it is more than one thing."""
    if instance.status.ended:
        return replace(instance, waiting=None)
    cause, what = _cause(instance)
    before = instance.waiting
    if before is not None and (before.cause, before.what) == (cause, what):
        return instance
    return replace(instance, waiting=Waiting(cause, what, at))


_WAITS: Final = {Phase.WAITING: Cause.SIGNAL, Phase.DELAYED: Cause.TIME}


def _cause(instance: SagaInstance) -> tuple[Cause, str]:
    for record in instance.steps.values():
        if record.parked:
            return Cause.PERSON, record.name
    for _, flight in instance.in_flight():
        return Cause.ANSWER, flight.task
    for record in instance.steps.values():
        if record.phase in _WAITS:
            return _WAITS[record.phase], record.name
        if record.resume_at is not None:
            return Cause.PAUSE, record.name
    return (Cause.TURN if instance.started else Cause.START), ""
