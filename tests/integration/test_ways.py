"""What goes to PostgreSQL together with BEGIN and COMMIT is what would have gone by itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError

from sagas_framework.storage.engine import is_unavailable, make_engine
from sagas_framework.storage.ways import begin_with, commit_with

ODD = ["it's", 'a "quote"', "back\\slash", "%(x)s", ":x", "{x}", "ünïcode \N{SNOWMAN}", "a\nline", ";--", ""]

INSERT = "INSERT INTO kept (value) VALUES ({value})"


@pytest.fixture
def engine(postgres_url: str) -> Iterator[Engine]:
    engine = make_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(text("CREATE TABLE kept (value text PRIMARY KEY)"))
        connection.execute(text("CREATE TABLE parent (id int PRIMARY KEY)"))
        connection.execute(
            text("CREATE TABLE child (id int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")
        )
    yield engine
    engine.dispose()


def kept(engine: Engine) -> list[str]:
    with engine.connect() as connection:
        return list(connection.scalars(text("SELECT value FROM kept ORDER BY value")))


def insert(connection: Connection, value: str) -> None:
    connection.execute(text("INSERT INTO kept (value) VALUES (:value)"), {"value": value})


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"], ids=["in ways", "one by one"])
def test_values_come_back_as_they_were_given(engine: Engine, level: str | None) -> None:
    echo = "SELECT CAST({text} AS text), CAST(CAST({number} AS bigint) + 1 AS text), CAST({none} AS text)"
    options: dict[str, Any] = {} if level is None else {"isolation_level": level}
    for odd in ODD:
        with engine.connect().execution_options(**options) as connection, connection.begin():
            assert begin_with(connection, echo, text=odd, number=-7, none=None) == (odd, "-6", None)
            commit_with(connection, INSERT, value=odd)

    assert sorted(kept(engine)) == sorted(ODD)


def test_what_follows_is_in_the_transaction_and_rolled_back_with_it(engine: Engine) -> None:
    with engine.connect() as connection, connection.begin() as transaction:
        assert begin_with(connection, "SELECT CAST({n} AS text)", n=1) == ("1",)
        insert(connection, "later")
        transaction.rollback()

    assert kept(engine) == []


def test_what_was_done_before_is_committed_with_the_last_statement(engine: Engine) -> None:
    with engine.begin() as connection:
        begin_with(connection, "SELECT CAST({n} AS text)", n=1)
        with connection.begin_nested():
            insert(connection, "a")
        with pytest.raises(IntegrityError), connection.begin_nested():
            insert(connection, "a")  # psycopg forgets what it prepared when a savepoint is rolled back
        commit_with(connection, INSERT, value="b")
        assert kept(engine) == ["a", "b"]

    with engine.begin() as connection:  # the same connection, from the pool
        insert(connection, "c")
    assert kept(engine) == ["a", "b", "c"]


def test_a_last_statement_that_fails_commits_nothing_and_tells_no_values(engine: Engine) -> None:
    def twice() -> None:
        with engine.begin() as connection:
            insert(connection, "a secret")
            commit_with(connection, INSERT, value="a secret")

    with pytest.raises(IntegrityError) as raised:
        twice()

    assert raised.value.statement == INSERT
    assert "VALUES ('a secret')" not in str(raised.value)
    assert kept(engine) == []


def test_a_constraint_that_is_looked_at_last_fails_the_commit(engine: Engine) -> None:
    def orphan() -> None:
        with engine.begin() as connection:
            insert(connection, "a")
            commit_with(connection, "INSERT INTO child VALUES ({id})", id=7)

    with pytest.raises(IntegrityError, match="child_id_fkey") as raised:
        orphan()

    assert raised.value.statement is None  # it was none of ours
    assert kept(engine) == []


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_a_transaction_has_the_isolation_that_the_engine_was_given(postgres_url: str, level: str) -> None:
    engine = make_engine(postgres_url, isolation_level=level)

    with engine.begin() as connection:
        found = begin_with(connection, "SELECT current_setting('transaction_isolation')")

    engine.dispose()
    assert found == (level.lower(),)


@pytest.mark.parametrize("level", ["READ COMMITTED", "SERIALIZABLE"])
def test_a_transaction_in_which_a_listener_has_said_something_is_not_begun_again(
    postgres_url: str, level: str
) -> None:
    engine = make_engine(postgres_url, isolation_level=level)
    event.listen(
        engine, "begin", lambda connection: connection.exec_driver_sql("SET LOCAL lock_timeout = '7s'")
    )
    warnings: list[str | None] = []

    with engine.connect().execution_options(postgresql_deferrable=True) as connection, connection.begin():
        driver: Any = connection.connection.driver_connection
        driver.add_notice_handler(lambda told: warnings.append(told.message_primary))
        connection.execute(text("SELECT count(*) FROM pg_class"))
        found = begin_with(
            connection, "SELECT current_setting('lock_timeout'), current_setting('transaction_isolation')"
        )

    engine.dispose()
    assert found == ("7s", level.lower())
    assert warnings == []


def test_a_transaction_is_read_only_if_it_was_asked_to_be(engine: Engine) -> None:
    def write() -> None:
        options = {"postgresql_readonly": True, "postgresql_deferrable": True}
        with engine.connect().execution_options(**options) as connection, connection.begin():
            begin_with(connection, "SELECT 'x'")
            commit_with(connection, INSERT, value="a")

    with pytest.raises(DBAPIError, match="read-only"):
        write()


def test_a_text_with_a_nul_is_refused_before_anything_is_sent(engine: Engine) -> None:
    with engine.begin() as connection:
        with pytest.raises(DataError, match="NUL"):
            begin_with(connection, "SELECT CAST({a} AS text)", a="a\0b")
        insert(connection, "a")
        with pytest.raises(DataError, match="NUL"):
            commit_with(connection, INSERT, value="b\0")

    assert kept(engine) == ["a"]


def test_a_session_that_was_ended_is_unavailable_and_the_next_one_is_new(engine: Engine) -> None:
    def end_and_ask() -> None:
        with engine.begin() as connection:
            pid = connection.scalar(text("SELECT pg_backend_pid()"))
            with engine.begin() as other:
                other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
            commit_with(connection, INSERT, value="lost")

    with pytest.raises(DBAPIError) as raised:
        end_and_ask()

    assert is_unavailable(raised.value)
    with engine.begin() as connection:
        assert begin_with(connection, "SELECT 'there'") == ("there",)
    assert kept(engine) == []
