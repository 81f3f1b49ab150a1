"""Engines that behave: hardened alike for PostgreSQL and SQLite, and what their errors mean."""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import URL, Connection, Engine, NestedTransaction, create_engine, event, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    PendingRollbackError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, SessionTransaction
from sqlalchemy.pool import Pool

from sagas_framework.errors import ConfigurationError
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.sqlite import SharedConnection, is_file

# SQLSTATE classes that say nothing about the statement: connection (08), rollback for a race (40),
# resources such as a full disk (53), a lock or a shutdown (55, 57), the system (58).
_UNAVAILABLE: Final = frozenset({"08", "40", "53", "55", "57", "58"})
# Of other classes: a session idle for too long, a server that is (since a failover) a standby.
_UNAVAILABLE_TOO: Final = frozenset({"25P03", "25006"})
# SQLite has no SQLSTATE. BUSY, LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, FULL, CANTOPEN, PROTOCOL.
_SQLITE_UNAVAILABLE: Final = frozenset({5, 6, 7, 8, 9, 10, 13, 14, 15})
_READS: Final = "sagas_reads_only"
# A refused password, role or database: waiting will not help.
_REFUSED: Final = frozenset({"28000", "28P01", "3D000"})
# A host that vanished says nothing. By itself the system notices after 15 minutes, if something was sent
# to it, and after two hours if we only wait. Linux alone has the last one.
_PATIENCE: Final = {
    "connect_timeout": 10,  # seconds, for each address of the host
    "keepalives_idle": 15,  # seconds
    "keepalives_interval": 5,  # seconds
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,  # milliseconds; as long as the three above
}
_LIBPQ: Final = frozenset({"psycopg", "psycopg2"})
_parents: Final[list[Pool]] = []
_QUIET_FOR: Final = 30.0
"""Seconds for which a connection that was alive is taken to be so, if its socket says nothing else."""


def make_engine(url: str, **options: Any) -> Engine:
    """An engine for a service's database.

    PostgreSQL: connections that have been closed, or were idle for 30 s, are tried before use and made
    anew when dead; a server that does not answer is given up (see `patience`). SQLite: WAL, so that
    readers never wait; every transaction begins as a writer, so that none fails half-way on a lock; a
    writer waits 15 s for another (or the seconds of ``?timeout=`` in the address). An engine that went
    through a fork opens connections of its own.

    Raises:
        ConfigurationError: the address cannot be read; the message masks the password.
    """
    # Errors of statements travel in replies and histories: without the values that were in them.
    options.setdefault("hide_parameters", True)
    try:
        address = make_url(url)
        if address.drivername == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
        if address.get_backend_name() == "sqlite":
            engine = create_engine(address, **_sqlite_options(address, options))
            _harden_sqlite(engine)
        else:
            options["connect_args"] = patience(address) | options.get("connect_args", {})
            engine = create_engine(address, **{"pool_pre_ping": True, "pool_recycle": 1800, **options})
            if address.get_driver_name() in _LIBPQ:
                _ping_seldom(engine)
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError) as error:
        raise ConfigurationError(
            f"The database address {masked(url)} cannot be used: {error}. "
            "Write it like postgresql+psycopg://user:password@host:5432/name or sqlite:////folder/file.sqlite."
        ) from None
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: _leave_to_parent(engine))
    return engine


def patience(address: URL) -> dict[str, Any]:
    """For how long a PostgreSQL that does not answer is waited for, as arguments of the driver's connect.

    Connecting gives up after 10 s, a connection whose other end has vanished after 30 s. What the
    address says in its query (``?connect_timeout=3&tcp_user_timeout=5000``) is left out here, and so is
    the time for connecting if ``PGCONNECT_TIMEOUT`` names one. Nothing for drivers not built on libpq.
    """
    if address.get_backend_name() != "postgresql" or address.get_driver_name() not in _LIBPQ:
        return {}
    given = set(address.query)
    if os.environ.get("PGCONNECT_TIMEOUT"):
        given.add("connect_timeout")
    return {name: value for name, value in _PATIENCE.items() if name not in given}


def _leave_to_parent(engine: Engine) -> None:
    """After a fork: the connections that were open are the parent's, and are not even closed here."""
    _parents.append(engine.pool)
    engine.dispose(close=False)


def _sqlite_options(address: URL, given: dict[str, Any]) -> dict[str, Any]:
    """Connections to a file are kept: each would read the schema anew, and the last that is closed moves
    all that was written from the log to the file. The one that was used last is used next."""
    if not is_file(address):
        return given
    connect_args = {"factory": SharedConnection} | given.get("connect_args", {})
    pooled = {} if "poolclass" in given else {"pool_size": 8, "max_overflow": -1, "pool_use_lifo": True}
    return {**pooled, **given, "connect_args": connect_args}


def _ping_seldom(engine: Engine) -> None:
    """Have the pool's ping, a round trip for each transaction, look at the socket first.

    A server that ends, a backend that is terminated and a proxy that hangs up close the connection; then
    the socket of the idle connection can be read. Of a host that vanished the socket tells nothing, and
    the ping is made after a while.
    """
    ping = engine.dialect.do_ping
    alive_at: WeakKeyDictionary[Any, float] = WeakKeyDictionary()

    def do_ping(connection: Any) -> bool:
        now = time.monotonic()
        if now - alive_at.get(connection, -_QUIET_FOR) >= _QUIET_FOR or _readable(connection):
            alive = ping(connection)
            alive_at[connection] = now
            return alive
        alive_at[connection] = now
        return True

    engine.dialect.do_ping = do_ping  # type: ignore[method-assign, assignment]


