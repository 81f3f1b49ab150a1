"""The participant's inbox on SQLAlchemy: row, effect and reply in one transaction of its database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Connection,
    Engine,
    Row,
    String,
    Text,
    any_,
    bindparam,
    cast,
    func,
    insert,
    literal,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.storage.engine import guarded_session, translated
from sagas_framework.storage.ports import Beat, Busy, Entangled, LostRace, Quarantined, SendAgain, Wanted
from sagas_framework.storage.recordset import as_recordset
from sagas_framework.storage.retiring import retire_operations
from sagas_framework.storage.sql import insert_quarantined, replay_quarantined, write_beat
from sagas_framework.storage.tables import saga_inbox
from sagas_framework.storage.together import Together


class _Undone(Exception):
    """Thrown into a block to leave it the bad way."""


class _Turn:
    """Whose handler's session it is: one of its own, in a savepoint, or the one of all."""

    def __init__(self, connection: Connection, row: InboxRow | None, together: Together) -> None:
        self.row = row
        self.guarded = True
        self._connection = connection
        self._together = together
        self._there = row is not None
        self._block: AbstractContextManager[Session] | None = None
        self._session: Session | None = None

    def session(self) -> Session:
        if self._session is None:
            if self.guarded:
                self._together.forget()  # those who share one are to see what is written here
                self._block = guarded_session(self._connection)
                self._session = self._block.__enter__()
            else:
                self._session = self._together.enter()
        return self._session

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        block, session = self._block, self._session
        if block is None and session is not None:
            self._together.leave(then)
        elif then is not None:
            if session is not None:
                session.flush()
            then()
        self._block = self._session = None
        if block is not None:
            block.__exit__(None, None, None)

    def undo_work(self) -> None:
        block, session = self._block, self._session
        self._block = self._session = None
        if block is not None:
            with suppress(_Undone):
                block.__exit__(_Undone, _Undone(), None)
        elif session is not None:
            raise Entangled("what a handler did can be taken back with the others' work only")

    def abandon(self) -> None:
        """The transaction is rolled back."""
        if self._block is not None:
            self.undo_work()


class SqlInboxTurn(_Turn):
    """See `sagas_framework.storage.ports.InboxTurn`."""

    def __init__(
        self, connection: Connection, row: InboxRow | None, version: str | None, now: datetime
    ) -> None:
        super().__init__(connection, row, Together(connection))
        self._version = version
        self._now = now

    def finish_work(self, then: Callable[[], None] | None = None) -> None:
        super().finish_work(then)
        self._together.write()  # nobody else is waited for

    def save(self, row: InboxRow) -> None:
        if self._version is not None:
            written = _update_version(self._connection, row, self._version, self._now)
        elif self._there:
            written = update_rows(self._connection, [row], self._now)
        else:
            written = insert_rows(self._connection, [row], self._now)
        if written != 1:
            raise LostRace(row.key)
        self._there, self._version = True, None  # from now on it is locked
        self.row = row

    def close(self) -> None:
        self._together.close()


class _BatchedTurn(_Turn):
    """A turn whose row is read and written together with others'."""

    saved = False

    @property
    def there(self) -> bool:
        """Whether the row is in the database."""
        return self._there

    def save(self, row: InboxRow) -> None:
        self.row = row
        self.saved = True

    def written(self) -> None:
        """The row that was saved is in the database."""
        self._there, self.saved = True, False


class SqlInboxTurns:
    """See `sagas_framework.storage.ports.InboxTurns`."""

    def __init__(
        self,
        connection: Connection,
        keys: Sequence[str],
        rows: Mapping[str, InboxRow],
        now: datetime,
        version: str | None = None,
    ) -> None:
        self._connection = connection
        self._version = version  # of the only row, if it was read in the statement that locks its key
        self._together = Together(connection)
        self._turns = {key: _BatchedTurn(connection, rows.get(key), self._together) for key in keys}
        self._now = now

    def get(self, key: str) -> _BatchedTurn | None:
        return self._turns.get(key)

    def load(self, wanted: Iterable[Wanted]) -> None:
        self._together.load(wanted)

    def finish_work(self) -> None:
        for turn in self._turns.values():
            turn.finish_work()
        self._together.write()

    def abandon(self) -> None:
        """The transaction is rolled back."""
        for turn in self._turns.values():
            turn.abandon()

    def close(self) -> None:
        self._together.close()

    def write(self) -> None:
        self._together.write()
        saved = [turn for turn in self._turns.values() if turn.saved]
        new = [turn.row for turn in saved if not turn.there and turn.row is not None]
        known = [turn.row for turn in saved if turn.there and turn.row is not None]
        if new and insert_rows(self._connection, new, self._now) != len(new):
            raise LostRace(f"one of {len(new)} new operations")
        if known and self._update(known) != len(known):
            raise LostRace(f"one of {len(known)} operations")
        for turn in saved:
            turn.written()

    def _update(self, rows: Sequence[InboxRow]) -> int:
        version, self._version = self._version, None  # from now on the row is locked
        if version is None:
            return update_rows(self._connection, rows, self._now)
        [row] = rows
        return _update_version(self._connection, row, version, self._now)


