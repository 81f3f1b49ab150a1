"""Draws a saga as one picture, in SVG: a row per step, forward above, undo below, time to the right.

Positions along the time are percentages, so that the picture is as wide as its place and its text keeps
its size. Colours come from the style sheet: no style attributes, so that a strict content security
policy holds. All text is escaped here, wherever it comes from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from html import escape
from typing import Final

from sagas_framework.console.picture import Lane, Look, Mark, Picture, Shape, Span, Turn, duration
from sagas_framework.console.placing import (
    BAR,
    HEAD,
    ROW,
    Label,
    Places,
    above,
    edges,
    height_of,
    labels,
    scale,
    top,
    width_of,
)

__all__ = [
    "Lane",
    "Look",
    "Mark",
    "Picture",
    "Pip",
    "Shape",
    "Span",
    "Turn",
    "draw",
    "draw_pips",
    "duration",
    "legend",
]

_FACE: Final = 'role="img" aria-labelledby="tl-name tl-text" xmlns="http://www.w3.org/2000/svg"'
_SIZE: Final = f'height="{BAR}" rx="2"'
_NOT_TEXT: Final = re.compile(
    # What XML has no place for, and what turns the direction of text around.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_BARS: Final = {
    Look.FAILED: "failed",
    Look.MANY: "failed",
    Look.WAIT: "wait",
    Look.AWAIT: "wait",
    Look.AHEAD: "ahead",
}
_TONES: Final = {
    Look.FAILED: "t-bad",
    Look.MANY: "t-bad",
    Look.WAIT: "t-wait",
    Look.AWAIT: "t-wait",
    Look.PAUSE: "t-wait",
}
_OCTAGON: Final = "M-3 -7h6l4 4v6l-4 4h-6l-4 -4v-6z"
_PATHS: Final = {
    Shape.RESEND: "M0 -3.5L3.5 2.5H-3.5z",
    Shape.NO_QUEUE: "M0 3L3.5 -3H-3.5z",
    Shape.LATE: "M0 -4.5L4.5 0L0 4.5L-4.5 0z",
    Shape.TOMB: "M-3.5 4V-1a3.5 3.5 0 0 1 7 0V4z",
    Shape.NOTHING: "M-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0M-3 3L3 -3",
    Shape.STOP: _OCTAGON,
    Shape.FREED: "M-2.5 -6h5l3.5 3.5v5l-3.5 3.5h-5l-3.5 -3.5v-5zM-1.8 -2.2v4.4M1.8 -2.2v4.4",
    Shape.SKIP: "M-4 -3.5L-.5 0L-4 3.5M1 -3.5L4.5 0L1 3.5",
    Shape.HAND: "M-2 -3a2 2 0 1 0 4 0a2 2 0 1 0 -4 0M-4 4a4 3.6 0 0 1 8 0z",
    Shape.STUMBLE: "M0 -4.5v5M0 4v.2",
    Shape.FLAG: "M0 6V-7L7 -4L0 -1",
}
_CUT: Final = '<path class="cut" d="M-1.8 -2.5v5M1.8 -2.5v5"/>'
_CROSS: Final = '<path class="mark bad" d="M-3 1.5l6 6m0-6l-6 6"/>'
_PATTERNS: Final = (
    # Their names are fixed because the style sheet fills by them: one big picture in a page.
    '<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="hatch-a" width="6" height="6"/>'
    '<line class="hatch-b" y2="6"/></pattern>'
    '<pattern id="flight-fwd" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<rect class="fl-fwd" width="8" height="8"/>'
    '<line class="fl-fwd-b" x1="0" x2="4" y1="4" y2="4"/></pattern>'
    '<pattern id="flight-undo" width="8" height="8" patternUnits="userSpaceOnUse">'
    '<rect class="fl-undo" width="8" height="8"/>'
    '<line class="fl-undo-b" x1="0" x2="4" y1="4" y2="4"/></pattern></defs>'
)


def draw(picture: Picture) -> str:
    """The picture as an ``<svg>`` element. It brings the patterns that `legend` uses."""
    places = scale(picture.moments)
    found = labels(picture, places)
    bottom = HEAD + ROW * len(picture.steps)
    turn_label, now_label = above(picture, places)
    out = [
        f'<svg class="plot" height="{bottom + 4}" {_FACE}>',
        f'<title id="tl-name">{_text(picture.name)}</title>',
        f'<desc id="tl-text">{_text(picture.summary)}</desc>{_PATTERNS}',
    ]
    if picture.turned is not None:
        x = places[picture.turned.at]
        wide = round(100 - x, 2)
        out.append(f'<rect class="back" x="{x}%" y="20" width="{wide}%" height="{bottom - 20}"/>')
    out += _axis(places, bottom)
    for row in range(len(picture.steps)):
        y = HEAD + ROW * row + 0.5
        kind = "pivot" if row == picture.pivot else "rule"
        out.append(f'<line class="{kind}" x1="0" x2="100%" y1="{y}" y2="{y}"/>')
    if picture.turned is not None and turn_label is not None:
        x = places[picture.turned.at]
        out.append(f'<line class="turn" x1="{x}%" x2="{x}%" y1="20" y2="{bottom}"/>')
        out.append(f"<g>{_title(picture.turned.title)}{_label(turn_label, 'back-text ann')}</g>")
    if picture.now is not None and now_label is not None:
        x = places[picture.now]
        out.append(f'<line class="now" x1="{x}%" x2="{x}%" y1="20" y2="{bottom}"/>')
        out.append(_label(now_label, "now-text"))
    out += [_span(span, places, found.get(span)) for span in picture.spans]
    out += [_mark(mark, places, found.get(mark)) for mark in picture.marks]
    out.append("</svg>")
    return "\n".join(out)


# ---- parts ----------------------------------------------------------------------------------------


def _axis(places: Places, bottom: int) -> Iterable[str]:
    """Lines and lengths above, as many as there is room for; the first and the last are for phones too."""
    yield '<line class="rule" x1="0" x2="100%" y1="20.5" y2="20.5"/>'
    moments = sorted(places)
    last, free, said = moments[-1], 0.0, ""
    final = f"+{duration(last)}"
    until = places[last] - width_of(final)
    for moment in moments:
        x, told = places[moment], f"+{duration(moment)}" if moment else "0"
        half = width_of(told) / 2
        if moment not in (moments[0], last) and (
            x - half < free or x + half > until or told in (said, final)
        ):
            continue
        free, said = x + half, told
        yield f'<line class="grid" x1="{x}%" x2="{x}%" y1="20" y2="{bottom}"/>'
        anchor = "start" if moment == moments[0] else "end" if moment == last else "middle"
        minor = "" if moment in (moments[0], last) else " axis-minor"
        yield f'<text class="axis{minor}" x="{x}%" y="13" text-anchor="{anchor}">{told}</text>'


def _span(span: Span, places: Places, label: Label | None) -> str:
    (left, right), y = edges(span, places), top(span.row, span.lane)
    if span.look is Look.PAUSE:
        body = f'<line class="pause" x1="{left}%" x2="{right}%" y1="{y + 4.5}" y2="{y + 4.5}"/>'
    else:
        wide = round(right - left, 2)
        body = f'<rect class="{_bar(span.look, span.lane)}" x="{left}%" y="{y}" width="{wide}%" {_SIZE}/>'
    if span.look in (Look.FAILED, Look.MANY):
        body += f'<svg x="{right}%" y="{y}" overflow="visible">{_CROSS}</svg>'
    tone = _TONES.get(span.look, "t-undo" if span.lane is Lane.UNDO and span.look is Look.DONE else "")
    return f"<g>{_title(span.title)}{body}{_label(label, f'ann {tone}'.strip())}</g>"


def _mark(mark: Mark, places: Places, label: Label | None) -> str:
    shape = f"{_title(mark.title)}{_shape(mark.shape)}"
    at = f'x="{places[mark.at]}%" y="{height_of(mark)}"'
    tone = "t-bad" if mark.shape is Shape.STOP else ""
    return f'<svg {at} overflow="visible"><g>{shape}</g></svg>' + _label(label, f"ann {tone}".strip())


def _bar(look: Look, lane: Lane) -> str:
    if look is Look.FLIGHT:
        return f"flight {lane.value}"
    return _BARS.get(look, lane.value)


def _shape(shape: Shape) -> str:
    kind = "bad" if shape is Shape.STUMBLE else shape.value
    inside = _CUT if shape is Shape.STOP else ""
    return f'<path class="mark {kind}" d="{_PATHS[shape]}"/>{inside}'


def _label(label: Label | None, kind: str) -> str:
    if label is None:
        return ""
    anchor = ' text-anchor="end"' if label.at_end else ""
    dx = f' dx="{label.dx}"' if label.dx else ""
    return f'<text class="{kind}" x="{label.x}%" y="{label.y}"{dx}{anchor}>{_text(label.text)}</text>'


def _title(text: str) -> str:
    return f"<title>{_text(text)}</title>" if text else ""


def _text(text: str) -> str:
    """For content and attributes alike, whatever somebody else's code put into it."""
    return escape(_NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text))


