"""What it costs that sagas wait: ``python -m benchmarks.waiting --own-servers``.

One orchestrator worker, on RabbitMQ and PostgreSQL, is looked at three times: when no saga waits, when
100,000 wait for an approval, and while the deadlines of 3,000 of them pass within six minutes. How late
each of those fires is told by PostgreSQL: from the deadline to the commit that carries it out. At last
some are approved.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from benchmarks import machine, processes
from benchmarks.approvals import Approval, Approvals, Order, sagas_of
from benchmarks.charts import Lines
from benchmarks.driving import UNCOUNTED, until
from benchmarks.metering import Meter
from benchmarks.report import placed
from benchmarks.results import append, percentile
from benchmarks.rounds import keep_former, now
from benchmarks.running import ENDED_WITHIN, READY_WITHIN, STOP_WITHIN, drop_all, servers, warn_of_load
from benchmarks.systems import BUILD, ROOT, Group
from sagas_framework import Sagas
from sagas_framework.clock import utc_now

LATE: Final = 1.0
"""Seconds within which each deadline must fire."""
IDLE: Final = 0.1
"""Cores that the worker may use while all of them wait."""

_SETTINGS: Final = "track_commit_timestamp = on\n"
_CHUNK: Final = 10_000  # sagas in a transaction
_WAITS: Final = timedelta(hours=24)
_TAKEN_UP: Final = 30.0  # seconds within which the last ones are taken up, and it is quiet again
_SEED: Final = 7
_LOOK_AT_DISK: Final = 0.2  # seconds between two looks

_WAITING: Final = f"SELECT {UNCOUNTED} count(*) FROM saga_instance WHERE cause = 'signal'"
_OPEN: Final = (
    f"SELECT {UNCOUNTED} count(*) FROM saga_instance WHERE starts_with(key, %s) "
    "AND status NOT IN ('completed', 'compensated')"
)
_LATE: Final = (
    "SELECT extract(epoch FROM {committed} - (state->>'decide_by')::timestamptz)::float "
    "FROM saga_instance WHERE starts_with(key, 'due-') AND status = 'compensated' "
    "AND outcome_kind = 'expired' ORDER BY 1"
)
_TAKEN: Final = (
    "SELECT extract(epoch FROM {committed} - s.said_at)::float FROM saga_instance AS i "
    "JOIN saga_signal AS s ON s.key = i.key WHERE i.status = 'completed' ORDER BY 1"
)
_READ: Final = (
    f"SELECT {UNCOUNTED} sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::bigint FROM pg_stat_user_tables"
)


@dataclass(frozen=True)
class Committed:
    """How to tell when a row was committed, in SQL.

    Args:
        of: the expression, of a table's alias.
        told: the same for people.
    """

    of: str
    told: str


EXACTLY: Final = Committed("pg_xact_commit_timestamp({}.xmin)", "to its commit")
ALMOST: Final = Committed("{}.ended_at", "to the beginning of its transaction")
"""Of servers that do not note when a transaction commits."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code: 1 if a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.waiting", description=__doc__)
    parser.add_argument("--sagas", type=int, default=100_000, help="that wait (default: %(default)s)")
    parser.add_argument("--due", type=int, default=3_000, help="whose deadline passes (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=6.0, help="in which (default: %(default)s)")
    parser.add_argument("--idle", type=float, default=60.0, help="seconds for which it is watched idle")
    parser.add_argument("--approved", type=int, default=100, help="at the end (default: %(default)s)")
    parser.add_argument("--own-servers", action="store_true", help="with pg_stat_statements, for this alone")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables in there, too")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write the picture there, too")
    parser.add_argument("--results", type=Path, default=BUILD / "waiting.jsonl", metavar="FILE")
    given = parser.parse_args(arguments)
    if not 0 < given.due <= given.sagas:
        parser.error(
            f"--due {given.due}: of {given.sagas} sagas at least one, and not more than all, can be due"
        )
    keep_former(given.results)
    records: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        record = {"at": now(), **record}
        records.append(record)
        append(given.results, record)

    with ExitStack() as stack:
        found = stack.enter_context(servers(own=given.own_servers, settings=_SETTINGS))
        note({"kind": "machine", "machine": machine.describe(found.postgres.url, found.rabbitmq.url)})
        database = found.postgres.create()
        stack.callback(drop_all, found.postgres, database)
        broker = found.virtual_host(stack)
        for record in _measure(database, broker, given):
            note(record)
            print(f"  {record['kind']} {record.get('name', '')}", file=sys.stderr, flush=True)
    told, kept = report(records)
    given.results.with_suffix(".md").write_text(told)
    given.results.with_suffix(".svg").write_text(chart(records).svg())
    if given.page is not None:
        given.page.write_text(placed(given.page.read_text(), "waiting", told))
    if given.pictures is not None:
        given.pictures.joinpath("benchmark-waiting.svg").write_text(chart(records).svg())
    print(told)
    return 0 if kept else 1


