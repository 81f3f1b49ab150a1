"""Frozen records and plain JSON, made fast: every decision makes many."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Final, TypeVar

T = TypeVar("T")

_ATOMS: Final = frozenset({str, int, float, bool, type(None)})


def made_of(kind: type[T], values: Mapping[str, Any]) -> T:
    """A frozen dataclass (without slots) from the values of all its fields.

    Its own constructor sets each field through `object.__setattr__`; of twenty it takes ten times as long.
    """
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made


def copied(value: Any) -> Any:
    """JSON that shares nothing with the original which anybody could change. Anything else is copied, too."""
    kind = type(value)
    if kind in _ATOMS:
        return value
    if kind is dict:
        return {name: v if type(v) in _ATOMS else copied(v) for name, v in value.items()}
    if kind is list:
        return [v if type(v) in _ATOMS else copied(v) for v in value]
    return deepcopy(value)


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
