"""Why a saga stands where it stands, in a sentence: the same one for page, `saga show` and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sagas_framework.core.events import Act
from sagas_framework.core.instance import (
    Cause,
    Flight,
    Outcome,
    OutcomeKind,
    Phase,
    SagaInstance,
    Status,
    StepRecord,
)
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import COMPENSATE, CommandStep, WaitStep

OVERDUE_AFTER: Final = timedelta(seconds=30)
"""What is due for longer than this has not been looked at: the timekeeper lags, or there is none."""
SEEN_WITHIN: Final = timedelta(seconds=60)
"""What was seen of a queue longer ago says nothing about now."""
MOST: Final = 10_000
"""Who waits for the same is counted up to here."""
MIGRATE: Final = "migrate"
"""The act by which a step is left out that was added behind the place of an instance."""
_LONGEST: Final = 200  # characters quoted of what somebody else's code said


@dataclass(frozen=True, slots=True)
class QueueSeen:
    """A queue as an orchestrator last saw it on the broker.

    Args:
        messages: how many waited.
        consumers: how many workers took from it; None where the broker does not say.
        unattended_since: since when none has; None if one did.
    """

    queue: str
    seen_at: datetime
    messages: int
    consumers: int | None = None
    unattended_since: datetime | None = None

    def after(self, before: QueueSeen | None) -> QueueSeen:
        """This look, with since when the queue is unattended: for as long as each look found it so.

        A look long ago says nothing about the time since.
        """
        if self.consumers != 0:
            return replace(self, unattended_since=None)
        if before is None or before.unattended_since is None or not before.is_fresh(self.seen_at):
            return replace(self, unattended_since=self.seen_at)
        return replace(self, unattended_since=before.unattended_since)

    def is_fresh(self, now: datetime) -> bool:
        """Whether it tells of now."""
        return now - self.seen_at <= SEEN_WITHIN

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "name": self.queue,
            "messages": self.messages,
            "consumers": self.consumers,
            "unattended_since": self.unattended_since and self.unattended_since.isoformat(),
            "seen_at": self.seen_at.isoformat(),
        }


def why(
    instance: SagaInstance,
    now: datetime,
    saga: SagaDefinition | None = None,
    *,
    queue: QueueSeen | None = None,
    same: int = 0,
) -> str:
    """Where the saga stands, what it waits for and what comes next.

    Args:
        saga: its declaration, if it is at hand: with it the sentence can say what happens to a step
            that is not answered in time, which depends on the pivot.
        queue: the queue of the command that it waits for, as it was last seen on the broker.
        same: how many other sagas wait for the same.
    """
    if instance.status.ended:
        return _ended(instance)
    if not instance.started:
        late = ": is one running?" if _lags(instance, now) else "."
        return f"Waiting {in_words(now - instance.created_at)} for an orchestrator to take it up{late}"
    parked = [record for record in instance.steps.values() if record.parked]
    moving = [record for record in instance.steps.values() if not record.parked]
    sentences = [_parked(record, now) for record in parked]
    if instance.late and instance.deadline is not None and instance.outcome is None:
        sentences.append(f"It is late: its deadline was {in_words(now - instance.deadline)} ago.")
    sentences += [told for record in moving for told in _moving(record, instance, now, saga)]
    sentences += _around(instance, now, queue, same)
    if instance.outcome is not None:
        sentences.append(f"It turned back because {because(instance.outcome)}.")
    if instance.due_at is not None and _lags(instance, now):
        sentences.append(
            f"It should have been looked at {in_words(now - instance.due_at)} ago: "
            "is an orchestrator running?"
        )
    return " ".join(sentences) or "Nothing is in flight, and nothing is due."


def because(outcome: Outcome) -> str:
    """Why a saga turned back, as the end of a sentence that says so."""
    told = quoted({"type": outcome.name, "message": outcome.message})
    match outcome.kind:
        case OutcomeKind.REFUSED:
            return f"{outcome.step} was refused ({told})"
        case OutcomeKind.EXPIRED if outcome.name != "NoAnswer":
            return quoted({"message": outcome.message or outcome.name})
        case OutcomeKind.EXPIRED:
            return quoted({"message": outcome.message}).replace(": no answer in ", " gave no answer in ", 1)
        case OutcomeKind.CANCELLED:
            return f"it was cancelled ({quoted({'message': outcome.message})})"
        case _:
            return f"{outcome.step} failed ({told})"


def quoted(error: Mapping[str, str]) -> str:
    """What a step's failure says, in one line and not too long: ``CardRefused: insufficient funds``."""
    told = ": ".join(part for part in (error.get("type"), error.get("message")) if part)
    line = " ".join(told.split()) or "no reason given"
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def in_words(span: timedelta) -> str:
    """A span for people: ``12 ms``, ``14 s``, ``2 min 5 s``, ``3 h 42 min``, ``5 d 2 h``. Never negative."""
    whole = max(span, timedelta(0))
    if whole < timedelta(seconds=1):
        return f"{int(whole / timedelta(milliseconds=1))} ms"
    seconds = int(whole.total_seconds())
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            count, rest = divmod(seconds, size)
            return f"{count} {unit} {rest // part} {smaller}" if rest >= part else f"{count} {unit}"
    return f"{seconds} s"


