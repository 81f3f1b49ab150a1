"""One saga as a person looks at it: page, command line and JSON all tell it from here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

from sagas_framework.core.events import Act
from sagas_framework.core.evolving import MIGRATED, under_new_names
from sagas_framework.core.instance import Cause, Phase, SagaInstance, StepRecord, steps_to_json
from sagas_framework.core.options import Option, options
from sagas_framework.core.telling import effect, records_of
from sagas_framework.core.why import (
    QueueSeen,
    clock_time,
    count,
    in_words,
    of_queue,
    queue_of,
    quoted,
    why,
)
from sagas_framework.messages import Signal
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import WaitStep
from sagas_framework.storage.ports import ActRow, HistoryLine, SignalRow, Stuck


@dataclass(frozen=True)
class SagaView:
    """What is known of an instance at one moment.

    Args:
        saga: its declaration; None if it is not declared here, or with other steps than it was started
            with, so that nobody here moves it.
        history: oldest first.
        acts: what operators asked for that is not in the history: not taken yet, or refused.
        said: signals for it that no step has taken: kept, not looked at yet, or too late; newest first.
        queues: as they were last seen on the broker, by name.
        same: how many other instances wait for the same.
    """

    instance: SagaInstance
    saga: SagaDefinition | None
    now: datetime
    history: Sequence[HistoryLine] = ()
    acts: Sequence[ActRow] = ()
    said: Sequence[SignalRow] = ()
    queues: Mapping[str, QueueSeen] = field(default_factory=lambda: MappingProxyType({}))
    same: int = 0

    def __post_init__(self) -> None:
        if self.saga is not None and self.saga.shape != self.instance.shape:
            object.__setattr__(self, "saga", None)  # its steps are not those of the row

    @property
    def why(self) -> str:
        """Where it stands, what it waits for, and what comes next."""
        return why(self.instance, self.now, self.saga, queue=self.queue, same=self.same)

    @property
    def queue(self) -> QueueSeen | None:
        """The queue of the command that it waits for, as it was last seen; None if it never was."""
        name = queue_of(self.instance)
        return None if name is None else self.queues.get(name)

    @property
    def signals(self) -> Sequence[str]:
        """The names of the signals that it waits for now; none if its declaration is not at hand."""
        return [signal.signal_name for record in self.records for signal in self.awaited_by(record)]

    def awaited_by(self, record: StepRecord) -> Sequence[type[Signal]]:
        """The signals that this step waits for now; none if its declaration is not at hand."""
        step = self.saga and self.saga.steps[self.saga.index(record.name)]
        if record.phase is not Phase.WAITING or not isinstance(step, WaitStep):
            return []
        return [one.signal for one in step.signals]

    @property
    def options(self) -> Sequence[Option]:
        """What an operator can do now."""
        return [] if self.saga is None else options(self.saga, self.instance, self.now)

    @property
    def records(self) -> Sequence[StepRecord]:
        """The steps in order, also those that were not reached."""
        return records_of(self.instance, self.saga)

    @property
    def told(self) -> Sequence[HistoryLine]:
        """The history under the names that its steps have now; `history` has them as they were recorded."""
        lines = [line.recorded for line in self.history]
        if not any(line.entry == MIGRATED for line in lines):
            return self.history
        told = zip(self.history, under_new_names(lines), strict=True)
        return [replace(line, recorded=recorded) for line, recorded in told]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON.

        Shape: what `summary` has, then what `why_in_json` has, ``state``, ``steps`` (in order: ``name``,
        ``phase``, ``effect``, ``attempts``, ``tries``, and what else the row has of each), ``history``
        (oldest first: ``at``, ``entry``, ``step``, ``detail``, ``revision``), ``declared``, ``signals``
        (names of those that it waits for now), ``said`` (signals that no step has taken), ``can_do`` (acts
        that would be obeyed now) and ``acts`` (asked for).
        """
        return (
            summary(self.instance)
            | self.why_in_json()
            | {
                "state": dict(self.instance.state),
                "steps": self._steps(),
                "history": [line_to_json(line) for line in self.history],
                "declared": self.saga is not None,
                "signals": self.signals,
                "said": [signal_to_json(row) for row in self.said],
                "can_do": [option.to_json() for option in self.options],
                "acts": [act_to_json(act) for act in self.acts],
            }
        )

    def why_in_json(self) -> dict[str, Any]:
        """The sentence, and what stands behind it.

        Shape: ``why``, ``queue`` (of the command that it waits for: ``name``, ``messages``, ``consumers``,
        ``unattended_since``, ``seen_at``; None if it was never seen), ``same`` (how many others wait for the
        same; up to `MOST` and one more).
        """
        return {"why": self.why, "queue": self.queue and self.queue.to_json(), "same": self.same}

    def _steps(self) -> list[dict[str, Any]]:
        rows = steps_to_json({record.name: record for record in self.records})
        return [
            {
                "name": record.name,
                "phase": record.phase.value,
                "effect": effect(record, self.instance, self.saga).value,
                # The row leaves out what has not begun; whoever reads this should not have to know.
                "attempts": record.attempts,
                "tries": record.tries,
            }
            | row
            for record, row in zip(self.records, rows, strict=True)
        ]


