"""Starts orders at an even rate: ``python -m benchmarks.steady``. Driven like `benchmarks.orders`.

It is asked ``{"rate": 60, "seconds": 120}`` and answers ``{"started": 7200, "late": 0.02}`` when all were
started: `late` is by how many seconds it was behind at most.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Final

from benchmarks.driving import own_stdout
from benchmarks.orders import take, wait_for_workers

TICK: Final = 0.05
"""Seconds between two transactions, each with the orders that are due."""


def start(rate: float, seconds: float) -> dict[str, float]:
    """Start so many orders a second for so long."""
    begun, started, late = time.perf_counter(), 0, 0.0
    whole = round(rate * seconds)
    while started < whole:
        passed = time.perf_counter() - begun
        if (due := min(int(rate * passed), whole) - started) > 0:
            late = max(late, passed - started / rate)
            take(due)
            started += due
        time.sleep(max(0.0, TICK - (time.perf_counter() - begun - passed)))
    return {"started": started, "late": round(late, 3)}


def main() -> None:
    """Serve the soak."""
    argparse.ArgumentParser(prog="python -m benchmarks.steady", description=__doc__).parse_args()
    answers = own_stdout()
    wait_for_workers(1)
    answers.write('{"ready": true}\n')
    for line in sys.stdin:
        asked = json.loads(line)
        answers.write(json.dumps(start(asked["rate"], asked["seconds"])) + "\n")


if __name__ == "__main__":
    main()
