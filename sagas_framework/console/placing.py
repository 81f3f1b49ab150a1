"""Where things go in a picture: moments in percent of its width, labels where they hide nothing.

A picture is as wide as its place, so nobody knows how many pixels a percent has. Labels are placed for
a page of usual width; narrow ones hide them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import log10
from typing import Final

from sagas_framework.console.picture import Lane, Look, Mark, Picture, Shape, Span

HEAD: Final = 38
ROW: Final = 42
LANES: Final = {Lane.FORWARD: 16, Lane.UNDO: 29}
BAR: Final = 9
THINNEST: Final = 0.7
"""Percent of the width that a bar has at least, or what took no time could not be seen."""

_LEFT, _RIGHT = 0.5, 98.0
_PIXELS: Final = 8.8  # that a percent has on a page of usual width
_NARROW: Final = 5.0  # on a narrow page that still has words in its picture
_LETTER: Final = 6.2  # pixels, of the plot's font of 11
_BOLD: Final = 6.8
_MARK: Final = 6  # pixels from the middle of a mark to its edge

Places = Mapping[float, float]
"""Percent of the width, by seconds since the start."""


def scale(moments: Iterable[float]) -> Places:
    """Each moment's place. A gap's width grows with the logarithm of its length, so that 20 ms stay
    visible beside 24 hours; the true lengths are printed."""
    ordered = sorted(set(moments))
    gaps = [1 + 1.7 * log10(1 + (later - earlier) / 0.01) for earlier, later in pairwise(ordered)]
    total, wide = sum(gaps) or 1.0, _RIGHT - _LEFT
    places, gone = {ordered[0]: _LEFT}, 0.0
    for moment, gap in zip(ordered[1:], gaps, strict=True):
        gone += gap
        places[moment] = round(_LEFT + wide * gone / total, 2)
    return places


def edges(span: Span, places: Places) -> tuple[float, float]:
    """Where a bar begins and ends, in percent: never too thin to be seen, never outside."""
    left = places[span.start]  # at most 98: there is room for the thinnest bar behind it
    return left, max(places[span.end], round(left + THINNEST, 2))


def top(row: int, lane: Lane) -> int:
    """The upper edge of a lane's bars, in pixels."""
    return HEAD + ROW * row + LANES[lane]


def height_of(mark: Mark) -> float:
    """The middle of a mark, in pixels."""
    # What was sent again stands under its bar and points at it; a person stands above what she did.
    drop = {Shape.RESEND: 7.5, Shape.NO_QUEUE: 7.5, Shape.HAND: -10.0}.get(mark.shape, 0.0)
    return top(mark.row, mark.lane) + BAR / 2 + drop


def width_of(text: str) -> float:
    """What a length above the picture takes at most, in percent, with a gap beside it."""
    return (len(text) * _LETTER + 12) / _NARROW


# ---- labels ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Label:
    """A text beside a bar or mark: `x` in percent, `y` and `dx` in pixels."""

    text: str
    x: float
    y: float
    dx: int = 0
    at_end: bool = False
    """Whether the text ends at `x` instead of beginning there."""

    def box(self, *, bold: bool = False) -> _Box:
        """What it covers on a page of usual width, in pixels."""
        wide = len(self.text) * (_BOLD if bold else _LETTER)
        start = self.x * _PIXELS + self.dx - (wide if self.at_end else 0)
        return _Box(start, self.y - 9, start + wide, self.y + 2)


@dataclass(frozen=True, slots=True)
class _Box:
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: _Box) -> bool:
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )

    def meets_any(self, others: Iterable[_Box]) -> bool:
        return any(self.meets(other) for other in others)

    @property
    def inside(self) -> bool:
        return self.left >= 0 and self.right <= 100 * _PIXELS + 8