def _readable(connection: Any) -> bool:
    """Whether something has come on an idle connection: most likely its end."""
    if not hasattr(select, "poll"):
        return True  # it is not known
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _harden_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; `begin` below does
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        raw = connection.connection.dbapi_connection
        if connection.get_execution_options().get(_READS):
            connection.exec_driver_sql("BEGIN")
        elif isinstance(raw, SharedConnection):
            with raw.writing():
                connection.exec_driver_sql("BEGIN IMMEDIATE")
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection for reading; on SQLite one that neither waits for a writer nor holds one up."""
    with engine.connect().execution_options(**{_READS: True}) as connection:
        yield connection


def masked(url: str) -> str:
    """An address that can be shown: without its password, also when it cannot be parsed."""
    url = re.sub(r"(?i)(password=)[^&]*", r"\1***", url)
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, slashes, credentials = head.partition("://")
    user = credentials.partition(":")[0] if slashes else ""
    return f"{scheme}://{user}:***@{tail}" if slashes else f"***@{tail}"


def is_unavailable(error: BaseException) -> bool:
    """Whether a database error says nothing about the statement, so that a repetition may succeed."""
    if isinstance(error, PoolTimeout):
        return True
    if isinstance(error, PendingRollbackError):
        # 8s2b: the connection is lost. Otherwise a flush failed, and the code that caught it went on.
        return error.code == "8s2b"
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state[:2] in _UNAVAILABLE or state in _UNAVAILABLE_TOO
    code = getattr(error.orig, "sqlite_errorcode", None)
    if code is not None:
        # On a full or failing disk SQLite rolls the whole transaction back, our savepoints included.
        return code & 0xFF in _SQLITE_UNAVAILABLE or "no such savepoint" in str(error.orig)
    # A connection that was never made, or broke without a word of the server, has no code at all.
    return isinstance(error, OperationalError | InterfaceError)


def is_refused(error: BaseException) -> bool:
    """Whether the server was reached and says no: password, role or database."""
    if not isinstance(error, DBAPIError):
        return False
    said = str(error.orig)
    return getattr(error.orig, "sqlstate", None) in _REFUSED or any(
        words in said
        for words in ("password authentication failed", "does not exist", "no password supplied")
    )


@contextmanager
def translated() -> Iterator[None]:
    """Raise `StoreUnavailable` for database errors that a repetition may mend; others pass."""
    try:
        yield
    except Exception as error:
        if is_unavailable(error):
            raise StoreUnavailable(str(error)) from error
        raise


class _GuardedSession(Session):
    """A session that works directly in the savepoint around it, for as long as nobody ends its transaction.

    A statement for each savepoint, and one for its release, is most of what a short handler costs. So its
    own savepoints begin where they are needed: after a `commit` of the code, which must stay revocable.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, join_transaction_mode="rollback_only")
        self.on = connection
        self.savepoint = connection.begin_nested()
        self.committed = False
        self.over = False

    def ended(self) -> None:
        """Whoever uses it has ended its transaction, and may go on."""
        committed, self.committed = self.committed, False
        if committed:
            self.join_transaction_mode = "create_savepoint"
        elif self.join_transaction_mode == "rollback_only":
            if self.savepoint.is_active:  # it was closed, which gives up what was not committed
                self.savepoint.rollback()
            self.savepoint = self.on.begin_nested()


@event.listens_for(_GuardedSession, "after_commit")
def _note_commit(session: _GuardedSession) -> None:
    session.committed = session.committed or not session.in_nested_transaction()


@event.listens_for(_GuardedSession, "after_transaction_end")
def _note_end(session: _GuardedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None and not session.over and not session.on.invalidated:
        session.ended()


@contextmanager
def guarded_session(connection: Connection) -> Iterator[Session]:
    """A session for code that is not ours, inside the connection's transaction.

    Left without an error it is written out; left with one, everything written through it is rolled
    back and nothing else. Its work is in a savepoint, so that a `commit` of the code ends no more than a
    savepoint inside of it, and what was committed so is still rolled back with the rest.
    """
    session = _GuardedSession(connection)
    try:
        try:
            yield session
            session.commit()
        finally:
            session.over = True
            session.close()
    except BaseException:
        # A lost connection has rolled back everything, and a flush that failed all in our savepoint.
        if not connection.invalidated and session.savepoint.is_active:
            # The session's own, if it could not be released, still stands in the way of ours.
            while (inner := connection.get_nested_transaction()) not in (None, session.savepoint):
                inner.rollback()
            session.savepoint.rollback()
        raise
    _release(connection, session.savepoint)


def _release(connection: Connection, savepoint: NestedTransaction) -> None:
    """Release it. If that fails, it is rolled back to, which SQLAlchemy does not do by itself then."""
    name = savepoint._savepoint
    try:
        savepoint.commit()
    except DBAPIError:
        if not connection.invalidated:
            savepoint.rollback()  # says no more than that it is over
            connection.dialect.do_rollback_to_savepoint(connection, name)
        raise
