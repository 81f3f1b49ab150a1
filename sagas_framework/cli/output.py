"""What is printed: plain text that reads well at 80 columns and in a pipe, or JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from sagas_framework.core.instance import Status
from sagas_framework.core.why import in_words

# Blue goes forward, magenta undoes, green is kept, red needs a person; the word always stands beside it.
_COLOURS: Final = {
    Status.RUNNING.value: "blue",
    Status.COMPENSATING.value: "magenta",
    Status.COMPLETED.value: "green",
    Status.COMPENSATED.value: "magenta",
    Status.PARKED.value: "bold red",
    "healthy": "green",
    "not healthy": "bold red",
    "sound": "green",
    "not sound": "bold red",
    "done": "green",
    "refused": "bold red",
    "stored": "yellow",
    "error": "bold red",
    "warning": "yellow",
    "breaking": "bold red",
    "not compared": "bold red",
    "safe": "green",
}
_PIPED: Final = 10_000
"""Columns when no terminal is there to wrap for: one line stays one line, for grep."""


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON object, the only thing on stdout."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


class Screen:
    """Prints text for people: wrapped for the terminal, without colours when there is none."""

    def __init__(self) -> None:
        columns = os.environ.get("COLUMNS", "")
        width = None if sys.stdout.isatty() else int(columns) if columns.isdecimal() else _PIPED
        self._console = Console(width=width or None, highlight=False, markup=False, emoji=False)

    def line(self, text: str = "", *, indent: int = 0) -> None:
        """A paragraph; its further lines are indented as well."""
        if not text:
            self._console.print()
            return
        self._print(Text(plain(text)), indent)

    def verbatim(self, text: str) -> None:
        """Lines to be copied: commands, JSON. The terminal may break them; we do not."""
        for line in plain(text).split("\n"):
            self._console.print(Text(line), soft_wrap=True)

    def status(self, word: str, rest: str = "", *, before: str = "") -> None:
        """A line in which a status stands, in its colour."""
        self._print(Text.assemble(plain(before), (word, _COLOURS.get(word.strip(), "")), plain(rest)), 0)

    def heading(self, text: str) -> None:
        """The title of a part, after an empty line."""
        self._console.print()
        self._print(Text(text, style="bold"), 0)

    def facts(self, rows: Sequence[Sequence[str]]) -> None:
        """Pairs under each other; a long second part goes on under itself."""
        indent = max(len(name) for name, _ in rows) + 2
        for name, value in rows:
            self._print(Text(name.ljust(indent) + plain(value)), indent, hanging=True)

    def fits(self, lines: Sequence[str]) -> bool:
        """Whether the lines can be printed without wrapping them."""
        return max(map(len, lines), default=0) <= self._console.width

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Print rows in columns; the first row is their head."""
        for line in aligned(rows):
            self.line(line)

    def _print(self, text: Text, indent: int, *, hanging: bool = False) -> None:
        # Wrapped at words; a word that is too long is folded, never cut off.
        width = max(self._console.width - indent, 20)
        if hanging:
            head, text = text[:indent], text[indent:]
        lines = text.wrap(self._console, width, overflow="fold")
        for number, line in enumerate(lines):
            line.rstrip()
            first = head if hanging and number == 0 else Text(" " * indent)
            self._console.print(Text.assemble(first, line), soft_wrap=True)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with their columns under each other, two spaces apart."""
    cells = [[plain(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def ago(moment: datetime, now: datetime) -> str:
    """``3 min ago``: in its largest unit."""
    span = now - moment
    if span < timedelta(seconds=1):
        return "just now"
    return " ".join(in_words(span).split()[:2]) + " ago"


def plain(text: str) -> str:
    """The text without what a terminal would obey instead of showing it."""
    return "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)


def compact(value: Any) -> str:
    """A JSON value in one line."""
    return json.dumps(value, ensure_ascii=False)
