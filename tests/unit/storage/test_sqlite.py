"""Threads that write to one file take turns, and a connection tells of its commit."""

from __future__ import annotations

import gc
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import Engine, NullPool, text
from sqlalchemy.exc import OperationalError

from sagas_framework import make_engine, reading
from sagas_framework.storage.engine import is_unavailable
from sagas_framework.storage.sqlite import SharedConnection, tell_after_commit

BOUNDED = 30
"""Seconds after which a test that hangs fails."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "shop.sqlite"


@pytest.fixture
def engine(file: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{file}")
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE sold (dish TEXT)"))
    yield engine
    engine.dispose()


def sell(engine: Engine, dish: str) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sold VALUES (:dish)"), {"dish": dish})


def sold(engine: Engine) -> list[str]:
    with reading(engine) as connection:
        return list(connection.execute(text("SELECT dish FROM sold ORDER BY rowid")).scalars())


def begun_elsewhere(engine: Engine, pool: ThreadPoolExecutor, dish: str) -> Future[None]:
    """Another thread that sells as soon as it gets its turn."""
    begins = threading.Event()

    def other() -> None:
        begins.set()
        sell(engine, dish)

    future = pool.submit(other)
    assert begins.wait(BOUNDED)
    return future


def test_a_writer_waits_for_the_one_before_it(engine: Engine) -> None:
    with ThreadPoolExecutor() as pool:
        with engine.begin() as connection:
            other = begun_elsewhere(engine, pool, "soup")
            connection.execute(text("INSERT INTO sold VALUES ('rice')"))
            assert not other.done()
        other.result(BOUNDED)

    assert sold(engine) == ["rice", "soup"]


@pytest.mark.parametrize("how", ["rollback", "error", "invalidate", "detach"])
def test_whoever_gives_up_leaves_the_turn_to_the_next(engine: Engine, how: str) -> None:
    with engine.connect() as connection:
        connection.begin()
        connection.execute(text("INSERT INTO sold VALUES ('rice')"))
        match how:
            case "rollback":
                connection.rollback()
            case "error":
                with pytest.raises(OperationalError):
                    connection.execute(text("INSERT INTO nowhere VALUES (1)"))
                connection.rollback()
            case "invalidate":
                connection.invalidate()
            case "detach":
                connection.detach()
                connection.close()

    sell(engine, "soup")

    assert sold(engine) == ["soup"]


def test_a_connection_that_is_forgotten_gives_its_turn_back(engine: Engine) -> None:
    connection = engine.raw_connection()
    raw: object = connection.dbapi_connection
    assert isinstance(raw, SharedConnection)
    with raw.writing():
        raw.execute("BEGIN IMMEDIATE")

    connection.detach()
    del raw, connection
    gc.collect()  # sqlite3's connections refer to themselves

    sell(engine, "soup")
    assert sold(engine) == ["soup"]


def test_a_turn_that_does_not_come_is_waited_for_no_longer_than_the_address_says(file: Path) -> None:
    engine = make_engine(f"sqlite:///{file}?timeout=0.05")

    with (
        engine.begin(),
        pytest.raises(OperationalError, match="database is locked") as locked,
        engine.begin(),
    ):
        pytest.fail("began while another writes")

    assert is_unavailable(locked.value)
    with engine.begin():
        pass  # nobody holds it any more
    engine.dispose()


def test_another_process_is_waited_for_too(engine: Engine, file: Path) -> None:
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("INSERT INTO sold VALUES ('rice')")

    with ThreadPoolExecutor() as pool:
        ours = begun_elsewhere(engine, pool, "soup")
        other.execute("COMMIT")
        ours.result(BOUNDED)

    assert sold(engine) == ["rice", "soup"]
    other.close()


def test_a_reader_waits_for_nobody(engine: Engine) -> None:
    sell(engine, "rice")

    with engine.begin() as connection:
        connection.execute(text("INSERT INTO sold VALUES ('soup')"))
        assert sold(engine) == ["rice"]


def test_connections_are_kept_and_the_log_with_them(engine: Engine, file: Path) -> None:
    """Closing the last one would move all of the log to the file, for each transaction."""
    sell(engine, "rice")

    assert file.with_name(f"{file.name}-wal").exists()
    with engine.connect() as one:
        first = one.connection.dbapi_connection
    with engine.connect() as two:
        assert two.connection.dbapi_connection is first


def test_whoever_makes_the_engine_may_keep_none(file: Path) -> None:
    engine = make_engine(f"sqlite:///{file}", poolclass=NullPool, connect_args={"timeout": 0.05})
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE sold (dish TEXT)"))

    with engine.begin(), pytest.raises(OperationalError, match="is locked"), engine.begin():
        pytest.fail("began while another writes")

    sell(engine, "rice")
    assert sold(engine) == ["rice"]


# ---- telling of a commit ----------------------------------------------------------------------------


def test_what_waits_for_a_commit_is_told_when_others_can_see_it(engine: Engine) -> None:
    seen: list[list[str]] = []

    with engine.begin() as connection:
        assert tell_after_commit(connection, lambda: seen.append(sold(engine)))
        connection.execute(text("INSERT INTO sold VALUES ('rice')"))
        assert seen == []

    assert seen == [["rice"]]


def test_a_transaction_tells_once_and_the_next_one_on_its_connection_nothing(engine: Engine) -> None:
    told: list[str] = []

    def tell() -> None:
        told.append("told")

    with engine.connect() as connection:
        with connection.begin():
            tell_after_commit(connection, tell)
            tell_after_commit(connection, tell)
        with connection.begin():
            pass

    assert told == ["told"]


def test_what_is_rolled_back_is_not_told_of(engine: Engine) -> None:
    told: list[str] = []
    with engine.connect() as connection:
        with connection.begin() as transaction:
            tell_after_commit(connection, lambda: told.append("told"))
            transaction.rollback()
        with connection.begin():
            pass

    assert told == []


def test_a_database_in_memory_tells_of_nothing() -> None:
    with make_engine("sqlite://").begin() as connection:
        assert not tell_after_commit(connection, lambda: None)
