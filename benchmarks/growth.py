"""What a million sagas in the tables do to the next one: ``python -m benchmarks.growth --own-servers``.

The same services run the same batches in turn on an empty database and on one with a million finished
sagas, their histories and inbox rows, and 100,000 in flight. Compared are sagas a second, CPU, WAL,
statements and buffers. Then come the questions that people ask, and taking finished sagas out.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, event
from sqlalchemy.engine import Engine

from benchmarks import machine
from benchmarks.charts import Bar, Chart
from benchmarks.configurations import CONFIGURATIONS
from benchmarks.filling import database_of, fill
from benchmarks.metering import Meter
from benchmarks.report import placed
from benchmarks.results import append
from benchmarks.rounds import keep_former, now
from benchmarks.running import ENDED_WITHIN, Place, Running, Servers, drop_all, servers, warn_of_load
from benchmarks.systems import BUILD
from sagas_framework import Filter, Queue, Retention, Sagas, Status
from sagas_framework.archiving import Archivist
from sagas_framework.clock import utc_now
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.reads import count_statuses, find_instances, read_page, read_stuck

EMPTY: Final = "empty"
GROWN: Final = "grown"
WITHIN: Final = {"wal_changes": 5.0, "statements": 5.0, "buffers": 5.0, "per_second": 15.0}
"""Percent by which the grown database may be worse."""
ASKED_WITHIN: Final = 50.0  # milliseconds
_SYSTEM: Final = CONFIGURATIONS["batched"]
_TIMES: Final = 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; the exit code: 1 if a limit is passed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--sagas", type=int, default=1_000_000, help="that have ended (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=100_000, help="that wait (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="runs on each (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=1000, help="sagas in a run (default: %(default)s)")
    parser.add_argument(
        "--warm", type=int, default=100, help="run first, not measured (default: %(default)s)"
    )
    parser.add_argument("--retire", type=int, default=20_000, help="taken out at the end; 0: none")
    parser.add_argument("--own-servers", action="store_true", help="with pg_stat_statements, for this alone")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables in there, too")
    parser.add_argument("--results", type=Path, default=BUILD / "growth.jsonl", metavar="FILE")
    given = parser.parse_args(arguments)
    keep_former(given.results)
    records: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        record = {"at": now(), **record}
        records.append(record)
        append(given.results, record)

    with servers(own=given.own_servers) as found, ExitStack() as stack:
        note({"kind": "machine", "machine": machine.describe(found.postgres.url, found.rabbitmq.url)})
        databases = {}
        for name in (EMPTY, GROWN):
            databases[name] = found.postgres.create()
            stack.callback(drop_all, found.postgres, databases[name])
            with _running(found, databases[name], f"warm-{name}") as running:
                running.driver.batch(given.warm, declined=False, within=ENDED_WITHIN)
        print("filling", file=sys.stderr, flush=True)
        fill(databases[GROWN], given.sagas, given.in_flight)
        note({"kind": "size", "sagas": given.sagas, "in_flight": given.in_flight, **_sizes(databases[GROWN])})
        for number in range(1, given.rounds + 1):
            for name, database in databases.items() if number % 2 else reversed(databases.items()):
                record = _run(found, database, name, given)
                note({"kind": "run", "round": number, "database": name, **record})
                print(f"  {number} {name}: {record['per_second']:g}/s", file=sys.stderr, flush=True)
                warn_of_load(record)
        for question in _questions(databases[GROWN], given.sagas):
            note({"kind": "question", **question})
        if given.retire:
            note({"kind": "retired", **_retire(databases[GROWN], given.retire)})
    told, passed = report(records)
    given.results.with_suffix(".md").write_text(told)
    given.results.with_suffix(".svg").write_text(chart(records).svg())
    if given.page is not None:
        given.page.write_text(placed(given.page.read_text(), "growth", told))
    print(told)
    return 0 if passed else 1


# ---- runs -------------------------------------------------------------------------------------------


@contextmanager
def _running(found: Servers, database: str, name: str) -> Iterator[Running]:
    """The services on this database, and a virtual host of their own."""
    logs = BUILD / "logs" / f"growth-{name}"
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        broker = found.virtual_host(stack)
        folder = Path(tempfile.mkdtemp(prefix="sagas_growth_"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        running = stack.enter_context(Running(_SYSTEM, Place(database, broker), folder, logs))
        running.start()
        yield running


def _run(found: Servers, database: str, name: str, given: argparse.Namespace) -> dict[str, Any]:
    with _running(found, database, name) as running:
        running.driver.batch(given.warm, declined=False, within=ENDED_WITHIN)
        with psycopg.connect(database, autocommit=True) as connection:
            # Whether one begins meanwhile is a matter of luck: after it, each page is written whole once.
            connection.execute("CHECKPOINT")
            begun = _lsn(connection)
        meter = Meter(running.groups(), database, running.place.broker)
        with meter:
            seconds = running.driver.batch(given.batch, declined=False, within=ENDED_WITHIN)
        each = meter.usage.each(given.batch)
        del each["top_statements"]
        with psycopg.connect(database, autocommit=True) as connection:
            written = _wal(connection, begun, _lsn(connection), given.batch)
        return {"per_second": round(given.batch / seconds, 1), **each, **written}


def _lsn(connection: psycopg.Connection[Any]) -> str:
    row = connection.execute("SELECT pg_current_wal_flush_lsn()::text").fetchone()
    assert row is not None
    return str(row[0])


def _wal(connection: psycopg.Connection[Any], begun: str, ended: str, sagas: int) -> dict[str, float]:
    """Bytes of WAL of a saga, told apart: what changed, and pages that are whole for crashes' sake.

    A page is written whole when it is first changed after a checkpoint. In a large index, whose keys are
    random, hardly two sagas change the same one; how much that is depends on the pause between checkpoints.
    """
    try:
        connection.execute("CREATE EXTENSION IF NOT EXISTS pg_walinspect")
    except psycopg.errors.Error:
        return {}
    stats = "SELECT sum(record_size)::bigint, sum(fpi_size)::bigint FROM pg_get_wal_stats(%s, %s)"
    row = connection.execute(stats, [begun, ended]).fetchone()
    assert row is not None
    return {"wal_changes": round(row[0] / sagas, 1), "wal_whole_pages": round(row[1] / sagas, 1)}


def _sizes(database: str) -> dict[str, Any]:
    found = {}
    for service in ("order_service", "consumer_service", "restaurant_service", "accounting_service"):
        with psycopg.connect(database_of(database, service)) as connection:
            row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
            found[service] = row[0] if row else 0
    return {"bytes": found}


# ---- what people ask ----------------------------------------------------------------------------------


def _questions(database: str, sagas: int) -> Iterator[dict[str, Any]]:
    """How long the console's own questions take, and whether one of them reads a whole table."""
    engine = make_engine(database_of(database, "order_service"))
    stuck = utc_now() - timedelta(minutes=1)
    asked: dict[str, Callable[[Connection], object]] = {
        "list": lambda c: read_page(c, Filter()),
        "list of open ones": lambda c: read_page(c, Filter(open_only=True)),
        "list of completed ones": lambda c: read_page(c, Filter(status=Status.COMPLETED)),
        "counts by status": lambda c: count_statuses(c, 10_000),
        "search by key": lambda c: find_instances(c, f"finished-{sagas // 2}"),
        "search by a key that is not there": lambda c: find_instances(c, "nobody"),
        "open ones by key": lambda c: read_page(c, Filter(key="open-7", open_only=True)),
        "the oldest stuck": lambda c: read_page(
            c, Filter(open_only=True, older_than=stuck, limit=1, parked_first=False)
        ),
        "what is stuck, grouped": lambda c: read_stuck(c, stuck),
    }
    for name, ask in asked.items():
        times, statements = [], []
        with _listening(engine) as said:
            for _ in range(_TIMES):
                with reading(engine) as connection:
                    begun = time.perf_counter()
                    ask(connection)
                    times.append(1000 * (time.perf_counter() - begun))
            statements = said[: len(said) // _TIMES]
        whole = sorted({table for text, values in statements for table in _read_whole(engine, text, values)})
        yield {
            "question": name,
            "statements": len(statements),
            "median_ms": round(statistics.median(times), 2),
            "slowest_ms": round(max(times), 2),
            "reads_whole": whole,
        }
    engine.dispose()


@contextmanager
def _listening(engine: Engine) -> Iterator[list[tuple[str, Any]]]:
    """Collects the statements that are executed, with their values."""
    said: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, values: Any, *_: Any) -> None:
        said.append((statement, values))

    event.listen(engine, "before_cursor_execute", note)
    yield said
    event.remove(engine, "before_cursor_execute", note)


