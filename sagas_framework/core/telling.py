"""One vocabulary for page, command line and JSON: phases, lines of the history, and effects in words."""

from __future__ import annotations

import json
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from sagas_framework.core.events import Recorded
from sagas_framework.core.instance import OutcomeKind, Phase, SagaInstance, Status, StepRecord
from sagas_framework.core.why import in_words, quoted, times
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep, LocalStep

_WORDS: Final = {
    Phase.PENDING: "not reached",
    Phase.RUNNING: "sent",
    Phase.PAUSING: "pausing",
    Phase.BLOCKED: "blocked",
    Phase.ANSWERED: "answered",
    Phase.WAITING: "waiting",
    Phase.DELAYED: "delayed",
    Phase.SETTLING: "being settled",
    Phase.SUCCEEDED: "done",
    Phase.REFUSED: "refused",
    Phase.FAILED: "failed",
    Phase.UNKNOWN: "no answer",
    Phase.WITHDRAWN: "never happened",
    Phase.SKIPPED: "skipped",
    Phase.LEFT_OUT: "left out",
    Phase.COMPENSATING: "being undone",
    Phase.UNDO_PAUSING: "undo pausing",
    Phase.HANDING_OVER: "handing over",
    Phase.HANDED_OVER: "handed over",
    Phase.COMPENSATED: "undone",
}
_GIVEN_UP: Final = {Phase.PAUSING: "failed", Phase.UNDO_PAUSING: "undo failed"}


def records_of(instance: SagaInstance, saga: SagaDefinition | None) -> list[StepRecord]:
    """The instance's steps in order, also of one that has not started if its declaration is at hand."""
    if not instance.steps and saga is not None:
        return [StepRecord(step.name) for step in saga.steps]
    return list(instance.steps.values())


def phase_in_words(record: StepRecord, saga: SagaDefinition | None) -> str:
    """Where a step stands: ``done``, ``being undone, parked``."""
    word = _WORDS[record.phase]
    if record.parked and record.resume_at is None:  # nothing comes by itself
        word = _GIVEN_UP.get(record.phase, word)
    if record.phase is Phase.COMPENSATED and not _undoable(record, saga):
        word = "nothing to undo"
    return f"{word}, parked" if record.parked else word


def line_in_words(line: Recorded) -> str:
    """What belongs to a line of the history, in a line: ``try 2; KitchenBusy; again in 10 s``."""
    detail = dict(line.detail)
    told = []
    error = {name: str(detail.pop(name)) for name in ("type", "message") if detail.get(name)}
    detail.pop("module", None)
    detail.pop("type", None)
    detail.pop("message", None)
    if "kind" in detail and "name" in detail:  # an outcome
        error = {"type": str(detail.pop("name")), **error}
        told.append(" at ".join(part for part in (detail.pop("kind"), detail.pop("step", "")) if part))
    if (by := detail.pop("by", None)) is not None:
        reason = detail.pop("reason", None)  # an act always has one, a signal need not
        told.append(f"by {by}" if reason is None else f'by {by}: "{reason}"')
    told += [f"try {detail.pop(name)}" for name in ("attempt", "try") if name in detail]
    if "times" in detail:
        told.append(times(detail.pop("times")))
    if error.get("type") or error.get("message"):
        told.append(quoted(error))
    if (until := detail.pop("until", None)) is not None:
        told.append(f"until {until}")
    if (next_at := detail.pop("next_at", None)) is not None:
        told.append(f"again in {in_words(datetime.fromisoformat(next_at) - line.at)}")
    told += [str(detail.pop(name)) for name in ("why", "reason", "because") if name in detail]
    told += [_named(name, value) for name, value in detail.items()]
    return "; ".join(told)


def _named(name: str, value: Any) -> str:
    if value is True:
        return name.replace("_", " ")
    return f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"


# ---- effects --------------------------------------------------------------------------------------


class Effect(StrEnum):
    """What of a step is there now. It answers: can it have been charged twice?"""

    THERE = "there"  # it happened, and may still be undone
    KEPT = "kept"  # it happened, and stays
    UNDONE = "undone"
    STILL_THERE = "still there"  # it should be undone and is not yet, or never will be
    UNKNOWN = "unknown"  # nobody has said yet
    NEVER = "never happened"
    NONE = "no effect"  # it leaves nothing behind


def effect(record: StepRecord, instance: SagaInstance, saga: SagaDefinition | None) -> Effect:
    """What of the step is there now, as far as the saga knows."""
    if record.phase in (Phase.WAITING, Phase.DELAYED) or _only_waits(record, saga):
        return Effect.NONE
    if record.phase in _NEVER or (record.first_sent_at is None and record.phase in _SENT_ONLY):
        return Effect.NEVER
    happened = record.phase in (Phase.SUCCEEDED, Phase.ANSWERED, Phase.COMPENSATED)
    if happened and _leaves_nothing(record, saga):
        return Effect.NONE
    match record.phase:
        case Phase.SUCCEEDED | Phase.ANSWERED:
            if instance.status is Status.COMPLETED:
                return Effect.KEPT
            return Effect.STILL_THERE if instance.outcome is not None else Effect.THERE
        case Phase.COMPENSATED:
            return Effect.UNDONE
        case Phase.COMPENSATING | Phase.UNDO_PAUSING | Phase.HANDING_OVER:
            return Effect.STILL_THERE if record.known else Effect.UNKNOWN
        case Phase.HANDED_OVER:
            return Effect.STILL_THERE
        case Phase.SKIPPED:
            return _of_skipped(record, instance)
        case _:
            return Effect.UNKNOWN


def _of_skipped(record: StepRecord, instance: SagaInstance) -> Effect:
    if record.first_sent_at is None and not record.known:
        return Effect.NEVER  # left out before anything of it was begun
    if instance.outcome is not None and instance.outcome.kind is not OutcomeKind.OK:
        # Backward its effect was left as it is.
        return Effect.STILL_THERE if record.known else Effect.UNKNOWN
    # Forward it was never done, if its participant said so or was asked to close it. Skipped without
    # asking it may yet happen.
    said = record.first_sent_at is None or record.intent is None
    return Effect.NEVER if said else Effect.UNKNOWN


_NEVER: Final = frozenset({Phase.PENDING, Phase.REFUSED, Phase.WITHDRAWN, Phase.BLOCKED, Phase.LEFT_OUT})
# Without a command that left, there is nothing that could have happened.
_SENT_ONLY: Final = frozenset({Phase.RUNNING, Phase.FAILED, Phase.UNKNOWN, Phase.SETTLING, Phase.PAUSING})


def _leaves_nothing(record: StepRecord, saga: SagaDefinition | None) -> bool:
    """Whether it says so on purpose. From the pivot on nothing is undone, so there it says nothing."""
    return saga is not None and not _undoable(record, saga) and saga.index(record.name) < saga.pivot


def _only_waits(record: StepRecord, saga: SagaDefinition | None) -> bool:
    if saga is None:
        return False
    return not isinstance(saga.steps[saga.index(record.name)], LocalStep | CommandStep)


def _undoable(record: StepRecord, saga: SagaDefinition | None) -> bool:
    return saga is None or saga.steps[saga.index(record.name)].undoable
