"""Addresses and what database errors mean."""

from __future__ import annotations

import os
import sqlite3
from typing import Any, Final

import pytest
from sqlalchemy import Engine, event, make_url
from sqlalchemy.exc import IntegrityError, OperationalError

from sagas_framework import ConfigurationError, make_engine
from sagas_framework.cli.base import patient_database
from sagas_framework.storage.engine import is_refused, is_unavailable, masked, patience


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("postgresql://ann:secret@host/db", "postgresql://ann:***@host/db"),
        ("postgresql://ann:se@cret@host/db", "postgresql://ann:***@host/db"),
        ("ann:secret@host", "***@host"),
        ("sqlite:////folder/file.sqlite", "sqlite:////folder/file.sqlite"),
    ],
)
def test_a_password_is_never_shown(address: str, shown: str) -> None:
    assert masked(address) == shown


@pytest.mark.parametrize(
    "address", ["", "nonsense", "postgresql://ann:secret@host:port/db", "nosuchdatabase://ann:secret@host/db"]
)
def test_an_address_that_cannot_be_used_says_what_to_write(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Write it like postgresql\+psycopg://") as wrong:
        make_engine(address)

    assert "secret" not in str(wrong.value)


# ---- a server that does not answer -------------------------------------------------------------------


_OTHERS: Final = ("host", "user", "dbname", "context")


class Told(Exception):
    """Raised in place of connecting."""


def told(engine: Engine) -> dict[str, Any]:
    """What the driver would be told, beside host, user and database."""

    @event.listens_for(engine, "do_connect")
    def connect(_dialect: object, _record: object, _args: object, kwargs: dict[str, Any]) -> None:
        raise Told(kwargs)

    with pytest.raises(Told) as raised:
        engine.connect()
    (kwargs,) = raised.value.args
    return {name: value for name, value in kwargs.items() if name not in _OTHERS}


@pytest.fixture
def no_patience_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGCONNECT_TIMEOUT", raising=False)


DEFAULTS: Final = {
    "connect_timeout": 10,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


@pytest.mark.usefixtures("no_patience_given")
@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg"])
def test_a_postgresql_that_does_not_answer_is_given_up(scheme: str) -> None:
    assert told(make_engine(f"{scheme}://ann@host/db")) == DEFAULTS


@pytest.mark.usefixtures("no_patience_given")
def test_the_address_says_better_for_how_long() -> None:
    engine = make_engine("postgresql://ann@host/db?connect_timeout=3&tcp_user_timeout=0&sslmode=require")

    assert told(engine) == DEFAULTS | {
        "connect_timeout": "3",
        "tcp_user_timeout": "0",
        "sslmode": "require",
    }


@pytest.mark.usefixtures("no_patience_given")
def test_so_does_whoever_makes_the_engine() -> None:
    engine = make_engine("postgresql://ann@host/db", connect_args={"keepalives_idle": 1})

    assert told(engine) == DEFAULTS | {"keepalives_idle": 1}


def test_the_environment_says_for_how_long_connecting_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "5")

    without = told(make_engine("postgresql://ann@host/db"))
    with_one = told(make_engine("postgresql://ann@host/db?connect_timeout=3"))

    # An argument would win over the variable, so there is none.
    assert without == {name: value for name, value in DEFAULTS.items() if name != "connect_timeout"}
    assert with_one["connect_timeout"] == "3"


def test_the_command_line_gives_up_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "")  # so that it is as before when the test ends
    monkeypatch.delenv("PGCONNECT_TIMEOUT")

    patient_database()

    assert os.environ["PGCONNECT_TIMEOUT"] == "5"
    assert "connect_timeout" not in patience(make_url("postgresql+psycopg://ann@host/db"))


def test_other_databases_are_told_nothing() -> None:
    assert patience(make_url("sqlite:///file.sqlite")) == {}
    assert patience(make_url("postgresql+asyncpg://ann@host/db")) == {}


# ---- what errors mean --------------------------------------------------------------------------------


class DriverError(Exception):
    """What a driver raises, with PostgreSQL's or SQLite's code for it, or without any."""

    def __init__(
        self, message: str, sqlstate: str | None = None, sqlite_errorcode: int | None = None
    ) -> None:
        super().__init__(message)
        if sqlstate is not None:
            self.sqlstate = sqlstate
        if sqlite_errorcode is not None:
            self.sqlite_errorcode = sqlite_errorcode


@pytest.mark.parametrize(
    ("sqlstate", "unavailable"),
    [
        ("08006", True),  # connection failure
        ("40001", True),  # serialization failure
        ("40P01", True),  # deadlock
        ("53100", True),  # disk full
        ("55P03", True),  # lock not available
        ("57P01", True),  # admin shutdown
        ("42P01", False),  # undefined table
        ("22001", False),  # value too long
        ("23505", False),  # unique violation
    ],
)
def test_postgresql_tells_by_its_code_whether_to_try_again(sqlstate: str, unavailable: bool) -> None:
    error = OperationalError("SELECT", {}, DriverError("said so", sqlstate))

    assert is_unavailable(error) is unavailable


@pytest.mark.parametrize(
    ("code", "unavailable"),
    [
        (sqlite3.SQLITE_BUSY, True),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, True),
        (sqlite3.SQLITE_IOERR, True),
        (sqlite3.SQLITE_FULL, True),
        (sqlite3.SQLITE_ERROR, False),  # no such table, a wrong statement
    ],
)
def test_sqlite_tells_by_its_code_whether_to_try_again(code: int, unavailable: bool) -> None:
    error = OperationalError("SELECT", {}, DriverError("said so", sqlite_errorcode=code))

    assert is_unavailable(error) is unavailable


def test_a_violated_constraint_is_the_statements_own_fault() -> None:
    assert not is_unavailable(IntegrityError("INSERT", {}, DriverError("UNIQUE constraint failed")))


def test_a_refused_password_is_not_waited_for() -> None:
    assert is_refused(OperationalError("connect", {}, DriverError("password authentication failed for user")))
    assert not is_refused(OperationalError("connect", {}, DriverError("connection refused")))
