"""Frozen records, and the next one made from the last."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import replace as replace  # a type checker knows which fields there are
else:

    def replace(record: T, **changes: Any) -> T:
        """A frozen dataclass (without slots) with some of its fields changed.

        `dataclasses.replace` reads and sets each field by its name; a record of twenty takes it ten times
        as long, and every decision makes several.
        """
        made = object.__new__(type(record))
        fields = made.__dict__
        fields.update(record.__dict__)
        fields.update(changes)
        return made
