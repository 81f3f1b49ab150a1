"""Threads that turn for as long as the worker lives, and say so in the database."""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from sagas_framework.clock import utc_now
from sagas_framework.storage.ports import Beat, StoreUnavailable

logger = logging.getLogger(__name__)

BEAT_EVERY: Final = timedelta(seconds=2)
_TELL_EVERY: Final = timedelta(seconds=30)


def worker_name(role: str) -> str:
    """What tells one process on one host from another."""
    return f"{role}@{socket.gethostname()}-{os.getpid()}"


class Pulse:
    """Writes down the turns of one loop, at most every two seconds (`saga health` reads them)."""

    def __init__(self, role: str, worker: str, write: Callable[[Beat], None]) -> None:
        self._role = role
        self._worker = worker
        self._write = write
        self._started_at = utc_now()
        self._written_at: datetime | None = None

    def turned(self, detail: str = "") -> None:
        """The loop has come round. A database that is away is the loop's own trouble, not ours."""
        now = utc_now()
        if self._written_at is not None and now - self._written_at < BEAT_EVERY:
            return
        try:
            self._write(Beat(self._worker, self._role, self._started_at, now, detail))
        except StoreUnavailable:
            return
        self._written_at = now


class Loop:
    """A thread that calls `turn` until it is stopped. What `turn` raises is logged, and it turns again."""

    def __init__(
        self, name: str, turn: Callable[[], None], *, cleanup: Callable[[], None] | None = None
    ) -> None:
        self.name = name
        self._turn = turn
        self._cleanup = cleanup
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._told_at: datetime | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after this turn."""
        self._stop.set()

    def join(self, timeout: timedelta) -> bool:
        """Wait for its end; whether it came."""
        self._thread.join(timeout.total_seconds())
        return not self._thread.is_alive()

    @property
    def stopping(self) -> bool:
        """Whether it was asked to end."""
        return self._stop.is_set()

    def _run(self) -> None:
        pause = 0.1
        while not self._stop.is_set():
            try:
                self._turn()
                pause = 0.1
            except BaseException as error:
                self._tell(error)
                self._stop.wait(pause)
                pause = min(pause * 2, 5.0)
        if self._cleanup is not None:
            self._cleanup()

    def _tell(self, error: BaseException) -> None:
        """One line every 30 s for servers that are away; a traceback for everything else."""
        now = utc_now()
        if not isinstance(error, StoreUnavailable | OSError):
            logger.error("%s stumbled; it goes on", self.name, exc_info=error)
        elif self._told_at is None or now - self._told_at >= _TELL_EVERY:
            self._told_at = now
            logger.warning("%s waits: %s", self.name, str(error).partition("\n")[0])
