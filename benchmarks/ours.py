"""How fast our own sagas are: ``make bench``.

The order platform's real services create orders, in each of several configurations, on a database and a
virtual host of their own. What is measured and how is in ``docs/reference/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.configurations import CONFIGURATIONS
from benchmarks.rounds import add_arguments, run


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ours", description=__doc__)
    parser.add_argument(
        "configurations",
        nargs="*",
        metavar="CONFIGURATION",
        help=f"of {', '.join(CONFIGURATIONS)} (default: all)",
    )
    add_arguments(parser, "ours")
    given = parser.parse_args()
    unknown = [name for name in given.configurations if name not in CONFIGURATIONS]
    if unknown:
        parser.error(f"no configuration {', '.join(unknown)}; there are: {', '.join(CONFIGURATIONS)}")
    return run([CONFIGURATIONS[name] for name in given.configurations or CONFIGURATIONS], given)


if __name__ == "__main__":
    sys.exit(main())
