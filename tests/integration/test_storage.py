"""Stores and inboxes on servers of their own, which are killed, wiped and filled under them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, event, text
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.storage.engine import make_engine
from sagas_framework.storage.ports import Beat, StoreUnavailable
from sagas_framework.storage.redis_inbox import RedisInbox
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.sql_inbox import SqlInbox
from tests.contract.looking import NOON, InSql, an_instance, postgres_database, saga_id
from tests.servers import OwnPostgres, OwnRedis

A_ROW = InboxRow("key", "saga-1", "kitchen.cook", RowState.DONE)


@pytest.fixture
def there(own_postgres: OwnPostgres) -> Iterator[InSql]:
    there = InSql(own_postgres.create())
    yield there
    there.engine.dispose()


def test_a_server_killed_in_a_transaction_leaves_nothing_of_it_and_serves_the_next(
    own_postgres: OwnPostgres, there: InSql
) -> None:
    store = SqlStore(there.engine)
    there.seed(an_instance("a"))

    def process() -> None:
        with store.transaction() as tx:
            tx.lock([saga_id("a")])
            tx.write([an_instance("a", revision=1)], [])
            with tx.savepoint() as session:
                there.work(session, "local step")
            own_postgres.kill()

    with pytest.raises(StoreUnavailable):
        process()
    with pytest.raises(StoreUnavailable):
        store.beat(Beat("w", "timekeeper", NOON, NOON))
    own_postgres.start()

    assert there.instance(saga_id("a")) == an_instance("a")
    assert there.worked() == []
    with store.transaction() as tx:
        tx.write([an_instance("a", revision=2)], [])
    assert there.instance(saga_id("a")) == an_instance("a", revision=2)


def test_a_server_killed_in_a_handler_leaves_neither_row_nor_work(
    own_postgres: OwnPostgres, there: InSql
) -> None:
    inbox = SqlInbox(there.engine)

    def handle() -> None:
        with inbox.turn("key", NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "ticket")
            own_postgres.kill()
            turn.finish_work()
            turn.save(A_ROW)

    with pytest.raises(StoreUnavailable):
        handle()
    own_postgres.start()

    with inbox.turn("key", NOON) as turn:
        assert turn.row is None  # nor does a lock of the dead linger
        turn.save(A_ROW)
    assert there.worked() == []


def test_connections_that_died_while_nobody_used_them_are_made_anew(
    own_postgres: OwnPostgres, there: InSql
) -> None:
    store = SqlStore(there.engine)
    there.seed(an_instance("a"))

    own_postgres.stop()
    own_postgres.start()

    assert store.next_due([("create_order", 1)]) is None


def test_a_server_that_became_a_standby_is_unavailable(own_postgres: OwnPostgres, there: InSql) -> None:
    with there.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ALTER SYSTEM SET default_transaction_read_only = on"))
        connection.execute(text("SELECT pg_reload_conf()"))
    engine = make_engine(there.engine.url.render_as_string(hide_password=False))

    with pytest.raises(StoreUnavailable, match="read-only"), SqlInbox(engine).turn("key", NOON) as turn:
        turn.save(A_ROW)
    engine.dispose()


def test_a_redis_killed_in_a_handler_leaves_no_row(own_redis: OwnRedis) -> None:
    inbox = RedisInbox(own_redis.url)

    def handle() -> None:
        with inbox.turn("key", NOON) as turn:
            own_redis.kill()
            turn.save(A_ROW)

    with pytest.raises(StoreUnavailable):
        handle()
    own_redis.start()

    assert inbox.read_row("key") is None
    inbox.close()


def test_a_redis_that_is_full_is_unavailable(own_redis: OwnRedis) -> None:
    inbox = RedisInbox(own_redis.url)
    own_redis.configure("maxmemory", "1")

    with pytest.raises(StoreUnavailable), inbox.turn("key", NOON) as turn:
        turn.save(A_ROW)
    with pytest.raises(StoreUnavailable):
        inbox.beat(Beat("w", "participant", NOON, NOON))

    own_redis.configure("maxmemory", "0")
    with inbox.turn("key", NOON) as turn:
        turn.save(A_ROW)
    assert inbox.read_row("key") == A_ROW
    inbox.close()


def test_a_redis_that_became_a_replica_is_unavailable(own_redis: OwnRedis) -> None:
    inbox = RedisInbox(own_redis.url)
    with Redis.from_url(own_redis.url) as client:
        client.replicaof("127.0.0.1", "1")

    with pytest.raises(StoreUnavailable), inbox.turn("key", NOON) as turn:
        turn.save(A_ROW)
    inbox.close()


def test_a_redis_that_wants_replicas_and_has_none_is_unavailable(own_redis: OwnRedis) -> None:
    inbox = RedisInbox(own_redis.url)
    own_redis.configure("min-replicas-to-write", "1")

    with pytest.raises(StoreUnavailable, match="NOREPLICAS"), inbox.turn("key", NOON) as turn:
        turn.save(A_ROW)
    inbox.close()


# ---- connections that wait in the pool ---------------------------------------------------------------


@pytest.fixture
def pings(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The round trips with which connections are tried before use."""
    made: list[object] = []
    ping: Any = PGDialect_psycopg.do_ping

    def counted(dialect: PGDialect_psycopg, connection: Any) -> bool:
        made.append(connection)
        alive: bool = ping(dialect, connection)
        return alive

    monkeypatch.setattr(PGDialect_psycopg, "do_ping", counted)
    return made


