"""What people and their programs read: lists, counts, histories. The hot path is in `storage.sql`."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal_column,
    or_,
    select,
    text,
    union_all,
)

from sagas_framework.core.events import Recorded
from sagas_framework.core.instance import Cause, OutcomeKind, SagaInstance, Status
from sagas_framework.core.why import QueueSeen
from sagas_framework.errors import SagasError
from sagas_framework.storage.ports import (
    ActRow,
    Beat,
    Filter,
    HistoryLine,
    Page,
    Quarantined,
    Stuck,
    is_storable,
)
from sagas_framework.storage.sql import act_row, instance_of, next_due, quarantined_of, queue_seen
from sagas_framework.storage.tables import (
    IS_OPEN,
    saga_act,
    saga_history,
    saga_instance,
    saga_quarantine,
    saga_queue,
    saga_signal,
    saga_worker,
)

_OPEN: Final = [status.value for status in Status if not status.ended]
_DECLARED: Final = [Cause.SIGNAL.value, Cause.TIME.value]
_LATE: Final = 5_000
"""Lines of the history by which a transaction may be committed after another one that began later."""


def read_instance(connection: Connection, saga_id: str) -> SagaInstance | None:
    """The instance with this id."""
    row = connection.execute(select(saga_instance).where(saga_instance.c.id == saga_id)).one_or_none()
    return None if row is None else instance_of(row)


def read_instances(connection: Connection, saga_ids: Collection[str]) -> list[SagaInstance]:
    """The instances with these ids, in the order of ids; unknown ones are left out."""
    table = saga_instance
    query = select(table).where(table.c.id.in_(saga_ids)).order_by(table.c.id)
    return [instance_of(row) for row in connection.execute(query)]


def read_page(connection: Connection, wanted: Filter) -> Page:
    """Instances that fit the filter, a page of them; see `Filter` for their order.

    Raises:
        SagasError: `wanted.after` is not the end of a page, or `wanted.limit` is less than 1.
    """
    if wanted.limit < 1:
        raise SagasError(f"A page of {wanted.limit} sagas is none. Ask for at least 1.")
    found = _first(connection, wanted, *_place(wanted.after))
    shown = found[: wanted.limit]
    query = select(saga_instance).where(saga_instance.c.id.in_([id_ for _, id_ in shown]))
    rows = {row.id: row for row in connection.execute(query)} if shown else {}
    following = "{}.{}".format(*shown[-1]) if len(found) > len(shown) else None
    return Page([instance_of(rows[id_]) for _, id_ in shown if id_ in rows], following)


def _phases(wanted: Filter) -> tuple[Collection[Status], Collection[Status]]:
    """The statuses that are listed before the others, and these: what needs a person comes first."""
    fitting = _statuses(wanted)
    if not wanted.parked_first:
        return fitting, ()
    return fitting & {Status.PARKED}, fitting - {Status.PARKED}


def _statuses(wanted: Filter) -> set[Status]:
    """Those in which an instance can be and fit. An outcome other than ok is had from turning back on."""
    fitting = {status for status in Status if wanted.status in (None, status)}
    if wanted.open_only or wanted.cause is not None:
        fitting = {status for status in fitting if not status.ended}
    if wanted.outcome is OutcomeKind.OK:
        fitting &= {Status.COMPLETED}
    elif wanted.outcome is not None:
        fitting -= {Status.COMPLETED, Status.RUNNING}
    if not all(is_storable(text or "") for text in (wanted.saga, wanted.key, wanted.waits_for)):
        return set()
    return fitting


def _place(after: str | None) -> tuple[int, str | None]:
    if after is None:
        return 0, None
    if re.fullmatch(r"[01]\.[0-9a-f-]{36}", after) is None:
        raise SagasError(f"There is no page after {after!r}. Begin with the first one.")
    phase, _, saga_id = after.partition(".")
    return int(phase), saga_id


def _first(connection: Connection, wanted: Filter, phase: int, last: str | None) -> list[tuple[int, str]]:
    """`(phase, id)` of the first instances that come after this one, and of one more.

    Those of one status stand together in an index, so each status is looked through by itself; and in one
    statement, or an instance that goes from one status to another meanwhile would be in neither.
    """
    parts = [
        select(_of_status(wanted, status, number, last if number == phase else None).subquery())
        for number, statuses in enumerate(_phases(wanted))
        if number >= phase
        for status in statuses
    ]
    if not parts:
        return []
    found = [(number, id_) for number, id_ in connection.execute(union_all(*parts))]
    found.sort(key=lambda one: one[1], reverse=not wanted.open_only)
    found.sort(key=lambda one: one[0])
    return found[: wanted.limit + 1]


def _of_status(wanted: Filter, status: Status, phase: int, last: str | None) -> Select[Any]:
    ids = saga_instance.c.id
    query = _fitting(select(literal_column(str(phase)).label("phase"), ids), wanted)
    query = query.where(saga_instance.c.status == status.value)
    if last is not None:
        query = query.where(ids > last if wanted.open_only else ids < last)
    by_id = ids.asc() if wanted.open_only else ids.desc()
    return query.order_by(by_id).limit(wanted.limit + 1)


def _fitting(query: Select[Any], wanted: Filter) -> Select[Any]:
    table = saga_instance.c
    if wanted.saga is not None:
        query = query.where(table.saga == wanted.saga)
    if wanted.outcome not in (None, OutcomeKind.OK):  # that is what completed ones have
        # Said in full, because the index has only those.
        query = query.where(table.outcome_kind == wanted.outcome.value, text("outcome_kind <> 'ok'"))
    if wanted.key is not None:
        query = query.where(table.key == wanted.key)
    if wanted.older_than is not None:
        query = query.where(table.id < first_id(wanted.older_than))
    if wanted.waits_for is not None:
        query = query.where(*_waiting_for(wanted.waits_for))
    if wanted.cause is not None:
        query = query.where(table.cause == wanted.cause.value)
    return query


def _waiting_for(what: str) -> list[ColumnElement[bool]]:
    """That it waits for this: noted in an index, or so new that it is not noted yet, as few are."""
    table = saga_instance.c
    noted = table.stuck_for.in_(["", what])
    return [noted, table.waits_for == what, cast(ColumnElement[bool], IS_OPEN)]


def first_id(moment: datetime) -> str:
    """What is less than every id made in this millisecond or later: ids begin with their time."""
    return str(UUID(int=max(int(moment.timestamp() * 1000), 0) << 80))


def count_statuses(connection: Connection, most: int) -> dict[Status, int]:
    """How many instances are in each status, counted up to `most` and one more."""
    return {status: count_fitting(connection, Filter(status=status), most) for status in Status}


def count_fitting(connection: Connection, wanted: Filter, most: int) -> int:
    """How many instances fit, wherever a page begins; counted up to `most` and one more."""
    statuses = [status.value for status in _statuses(wanted)]
    if not statuses:
        return 0
    query = _fitting(select(saga_instance.c.id), wanted).where(saga_instance.c.status.in_(statuses))
    return connection.execute(select(func.count()).select_from(query.limit(most + 1).subquery())).scalar_one()


def read_stuck(connection: Connection, before: datetime) -> list[Stuck]:
    """What open instances wait for: all that are parked, and what they wait for since before a moment.

    Those that need a person first, then what most wait for. Who waits for a signal or for its time is not
    stuck: that is declared. But an orchestrator should have looked when its time was over.
    """
    table = saga_instance.c
    cause = [table.saga, table.version, table.cause, table.waits_for]
    query = (
        select(*cause, func.count(), func.min(table.waits_since), func.min(table.id))
        .where(
            table.status.in_(_OPEN),
            or_(table.cause.not_in(_DECLARED), table.due_at < before),
            or_(table.cause == Cause.PERSON.value, table.waits_since < before),
        )
        .group_by(*cause)
        .order_by(table.cause != Cause.PERSON.value, func.count().desc(), *cause)
    )
    return [
        Stuck(row[0], row[1], Cause(row[2]), row[3], row[4], row[5], row[6])
        for row in connection.execute(query)
    ]


def count_waiting(connection: Connection, instance: SagaInstance, most: int) -> int:
    """How many other instances wait for the same, counted up to `most` and one more."""
    waits, table = instance.waiting, saga_instance.c
    if waits is None or not waits.what:
        return 0
    same = select(table.id).where(
        *_waiting_for(waits.what), table.cause == waits.cause.value, table.id != instance.id
    )
    if waits.cause is not Cause.ANSWER:  # then it is a step, and another saga's may have the same name
        same = same.where(table.saga == instance.saga)
    return connection.execute(select(func.count()).select_from(same.limit(most + 1).subquery())).scalar_one()


def read_queues(connection: Connection) -> dict[str, QueueSeen]:
    """The queues as they were last seen, by name."""
    return {row.queue: queue_seen(row) for row in connection.execute(select(saga_queue))}


def newest(connection: Connection) -> tuple[int, str]:
    """What changes whenever an instance does: a number that only grows, and the last id.

    Lines of the history are numbered when they are written and seen when they are committed, which may
    be in another order. So the last number alone does not tell; with the count of the latest it does.
    """
    last = connection.execute(select(func.max(saga_history.c.seq))).scalar() or 0
    lines = select(func.count()).where(saga_history.c.seq > last - _LATE)
    saga_id = connection.execute(select(func.max(saga_instance.c.id))).scalar()
    return last + connection.execute(lines).scalar_one(), saga_id or ""


def open_shapes(connection: Connection) -> dict[tuple[str, int, str], int]:
    """How many instances have not ended, by saga, version and shape."""
    table = saga_instance.c
    query = (
        select(table.saga, table.version, table.shape, func.count())
        .where(table.status.in_(_OPEN))
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
    row = connection.execute(select(saga_act).where(saga_act.c.id == act_id)).one_or_none()
    return None if row is None else act_row(row)


def read_numbered_acts(connection: Connection, numbers: Collection[int]) -> list[ActRow]:
    """The acts with these numbers, in their order; unknown ones are left out."""
    query = select(saga_act).where(saga_act.c.id.in_(numbers)).order_by(saga_act.c.id)
    return [act_row(row) for row in connection.execute(query)]


def find_instances(connection: Connection, named: str, limit: int = 10) -> list[SagaInstance]:
    """Instances that a person may mean: by id; else by business key; else by the beginning of the id."""
    if not is_storable(named):
        return []
    table = saga_instance.c
    wanted = [table.id == named.lower(), table.key == named]
    if (between := _ids_from(named)) is not None:
        wanted.append(table.id.between(*between))
    for condition in wanted:
        query = select(saga_instance).where(condition).order_by(table.id.desc())  # the newest first
        if found := [instance_of(row) for row in connection.execute(query.limit(limit))]:
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
    query = select(saga_act).where(saga_act.c.saga_id == saga_id)
    return [act_row(row) for row in connection.execute(query.order_by(saga_act.c.id.desc()).limit(limit))]


def read_stamp(connection: Connection, saga_id: str) -> tuple[Status, tuple[object, ...]] | None:
    """The status of an instance, and what changes whenever something does that a person sees of it.

    All of it is read along indexes: revision and time of its last change (sending again makes no
    revision), the last line of its history, its acts and how many were handled, its signals and how many
    were looked at, and while it is open also when a queue was last looked at. None if there is no such
    instance.
    """
    table, act, signal = saga_instance.c, saga_act.c, saga_signal.c
    mine = act.saga_id == saga_id
    ours = and_(signal.key == table.key, signal.saga == table.saga)
    row = connection.execute(
        select(
            table.status,
            table.revision,
            table.updated_at,
            select(func.max(saga_history.c.seq)).where(saga_history.c.saga_id == saga_id).scalar_subquery(),
            select(func.max(act.id)).where(mine).scalar_subquery(),
            select(func.count(act.handled_at)).where(mine).scalar_subquery(),
            select(func.max(signal.id)).where(ours).scalar_subquery(),
            select(func.count(signal.look_at)).where(ours).scalar_subquery(),
            select(func.count(signal.handled_at)).where(ours).scalar_subquery(),
            select(func.max(saga_queue.c.seen_at)).scalar_subquery(),
        ).where(table.id == saga_id)
    ).one_or_none()
    if row is None:
        return None
    status, *stamp = row
    return Status(status), tuple(stamp[:-1] if Status(status).ended else stamp)


def count_open(connection: Connection) -> dict[Status, int]:
    """How many instances have not ended, by status."""
    table = saga_instance.c
    query = select(table.status, func.count()).group_by(table.status)
    return {
        Status(status): count for status, count in connection.execute(query.where(table.status.in_(_OPEN)))
    }


@dataclass(frozen=True, slots=True)
class OpenCount:
    """How many open instances of a saga stand so, and when the oldest of them was started.

    Args:
        outcome: why they turned back; empty for those that have not.
    """

    saga: str
    status: Status
    outcome: str
    sagas: int
    since: datetime


def count_by_outcome(connection: Connection) -> list[OpenCount]:
    """The instances that have not ended, by saga, status and outcome.

    Read from two indexes alone, however large the rows are; an id says when its saga was started.
    """
    table = saga_instance.c
    every = (
        select(table.saga, table.status, func.count(), func.min(table.id))
        .where(table.status.in_(_OPEN))
        .group_by(table.saga, table.status)
    )
    turned = (
        select(table.saga, table.status, table.outcome_kind, func.count(), func.min(table.id))
        .where(table.status.in_(_OPEN), text("outcome_kind <> 'ok'"))
        .group_by(table.saga, table.status, table.outcome_kind)
    )
    found: list[OpenCount] = []
    back: dict[tuple[str, str], int] = {}
    for saga, status, outcome, count, first in connection.execute(turned):
        found.append(OpenCount(saga, Status(status), outcome, count, _made_at(first)))
        back[saga, status] = back.get((saga, status), 0) + count
    for saga, status, count, first in connection.execute(every):
        # Some may have turned back between the two statements.
        if (left := count - back.get((saga, status), 0)) > 0:
            found.append(OpenCount(saga, Status(status), "", left, _made_at(first)))
    return found


def _made_at(saga_id: str) -> datetime:
    """When the id was made: its first 48 bits are milliseconds."""
    return datetime.fromtimestamp((UUID(saga_id).int >> 80) / 1000, UTC)


def oldest_due(connection: Connection, sagas: Collection[tuple[str, int]]) -> datetime | None:
    """When the first instance of these sagas, by name and version, is to be looked at."""
    return connection.execute(select(next_due(sagas))).scalar()


def count_overdue(connection: Connection, before: datetime) -> dict[tuple[str, int], int]:
    """How many instances were due before a moment, by saga and version."""
    table = saga_instance.c
    query = select(table.saga, table.version, func.count()).where(
        table.due_at < before,
        table.wake_at < before,  # which is indexed, and never later
    )
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
    return [quarantined_of(row) for row in connection.execute(query)]
