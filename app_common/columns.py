"""Column types that every service needs."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import DateTime, Dialect, Enum
from sqlalchemy.types import TypeDecorator
from typing_extensions import override


def one_of(words: type[StrEnum]) -> Enum:
    """Holds one of the enumeration's values as text.

    Not PostgreSQL's own ENUM: there a new word is a migration that an older release trips over.
    """
    return Enum(
        words, native_enum=False, length=30, values_callable=lambda enum: [word.value for word in enum]
    )


class Moment(TypeDecorator[datetime]):
    """A column for a moment, always in UTC; SQLite, which knows no zones, keeps it without one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone")
        moment = value.astimezone(UTC)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        moment: datetime = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return moment
