"""A moment of a run, to come back to: so that a simulator can try one thing after the other from there."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Final

_CONTAINERS: Final = (dict, list, set)
_PLAIN: Final = frozenset(_CONTAINERS)


class Memento:
    """What some objects held at this moment. What they refer to stays the same object.

    Containers are kept two levels deep; whatever lies in them must be immutable, or among the objects
    itself.
    """

    __slots__ = ("_kept",)

    def __init__(self, objects: Iterable[object]) -> None:
        self._kept: list[tuple[dict[str, Any], dict[str, Any], list[tuple[str, bool]]]] = []
        for thing in objects:
            now = vars(thing)
            containers = [
                (name, _nested(value)) for name, value in now.items() if isinstance(value, _CONTAINERS)
            ]
            self._kept.append((now, _copied(now, containers), containers))

    def recall(self) -> None:
        """Put everything back as it was. A memento may be recalled any number of times."""
        for now, kept, containers in self._kept:
            now.update(_copied(kept, containers))


def _copied(values: dict[str, Any], containers: list[tuple[str, bool]]) -> dict[str, Any]:
    copied = dict(values)
    for name, nested in containers:
        copied[name] = value = _copy(copied[name])
        if nested:
            for key, inner in value.items():
                if isinstance(inner, _CONTAINERS):
                    value[key] = _copy(inner)
    return copied


def _copy(container: Any) -> Any:
    return container.copy() if type(container) in _PLAIN else copy.copy(container)


def _nested(value: Any) -> bool:
    return isinstance(value, dict) and any(isinstance(inner, _CONTAINERS) for inner in value.values())
