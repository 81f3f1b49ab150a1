"""What the rows of an orchestrator's database say, as gauges: how many sagas are where, and since when."""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from typing import Final

from sagas_framework.sagas import Sagas
from sagas_framework.storage.engine import reading
from sagas_framework.storage.reads import (
    count_by_outcome,
    count_quarantined,
    oldest_due,
    read_queues,
)
from sagas_framework.telemetry import OLDEST, OPEN, OVERDUE, QUARANTINED, WAITING, Figures

logger = logging.getLogger(__name__)

KEPT_FOR: Final = 5.0
"""Seconds for which figures are not read anew, however many look at them."""


class RowGauges:
    """The figures of one orchestrator's rows; every worker of it says the same. Threads may share it."""

    def __init__(self, sagas: Sagas) -> None:
        self._sagas = sagas
        self._lock = threading.Lock()
        self._read_at: float | None = None
        self._figures: Figures = {}

    def __call__(self) -> Figures:
        """The figures; none while the database is away."""
        with self._lock:
            now = time.monotonic()
            if self._read_at is None or now - self._read_at >= KEPT_FOR:
                try:
                    self._figures = self._read()
                except Exception as error:
                    logger.warning("the gauges cannot be read: %s", str(error).partition("\n")[0])
                    self._figures = {}
                self._read_at = now
            return self._figures

    def _read(self) -> Figures:
        now = self._sagas.clock()
        # Whoever asks waits meanwhile, and so do the others.
        with reading(self._sagas.database.impatient.engine) as connection:
            counted = count_by_outcome(connection)
            due = oldest_due(connection, self._sagas.definitions.known())
            aside = count_quarantined(connection)
            queues = read_queues(connection)
        oldest: dict[tuple[str, str], datetime] = {}
        for one in counted:
            whose = (one.saga, one.status.value)
            oldest[whose] = min(oldest.get(whose, now), one.since)
        late = 0.0 if due is None else max((now - due).total_seconds(), 0.0)
        return {
            OPEN: [
                (one.sagas, {"saga": one.saga, "status": one.status.value, "outcome": one.outcome})
                for one in counted
            ],
            OLDEST: [
                (max((now - since).total_seconds(), 0.0), {"saga": saga, "status": status})
                for (saga, status), since in oldest.items()
            ],
            OVERDUE: [(late, {"service": self._sagas.service})],
            QUARANTINED: [(aside, {"service": self._sagas.service})],
            WAITING: [(seen.messages, {"queue": name}) for name, seen in queues.items()],
        }
