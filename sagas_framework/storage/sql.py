"""The orchestrator's store on SQLAlchemy: PostgreSQL in production, SQLite embedded."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Engine,
    Row,
    Table,
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
    Cause,
    Outcome,
    SagaInstance,
    Status,
    Waiting,
    steps_from_json,
    steps_to_json,
)
from sagas_framework.core.why import QueueSeen
from sagas_framework.storage.engine import guarded_session, reading, translated
from sagas_framework.storage.ports import (
    ActRow,
    Beat,
    Quarantined,
    SendAgain,
)
from sagas_framework.storage.recordset import as_recordset, recordset
from sagas_framework.storage.tables import (
    saga_history,
    saga_instance,
    saga_quarantine,
    saga_queue,
    saga_signal,
    saga_worker,
)

DUE_CHANNEL = "saga_due"
"""PostgreSQL channel on which a new row, an act or a replay wakes the timekeeper."""

YOUNG: Final = timedelta(seconds=10)
FORGOTTEN: Final = timedelta(days=7)
_OPEN: Final = [status.value for status in Status if not status.ended]

_CHANGING: Final = (
    *("status", "outcome", "outcome_kind", "state", "steps", "revision", "started"),
    *("updated_at", "ended_at", "due_at", "cause", "waits_for", "waits_since"),
)
_UPDATE = (
    update(saga_instance)
    .where(saga_instance.c.id == bindparam("b_id"))
    .values({name: bindparam(f"b_{name}") for name in _CHANGING})
)
_MOVE = _UPDATE.values({name: bindparam(f"b_{name}") for name in ("version", "shape")})

# PostgreSQL is given the rows of a batch as one JSON text: one statement, whose text is always the same,
# and one parameter. An array for each column costs the driver several times as much as `json.dumps`.
_CHANGED = recordset(saga_instance, ("id", *_CHANGING), prefix="b_")
_UPDATE_SET = (
    update(saga_instance)
    .where(saga_instance.c.id == _CHANGED.c.b_id)
    .values({name: _CHANGED.c[f"b_{name}"] for name in _CHANGING})
)
_PLACE_SET = (
    postgresql.insert(saga_instance)
    .from_select(saga_instance.c.keys(), select(recordset(saga_instance, saga_instance.c.keys())))
    .on_conflict_do_nothing(index_elements=["key", "saga"])
    .returning(saga_instance.c.id)
)
_LINE: Final = ("saga_id", "revision", "at", "entry", "step", "detail")
_APPEND = insert(saga_history)
_APPEND_SET = _APPEND.from_select(_LINE, select(recordset(saga_history, _LINE)))


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
        return {row.id: instance_of(row) for row in self._connection.execute(query)}

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        query = (
            select(saga_instance)
            .where(saga_instance.c.due_at <= now, _of(sagas))
            .order_by(saga_instance.c.due_at)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [instance_of(row) for row in self._connection.execute(query)]

    def lock_open(self, saga: str, versions: Collection[int]) -> list[SagaInstance]:
        table = saga_instance.c
        query = (
            select(saga_instance)
            .where(table.saga == saga, table.version.in_(versions), table.status.in_(_OPEN))
            .order_by(table.id)  # as `lock` does
            .with_for_update()
        )
        return [instance_of(row) for row in self._connection.execute(query)]

    def write(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        if len(instances) > 1 and self._connection.dialect.name == "postgresql":
            changes = [_changes(instance) for instance in instances]
            self._connection.execute(_UPDATE_SET, {"rows": as_recordset(changes)})
        elif instances:
            self._connection.execute(_UPDATE, [_changes(instance) for instance in instances])
        self._append(history)

    def move(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        if instances:
            moves = [_changes(i) | {"b_version": i.version, "b_shape": i.shape} for i in instances]
            self._connection.execute(_MOVE, moves)
            nudge(self._connection)
        self._append(history)

    def _append(self, history: Sequence[tuple[str, int, Recorded]]) -> None:
        if not history:
            return
        rows = [
            {
                "saga_id": saga_id,
                "revision": revision,
                "at": line.at,
                "entry": line.entry,
                "step": line.step,
                "detail": dict(line.detail),
            }
            for saga_id, revision, line in history
        ]
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(_APPEND_SET, {"rows": as_recordset(rows)})
        else:
            self._connection.execute(_APPEND, rows)

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

    def replay(self, send: SendAgain, limit: int = 100) -> None:
        with translated():
            replay_quarantined(self.engine, send, limit)

    def beat(self, beat: Beat) -> None:
        with translated(), self.engine.begin() as connection:
            write_beat(connection, beat)

    def note_queues(self, seen: Sequence[QueueSeen]) -> None:
        with translated(), self.engine.begin() as connection:
            write_queues(connection, seen)


# ---- writing, for the front door and the CLI -------------------------------------------------------


def upserting(connection: Connection, table: Table) -> Any:
    """An insert that can say what is done about a row that is there already."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def insert_instances(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Insert new instances, except those whose saga has the key already; the ids of those that were.

    Args:
        rows: the columns of each, from `instance_values` and `digest`.
    """
    if len(rows) > 1 and connection.dialect.name == "postgresql":
        return set(connection.execute(_PLACE_SET, {"rows": as_recordset(rows)}).scalars())
    placing = upserting(connection, saga_instance).on_conflict_do_nothing(index_elements=["key", "saga"])
    return set(connection.execute(placing.returning(saga_instance.c.id), rows).scalars())


def write_queues(connection: Connection, seen: Sequence[QueueSeen]) -> None:
    """Note what the queues were found like, and since when nobody takes from them."""
    if not seen:
        return
    known = {row.queue: queue_seen(row) for row in connection.execute(select(saga_queue))}
    found = [queue.after(known.get(queue.queue)) for queue in seen]
    names = ("queue", "seen_at", "messages", "consumers", "unattended_since")
    # Always in the same order: two writers cannot wait for each other.
    rows = [{name: getattr(one, name) for name in names} for one in sorted(found, key=lambda one: one.queue)]
    upsert = upserting(connection, saga_queue).values(rows)
    connection.execute(
        upsert.on_conflict_do_update(
            index_elements=["queue"],
            set_={name: upsert.excluded[name] for name in names[1:]},
            where=saga_queue.c.seen_at <= upsert.excluded.seen_at,  # another worker may have looked later
        )
    )


def insert_acts(connection: Connection, acts: Sequence[ActRow]) -> Sequence[int]:
    """Store what operators ask for; the numbers, in the order of the acts."""
    names = ("saga_id", "by", "reason", "revision", "step", "reply", "force", "created_at", "refused")
    rows = [{"act": act.act.value, **{name: getattr(act, name) for name in names}} for act in acts]
    placed = insert(saga_signal).returning(saga_signal.c.id, sort_by_parameter_order=True)
    return connection.execute(placed, rows).scalars().all() if rows else []


def ask_replay(connection: Connection, message_id: int, by: str) -> bool:
    """Have a worker send the message again to its queue; whether there is such a message."""
    asked = update(saga_quarantine).where(saga_quarantine.c.id == message_id).values(replay=by)
    return connection.execute(asked).rowcount == 1


def drop_quarantined(connection: Connection, message_id: int) -> bool:
    """Delete the message for good; whether there was one."""
    return connection.execute(delete(saga_quarantine).where(saga_quarantine.c.id == message_id)).rowcount == 1


def replay_quarantined(engine: Engine, send: SendAgain, limit: int) -> None:
    """Send messages again that somebody wants sent again; those that were sent are deleted afterwards."""
    wanted = (
        select(saga_quarantine)
        .where(saga_quarantine.c.replay.is_not(None))
        .order_by(saga_quarantine.c.id)
        .limit(limit)
    )
    if engine.dialect.name == "postgresql":
        # Locked meanwhile: ten workers that look at once would otherwise send it ten times.
        with engine.begin() as connection:
            rows = connection.execute(wanted.with_for_update(skip_locked=True))
            if messages := [quarantined_of(row) for row in rows]:
                _end_replays(connection, messages, send(messages))
        return
    # SQLite has one lock, and whoever held it while a broker hesitates would hold up everybody.
    with reading(engine) as connection:
        messages = [quarantined_of(row) for row in connection.execute(wanted)]
    if messages:
        troubles = send(messages)
        with engine.begin() as connection:
            _end_replays(connection, messages, troubles)


def _end_replays(
    connection: Connection, messages: Sequence[Quarantined], troubles: Sequence[str | None]
) -> None:
    sent = []
    for message, trouble in zip(messages, troubles, strict=True):
        if trouble is None:
            sent.append(message.id)
            continue
        connection.execute(
            update(saga_quarantine)
            # Not if somebody has asked anew meanwhile.
            .where(saga_quarantine.c.id == message.id, saga_quarantine.c.replay == message.replay)
            .values(reason=message.not_sent(trouble).reason, replay=None)
        )
    if sent:
        connection.execute(delete(saga_quarantine).where(saga_quarantine.c.id.in_(sent)))


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


def instance_of(row: Row[Any]) -> SagaInstance:
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
        waiting=None if row.cause is None else Waiting(Cause(row.cause), row.waits_for, row.waits_since),
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
        "b_outcome_kind": instance.outcome and instance.outcome.kind.value,
        "b_state": dict(instance.state),
        "b_steps": steps_to_json(instance.steps),
        "b_revision": instance.revision,
        "b_started": instance.started,
        "b_updated_at": instance.updated_at,
        "b_ended_at": instance.ended_at,
        "b_due_at": instance.due_at,
        "b_cause": instance.waiting and instance.waiting.cause.value,
        "b_waits_for": instance.waiting and instance.waiting.what,
        "b_waits_since": instance.waiting and instance.waiting.since,
    }


def queue_seen(row: Row[Any]) -> QueueSeen:
    """A row of `saga_queue` as a value."""
    return QueueSeen(row.queue, row.seen_at, row.messages, row.consumers, row.unattended_since)


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


def quarantined_of(row: Row[Any]) -> Quarantined:
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
    first = upserting(connection, saga_worker).values(worker=beat.worker, role=beat.role, **values)
    connection.execute(first.on_conflict_do_update(index_elements=["worker", "role"], set_=values))
    if beat.turned_at - beat.started_at < YOUNG:  # a new process: a good moment to forget old ones
        connection.execute(delete(saga_worker).where(saga_worker.c.turned_at < beat.turned_at - FORGOTTEN))


def insert_quarantined(connection: Connection, message: Quarantined) -> None:
    """Set a message aside."""
    connection.execute(insert(saga_quarantine).values(_quarantine_values(message)))
