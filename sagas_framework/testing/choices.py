"""Where a simulated run may go one way or another: every fault is a choice at a named point.

A schedule is what deviates from "nothing goes wrong": a point's name and what happens there::

    {"sending reserve 1": "late 20 s", "committing answer to pay 1": "dies before"}

The same schedule gives the same run, so it can be printed, shrunk and pasted into a test.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

Schedule = Mapping[str, str]

_BUDGETS: Final = (2, 3, 4, 6, 9, 14)
_RATES: Final = (0.07, 0.2, 0.4, 0.6)
_AT_MOST: Final = 0.8
_SWARMS: Final = (0.1, 0.2, 0.4, 1.0)


class Choices:
    """Takes the first of each menu: nothing goes wrong. Subclasses take something else now and then.

    Attributes:
        taken: the schedule so far.
        seen: every point that the run came by, with its menu.
    """

    def __init__(self) -> None:
        self.taken: dict[str, str] = {}
        self.seen: dict[str, Sequence[str]] = {}
        self.closed = False
        """Set when faults have stopped."""
        self._times: Counter[str] = Counter()

    def at(self, point: str, menu: Sequence[str], *, weight: float = 1.0) -> str:
        """What happens at this point. A point that is come by again is named ``<point> #2``, ...

        Args:
            weight: how much more often than elsewhere something other than the first is worth a try.
        """
        self._times[point] += 1
        name = point if self._times[point] == 1 else f"{point} #{self._times[point]}"
        self.seen[name] = menu
        choice = menu[0] if self.closed else self._choose(name, menu, weight)
        if choice != menu[0]:
            self.taken[name] = choice
        return choice

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        return menu[0]


class Seeded(Choices):
    """Random faults, the same for the same seed: a few of them, now dense, now far apart.

    Each seed has a swarm of its own, the kinds of faults that it knows. A few kinds that come often
    meet in ways that all kinds mixed hardly ever do.

    Reference:
        A. Groce et al., "Swarm Testing", ISSTA 2012.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._left = self._random.choice(_BUDGETS)
        self._rate = self._random.choice(_RATES)
        self._density = self._random.choice(_SWARMS)
        self._swarm: dict[str, bool] = {}

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        if self._left == 0 or self._random.random() >= min(self._rate * weight, _AT_MOST):
            return menu[0]
        known = [choice for choice in menu[1:] if self._knows(choice)]
        if not known:
            return menu[0]
        self._left -= 1
        return self._random.choice(known)

    def _knows(self, choice: str) -> bool:
        if choice not in self._swarm:
            self._swarm[choice] = self._random.random() < self._density
        return self._swarm[choice]


class Scripted(Choices):
    """The faults of a schedule, and no others. Choices that are not on the menu are taken as well."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__()
        self._schedule = schedule

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        return self._schedule.get(name, menu[0])

    def unused(self) -> list[str]:
        """Points of the schedule that the run never came by."""
        return [point for point in self._schedule if point not in self.seen]


def durations(choice: str) -> list[float]:
    """The seconds that a choice names: ``[0.015, 40.0]`` for ``after 0.015 s for 40 s``."""
    words = choice.split()
    return [float(number) for number, unit in pairwise(words) if unit.rstrip(",") == "s"]


def duration(choice: str) -> float:
    """The seconds that a choice like ``late 20 s`` names; 0 for one that names none."""
    return next(iter(durations(choice)), 0.0)
