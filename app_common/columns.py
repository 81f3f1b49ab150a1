"""A column type that every service needs."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import Enum


def one_of(words: type[StrEnum]) -> Enum:
    """Holds one of the enumeration's values as text.

    Not PostgreSQL's own ENUM: there a new word is a migration that an older release trips over.
    """
    return Enum(
        words, native_enum=False, length=30, values_callable=lambda enum: [word.value for word in enum]
    )
