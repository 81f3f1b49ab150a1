"""What a turn of the orchestrator costs: ``.venv/bin/python -m benchmarks.turns``.

The orchestrator alone, on PostgreSQL: the order platform's saga, a publisher that only writes the messages
down, and replies that are made of them. Counted are the thread's CPU and the statements of a saga, by what
they are spent on; of PostgreSQL the CPU of the backend, how its tables were changed, and its log.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from sqlalchemy import Engine, event

from benchmarks.pages import database
from sagas_framework import enable_telemetry
from sagas_framework import orchestrator as shell
from sagas_framework.clock import utc_now
from sagas_framework.core.events import Event, Result
from sagas_framework.core.inbox import Stored
from sagas_framework.storage.sql import SqlStore, SqlTransaction
from sagas_framework.transport.envelope import WireMessage, from_wire, reply, reply_received, to_wire
from sagas_framework.transport.publisher import Load, Receipt

_ANSWERS: Final[Mapping[str, Any]] = {
    "consumer_service.verify_consumer_details": None,
    "restaurant_service.create_ticket": {"ticket_id": 7},
    "accounting_service.authorize_card": {"transaction_id": 8},
    "restaurant_service.approve_ticket": None,
    "restaurant_service.reject_ticket": None,
}
_DECLINED: Final = {"type": "CardDeclined", "message": "no money", "module": "shop"}


class Recording:
    """A publisher that keeps what it is given."""

    def __init__(self) -> None:
        self.sent: list[WireMessage] = []

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.sent += messages
        return [Receipt.CONFIRMED] * len(messages)

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None:
        pass


class Spent:
    """CPU of this thread by name, in seconds; what is called inside of another counts there no more."""

    def __init__(self) -> None:
        self.by: dict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._at = 0.0

    @contextmanager
    def on(self, name: str) -> Iterator[None]:
        self._note()
        self._open.append(name)
        try:
            yield
        finally:
            self._note()
            self._open.pop()

    def _note(self) -> None:
        now = time.thread_time()
        if self._open:
            self.by[self._open[-1]] += now - self._at
        self._at = now

    def calls_of(self, owner: Any, function: str, name: str) -> None:
        """From now on, count the calls of this function under the name."""
        called = getattr(owner, function)

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.on(name):
                return called(*args, **kwargs)

        setattr(owner, function, counted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", default="postgresql://postgres@127.0.0.1/postgres")
    parser.add_argument("--sagas", type=int, default=600)
    parser.add_argument("--batch", type=int, default=70, help="replies in a turn")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--declined", action="store_true", help="every card is refused")
    parser.add_argument("--traced", action="store_true", help="with traces and metrics, which go nowhere")
    parser.add_argument("--profile", help="write what cProfile finds to this file")
    given = parser.parse_args()
    if given.traced:
        trace()
    with database(given.postgres) as url:
        os.environ["APP_SQLALCHEMY_DATABASE_URI"] = url
        from order_service.orchestrator import sagas  # it reads the address when it is imported

        sagas.upgrade()
        measure(sagas, given)
        sagas.engine.dispose()
    return 0


def trace() -> None:
    """Switch telemetry on, with the SDK as it would be set up, and an exporter that drops everything."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Dropping(SpanExporter):
        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    tracers = TracerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Dropping()))
    enable_telemetry(tracers, MeterProvider([InMemoryMetricReader()]))


