"""Draws a system in SVG: senders on the left, receivers on the right, a row per channel between them.

As with a saga's picture, positions are percentages and text keeps its size, from a phone's width up.
Colours come from the style sheet of the page, which needs rules for these classes inside ``.system``:

| class | |
|---|---|
| ``service``, ``name``, ``queue`` | the bar of a service, its title, a queue's name |
| ``send``, ``receive``, ``reply`` | lines, and with ``head`` their heads |
| ``compensation``, ``settling``, ``event`` | beside the former and ``channel``, if the channel has that tag |
| ``channel``, ``label``, ``answers`` | the pill of a channel, its name, the answers' names |
| ``nobody`` | a side that no document has |
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from sagas_framework.asyncapi.system import Operation, System, Talk

Address = Callable[[Operation], str]
"""Where the docs page of an operation is: its service's site, with its anchor as the fragment."""

# All in pixels.
_BAR: Final = 10  # width of a service
_HEAD: Final = 36  # title of a sender, and the queue of its answers
_GROUP: Final = 34  # title of a receiver, and its queue
_ROW: Final = 50  # a channel with its answers under it
_ROW_ALONE: Final = 32
_GAP: Final = 14
_PILL: Final = 22
_FINGER: Final = 24  # as WCAG 2.2 asks for
_WIDEST: Final = 210  # of the text in it: on a phone there is room for lines on both sides
_MARGIN: Final = 10
_MONO: Final = 6.75  # width of a sign of the labels, 11 px, in the widest type that is usual
_SANS: Final = 5.6  # and of the answers