class SqlInbox:
    """See `sagas_framework.storage.ports.BatchInbox`."""

    transactional = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[SqlInboxTurn]:
        with translated(), self._engine.begin() as connection:
            turn = SqlInboxTurn(connection, *_taken(connection, key), now)
            try:
                yield turn
                turn.finish_work()
            except BaseException:
                turn.abandon()
                raise
            finally:
                turn.close()

    @contextmanager
    def turns(self, keys: Sequence[str], now: datetime) -> Iterator[SqlInboxTurns]:
        with translated(), self._engine.begin() as connection:
            turns = _taken_together(connection, keys, now)
            try:
                yield turns
                turns.finish_work()
                turns.write()
            except BaseException:
                turns.abandon()
                raise
            finally:
                turns.close()

    def forget(self, before: datetime, limit: int = 1000) -> int:
        return retire_operations(self._engine, before, limit, None)

    def quarantine(self, message: Quarantined) -> None:
        with translated(), self._engine.begin() as connection:
            insert_quarantined(connection, message)

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        with translated():
            replay_quarantined(self._engine, send, limit)

    def beat(self, beat: Beat) -> None:
        with translated(), self._engine.begin() as connection:
            write_beat(connection, beat)


# ---- set-wise ---------------------------------------------------------------------------------------

_COLUMNS: Final = [column.name for column in saga_inbox.columns]
# One parameter whatever the number of rows, so that the statement stays the same, and is prepared.
_GIVEN: Final = "json_populate_recordset(CAST(NULL AS saga_inbox), CAST(:rows AS json)) AS new"
_LOCK: Final = text(
    "SELECT number FROM unnest(CAST(:numbers AS bigint[])) AS number WHERE pg_try_advisory_xact_lock(number)"
)
_INSERT: Final = text(
    f"INSERT INTO saga_inbox ({', '.join(_COLUMNS)}) SELECT {', '.join(_COLUMNS)} FROM {_GIVEN} "
    "ON CONFLICT DO NOTHING"
)
_UPDATE: Final = text(
    "UPDATE saga_inbox AS old SET "
    + ", ".join(f"{name} = new.{name}" for name in _COLUMNS if name != "key")
    + f" FROM {_GIVEN} WHERE old.key = new.key"
)
_UPDATE_VERSION: Final = text(f"{_UPDATE} AND CAST(old.xmin AS text) = :version")
_TAKE: Final = select(
    func.pg_try_advisory_xact_lock(bindparam("number", type_=BigInteger)).label("ours"),
    cast(literal_column("saga_inbox.xmin"), Text).label("version"),
    saga_inbox,
).select_from(select(literal(1)).subquery().outerjoin(saga_inbox, saga_inbox.c.key == bindparam("wanted")))
_SQLITE_UPDATE: Final = (
    update(saga_inbox)
    .where(saga_inbox.c.key == bindparam("b_key"))
    .values({name: bindparam(f"b_{name}") for name in _COLUMNS if name != "key"})
)
_READ: Final = {
    "postgresql": select(saga_inbox).where(saga_inbox.c.key == any_(bindparam("keys", type_=ARRAY(String)))),
    "sqlite": select(saga_inbox).where(saga_inbox.c.key.in_(bindparam("keys", expanding=True))),
}


