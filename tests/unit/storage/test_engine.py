"""Addresses and what database errors mean."""

from __future__ import annotations

import sqlite3

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from sagas_framework import ConfigurationError, make_engine
from sagas_framework.storage.engine import is_refused, is_unavailable, masked


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