def _read_whole(engine: Engine, statement: str, values: Any) -> Iterator[str]:
    """Tables that the statement's plan reads from one end to the other."""
    with reading(engine) as connection:
        explained = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", values).scalar_one()
    todo = [explained[0]["Plan"]]
    while todo:
        plan: Mapping[str, Any] = todo.pop()
        if plan["Node Type"] == "Seq Scan":
            yield plan["Relation Name"]
        todo += plan.get("Plans", [])


# ---- taking them out ------------------------------------------------------------------------------------


def _retire(database: str, most: int) -> dict[str, Any]:
    """How fast finished sagas go to the archive, by one thread without a pause."""
    url = database_of(database, "order_service")
    with tempfile.TemporaryDirectory() as folder, psycopg.connect(url, autocommit=True) as connection:
        sagas = Sagas(
            "order_service",
            url,
            sagas=[],
            reply_queue=Queue("order_service.replies"),
            retention=Retention(timedelta(days=1)),
            archive=Path(folder),
        )
        archivist = Archivist(sagas)
        lsn = "SELECT pg_current_wal_insert_lsn() - '0/0'"
        before, cpu, begun = connection.execute(lsn).fetchone(), time.process_time(), time.perf_counter()
        gone = 0
        while gone < most and (turn := archivist.turn()).more:
            gone += turn.archived
        archivist.close()
        seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
        after = connection.execute(lsn).fetchone()
        assert before is not None
        assert after is not None
        sagas.engine.dispose()
        written = sum(file.stat().st_size for file in Path(folder).iterdir())
    return {
        "sagas": gone,
        "per_second": round(gone / seconds),
        "cpu_ms": round(1000 * cpu / max(gone, 1), 3),
        "wal_bytes": round(float(after[0] - before[0]) / max(gone, 1)),
        "archive_bytes": round(written / max(gone, 1)),
    }


