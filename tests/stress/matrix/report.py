"""The matrix as a page shows it."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import psycopg
from kombu import Connection

from tests.stress.matrix.running import Result
from tests.stress.matrix.table import CELLS, ROWS, WEB, Cell, Deed

BEGIN: Final = "<!-- crash matrix: begin -->"
END: Final = "<!-- crash matrix: end -->"


@dataclass(frozen=True)
class Machine:
    """Where the cells were run."""

    processor: str
    cores: int
    memory: str
    kernel: str
    python: str
    celery: str
    postgres: str
    rabbitmq: str

    @classmethod
    def this(cls, postgres_url: str, rabbitmq_url: str) -> Machine:
        """This machine and these servers."""
        with psycopg.connect(postgres_url) as connection:
            server = connection.info.server_version
        with Connection(rabbitmq_url) as broker:
            broker.connect()
            properties: Any = broker.connection
            rabbitmq = properties.server_properties["version"]
        memory = int(_found(Path("/proc/meminfo"), r"MemTotal:\s*(\d+)") or 0)  # KiB
        return cls(
            processor=_found(Path("/proc/cpuinfo"), r"model name\s*: (.+)") or platform.machine(),
            cores=len(os.sched_getaffinity(0)),
            memory=f"{memory / 2**20:.0f} GiB",
            kernel=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
            celery=version("celery"),
            postgres=f"{server // 10000}.{server % 10000}",
            rabbitmq=str(rabbitmq),
        )

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory}, {self.kernel}; Python {self.python}, "
            f"Celery {self.celery}, PostgreSQL {self.postgres}, RabbitMQ {self.rabbitmq}"
        )


def _found(file: Path, pattern: str) -> str | None:
    try:
        found = re.search(pattern, file.read_text())
    except OSError:
        return None
    return found[1].strip() if found else None


def markdown(
    results: Mapping[str, Result], *, orders: int, undisturbed: float, day: str, machine: str
) -> str:
    """The table with its sums, and the machine.

    Args:
        results: by the cell's name; a cell that is not in it was not run.
        undisturbed: seconds that the orders of a cell take when nothing is broken.
    """
    lines = [
        f"| point | process | {' | '.join(deed.value for deed in Deed)} |",
        f"|---|---|{'---|' * len(Deed)}",
    ]
    for row in ROWS:
        process = row.victim if row.victim != WEB else "web process"
        cells = [_cell(results.get(Cell(row, deed).name)) for deed in Deed]
        lines.append(f"| {row.point.value} | `{process}` | {' | '.join(cells)} |")
    done = [results[cell.name] for cell in CELLS if cell.name in results]
    good = [result for result in done if result.why is None]
    approved, rejected = sum(r.approved for r in good), sum(r.rejected for r in good)
    sums = (
        f"{len(good)} of {len(CELLS)} cells passed, with {orders} orders each: {approved} approved and "
        f"{rejected} rejected, {approved} tickets, {approved} authorizations; "
        f"{sum(r.sent_again for r in good)} commands were sent again. "
        f"All of it took {sum(r.took for r in done) / 60:.0f} minutes on {day}. "
        f"When nothing is broken, {orders} orders take {undisturbed:g} s."
    )
    lines += ["", sums, "", f"{machine}."]
    if failed := [result for result in done if result.why is not None]:
        lines += ["", "Failed:", "", *(f"- `{result.cell}`: {_plain(result.why or '')}" for result in failed)]
    return "\n".join(lines)


def _cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    if result.why is not None:
        return "**failed**"
    return f"{result.recovery:g} s ({result.approved} + {result.rejected})"


def _plain(why: str) -> str:
    """On one line, and nothing in it that Markdown takes for its own."""
    return re.sub(r"([|<>*_`\[\]])", r"\\\1", " ".join(why.split()))[:500]


def write_into(page: Path, text: str) -> None:
    """Replace what stands between the markers of the page.

    Raises:
        ValueError: the page does not have them.
    """
    before, begin, rest = page.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no {BEGIN} and {END} to write between")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")