def times(count: int) -> str:
    """``once``, ``twice``, ``3 times``."""
    return {1: "once", 2: "twice"}.get(count, f"{count} times")


def queue_of(instance: SagaInstance) -> str | None:
    """The queue of the command whose answer the instance waits for, also when it is parked meanwhile."""
    if instance.waiting is None:
        return None
    what = instance.waiting.what
    return next((f.queue for record, f in instance.in_flight() if what in (f.task, record.name)), None)


def count(number: int, one: str, many: str) -> str:
    """``1 saga``, ``1,204 sagas``, ``10,000+ sagas`` for what was counted up to `MOST`."""
    if number > MOST:
        return f"{MOST:,}+ {many}"
    return f"1 {one}" if number == 1 else f"{number:,} {many}"


def clock_time(moment: datetime, now: datetime) -> str:
    """``09:12`` of today, else ``2026-03-16 09:12``; UTC."""
    moment, now = moment.astimezone(UTC), now.astimezone(UTC)
    return f"{moment:%H:%M}" if moment.date() == now.date() else f"{moment:%Y-%m-%d %H:%M}"


def of_queue(seen: QueueSeen, now: datetime) -> Iterator[str]:
    """What is to be told of a queue that was looked at a short time ago: who is missing, what waits."""
    if seen.unattended_since is not None:
        yield f"No worker has taken from {seen.queue} since {clock_time(seen.unattended_since, now)}."
    if seen.messages:
        told = "1 message waits" if seen.messages == 1 else f"{seen.messages:,} messages wait"
        yield f"{told} in {seen.queue}."


# ---- the parts of the sentence ----------------------------------------------------------------------


def _around(instance: SagaInstance, now: datetime, queue: QueueSeen | None, same: int) -> Iterator[str]:
    """What the broker and the other sagas say of the wait."""
    if queue is not None and queue.is_fresh(now):
        yield from of_queue(queue, now)
    if same and instance.waiting is not None:
        others = count(same, "more saga", "more sagas")
        verb = "is" if same == 1 else "are"
        if instance.waiting.cause is Cause.PERSON:
            yield f"{others} {verb} parked at the same step."
        else:
            yield f"{others} {'waits' if same == 1 else 'wait'} for the same."


def _ended(instance: SagaInstance) -> str:
    skipped = [record for record in instance.steps.values() if record.phase is Phase.SKIPPED]
    # A migration leaves out what was added behind the instance's back: that is in its history.
    left = [record.name for record in skipped if record.intent is None or record.intent.act != MIGRATE]
    names = ", ".join(left)
    if instance.status is Status.COMPLETED and instance.outcome and instance.outcome.step:
        told = quoted({"message": instance.outcome.message})
        early = f"Completed early at {instance.outcome.step}: {told}."
        return early + (f" Without {names}, skipped by hand." if left else "")
    if instance.status is Status.COMPLETED:
        return f"Completed, without {names}, skipped by hand." if left else "Completed: every effect is kept."
    reason = f" because {because(instance.outcome)}" if instance.outcome else ""
    but = f" But for {names}, skipped by hand: what it did may still be there." if left else ""
    return f"Undone{reason}.{but}"


def _parked(record: StepRecord, now: datetime) -> str:
    told = f"{record.name} needs a person: {record.parked}"
    if record.resume_at is not None:
        told += f"; the next try is {_coming(record.resume_at, now)}"
    elif record.flight is not None:
        flight = record.flight
        told += f"; try {flight.attempt} was last sent {in_words(now - flight.sent_at)} ago"
    return f"{told}."


