"""The session of a simulation: `rows` are kept, whatever else is asked of it is taken and forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sagas_framework.storage.memory import MemorySession


class Anything:
    """Stands in for whatever a session might give: it can be called, iterated, entered, changed."""

    def __getattr__(self, name: str) -> Anything:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def __setattr__(self, name: str, value: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> Anything:
        return self

    def __getitem__(self, _: object) -> Anything:
        return self

    def __iter__(self) -> Iterator[Anything]:
        return iter(())

    def __enter__(self) -> Anything:
        return self

    def __exit__(self, *_: object) -> None:
        pass


_ANYTHING = Anything()


class StandInSession:
    """A `MemorySession` on which hooks written for SQLAlchemy do not stumble."""

    def __init__(self, inner: MemorySession) -> None:
        self._inner = inner

    @property
    def rows(self) -> dict[str, Any]:
        """What is kept, if the transaction commits."""
        return self._inner.rows

    @rows.setter
    def rows(self, rows: dict[str, Any]) -> None:
        self._inner.rows = rows

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _ANYTHING
