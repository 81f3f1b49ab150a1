"""Who waits at a named point, inside a process that the matrix started, and does the deed there.

Every process of a service is given one folder in ``SABOTEUR``. A trap is a file in it, named after
the point; the process that gets there for the n-th time takes the file away and does what it says.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from sagas_framework.points import EventPoint, Point, listen

VARIABLE: Final = "SABOTEUR"

KILL, KILL_ALL, STOP, STOP_ALL, HOLD = "kill", "kill_all", "stop", "stop_all", "hold"
"""Deeds: on the process that got there, on the group of its worker, or wait there until released."""

_HELD_AT_MOST: Final = 120.0  # seconds


@dataclass(frozen=True)
class Victim:
    """Who was caught."""

    pid: int
    group: int


@dataclass(frozen=True)
class Trap:
    """A trap as its owner sees it."""

    folder: Path
    point: Point | EventPoint
    name: str

    @classmethod
    def set(cls, folder: Path, point: Point | EventPoint, nth: int, deed: str) -> Trap:
        """Lay a trap for the n-th time that a process of this folder gets to the point."""
        trap = cls(folder, point, uuid4().hex)
        _write(folder / point.name, f"{trap.name} {nth} {deed}")
        return trap

    def victim(self) -> Victim | None:
        """Who was caught; None if nobody was yet."""
        try:
            pid, group = (self.folder / f"{self.name}.caught").read_text().split()
        except FileNotFoundError:
            return None
        return Victim(int(pid), int(group))

    def release(self) -> None:
        """Let go who is held."""
        _write(self.folder / f"{self.name}.go", "")

    def passed(self) -> bool:
        """Whether who was caught has gone on."""
        return (self.folder / f"{self.name}.passed").exists()

    def remove(self) -> None:
        """Take the trap away if nobody was caught."""
        (self.folder / self.point.name).unlink(missing_ok=True)


class Saboteur:
    """The listener. A fork counts for itself."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._times: Counter[str] = Counter()

    def __call__(self, point: Point | EventPoint) -> None:
        trap = self._folder / point.name
        try:
            name, nth, deed = trap.read_text().split()
        except FileNotFoundError:
            return
        self._times[name] += 1
        if self._times[name] < int(nth):
            return
        try:
            trap.rename(self._folder / f"{name}.taken")  # one process alone can
        except FileNotFoundError:
            return
        _write(self._folder / f"{name}.caught", f"{os.getpid()} {os.getpgrp()}")
        self._do(deed, name)
        _write(self._folder / f"{name}.passed", "")

    def _do(self, deed: str, name: str) -> None:
        match deed:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "kill_all":
                os.killpg(os.getpgrp(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case "stop_all":
                os.killpg(os.getpgrp(), signal.SIGSTOP)
            case "hold":
                until = time.monotonic() + _HELD_AT_MOST
                while not (self._folder / f"{name}.go").exists():
                    if time.monotonic() > until:
                        raise TimeoutError(f"held for {_HELD_AT_MOST:g} s, and nobody let us go")
                    time.sleep(0.01)
            case _:
                raise ValueError(f"no such deed: {deed}")


def _write(path: Path, text: str) -> None:
    """Whole or not at all: the other side may look at any moment."""
    made = path.with_suffix(".new")
    made.write_text(text)
    made.rename(path)


def begin() -> None:
    """Wait at the points of this process from now on, if it was given a folder."""
    if folder := os.environ.get(VARIABLE):
        listen(Saboteur(Path(folder)))
