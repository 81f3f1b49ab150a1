"""Taking out of the database what has ended, in bounded batches; rows that somebody holds are left."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Final, cast

from sqlalchemy import (
    ARRAY,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Row,
    String,
    Table,
    any_,
    bindparam,
    delete,
    func,
    select,
)

from sagas_framework.core.events import Recorded
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.storage.engine import translated
from sagas_framework.storage.ports import ActRow, HistoryLine
from sagas_framework.storage.reads import first_id
from sagas_framework.storage.sql import act_row, instance_of
from sagas_framework.storage.tables import UtcDateTime, saga_act, saga_history, saga_inbox, saga_instance

ENDED: Final = tuple(status for status in Status if status.ended)

Keeping = Callable[[Sequence[dict[str, Any]]], None]
"""Writes rows down, to disk, before they are deleted."""


@dataclass(frozen=True, slots=True)
class Ended:
    """An instance that has ended."""

    id: str
    saga: str
    ended_at: datetime


def read_ended(
    connection: Connection, status: Status, after: str, started_before: datetime, limit: int
) -> list[Ended]:
    """Ended instances whose id comes after another's, in the order of ids: of their starts."""
    table = saga_instance.c
    query = (
        select(table.id, table.saga, table.ended_at)
        .where(table.status == status.value, table.id > after, table.id < first_id(started_before))
        .order_by(table.id)
        .limit(limit)
    )
    return [Ended(row.id, row.saga, row.ended_at) for row in connection.execute(query)]


def count_ended(
    connection: Connection, saga: str | None, others: Collection[str], before: datetime | None, most: int
) -> int:
    """How many instances have ended, and before a moment if one is given; up to `most` and one more.

    Args:
        saga: of which; None for all but `others`.
    """
    table = saga_instance.c
    query = select(table.id).where(table.status.in_([status.value for status in ENDED]))
    query = query.where(table.saga.not_in(others) if saga is None else table.saga == saga)
    if before is not None:
        query = query.where(table.id < first_id(before), table.ended_at <= before)
    return connection.execute(select(func.count()).select_from(query.limit(most + 1).subquery())).scalar_one()


def retire_sagas(engine: Engine, saga_ids: Sequence[str], keep: Keeping | None) -> int:
    """Delete ended instances with their histories and acts, in one transaction; how many there were.

    Those that are locked, and those of which an act waits to be answered, are left.

    Args:
        keep: is given what was deleted, an object for each saga, before it is committed.
    """
    with translated(), engine.begin() as connection:
        ids = _takeable(connection, saga_ids)
        if not ids:
            return 0
        removed = {
            table: _removed(connection, table, table.c[name], ids, rows=keep is not None)
            for table, name in ((saga_history, "saga_id"), (saga_act, "saga_id"), (saga_instance, "id"))
        }
        if keep is not None:
            keep(_told(removed))
        return len(ids)


def retire_operations(engine: Engine, before: datetime, limit: int, keep: Keeping | None) -> int:
    """Delete inbox rows last changed before a moment, at most `limit`, in one transaction; how many.

    Those that are locked are left.

    Args:
        keep: is given what was deleted before it is committed.
    """
    old = select(saga_inbox.c.key).where(saga_inbox.c.updated_at < before).limit(limit)
    with translated(), engine.begin() as connection:
        keys = connection.scalars(old.with_for_update(skip_locked=True)).all()
        if keys:
            rows = _removed(connection, saga_inbox, saga_inbox.c.key, keys, rows=keep is not None)
            if keep is not None:
                keep([{"id": row.key} | _values(saga_inbox, row) for row in rows])
        return len(keys)


def count_operations(connection: Connection, before: datetime | None, most: int) -> int:
    """How many inbox rows there are, last changed before a moment; counted up to `most` and one more."""
    query = select(saga_inbox.c.key)
    if before is not None:
        query = query.where(saga_inbox.c.updated_at < before)
    return connection.execute(select(func.count()).select_from(query.limit(most + 1).subquery())).scalar_one()


def still_there(engine: Engine, table: Table) -> Callable[[Collection[str]], AbstractContextManager[bool]]:
    """Asks whether rows of the table have one of these ids, waiting for who deletes them now."""
    key = next(iter(table.primary_key))

    @contextmanager
    def ask(ids: Collection[str]) -> Iterator[bool]:
        with translated(), engine.begin() as connection:
            # A server that has lost its client may still be about to commit: it holds the rows until then.
            found = select(key).where(_among(connection, key)).order_by(key).with_for_update()
            yield connection.execute(found, {"ids": list(ids)}).first() is not None

    return ask


def _takeable(connection: Connection, saga_ids: Sequence[str]) -> list[str]:
    table = saga_instance.c
    unanswered = select(saga_act.c.id).where(saga_act.c.saga_id == table.id, saga_act.c.handled_at.is_(None))
    query = (
        select(table.id)
        .where(
            _among(connection, table.id),
            table.status.in_([status.value for status in ENDED]),
            ~unanswered.exists(),
        )
        .order_by(table.id)
        .with_for_update(skip_locked=True, of=saga_instance)
    )
    return list(connection.scalars(query, {"ids": list(saga_ids)}))


def _removed(
    connection: Connection, table: Table, key: Column[Any], ids: Sequence[str], *, rows: bool
) -> Sequence[Row[Any]]:
    gone = delete(table).where(_among(connection, key))
    result = connection.execute(gone.returning(*table.c) if rows else gone, {"ids": list(ids)})
    return result.all() if rows else []


def _among(connection: Connection, key: ColumnElement[Any]) -> ColumnElement[bool]:
    """The parameter ``ids`` holds the key. On PostgreSQL a statement whose text is always the same."""
    if connection.dialect.name == "postgresql":
        return key == any_(bindparam("ids", type_=ARRAY(String)))
    return key.in_(bindparam("ids", expanding=True))


# ---- as JSON and back -------------------------------------------------------------------------------


def _told(removed: dict[Table, Sequence[Row[Any]]]) -> list[dict[str, Any]]:
    sagas = {
        row.id: {"id": row.id, "key": row.key, "saga": _values(saga_instance, row), "history": [], "acts": []}
        for row in sorted(removed[saga_instance], key=lambda row: row.id)
    }
    for line in sorted(removed[saga_history], key=lambda line: line.seq):
        sagas[line.saga_id]["history"].append(_values(saga_history, line))
    for act in sorted(removed[saga_act], key=lambda act: act.id):
        sagas[act.saga_id]["acts"].append(_values(saga_act, act))
    return list(sagas.values())


def _values(table: Table, row: Row[Any]) -> dict[str, Any]:
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in zip(table.c.keys(), row, strict=True)
    }


def saga_from_archive(told: dict[str, Any]) -> tuple[SagaInstance, list[HistoryLine], list[ActRow]]:
    """An instance, its history (oldest first) and its acts, from an object of the archive."""
    history = [_row(saga_history, line) for line in told["history"]]
    return (
        instance_of(_row(saga_instance, told["saga"])),
        [
            HistoryLine(
                line.saga_id, line.seq, line.revision, Recorded(line.at, line.entry, line.step, line.detail)
            )
            for line in history
        ],
        [act_row(_row(saga_act, act)) for act in told["acts"]],
    )


def _row(table: Table, values: dict[str, Any]) -> Row[Any]:
    """What has the columns as attributes, like a row that was selected."""
    read = {
        column.name: datetime.fromisoformat(value).astimezone(UTC)
        if isinstance(column.type, UtcDateTime) and (value := values.get(column.name)) is not None
        else values.get(column.name)
        for column in table.c
    }
    return cast("Row[Any]", SimpleNamespace(**read))