def use(engine: Engine) -> int:
    """A transaction; the number of the backend that had it."""
    with engine.begin() as connection:
        number: int = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        return number


def test_a_backend_that_is_terminated_between_two_transactions_is_noticed(
    postgres_url: str, pings: list[object]
) -> None:
    engine, other = make_engine(postgres_url), make_engine(postgres_url)
    first = use(engine)
    assert use(engine) == first
    with other.begin() as connection:
        connection.execute(text("SELECT pg_terminate_backend(:pid, 15000)"), {"pid": first})
    before = len(pings)

    second = use(engine)

    assert second != first
    assert len(pings) == before + 1
    engine.dispose()
    other.dispose()


def test_a_connection_that_is_in_use_is_not_tried_for_each_transaction(
    postgres_url: str, pings: list[object]
) -> None:
    engine = make_engine(postgres_url)
    first = use(engine)
    assert use(engine) == first  # not known to be alive yet
    pings.clear()

    assert [use(engine) for _ in range(5)] == [first] * 5

    assert pings == []
    engine.dispose()


def test_a_connection_that_was_idle_for_long_is_tried(
    postgres_url: str, pings: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("sagas_framework.storage.engine.time", SimpleNamespace(monotonic=lambda: now[0]))
    engine = make_engine(postgres_url)
    for _ in range(3):
        use(engine)
    pings.clear()

    now[0] += 29
    use(engine)
    soon = len(pings)
    now[0] += 30
    use(engine)

    assert (soon, len(pings)) == (0, 1)
    engine.dispose()


# ---- what a process has written --------------------------------------------------------------------


@pytest.mark.parametrize(("characters", "again"), [(100, False), (100_000, True)])
def test_what_was_written_is_not_read_again_unless_it_is_large(
    postgres_url: str, characters: int, again: bool
) -> None:
    with postgres_database(postgres_url) as there:
        small, seeded = an_instance("a", state={}), an_instance("a", state={"text": "x" * characters})
        there.seed(small)
        store = SqlStore(there.engine)
        with store.transaction() as tx:
            tx.write([small], [])
            tx.write([seeded], [])  # in the same transaction: it is the later one that counts
        said: list[str] = []
        event.listen(there.engine, "before_cursor_execute", lambda *told: said.append(told[2]))

        with store.transaction() as tx:
            found = tx.lock([seeded.id])

    assert found == {seeded.id: seeded}
    assert (len(said) == 2) is again
