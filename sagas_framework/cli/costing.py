"""``saga cost``: what one saga of a name costs, and what so many a second need."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import click

from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.finding import find
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.core.why import in_words
from sagas_framework.cost.counting import Counted, count
from sagas_framework.cost.metering import Used, Watch, to_json
from sagas_framework.errors import SagasError
from sagas_framework.storage.database import Database

_DAY: Final = 86_400


@click.command()
@click.argument("saga_name", metavar="SAGA")
@click.option(
    "--sample",
    type=click.IntRange(1, 10_000),
    default=200,
    show_default=True,
    help="Of so many that ended last.",
)
@click.option(
    "--during",
    type=Span(),
    metavar="SPAN",
    help="Also watch the system at work for so long: CPU by process, WAL, transactions.",
)
@click.option(
    "--also",
    multiple=True,
    metavar="MODULE",
    help="Watch this service as well: the worker of a participant. May be given several times.",
)
@click.option(
    "--rate",
    type=click.FloatRange(min=0, min_open=True),
    default=1000.0,
    show_default=True,
    metavar="N",
    help="What so many a second would need.",
)
@json_option
@pass_program
def cost(
    program: Program,
    saga_name: str,
    sample: int,
    during: timedelta | None,
    also: tuple[str, ...],
    rate: float,
) -> None:
    """Show what one saga costs, and what so many a second need.

    Messages, bytes and rows are counted from sagas of this name that have ended. With --during the system
    is watched while it works, and what it used is shared out among all sagas that ended meanwhile, so let
    it run these sagas alone, at the rate that you want to know about.
    """
    counted = count(program.sagas, saga_name, sample)
    used = None if during is None else _watched(program, during, also)
    if program.json:
        watched = None if used is None else to_json(used)
        print_json({"counted": counted.to_json(), "used": watched, "rate": rate})
        return
    screen = Screen()
    kept = f"{counted.completed:.0%} completed"
    screen.line(
        f"{counted.saga}: {counted.sagas:,} that ended last, {kept}; from start to end p50 "
        f"{in_words(timedelta(seconds=counted.p50))}, p99 {in_words(timedelta(seconds=counted.p99))}"
    )
    screen.line()
    screen.table([["", "One saga", f"At {rate:,g} a second"], *_counted(counted, rate)])
    if used is not None:
        screen.heading(f"Watched for {used.seconds:.0f} s, in which {used.sagas:,} sagas ended")
        screen.table([["", "One saga", f"At {rate:,g} a second"], *_used(used, rate)])


def _watched(program: Program, during: timedelta, also: tuple[str, ...]) -> Used:
    database = program.sagas.database
    databases: list[Database] = [database]
    for name in also:
        for one in find(name).databases:
            program.check(one)
            databases.append(one)
    watch = Watch(database, databases, program.now())
    time.sleep(during.total_seconds())
    used = watch.used(program.now())
    if used is None:
        raise SagasError(
            f"No saga has ended within {in_words(during)}: watch while the system works, or for longer."
        )
    return used


def _counted(counted: Counted, rate: float) -> Iterator[list[str]]:
    yield ["Commands", f"{counted.commands:.2f}", f"{_short(counted.commands * rate)}/s"]
    yield ["Replies", f"{counted.replies:.2f}", f"{_short(counted.replies * rate)}/s"]
    yield ["Published", f"{_short(counted.wire_bytes)}B", f"{_short(counted.wire_bytes * rate)}B/s"]
    yield ["Rows of history", f"{counted.history:.2f}", f"{_short(counted.history * rate * _DAY)}/day"]
    yield [
        "Rows in inboxes",
        f"{counted.operations:.2f}",
        f"{_short(counted.operations * rate * _DAY)}/day",
    ]
    if counted.row_bytes is not None:
        size = counted.row_bytes
        yield ["Instance and history", f"{_short(size)}B", f"{_short(size * rate * _DAY)}B/day"]


def _used(used: Used, rate: float) -> Iterator[list[str]]:
    plain: list[tuple[str, Any]] = [
        ("Transactions that wrote", used.writes),
        ("Commits", used.commits),
        ("Statements", used.statements),
        ("Rows inserted", used.inserted),
        ("Rows updated", used.updated),
        ("Rows deleted", used.deleted),
    ]
    if used.wal_bytes is not None:
        yield ["WAL", f"{_short(used.wal_bytes)}B", f"{_short(used.wal_bytes * rate)}B/s"]
    for name, value in plain:
        if value is not None:
            yield [name, f"{value:.2f}", f"{_short(value * rate)}/s"]
    if used.hot is not None:
        yield ["Updates without an index", f"{used.hot:.0%}", ""]
    for name, spent in used.cpu_ms.items():
        yield [f"CPU of {name}", f"{spent:.2f} ms", f"{spent * rate / 1000:.1f} cores"]
    whole = sum(used.cpu_ms.values())
    yield ["CPU of all on this machine", f"{whole:.2f} ms", f"{whole * rate / 1000:.1f} cores"]


def _short(value: float) -> str:
    """``21.8 k``: three figures and a power of a thousand."""
    for unit in ("", "k", "M", "G"):
        if abs(value) < 999.5:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} T"
