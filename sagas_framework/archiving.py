"""Retention at work: ended sagas go to the archive, or just go, a few at a time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sagas_framework.core.instance import Status
from sagas_framework.sagas import Sagas
from sagas_framework.storage.archive import ArchiveWriter
from sagas_framework.storage.dropping import Gone, written
from sagas_framework.storage.engine import reading, translated
from sagas_framework.storage.retiring import (
    ENDED,
    Ended,
    read_ended,
    retire_sagas,
    still_there,
)
from sagas_framework.storage.tables import saga_instance

logger = logging.getLogger(__name__)

_LOOK: Final = 2000
"""Ended instances that one statement looks at."""
_BATCH: Final = {"postgresql": 200, "sqlite": 50}
"""Sagas that one transaction takes. SQLite has one writer, and it must not wait long."""
_WHOLE_EVERY: Final = timedelta(hours=6)
"""How often those are looked at anew that had to be kept; whoever starts later comes behind them."""


@dataclass
class _Walk:
    """How far one has come among the ended instances of a status, in the order of their ids."""

    begun_at: datetime
    after: str = ""
    left: str | None = None  # before the first that will have to go later


class Archivist:
    """Takes the ended sagas of one service out of its database when their time is over.

    Any number may work side by side: each takes what no other holds. A turn is short, and its caller says
    how soon the next one comes.

    Raises:
        OSError: the archive cannot be written; what was to be archived stays.
        StoreUnavailable: the database is away.
    """

    def __init__(self, sagas: Sagas, *, batch: int | None = None) -> None:
        self._sagas = sagas
        self._batch = batch or _BATCH.get(sagas.engine.dialect.name, 200)
        self._walks: dict[Status, _Walk] = {}
        self._writer = (
            None
            if sagas.archive is None
            else ArchiveWriter(
                sagas.archive, f"{sagas.service}-sagas", still_there(sagas.engine, saga_instance)
            )
        )
        self._found: list[Ended] = []

    def turn(self) -> Gone:
        """Look for ended sagas whose time is over, or take a batch of those that were found."""
        now = self._sagas.clock()
        if not self._found and not self._look(now):
            if self._writer is not None:
                self._writer.settle(now)
            return Gone()
        taken, self._found = self._found[: self._batch], self._found[self._batch :]
        try:
            gone = self._take(taken, now)
        except BaseException:
            self._leave(taken[0])
            raise
        if gone.archived + gone.dropped < len(taken):
            self._leave(taken[0])  # somebody holds some of them
        return gone

    def _take(self, taken: Sequence[Ended], now: datetime) -> Gone:
        gone = Gone(more=True)
        archived = [one.id for one in taken if self._sagas.retention_of(one.saga).archive]
        dropped = [one.id for one in taken if not self._sagas.retention_of(one.saga).archive]
        if dropped:
            gone += Gone(dropped=retire_sagas(self._sagas.engine, dropped, None), more=True)
        if archived:
            gone += Gone(archived=self._put_away(archived, now), more=True)
        return gone

    def close(self) -> None:
        """Close the archive's segment."""
        if self._writer is not None:
            self._writer.close()

    def _put_away(self, saga_ids: Sequence[str], now: datetime) -> int:
        assert self._writer is not None
        return written(self._writer, now, lambda keep: retire_sagas(self._sagas.engine, saga_ids, keep))

    def _leave(self, first: Ended) -> None:
        """Come back to this one, and what follows it, with the next walk."""
        before = first.id[:-1]  # whatever comes before it
        for walk in self._walks.values():
            walk.left = before if walk.left is None else min(walk.left, before)

    def _look(self, now: datetime) -> bool:
        """Find more, by one statement for each status; False if there is nothing at present."""
        sagas = self._sagas
        spans = [kept.keep for kept in sagas.retentions.values() if kept.keep is not None]
        if not spans:
            return False
        far = False
        for status in ENDED:
            walk = self._walks.setdefault(status, _Walk(now))
            with translated(), reading(sagas.engine) as connection:
                seen = read_ended(connection, status, walk.after, now - min(spans), _LOOK)
            for one in seen:
                kept = sagas.retention_of(one.saga).keep
                if kept is not None and one.ended_at <= now - kept:
                    self._found.append(one)
                elif kept is not None and walk.left is None:
                    walk.left = walk.after
                walk.after = one.id
            if len(seen) == _LOOK:
                far = True
            else:
                self._walks[status] = _next(walk, now)
        return bool(self._found) or far


def _next(walk: _Walk, now: datetime) -> _Walk:
    """Where the next walk begins: at the first that was left, and from time to time at the very first."""
    if now - walk.begun_at >= _WHOLE_EVERY:
        return _Walk(now)
    return _Walk(walk.begun_at, walk.after if walk.left is None else walk.left)