# ---- telling --------------------------------------------------------------------------------------------


def report(records: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Tables as markdown, and whether every limit is kept."""
    lines = [machine.words(record["machine"]) for record in records if record["kind"] == "machine"]
    passed = True
    for record in records:
        if record["kind"] == "size":
            gigabytes = sum(record["bytes"].values()) / 1e9
            lines.append(
                f"{record['sagas']:,} finished sagas, {record['in_flight']:,} in flight; with inboxes "
                f"{gigabytes:.1f} GB.\n"
            )
    rounds = max((record["round"] for record in records if record["kind"] == "run"), default=0)
    lines += [
        f"| median of {rounds} runs | empty | grown | difference | allowed |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, title in _TITLES.items():
        few, many = _median(records, EMPTY, name), _median(records, GROWN, name)
        if few is None or many is None or not few:
            continue
        difference = 100 * (many / few - 1)
        worse = -difference if name == "per_second" else difference
        limit = WITHIN.get(name)
        passed &= limit is None or worse <= limit
        allowed = "" if limit is None else f"{limit:g} %"
        lines.append(f"| {title} | {few:,.4g} | {many:,.4g} | {difference:+.1f} % | {allowed} |")
    lines += ["", "| question | median ms | slowest ms | reads a whole table |", "|---|---:|---:|---|"]
    for record in records:
        if record["kind"] == "question":
            passed &= record["median_ms"] <= ASKED_WITHIN
            whole = ", ".join(record["reads_whole"]) or "no"
            lines.append(
                f"| {record['question']} | {record['median_ms']:g} | {record['slowest_ms']:g} | {whole} |"
            )
    for record in records:
        if record["kind"] == "retired":
            lines += [
                "",
                (
                    f"Taken out: {record['sagas']:,} finished sagas, {record['per_second']:,} a second by "
                    f"one thread, {record['cpu_ms']:g} ms of its CPU, {record['wal_bytes']:,} bytes of WAL, "
                    f"{record['archive_bytes']:,} bytes of archive each."
                ),
            ]
    return "\n".join([*lines, ""]), passed


_TITLES: Final = {
    "per_second": "sagas a second",
    "cpu_ms": "CPU ms a saga",
    "wal_changes": "bytes of WAL a saga, without whole pages",
    "wal_bytes": "bytes of WAL a saga, with them",
    "statements": "statements a saga",
    "buffers": "buffers a saga",
    "write_transactions": "writing transactions a saga",
}


def _median(records: Sequence[Mapping[str, Any]], database: str, name: str) -> float | None:
    values = [
        record[name]
        for record in records
        if record["kind"] == "run" and record["database"] == database and name in record
    ]
    return statistics.median(values) if values else None


def chart(records: Sequence[Mapping[str, Any]]) -> Chart:
    """Both databases side by side, each figure as a share of that on the empty one."""
    bars = []
    for name, title in _TITLES.items():
        few, many = _median(records, EMPTY, name), _median(records, GROWN, name)
        if few and many is not None:
            share = 100 * many / few
            bars.append(Bar(title, {"grown": share}, f"{share:.0f} %"))
    return Chart("A million sagas in the tables", "percent of what an empty database gives", bars)


if __name__ == "__main__":
    sys.exit(main())
