"""The orchestrator's store on SQLAlchemy: PostgreSQL in production, SQLite embedded."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Row,
    ScalarSelect,
    Select,
    String,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal_column,
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
from sagas_framework.storage import signals
from sagas_framework.storage.engine import guarded_session, reading, translated
from sagas_framework.storage.known import KnownInstances, Mark
from sagas_framework.storage.ports import (
    ActRow,
    Ahead,
    Beat,
    Quarantined,
    SendAgain,
    SignalAnswer,
    SignalRow,
    Wanted,
)
from sagas_framework.storage.recordset import as_recordset, few, recordset
from sagas_framework.storage.tables import (
    saga_act,
    saga_history,
    saga_instance,
    saga_quarantine,
    saga_queue,
    saga_signal,
    saga_worker,
)
from sagas_framework.storage.together import Together

DUE_CHANNEL = "saga_due"
"""PostgreSQL channel on which a new row, an act or a replay wakes the timekeeper."""

YOUNG: Final = timedelta(seconds=10)
FORGOTTEN: Final = timedelta(days=7)
_OPEN: Final = [status.value for status in Status if not status.ended]

_MOMENT: Final = timedelta(seconds=5)
"""For so long no index tells what a saga waits for; less than until a message is first looked for."""

_SMALL: Final = 8_000
"""Characters of a row, on average, up to which it is remembered; in memory it takes several times as much."""

_CHANGING: Final = (
    *("status", "outcome", "outcome_kind", "state", "steps", "revision", "started"),
    *("updated_at", "ended_at", "due_at", "cause", "waits_for", "waits_since", "stuck_for"),
    *("deadline", "late"),
)


def _changed_to(given: Mapping[str, ColumnElement[Any]]) -> dict[str, ColumnElement[Any]]:
    """The columns of a changed row, from those that are given."""
    due_at, wake_at = given["due_at"], saga_instance.c.wake_at
    stays = and_(wake_at > given["updated_at"], wake_at <= due_at)  # still to come, and soon enough
    return {**given, "wake_at": case((stays, wake_at), else_=due_at)}


_UPDATE = (
    update(saga_instance)
    .where(saga_instance.c.id == bindparam("b_id"))
    .values(
        _changed_to({name: bindparam(f"b_{name}", type_=saga_instance.c[name].type) for name in _CHANGING})
    )
)
_MOVE = _UPDATE.values({name: bindparam(f"b_{name}") for name in ("version", "shape")})

# PostgreSQL is given the rows of a batch as one JSON text: one statement, whose text is always the same,
# and one parameter. An array for each column costs the driver several times as much as `json.dumps`.
_CHANGED = recordset(saga_instance, ("id", *_CHANGING), prefix="b_")
_UPDATE_SET = (
    update(saga_instance)
    .where(saga_instance.c.id == _CHANGED.c.b_id, few(_CHANGED.c.b_id))
    .values(_changed_to({name: _CHANGED.c[f"b_{name}"] for name in _CHANGING}))
)
_TAKEN: Final = ["key", "saga"]
_PLACE_SET = (
    postgresql.insert(saga_instance)
    .from_select(saga_instance.c.keys(), select(recordset(saga_instance, saga_instance.c.keys())))
    .on_conflict_do_nothing(index_elements=_TAKEN)
    # For each that is new; of equal notifications in a transaction PostgreSQL sends one.
    .returning(saga_instance.c.id, func.pg_notify(DUE_CHANNEL, ""))
)
_PLACE = (
    sqlite.insert(saga_instance).on_conflict_do_nothing(index_elements=_TAKEN).returning(saga_instance.c.id)
)
_LINE: Final = ("saga_id", "revision", "at", "entry", "step", "detail")
_APPEND = insert(saga_history)
_APPENDED = select(recordset(saga_history, _LINE, given="lines"))
_APPEND_SET = _APPEND.from_select(_LINE, _APPENDED)
_WAKE_LATER = update(saga_instance).values(wake_at=saga_instance.c.due_at)
# Both at once, and the number of the transaction: one way to the server and back.
_NUMBER: Final[ColumnElement[str]] = literal_column("pg_current_xact_id()::xid::text")
_WRITE: Final[Select[Any]] = select(_NUMBER).add_cte(_UPDATE_SET.cte("changed"), _APPEND_SET.cte("told"))
# The same for rows that bear the mark still; a row for each of them.
_SWAPPED = (
    _UPDATE_SET.where(
        literal_column("saga_instance.xmin::text") == bindparam("writer"),
        saga_instance.c.updated_at == bindparam("seen"),
    )
    .returning(saga_instance.c.id)
    .cte("changed")
)
_SWAP: Final[Select[Any]] = (
    select(_NUMBER)
    .select_from(_SWAPPED)
    .add_cte(_APPEND.from_select(_LINE, _APPENDED.where(select(_SWAPPED).exists())).cte("told"))
)

# A parameter for each id would make another statement of each number of ids, prepared and planned anew.
_THESE: Final = saga_instance.c.id == func.any(bindparam("ids", type_=postgresql.ARRAY(String)))
_LOCK: Final = (
    select(saga_instance.c.id, literal_column("xmin::text"), saga_instance.c.updated_at)
    .where(_THESE)
    .order_by(saga_instance.c.id)  # always the same order: two batches cannot wait for each other
    .with_for_update()
)
_READ: Final = select(saga_instance).where(_THESE)


class SqlTransaction:
    """One transaction; see `sagas_framework.storage.ports.StoreTransaction`."""

    def __init__(self, connection: Connection, known: KnownInstances | None = None) -> None:
        self._connection = connection
        self._known = KnownInstances() if known is None else known
        self._together = Together(connection)
        self._written: dict[str, SagaInstance] = {}
        self._outgrown: set[str] = set()
        self._number = ""

    def lock(self, saga_ids: Collection[str]) -> dict[str, SagaInstance]:
        if self._connection.dialect.name != "postgresql":
            query = select(saga_instance).where(saga_instance.c.id.in_(saga_ids))
            return {row.id: instance_of(row) for row in self._connection.execute(query)}
        locked = self._connection.execute(_LOCK, {"ids": list(saga_ids)}).all()
        found = {saga_id: self._known.get(saga_id, Mark(*mark)) for saga_id, *mark in locked}
        # Locked rows stay as they are: a statement of its own reads what the first would have read.
        if unknown := [saga_id for saga_id, instance in found.items() if instance is None]:
            for row in self._connection.execute(_READ, {"ids": unknown}):
                found[row.id] = instance_of(row)
        return {saga_id: instance for saga_id, instance in found.items() if instance is not None}

    def lock_due(self, now: datetime, sagas: Collection[tuple[str, int]], limit: int) -> list[SagaInstance]:
        query, given = _lock_due(tuple(sagas)), {"now": now, "most": limit}
        while True:
            found = [instance_of(row) for row in self._connection.execute(query, given)]
            due = [instance for instance in found if instance.due_at is not None and instance.due_at <= now]
            if len(due) == len(found):
                return sorted(due, key=lambda instance: instance.due_at or now)
            early = {instance.id for instance in found} - {instance.id for instance in due}
            self._connection.execute(_WAKE_LATER.where(saga_instance.c.id.in_(early)))

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
        self.finish()  # so that a row is as it is written here, whatever a local step wrote
        changes = [_changes(instance) for instance in instances]
        if self._connection.dialect.name != "postgresql":
            if changes:
                self._connection.execute(_UPDATE, changes)
            self._append(history)
        elif changes or history:
            given = {"rows": as_recordset(changes), "lines": as_recordset(_lines(history))}
            wrote = self._connection.execute(_WRITE, given)
            self._number = wrote.scalar_one()
            if len(given["rows"]) <= _SMALL * len(instances):
                self._written.update((instance.id, instance) for instance in instances)
            else:
                self._outgrown.update(instance.id for instance in instances)

    def move(self, instances: Sequence[SagaInstance], history: Sequence[tuple[str, int, Recorded]]) -> None:
        if instances:
            moves = [_changes(i) | {"b_version": i.version, "b_shape": i.shape} for i in instances]
            self._connection.execute(_MOVE, moves)
            nudge(self._connection)
        self._append(history)

    def _append(self, history: Sequence[tuple[str, int, Recorded]]) -> None:
        if not history:
            return
        if self._connection.dialect.name == "postgresql":
            self._connection.execute(_APPEND_SET, {"lines": as_recordset(_lines(history))})
        else:
            self._connection.execute(_APPEND, _lines(history))

    @contextmanager
    def savepoint(self) -> Iterator[Session]:
        with translated():
            # What is there before it must not be rolled back with it, and what it writes be seen after it.
            self._together.forget()
            with guarded_session(self._connection) as session:
                yield session

    @contextmanager
    def sharing(self) -> Iterator[Session]:
        with translated(), self._together.lent() as session:
            yield session

    def load(self, wanted: Iterable[Wanted]) -> None:
        with translated():
            self._together.load(wanted)

    def finish(self) -> None:
        """Write out what local steps left in the session that they share."""
        with translated():
            self._together.write()

    def committed(self) -> None:
        """Remember what was written."""
        self._known.keep(self._written.values(), self._number)
        self._known.forget(self._outgrown)  # after that: one of them may have been small before

    def close(self) -> None:
        """Let go of the session that local steps shared."""
        self._together.close()

    def lock_acts(self, limit: int) -> list[ActRow]:
        query = (
            select(saga_act)
            .where(saga_act.c.handled_at.is_(None))
            .order_by(saga_act.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        return [act_row(row) for row in self._connection.execute(query)]

    def answer_act(self, act_id: int, answer: str, *, refused: bool, at: datetime) -> None:
        self._connection.execute(
            update(saga_act)
            .where(saga_act.c.id == act_id)
            .values(answer=answer, refused=refused, handled_at=at)
        )

    def new_signals(
        self, now: datetime, sagas: Collection[tuple[str, int]], limit: int
    ) -> list[tuple[int, str | None]]:
        return signals.find_new(self._connection, now, sagas, limit)

    def open_signals(self, whose: Collection[tuple[str, str]]) -> list[SignalRow]:
        return signals.lock_open(self._connection, whose)

    def answer_signals(self, answers: Sequence[SignalAnswer], at: datetime) -> None:
        signals.note_answers(self._connection, answers, at)

    def quarantine(self, messages: Sequence[Quarantined]) -> None:
        if messages:
            self._connection.execute(insert(saga_quarantine), [_quarantine_values(m) for m in messages])


class SqlStore:
    """See `sagas_framework.storage.ports.Store`."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._known = KnownInstances()

    @contextmanager
    def transaction(self) -> Iterator[SqlTransaction]:
        with translated(), self.engine.begin() as connection:
            transaction = SqlTransaction(connection, self._known)
            try:
                yield transaction
                transaction.finish()
            finally:
                transaction.close()
        transaction.committed()

    def remembered(self, saga_id: str) -> SagaInstance | None:
        known = self._known.last(saga_id)
        return None if known is None else known[1]

    def swap(
        self, before: SagaInstance, after: SagaInstance, history: Sequence[tuple[str, int, Recorded]]
    ) -> bool:
        known = self._known.last(before.id)
        if known is None or known[1] is not before:
            return False  # forgotten, or written by another thread
        mark = known[0]
        rows = as_recordset([_changes(after)])
        given = {"rows": rows, "lines": as_recordset(_lines(history))}
        with translated(), self._glancing() as connection:
            number = connection.execute(
                _SWAP, {**given, "writer": mark.writer, "seen": mark.updated_at}
            ).scalar()
        if number is None or len(rows) > _SMALL:
            self._known.forget([before.id])
        else:
            self._known.keep([after], number)
        return number is not None

    def next_due(self, sagas: Collection[tuple[str, int]]) -> datetime | None:
        with translated(), self._glancing() as connection:
            return connection.execute(_look_for_due(tuple(sagas))).scalar()

    def ahead(self, sagas: Collection[tuple[str, int]]) -> Ahead:
        with translated(), self._glancing() as connection:
            return Ahead(*connection.execute(_look_ahead(tuple(sagas))).one())

    @contextmanager
    def _glancing(self) -> Iterator[Connection]:
        """For a single statement: on PostgreSQL it needs no transaction around it. On SQLite it reads."""
        if self.engine.dialect.name != "postgresql":
            with reading(self.engine) as connection:
                yield connection
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            yield connection

    def quarantine(self, message: Quarantined) -> None:
        with translated(), self.engine.begin() as connection:
            insert_quarantined(connection, message)

    def forget_signals(self, before: datetime, limit: int = 1000) -> int:
        with translated(), self.engine.begin() as connection:
            return signals.forget(connection, before, limit)

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

    The timekeepers are woken when this transaction commits, as by `nudge`.

    Args:
        rows: the columns of each, from `instance_values` and `digest`.
    """
    if connection.dialect.name == "postgresql":
        return set(connection.execute(_PLACE_SET, {"rows": as_recordset(rows)}).scalars())
    return set(connection.execute(_PLACE, rows).scalars())


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
    names = (
        "saga_id",
        "by",
        "reason",
        "revision",
        "step",
        "reply",
        "force",
        "until",
        "created_at",
        "refused",
    )
    rows = [{"act": act.act.value, **{name: getattr(act, name) for name in names}} for act in acts]
    placed = insert(saga_act).returning(saga_act.c.id, sort_by_parameter_order=True)
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


# A timekeeper's statements are the same at each of its turns; making one costs as much as executing it.
# A process has one set of sagas; tests have many.


@lru_cache(16)
def _lock_due(sagas: tuple[tuple[str, int], ...]) -> Select[Any]:
    return (
        select(saga_instance)
        .where(saga_instance.c.wake_at <= bindparam("now"), _of(sagas))
        .order_by(saga_instance.c.wake_at)
        .limit(bindparam("most", type_=Integer))
        .with_for_update(skip_locked=True)
    )


@lru_cache(16)
def _look_for_due(sagas: tuple[tuple[str, int], ...]) -> Select[Any]:
    return select(next_due(sagas))


@lru_cache(16)
def _look_ahead(sagas: tuple[tuple[str, int], ...]) -> Select[datetime, bool, bool, bool]:
    return select(
        next_due(sagas),
        exists().where(saga_act.c.handled_at.is_(None)),
        exists().where(saga_signal.c.look_at.is_not(None)),
        exists().where(saga_quarantine.c.replay.is_not(None)),
    )


def next_due(sagas: Collection[tuple[str, int]]) -> ScalarSelect[datetime]:
    """The first moment at which an instance of these sagas is to be looked at, as part of a query."""
    wake = saga_instance.c.wake_at
    return select(func.min(wake)).where(wake.is_not(None), _of(sagas)).scalar_subquery()


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
        deadline=row.deadline,
        late=row.late,
        trace=row.trace,
    )


def instance_values(instance: SagaInstance) -> dict[str, Any]:
    """A new instance as the columns of its row, but for `digest`."""
    fixed = ("id", "saga", "version", "shape", "key", "created_at", "trace")
    changing = {name.removeprefix("b_"): value for name, value in _changes(instance).items()}
    return {name: getattr(instance, name) for name in fixed} | changing | {"wake_at": instance.due_at}


def _changes(instance: SagaInstance) -> dict[str, Any]:
    outcome, waiting = instance.outcome, instance.waiting
    return {
        "b_id": instance.id,
        "b_status": instance.status.value,
        "b_outcome": outcome and outcome.to_json(),
        "b_outcome_kind": outcome and outcome.kind.value,
        "b_state": dict(instance.state),
        "b_steps": steps_to_json(instance.steps),
        "b_revision": instance.revision,
        "b_started": instance.started,
        "b_updated_at": instance.updated_at,
        "b_ended_at": instance.ended_at,
        "b_due_at": instance.due_at,
        "b_cause": waiting and waiting.cause.value,
        "b_waits_for": waiting and waiting.what,
        "b_waits_since": waiting and waiting.since,
        "b_stuck_for": waiting and _stuck_for(waiting, instance.updated_at),
        "b_deadline": instance.deadline,
        "b_late": instance.late,
    }


def _stuck_for(waiting: Waiting, now: datetime) -> str:
    """What it waits for, unless that will soon be over; if it is not, the row is written again then."""
    moving = waiting.cause in (Cause.START, Cause.ANSWER, Cause.TURN) and now - waiting.since < _MOMENT
    return "" if moving else waiting.what


def _lines(history: Sequence[tuple[str, int, Recorded]]) -> list[dict[str, Any]]:
    return [
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


def queue_seen(row: Row[Any]) -> QueueSeen:
    """A row of `saga_queue` as a value."""
    return QueueSeen(row.queue, row.seen_at, row.messages, row.consumers, row.unattended_since)


def act_row(row: Row[Any]) -> ActRow:
    """A row of `saga_act` as a value."""
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
        until=row.until,
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