def measure(sagas: Any, given: argparse.Namespace) -> None:
    from benchmarks.orders import take

    engine: Engine = sagas.engine
    publisher = Recording()
    orchestrator = shell.Orchestrator(
        SqlStore(engine), sagas.definitions, publisher, reply_to=sagas.reply_queue.name, policy=sagas.policy
    )
    statements: Counter[str] = Counter()
    spent = Spent()
    counting = False

    @event.listens_for(engine, "before_cursor_execute")
    def count(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if counting:
            statements[re.sub(r"\d+$", "", " ".join(statement.split()))[:70]] += 1  # savepoints are numbered

    def turns(sagas_: int) -> None:
        while spending(orchestrator.fire_timers, {}, 200):
            pass
        while publisher.sent:
            events = [answer(message, given.declined) for message in publisher.sent[: given.batch]]
            del publisher.sent[: given.batch]
            spending(orchestrator.process, events)

    def spending(act: Callable[..., Any], *args: Any) -> Any:
        nonlocal counting
        counting = True
        with spent.on("the rest"):
            result = act(*args)
        counting = False
        return result

    take(100)
    turns(100)
    for owner, function, name in (
        (SqlTransaction, "lock", "lock"),
        (SqlTransaction, "lock_due", "lock"),
        (SqlTransaction, "write", "write"),
        (SqlTransaction, "finish", "write out"),
        (shell, "decide", "decide"),
        (shell, "to_wire", "to wire"),
        (shell.Orchestrator, "_run_local", "local steps"),
    ):
        spent.calls_of(owner, function, name)
    statements.clear()
    totals, backend, shares, log = [], [], [], []
    profile = None
    if given.profile:
        import cProfile

        profile = cProfile.Profile(time.thread_time)
    for _ in range(given.rounds):
        take(given.sagas)
        spent.by.clear()
        with engine.connect() as connection:
            pid = connection.connection.driver_connection.info.backend_pid  # type: ignore[union-attr]
        before, wal = cpu(pid), position(given.postgres)
        if profile:
            profile.enable()
        turns(given.sagas)
        if profile:
            profile.disable()
        log.append((position(given.postgres) - wal) / given.sagas)
        backend.append((cpu(pid) - before) * 1000 / given.sagas)
        totals.append(sum(spent.by.values()) * 1000 / given.sagas)
        shares.append({name: seconds * 1000 / given.sagas for name, seconds in spent.by.items()})
    if profile:
        profile.dump_stats(given.profile)
    sagas_ = given.sagas * given.rounds
    print(f"CPU ms a saga: {statistics.median(totals):.3f} (of {', '.join(f'{t:.3f}' for t in totals)})")
    for name in shares[0]:
        print(f"  {name:12} {statistics.median(share[name] for share in shares):.3f}")
    print(f"PostgreSQL's backend, CPU ms a saga: {statistics.median(backend):.3f}")
    print(f"log, bytes a saga, of the whole server: {statistics.median(log):,.0f}")
    print("statements a saga:")
    for statement, times in statements.most_common():
        print(f"  {times / sagas_:7.3f}  {statement}")
    with psycopg.connect(engine.url.set(drivername="postgresql").render_as_string(False)) as looking:
        looking.execute("SELECT pg_stat_clear_snapshot()")
        time.sleep(1.5)  # statistics are told when a backend is idle
        told = looking.execute(
            "SELECT relname, n_tup_upd, n_tup_hot_upd, n_dead_tup, pg_relation_size(relid),"
            " pg_indexes_size(relid) FROM pg_stat_user_tables WHERE n_tup_upd + n_tup_ins > 0"
        ).fetchall()
        print("table: updates, HOT, dead, bytes, of indexes")
        for name, *numbers in told:
            print(f"  {name:20} {' '.join(f'{number:>12,}' for number in numbers)}")
        ended = looking.execute("SELECT status, count(*) FROM saga_instance GROUP BY status").fetchall()
    print(f"sagas: {dict(ended)}")


def answer(message: WireMessage, declined: bool) -> Event:
    """The reply to a command, as it comes over the wire."""
    asked = from_wire(message)
    if declined and asked.task.endswith("authorize_card"):
        stored = Stored(Result.REFUSED, _DECLINED)
    else:
        stored = Stored(Result.SUCCESS, _ANSWERS[asked.task])
    return reply_received(from_wire(to_wire(reply(asked, stored))), utc_now())


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has used."""
    with open(f"/proc/{pid}/schedstat") as file:
        return int(file.read().split()[0]) / 1e9


def position(url: str) -> int:
    """Bytes that the server has logged."""
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()
        assert row is not None
        return int(row[0])


if __name__ == "__main__":
    sys.exit(main())
