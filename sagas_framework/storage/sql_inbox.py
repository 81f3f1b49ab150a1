"""The participant's inbox on SQLAlchemy: row, effect and reply in one transaction of its database."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ARRAY,
    Connection,
    Engine,
    RowMapping,
    String,
    any_,
    bindparam,
    insert,
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
from sagas_framework.storage.ways import Value, begin_with, commit_with


class _Undone(Exception):
    """Thrown into a block to leave it the bad way."""


class SqlInboxTurn:
    """See `sagas_framework.storage.ports.InboxTurn`. Its row is read and written together with others'.

    Args:
        alone: there are no others; its work is written as soon as it is finished.

    Attributes:
        there: whether the row is in the database.
        saved: whether it is to be written.
    """

    def __init__(
        self, connection: Connection, row: InboxRow | None, together: Together, *, alone: bool
    ) -> None:
        self.row = row
        self.guarded = True
        self.there = row is not None
        self.saved = False
        self._connection = connection
        self._together = together
        self._alone = alone
        self._block: AbstractContextManager[Session] | None = None
        self._session: Session | None = None

    def session(self) -> Session:
        """A handler's own, in a savepoint, if it is guarded; otherwise the one of all."""
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
        if self._alone:
            self._together.write()  # nobody else is waited for

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

    def save(self, row: InboxRow) -> None:
        self.row = row
        self.saved = True


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
        self._turns = {
            key: SqlInboxTurn(connection, rows.get(key), self._together, alone=len(keys) == 1) for key in keys
        }
        self._now = now

    def get(self, key: str) -> SqlInboxTurn | None:
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
        """Write the rows that were saved, after all work; one that is new and alone is committed with that.

        Raises:
            LostRace: another wrote one of them meanwhile.
        """
        self._together.write()
        saved = [turn for turn in self._turns.values() if turn.saved]
        new = [turn.row for turn in saved if not turn.there and turn.row is not None]
        known = [turn.row for turn in saved if turn.there and turn.row is not None]
        if len(new) == 1 and not known and self._connection.dialect.name == "postgresql":
            _insert_and_commit(self._connection, new[0], self._now)
        elif new and insert_rows(self._connection, new, self._now) != len(new):
            raise LostRace(f"one of {len(new)} new operations")
        if known and self._update(known) != len(known):
            raise LostRace(f"one of {len(known)} operations")

    def _update(self, rows: Sequence[InboxRow]) -> int:
        if self._version is None:
            return update_rows(self._connection, rows, self._now)
        [row] = rows
        return _update_version(self._connection, row, self._version, self._now)


class SqlInbox:
    """See `sagas_framework.storage.ports.BatchInbox`."""

    transactional = True

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def turn(self, key: str, now: datetime) -> Iterator[SqlInboxTurn]:
        with self.turns([key], now) as turns:
            turn = turns.get(key)
            if turn is None:
                raise Busy(key)
            yield turn

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
    + f" FROM {_GIVEN} WHERE old.key = new.key AND left(new.key, 0) = ''"  # see `recordset.few`
)
_UPDATE_VERSION: Final = text(f"{_UPDATE} AND CAST(old.xmin AS text) = :version")
_TAKE: Final = (
    "SELECT CAST(pg_try_advisory_xact_lock(CAST({number} AS bigint)) AS text), CAST(row.xmin AS text), "
    "CAST(row_to_json(row) AS text) "
    "FROM (SELECT 1) AS one LEFT JOIN saga_inbox AS row ON row.key = {key}"
)
_CASTS: Final = {
    "lease_until": "timestamptz",
    "updated_at": "timestamptz",
    "reply": "json",
    "undo_reply": "json",
}
_INSERT_ONE: Final = "INSERT INTO saga_inbox ({}) VALUES ({})".format(
    ", ".join(_COLUMNS),
    ", ".join(
        f"CAST({{{name}}} AS {_CASTS[name]})" if name in _CASTS else f"{{{name}}}" for name in _COLUMNS
    ),
)
_KEY: Final = "saga_inbox_pkey"
"""How PostgreSQL has named the primary key."""
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
    ours, version, row = begin_with(connection, _TAKE, number=_lock_number(key), key=key)
    if ours != "true":
        raise Busy(key)
    return (None, None) if row is None else (_row(json.loads(row)), version)


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
    found = connection.execute(_READ[connection.dialect.name], {"keys": list(keys)})
    return [_row(row) for row in found.mappings()]


def insert_rows(connection: Connection, rows: Sequence[InboxRow], now: datetime) -> int:
    """Insert rows that are not there; how many were not."""
    if connection.dialect.name == "postgresql":
        return connection.execute(_INSERT, _given(rows, now)).rowcount
    try:
        connection.execute(insert(saga_inbox), [{"key": row.key, **_values(row, now)} for row in rows])
    except IntegrityError:
        return 0
    return len(rows)


def _insert_and_commit(connection: Connection, row: InboxRow, now: datetime) -> None:
    """Insert a row that is not there, and end the transaction.

    Raises:
        LostRace: it is there.
    """
    values = {"key": row.key, **_values(row, now)}
    try:
        commit_with(connection, _INSERT_ONE, **{name: _text(value) for name, value in values.items()})
    except IntegrityError as error:
        if getattr(getattr(error.orig, "diag", None), "constraint_name", None) != _KEY:
            raise  # another constraint, such as one of the service's own that is looked at when all is there
        raise LostRace(row.key) from error


def _text(value: Any) -> Value:
    """As a statement can have it; what JSON has a form for as that, but for texts and numbers."""
    match value:
        case None | str() | int():
            return value
        case datetime():
            return value.isoformat()
        case _:
            return json.dumps(value)


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
    return [(_row(row), row["updated_at"]) for row in rows.mappings()]


def _lock_number(key: str) -> int:
    """A signed 64-bit number for the key, the same in every process."""
    return int.from_bytes(hashlib.blake2b(f"saga_inbox:{key}".encode(), digest_size=8).digest(), signed=True)


def _row(columns: Mapping[str, Any] | RowMapping) -> InboxRow:
    """From the columns; in JSON, moments are texts."""
    until = columns["lease_until"]
    return InboxRow(
        key=columns["key"],
        saga_id=columns["saga_id"],
        task=columns["task"],
        state=RowState(columns["state"]),
        attempt=columns["attempt"],
        claim=columns["claim"],
        lease_until=datetime.fromisoformat(until) if isinstance(until, str) else until,
        reply=Stored.from_json(columns["reply"]),
        undo_attempt=columns["undo_attempt"],
        undo_reply=Stored.from_json(columns["undo_reply"]),
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