def _taken(connection: Connection, key: str) -> tuple[InboxRow | None, str | None]:
    """The row of an operation that is ours until the end of the transaction, and its version.

    On SQLite the transaction began as the only writer; PostgreSQL locks the key (rule 7), in the statement
    that reads the row. What it read may be older than the lock: another may have committed in between. An
    answer from that row is what it was right to say then. Whatever is done on it is written only if the
    row is still this one, and otherwise a lost race, like a row that appears (rule 6).

    Raises:
        Busy: another has it. It is not waited for: a duplicate of a long handler must not occupy a child.
    """
    if connection.dialect.name != "postgresql":
        rows = _read_rows(connection, [key])
        return (rows[0], None) if rows else (None, None)
    found = connection.execute(_TAKE, {"wanted": key, "number": _lock_number(key)}).one()
    if not found.ours:
        raise Busy(key)
    return (None, None) if found.key is None else (_row(found), found.version)


def _taken_together(connection: Connection, keys: Sequence[str], now: datetime) -> SqlInboxTurns:
    """Those of the operations that nobody else has; one alone is taken in one statement."""
    if len(keys) != 1:
        ours = _locked(connection, keys)
        rows = {row.key: row for row in _read_rows(connection, ours)}
        return SqlInboxTurns(connection, ours, rows, now)
    try:
        row, version = _taken(connection, keys[0])
    except Busy:
        return SqlInboxTurns(connection, [], {}, now)
    return SqlInboxTurns(connection, keys, {} if row is None else {row.key: row}, now, version)


def _locked(connection: Connection, keys: Sequence[str]) -> list[str]:
    """Those of the keys that are ours until the end of the transaction (rule 7)."""
    if connection.dialect.name != "postgresql":
        return list(keys)  # the transaction began as the only writer
    # In one order: two batches that meet share them out, and neither waits.
    numbers = {_lock_number(key): key for key in keys}
    listed = "{" + ",".join(map(str, sorted(numbers))) + "}"
    got = set(connection.execute(_LOCK, {"numbers": listed}).scalars())
    return [key for key in keys if _lock_number(key) in got]


def _read_rows(connection: Connection, keys: Sequence[str]) -> list[InboxRow]:
    return [_row(found) for found in connection.execute(_READ[connection.dialect.name], {"keys": list(keys)})]


def insert_rows(connection: Connection, rows: Sequence[InboxRow], now: datetime) -> int:
    """Insert rows that are not there; how many were not."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_INSERT, _given(rows, now)).rowcount
    try:
        connection.execute(insert(saga_inbox), [{"key": row.key, **_values(row, now)} for row in rows])
    except IntegrityError:
        return 0
    return len(rows)


def update_rows(connection: Connection, rows: Sequence[InboxRow], now: datetime) -> int:
    """Write over rows that are there; how many were."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_UPDATE, _given(rows, now)).rowcount
    values = [{"key": row.key, **_values(row, now)} for row in rows]
    changes = [{f"b_{name}": value for name, value in row.items()} for row in values]
    return connection.execute(_SQLITE_UPDATE, changes).rowcount


def _update_version(connection: Connection, row: InboxRow, version: str, now: datetime) -> int:
    """Write over a row if it is still this version of it; 1 or 0."""
    return connection.execute(_UPDATE_VERSION, {**_given([row], now), "version": version}).rowcount


def _given(rows: Sequence[InboxRow], now: datetime) -> dict[str, str]:
    return {"rows": as_recordset([{"key": row.key, **_values(row, now)} for row in rows])}


def read_inbox(connection: Connection) -> list[tuple[InboxRow, datetime]]:
    """Every row, with the moment of its last change."""
    rows = connection.execute(select(saga_inbox).order_by(saga_inbox.c.key))
    return [(_row(row), row.updated_at) for row in rows]


def _lock_number(key: str) -> int:
    """A signed 64-bit number for the key, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"saga_inbox:{key}".encode(), digest_size=8).digest(), signed=True)


def _row(row: Row[Any]) -> InboxRow:
    return InboxRow(
        key=row.key,
        saga_id=row.saga_id,
        task=row.task,
        state=RowState(row.state),
        attempt=row.attempt,
        claim=row.claim,
        lease_until=row.lease_until,
        reply=Stored.from_json(row.reply),
        undo_attempt=row.undo_attempt,
        undo_reply=Stored.from_json(row.undo_reply),
    )


def _values(row: InboxRow, now: datetime) -> dict[str, Any]:
    return {
        "saga_id": row.saga_id,
        "task": row.task,
        "state": row.state.value,
        "attempt": row.attempt,
        "claim": row.claim,
        "lease_until": row.lease_until,
        "reply": row.reply and row.reply.to_json(),
        "undo_attempt": row.undo_attempt,
        "undo_reply": row.undo_reply and row.undo_reply.to_json(),
        "updated_at": now,
    }