@dataclass(frozen=True)
class StuckView:
    """Instances that wait for the same, as a person looks at them.

    Args:
        declared: whether their saga is declared here as they were started.
        example: one of them; None if it has moved on meanwhile.
    """

    stuck: Stuck
    declared: bool
    example: SagaView | None
    now: datetime

    @property
    def why(self) -> str:
        """How many wait for what since when, and what the broker says of it."""
        told = [f"{self._number} {self._what()}"]
        if self.stuck.cause is Cause.ANSWER and self.example is not None:
            told += self._queue(self.example)
        if not self.declared:
            them = "it" if self.stuck.count == 1 else "them"
            named = f"{self.stuck.saga} version {self.stuck.version}"
            told.append(
                f"{named} is not declared here, or with other steps: no worker of this service moves {them}."
            )
        return " ".join(told)

    @property
    def _number(self) -> str:
        return "1 saga" if self.stuck.count == 1 else f"{self.stuck.count:,} sagas"

    def _what(self) -> str:
        stuck, s, them, its = self.stuck, "s", "it", "its"
        if stuck.count != 1:
            s, them, its = "", "them", "their"
        since = f"since {clock_time(stuck.since, self.now)}"
        overdue = f"and {its} time is over: is an orchestrator running?"
        match stuck.cause:
            case Cause.PERSON:
                return f"need{s} a person at {stuck.saga}.{stuck.what} {since}{self._reason()}."
            case Cause.ANSWER:
                return f"of {stuck.saga} wait{s} for {stuck.what} {since}."
            case Cause.PAUSE:
                told = f"pause{s} at {stuck.saga}.{stuck.what} {since}{self._reason()}"
                return f"{told}; the next try comes by itself."
            case Cause.SIGNAL:
                return f"of {stuck.saga} wait{s} at {stuck.what} for a signal {since}, {overdue}"
            case Cause.TIME:
                return f"of {stuck.saga} wait{s} at {stuck.what} {since}, {overdue}"
            case Cause.START:
                told = f"of {stuck.saga} wait{s} for an orchestrator to take {them} up {since}"
                return f"{told}: is one running?"
            case Cause.TURN:
                return f"of {stuck.saga} wait{s} for an orchestrator's next look {since}: is one running?"

    def _reason(self) -> str:
        """Why the example waits; the others may have reasons of their own."""
        record = None if self.example is None else self.example.instance.steps.get(self.stuck.what)
        if record is None:
            return ""
        return f" ({quoted(record.error or {'message': record.parked or ''})})"

    def _queue(self, example: SagaView) -> Iterator[str]:
        name, seen = queue_of(example.instance), example.queue
        if name is None:
            return
        if seen is None:
            yield f"Who takes from {name} is unknown: no orchestrator has looked yet."
        elif not seen.is_fresh(self.now):
            ago = in_words(self.now - seen.seen_at)
            yield f"Who takes from {name} is unknown: no orchestrator has looked for {ago}."
        else:
            yield from of_queue(seen, self.now)
            if seen.consumers:
                yield f"{count(seen.consumers, 'worker takes', 'workers take')} from {name}."

    def to_json(self) -> dict[str, Any]:
        """As plain JSON.

        Shape: ``saga``, ``version``, ``cause``, ``for``, ``since``, ``count``, ``declared``, ``why``,
        ``queue`` (see `SagaView.why_in_json`), ``example`` (its `summary`; None if it has moved on).
        """
        return {
            "saga": self.stuck.saga,
            "version": self.stuck.version,
            "cause": self.stuck.cause.value,
            "for": self.stuck.what or None,
            "since": self.stuck.since.isoformat(),
            "count": self.stuck.count,
            "declared": self.declared,
            "why": self.why,
            "queue": self.example and self.example.queue and self.example.queue.to_json(),
            "example": self.example and summary(self.example.instance),
        }


