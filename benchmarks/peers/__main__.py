"""How fast our sagas are beside others': ``make bench-peers``.

The same saga on saga-framework 0.1, on bare Celery, on DBOS and on Restate, and on ours, measured in turn
on this machine. A peer that cannot be installed stands in the table, with the reason. What is measured and
how is in ``docs/reference/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.configurations import MAIN, MEASURABLE
from benchmarks.peers import catalogue
from benchmarks.peers.installing import CannotInstall, install_python, install_restate_server
from benchmarks.rounds import NotMeasured, add_arguments, run
from benchmarks.systems import System


@dataclass(frozen=True)
class Peer:
    """How a peer is installed and what of it is measured.

    Args:
        name: as tables call it.
        install: raises `CannotInstall` if it cannot be had.
        systems: made once it is there.
    """

    name: str
    install: Callable[[], None]
    systems: Callable[[], Sequence[System]]


def _install_restate() -> None:
    install_python("restate")
    install_restate_server()


PEERS = {
    "saga-framework": Peer(
        "saga-framework 0.1",
        lambda: install_python("saga_framework"),
        lambda: [catalogue.saga_framework()],
    ),
    "celery": Peer(
        "Celery ping-pong", lambda: install_python("saga_framework"), lambda: [catalogue.celery()]
    ),
    "dbos": Peer(
        "DBOS",
        lambda: install_python("dbos"),
        lambda: [catalogue.dbos(local=False), catalogue.dbos(local=True)],
    ),
    "restate": Peer(
        "Restate",
        _install_restate,
        lambda: [catalogue.restate(local=False), catalogue.restate(local=True)],
    ),
}


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("peers", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)} (default: all)")
    parser.add_argument(
        "--ours",
        nargs="+",
        default=[MAIN],
        metavar="CONFIGURATION",
        help=f"of ours, to compare with: {', '.join(MEASURABLE)} (default: {MAIN})",
    )
    add_arguments(parser, "peers")
    given = parser.parse_args()
    for kind, named, known in (("peer", given.peers, PEERS), ("configuration", given.ours, MEASURABLE)):
        if unknown := [name for name in named if name not in known]:
            parser.error(f"no {kind} {', '.join(unknown)}; there are: {', '.join(known)}")
    systems: list[System | NotMeasured] = [MEASURABLE[name] for name in given.ours]
    for name in given.peers or PEERS:
        systems += _installed(PEERS[name])
    return run(systems, given)


def _installed(peer: Peer) -> Sequence[System | NotMeasured]:
    try:
        peer.install()
    except CannotInstall as error:
        print(f"{peer.name} cannot be installed: {error}", file=sys.stderr)
        return [NotMeasured(peer.name, "not installed", str(error))]
    return peer.systems()


if __name__ == "__main__":
    sys.exit(main())