_TAGS: Final = ("compensation", "settling", "event")
_NOT_TEXT: Final = re.compile(
    # What XML has no place for, and what turns the direction of text around.
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


def draw_system(system: System, address: Address, *, name: str = "Who talks to whom") -> str:
    """The picture, as markup to be put into a page. All text in it is escaped.

    Every line is a link: what a sender sends leads into the sender's page; what a receiver receives and
    answers, into the receiver's.

    Args:
        name: of the picture, for who cannot see it.
    """
    drawn: list[str] = []
    height = 0
    for sender, talks in groupby(system.talks, key=_sender):
        lines, height = _draw_sender(system, sender, list(talks), address, height)
        drawn += lines
    said = f"{len(system.titles)} services and {len(system.talks)} channels."
    return (
        '<svg class="system" xmlns="http://www.w3.org/2000/svg" '
        f'width="100%" height="{height}" role="group" aria-labelledby="system-name system-text">'
        f'<title id="system-name">{_text(name)}</title><desc id="system-text">{said}</desc>'
        f"{''.join(drawn)}</svg>"
    )


def _sender(talk: Talk) -> str | None:
    return talk.sender.service if talk.sender else None


def _receiver(talk: Talk) -> tuple[str | None, str]:
    return talk.receiver.service if talk.receiver else None, talk.place


def _draw_sender(
    system: System, sender: str | None, talks: Sequence[Talk], address: Address, top: int
) -> tuple[list[str], int]:
    """One sender with all that it sends, from `top` down; and where the next one begins."""
    title = system.titles[sender] if sender else "Sent by nobody here"
    drawn = [_words("name", "0", top + 14, title)]
    if queues := sorted({talk.reply_address for talk in talks if talk.reply_address}):
        drawn.append(_words("queue", "0", top + 30, f"answers on {', '.join(queues)}"))
    y = top + _HEAD
    for (receiver, place), group in groupby(talks, key=_receiver):
        title = system.titles[receiver] if receiver else "Received by nobody here"
        drawn.append(_words("name", "100%", y + 14, title, "end"))
        drawn.append(_words("queue", "100%", y + 29, place, "end"))
        y += _GROUP
        begin = y
        for talk in group:
            drawn.append(f"<g>{''.join(_draw_talk(system, talk, address, y))}</g>")
            y += _ROW if talk.replies else _ROW_ALONE
        drawn.append(_at("100%", _bar(receiver, -_BAR, begin, y - 4)))
        y += _GAP
    drawn.append(_bar(sender, 0, top + _HEAD, y - _GAP - 4))
    return drawn, y + 6


def _bar(service: str | None, x: int, top: int, bottom: int) -> str:
    kind = "service" if service else "service nobody"
    return f'<rect class="{kind}" x="{x}" y="{top}" width="{_BAR}" height="{bottom - top}" rx="3"/>'


# ---- a row ----------------------------------------------------------------------------------------


def _draw_talk(system: System, talk: Talk, address: Address, top: int) -> Iterator[str]:
    """The channel with a line on either side, and the way back under it."""
    y = top + 14
    tags = "".join(f" {tag}" for tag in _TAGS if tag in talk.tags)
    label, half = _fitted(talk.short, _MONO)
    # Lines go as far as the middle, beneath the pill: its width is in pixels, its place in percent.
    send = _line(f"send{tags}", str(_BAR), "50%", y) + _at("50%", _head(f"send{tags}", -half, y, -8))
    receive = _line(f"receive{tags}", "50%", "100%", y) + _at("100%", _head(f"receive{tags}", -_BAR, y, -8))
    if talk.sender:
        words = f"{system.titles[talk.sender.service]} sends {talk.channel}"
        yield _link(address(talk.sender), words, _hit("0", "50%", y) + send)
    if talk.receiver:
        words = f"{system.titles[talk.receiver.service]} receives {talk.channel}"
        yield _link(address(talk.receiver), words, _hit("50%", "50%", y) + receive)
    # A click goes through the pill: its left half belongs to the one link, its right to the other.
    pill = _box(f"channel{tags}", half, y, _PILL, radius=11) + _words("label", "0", y + 4, label, "middle")
    yield f'<g pointer-events="none">{_at("50%", pill)}</g>'
    if talk.replies:
        yield _draw_answers(system, talk, address, y + 24)


def _draw_answers(system: System, talk: Talk, address: Address, y: int) -> str:
    side = talk.receiver or talk.sender
    assert side is not None, "a channel is in a document, so it has a side"
    answers = ", ".join(talk.answers)
    text, half = _fitted(answers, _SANS)
    drawn = _line("reply", str(_BAR), "100%", y) + _head("reply", _BAR, y, 8)
    drawn += _at("50%", _box("answers", half, y, 16) + _words("answers", "0", y + 4, text, "middle"))
    words = f"{system.titles[side.service]}: answers to {talk.channel}: {answers}"
    return _link(address(side), words, _hit("0", "100%", y) + drawn)


def _fitted(text: str, sign: float) -> tuple[str, float]:
    """The text as far as there is room for it, and half the width of its box."""
    room = int(_WIDEST / sign)
    shown = text if len(text) <= room else text[: room - 1] + "…"
    return shown, round(len(shown) * sign / 2 + _MARGIN, 1)


# ---- SVG ------------------------------------------------------------------------------------------


def _at(x: str, inside: str) -> str:
    """Move it to a place in percent."""
    return f'<svg x="{x}" overflow="visible">{inside}</svg>'


def _line(kind: str, x1: str, x2: str, y: int) -> str:
    return f'<line class="{kind}" x1="{x1}" x2="{x2}" y1="{y}" y2="{y}"/>'


def _head(kind: str, x: float, y: int, length: int) -> str:
    return f'<path class="head {kind}" d="M{x} {y}l{length} -4.5v9z"/>'


def _box(kind: str, half: float, y: int, height: int, radius: int = 0) -> str:
    size = f'width="{2 * half}" height="{height}" rx="{radius}"'
    return f'<rect class="{kind}" x="{-half}" y="{y - height // 2}" {size}/>'


def _hit(x: str, width: str, y: int) -> str:
    """What can be clicked around a line, as high as a finger needs it."""
    size = f'width="{width}" height="{_FINGER}"'
    return f'<rect class="hit" x="{x}" y="{y - _FINGER // 2}" {size} fill="none" pointer-events="all"/>'


def _words(kind: str, x: str, y: int, text: str, anchor: str = "start") -> str:
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{_text(text)}</text>'


def _link(address: str, words: str, inside: str) -> str:
    told = _text(words)
    return f'<a href="{_text(address)}" aria-label="{told}"><title>{told}</title>{inside}</a>'


def _text(text: str) -> str:
    """For content and attributes alike, whatever somebody's document holds."""
    return escape(_NOT_TEXT.sub("\N{REPLACEMENT CHARACTER}", text))
