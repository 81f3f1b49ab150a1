"""A subscriber's inbox on SQLAlchemy: a row for each event and each subscriber; its queue and its memory.

What came is written down before it is acknowledged, and handled from the rows: so a failing subscriber
holds up no message, and waiting for the next attempt needs none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import Connection, Engine, Integer, Row, and_, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Session

from sagas_framework.storage.engine import guarded_session, reading, translated
from sagas_framework.storage.ports import Beat, Quarantined, SendAgain
from sagas_framework.storage.recordset import as_recordset, recordset
from sagas_framework.storage.sql import insert_quarantined, replay_quarantined, upserting, write_beat
from sagas_framework.storage.tables import saga_event


class EventState(StrEnum):
    """How an event stands with one subscriber."""

    WAITING = "waiting"  # for its first attempt or for the next one
    DONE = "done"
    PARKED = "parked"  # its attempts are used up: a person decides
    DROPPED = "dropped"  # a person has decided against it


_OVER: Final = (EventState.DONE.value, EventState.DROPPED.value)


@dataclass(frozen=True, slots=True)
class EventRow:
    """An event as one subscriber has it.

    Args:
        number: in the outbox that it came from.
        at: when it was published.
        body: its fields as JSON text; None once it is done.
        attempt: the last one begun, 0 before the first.
        due_at: when the next attempt is; None if none is.
        reason: why the last attempt failed.
        trace: the context in which it was published, if that is traced.
    """

    event_id: str
    subscriber: str
    topic: str
    number: int
    at: datetime
    body: str | None
    state: EventState
    attempt: int
    due_at: datetime | None
    received_at: datetime
    updated_at: datetime
    reason: str | None = None
    trace: Mapping[str, str] | None = None


_COLUMNS: Final = [column.name for column in saga_event.columns]
_DUE: Final = (
    select(saga_event)
    .where(saga_event.c.subscriber == bindparam("b_subscriber"), saga_event.c.due_at <= bindparam("b_now"))
    .order_by(saga_event.c.due_at, saga_event.c.number)
    .limit(bindparam("most", type_=Integer))
    .with_for_update(skip_locked=True)
)
_NEXT: Final = select(func.min(saga_event.c.due_at)).where(
    saga_event.c.subscriber == bindparam("b_subscriber"), saga_event.c.due_at.is_not(None)
)
# That nobody has claimed the event since, and that no person has decided about it.
_STILL: Final = and_(
    saga_event.c.event_id == bindparam("b_event_id"),
    saga_event.c.subscriber == bindparam("b_subscriber"),
    saga_event.c.state == EventState.WAITING.value,
    saga_event.c.attempt == bindparam("b_attempt"),
)
_MINE: Final = select(saga_event.c.event_id).where(_STILL).with_for_update(skip_locked=True)
_END: Final = (
    update(saga_event)
    .where(_STILL)
    .values(
        state=EventState.DONE.value, due_at=None, body=None, reason=None, updated_at=bindparam("b_updated_at")
    )
)
_RECEIVE_SET: Final = (
    postgresql.insert(saga_event)
    .from_select(_COLUMNS, select(recordset(saga_event, _COLUMNS)))
    .on_conflict_do_nothing()
)


class EventInbox:
    """What one service has received, and what became of each event. Any number of workers may share it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # ---- receiving --------------------------------------------------------------------------------

    def receive(self, rows: Sequence[EventRow], unreadable: Sequence[Quarantined] = ()) -> int:
        """Write down what came, due at once, and set aside what cannot be read: all of it or nothing.

        Returns:
            How many rows are new: what has come before changes nothing.
        """
        with translated(), self._engine.begin() as connection:
            for message in unreadable:
                insert_quarantined(connection, message)
            return _insert(connection, rows) if rows else 0

    # ---- handling ---------------------------------------------------------------------------------

    def claim(self, subscriber: str, now: datetime, lease: timedelta, limit: int) -> list[EventRow]:
        """Take events that are due for a subscriber, earliest first, and count an attempt for each.

        Whoever dies over one leaves it due again when the lease is over. One that was attempted before
        comes alone: if it kills the process, it takes no other's attempts along.
        """
        table = saga_event.c
        asked = {"b_subscriber": subscriber, "b_now": now, "most": limit}
        with translated():
            if self._engine.dialect.name != "postgresql":
                # Looked at first as a reader: on SQLite a writer would hold up everybody, to find nothing.
                with reading(self._engine) as connection:
                    if connection.execute(_DUE, asked | {"most": 1}).first() is None:
                        return []
            with self._engine.begin() as connection:
                found = [event_row(row) for row in connection.execute(_DUE, asked)]
                if not found:
                    return []
                fresh = [row for row in found if row.attempt == 0]
                mine = fresh if found[0].attempt == 0 else found[:1]
                connection.execute(
                    update(saga_event)
                    .where(table.subscriber == subscriber, table.event_id.in_([row.event_id for row in mine]))
                    .values(attempt=table.attempt + 1, due_at=now + lease, updated_at=now)
                )
        return [replace(row, attempt=row.attempt + 1) for row in mine]

    @contextmanager
    def turn(self, claimed: EventRow, now: datetime) -> Iterator[Session | None]:
        """A session for the handler; left without an error, its work and the row's end commit together.

        None if the event is not ours any more, or is being handled by another.

        Raises:
            StoreUnavailable: nothing was written.
        """
        with translated(), self._engine.begin() as connection:
            mine = _claim(claimed)
            if connection.execute(_MINE, mine).first() is None:
                yield None
                return
            with guarded_session(connection) as session:
                yield session
            connection.execute(_END, mine | {"b_updated_at": now})

    def fail(self, claimed: EventRow, reason: str, due_at: datetime | None, now: datetime) -> None:
        """Note that the attempt failed: the next one is at `due_at`; None: it is parked."""
        state = EventState.WAITING if due_at is not None else EventState.PARKED
        values = {"state": state.value, "due_at": due_at, "reason": reason, "updated_at": now}
        self._change(claimed, values)

    def give_back(self, claimed: EventRow, due_at: datetime, now: datetime) -> None:
        """Take the attempt back: it was none."""
        values = {"attempt": claimed.attempt - 1, "due_at": due_at, "updated_at": now}
        self._change(claimed, values)

    def next_due(self, subscriber: str) -> datetime | None:
        """When the subscriber's next attempt is due."""
        with translated(), reading(self._engine) as connection:
            moment: datetime | None = connection.execute(_NEXT, {"b_subscriber": subscriber}).scalar()
        return moment

    # ---- upkeep -----------------------------------------------------------------------------------

    def forget(self, before: datetime, limit: int = 1000) -> int:
        """Delete at most `limit` rows that were over before a moment; how many there were."""
        table = saga_event.c
        key = tuple_(table.event_id, table.subscriber)
        old = select(table.event_id, table.subscriber).where(
            table.state.in_(_OVER), table.updated_at < before
        )
        with translated(), self._engine.begin() as connection:
            return connection.execute(delete(saga_event).where(key.in_(old.limit(limit)))).rowcount

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        """Send messages again that somebody wants sent again; see `Store.replay`."""
        with translated():
            replay_quarantined(self._engine, send, limit)

    def beat(self, beat: Beat) -> None:
        """Note the turn of a loop."""
        with translated(), self._engine.begin() as connection:
            write_beat(connection, beat)

    def _change(self, claimed: EventRow, values: dict[str, Any]) -> None:
        with translated(), self._engine.begin() as connection:
            connection.execute(update(saga_event).where(_STILL).values(values), _claim(claimed))


