"""The protocol between a benchmark and the driver of a system: JSON lines. Standard library alone.

A driver is a process of its own, in the environment of the system that it drives. It is asked on its
standard input to start sagas, and answers on its standard output when they have ended:

    {"batch": 1000, "declined": false}    {"seconds": 2.41}
    {"each": 50, "declined": true}        {"seconds": [0.011, 0.012, ...]}

What else it would print goes to its standard error.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from typing import IO, Any, Final, Protocol

UNCOUNTED: Final = "/* benchmark */"
"""In a statement: it is a driver's, which looks whether sagas have ended, and is not counted."""

PAUSE: Final = 0.01
"""Seconds between two sagas that are run one at a time."""


class Driven(Protocol):
    """A system that runs the saga that creates an order."""

    def batch(self, count: int, *, declined: bool) -> float:
        """Start so many at once; seconds from the first start to the last end.

        Raises:
            Exception: not all of them ended as they should.
        """

    def one(self, *, declined: bool) -> float:
        """Start one and wait for its end; seconds."""


# ---- the driver's side ----------------------------------------------------------------------------


def serve(driven: Driven) -> None:
    """Answer until the standard input ends."""
    answers = own_stdout()
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = _answer(driven, asked)
        except Exception:
            answer = {"error": traceback.format_exc(limit=-5)}
        answers.write(json.dumps(answer) + "\n")


def _answer(driven: Driven, asked: dict[str, Any]) -> dict[str, Any]:
    if "batch" in asked:
        return {"seconds": driven.batch(asked["batch"], declined=asked["declined"])}
    each = []
    for _ in range(asked["each"]):
        each.append(driven.one(declined=asked["declined"]))
        time.sleep(PAUSE)
    return {"seconds": each}


def own_stdout() -> IO[str]:
    """The standard output for answers alone; whatever a library prints goes to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return answers


def until(done: Callable[[], bool], *, every: float, within: float, what: Callable[[], str]) -> None:
    """Wait for something that is found by looking.

    Args:
        every, within: seconds.
        what: says what was not reached.

    Raises:
        TimeoutError: it was not in time.
    """
    end = time.perf_counter() + within
    while not done():
        if time.perf_counter() > end:
            raise TimeoutError(f"not within {within:g} s: {what()}")
        time.sleep(every)


# ---- the benchmark's side -------------------------------------------------------------------------


class DriverFailed(Exception):
    """A driver did not do as it was asked; the message says what it said."""


class Driver:
    """A driver's process, seen from the benchmark.

    Args:
        process: with pipes as standard input and output.
    """

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def wait_until_ready(self, within: float) -> None:
        """Wait until it can be asked.

        Raises:
            DriverFailed: it is not ready in time, or has ended.
        """
        self._listen(within)

    def batch(self, count: int, *, declined: bool, within: float) -> float:
        """Have so many sagas run at once; seconds.

        Raises:
            DriverFailed: they did not end as they should, or not in time.
        """
        answer = self._ask({"batch": count, "declined": declined}, within)
        return float(answer["seconds"])

    def each(self, count: int, *, declined: bool, within: float) -> list[float]:
        """Have so many sagas run one at a time; seconds of each.

        Raises:
            DriverFailed: they did not end as they should, or not in time.
        """
        answer = self._ask({"each": count, "declined": declined}, within)
        return [float(seconds) for seconds in answer["seconds"]]

    def steady(self, rate: float, seconds: float, *, within: float) -> dict[str, Any]:
        """Have so many sagas a second started for so long; see `benchmarks.steady`.

        Raises:
            DriverFailed: it was not done in time.
        """
        return self._ask({"rate": rate, "seconds": seconds}, within)

    def _ask(self, question: dict[str, Any], within: float) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(question).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise DriverFailed(self._ended()) from None
        return self._listen(within)

    def _listen(self, within: float) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self._line(within))
        if "error" in answer:
            raise DriverFailed(str(answer["error"]))
        return answer

    def _line(self, within: float) -> bytes:
        """Its next line. A line is written at once, so that one that has begun is there."""
        output = self._process.stdout
        assert output is not None
        readable, _, _ = select.select([output], [], [], within)
        if not readable:
            raise DriverFailed(f"the driver did not answer within {within:g} s")
        line = output.readline()
        if not line:
            raise DriverFailed(self._ended())
        return line

    def _ended(self) -> str:
        return f"the driver ended with code {self._process.wait(timeout=10)}"
