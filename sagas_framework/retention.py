"""How long what has ended is kept in the database, and what becomes of it then; as data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from sagas_framework.errors import DefinitionError


@dataclass(frozen=True)
class Retention:
    """How long the ended instances of a saga stay in the database.

    Open and parked ones always stay. With a saga go its history and its operators' acts; its business key
    may then be used anew.

    Args:
        keep: so long after their end. None: for ever.
        archive: whether they are written to the archive before they go, or just go.

    Raises:
        DefinitionError: a negative time.
    """

    keep: timedelta | None
    archive: bool = True

    def __post_init__(self) -> None:
        if self.keep is not None and self.keep < timedelta(0):
            raise DefinitionError(
                f"{self!r}: nothing is kept for less than no time. Write keep=timedelta(...)."
            )


KEEP: Final = Retention(None)
"""What holds for sagas of which nothing else was said: they stay."""
