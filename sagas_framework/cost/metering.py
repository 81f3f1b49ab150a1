"""What a system at work uses meanwhile: CPU of its processes on this machine, and what PostgreSQL does."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, func, select, text

from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import reading
from sagas_framework.storage.reads import first_id, read_beats
from sagas_framework.storage.retiring import ENDED
from sagas_framework.storage.tables import saga_instance

_PROC: Final = Path("/proc")
_ALIVE: Final = timedelta(seconds=15)
_LOOK_BACK: Final = timedelta(hours=1)
POSTGRES: Final = "postgres"
BROKER: Final = "rabbitmq"

_COUNTERS: Final = text(
    "SELECT xact_commit, tup_inserted, tup_updated, tup_deleted FROM pg_stat_database "
    "WHERE datname = current_database()"
)
_HOT: Final = text(
    "SELECT coalesce(sum(n_tup_upd), 0), coalesce(sum(n_tup_hot_upd), 0) FROM pg_stat_user_tables "
    "WHERE starts_with(relname, 'saga_')"
)
_SERVER: Final = text(
    "SELECT pg_current_wal_insert_lsn() - '0/0', pg_snapshot_xmax(pg_current_snapshot())::text::bigint, "
    "extract(epoch FROM pg_postmaster_start_time())::text, "
    "inet_server_addr() IS NULL OR inet_server_addr() <<= '127.0.0.0/8'"
)
_STATEMENTS: Final = text(
    "SELECT sum(calls)::bigint, sum(total_exec_time) FROM pg_stat_statements AS s "
    "JOIN pg_database AS d ON d.oid = s.dbid WHERE d.datname = current_database()"
)
_BACKENDS: Final = text(
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True)
class Used:
    """What was used between two moments, by one saga that ended meanwhile.

    Args:
        sagas: how many ended, of whatever name.
        seconds: that were watched.
        cpu_ms: milliseconds by component; only of processes on this machine.
        wal_bytes: of the servers, whoever wrote them.
        writes: transactions that wrote.
        commits, statements, inserted, updated, deleted: in the databases that were watched; statements
            only where ``pg_stat_statements`` counts them.
        hot: the share of the updates that touched no index.
    """

    sagas: int
    seconds: float
    cpu_ms: Mapping[str, float]
    wal_bytes: float | None = None
    writes: float | None = None
    commits: float | None = None
    statements: float | None = None
    inserted: float | None = None
    updated: float | None = None
    deleted: float | None = None
    hot: float | None = None


@dataclass
class _Moment:
    cpu: dict[str, dict[int, float]] = field(default_factory=dict)
    servers: dict[str, tuple[float, float]] = field(default_factory=dict)
    counters: dict[str, list[float]] = field(default_factory=dict)
    hot: dict[str, tuple[float, float]] = field(default_factory=dict)
    statements: dict[str, float] = field(default_factory=dict)


class Watch:
    """Looks at a system twice.

    Args:
        sagas: the database in which sagas end.
        databases: all that are looked at, that one among them.
    """

    def __init__(self, sagas: Database, databases: Sequence[Database], now: datetime) -> None:
        self._sagas = sagas
        self._databases = databases
        self._begun_at = now
        self._before = self._look(now)

    def used(self, now: datetime) -> Used | None:
        """What was used since it was made; None if no saga has ended meanwhile."""
        after, before = self._look(now), self._before
        with reading(self._sagas.engine) as connection:
            ended = _count_ended(connection, self._begun_at, now)
        if ended == 0:
            return None
        cpu = {
            name: 1000 * sum(spent - before.cpu.get(name, {}).get(pid, spent) for pid, spent in found.items())
            for name, found in after.cpu.items()
        }
        rest: dict[str, float | None] = {}
        if after.servers:
            wal, writes = (
                sum(value[place] - before.servers[name][place] for name, value in after.servers.items())
                for place in (0, 1)
            )
            rest = {"wal_bytes": wal / ended, "writes": writes / ended}
            for place, name in enumerate(("commits", "inserted", "updated", "deleted")):
                grown = sum(value[place] - before.counters[db][place] for db, value in after.counters.items())
                rest[name] = grown / ended
            updates, hot = (
                sum(value[place] - before.hot[db][place] for db, value in after.hot.items())
                for place in (0, 1)
            )
            rest["hot"] = hot / updates if updates else None
            if after.statements and after.statements.keys() == before.statements.keys():
                called = sum(value - before.statements[db] for db, value in after.statements.items())
                rest["statements"] = called / ended
        seconds = (now - self._begun_at).total_seconds()
        return Used(ended, seconds, {name: spent / ended for name, spent in cpu.items()}, **rest)

    def _look(self, now: datetime) -> _Moment:
        moment, processes = _Moment(), _processes()
        for database in self._databases:
            with reading(database.engine) as connection:
                moment.cpu[database.service] = _cpu(processes, _workers(connection, now))
                if connection.dialect.name == "postgresql":
                    _look_at(connection, database.service, moment, processes)
        brokers = [pid for pid, (_, name, _) in processes.items() if name == "beam.smp"]
        if brokers:
            moment.cpu[BROKER] = _cpu(processes, brokers)
        return moment


def _look_at(
    connection: Connection, name: str, moment: _Moment, processes: Mapping[int, tuple[int, str, float]]
) -> None:
    wal, xids, started, local = connection.execute(_SERVER).one()
    moment.servers[started] = (float(wal), float(xids))
    moment.counters[name] = [float(value) for value in connection.execute(_COUNTERS).one()]
    updates, hot = connection.execute(_HOT).one()
    moment.hot[name] = (float(updates), float(hot))
    counts = text("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'")
    if connection.execute(counts).scalar_one() and _preloaded(connection):
        moment.statements[name] = float(connection.execute(_STATEMENTS).one()[0] or 0)
    if local:
        pids = [pid for (pid,) in connection.execute(_BACKENDS) if pid in processes]
        moment.cpu.setdefault(POSTGRES, {}).update(_cpu(processes, pids, descend=False))


def _preloaded(connection: Connection) -> bool:
    loaded: str = connection.execute(text("SHOW shared_preload_libraries")).scalar_one()
    return "pg_stat_statements" in loaded


def _count_ended(connection: Connection, begun: datetime, now: datetime) -> int:
    """Those that ended meanwhile and did not start long before: these stand together in an index."""
    table = saga_instance.c
    query = select(func.count()).where(
        table.status.in_([status.value for status in ENDED]),
        table.id >= first_id(begun - _LOOK_BACK),
        table.ended_at > begun,
        table.ended_at <= now,
    )
    return connection.execute(query).scalar_one()


def _workers(connection: Connection, now: datetime) -> list[int]:
    """Workers of the service on this machine that have turned lately."""
    here = f"@{socket.gethostname()}-"
    found = set()
    for beat in read_beats(connection):
        _, at, pid = beat.worker.rpartition(here)
        if at and pid.isdecimal() and now - beat.turned_at < _ALIVE:
            found.add(int(pid))
    return sorted(found)


# ---- processes ----------------------------------------------------------------------------------------


def _processes() -> dict[int, tuple[int, str, float]]:
    """`(parent, name, CPU seconds)` of every process, by number; empty where there is no /proc."""
    found: dict[int, tuple[int, str, float]] = {}
    with suppress(OSError):
        for folder in _PROC.iterdir():
            if folder.name.isdigit():
                with suppress(OSError, ValueError, IndexError):
                    found[int(folder.name)] = _stat((folder / "stat").read_text())
    return found


def _stat(said: str) -> tuple[int, str, float]:
    name, _, rest = said.partition(" (")[2].rpartition(") ")  # a name may hold spaces and parentheses
    words = rest.split()
    return int(words[1]), name, (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _cpu(
    processes: Mapping[int, tuple[int, str, float]], roots: Iterable[int], *, descend: bool = True
) -> dict[int, float]:
    """CPU seconds of these processes, and of all that descend from them."""
    todo, found = [pid for pid in roots if pid in processes], dict[int, float]()
    while todo:
        pid = todo.pop()
        if pid not in found:
            found[pid] = processes[pid][2]
            todo += [child for child, (parent, *_) in processes.items() if descend and parent == pid]
    return found


def to_json(used: Used) -> dict[str, Any]:
    """As plain JSON."""
    return {name: getattr(used, name) for name in used.__dataclass_fields__} | {"cpu_ms": dict(used.cpu_ms)}
