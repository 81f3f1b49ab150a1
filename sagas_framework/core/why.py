"""Why a saga stands where it stands, in a sentence: the same one for page, `saga show` and JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from sagas_framework.core.events import Act
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import (
    Flight,
    Outcome,
    OutcomeKind,
    Phase,
    SagaInstance,
    Status,
    StepRecord,
)
from sagas_framework.saga import SagaDefinition

OVERDUE_AFTER: Final = timedelta(seconds=30)
"""What is due for longer than this has not been looked at: the timekeeper lags, or there is none."""
_LONGEST: Final = 200  # characters quoted of what somebody else's code said


def why(instance: SagaInstance, now: datetime, saga: SagaDefinition | None = None) -> str:
    """Where the saga stands, what it waits for and what comes next, derived from its row alone.

    Args:
        saga: its declaration, if it is at hand: with it the sentence can say what happens to a step
            that is not answered in time, which depends on the pivot.
    """
    if instance.status.ended:
        return _ended(instance)
    if not instance.started:
        late = ": is one running?" if _lags(instance, now) else "."
        return f"Waiting {in_words(now - instance.created_at)} for an orchestrator to take it up{late}"
    parked = [record for record in instance.steps.values() if record.parked]
    moving = [record for record in instance.steps.values() if not record.parked]
    sentences = [_parked(record, now) for record in parked]
    sentences += [told for record in moving for told in _moving(record, instance, now, saga)]
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


# ---- the parts of the sentence ----------------------------------------------------------------------


def _ended(instance: SagaInstance) -> str:
    left = [record.name for record in instance.steps.values() if record.phase is Phase.SKIPPED]
    names = ", ".join(left)
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
            yield f"{_waiting(record, flight, now)}{_fate(record, now, saga)}."
            if flight.attempt > 1 and record.error:
                yield f"Try {flight.attempt - 1} failed ({quoted(record.error)})."
        case Phase.PAUSING:
            yield (
                f"{record.name}: try {record.attempts} failed ({quoted(record.error or {})}); "
                f"try {record.attempts + 1} is {_coming(record.resume_at, now)}."
            )
        case Phase.COMPENSATING if flight is not None:
            told = _waiting(record, flight, now)
            yield f"Undoing {record.name}: {told[0].lower()}{told[1:]}{_fate(record, now, saga)}."
        case Phase.UNDO_PAUSING:
            yield (
                f"Undoing {record.name}: try {record.tries} failed ({quoted(record.error or {})}); "
                f"try {record.tries + 1} is {_coming(record.resume_at, now)}."
            )
        case Phase.SETTLING | Phase.HANDING_OVER if flight is not None:
            yield f"{_waiting(record, flight, now)}{_fate(record, now, saga)}."
            yield _settling(record)


def _waiting(record: StepRecord, flight: Flight, now: datetime) -> str:
    """Since when, for whom, and how often it was sent; the row keeps only the last of the moments."""
    since = None
    if flight.kind is Kind.DO and flight.attempt == 1:
        since = record.first_sent_at
    elif not flight.resends:
        since = flight.sent_at
    tries = [f"try {flight.attempt}"]
    if flight.resends:
        tries.append(f"sent again {times(flight.resends)}")
    if since is None:
        tries.append(f"last {in_words(now - flight.sent_at)} ago")
        return f"Waiting for {flight.task} ({', '.join(tries)})"
    return f"Waiting {in_words(now - since)} for {flight.task} ({', '.join(tries)})"


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
    return f"; {then} {_coming(record.deadline, now, 'any moment now')}"


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
