"""Whether it stays as it is: ``python -m benchmarks.soak --own-servers --minutes 30 --rate 240``.

Orders come in at an even rate, and meanwhile memory, threads, sockets and files of every process are
looked at, connections and dead rows of PostgreSQL, and the time that sagas take, by minute.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from benchmarks import machine, processes
from benchmarks.asked import SERVICES
from benchmarks.charts import Lines
from benchmarks.configurations import CONFIGURATIONS
from benchmarks.filling import database_of
from benchmarks.metering import POSTGRES, RABBITMQ
from benchmarks.report import placed
from benchmarks.results import append
from benchmarks.rounds import keep_former, now
from benchmarks.running import CannotMeasure, Place, Running, drop_all, servers
from benchmarks.systems import BUILD, Group, Program

_LONGEST: Final = 120.0  # seconds that the last sagas may take
_TABLES: Final = (
    "SELECT relname, n_live_tup, n_dead_tup, n_tup_upd, n_tup_hot_upd, autovacuum_count "
    "FROM pg_stat_user_tables WHERE relname IN ('saga_instance', 'saga_history', 'saga_inbox')"
)
_MINUTES: Final = (
    "SELECT floor(extract(epoch FROM created_at - %(begun)s) / 60)::int AS minute, count(*), "
    "percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - created_at)), "
    "percentile_cont(0.99) WITHIN GROUP (ORDER BY extract(epoch FROM ended_at - created_at)) "
    "FROM saga_instance WHERE created_at >= %(begun)s GROUP BY 1 ORDER BY 1"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Soak; the exit code: 1 if not all sagas completed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--rate", type=float, default=60.0, help="sagas a second (default: %(default)s)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks")
    parser.add_argument("--configuration", default="batched", choices=[*CONFIGURATIONS])
    parser.add_argument("--own-servers", action="store_true")
    parser.add_argument("--page", type=Path, metavar="FILE", help="put the tables in there, too")
    parser.add_argument("--results", type=Path, default=BUILD / "soak.jsonl", metavar="FILE")
    given = parser.parse_args(arguments)
    keep_former(given.results)
    records: list[dict[str, Any]] = []

    def note(record: dict[str, Any]) -> None:
        record = {"at": now(), **record}
        records.append(record)
        append(given.results, record)

    with ExitStack() as stack:
        found = stack.enter_context(servers(own=given.own_servers))
        note({"kind": "machine", "machine": machine.describe(found.postgres.url, found.rabbitmq.url)})
        note({"kind": "load", "rate": given.rate, "minutes": given.minutes})
        database = found.postgres.create()
        stack.callback(drop_all, found.postgres, database)
        broker = found.virtual_host(stack)
        folder = Path(tempfile.mkdtemp(prefix="sagas_soak_"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        logs = BUILD / "logs" / "soak"
        logs.mkdir(parents=True, exist_ok=True)
        system = replace(
            CONFIGURATIONS[given.configuration], driver=Program(Group.DRIVER, ["-m", "benchmarks.steady"])
        )
        running = stack.enter_context(Running(system, Place(database, broker), folder, logs))
        running.start()
        for record in _soak(running, database, given):
            note(record)
    told, whole = report(records)
    given.results.with_suffix(".md").write_text(told)
    for name, chart in charts(records).items():
        given.results.with_name(f"{given.results.stem}-{name}.svg").write_text(chart.svg())
    cost = "".join(record["said"] for record in records if record["kind"] == "cost")
    given.results.with_name(f"{given.results.stem}-cost.txt").write_text(cost)
    if given.page is not None:
        page = placed(given.page.read_text(), "soak", told)
        given.page.write_text(placed(page, "cost", textwrap.indent(cost, "    ")))
    print(told, cost, sep="\n")
    return 0 if whole else 1


def _soak(running: Running, database: str, given: argparse.Namespace) -> Iterator[dict[str, Any]]:
    answer: dict[str, Any] = {}
    cost: list[str] = []
    seconds = 60 * given.minutes
    orders = database_of(database, "order_service")
    with psycopg.connect(orders) as connection:
        begun = connection.execute("SELECT now()").fetchone()
    assert begun is not None

    def drive() -> None:
        answer.update(running.driver.steady(given.rate, seconds, within=seconds + _LONGEST))

    driving = threading.Thread(target=drive)
    started = time.monotonic()
    driving.start()
    number = 0
    costing = threading.Timer(seconds / 4, lambda: cost.append(_cost(running, database, seconds / 4)))
    costing.start()
    while driving.is_alive():
        yield {"kind": "look", "seconds": round(time.monotonic() - started, 1), **_look(running, database)}
        number += 1
        driving.join(max(0.0, started + number * given.every - time.monotonic()))
    costing.join(_LONGEST)
    yield {"kind": "cost", "said": cost[0] if cost else ""}
    until = time.monotonic() + _LONGEST
    with psycopg.connect(orders, autocommit=True) as connection:
        while time.monotonic() < until:
            row = connection.execute(
                "SELECT count(*) FROM saga_instance WHERE status <> 'completed'"
            ).fetchone()
            assert row is not None
            if row[0] == 0:
                break
            time.sleep(0.2)
        yield {"kind": "look", "seconds": round(time.monotonic() - started, 1), **_look(running, database)}
        for minute, count, p50, p99 in connection.execute(_MINUTES, {"begun": begun[0]}).fetchall():
            yield {
                "kind": "minute",
                "minute": minute,
                "sagas": count,
                "p50_ms": None if p50 is None else round(1000 * float(p50), 1),
                "p99_ms": None if p99 is None else round(1000 * float(p99), 1),
            }
        yield {"kind": "end", **answer, "not_completed": row and row[0]}


def _cost(running: Running, database: str, seconds: float) -> str:
    """What `saga cost` says of the system at work, after watching it for so long; a minute at most."""
    for service in SERVICES:
        with psycopg.connect(database_of(database, service), autocommit=True) as connection:
            loaded = connection.execute("SHOW shared_preload_libraries").fetchone()
            if loaded is not None and "pg_stat_statements" in loaded[0]:
                connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
    also = [argument for service in SERVICES[1:] for argument in ("--also", f"{service}.worker")]
    during = f"{min(round(seconds), 60)}s"
    arguments = ["-A", "order_service.worker", "cost", "create_order", "--during", during, *also]
    program = f"import sys; sys.argv = ['saga', *{arguments!r}]; from sagas_framework.cli import main; main()"
    try:
        return running.said("-c", program, within=120.0)
    except CannotMeasure as error:
        return str(error)


def _look(running: Running, database: str) -> dict[str, Any]:
    """Everything at one moment."""
    alive = processes.processes()
    groups = {}
    roots_of = {**running.groups()}
    for server, address in ((POSTGRES, database), (RABBITMQ, running.place.broker)):
        if address is not None and (port := urlsplit(address).port):
            roots_of[server] = sorted(processes.listeners(port))
    for group, roots in roots_of.items():
        members = processes.family(alive, roots)
        held = [processes.held(pid) for pid in members]
        groups[group] = {
            "pss_mb": round(processes.memory(members).pss, 2),
            "processes": len(members),
            **{name: sum(one[name] for one in held) for name in ("threads", "sockets", "files")},
        }
    tables: dict[str, dict[str, int]] = {}
    connections = 0
    for service in SERVICES:
        with psycopg.connect(database_of(database, service), autocommit=True) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid()"
            ).fetchone()
            connections += row[0] if row else 0
            for table, live, dead, updates, hot, vacuums in connection.execute(_TABLES):
                if live or dead or updates:
                    tables[f"{service}.{table}"] = {
                        "live": live,
                        "dead": dead,
                        "updates": updates,
                        "hot": hot,
                        "vacuums": vacuums,
                    }
    return {"groups": groups, "connections": connections, "tables": tables}


# ---- telling --------------------------------------------------------------------------------------------


def slope(points: Sequence[tuple[float, float]]) -> float:
    """By how much the second grows with each unit of the first: the line of least squares; 0 of one point."""
    if len(points) < 2:
        return 0.0
    x, y = (sum(point[place] for point in points) / len(points) for place in (0, 1))
    spread = sum((point[0] - x) ** 2 for point in points)
    return sum((point[0] - x) * (point[1] - y) for point in points) / spread if spread else 0.0


def report(records: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Tables as markdown, and whether every saga has completed."""
    lines = [machine.words(record["machine"]) for record in records if record["kind"] == "machine"]
    looks = [record for record in records if record["kind"] == "look"]
    load = next(record for record in records if record["kind"] == "load")
    end = next((record for record in records if record["kind"] == "end"), {"not_completed": None})
    whole = end["not_completed"] == 0
    lines.append(
        f"{load['rate']:g} sagas a second for {load['minutes']:g} min: {end.get('started', 0):,} started, "
        f"{end['not_completed']} not completed.\n"
    )
    # What is imported and cached with the first sagas is no leak.
    later = looks[len(looks) // 4 :]
    lines += [
        "| process | PSS MB: first, last | MB an hour, after the first quarter | threads | sockets | files |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for group in looks[-1]["groups"] if looks else ():
        first, last = looks[0]["groups"][group], looks[-1]["groups"][group]
        grows = slope([(look["seconds"] / 3600, look["groups"][group]["pss_mb"]) for look in later])
        counts = " | ".join(f"{first[name]} → {last[name]}" for name in ("threads", "sockets", "files"))
        lines.append(f"| {group} | {first['pss_mb']:.0f}, {last['pss_mb']:.0f} | {grows:+.1f} | {counts} |")
    if looks:
        most = max(look["connections"] for look in looks)
        lines.append(
            f"\nConnections to PostgreSQL: {looks[0]['connections']} at first, {looks[-1]['connections']} at "
            f"last, {most} at most.\n"
        )
    lines += [
        "| table | rows | dead: at most, last | updates | HOT | autovacuums |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for name, last in (looks[-1]["tables"] if looks else {}).items():
        dead = max(look["tables"].get(name, {}).get("dead", 0) for look in looks)
        hot = f"{100 * last['hot'] / last['updates']:.0f} %" if last["updates"] else ""
        lines.append(
            f"| {name} | {last['live']:,} | {dead:,}, {last['dead']:,} | {last['updates']:,} | {hot} | "
            f"{last['vacuums']} |"
        )
    lines += ["", "| minute | sagas | p50 ms | p99 ms |", "|---:|---:|---:|---:|"]
    minutes = [record for record in records if record["kind"] == "minute"]
    for minute in minutes:
        lines.append(
            f"| {minute['minute'] + 1} | {minute['sagas']:,} | {minute['p50_ms']} | {minute['p99_ms']} |"
        )
    return "\n".join([*lines, ""]), whole


def charts(records: Sequence[Mapping[str, Any]]) -> dict[str, Lines]:
    """Memory by process, and the time that sagas took."""
    looks = [record for record in records if record["kind"] == "look"]
    groups = looks[-1]["groups"] if looks else {}
    memory = {
        group: [(look["seconds"] / 60, look["groups"][group]["pss_mb"]) for look in looks] for group in groups
    }
    minutes = [record for record in records if record["kind"] == "minute" and record["p99_ms"] is not None]
    times = {
        name: [(minute["minute"] + 1.0, minute[f"{name}_ms"]) for minute in minutes]
        for name in ("p50", "p99")
    }
    return {
        "memory": Lines("Memory", "MB (PSS) by minute", memory),
        "latency": Lines("From start to end", "milliseconds by minute", times),
    }


if __name__ == "__main__":
    sys.exit(main())