# ---- legend ---------------------------------------------------------------------------------------

_BAR_WORDS: Final = {
    (Look.DONE, Lane.FORWARD): "forward, done",
    (Look.DONE, Lane.UNDO): "undone",
    (Look.FAILED, None): "failed or no answer",
    (Look.FLIGHT, Lane.FORWARD): "sent, no answer yet",
    (Look.FLIGHT, Lane.UNDO): "undo sent, no answer yet",
    (Look.PAUSE, None): "pause before a retry",
    (Look.WAIT, None): "waits for the participant's word",
    (Look.AWAIT, None): "waits for a signal or a moment",
    (Look.AHEAD, None): "time left",
}
_MARK_WORDS: Final = {
    Shape.RESEND: "sent again, same id",
    Shape.NO_QUEUE: "no queue for it",
    Shape.LATE: "late reply, changes nothing",
    Shape.TOMB: "never happened, and never will",
    Shape.NOTHING: "nothing to undo",
    Shape.STOP: "parked",
    Shape.FREED: "was parked",
    Shape.HAND: "a person acted",
    Shape.SKIP: "skipped, or left out",
    Shape.STUMBLE: "our own code failed to decide",
    Shape.FLAG: "deadline",
}


def legend(picture: Picture) -> list[tuple[str, str]]:
    """`(sample as SVG, words)` of the bars and marks that the picture uses, always in the same order.

    The samples are filled by the patterns of `draw`, so they belong into the same page.
    """
    bars = {(Look.FAILED if s.look is Look.MANY else s.look, s.lane) for s in picture.spans}
    shapes = {mark.shape for mark in picture.marks}
    used: list[tuple[str, str]] = []
    for (look, lane), words in _BAR_WORDS.items():
        if (look, lane) in bars or (lane is None and any(its == look for its, _ in bars)):
            used.append((_bar_sample(look, lane or Lane.FORWARD), words))
    used += [(_mark_sample(shape), words) for shape, words in _MARK_WORDS.items() if shape in shapes]
    return used


