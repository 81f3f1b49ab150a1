"""Idempotency keys: what is asked for with one is taken once, however often it is asked for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel
from sqlalchemy.exc import IntegrityError

P = TypeVar("P")


class KeyReused(Exception):
    """An idempotency key came again, with another order. Nothing was taken.

    Args:
        first: the order that it was used for, in words.
    """

    def __init__(self, key: str, first: str) -> None:
        super().__init__(f"The Idempotency-Key {key!r} was used for another order, {first}")


def take_once(key: str | None, taken_with: Callable[[str], P | None], take: Callable[[], P]) -> P:
    """Take what is asked for, or say what was taken with the key before.

    The key is in the row of what is taken, in a unique index, so that both commit together: of two that come
    at the same time one is told by the database that the other was quicker, when that has committed.

    Args:
        taken_with: what was taken with a key, None if nothing was. It raises `KeyReused`.
    """
    if key is not None and (taken := taken_with(key)) is not None:
        return taken
    try:
        return take()
    except IntegrityError:
        # Somebody else was quicker. The database told us when they had committed, not before.
        if key is None or (taken := taken_with(key)) is None:
            raise  # it was not for the key
        return taken


def digest_of(asked: BaseModel) -> str:
    """Of what is asked for, however it was written; 64 hexadecimal digits.

    A field left at its default makes no difference: one that a later release adds must not make
    another order of what was posted before.
    """
    said = asked.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