def _moving(
    record: StepRecord, instance: SagaInstance, now: datetime, saga: SagaDefinition | None
) -> Iterator[str]:
    flight = record.flight
    match record.phase:
        case Phase.RUNNING if flight is not None:
            yield f"{_waiting(flight, now)}{_fate(record, now, saga)}."
            if flight.attempt > 1 and record.error:
                yield f"Try {flight.attempt - 1} failed ({quoted(record.error)})."
        case Phase.WAITING:
            told = "for ever" if record.deadline is None else _until(record, instance, now, saga)
            yield f"{record.name} waits for {_signals(record, saga)}; {told}."
        case Phase.DELAYED:
            yield f"{record.name} waits for its time, {_coming(record.resume_at, now)}."
        case Phase.PAUSING:
            yield (
                f"{record.name}: try {record.attempts} failed ({quoted(record.error or {})}); "
                f"try {record.attempts + 1} is {_coming(record.resume_at, now)}."
            )
        case Phase.COMPENSATING if flight is not None:
            told = _waiting(flight, now)
            yield f"Undoing {record.name}: {told[0].lower()}{told[1:]}{_fate(record, now, saga)}."
        case Phase.UNDO_PAUSING:
            yield (
                f"Undoing {record.name}: try {record.tries} failed ({quoted(record.error or {})}); "
                f"try {record.tries + 1} is {_coming(record.resume_at, now)}."
            )
        case Phase.SETTLING | Phase.HANDING_OVER if flight is not None:
            yield f"{_waiting(flight, now)}{_fate(record, now, saga)}."
            yield _settling(record)


def _signals(record: StepRecord, saga: SagaDefinition | None) -> str:
    step = None if saga is None else saga.steps[saga.index(record.name)]
    return " or ".join(step.names) if isinstance(step, WaitStep) else "a signal"


def _until(record: StepRecord, instance: SagaInstance, now: datetime, saga: SagaDefinition | None) -> str:
    step = None if saga is None else saga.steps[saga.index(record.name)]
    back = isinstance(step, WaitStep) and step.at_deadline is COMPENSATE
    then = "turns back" if back else "its deadline is" if step is None else "goes on"
    return f"{then} {_coming(record.deadline, now, 'any moment now')}"


def _waiting(flight: Flight, now: datetime) -> str:
    """Since when, for whom, and how often it was sent."""
    tries = [f"try {flight.attempt}"]
    if flight.resends:
        tries.append(f"sent again {times(flight.resends)}, last {in_words(now - flight.sent_at)} ago")
    return f"Waiting {in_words(now - flight.since)} for {flight.task} ({', '.join(tries)})"


def _fate(record: StepRecord, now: datetime, saga: SagaDefinition | None) -> str:
    """What comes when nobody has answered by the deadline."""
    if record.deadline is None:
        return ""
    if record.phase is not Phase.RUNNING:
        then = "counts as late"
    elif saga is None:
        then = "given up"
    else:
        index = saga.index(record.name)
        then = "turns back" if index < saga.pivot else "counts as late"
        if index == saga.pivot:
            then = "its participant is asked how it stands"
    if saga is not None and _without_inbox(record, saga):
        then = "its outcome is unknown and needs a person"
    return f"; {then} {_coming(record.deadline, now, 'any moment now')}"


def _without_inbox(record: StepRecord, saga: SagaDefinition) -> bool:
    step = saga.steps[saga.index(record.name)]
    return isinstance(step, CommandStep) and not step.has_inbox


def _settling(record: StepRecord) -> str:
    asked = f"The participant is asked how {record.name} stands, and to close it"
    if record.phase is Phase.HANDING_OVER and record.intent is not None:
        return f"{asked}: {record.intent.by} takes over undoing it."
    if record.intent is not None:
        what = "skips it" if record.intent.act == Act.SKIP else "completes it by hand"
        return f"{asked}: {record.intent.by} {what}, unless it happened."
    return f"{asked}: unless it happened, the saga turns back."


def _coming(moment: datetime | None, now: datetime, due: str = "due now") -> str:
    if moment is None or moment <= now:
        return due
    return f"in {in_words(moment - now)}"


def _lags(instance: SagaInstance, now: datetime) -> bool:
    return instance.due_at is not None and now - instance.due_at > OVERDUE_AFTER