def _measure(database: str, broker: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    sagas = sagas_of(database)
    sagas.upgrade()
    with (
        _worker(database, broker) as worker,
        psycopg.connect(database, autocommit=True) as looking,
    ):
        committed = _how(looking)

        def watched(name: str, seconds: float) -> dict[str, Any]:
            return {"kind": "watched", "name": name, **_watched(worker, database, broker, looking, seconds)}

        day = utc_now() + _WAITS
        _start(sagas, "first", [day])  # when it waits, the worker is up
        until(lambda: _count(looking, _WAITING) == 1, every=0.1, within=READY_WITHIN, what=_logs)
        yield watched("nothing waits", given.idle)

        begun = time.perf_counter()
        rest = given.sagas - given.due
        for chunk in range(0, rest, _CHUNK):
            _start(sagas, f"day-{chunk}", [day] * min(_CHUNK, rest - chunk))
        started = time.perf_counter() - begun
        until(lambda: _count(looking, _WAITING) == rest + 1, every=2.0, within=_long(rest), what=_logs)
        taken = time.perf_counter() - begun
        # Not one after the other: some come together, as they do in life.
        first = utc_now() + timedelta(seconds=_TAKEN_UP + given.idle)
        chance = random.Random(_SEED)
        moments = [first + timedelta(minutes=chance.uniform(0, given.minutes)) for _ in range(given.due)]
        _start(sagas, "due", moments)
        wait_until = first - timedelta(seconds=given.idle)
        until(lambda: _count(looking, _WAITING) == given.sagas + 1, every=1.0, within=_TAKEN_UP, what=_logs)
        size = looking.execute(
            f"SELECT {UNCOUNTED} pg_total_relation_size('saga_instance'), "
            "pg_total_relation_size('saga_history')"
        ).fetchone()
        assert size is not None
        yield {
            "kind": "waiting",
            "sagas": given.sagas,
            "start_seconds": round(started, 1),
            "taken_up_seconds": round(taken, 1),
            "instance_bytes": round(size[0] / given.sagas),
            "history_bytes": round(size[1] / given.sagas),
        }
        time.sleep(max(0.0, (wait_until - utc_now()).total_seconds()))
        yield watched("all wait", (first - utc_now()).total_seconds())

        with _Disk(given.results.parent) as disk:
            yield watched("deadlines pass", 60 * given.minutes)
        until(lambda: _count(looking, _OPEN, "due-") == 0, every=0.2, within=ENDED_WITHIN, what=_logs)
        late = [
            row[0] for row in looking.execute(_LATE.format(committed=committed.of.format("saga_instance")))
        ]
        yield {
            "kind": "fired",
            "minutes": given.minutes,
            "told": committed.told,
            "wanted": given.due,
            **_times(late),
            "disk": _times(disk.took),
            "late_ms": [round(1000 * seconds, 1) for seconds in late],
        }
        if given.approved:
            yield {"kind": "approved", **_approve(sagas, looking, committed, min(given.approved, rest))}
    sagas.engine.dispose()


def _long(sagas: int) -> float:
    """Seconds after which something must be wrong."""
    return ENDED_WITHIN + sagas / 100


def _logs() -> str:
    return f"see {BUILD / 'logs' / 'waiting'}"


@contextmanager
def _worker(database: str, broker: str) -> Iterator[int]:
    """The orchestrator; its process."""
    logs = BUILD / "logs" / "waiting"
    logs.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-m", "celery", "-A", "benchmarks.approvals_worker", "worker", "--pool", "solo"),
        *("-n", "approvals@benchmark", "--without-gossip", "--without-mingle", "--loglevel", "WARNING"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CELERY_")}
    environment |= {"BENCHMARK_DATABASE": database, "BENCHMARK_BROKER": broker, "PYTHONPATH": str(ROOT)}
    with (logs / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=log, stderr=log)
    try:
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Disk:
    """Writes 8 kB to the disk now and then, in a thread: no deadline fires faster than its commit is there.

    Args:
        folder: on the disk.
    """

    def __init__(self, folder: Path) -> None:
        self.took: list[float] = []
        self._folder = folder
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._over.set()
        self._thread.join()

    def _write(self) -> None:
        with tempfile.NamedTemporaryFile(dir=self._folder) as file:
            while not self._over.wait(_LOOK_AT_DISK):
                os.pwrite(file.fileno(), os.urandom(8192), 0)
                begun = time.perf_counter()
                os.fdatasync(file.fileno())
                self.took.append(time.perf_counter() - begun)


def _how(looking: psycopg.Connection[Any]) -> Committed:
    row = looking.execute(f"SELECT {UNCOUNTED} current_setting('track_commit_timestamp')").fetchone()
    assert row is not None
    return EXACTLY if row[0] == "on" else ALMOST


def _start(sagas: Sagas, prefix: str, moments: Sequence[datetime]) -> None:
    """An order for each of the moments, in one transaction."""
    with sagas.engine.begin() as connection:
        orders = (
            (f"{prefix}-{number}", Order(number=number, decide_by=moment))
            for number, moment in enumerate(moments)
        )
        sagas.start_many(Approvals, orders, session=connection)


def _count(looking: psycopg.Connection[Any], query: str, *values: str) -> int:
    row = looking.execute(query, values).fetchone()
    assert row is not None
    return int(row[0])


def _watched(
    worker: int, database: str, broker: str, looking: psycopg.Connection[Any], seconds: float
) -> dict[str, Any]:
    """What the worker and the servers do meanwhile, for each second."""
    read = _count(looking, _READ)
    with Meter({Group.ORCHESTRATOR.value: [worker]}, database, broker) as meter:
        time.sleep(max(seconds, 0.0))
    usage = meter.usage
    record = {
        "seconds": round(usage.seconds, 1),
        "cores": {group: round(spent / usage.seconds, 4) for group, spent in usage.cpu.items()},
        "other_cores": round(usage.other, 3),
        "rows_read": round((_count(looking, _READ) - read) / usage.seconds, 1),
        **{name: round(value / usage.seconds, 1) for name, value in usage.database.items()},
        "pss_mb": round(processes.memory([worker]).pss, 1),
        **processes.held(worker),
        "statements_by_text": [
            [text, round(calls / usage.seconds, 2), round(spent / max(calls, 1), 3)]
            for text, calls, spent in usage.statements[:12]
        ],
    }
    warn_of_load(record)
    return record


def _times(seconds: Sequence[float]) -> dict[str, Any]:
    if not seconds:
        return {"sagas": 0}
    told = {f"p{percent}_ms": round(1000 * percentile(seconds, percent), 1) for percent in (50, 99)}
    return {"sagas": len(seconds), **told, "max_ms": round(1000 * max(seconds), 1)}


def _approve(
    sagas: Sagas, looking: psycopg.Connection[Any], committed: Committed, count: int
) -> dict[str, Any]:
    """Approve some, one after the other; how long from the signal to the end of the saga."""
    for number in range(count):
        sagas.signal(Approvals, Approval(approver="ann"), key=f"day-0-{number}")
        time.sleep(0.05)
    done = f"SELECT {UNCOUNTED} count(*) FROM saga_instance WHERE status = 'completed'"
    until(lambda: _count(looking, done) == count, every=0.2, within=ENDED_WITHIN, what=_logs)
    return _times([row[0] for row in looking.execute(_TAKEN.format(committed=committed.of.format("i")))])


# ---- telling --------------------------------------------------------------------------------------


def report(records: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Tables as markdown, and whether every limit is kept."""
    lines = [machine.words(record["machine"]) for record in records if record["kind"] == "machine"]
    watched = {record["name"]: record for record in records if record["kind"] == "watched"}
    waiting = next((record for record in records if record["kind"] == "waiting"), None)
    fired = next((record for record in records if record["kind"] == "fired"), None)
    approved = next((record for record in records if record["kind"] == "approved"), None)
    kept = fired is not None and "all wait" in watched
    if waiting is not None:
        lines.append(
            f"{waiting['sagas']:,} sagas wait. All but the last were started within "
            f"{waiting['start_seconds']:g} s and waited after {waiting['taken_up_seconds']:g} s. With its "
            f"indexes, each takes {waiting['instance_bytes']:,} bytes, and {waiting['history_bytes']:,} of "
            "history.\n"
        )
    lines += [f"| for each second | {' | '.join(watched)} |", f"|---|{'---:|' * len(watched)}"]
    for title, value in _ROWS.items():
        cells = [value(record) for record in watched.values()]
        if any(cell is not None for cell in cells):
            lines.append(f"| {title} | {' | '.join(_number(cell) for cell in cells)} |")
    if (idle := watched.get("all wait")) is not None:
        used = idle["cores"][Group.ORCHESTRATOR.value]
        kept &= used < IDLE
        lines.append(
            f"\nThe worker idles at {100 * used:.1f} % of a core while all of them wait; allowed are "
            f"{100 * IDLE:g} %."
        )
    if fired is not None:
        kept &= fired["sagas"] == fired["wanted"] and fired["max_ms"] <= 1000 * LATE
        lines.append(
            f"\n{fired['sagas']:,} of {fired['wanted']:,} deadlines within {fired['minutes']:g} min have "
            f"fired. From a deadline {fired['told']}: p50 {_ms(fired, 'p50')}, p99 {_ms(fired, 'p99')}, the "
            f"latest {_ms(fired, 'max')}; allowed are {1000 * LATE:,.0f} ms. Meanwhile 8 kB were on disk "
            f"after p50 {_ms(fired['disk'], 'p50')}, p99 {_ms(fired['disk'], 'p99')}, at most "
            f"{_ms(fired['disk'], 'max')}."
        )
    if approved is not None:
        lines.append(
            f"\n{approved['sagas']:,} approvals: from the signal to the end of the saga p50 "
            f"{_ms(approved, 'p50')}, p99 {_ms(approved, 'p99')}, the slowest {_ms(approved, 'max')}."
        )
    return "\n".join([*lines, ""]), kept


def _cores(record: Mapping[str, Any], group: str) -> float | None:
    used = record["cores"].get(group)
    return None if used is None else 1000 * used


_ROWS: Final[Mapping[str, Callable[[Mapping[str, Any]], float | None]]] = {
    "worker: CPU ms": lambda record: _cores(record, Group.ORCHESTRATOR.value),
    "PostgreSQL: CPU ms": lambda record: _cores(record, "postgres"),
    "RabbitMQ: CPU ms": lambda record: _cores(record, "rabbitmq"),
    "everything else on the machine: CPU ms": lambda record: 1000 * record["other_cores"],
    "statements": lambda record: record.get("statements"),
    "rows read": lambda record: record["rows_read"],
    "buffers": lambda record: record.get("buffers"),
    "transactions that write": lambda record: record.get("write_transactions"),
    "bytes of WAL": lambda record: record.get("wal_bytes"),
    "at the end: worker's memory, MB (PSS)": lambda record: record["pss_mb"],
    "its threads": lambda record: record["threads"],
    "its sockets": lambda record: record["sockets"],
}


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ms(record: Mapping[str, Any], name: str) -> str:
    value = record.get(f"{name}_ms")
    return "none" if value is None else f"{value:,.0f} ms" if value >= 10 else f"{value:.2g} ms"


def chart(records: Sequence[Mapping[str, Any]]) -> Lines:
    """What share of the deadlines has fired after how long."""
    late: Sequence[float] = next((record["late_ms"] for record in records if record["kind"] == "fired"), [])
    points = [(milliseconds, 100 * number / len(late)) for number, milliseconds in enumerate(late, 1)]
    thinned = [*points[:: max(len(points) // 200, 1)], *points[-1:]]
    return Lines("From a deadline to its commit", "percent that have fired, by milliseconds", {"": thinned})


if __name__ == "__main__":
    sys.exit(main())
