"""What a stretch of work cost: CPU by group of processes, memory, what PostgreSQL did, and who disturbed.

The servers are found by their ports, so that another one on the same machine is not counted in. Of
PostgreSQL only what serves the databases of the run is counted, and its background processes, which
serve all; RabbitMQ is counted whole.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlsplit

import psycopg

from benchmarks import processes
from benchmarks.driving import UNCOUNTED

POSTGRES: Final = "postgres"
RABBITMQ: Final = "rabbitmq"

_BACKGROUND: Final = re.compile("walwriter|checkpointer|background writer|autovacuum")


@dataclass(frozen=True)
class Usage:
    """What was used between two moments.

    Args:
        seconds: between them.
        cpu: seconds, by group.
        other: cores that everything else on the machine used meanwhile.
        rss: megabytes at the end, by group.
        pss: megabytes at the end, of all groups.
        database: what PostgreSQL counted; see `DatabaseMeter`.
        statements: the most frequent, `(text, calls, milliseconds)`, most calls first.
    """

    seconds: float
    cpu: Mapping[str, float]
    other: float
    rss: Mapping[str, float]
    pss: float
    database: Mapping[str, float]
    statements: Sequence[tuple[str, int, float]]

    def each(self, count: int) -> dict[str, Any]:
        """The same for one of so many sagas, as JSON: milliseconds, bytes and numbers."""
        return {
            "cpu_ms": round(1000 * sum(self.cpu.values()) / count, 3),
            "cpu_ms_by_group": {group: round(1000 * used / count, 3) for group, used in self.cpu.items()},
            "other_cores": round(self.other, 3),
            "rss_mb": round(sum(self.rss.values())),
            "rss_mb_by_group": {group: round(held) for group, held in self.rss.items()},
            "pss_mb": round(self.pss),
            **{name: round(value / count, 2) for name, value in self.database.items()},
            "top_statements": [
                [text, round(calls / count, 3), round(spent / count, 4)]
                for text, calls, spent in self.statements
            ],
        }


@dataclass
class Meter:
    """Measures the block that it is used with; `usage` afterwards.

    Args:
        groups: processes by group, each with all that descend from it.
        database: address of the run's database; those of its services begin with its name.
        broker: address of the broker.
    """

    groups: Mapping[str, Sequence[int]]
    database: str | None = None
    broker: str | None = None
    usage: Usage = field(init=False)

    def __enter__(self) -> Self:
        self._postgres = None if self.database is None else DatabaseMeter(self.database)
        self._before = None if self._postgres is None else self._postgres.read()
        self._cpu, self._busy, self._at = self._read(), processes.busy(), time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        seconds = time.perf_counter() - self._at
        busy, after = processes.busy() - self._busy, self._read()
        database: dict[str, float] = {}
        statements: list[tuple[str, int, float]] = []
        if self._postgres is not None:
            assert self._before is not None
            database, statements = self._postgres.since(self._before)
            self._postgres.close()
        used = {
            group: sum(spent - self._cpu.get(group, {}).get(pid, 0.0) for pid, spent in members.items())
            for group, members in after.items()
        }
        held = {group: processes.memory(members) for group, members in after.items()}
        self.usage = Usage(
            seconds=seconds,
            cpu=used,
            other=max(0.0, busy - sum(used.values())) / seconds,
            rss={group: memory.rss for group, memory in held.items()},
            pss=sum(memory.pss for memory in held.values()),
            database=database,
            statements=statements,
        )

    def _read(self) -> dict[str, dict[int, float]]:
        """CPU seconds of each process, by group."""
        found = processes.processes()
        members = {group: processes.family(found, roots) for group, roots in self.groups.items()}
        if self.database is not None:
            members[POSTGRES] = self._backends(found, self.database)
        if self.broker is not None:
            ports = processes.listeners(urlsplit(self.broker).port or 5672)
            nodes = ports or {pid for pid, process in found.items() if process.name == "beam.smp"}
            members[RABBITMQ] = processes.family(found, nodes)
        return {group: {pid: found[pid].cpu for pid in pids} for group, pids in members.items()}

    def _backends(self, found: Mapping[int, processes.Process], database: str) -> set[int]:
        """Of PostgreSQL's processes those that serve the run's databases, and those that serve all."""
        name, port = urlsplit(database).path[1:], urlsplit(database).port or 5432
        masters = processes.listeners(port) or {
            pid for pid, process in found.items() if process.name == "postgres"
        }
        ours = re.compile(rf" {re.escape(name)}(_\w+)? ")
        assert self._postgres is not None
        titles = {
            pid: processes.title(pid)
            for pid in processes.family(found, masters)
            if pid not in self._postgres.backends
        }
        return {pid for pid, told in titles.items() if ours.search(told) or _BACKGROUND.search(told)}


class DatabaseMeter:
    """Counts what PostgreSQL does: bytes of WAL and transactions that write (the whole server's, exact at
    once), and statements in the run's databases, if the server has pg_stat_statements loaded.

    Of a utility statement that the driver has prepared, as it does with SAVEPOINT, PostgreSQL 15 counts
    only the first execution.
    """

    def __init__(self, database: str) -> None:
        self._name = urlsplit(database).path[1:]
        self._connection = psycopg.connect(database, autocommit=True)
        self.backends = {self._connection.info.backend_pid}
        loaded = self._connection.execute("SHOW shared_preload_libraries").fetchone()
        self._counts_statements = loaded is not None and "pg_stat_statements" in loaded[0]
        if self._counts_statements:
            self._connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def read(self) -> tuple[dict[str, float], dict[str, tuple[int, float]]]:
        """Counters so far, and `(calls, milliseconds)` of each statement by its text."""
        row = self._connection.execute(
            "SELECT pg_current_wal_insert_lsn() - '0/0', "
            "pg_snapshot_xmax(pg_current_snapshot())::text::bigint"
        ).fetchone()
        assert row is not None
        counters = {"wal_bytes": float(row[0]), "write_transactions": float(row[1])}
        statements: dict[str, tuple[int, float]] = {}
        if self._counts_statements:
            rows = self._connection.execute(
                "SELECT s.query, sum(s.calls)::bigint, sum(s.total_exec_time), "
                "sum(s.shared_blks_hit + s.shared_blks_read)::bigint FROM pg_stat_statements AS s "
                "JOIN pg_database AS d ON d.oid = s.dbid "
                "WHERE starts_with(d.datname, %s) AND s.query !~ %s GROUP BY s.query",
                [self._name, f"{re.escape(UNCOUNTED)}|pg_stat_statements"],
            )
            found = rows.fetchall()
            statements = {text: (calls, spent) for text, calls, spent, _ in found}
            counters["buffers"] = float(sum(buffers for *_, buffers in found))
            counters["statements"] = float(sum(calls for calls, _ in statements.values()))
        return counters, statements

    def since(
        self, before: tuple[dict[str, float], dict[str, tuple[int, float]]], most: int = 25
    ) -> tuple[dict[str, float], list[tuple[str, int, float]]]:
        """What was added since `read` gave `before`; of the statements the most frequent."""
        counters, statements = self.read()
        nothing = (0, 0.0)
        added = [
            (text, calls - before[1].get(text, nothing)[0], spent - before[1].get(text, nothing)[1])
            for text, (calls, spent) in statements.items()
        ]
        added.sort(key=lambda statement: -statement[1])
        return (
            {name: value - before[0].get(name, 0.0) for name, value in counters.items()},
            [statement for statement in added if statement[1] > 0][:most],
        )
