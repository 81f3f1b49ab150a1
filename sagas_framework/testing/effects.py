"""What the participants did, counted per operation: what every promise is about in the end."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.storage.memory import MemoryDatabase

_LEDGER: Final = "simulation.effects"
_NOTHING: Final[dict[str, list[int]]] = {}
_CLOSED: Final = frozenset({RowState.WITHDRAWN, RowState.UNDONE, RowState.HANDED_OVER})


class BrokenPromise(AssertionError):
    """A run in which something happened that must never happen. The message has schedule and trace."""


class Broken(BaseException):
    """Stops a run where a promise is broken. No code of the library catches it, as it catches `Exception`."""


class Provider:
    """A third party that handlers with ``outside=True`` call, idempotent by the key that it is given.

    Voiding a key that it does not know does nothing and is not remembered.
    """

    def __init__(self) -> None:
        self.there: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.keys: dict[str, set[str]] = defaultdict(set)

    def charge(self, key: str, purpose: str) -> None:
        """Have an effect. `purpose` says what for: an operation must always come with the same key."""
        self.calls[key] += 1
        self.keys[purpose].add(key)
        self.there.add(key)

    def void(self, key: str) -> None:
        """Take the effect back."""
        self.there.discard(key)


class Tally(NamedTuple):
    """Of one operation: how often a handler's work was committed, and its undo handler's; and whether,
    with what a third party keeps of it, the effect is `there` (once)."""

    done: int
    undone: int
    there: int


class Effects:
    """The effects of a run, wherever they are kept."""

    def __init__(self) -> None:
        self.provider = Provider()
        self.databases: list[MemoryDatabase] = []
        self.rows: dict[str, InboxRow] = {}
        """The last committed inbox row of each operation, whether or not it is still there."""
        self.claimed: Counter[str] = Counter()
        """The highest attempt of each operation that ever claimed its row."""
        self.executions: Counter[tuple[str, int]] = Counter()
        self.failures_answered: dict[str, set[int]] = defaultdict(set)
        self.at_work: set[str] = set()
        self.killed: set[str] = set()
        """Operations whose handler, working outside, was killed at its time limit."""

    def done(self, rows: dict[str, Any], key: str) -> None:
        """Note an effect; it is there when the rows are committed."""
        _entry(rows, key)[0] += 1

    def undone(self, rows: dict[str, Any], key: str) -> None:
        """Note that it was taken back."""
        _entry(rows, key)[1] += 1

    def tally(self, key: str) -> Tally:
        """What was committed for an operation."""
        done = undone = 0
        for database in self.databases:
            entry = database.rows.get(_LEDGER, _NOTHING).get(key)
            if entry is not None:
                done, undone = done + entry[0], undone + entry[1]
        return Tally(done, undone, done - undone + (key in self.provider.there))

    def count(self, key: str) -> int:
        """How often the operation's effect is there."""
        return self.tally(key).there

    def keys(self) -> Iterable[str]:
        """Every operation that ever had an effect."""
        for database in self.databases:
            yield from database.rows.get(_LEDGER, ())
        yield from self.provider.calls

    # ---- what is seen while it happens ------------------------------------------------------------

    def begin(self, name: str, key: str, attempt: int) -> None:
        """A handler starts."""
        self.executions[key, attempt] += 1
        over = [failed for failed in self.failures_answered[key] if failed >= attempt]
        # A later attempt's claim that nobody holds any more may be taken over by any message (rule 3).
        if over and self.claimed[key] <= max(over):
            raise Broken(
                f"{name} {attempt} is executed although the failure of attempt {over[0]} was answered"
            )

    @contextmanager
    def alone(self, name: str, key: str) -> Iterator[None]:
        """A handler that works outside is at work: never two of them for one operation (rule 8)."""
        if key in self.at_work:
            raise Broken(f"two handlers of {name} are at work at the same time")
        self.at_work.add(key)
        try:
            yield
        finally:
            self.at_work.discard(key)

    def charged(self, name: str, key: str) -> None:
        """A handler's effect outside its transaction is there."""
        if self._closed(key):
            raise Broken(f"{name} is done after its tombstone")

    def committed(self, name: str, row: InboxRow, done_before: int) -> None:
        """An inbox row was committed, and a handler's work with it."""
        if self._closed(row.key) and self.tally(row.key).done > done_before:
            raise Broken(f"{name} is done after its tombstone")
        self.rows[row.key] = row
        if row.state is RowState.CLAIMED:
            self.claimed[row.key] = max(self.claimed[row.key], row.attempt)

    def _closed(self, key: str) -> bool:
        return key in self.rows and self.rows[key].state in _CLOSED


def _entry(rows: dict[str, Any], key: str) -> list[int]:
    ledger: dict[str, list[int]] = rows.setdefault(_LEDGER, {})
    return ledger.setdefault(key, [0, 0])
