"""Virtual time: an agenda of what happens when, and a trace of what has happened."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

from sagas_framework.testing.choices import Choices

BEGINNING: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_DEEPEST: Final = 4
"""How many handlers may be at work within each other's time."""


class Crashed(BaseException):
    """A simulated process dies here. No code of the library catches it, as none survives a kill -9."""

    def __init__(self, what: str, *, redelivered: bool = True) -> None:
        super().__init__(what)
        self.redelivered = redelivered


class World:
    """The clock, the agenda and the choices of one run. Nothing in it waits, and nothing runs beside it.

    Attributes:
        watch: called after every event that changed a database.
        changed: set by what changes one.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.now = BEGINNING
        self.trace: list[str] = []
        self.watch: Callable[[], None] = lambda: None
        self.changed = False
        self.last_traffic = BEGINNING
        self._agenda: list[tuple[datetime, int, Callable[[], object]]] = []
        self._number = 0
        self._depth = 0

    def clock(self) -> datetime:
        """The virtual time, for whatever takes a clock."""
        return self.now

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return (self.now - BEGINNING).total_seconds()

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.elapsed:10.3f} s  {text}")

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        """Put something on the agenda. What is due at the same moment happens in the order of asking."""
        self._number += 1
        heapq.heappush(self._agenda, (self.now + timedelta(seconds=seconds), self._number, act))

    def run(self, until: float) -> None:
        """Let everything happen that is due within so many seconds of the beginning."""
        self._run(BEGINNING + timedelta(seconds=until))

    def pass_time(self, seconds: float) -> None:
        """From within an event: let others act meanwhile. A handler that takes its time calls this."""
        if self._depth >= _DEEPEST:
            return
        self._depth += 1
        until = self.now + timedelta(seconds=seconds)
        self._run(until)
        self.now = max(self.now, until)
        self._depth -= 1

    def _run(self, until: datetime) -> None:
        while self._agenda and self._agenda[0][0] <= until:
            at, _, act = heapq.heappop(self._agenda)
            self.now = max(self.now, at)
            act()
            if self.changed:
                self.changed = False
                self.watch()