def labels(picture: Picture, places: Places) -> dict[Span | Mark, Label]:
    """A place for each text that has one without hiding a bar, a mark or another text.

    What matters most chooses first. The others are left out: the table beside the picture has the words.
    """
    taken: dict[Span | Mark, _Box] = {mark: _mark_box(mark, places) for mark in picture.marks}
    taken |= {span: _bar_box(span, places) for span in picture.spans}
    lines, texts = list(_line_boxes(picture, places)), list[_Box]()
    found: dict[Span | Mark, Label] = {}
    things: list[Span | Mark] = [*picture.marks, *picture.spans]
    for thing in sorted((thing for thing in things if thing.text), key=_rank):
        around = [box for owner, box in taken.items() if owner is not thing] + texts
        boxes = [(label, label.box(bold=_is_bold(thing))) for label in _candidates(thing, places)]
        free = [(label, box) for label, box in boxes if box.inside and not box.meets_any(around)]
        # A line through a text is worse than another place for it, but better than no text.
        free.sort(key=lambda its: its[1].meets_any(lines))
        for label, box in free[:1]:
            found[thing] = label
            texts.append(box)
    return found


def above(picture: Picture, places: Places) -> tuple[Label | None, Label | None]:
    """Where the picture's head says why it turned back, and which line is now."""
    turned, now = picture.turned, picture.now
    line = HEAD - 6
    why = now_label = None
    crowded = False
    if turned is not None:
        x = places[turned.at]
        end = places[now] - 40 / _NARROW if now is not None and places[now] > x else 100.0
        needed = (len(turned.text) * _BOLD + 6) / _NARROW
        to_right = needed <= end - x or end - x >= x
        why = Label(turned.text, x, line, 6 if to_right else -6, at_end=not to_right)
        crowded = to_right and needed > end - x
    if now is not None:
        x = places[now]
        now_label = Label("now", x, line, -5, at_end=True)
        box, lines = now_label.box(bold=True), list(_line_boxes(picture, places))
        if crowded or not box.inside or box.meets_any(lines):
            now_label = Label("now", x, line, 5)
    return why, now_label


def _rank(thing: Span | Mark) -> tuple[int, float]:
    """Who chooses first: a band of tries, what is parked, what moves or failed, then the rest."""
    if isinstance(thing, Mark):
        return 1, thing.at
    order = {Look.MANY: 0, Look.FLIGHT: 2, Look.WAIT: 2, Look.FAILED: 3, Look.AHEAD: 4}
    return order.get(thing.look, 5), thing.start


def _is_bold(thing: Span | Mark) -> bool:
    return isinstance(thing, Mark) or thing.look in (Look.FAILED, Look.MANY)


def _bar_box(span: Span, places: Places) -> _Box:
    (left, right), y = edges(span, places), top(span.row, span.lane)
    if span.look is Look.PAUSE:
        return _Box(left * _PIXELS, y + 3, right * _PIXELS, y + 6)
    cross = 4 if span.look in (Look.FAILED, Look.MANY) else 0
    return _Box(left * _PIXELS, y - 1, right * _PIXELS + cross, y + BAR + 1)


def _line_boxes(picture: Picture, places: Places) -> Iterable[_Box]:
    """The lines from top to bottom."""
    moments = [picture.now, picture.turned.at if picture.turned is not None else None]
    for x in (places[moment] * _PIXELS for moment in moments if moment is not None):
        yield _Box(x, 20, x + 1, HEAD + ROW * len(picture.steps))


def _mark_box(mark: Mark, places: Places) -> _Box:
    x, y = places[mark.at] * _PIXELS, height_of(mark)
    return _Box(x - _MARK - 1, y - _MARK + 1, x + _MARK + 1, y + _MARK - 1)


def _candidates(thing: Span | Mark, places: Places) -> Iterable[Label]:
    """Where the text could stand, the best first."""
    y = top(thing.row, thing.lane)
    if isinstance(thing, Mark):
        left = right = places[thing.at]
    else:
        left, right = edges(thing, places)
    over = Label(thing.text, left, y - 4)
    over_end = Label(thing.text, right, y - 4, at_end=True)
    after = Label(thing.text, right, y + 8, 10)
    before = Label(thing.text, left, y + 8, -9, at_end=True)
    if isinstance(thing, Mark):
        return after, before, over, over_end, Label(thing.text, left, y + BAR + 12)
    if thing.look is Look.AHEAD:
        return over_end, over
    if thing.look is Look.FLIGHT:
        return over_end, over, after, before
    if thing.lane is Lane.UNDO and thing.look is Look.DONE:
        return after, before, over, over_end
    return over, over_end, after, before