# ---- for people -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many events of one subscriber wait and are parked; `since`: when the first that waits came."""

    subscriber: str
    waiting: int
    parked: int
    since: datetime | None


def count_events(connection: Connection) -> list[EventCounts]:
    """What is not over, by subscriber."""
    table = saga_event.c
    waiting, parked = (table.due_at.is_not(None), table.state == EventState.PARKED.value)
    waits = dict[str, tuple[int, datetime]]()
    query = select(table.subscriber, func.count(), func.min(table.received_at)).group_by(table.subscriber)
    for name, count, since in connection.execute(query.where(waiting)):
        waits[name] = (count, since)
    parks = {name: count for name, count, _ in connection.execute(query.where(parked))}
    counts = []
    for name in sorted({*waits, *parks}):
        waiting_here, since = waits.get(name, (0, None))
        counts.append(EventCounts(name, waiting_here, parks.get(name, 0), since))
    return counts


def count_overdue_events(connection: Connection, before: datetime) -> dict[str, int]:
    """How many events each subscriber should have been given before a moment."""
    table = saga_event.c
    query = select(table.subscriber, func.count()).where(table.due_at < before).group_by(table.subscriber)
    return {row[0]: row[1] for row in connection.execute(query)}


def read_events(
    connection: Connection,
    *,
    state: EventState | None = None,
    event_id: str | None = None,
    limit: int = 100,
) -> list[EventRow]:
    """Events with their subscribers, those that are not over unless asked for; the last received first."""
    table = saga_event.c
    query = (
        select(saga_event).order_by(table.received_at.desc(), table.event_id, table.subscriber).limit(limit)
    )
    if state is not None:
        query = query.where(table.state == state.value)
    elif event_id is None:
        query = query.where(table.state.not_in(_OVER))
    if event_id is not None:
        query = query.where(table.event_id.startswith(event_id, autoescape=True))
    return [event_row(row) for row in connection.execute(query)]


