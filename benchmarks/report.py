"""Turns results into tables and pictures: ``.venv/bin/python -m benchmarks.report build/bench/ours.jsonl``.

With ``--page`` the tables go into a page, between ``<!-- benchmarks: NAME -->`` and ``<!-- end -->``, and
with ``--pictures`` the pictures into a folder.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import machine
from benchmarks.charts import Bar, Chart
from benchmarks.results import (
    Record,
    Summary,
    UnreadableResults,
    cpu_by_process,
    load,
    ratios,
    summaries,
    throughput,
)

OURS = "sagas_framework"


class NoPlace(Exception):
    """A page has no place for the tables; the message says what to write into it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the tables; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, metavar="FILE", help="of JSON lines")
    parser.add_argument("--page", type=Path, help="put the tables in there, too")
    parser.add_argument("--name", help="of the place in the page (default: that of the first file)")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write pictures there")
    given = parser.parse_args(arguments)
    name = given.name or given.results[0].stem
    try:
        records = load(given.results)
        told = text(records)
        print(told, end="")
        if given.page is not None:
            given.page.write_text(placed(given.page.read_text(), name, told))
    except (UnreadableResults, NoPlace) as error:
        print(error, file=sys.stderr)
        return 1
    if given.pictures is not None:
        for file in write_pictures(records, given.pictures, name):
            print(f"wrote {file}", file=sys.stderr)
    return 0


def text(records: Sequence[Record]) -> str:
    """All that the records say, as markdown."""
    found = summaries(records)
    parts = [machine.words(record["machine"]) for record in records if record["kind"] == "machine"][-1:]
    parts.append(throughput(found))
    parts += [cpu_by_process(found), cpu_by_process(found, "alone", "CPU ms a saga, one at a time")]
    if (ours := best(found)) is not None and any(one.system != OURS for one in found):
        title = f"{ours.title}, compared with the others of the same run:\n"
        parts += [title, ratios([one for one in found if one.system != OURS], ours)]
    parts += [
        f"{one.title} was not measured: {one.missing.strip()}\n" for one in found if one.missing is not None
    ]
    return "\n".join(filter(None, parts))


def best(found: Sequence[Summary]) -> Summary | None:
    """Of our own configurations the one with the highest throughput; None if none was measured."""
    ours = [one for one in found if one.system == OURS and one.rounds]
    return max(ours, key=lambda one: one.median("completed", "per_second") or 0.0, default=None)


def placed(page: str, name: str, told: str) -> str:
    """The page with the text in its place.

    Raises:
        NoPlace: there is none of this name.
    """
    begin, end = f"<!-- benchmarks: {name} -->", "<!-- end -->"
    pattern = re.compile(rf"({re.escape(begin)}\n).*?({re.escape(end)})", re.DOTALL)
    changed, times = pattern.subn(lambda found: f"{found[1]}\n{told}\n{found[2]}", page)
    if times != 1:
        raise NoPlace(
            f"The page has {times} places for the tables. Write once where they belong:\n{begin}\n{end}"
        )
    return changed


# ---- pictures -------------------------------------------------------------------------------------


def charts(records: Sequence[Record]) -> dict[str, Chart]:
    """Throughput, CPU by process and latency, by name."""
    measured = [one for one in summaries(records) if one.rounds]
    note = "Median of all runs; the thin line runs from the lowest to the highest."
    rates, cpus, times = [], [], []
    for one in measured:
        if (rate := one.spread("completed", "per_second")) is not None:
            parts = {"sagas a second": rate.median}
            rates.append(Bar(one.title, parts, f"{rate.median:.0f}", rate.lowest, rate.highest))
        cpu = one.cpu()
        cpus.append(Bar(one.title, cpu, f"{sum(cpu.values()):.1f} ms"))
        p50, p99 = one.median("alone", "p50_ms"), one.median("alone", "p99_ms")
        if p50 is not None and p99 is not None:
            parts = {"p50": p50, "from there to p99": max(p99 - p50, 0.0)}
            times.append(Bar(one.title, parts, f"{p50:.0f} / {p99:.0f} ms"))
    return {
        "throughput": Chart("Sagas a second, started at once", "sagas a second", rates, note),
        "cpu": Chart("CPU for one saga, by process", "milliseconds, user and system", cpus, "Medians."),
        "latency": Chart("One saga at a time", "milliseconds from its start to its end", times, "Medians."),
    }


def write_pictures(records: Sequence[Record], folder: Path, name: str) -> list[Path]:
    """Write the pictures; the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for what, chart in charts(records).items():
        if chart.bars:
            files.append(folder / f"benchmark-{name}-{what}.svg")
            files[-1].write_text(chart.svg())
    return files


if __name__ == "__main__":
    sys.exit(main())
