"""The orchestrator's store on SQLAlchemy: PostgreSQL in production, SQLite embedded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    and_,
    bindparam,
    delete,
    false,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.instance import (
    Outcome,
    SagaInstance,
    Status,
    steps_from_json,
    steps_to_json,
)
from sagas_framework.storage.engine import guarded_session, reading, translated
from sagas_framework.storage.ports import ActRow, Beat, Filter, HistoryLine, Quarantined
from sagas_framework.storage.tables import (
    saga_history,
    saga_instance,
    saga_quarantine,
    saga_signal,
    saga_worker,
)

DUE_CHANNEL = "saga_due"
"""PostgreSQL channel on which a new row, an act or a replay wakes the timekeeper."""

YOUNG: Final = timedelta(seconds=10)
FORGOTTEN: Final = timedelta(days=7)

_UPDATE = (
    update(saga_instance)
    .where(saga_instance.c.id == bindparam("b_id"))
    .values(
        {
            name: bindparam(f"b_{name}")
            for name in ("status", "outcome", "state", "steps", "revision", "started")
        }
    )
    .values({name: bindparam(f"b_{name}") for name in ("updated_at", "ended_at", "due_at")})
)


class SqlTransaction:
    """One transaction; see `sagas_framework.storage.ports.StoreTransaction`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def lock(self, saga_ids: Collection[str]) -> dict[str, SagaInstance]:
        query = (
            select(saga_instance)
            .where(saga_instance.c.id.in_(saga_ids))
            .order_by(saga_instance.c.id)  # always the same order: two batches cannot wait for each other
            .with_for_update()
        )
        return {row.id: _instance(row) for row in self._connection.execute(query)}

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        query = (
            select(saga_instance)
            .where(saga_instance.c.due_at <= now, _of(sagas))
            .order_by(saga_instance.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [_instance(row) for row in self._connection.execute(query)]

    def write(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        if instances:
            self._connection.execute(_UPDATE, [_changes(instance) for instance in instances])
        if history:
            self._connection.execute(
                insert(saga_history),
                [
                    {
                        "saga_id": saga_id,
                        "revision": revision,
                        "at": line.at,
                        "entry": line.entry,
                        "step": line.step,
                        "detail": dict(line.detail),
                    }
                    for saga_id, revision, line in history
                ],
            )

    @contextmanager
    def savepoint(self) -> Iterator[Session]:
        with translated(), guarded_session(self._connection) as session:
            yield session

    def lock_acts(self, limit: int) -> list[ActRow]:
        query = (
            select(saga_signal)
            .where(saga_signal.c.handled_at.is_(None))
            .order_by(saga_signal.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [act_row(row) for row in self._connection.execute(query)]

    def answer_act(self, act_id: int, answer: str, *, refused: bool, at: datetime) -> None:
        self._connection.execute(
            update(saga_signal)
            .where(saga_signal.c.id == act_id)
            .values(answer=answer, refused=refused, handled_at=at)
        )

    def quarantine(self, messages: Sequence[Quarantined]) -> None:
        if messages:
            self._connection.execute(insert(saga_quarantine), [_quarantine_values(m) for m in messages])


class SqlStore:
    """See `sagas_framework.storage.ports.Store`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        with translated(), self.engine.begin() as connection:
            yield SqlTransaction(connection)

    def next_due(self, sagas: Collection[tuple[str, int]]) -> datetime | None:
        query = select(func.min(saga_instance.c.due_at)).where(
            saga_instance.c.due_at.is_not(None), _of(sagas)
        )
        with translated(), reading(self.engine) as connection:
            return connection.execute(query).scalar()

    def quarantine(self, message: Quarantined) -> None:
        with translated(), self.engine.begin() as connection:
            insert_quarantined(connection, message)

    def take_replays(self, limit: int = 100) -> list[Quarantined]:
        with translated(), self.engine.begin() as connection:
            return take_replays(connection, limit)

    def beat(self, beat: Beat) -> None:
        with translated(), self.engine.begin() as connection:
            write_beat(connection, beat)


# ---- reading, for the front door and the CLI -------------------------------------------------------


def read_instance(connection: Connection, saga_id: str) -> SagaInstance | None:
    """The instance with this id."""
    row = connection.execute(select(saga_instance).where(saga_instance.c.id == saga_id)).one_or_none()
    return None if row is None else _instance(row)


def read_instances(connection: Connection, wanted: Filter) -> list[SagaInstance]:
    """Instances that fit the filter, parked ones first, then the newest first."""
    table = saga_instance.c
    query = select(saga_instance).limit(wanted.limit)
    if wanted.saga is not None:
        query = query.where(table.saga == wanted.saga)
    if wanted.status is not None:
        query = query.where(table.status == wanted.status.value)
    if wanted.key is not None:
        query = query.where(table.key == wanted.key)
    if wanted.older_than is not None:
        query = query.where(table.created_at < wanted.older_than)
    if wanted.open_only:
        query = query.where(table.status.not_in([s.value for s in Status if s.ended]))
    query = query.order_by((table.status != Status.PARKED.value), table.created_at.desc(), table.id)
    return [_instance(row) for row in connection.execute(query)]


def open_shapes(connection: Connection) -> dict[tuple[str, int, str], int]:
    """How many instances have not ended, by saga, version and shape."""
    table = saga_instance.c
    query = (
        select(table.saga, table.version, table.shape, func.count())
        .where(table.status.not_in([s.value for s in Status if s.ended]))
        .group_by(table.saga, table.version, table.shape)
    )
    return {(row[0], row[1], row[2]): row[3] for row in connection.execute(query)}


def read_history(connection: Connection, saga_id: str, *, after_revision: int = -1) -> list[HistoryLine]:
    """The history of one instance, oldest first."""
    query = (
        select(saga_history)
        .where(saga_history.c.saga_id == saga_id, saga_history.c.revision > after_revision)
        .order_by(saga_history.c.seq)
    )
    return [
        HistoryLine(row.saga_id, row.seq, row.revision, Recorded(row.at, row.entry, row.step, row.detail))
        for row in connection.execute(query)
    ]


def read_act(connection: Connection, act_id: int) -> ActRow | None:
    """An operator's act, with its answer once there is one."""
    row = connection.execute(select(saga_signal).where(saga_signal.c.id == act_id)).one_or_none()
    return None if row is None else act_row(row)


def find_instances(connection: Connection, named: str, limit: int = 10) -> list[SagaInstance]:
    """Instances that a person may mean: by id; else by business key; else by the beginning of the id."""
    table = saga_instance.c
    wanted = [table.id == named.lower(), table.key == named]
    if (between := _ids_from(named)) is not None:
        wanted.append(table.id.between(*between))
    for condition in wanted:
        query = select(saga_instance).where(condition).order_by(table.created_at.desc(), table.id)
        if found := [_instance(row) for row in connection.execute(query.limit(limit))]:
            return found
    return []


def _ids_from(prefix: str) -> tuple[str, str] | None:
    """The first and the last id that begin so, dashes or not: a range, which the primary key serves."""
    digits = prefix.replace("-", "").lower()
    if not 4 <= len(digits) <= 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    return str(UUID(digits.ljust(32, "0"))), str(UUID(digits.ljust(32, "f")))


def read_acts(connection: Connection, saga_id: str, limit: int = 20) -> list[ActRow]:
    """What operators asked of one instance, newest first."""
    query = select(saga_signal).where(saga_signal.c.saga_id == saga_id)
    return [act_row(row) for row in connection.execute(query.order_by(saga_signal.c.id.desc()).limit(limit))]


def count_open(connection: Connection) -> dict[Status, int]:
    """How many instances have not ended, by status."""
    table = saga_instance.c
    query = select(table.status, func.count()).group_by(table.status)
    return {
        Status(status): count
        for status, count in connection.execute(
            query.where(table.status.in_([s.value for s in Status if not s.ended]))
        )
    }


def count_overdue(connection: Connection, before: datetime) -> dict[tuple[str, int], int]:
    """How many instances were due before a moment, by saga and version."""
    table = saga_instance.c
    query = select(table.saga, table.version, func.count()).where(table.due_at < before)
    return {
        (saga, version): count
        for saga, version, count in connection.execute(query.group_by(table.saga, table.version))
    }


def count_quarantined(connection: Connection) -> int:
    """How many messages are set aside."""
    return connection.execute(select(func.count()).select_from(saga_quarantine)).scalar_one()


def read_beats(connection: Connection) -> list[Beat]:
    """The last turns of every loop that ever beat, by worker."""
    query = select(saga_worker).order_by(saga_worker.c.worker, saga_worker.c.role)
    return [
        Beat(row.worker, row.role, row.started_at, row.turned_at, row.detail)
        for row in connection.execute(query)
    ]


def read_quarantine(
    connection: Connection, limit: int = 100, message_id: int | None = None
) -> list[Quarantined]:
    """Messages set aside, newest first."""
    query = select(saga_quarantine).order_by(saga_quarantine.c.id.desc()).limit(limit)
    if message_id is not None:
        query = query.where(saga_quarantine.c.id == message_id)
    return [_quarantined(row) for row in connection.execute(query)]


def ask_replay(connection: Connection, message_id: int, by: str) -> bool:
    """Have a worker send the message again to its queue; whether there is such a message."""
    asked = update(saga_quarantine).where(saga_quarantine.c.id == message_id).values(replay=by)
    return connection.execute(asked).rowcount == 1


def drop_quarantined(connection: Connection, message_id: int) -> bool:
    """Delete the message for good; whether there was one."""
    return connection.execute(delete(saga_quarantine).where(saga_quarantine.c.id == message_id)).rowcount == 1


def take_replays(connection: Connection, limit: int) -> list[Quarantined]:
    """Messages that somebody wants sent again; they leave the quarantine with this transaction."""
    query = (
        select(saga_quarantine)
        .where(saga_quarantine.c.replay.is_not(None))
        .order_by(saga_quarantine.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    messages = [_quarantined(row) for row in connection.execute(query)]
    if messages:
        taken = [message.id for message in messages]
        connection.execute(delete(saga_quarantine).where(saga_quarantine.c.id.in_(taken)))
    return messages


def nudge(connection: Connection) -> None:
    """Wake the timekeepers when this transaction commits. SQLite has no way to; they look often."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_notify(DUE_CHANNEL, "")))


# ---- rows -----------------------------------------------------------------------------------------


def _of(sagas: Collection[tuple[str, int]]) -> Any:
    return or_(
        false(),  # whoever knows no saga is given none
        *(and_(saga_instance.c.saga == name, saga_instance.c.version == version) for name, version in sagas),
    )


def _instance(row: Row[Any]) -> SagaInstance:
    return SagaInstance(
        id=row.id,
        saga=row.saga,
        version=row.version,
        shape=row.shape,
        key=row.key,
        status=Status(row.status),
        state=row.state,
        created_at=row.created_at,
        updated_at=row.updated_at,
        steps=steps_from_json(row.steps),
        outcome=None if row.outcome is None else Outcome.from_json(row.outcome),
        revision=row.revision,
        started=row.started,
        ended_at=row.ended_at,
        due_at=row.due_at,
    )


def instance_values(instance: SagaInstance) -> dict[str, Any]:
    """A new instance as the columns of its row, but for `digest`."""
    fixed = ("id", "saga", "version", "shape", "key", "created_at")
    return {name: getattr(instance, name) for name in fixed} | {
        name.removeprefix("b_"): value for name, value in _changes(instance).items()
    }


def _changes(instance: SagaInstance) -> dict[str, Any]:
    return {
        "b_id": instance.id,
        "b_status": instance.status.value,
        "b_outcome": instance.outcome and instance.outcome.to_json(),
        "b_state": dict(instance.state),
        "b_steps": steps_to_json(instance.steps),
        "b_revision": instance.revision,
        "b_started": instance.started,
        "b_updated_at": instance.updated_at,
        "b_ended_at": instance.ended_at,
        "b_due_at": instance.due_at,
    }


def act_row(row: Row[Any]) -> ActRow:
    """A row of `saga_signal` as a value."""
    return ActRow(
        id=row.id,
        saga_id=row.saga_id,
        act=Act(row.act),
        by=row.by,
        reason=row.reason,
        created_at=row.created_at,
        revision=row.revision,
        step=row.step,
        reply=row.reply,
        force=row.force,
        handled_at=row.handled_at,
        refused=row.refused,
        answer=row.answer,
    )


def _quarantined(row: Row[Any]) -> Quarantined:
    return Quarantined(
        queue=row.queue,
        task=row.task,
        headers=row.headers,
        body=row.body,
        reason=row.reason,
        at=row.at,
        path=row.path,
        saga_id=row.saga_id,
        properties=row.properties,
        id=row.id,
        replay=row.replay,
    )


def _quarantine_values(message: Quarantined) -> dict[str, Any]:
    message = message.storable()
    return {
        "at": message.at,
        "queue": message.queue,
        "task": message.task,
        "saga_id": message.saga_id,
        "headers": dict(message.headers),
        "properties": dict(message.properties),
        "body": message.body,
        "reason": message.reason,
        "path": message.path,
    }


def write_beat(connection: Connection, beat: Beat) -> None:
    """Note the last turn of a loop over the one before."""
    values = {"started_at": beat.started_at, "turned_at": beat.turned_at, "detail": beat.detail}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    first = dialect.insert(saga_worker).values(worker=beat.worker, role=beat.role, **values)
    connection.execute(first.on_conflict_do_update(index_elements=["worker", "role"], set_=values))
    if beat.turned_at - beat.started_at < YOUNG:  # a new process: a good moment to forget old ones
        connection.execute(delete(saga_worker).where(saga_worker.c.turned_at < beat.turned_at - FORGOTTEN))


def insert_quarantined(connection: Connection, message: Quarantined) -> None:
    """Set a message aside."""
    connection.execute(insert(saga_quarantine).values(_quarantine_values(message)))
