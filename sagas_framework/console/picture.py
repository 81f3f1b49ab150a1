"""What a picture of a saga holds: bars, marks and where it turned back. No places, no SVG."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Lane(StrEnum):
    """Where in a step's row: forward above, undo below."""

    FORWARD = "fwd"
    UNDO = "undo"


class Look(StrEnum):
    """What a bar says."""

    DONE = "done"
    FAILED = "failed"  # failed, refused, unanswered
    MANY = "many"  # a run of failed tries, drawn as one
    FLIGHT = "flight"  # sent, no answer yet
    WAIT = "wait"  # the participant is asked how it stands
    AWAIT = "await"  # somebody, or a moment, is waited for
    AHEAD = "ahead"  # time left
    PAUSE = "pause"


class Shape(StrEnum):
    """What a mark says."""

    RESEND = "resend"
    NO_QUEUE = "noqueue"
    LATE = "late"
    TOMB = "tomb"
    NOTHING = "nothing"
    STOP = "stop"  # parked, and still is
    FREED = "freed"  # was parked
    HAND = "hand"  # a person acted
    SKIP = "skip"
    STUMBLE = "stumble"  # our own code could not decide
    FLAG = "flag"  # deadline


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time.

    Args:
        row: index of the step.
        start, end: seconds since the saga's start.
        text: shown beside the bar where there is room.
        title: shown to who points at it.
    """

    row: int
    lane: Lane
    look: Look
    start: float
    end: float
    text: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something at one moment, `at` seconds since the saga's start."""

    row: int
    lane: Lane
    shape: Shape
    at: float
    text: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """Where the saga turned back, and why."""

    at: float
    text: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Picture:
    """A saga as one picture: a row per step, time to the right.

    Args:
        name: of the picture, for who cannot see it.
        summary: the same in a sentence.
        steps: names, from the first to the last.
        pivot: index of the first step from which there is no way back; None if that is not known.
        now: seconds since the start; None once the saga has ended.
    """

    name: str
    summary: str
    steps: tuple[str, ...]
    spans: tuple[Span, ...] = ()
    marks: tuple[Mark, ...] = ()
    pivot: int | None = None
    turned: Turn | None = None
    now: float | None = None

    @property
    def far(self) -> frozenset[str]:
        """Names of the steps that were never reached."""
        reached = {span.row for span in self.spans} | {mark.row for mark in self.marks}
        return frozenset(name for row, name in enumerate(self.steps) if row not in reached)

    @property
    def moments(self) -> frozenset[float]:
        """Every moment that has a place in the picture; 0 is always among them."""
        ends = (end for span in self.spans for end in (span.start, span.end))
        single = {0.0, *(mark.at for mark in self.marks)}
        single |= {self.turned.at} if self.turned else set()
        single |= {self.now} if self.now is not None else set()
        return frozenset(single.union(ends))


def duration(seconds: float) -> str:
    """A length: ``38 ms``, ``2.1 s``, ``4 min 12 s``, ``3 h 05 min``, ``2 d 4 h``."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f}".removesuffix(".0") + " s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s" if rest else f"{minutes} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours < 48:
        return f"{hours} h {minutes:02} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} d {hours} h" if hours else f"{days} d"
