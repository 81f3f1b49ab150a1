"""The door for signals: who it is for, whether it fits, and what can be said of it at once (rules 22, 25)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import uuid4

from pydantic import ValidationError
from sqlalchemy import Connection, select

from sagas_framework.core.decide import storable
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.waiting import too_late
from sagas_framework.errors import InvalidSignal, SignalConflict, UnknownSaga, UnknownSignal
from sagas_framework.messages import Signal, readable
from sagas_framework.saga import Definitions, SagaDefinition
from sagas_framework.storage.ports import AT_ONCE, Became, SignalRow, is_storable
from sagas_framework.storage.signals import insert_signal
from sagas_framework.storage.sql import instance_of, nudge
from sagas_framework.storage.tables import saga_instance

_LONGEST_KEY = 200
_LONGEST_ID = 100


def store_signal(
    connection: Connection,
    definitions: Definitions,
    saga: str,
    key: str,
    signal: Signal | tuple[str, object],
    *,
    said_id: str | None,
    by: str,
    reason: str,
    now: datetime,
    trace: Mapping[str, str] | None = None,
) -> SignalRow:
    """Store a signal for whoever has the key, or will have it, in the caller's transaction.

    Args:
        signal: or its name and its payload, from anywhere.
        said_id: the sender's; None: there will be no repetition.
        trace: the context in which it is said, if that is traced.

    Raises:
        UnknownSaga, UnknownSignal, InvalidSignal, SignalConflict: nothing was stored.
    """
    if not key or len(key) > _LONGEST_KEY or not is_storable(key):
        raise InvalidSignal(f"{key!r} is no key of a saga: 1 to {_LONGEST_KEY} characters")
    instance = _holder(connection, saga, key) if is_storable(saga) else None
    definition = _definition(definitions, saga, instance)
    name, payload = _fitting(definition, signal)
    said_id = str(uuid4()) if said_id is None else said_id
    if not 0 < len(said_id) <= _LONGEST_ID or not is_storable(said_id):
        raise InvalidSignal(f"{said_id!r} is no id of a signal: 1 to {_LONGEST_ID} characters")
    why = None
    if instance is not None and definition.shape == instance.shape:
        why = too_late(definition, instance.status, instance.outcome, instance.steps, name)
    row = SignalRow(
        id=0,
        saga=saga,
        key=key,
        said_id=said_id,
        signal=name,
        payload=payload,
        said_at=now,
        by=by,
        reason=reason,
        look_at=AT_ONCE if why is None else None,
        became=Became.STORED if why is None else Became.TOO_LATE,
        handled_at=None if why is None else now,
        answer=why,
        trace=trace,
    )
    stored = insert_signal(connection, row)
    if stored.signal != name or not _same(stored.payload, payload):
        raise SignalConflict(saga, key, said_id, stored.signal)
    if stored.look_at is not None:
        nudge(connection)
    return stored


def _holder(connection: Connection, saga: str, key: str) -> SagaInstance | None:
    table = saga_instance.c
    row = connection.execute(select(saga_instance).where(table.key == key, table.saga == saga)).one_or_none()
    return None if row is None else instance_of(row)


def _definition(definitions: Definitions, saga: str, instance: SagaInstance | None) -> SagaDefinition:
    if instance is not None:
        return definitions.get(saga, instance.version)
    newest = definitions.newest(saga)
    if newest is None:
        raise UnknownSaga(saga, None, [f"{name} version {version}" for name, version in definitions.known()])
    return newest


def _fitting(
    definition: SagaDefinition, signal: Signal | tuple[str, object]
) -> tuple[str, Mapping[str, Any]]:
    """The signal's name and payload, if some step waits for it and it fits its class."""
    name, given = (signal.signal_name, signal.to_json()) if isinstance(signal, Signal) else signal
    wanted = definition.signal(name)
    if wanted is None or (isinstance(signal, Signal) and not isinstance(signal, wanted)):
        raise UnknownSignal(definition.name, name, definition.signals)
    try:
        payload: Mapping[str, Any] = storable(wanted.model_validate(given).to_json())
    except ValidationError as error:
        raise InvalidSignal(f"{name} does not fit {wanted.__name__}: {readable(error)}") from None
    except ValueError as error:
        raise InvalidSignal(f"{name} cannot be stored: {error}") from None
    except Exception as error:  # a validator of the team's: on the reply queue it would hold up all replies
        told = f"{type(error).__name__}: {error}"
        raise InvalidSignal(f"{name} does not fit {wanted.__name__}: {told}") from error
    return name, payload


def _same(one: object, other: object) -> bool:
    """Whether two values are equal as JSON. PostgreSQL gives a float back that has no fraction as an int."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, int) and isinstance(other, float):
        return Decimal(repr(other)) == one
    return one == other
