"""What the sagas of a database were declared with: noted by whoever orchestrates them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Iterable
from datetime import datetime

from pydantic import BaseModel
from sqlalchemy import Connection, func, select

from sagas_framework.core.evolving import Outline, outline
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.saga import SagaDefinition
from sagas_framework.storage.sql import instance_of, upserting
from sagas_framework.storage.tables import saga_declaration, saga_instance

_OPEN = [status.value for status in Status if not status.ended]
_AT_ONCE = 500  # rows in memory while all open ones are read


def note_declarations(connection: Connection, sagas: Iterable[SagaDefinition], now: datetime) -> None:
    """Note what these sagas are declared with now; what they were declared with before stays noted."""
    rows = [
        {
            "saga": saga.name,
            "version": saga.version,
            "shape": saga.shape,
            "steps": outline(saga).steps_to_json(),
            "state": fields_of(saga.state),
            "noted_at": now,
        }
        # Always in the same order: two workers that start at once cannot wait for each other.
        for saga in sorted(sagas, key=lambda saga: (saga.name, saga.version))
    ]
    if rows:
        upsert = upserting(connection, saga_declaration).values(rows)
        changing = ("steps", "state", "noted_at")
        connection.execute(
            upsert.on_conflict_do_update(
                index_elements=["saga", "version", "shape"],
                set_={name: upsert.excluded[name] for name in changing},
            )
        )


def read_outlines(connection: Connection) -> dict[tuple[str, int, str], Outline]:
    """Every declaration that was noted, by saga, version and shape."""
    return {
        (row.saga, row.version, row.shape): Outline.from_json(row.saga, row.version, row.shape, row.steps)
        for row in connection.execute(select(saga_declaration))
    }


def read_states(connection: Connection) -> dict[tuple[str, int, str], str]:
    """`fields_of` the states that the declarations were noted with, by saga, version and shape."""
    table = saga_declaration.c
    query = select(table.saga, table.version, table.shape, table.state)
    return {(row.saga, row.version, row.shape): row.state for row in connection.execute(query)}


def started_otherwise(connection: Connection, saga: SagaDefinition) -> int:
    """How many open instances of this version were started with other steps."""
    noted, table = saga_declaration.c, saga_instance.c
    # Looked at first, because there is hardly ever one: counting reads every open row.
    others = select(noted.shape).where(
        noted.saga == saga.name, noted.version == saga.version, noted.shape != saga.shape
    )
    if not connection.execute(others).first():
        return 0
    query = (
        select(func.count())
        .select_from(saga_instance)
        .where(
            table.saga == saga.name,
            table.version == saga.version,
            table.shape != saga.shape,
            table.status.in_(_OPEN),
        )
    )
    return connection.execute(query).scalar_one()


def read_open(
    connection: Connection, saga: str | None = None, version: int | None = None
) -> Generator[SagaInstance, None, None]:
    """Every instance that has not ended, of one saga and version if given, in the order of ids."""
    table = saga_instance.c
    query = select(saga_instance).where(table.status.in_(_OPEN)).order_by(table.id)
    if saga is not None:
        query = query.where(table.saga == saga)
    if version is not None:
        query = query.where(table.version == version)
    for row in connection.execute(query.execution_options(yield_per=_AT_ONCE)):
        yield instance_of(row)


def fields_of(state: type[BaseModel]) -> str:
    """A hash over the state's fields: whoever has the same reads the same rows."""
    try:
        told = json.dumps(state.model_json_schema(), sort_keys=True)
    except Exception:  # a field of a type that JSON schema has no words for
        told = repr({name: repr(field) for name, field in state.model_fields.items()})
    return hashlib.sha256(told.encode()).hexdigest()[:16]
