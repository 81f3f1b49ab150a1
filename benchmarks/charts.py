"""Bar charts and line charts as SVG, written by hand: a few figures need no plotting library.

They have a background and text of their own, so that they can be read on light and dark pages alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Final

WIDTH: Final = 920
_LEFT: Final = 390  # for the bars' names
_RIGHT: Final = 110  # for their values
_BAR: Final = 18
_STEP: Final = 28
_TOP: Final = 56
_LEGEND_STEP: Final = 20
_COLOURS: Final = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#225588", "#997700",
)  # fmt: skip
"""After P. Tol's "bright" scheme, which colour-blind readers can tell apart."""


@dataclass(frozen=True)
class Bar:
    """A line of the chart.

    Args:
        parts: lengths by name, drawn one after the other; not below 0.
        low, high: of several runs, drawn as a thin line; None: nothing is drawn.
        told: stands beside it.
    """

    name: str
    parts: Mapping[str, float]
    told: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Chart:
    """Bars with one scale. Parts of one name have one colour, told in a legend if there are several."""

    title: str
    unit: str
    bars: Sequence[Bar]
    note: str = ""
    _names: list[str] = field(init=False, repr=False, default_factory=list)

    def __post_init__(self) -> None:
        self._names.extend(dict.fromkeys(name for bar in self.bars for name in bar.parts))

    def svg(self) -> str:
        """The picture."""
        legend = self._legend() if len(self._names) > 1 else []
        top = _TOP + _LEGEND_STEP * len(legend) + (6 if legend else 0)
        height = top + _STEP * len(self.bars) + 34
        title = escape(self.title)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img" font-family="sans-serif" font-size="13">'
        )
        lines = [
            head,
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
            f'<text x="16" y="28" font-size="16" font-weight="bold" fill="#222222">{title}</text>',
            f'<text x="16" y="46" fill="#555555">{escape(self.unit)}</text>',
            *legend,
        ]
        for number, bar in enumerate(self.bars):
            lines += self._bar(bar, top + _STEP * number)
        if self.note:
            lines.append(f'<text x="16" y="{height - 12}" fill="#555555">{escape(self.note)}</text>')
        return "\n".join([*lines, "</svg>", ""])

    def _scale(self) -> float:
        longest = max((max(sum(bar.parts.values()), bar.high or 0.0) for bar in self.bars), default=0.0)
        return (WIDTH - _LEFT - _RIGHT) / longest if longest > 0 else 0.0

    def _bar(self, bar: Bar, y: float) -> list[str]:
        scale, x, middle = self._scale(), float(_LEFT), y + _BAR / 2
        lines = [
            f'<text x="{_LEFT - 8}" y="{y + 14:g}" text-anchor="end" fill="#222222">{escape(bar.name)}</text>'
        ]
        for name, length in bar.parts.items():
            width, colour = max(length, 0.0) * scale, self._colour(name)
            lines.append(
                f'<rect x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_BAR}" fill="{colour}">'
                f"<title>{escape(name)}: {length:.4g}</title></rect>"
            )
            x += width
        if bar.low is not None and bar.high is not None:
            left, right = _LEFT + bar.low * scale, _LEFT + bar.high * scale
            lines.append(f'<path d="M{left:.1f} {middle:g}H{right:.1f}" stroke="#222222" stroke-width="2"/>')
            x = max(x, right)
        lines.append(f'<text x="{x + 6:.1f}" y="{y + 14:g}" fill="#222222">{escape(bar.told)}</text>')
        return lines

    def _legend(self) -> list[str]:
        """What the colours mean, a text of SVG for each line."""
        lines = [""]
        x = 16.0
        for name in self._names:
            wide = 34 + 7.2 * len(name)  # about; nobody measures letters here
            if x + wide > WIDTH and lines[-1]:
                lines.append("")
                x = 16.0
            y = _TOP + _LEGEND_STEP * (len(lines) - 1)
            lines[-1] += (
                f'<rect x="{x:g}" y="{y}" width="12" height="12" fill="{self._colour(name)}"/>'
                f'<text x="{x + 17:g}" y="{y + 11}" fill="#222222">{escape(name)}</text>'
            )
            x += wide
        return lines

    def _colour(self, name: str) -> str:
        return _COLOURS[self._names.index(name) % len(_COLOURS)]


@dataclass(frozen=True)
class Lines:
    """Lines over time, from 0 up, each `(x, y)` points in their order; a legend says which is which."""

    title: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]

    def svg(self) -> str:
        """The picture."""
        high, left, right, below = 320, 60, 20, 40
        points = [point for line in self.lines.values() for point in line]
        top_x, top_y = (max((point[place] for point in points), default=1.0) or 1.0 for place in (0, 1))
        wide, tall = WIDTH - left - right, high - _TOP - 24 - below

        def place(point: tuple[float, float]) -> str:
            return f"{left + point[0] / top_x * wide:.1f} {_TOP + 24 + tall - point[1] / top_y * tall:.1f}"

        title = escape(self.title)
        axes = "L".join(place(point) for point in ((0, top_y), (0, 0), (top_x, 0)))
        drawn = [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{high}" '
                f'viewBox="0 0 {WIDTH} {high}" role="img" font-family="sans-serif" font-size="13">'
            ),
            f"<title>{title}</title>",
            f'<rect width="{WIDTH}" height="{high}" fill="#ffffff"/>',
            f'<text x="16" y="28" font-size="16" font-weight="bold" fill="#222222">{title}</text>',
            f'<text x="16" y="46" fill="#555555">{escape(self.unit)}</text>',
            f'<path d="M{axes}" fill="none" stroke="#222222"/>',
            f'<text x="{left - 6}" y="{_TOP + 32}" text-anchor="end" fill="#222222">{top_y:.4g}</text>',
            f'<text x="{left - 6}" y="{_TOP + 28 + tall}" text-anchor="end" fill="#222222">0</text>',
            f'<text x="{WIDTH - right}" y="{high - 16}" text-anchor="end" fill="#222222">{top_x:.3g}</text>',
        ]
        x = 200.0
        for number, (name, line) in enumerate(self.lines.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            path = "L".join(place(point) for point in line)
            drawn.append(
                f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>' if line else ""
            )
            if not name:  # there is only one
                continue
            drawn.append(f'<rect x="{x:g}" y="17" width="12" height="12" fill="{colour}"/>')
            drawn.append(f'<text x="{x + 17:g}" y="28" fill="#222222">{escape(name)}</text>')
            x += 34 + 7.2 * len(name)
        return "\n".join([*filter(None, drawn), "</svg>", ""])
