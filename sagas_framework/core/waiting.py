"""Moments that a declaration works out, and when a signal comes too late (rules 24, 25)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from sagas_framework.core.instance import Outcome, Phase, SagaInstance, Status, StepRecord
from sagas_framework.errors import DefinitionError
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import WaitStep

_OPEN: Final = frozenset({Phase.PENDING, Phase.WAITING, Phase.BLOCKED})
"""Where a wait may still take a signal."""


def moment(made: object, since: datetime) -> datetime:
    """The moment that a declaration means.

    Args:
        made: a span since then, or a moment with a time zone.

    Raises:
        DefinitionError: it is neither.
        OverflowError: there is no such year.
    """
    if isinstance(made, timedelta):
        return since + made
    if isinstance(made, datetime) and made.tzinfo is not None:
        return made.astimezone(UTC)
    raise DefinitionError(
        f"{made!r} is no moment: return a timedelta, or a datetime with a time zone (datetime.now(UTC))."
    )


def too_late(
    saga: SagaDefinition,
    status: Status,
    outcome: Outcome | None,
    records: Mapping[str, StepRecord],
    signal: str,
) -> str | None:
    """Why no step will ever take the signal; None if one may."""
    if status.ended:
        return f"the saga has ended: {status.value}"
    if outcome is not None:
        return "the saga has turned back"
    told = "no step of the saga waits for it"
    for step in saga.steps:
        if not isinstance(step, WaitStep) or step.reaction(signal) is None:
            continue
        record = records.get(step.name)
        if record is None or record.phase in _OPEN:
            return None
        told = _over(record)
    return told


def _over(record: StepRecord) -> str:
    if record.phase is Phase.LEFT_OUT:
        return f"{record.name} was left out"
    if (taken := (record.reply or {}).get("signal")) is not None:
        return f"{record.name} has taken {taken}"
    if record.phase is Phase.SKIPPED:
        return f"{record.name} was skipped by hand"
    return f"the deadline of {record.name} has passed"


def listens(saga: SagaDefinition, instance: SagaInstance) -> tuple[object, ...]:
    """What decides which signals the instance may take: whoever changes it looks for them (rule 23)."""
    steps = instance.steps
    return (
        instance.status.ended,
        instance.outcome is not None,
        *(steps[name].phase if name in steps else Phase.PENDING for name in saga.waits),
    )


def waits_overdue(saga: SagaDefinition, instance: SagaInstance, now: datetime) -> bool:
    """Whether a wait's deadline is due, before which stored signals are looked for (rule 24)."""
    for name in saga.waits:
        record = instance.steps.get(name)
        if record and record.phase is Phase.WAITING and record.deadline and record.deadline <= now:
            return True
    return False
