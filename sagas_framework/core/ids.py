"""Names that every process derives alike, so that nothing has to be remembered to find it again."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from uuid import UUID, uuid5


class Kind(StrEnum):
    """What a message asks of the participant."""

    DO = "do"
    UNDO = "undo"
    SETTLE = "settle"


@lru_cache(maxsize=10_000)
def operation_id(saga_id: str, step: str) -> str:
    """One per step and saga, for every attempt, its undoing and its settling (rule 1).

    Args:
        step: its `StepRecord.identity`, which stays when the step is renamed.
    """
    return str(uuid5(UUID(saga_id), step))


@lru_cache(maxsize=10_000)
def message_id(saga_id: str, step: str, kind: Kind, attempt: int) -> str:
    """One per attempt; sending again keeps it. It only matches replies (rule 2).

    Args:
        step: its `StepRecord.identity`, which stays when the step is renamed.
    """
    return str(uuid5(UUID(saga_id), f"{step}|{kind.value}|{attempt}"))
