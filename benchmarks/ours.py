"""How fast our own sagas are: ``make bench``.

The order platform's real services create orders, in each of several configurations, on a database and a
virtual host of their own. What is measured and how is in ``docs/reference/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.configurations import MEASURABLE
from benchmarks.rounds import add_arguments, run


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours", description=__doc__)
    parser.add_argument(
        "configurations",
        nargs="*",
        metavar="CONFIGURATION",
        help=f"of {', '.join(MEASURABLE)} (default: all)",
    )
    add_arguments(parser, "ours")
    given = parser.parse_args()
    unknown = [name for name in given.configurations if name not in MEASURABLE]
    if unknown:
        parser.error(f"no configuration {', '.join(unknown)}; there are: {', '.join(MEASURABLE)}")
    return run([MEASURABLE[name] for name in given.configurations or MEASURABLE], given)


if __name__ == "__main__":
    sys.exit(main())
