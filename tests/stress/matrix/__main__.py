"""The crash matrix, whole or in part: ``make crash-matrix``, ``make crash-matrix CELLS='*:cut'``.

| variable | default | what |
|---|---|---|
| `CELLS` | all | patterns of cells, such as ``batch_*:kill``, with spaces between |
| `CRASH_MATRIX_ORDERS` | 100 | orders for each cell |
| `CRASH_MATRIX_DATA` | `var/crash-matrix` | folder of logs and results |
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tests.servers import Missing
from tests.stress.fleet import ROOT, SERVICES
from tests.stress.matrix.report import Machine, markdown, write_into
from tests.stress.matrix.running import Bench, Result, Servers
from tests.stress.matrix.table import CELLS, Cell, select

PAGE: Final = ROOT / "docs" / "reference" / "crash-matrix.md"
FEWEST: Final = 40
"""Orders with which every point is reached."""


@dataclass
class Notes:
    """Results in a file, so that an interrupted run goes on where it was: if the code is still the same."""

    file: Path
    run: str
    results: dict[str, Result] = field(default_factory=dict)
    undisturbed: float | None = None
    """Seconds that the orders of a cell take when nothing is broken."""

    @classmethod
    def read(cls, file: Path, run: str) -> Notes:
        """The results of this run so far; none if the file tells of another one."""
        try:
            told = json.loads(file.read_text())
        except FileNotFoundError:
            return cls(file, run)
        if told["run"] != run:
            return cls(file, run)
        results = {name: Result(**result) for name, result in told["results"].items()}
        return cls(file, run, results, told["undisturbed"])

    def add(self, result: Result) -> None:
        """Note a result."""
        self.results[result.cell] = result
        self.write()

    def drop(self, cells: Iterable[Cell]) -> None:
        """Forget results: they will be run again."""
        for cell in cells:
            self.results.pop(cell.name, None)
        self.write()

    def write(self) -> None:
        """Write the file anew."""
        results = {name: asdict(one) for name, one in self.results.items()}
        told = {"run": self.run, "undisturbed": self.undisturbed, "results": results}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        made = self.file.with_suffix(".new")
        made.write_text(json.dumps(told, indent=1))
        made.rename(self.file)

    @property
    def complete(self) -> bool:
        """Whether every cell of the table was run."""
        return all(cell.name in self.results for cell in CELLS)

    def left(self, cells: list[Cell]) -> list[Cell]:
        """Those that were not run, or failed."""
        return [c for c in cells if c.name not in self.results or self.results[c.name].why is not None]


def code_digest() -> str:
    """Of every module that the matrix runs, and of the versions that it depends on.

    What was found of another state proves nothing of this one.
    """
    digest = hashlib.sha256()
    folders = ("sagas_framework", "app_common", *SERVICES, "tests/stress/matrix")
    files = [file for folder in folders for file in sorted((ROOT / folder).rglob("*.py"))]
    others = ("tests/servers.py", "tests/stress/fleet.py", "requirements.lock")
    for file in (*files, *(ROOT / other for other in others)):
        digest.update(str(file.relative_to(ROOT)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def orders_wanted(environ: Mapping[str, str] = os.environ) -> int:
    """How many orders come in for each cell.

    Raises:
        ValueError: it is no number, or too small.
    """
    value = environ.get("CRASH_MATRIX_ORDERS") or "100"
    if not value.isdecimal() or int(value) < FEWEST:
        raise ValueError(
            f"CRASH_MATRIX_ORDERS is {value!r}; write a number of at least {FEWEST}: with fewer orders some "
            "points are not reached"
        )
    return int(value)


def main() -> int:
    """Run what is left to run; 1 if a cell failed, 2 if nothing could be run, 130 if interrupted."""
    # Ctrl-C and SIGTERM alike: servers and workers must not be left behind.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        orders = orders_wanted()
        patterns = (os.environ.get("CELLS") or "*").split()
        cells = select(patterns)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    data = Path(os.environ.get("CRASH_MATRIX_DATA") or ROOT / "var" / "crash-matrix")
    digest = code_digest()
    notes = Notes.read(data / "results.json", f"{digest} with {orders} orders")
    left = notes.left(cells)
    if not left:  # asked again after all was done: it is meant anew
        notes.drop(cells)
        left = cells
    try:
        servers = Servers()
    except Missing as missing:
        print(f"The crash matrix starts servers of its own. {missing}", file=sys.stderr)
        return 2
    try:
        failed = _run(left, servers, data, orders, notes, digest)
        if notes.complete and notes.undisturbed is not None:
            told = markdown(
                notes.results,
                orders=orders,
                undisturbed=notes.undisturbed,
                day=datetime.now(UTC).date().isoformat(),
                machine=str(Machine.this(servers.postgres.url, servers.rabbitmq.url)),
            )
            write_into(PAGE, told)
            print(f"written to {PAGE.relative_to(ROOT)}")
    except KeyboardInterrupt:
        print("Interrupted; the next run goes on where this one was.", file=sys.stderr)
        return 130
    finally:
        servers.close()
    return 1 if failed else 0


def _run(cells: list[Cell], servers: Servers, data: Path, orders: int, notes: Notes, digest: str) -> int:
    """Run the cells; how many failed, with the columns whose databases contradict each other in the end.

    Args:
        digest: of the code that `notes` tell of; once it is another one no result is noted any more.
    """
    print(f"{len(cells)} cells of {len(CELLS)} are run, with {orders} orders each", flush=True)
    folder = data / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    bench, failed = Bench(servers, folder, orders), 0
    try:
        if notes.undisturbed is None:
            notes.undisturbed = round(bench.undisturbed(), 1)
            print(f"undisturbed: {notes.undisturbed:g} s", flush=True)
        for number, cell in enumerate(cells, 1):
            result = bench.run(cell)
            if code_digest() != digest:  # every worker was started from the files as they were just then
                failed += 1
                print(
                    f"FAILED: the code has changed since the run began, at {cell.name} or before; run it "
                    "from a checkout of its own",
                    flush=True,
                )
                break
            notes.add(result)
            failed += result.why is not None
            told = f"{result.recovery:g} s" if result.why is None else f"FAILED: {result.why}"
            print(f"[{number}/{len(cells)}] {cell.name}: {told} (took {result.took:g} s)", flush=True)
    finally:
        bench.close()
    for deed, trouble in bench.troubles:
        notes.drop(cell for cell in CELLS if cell.deed is deed)
        print(f"FAILED: all of {deed.value}: {trouble}", flush=True)
    return failed + len(bench.troubles)


if __name__ == "__main__":
    sys.exit(main())