def summary(instance: SagaInstance) -> dict[str, Any]:
    """An instance in a line, as plain JSON."""
    waits = instance.waiting
    return {
        "id": instance.id,
        "saga": instance.saga,
        "version": instance.version,
        "key": instance.key,
        "status": instance.status.value,
        "outcome": instance.outcome and instance.outcome.to_json(),
        "waits": waits
        and {"cause": waits.cause.value, "for": waits.what or None, "since": waits.since.isoformat()}
        | _until(instance),
        "deadline": instance.deadline and instance.deadline.isoformat(),
        "late": instance.late,
        "revision": instance.revision,
        "created_at": instance.created_at.isoformat(),
        "updated_at": instance.updated_at.isoformat(),
        "ended_at": instance.ended_at and instance.ended_at.isoformat(),
    }


def _until(instance: SagaInstance) -> dict[str, Any]:
    """Of one that waits for a signal or for its time: until when, None if for ever."""
    waits = instance.waiting
    if waits is None or waits.cause not in (Cause.SIGNAL, Cause.TIME):
        return {}
    record = instance.steps[waits.what]
    moment = record.deadline or record.resume_at
    return {"until": moment and moment.isoformat()}


def line_to_json(line: HistoryLine) -> dict[str, Any]:
    """A line of the history as plain JSON."""
    recorded = line.recorded
    return {
        "at": recorded.at.isoformat(),
        "entry": recorded.entry,
        "step": recorded.step,
        "detail": dict(recorded.detail),
        "revision": line.revision,
    }


def signal_to_json(row: SignalRow) -> dict[str, Any]:
    """A signal, and what became of it."""
    return {
        "number": row.id,
        "saga": row.saga,
        "key": row.key,
        "signal": row.signal,
        "id": row.said_id,
        "payload": dict(row.payload),
        "by": row.by or None,
        "reason": row.reason or None,
        "said_at": row.said_at.isoformat(),
        "became": row.became.value,
        "answer": row.answer,
    }


def act_to_json(act: ActRow) -> dict[str, Any]:
    """An operator's act, and what became of it."""
    return {
        "number": act.id,
        "saga_id": act.saga_id,
        "act": act.act.value,
        "step": act.step,
        "by": act.by,
        "reason": act.reason,
        "force": act.force,
        "revision": act.revision,
        "until": act.until and act.until.isoformat(),
        "created_at": act.created_at.isoformat(),
        "became": act.became,
        "answer": act.answer,
    }


def needs_reply(view: SagaView, act: Act, step: str | None) -> bool:
    """Whether the act can only be asked for with the reply that the participant would have given."""
    return any(o.reply is not None for o in view.options if o.act is act and step in (None, o.step))
