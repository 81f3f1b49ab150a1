"""The participant's inbox on SQLAlchemy: row, effect and reply in one transaction of its database."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, Row, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.storage.engine import guarded_session, translated
from sagas_framework.storage.ports import Beat, Busy, LostRace, Quarantined, SendAgain
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


class SqlInbox:
    """See `sagas_framework.storage.ports.Inbox`."""

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
