"""Measurements: kept as JSON lines, summed up as medians, shown as tables. Nothing here measures.

A record is a JSON object: ``at``, ``round``, ``system``, ``variant``, ``kind``, and what belongs to its
kind. ``completed`` and ``declined`` are batches, ``alone`` is one saga at a time, ``machine`` says where
all of it was measured, ``missing`` that a system could not be, and ``why``.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

Record = Mapping[str, Any]

QUIET: Final = 0.2
"""Cores that other programs may use before a figure is marked."""

PARTICIPANTS: Final = ("consumer", "restaurant", "accounting")


class UnreadableResults(Exception):
    """A file of results cannot be used; the message says which line and why."""


# ---- numbers --------------------------------------------------------------------------------------


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of the values that is not below so many percent of them.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a percentile needs at least one value")
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


@dataclass(frozen=True)
class Spread:
    """Values of several runs."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """None if there are no values."""
        if not values:
            return None
        return cls(statistics.median(values), min(values), max(values))


# ---- JSON lines -----------------------------------------------------------------------------------


def append(file: Path, record: Record) -> None:
    """Add a record, at once on disk: a run that is interrupted keeps what it measured."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as lines:
        lines.write(json.dumps(record) + "\n")


def load(files: Iterable[Path]) -> list[Record]:
    """The records of these files, in order.

    Raises:
        UnreadableResults: one of them has a line that is no record, or cannot be opened.
    """
    return [record for file in files for record in _lines(file)]


def _lines(file: Path) -> Iterator[Record]:
    try:
        text = file.read_text()
    except OSError as error:
        raise UnreadableResults(f"{file} cannot be read: {error.strerror}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
        except ValueError as error:
            raise UnreadableResults(f"{file}, line {number}, is not JSON: {error}") from None
        if not isinstance(record, dict) or "kind" not in record:
            raise UnreadableResults(f"{file}, line {number}, is no record: it has no kind")
        yield record


# ---- sums -----------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What was measured of one system, over all rounds."""

    system: str
    variant: str
    records: list[Record] = field(default_factory=list)

    @property
    def title(self) -> str:
        """Name and variant."""
        return f"{self.system}, {self.variant}"

    @property
    def rounds(self) -> int:
        """How often a batch was measured."""
        return len(self._of("completed"))

    @property
    def missing(self) -> str | None:
        """Why nothing was measured; None if something was."""
        whys = [record["why"] for record in self._of("missing")]
        return whys[-1] if whys and not self.rounds else None

    def spread(self, kind: str, name: str) -> Spread | None:
        """The values of one field; None if it was not measured."""
        return Spread.of([float(record[name]) for record in self._of(kind) if record.get(name) is not None])

    def median(self, kind: str, name: str) -> float | None:
        """The median of one field; None if it was not measured."""
        spread = self.spread(kind, name)
        return None if spread is None else spread.median

    def cpu(self, kind: str = "completed") -> dict[str, float]:
        """Median milliseconds of CPU for a saga, by group, in the order in which they were measured."""
        records = [record["cpu_ms_by_group"] for record in self._of(kind) if "cpu_ms_by_group" in record]
        groups = dict.fromkeys(group for record in records for group in record)
        return {group: statistics.median([r.get(group, 0.0) for r in records]) for group in groups}

    def _of(self, kind: str) -> list[Record]:
        return [record for record in self.records if record["kind"] == kind]


def summaries(records: Iterable[Record]) -> list[Summary]:
    """One for each system and variant, in the order in which they first came."""
    found: dict[tuple[str, str], Summary] = {}
    for record in records:
        if "system" in record:
            name = (record["system"], record["variant"])
            found.setdefault(name, Summary(*name)).records.append(record)
    return list(found.values())


# ---- tables ---------------------------------------------------------------------------------------


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as a markdown table, the first being its head; the first column to the left, others right."""
    head, *body = rows
    align = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, align, *body]) + "\n"


def throughput(found: Sequence[Summary]) -> str:
    """The main table. A figure that was measured beside other load is marked with ``*``."""
    head = (
        "system",
        "sagas a second: median (min-max)",
        "CPU ms a saga: median (min)",
        "one at a time: p50 / p99 ms",
        "declined: a second, CPU ms, p50 ms",
        "WAL kB, writing transactions, statements a saga",
        "RSS / PSS MB",
        "other load, cores",
        "runs",
    )
    return table([head, *map(_throughput_row, found)])


def _throughput_row(one: Summary) -> list[str]:
    if one.missing is not None:
        return [one.title, f"not measured: {_first_line(one.missing)}", *[""] * 6, "0"]
    rate, cpu = one.spread("completed", "per_second"), one.spread("completed", "cpu_ms")
    if rate is None or cpu is None:
        return [one.title, *[""] * 7, "0"]
    other = one.spread("completed", "other_cores")
    mark = " *" if other is not None and other.highest > QUIET else ""
    wal = one.median("completed", "wal_bytes")
    return [
        one.title,
        f"{rate.median:.0f} ({rate.lowest:.0f}-{rate.highest:.0f}){mark}",
        f"{cpu.median:.1f} ({cpu.lowest:.1f})",
        _joined(" / ", one.median("alone", "p50_ms"), one.median("alone", "p99_ms")),
        _joined(
            ", ",
            one.median("declined", "per_second"),
            one.median("declined", "cpu_ms"),
            one.median("alone", "declined_p50_ms"),
        ),
        _joined(
            ", ",
            None if wal is None else wal / 1000,
            one.median("completed", "write_transactions"),
            one.median("completed", "statements"),
        ),
        _joined(" / ", one.median("completed", "rss_mb"), one.median("completed", "pss_mb")),
        "" if other is None else f"{other.median:.2f} (max {other.highest:.2f})",
        str(one.rounds),
    ]


def cpu_by_process(found: Sequence[Summary], kind: str = "completed", head: str = "CPU ms a saga") -> str:
    """Where the CPU went: milliseconds for a saga, by group of processes; nothing if it was not measured."""
    measured = [(one.title, cpu) for one in found if (cpu := one.cpu(kind))]
    groups = list(dict.fromkeys(group for _, cpu in measured for group in cpu))
    rows = [[head, *groups, "all"]]
    for title, cpu in measured:
        cells = [f"{cpu[group]:.2f}" if group in cpu else "" for group in groups]
        rows.append([title, *cells, f"{sum(cpu.values()):.2f}"])
    return table(rows) if measured else ""


def ratios(found: Sequence[Summary], ours: Summary) -> str:
    """How many times as fast as each other system ours is, and how many times its CPU the other one needs."""
    head = ["compared with", "throughput", "CPU", "p50, one at a time"]
    rows = [head]
    for other in found:
        if other is ours or not other.rounds:
            continue
        rows.append(
            [
                other.title,
                _times(ours.median("completed", "per_second"), other.median("completed", "per_second")),
                _times(other.median("completed", "cpu_ms"), ours.median("completed", "cpu_ms")),
                _times(other.median("alone", "p50_ms"), ours.median("alone", "p50_ms")),
            ]
        )
    return table(rows)


def _times(more: float | None, less: float | None) -> str:
    if more is None or not less:
        return ""
    times = more / less
    return f"{times:.1f} x" if times >= 1 else f"{times:.2f} x"


def _joined(between: str, *values: float | None) -> str:
    if all(value is None for value in values):
        return ""
    return between.join("-" if value is None else _rounded(value) for value in values)


def _rounded(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].replace("|", "/")
