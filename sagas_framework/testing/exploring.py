"""Every schedule with up to so many faults: depth first over the choices, equal states only once."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Final

from sagas_framework.testing.choices import Choices
from sagas_framework.testing.memento import Memento
from sagas_framework.testing.run import Run
from sagas_framework.testing.states import States
from sagas_framework.testing.world import BEGINNING

_TIME: Final = re.compile(r"(?<!by )\b(\d+(?:\.\d+)?) s\b")
_LEFT_OUT: Final = ("on SQLite", "forgets", "jumps ahead after 30 s", "jumps back after 30 s")
"""The other databases, which behave alike; a retention that is too short, which breaks rule 10; and a
second moment for a clock to jump."""
_ON_ITS_WAY: Final = ("late ", "twice, ")
_PASSED: Final = 1.02
"""A moment is behind one when so much of it has passed."""


@dataclass(frozen=True)
class Explored:
    """What an exploration went through.

    Args:
        schedules: how many different ones; each differs from every other by a fault.
        states: how many different states they came to.
        pruned: how many of them came to a state from which everything was tried already.
    """

    faults: int
    schedules: int
    states: int
    pruned: int


class Branching(Choices):
    """Follows a script within one event, and notes where that could have gone another way.

    Args:
        moments: seconds; they stand for the times that menus name.
        expired: the moment at which a message has expired, for those that may be late.
    """

    def __init__(self, moments: Sequence[float], expired: float) -> None:
        super().__init__()
        self.begin(())
        self._offered: Callable[[tuple[str, ...]], tuple[str, ...]] = lru_cache(maxsize=None)(
            lambda menu: offered(menu, moments, expired)
        )

    def begin(self, script: tuple[str, ...]) -> None:
        """Before an event: what its first choices are. Those after them are "nothing goes wrong"."""
        self.script = script
        self.chosen: list[str] = []
        self.menus: list[tuple[str, ...]] = []

    def _choose(self, name: str, menu: Sequence[str], weight: float) -> str:
        at = len(self.chosen)
        choice = self.script[at] if at < len(self.script) else menu[0]
        self.chosen.append(choice)
        self.menus.append(self._offered(tuple(menu)))
        return choice


def offered(menu: Sequence[str], moments: Sequence[float], expired: float) -> tuple[str, ...]:
    """The menu with its times replaced by those that make a difference.

    What takes less than a second falls between two messages, and is kept as it is.
    """
    made: dict[str, None] = {}
    for choice in menu:
        if choice.startswith(_LEFT_OUT):
            continue
        times = list(_TIME.finditer(choice))
        if not times or float(times[-1][1]) < 1 or choice == menu[0]:
            made[choice] = None
            continue
        last = times[-1]
        for moment in (*moments, expired) if choice.startswith(_ON_ITS_WAY) else moments:
            made[f"{choice[: last.start()]}{moment:g} s{choice[last.end() :]}"] = None
    return tuple(made)


def moments_after(timers: Iterable[timedelta]) -> tuple[float, ...]:
    """A moment, in seconds, after each timer and before the next."""
    return tuple(round(second * _PASSED + 1, 1) for second in sorted({t.total_seconds() for t in timers}))


_Way = tuple[Memento, tuple[str, ...]]
"""A moment, and the choices of the event that comes next."""


class Exploration:
    """All schedules of a run with up to so many faults.

    Args:
        end: seconds since the beginning.
    """

    def __init__(self, run: Run[Any], moments: Sequence[float], expired: float, end: float) -> None:
        self._run = run
        self._states = States((*moments, expired))
        self._visited: dict[int, tuple[int, int, frozenset[Hashable]]] = {}
        self._schedules, self._pruned = 0, 0
        self._end = BEGINNING + timedelta(seconds=end)
        self._choices = run.world.choices = Branching(moments, expired)
        self._beginning = Memento(run.stateful())

    def go(self, faults: int) -> Explored:
        """Try them all, those with fewer faults first: what they come to need not be tried again.

        Raises:
            Broken: at the first that breaks a promise; the run's `schedule` is it, and none is shorter.
        """
        todo: list[_Way] = [(self._beginning, ())]
        for left in range(faults, -1, -1):
            others: list[_Way] = []
            while todo:
                self._follow(*todo.pop(), left, others)
            todo = others
        return Explored(faults, self._schedules, len(self._visited), self._pruned)

    def _follow(self, moment: Memento, script: tuple[str, ...], left: int, others: list[_Way]) -> None:
        """Go one way to its end, or until it is known; note where it could have gone another."""
        choices = self._choices
        moment.recall()
        choices.begin(script)
        self._schedules += 1
        alive = self._run.world.step(self._end)
        while True:
            if left:
                for at in range(len(script), len(choices.menus)):
                    before = tuple(choices.chosen[:at])
                    others.extend((moment, (*before, other)) for other in choices.menus[at][1:])
            if not alive or ((choices.menus or self._run.waits_for_nothing) and self._is_known(left)):
                return
            if left:
                moment = Memento(self._run.stateful())
            script = ()
            choices.begin(script)
            alive = self._run.world.step(self._end)

    def _is_known(self, left: int) -> bool:
        """Whether another schedule came here with as many faults to spare, and no excuse that this one lacks.

        One that comes to a state of its own again goes on: it may do so for ever, and must not.
        """
        # Its hash stands for a state: two of 64 bits are hardly ever the same.
        key, excuses = hash(self._states.key(self._run)), self._run.excuses
        spare, whose, theirs = self._visited.get(key, (-1, 0, excuses))
        if spare >= left and theirs <= excuses:
            known = whose != self._schedules
            self._pruned += known
            return known
        self._visited[key] = left, self._schedules, excuses
        return False
