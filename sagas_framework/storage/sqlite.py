"""SQLite as the database of many threads: they take turns at writing, and are told of commits.

SQLite has one writer. Whoever finds it busy sleeps and looks again, up to 100 ms late, and nobody is
served in turn. So the threads of a process queue for a lock of the file's before they ask SQLite,
which is then only asked for other processes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from sqlalchemy import URL, Connection

WAITS: Final = 15.0
"""Seconds that a writer waits for another, if the address does not say."""

_turns: dict[str, threading.Lock] = {}


class SharedConnection(sqlite3.Connection):
    """A connection to a file that other threads write to as well."""

    _writes = False

    def __init__(self, database: str, timeout: float = WAITS, **options: Any) -> None:
        super().__init__(database, timeout=timeout, **options)
        self._waits = timeout
        self._turn = _turns.setdefault(os.path.realpath(database), threading.Lock())
        self._after_commit: list[Callable[[], None]] = []

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Around the statement that begins a transaction as a writer. The turn ends with the transaction."""
        self._writes = self._turn.acquire(timeout=self._waits)
        try:
            if self._writes:
                yield
            else:  # long enough: SQLite says itself that it is locked, or that it just is not any more
                with self._waiting_no_more():
                    yield
        except BaseException:
            self._end()
            raise

    def after_commit(self, act: Callable[[], None]) -> None:
        """Have this called once the transaction is committed; never if it is rolled back."""
        if act not in self._after_commit:
            self._after_commit.append(act)

    def commit(self) -> None:
        super().commit()
        acts, self._after_commit = self._after_commit, []
        self._end()
        for act in acts:
            act()

    def rollback(self) -> None:
        self._after_commit = []
        try:
            super().rollback()
        finally:
            self._end()

    def close(self) -> None:
        try:
            super().close()
        finally:
            self._end()

    def __del__(self) -> None:
        self._end()

    def _end(self) -> None:
        if self._writes:
            self._writes = False
            self._turn.release()

    @contextlib.contextmanager
    def _waiting_no_more(self) -> Iterator[None]:
        self.execute("PRAGMA busy_timeout = 0")
        try:
            yield
        finally:
            self.execute(f"PRAGMA busy_timeout = {round(self._waits * 1000)}")


def is_file(address: URL) -> bool:
    """Whether it is a file, rather than a database in memory."""
    return bool(address.database) and address.database != ":memory:" and address.query.get("mode") != "memory"


def tell_after_commit(connection: Connection, act: Callable[[], None]) -> bool:
    """Have this called once the connection's transaction is committed; whether it can be."""
    raw: object = connection.connection.dbapi_connection
    if not isinstance(raw, SharedConnection):
        return False
    raw.after_commit(act)
    return True


if hasattr(os, "register_at_fork"):
    # Who held a turn when the process was copied is not there to give it back.
    os.register_at_fork(after_in_child=_turns.clear)
