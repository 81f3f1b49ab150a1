"""Measures several systems in turn, again and again, so that other load falls on all of them alike."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.results import append
from benchmarks.results import load as load_results
from benchmarks.running import CannotMeasure, Load, Servers, measure, servers, warn_of_load
from benchmarks.systems import BUILD, System
from tests.servers import Missing


@dataclass(frozen=True)
class NotMeasured:
    """A system that cannot be measured here, and why: it stands in the table all the same."""

    name: str
    variant: str
    why: str


def add_arguments(parser: argparse.ArgumentParser, name: str) -> None:
    """What every benchmark can be told.

    Args:
        name: of its results.
    """
    parser.add_argument("--rounds", type=_positive, default=3, help="how often each is measured")
    for size in fields(Load):
        least = _positive if size.name in ("warm", "batch") else _natural
        parser.add_argument(
            f"--{size.name}", type=least, default=size.default, metavar="SAGAS", help=_SIZES[size.name]
        )
    parser.add_argument(
        "--own-servers",
        action="store_true",
        help="start a PostgreSQL, with pg_stat_statements, and a RabbitMQ for this alone",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=BUILD / f"{name}.jsonl",
        metavar="FILE",
        help="keep every run there, and begin it anew (default: %(default)s)",
    )


_SIZES = {
    "warm": "sagas that are run first and not measured",
    "batch": "sagas that are started at once",
    "declined": "the same with a card that is refused; 0: none",
    "alone": "sagas one at a time; 0: none",
}


def run(systems: Sequence[System | NotMeasured], given: argparse.Namespace) -> int:
    """Measure all, and print what was found; the exit code: 1 if one of our own could not be measured."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was made is dropped also then
    load = Load(**{size.name: getattr(given, size.name) for size in fields(Load)})
    results: Path = given.results
    keep_former(results)
    failed = False
    try:
        with servers(own=given.own_servers) as found:
            described = machine.describe(found.postgres.url, found.rabbitmq.url)
            append(results, {"at": now(), "kind": "machine", "machine": described})
            for absent in systems:
                if isinstance(absent, NotMeasured):
                    _note(results, 0, absent, {"kind": "missing", "why": absent.why})
            for number in range(1, given.rounds + 1):
                for system in systems:
                    if isinstance(system, System):
                        failed |= not _round(results, number, system, found, load)
    except Missing as missing:
        print(f"Nothing can be measured without it: {missing}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"Interrupted; what was measured is in {results}", file=sys.stderr)
        return 130
    records = load_results([results])
    told = report.text(records)
    results.with_suffix(".md").write_text(told)
    pictures = report.write_pictures(records, results.parent, results.stem)
    print(f"\n{told}\nKept: {results}, {results.with_suffix('.md').name}, {len(pictures)} pictures")
    return 1 if failed else 0


def _round(results: Path, number: int, system: System, found: Servers, load: Load) -> bool:
    """Measure one system; whether it could be."""
    print(f"round {number}: {system.title}", file=sys.stderr, flush=True)
    logs = results.parent / "logs" / f"{results.stem}-{number}-{_as_name(system.title)}"
    for old in logs.glob("*.log"):
        old.unlink()
    try:
        for record in measure(system, found, load, logs):
            _note(results, number, system, record)
            print(f"  {_brief(record)}", file=sys.stderr, flush=True)
            warn_of_load(record)
    except CannotMeasure as error:
        _note(results, number, system, {"kind": "missing", "why": str(error)})
        print(f"  {error}", file=sys.stderr, flush=True)
        return False
    return True


def _note(results: Path, number: int, of: System | NotMeasured, record: dict[str, Any]) -> None:
    append(results, {"at": now(), "round": number, "system": of.name, "variant": of.variant, **record})


def _brief(record: dict[str, Any]) -> str:
    if record["kind"] == "alone":
        return f"alone: p50 {record['p50_ms']:g} ms, p99 {record['p99_ms']:g} ms"
    return f"{record['kind']}: {record['per_second']:g} a second, {record['cpu_ms']:g} ms of CPU each"


def keep_former(results: Path) -> None:
    """Results of a former run keep their lines, under a name with the time of that run."""
    with suppress(FileNotFoundError):
        at = datetime.fromtimestamp(results.stat().st_mtime, UTC)
        results.rename(results.with_name(f"{results.stem}-{at:%Y%m%dT%H%M%S}{results.suffix}"))


def _as_name(title: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in title)


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return number


def _positive(text: str) -> int:
    number = _natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError("at least 1 is needed")
    return number
