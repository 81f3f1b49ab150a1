"""Where a simulated run may go one way or another: every fault is a choice at a named point.

A schedule is what deviates from "nothing goes wrong": a point's name and what happens there::

    {"sending reserve 1": "late 20 s", "committing answer to pay 1": "dies before"}

The same schedule gives the same run, so it can be printed, shrunk and pasted into a test.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final
from zlib import crc32

Schedule = Mapping[str, str]

DATABASES: Final = ("the databases are", ("in memory", "on SQLite"))
"""The point at which it is chosen where the rows are kept. No fault: it does not count as one."""
COMMANDS: Final = ("commands are taken", ("one by one", "in batches"))
"""The point at which it is chosen how participants take their commands. No fault either."""
KINDS: Final = 16
"""Into so many kinds faults are divided."""


_NUMBER: Final = re.compile(r"\d+(\.\d+)?")


class Choices:
    """Takes the first of each menu: nothing goes wrong. Subclasses take something else now and then.

    Attributes:
        taken: the schedule so far.
        closed: set when faults have stopped.
    """

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}
        self.closed = False
        self._times: dict[str, int] = {}

    def at(self, point: str, menu: Sequence[str], *, weight: float = 1.0) -> str:
        """What happens at this point. A point that is come by again is named ``<point> #2``, ...

        Args:
            weight: how much more often than elsewhere something other than the first is worth a try.
        """
        times = self._times[point] = self._times.get(point, 0) + 1
        if self.closed:
            return menu[0]
        name = point if times == 1 else f"{point} #{times}"
        choice = self._choose(name, menu, weight)
        if choice != menu[0]:
            self.taken[name] = choice
        return choice

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        return menu[0]


class Sown(Choices):
    """Faults sown along the way: so far from one to the next, and which of the menu.

    Each run knows some kinds of faults and not others. A few kinds that come often meet in ways that
    all kinds mixed hardly ever do.

    Args:
        faults: for each how far it is from the one before, in points (a point of weight 2 counts
            twice), and a number that says which of its menu it is.
        unknown: a bit for each kind of fault that this run does not know.
        on_sqlite: whether the rows are kept there.
        in_batches: whether participants that can take what has come at once.

    Reference:
        A. Groce et al., "Swarm Testing", ISSTA 2012.
    """

    def __init__(
        self,
        faults: Sequence[tuple[int, int]],
        unknown: int = 0,
        *,
        on_sqlite: bool = False,
        in_batches: bool = False,
    ) -> None:
        super().__init__()
        self._by_nature = {DATABASES[0]: on_sqlite, COMMANDS[0]: in_batches}
        self._faults = list(reversed(faults))
        self._unknown = unknown
        self._left = self._faults[-1][0] if self._faults else 0.0

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        if name in self._by_nature:
            return menu[self._by_nature[name]]
        if not self._faults:
            return menu[0]
        self._left -= weight
        if self._left >= 0:
            return menu[0]
        known = [choice for choice in menu[1:] if self._knows(choice)]
        if not known:
            return menu[0]
        _, which = self._faults.pop()
        self._left = self._faults[-1][0] if self._faults else 0.0
        return known[which % len(known)]

    def _knows(self, choice: str) -> bool:
        return not self._unknown >> (crc32(choice.encode()) % KINDS) & 1


class Scripted(Choices):
    """The faults of a schedule, and no others. Other times than those on the menu are taken as well.

    Attributes:
        seen: every point that the run came by before faults stopped.
    """

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self.seen: dict[str, Sequence[str]] = {}
        self._schedule = schedule

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        self.seen[name] = menu
        return self._schedule.get(name, menu[0])

    def unused(self) -> list[str]:
        """Points of the schedule that the run never came by."""
        return [point for point in self._schedule if point not in self.seen]

    def impossible(self) -> dict[str, Sequence[str]]:
        """Points at which the schedule says what never happens there, and what may."""
        return {
            point: self.seen[point]
            for point, choice in self._schedule.items()
            if point in self.seen and not _is_on(choice, self.seen[point])
        }


def _is_on(choice: str, menu: Sequence[str]) -> bool:
    """Whether a choice is on the menu, but for its numbers."""
    return _NUMBER.sub("#", choice) in (_NUMBER.sub("#", other) for other in menu)


def durations(choice: str) -> list[float]:
    """The seconds that a choice names: ``[0.015, 40.0]`` for ``after 0.015 s for 40 s``."""
    words = choice.split()
    return [float(number) for number, unit in pairwise(words) if unit.rstrip(",") == "s"]


def duration(choice: str) -> float:
    """The seconds that a choice like ``late 20 s`` names; 0 for one that names none."""
    return next(iter(durations(choice)), 0.0)
