"""Virtual time: an agenda of what happens when, and a trace of what has happened."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from sagas_framework.testing.choices import Choices

BEGINNING: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_DEEPEST: Final = 4
"""How many handlers may be at work within each other's time."""


class Crashed(BaseException):
    """A simulated process dies here. No code of the library catches it, as none survives a kill -9."""

    def __init__(self, what: str, *, redelivered: bool = True) -> None:
        super().__init__(what)
        self.redelivered = redelivered


class Clock:
    """The clock of one process, which may be wrong by some time."""

    def __init__(self, world: World) -> None:
        self.ahead = timedelta()
        self._world = world

    def __call__(self) -> datetime:
        return self._world.now + self.ahead


class Planned(NamedTuple):
    """Something on the agenda. `what` says the same of two that do the same."""

    at: datetime
    number: int
    what: tuple[Hashable, ...]
    act: Callable[[], object]


class World:
    """The clock, the agenda and the choices of one run. Nothing in it waits, and nothing runs beside it.

    Attributes:
        watch: called after every event that changed a database.
        changed: set by what changes one.
        tells: whether a trace is kept.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices
        self.now = BEGINNING
        self.trace: list[str] = []
        self.tells = True
        self.watch: Callable[[], None] = lambda: None
        self.changed = False
        self._agenda: list[Planned] = []
        self._number = 0
        self._depth = 0

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return (self.now - BEGINNING).total_seconds()

    def say(self, text: str) -> None:
        """Add a line to the trace."""
        if self.tells:
            self.trace.append(f"{self.elapsed:10.3f} s  {text}")

    def after(self, seconds: float, act: Callable[[], object], what: tuple[Hashable, ...]) -> None:
        """Put something on the agenda. What is due at the same moment happens in the order of asking."""
        self._number += 1
        at = self.now + timedelta(seconds=seconds) if seconds else self.now
        heapq.heappush(self._agenda, Planned(at, self._number, what, act))

    def planned(self) -> Iterator[Planned]:
        """What is on the agenda, in no order."""
        return iter(self._agenda)

    def step(self, until: datetime) -> bool:
        """Let the next thing happen, unless nothing is due until then; whether something was."""
        if not self._agenda or self._agenda[0].at > until:
            return False
        planned = heapq.heappop(self._agenda)
        if planned.at > self.now:
            self.now = planned.at
        planned.act()
        if self.changed:
            self.changed = False
            self.watch()
        return True

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
        while self.step(until):
            pass
