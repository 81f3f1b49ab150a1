"""What goes out of a database, into the archive or not; and whoever takes an inbox's old rows out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Engine

from sagas_framework.storage.archive import ArchiveWriter
from sagas_framework.storage.retiring import Keeping, retire_operations, still_there
from sagas_framework.storage.tables import saga_inbox


@dataclass(frozen=True, slots=True)
class Gone:
    """What a turn took out of the database. `more`: there may be more to take at once."""

    archived: int = 0
    dropped: int = 0
    more: bool = False

    def __add__(self, other: Gone) -> Gone:
        return Gone(self.archived + other.archived, self.dropped + other.dropped, other.more)


class InboxArchive:
    """Takes old rows out of the inbox of one participant, into its archive (rule 10).

    Args:
        engine: of the participant's database.
        service: its name.
    """

    def __init__(self, engine: Engine, service: str, folder: Path) -> None:
        self._engine = engine
        self._writer = ArchiveWriter(folder, f"{service}-inbox", still_there(engine, saga_inbox))

    def take(self, before: datetime, now: datetime, limit: int) -> Gone:
        """Take rows last changed before a moment, at most so many.

        Raises:
            OSError: the archive cannot be written; the rows stay.
            StoreUnavailable: the database is away.
        """
        archived = written(
            self._writer, now, lambda keep: retire_operations(self._engine, before, limit, keep)
        )
        return Gone(archived=archived, more=archived == limit)

    def close(self) -> None:
        """Close the archive's segment."""
        self._writer.close()


def written(writer: ArchiveWriter, now: datetime, retire: Callable[[Keeping], int]) -> int:
    """Have rows deleted that are written to the archive first; how many there were.

    Args:
        retire: deletes them, and gives them to its argument before it commits.
    """
    writer.prepare()
    try:
        gone = retire(lambda rows: writer.add(rows, now))
    except BaseException:
        writer.doubt()
        raise
    writer.settle(now)
    return gone