def _bar_sample(look: Look, lane: Lane) -> str:
    if look is Look.PAUSE:
        body = '<line class="pause" x1="2" x2="20" y1="6" y2="6"/>'
    else:
        body = f'<rect class="{_bar(look, lane)}" y="1" width="20" {_SIZE}/>'
    return f'<svg class="plot" aria-hidden="true">{body}</svg>'


def _mark_sample(shape: Shape) -> str:
    inside = f'<svg x="11" y="6" overflow="visible">{_shape(shape)}</svg>'
    return f'<svg class="plot" aria-hidden="true">{inside}</svg>'


# ---- pips -----------------------------------------------------------------------------------------


class Pip(StrEnum):
    """Half a cell of the small picture: what became of a step, or of its undo."""

    DONE = "done"
    FAILED = "failed"
    MOVING = "moving"
    LEFT = "left"  # not reached, or skipped by hand
    NONE = "none"


def draw_pips(cells: Sequence[tuple[Pip, Pip]], label: str) -> str:
    """The same picture without time, for lists: a cell per step, forward above, undo below."""
    wide = max(len(cells), 1) * 16
    size = f'viewBox="0 0 {wide} 16" width="{wide}" height="16" preserveAspectRatio="xMinYMid meet"'
    out = [f'<svg class="pips" {size} role="img" aria-label="{_text(label)}">']
    for number, (forward, undo) in enumerate(cells):
        out.append(_pip(forward, number * 16, 1, "f"))
        out.append(_pip(undo, number * 16, 10, "u"))
    return "".join([*out, "</svg>"])


def _pip(pip: Pip, x: int, y: int, lane: str) -> str:
    match pip:
        case Pip.DONE:
            return f'<rect class="{lane}" x="{x}" y="{y}" width="13" height="6" rx="1"/>'
        case Pip.FAILED:
            return (
                f'<rect class="x" x="{x}" y="{y}" width="13" height="6" rx="1"/>'
                f'<path class="xo" d="M{x + 4} {y + 0.8}l5 4.4m0 -4.4l-5 4.4"/>'
            )
        case Pip.MOVING:
            place = f'x="{x + 0.75}" y="{y + 0.75}" width="11.5" height="4.5" rx="1"'
            return f'<rect class="{lane}o" {place}/>'
        case Pip.LEFT:
            return f'<path class="n" d="M{x + 1} {y + 3}h11"/>'
        case Pip.NONE:
            return ""
