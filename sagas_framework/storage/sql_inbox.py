"""The participant's inbox on SQLAlchemy: row, effect and reply in one transaction of its database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    Row,
    String,
    any_,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.storage.engine import guarded_session, translated
from sagas_framework.storage.ports import Beat, Busy, LostRace, Quarantined, SendAgain
from sagas_framework.storage.recordset import as_recordset
from sagas_framework.storage.sql import insert_quarantined, replay_quarantined, write_beat
from sagas_framework.storage.tables import saga_inbox


class _Undone(Exception):
    """Thrown into a block to leave it the bad way."""


class SqlInboxTurn:
    """See `sagas_framework.storage.ports.InboxTurn`."""

    def __init__(self, connection: Connection, key: str, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._block: AbstractContextManager[Session] | None = None
        self._session: Session | None = None
        found = connection.execute(select(saga_inbox).where(saga_inbox.c.key == key)).one_or_none()
        self.row = None if found is None else _row(found)
        self._there = found is not None

    def session(self) -> Session:
        if self._session is None:
            self._block = guarded_session(self._connection)
            self._session = self._block.__enter__()
        return self._session

    def finish_work(self) -> None:
        block, self._block, self._session = self._block, None, None
        if block is not None:
            block.__exit__(None, None, None)

    def undo_work(self) -> None:
        block, self._block, self._session = self._block, None, None
        if block is not None:
            with suppress(_Undone):
                block.__exit__(_Undone, _Undone(), None)

    def save(self, row: InboxRow) -> None:
        values = _values(row, self._now)
        if self._there:
            changed = self._connection.execute(
                update(saga_inbox).where(saga_inbox.c.key == row.key).values(values)
            ).rowcount
            if changed == 0:
                raise LostRace(row.key)
        else:
            try:
                with self._connection.begin_nested():
                    self._connection.execute(insert(saga_inbox).values(key=row.key, **values))
            except IntegrityError:
                raise LostRace(row.key) from None
        self._there = True
        self.row = row


class _BatchedTurn(SqlInboxTurn):
    """A turn whose row is read and written together with others'."""

    def __init__(self, connection: Connection, row: InboxRow | None) -> None:
        self._connection = connection
        self._block = self._session = None
        self.row = row
        self.there = row is not None
        self.saved = False

    def save(self, row: InboxRow) -> None:
        self.row = row
        self.saved = True


class SqlInboxTurns:
    """See `sagas_framework.storage.ports.InboxTurns`."""

    def __init__(self, connection: Connection, turns: dict[str, _BatchedTurn], now: datetime) -> None:
        self._connection = connection
        self._turns = turns
        self._now = now

    def get(self, key: str) -> _BatchedTurn | None:
        return self._turns.get(key)

    def finish_work(self) -> None:
        for turn in self._turns.values():
            turn.finish_work()

    def undo_work(self) -> None:
        for turn in self._turns.values():
            turn.undo_work()

    def write(self) -> None:
        saved = [turn for turn in self._turns.values() if turn.saved]
        new = [turn.row for turn in saved if not turn.there and turn.row is not None]
        known = [turn.row for turn in saved if turn.there and turn.row is not None]
        if new and insert_rows(self._connection, new, self._now) != len(new):
            raise LostRace(f"one of {len(new)} new operations")
        if known and update_rows(self._connection, known, self._now) != len(known):
            raise LostRace(f"one of {len(known)} operations")
        for turn in saved:
            turn.there, turn.saved = True, False


class SqlInbox:
    """See `sagas_framework.storage.ports.BatchInbox`."""

    transactional = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[SqlInboxTurn]:
        with translated(), self._engine.begin() as connection:
            # On SQLite the transaction began as the only writer; PostgreSQL locks the key (rule 7).
            # A busy key is not waited for: a duplicate of a long handler must not occupy a child.
            if (
                connection.dialect.name == "postgresql"
                and not connection.execute(
                    select(func.pg_try_advisory_xact_lock(_lock_number(key)))
                ).scalar_one()
            ):
                raise Busy(key)
            turn = SqlInboxTurn(connection, key, now)
            try:
                yield turn
                turn.finish_work()
            except BaseException:
                turn.undo_work()
                raise

    @contextmanager
    def turns(self, keys: Sequence[str], now: datetime) -> Iterator[SqlInboxTurns]:
        with translated(), self._engine.begin() as connection:
            ours = _locked(connection, keys)
            rows = {row.key: row for row in _read_rows(connection, ours)}
            held = {key: _BatchedTurn(connection, rows.get(key)) for key in ours}
            turns = SqlInboxTurns(connection, held, now)
            try:
                yield turns
                turns.finish_work()
            except BaseException:
                turns.undo_work()
                raise
            turns.write()

    def forget(self, before: datetime, limit: int = 1000) -> int:
        old = select(saga_inbox.c.key).where(saga_inbox.c.updated_at < before).limit(limit)
        with translated(), self._engine.begin() as connection:
            return connection.execute(delete(saga_inbox).where(saga_inbox.c.key.in_(old))).rowcount

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
_SQLITE_UPDATE: Final = (
    update(saga_inbox)
    .where(saga_inbox.c.key == bindparam("b_key"))
    .values({name: bindparam(f"b_{name}") for name in _COLUMNS if name != "key"})
)
_READ: Final = {
    "postgresql": select(saga_inbox).where(saga_inbox.c.key == any_(bindparam("keys", type_=ARRAY(String)))),
    "sqlite": select(saga_inbox).where(saga_inbox.c.key.in_(bindparam("keys", expanding=True))),
}


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
    connection.execute(insert(saga_inbox), [{"key": row.key, **_values(row, now)} for row in rows])
    return len(rows)


def update_rows(connection: Connection, rows: Sequence[InboxRow], now: datetime) -> int:
    """Write over rows that are there; how many were."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_UPDATE, _given(rows, now)).rowcount
    values = [{"key": row.key, **_values(row, now)} for row in rows]
    changes = [{f"b_{name}": value for name, value in row.items()} for row in values]
    return connection.execute(_SQLITE_UPDATE, changes).rowcount


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
