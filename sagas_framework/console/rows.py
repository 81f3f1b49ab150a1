"""One row of a saga's picture while its story is told: the bars and marks of one step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from sagas_framework.console.picture import Lane, Look, Mark, Shape, Span, duration
from sagas_framework.core.why import times

TICK: Final = 0.00001
"""Seconds that what took no time gets, so that it has a place of its own: too few to change a length."""
SHORTEST: Final = 0.0005
"""Seconds below which a length is not worth printing."""
_MOST_TRIES: Final = 5
_MOST_MARKS: Final = 5
_MOST_BARS: Final = 14  # of one lane, whatever happened


@dataclass
class Bar:
    """A `Span` in the making. `number`: of the try, or None for what is no try."""

    lane: Lane
    look: Look
    start: float
    end: float
    number: int | None = None
    text: str = ""
    title: str = ""
    alone: str = ""
    """The text if it stays the only try of its lane."""


@dataclass
class Dot:
    """A `Mark` in the making."""

    lane: Lane
    shape: Shape
    at: float
    text: str = ""
    title: str = ""


@dataclass
class Row:
    """What happened to one step so far.

    Attributes:
        open: the bar whose end has not come.
        pause: since when the next try is waited for.
        parked, reason: the mark of a parking that goes on, and why it was parked last.
        lane: of what happened last.
        done, undone, skipped: whether it ever succeeded, its effect was undone, a person left it out.
        left_out: whether its condition did, or an early end before it.
    """

    name: str
    bars: list[Bar] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    open: Bar | None = None
    pause: float | None = None
    parked: Dot | None = None
    reason: str = ""
    lane: Lane = Lane.FORWARD
    done: bool = False
    undone: bool = False
    skipped: bool = False
    left_out: bool = False

    # ---- what happens -----------------------------------------------------------------------------

    def begins(self, lane: Lane, at: float, number: int, look: Look = Look.FLIGHT) -> None:
        """A command, a compensation or a settling is sent, or a local step runs."""
        if self.open is not None:
            at = self.ends(Look.FAILED, at, "given up", "given up")
        self.ends_pause(at)
        self.lane = lane
        self.open = Bar(lane, look, at, at, number if look is Look.FLIGHT else None)

    def ends(self, look: Look, at: float, text: str, told: str) -> float:
        """What was begun has come to its end; when that is in the picture.

        What nobody saw begin (a late success in a pause) gets a bar all the same.

        Args:
            text: beside the bar.
            told: the end of its title.
        """
        self.ends_pause(at)
        bar = self.open or Bar(self.lane, look, at, at)
        self.open = None
        bar.look = look
        bar.end = max(at, bar.start + TICK)
        long = bar.end - bar.start
        if long >= SHORTEST and look is not Look.DONE and "no answer in" not in told:
            told += f" {'for' if look is Look.WAIT else 'after'} {duration(long)}"
        self._tell(bar, text, told)
        self.bars.append(bar)
        return bar.end

    def forget_open(self) -> None:
        """It turns out that nothing was begun."""
        self.open = None

    def marks(self, shape: Shape, at: float, title: str, *, lane: Lane | None = None, text: str = "") -> Dot:
        """Something happened at one moment; in the lane of what happened last, unless another is given."""
        dot = Dot(lane or self.lane, shape, at, text, f"{self.name}: {title}")
        self.dots.append(dot)
        return dot

    def parks(self, at: float, reason: str) -> Dot:
        """It needs a person. What goes on being tried is parked once, at first."""
        if self.parked is None:
            self.parked = self.marks(Shape.STOP, at, "")
        self.reason = reason
        self.parked.title = f"{self.name} is parked: {reason}"
        return self.parked

    def is_freed(self, at: float) -> None:
        """It no longer needs a person."""
        if self.parked is not None:
            long = duration(max(at - self.parked.at, 0.0))
            self.parked.shape = Shape.FREED
            self.parked.title = f"{self.name} was parked for {long}: {self.reason}"
            self.parked = None

    def ends_pause(self, at: float) -> None:
        """The next try comes, or none does."""
        if self.pause is not None:
            self.pauses(self.pause, max(at, self.pause + TICK))
            self.pause = None

    def pauses(self, start: float, end: float) -> None:
        """A pause that is over, or goes on at `end`."""
        title = f"{self.name}: pause of {duration(end - start)}"
        self.bars.append(Bar(self.lane, Look.PAUSE, start, end, title=title))

    def _tell(self, bar: Bar, text: str, told: str) -> None:
        undo = "undo, " if bar.lane is Lane.UNDO else ""
        tried = bar.number is not None and bar.number > 1
        bar.title = f"{self.name}, {undo}try {bar.number}: {told}" if tried else f"{self.name}: {told}"
        bar.alone = text
        bar.text = f"try {bar.number}" if bar.number is not None else text
        if bar.look is Look.DONE and bar.number is not None and bar.number > 1:
            bar.text = bar.alone = f"try {bar.number}, {text}" if text else f"try {bar.number}"
        elif bar.look is Look.DONE:
            bar.text = text

    # ---- what is drawn ----------------------------------------------------------------------------

    def spans(self, row: int) -> Iterator[Span]:
        """The bars, never many: of over five tries the first two, one band, and the last."""
        for lane in Lane:
            bars = [bar for bar in self.bars if bar.lane is lane]
            for bar in _bounded(self._few(bars)):
                yield Span(row, lane, bar.look, bar.start, bar.end, bar.text, bar.title)

    def drawn_marks(self, row: int) -> Iterator[Mark]:
        """The marks, never many: of over five alike in a lane the first two and the last."""
        bands = [(a.start, a.end) for a in self._bands()]
        for shape in Shape:
            for lane in Lane:
                dots = [dot for dot in self.dots if dot.shape is shape and dot.lane is lane]
                if shape is Shape.RESEND:  # in a band each try would have its own
                    dots = [dot for dot in dots if not any(a < dot.at < b for a, b in bands)]
                for dot in _thinned(dots):
                    yield Mark(row, lane, shape, dot.at, dot.text, dot.title)

    def _bands(self) -> Iterator[Bar]:
        for lane in Lane:
            few = self._few([bar for bar in self.bars if bar.lane is lane])
            yield from (bar for bar in few if bar.look is Look.MANY)

    def _few(self, bars: list[Bar]) -> list[Bar]:
        """The bars of a lane, with a band for the middle of a long run of tries."""
        tries = [n for n, bar in enumerate(bars) if bar.number is not None]
        if len(tries) == 1:
            (only,) = tries
            return [replace(bar, text=bar.alone) if n == only else bar for n, bar in enumerate(bars)]
        if len(tries) <= _MOST_TRIES:
            return bars
        first, last = tries[2], tries[-2]
        a, b = bars[first], bars[last]
        again = sum(dot.shape is Shape.RESEND and a.start < dot.at < b.end for dot in self.dots)
        title = f"{self.name}, tries {a.number} to {b.number}: {b.title.partition(': ')[2]}"
        if again:
            title += f"; sent again {times(again)}"
        text = f"tries {a.number} to {b.number}"
        band = Bar(a.lane, Look.MANY, a.start, b.end, text=text, title=title)
        return [*bars[:first], band, *bars[last + 1 :]]


def _bounded(bars: list[Bar]) -> list[Bar]:
    """Whatever a history holds, a lane has so many bars and no more."""
    if len(bars) <= _MOST_BARS:
        return bars
    half = _MOST_BARS // 2
    middle = bars[half:-half]
    text = f"{len(middle)} more"
    band = Bar(bars[0].lane, Look.MANY, middle[0].start, middle[-1].end, text=text, title=text)
    return [*bars[:half], band, *bars[-half:]]


def _thinned(dots: list[Dot]) -> list[Dot]:
    if len(dots) <= _MOST_MARKS:
        return dots
    *_, last = dots
    return [*dots[:2], replace(last, title=f"{last.title} ({len(dots)} in all)")]
