"""How a timekeeper sleeps: until its next moment, or until a commit somewhere wakes it."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import patience
from sagas_framework.storage.outbox import OUTBOX_CHANNEL
from sagas_framework.storage.sql import DUE_CHANNEL

_SQLITE_LOOK: Final = timedelta(milliseconds=250)
"""SQLite tells other processes nothing, so rows that they wrote are found by looking."""


class Alarm:
    """Sleeps, and is woken by PostgreSQL's NOTIFY or, within the process, by an event.

    Args:
        published: called when a commit elsewhere has published events; that wakes nobody who sleeps here.
    """

    def __init__(
        self, database: Database, woken: threading.Event, published: Callable[[], None] = lambda: None
    ) -> None:
        self._database = database
        self._woken = woken
        self._published = published
        self._listening: Any = None

    def sleep(self, at_most: timedelta) -> None:
        """Return when woken, or after the time."""
        if self._database.engine.dialect.name == "postgresql":
            self._listen(at_most.total_seconds())
        else:
            self._woken.wait(min(at_most, _SQLITE_LOOK).total_seconds())
        self._woken.clear()

    def ring(self) -> None:
        """Wake who sleeps."""
        self._woken.set()

    def close(self) -> None:
        """Give the connection back."""
        connection, self._listening = self._listening, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()

    def _listen(self, seconds: float) -> None:
        import psycopg  # only services on PostgreSQL have it

        try:
            if self._listening is None:
                # A connection of its own: notifications come to the session that listens.
                url = self._database.engine.url
                self._listening = psycopg.connect(self._conninfo(), autocommit=True, **patience(url))
                self._listening.execute(f"LISTEN {DUE_CHANNEL}; LISTEN {OUTBOX_CHANNEL}")
                return  # what came before it listened is found by looking at once
            until = time.monotonic() + seconds
            while not self._woken.is_set() and (left := until - time.monotonic()) > 0:
                for note in self._listening.notifies(timeout=min(left, 0.25), stop_after=1):
                    if note.channel == DUE_CHANNEL:
                        return
                    self._published()
        except psycopg.Error:
            self.close()
            self._woken.wait(seconds)  # by looking, until the server is back

    def _conninfo(self) -> str:
        url = self._database.engine.url.set(drivername="postgresql")
        return url.render_as_string(hide_password=False)