def retry_events(connection: Connection, rows: Sequence[EventRow], now: datetime) -> int:
    """Have parked or waiting events attempted at once, with all their attempts before them; how many are."""
    values = {"state": EventState.WAITING.value, "attempt": 0, "due_at": now, "updated_at": now}
    return _over_all(connection, rows, values)


def drop_events(connection: Connection, rows: Sequence[EventRow], reason: str, now: datetime) -> int:
    """Give events up for their subscribers; how many are. They are remembered, so no copy is handled."""
    dropped = {"state": EventState.DROPPED.value, "due_at": None, "body": None, "updated_at": now}
    return _over_all(connection, rows, {**dropped, "reason": reason})


def _over_all(connection: Connection, rows: Sequence[EventRow], values: dict[str, Any]) -> int:
    changed = 0
    for row in rows:
        same = and_(saga_event.c.event_id == row.event_id, saga_event.c.subscriber == row.subscriber)
        mine = same & saga_event.c.state.not_in(_OVER)
        changed += connection.execute(update(saga_event).where(mine).values(values)).rowcount
    return changed


# ---- rows -------------------------------------------------------------------------------------------


def _insert(connection: Connection, rows: Sequence[EventRow]) -> int:
    values = [{name: getattr(row, name) for name in _COLUMNS} for row in rows]
    if connection.dialect.name == "postgresql":
        # Always in the same order: two that receive the same events cannot wait for each other.
        values.sort(key=lambda value: (value["event_id"], value["subscriber"]))
        return connection.execute(_RECEIVE_SET, {"rows": as_recordset(values)}).rowcount
    placing = upserting(connection, saga_event).on_conflict_do_nothing()
    return sum(connection.execute(placing, value).rowcount for value in values)


def _claim(claimed: EventRow) -> dict[str, Any]:
    return {
        "b_event_id": claimed.event_id,
        "b_subscriber": claimed.subscriber,
        "b_attempt": claimed.attempt,
    }


def event_row(row: Row[Any]) -> EventRow:
    """A row of `saga_event` as a value."""
    return EventRow(
        event_id=row.event_id,
        subscriber=row.subscriber,
        topic=row.topic,
        number=row.number,
        at=row.at,
        body=row.body,
        state=EventState(row.state),
        attempt=row.attempt,
        due_at=row.due_at,
        received_at=row.received_at,
        updated_at=row.updated_at,
        reason=row.reason,
        trace=row.trace,
    )
