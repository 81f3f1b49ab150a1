"""Names that every process derives alike, so that nothing has to be remembered to find it again."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from hashlib import sha1
from typing import Final
from uuid import NAMESPACE_OID, UUID


class Kind(StrEnum):
    """What a message asks of the participant."""

    DO = "do"
    UNDO = "undo"
    SETTLE = "settle"


_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_ANSWERS: Final = NAMESPACE_OID.bytes


@lru_cache(maxsize=10_000)
def operation_id(saga_id: str, step: str) -> str:
    """One per step and saga, for every attempt, its undoing and its settling (rule 1).

    Args:
        step: its `StepRecord.identity`, which stays when the step is renamed.
    """
    return _uuid5(UUID(saga_id).bytes, step)


@lru_cache(maxsize=10_000)
def message_id(saga_id: str, step: str, kind: Kind, attempt: int) -> str:
    """One per attempt; sending again keeps it. It only matches replies (rule 2).

    Args:
        step: its `StepRecord.identity`, which stays when the step is renamed.
    """
    return _uuid5(UUID(saga_id).bytes, f"{step}|{kind.value}|{attempt}")


def answer_id(message_id: str, result: str) -> str:
    """One per message and what it is answered, so that answering twice makes the same message twice."""
    return _uuid5(_ANSWERS, f"{message_id}|{result}")


def _uuid5(space: bytes, name: str) -> str:
    """As `uuid.uuid5` makes it, in a fifth of the time (RFC 9562, 5.5).

    Args:
        space: the 16 bytes of the namespace's UUID.
    """
    found = sha1(space + name.encode(), usedforsecurity=False).hexdigest()
    variant = _VARIANT[found[16]]
    return f"{found[:8]}-{found[8:12]}-5{found[13:16]}-{variant}{found[17:20]}-{found[20:32]}"
