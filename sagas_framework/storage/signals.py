"""Signals in SQL: stored by whoever sends them, found by whoever waits (rules 22 and 23)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    false,
    func,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite

from sagas_framework.storage.ports import Became, SignalAnswer, SignalRow
from sagas_framework.storage.tables import saga_instance, saga_signal

_KEPT: Final = [Became.STORED.value, Became.KEPT.value]
_ANSWER = (
    update(saga_signal)
    .where(saga_signal.c.id == bindparam("b_id"), saga_signal.c.handled_at.is_(None))
    .values({name: bindparam(f"b_{name}") for name in ("became", "answer", "look_at", "handled_at")})
)
_HOLDER = and_(saga_instance.c.key == saga_signal.c.key, saga_instance.c.saga == saga_signal.c.saga)


def insert_signal(connection: Connection, signal: SignalRow) -> SignalRow:
    """Store a signal; the first one, if it was said before."""
    names = (
        *("saga", "key", "said_id", "signal", "by", "reason", "said_at", "look_at", "handled_at", "answer"),
        "trace",
    )
    values: dict[str, Any] = {name: getattr(signal, name) for name in names}
    values |= {"payload": dict(signal.payload), "became": signal.became.value}
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    placing = dialect.insert(saga_signal).values(values)
    placed = placing.on_conflict_do_nothing(index_elements=["key", "saga", "said_id"])
    row = connection.execute(placed.returning(saga_signal)).one_or_none()
    if row is None:
        table = saga_signal.c
        mine = (table.key == signal.key, table.saga == signal.saga, table.said_id == signal.said_id)
        row = connection.execute(select(saga_signal).where(*mine)).one()
    return signal_row(row)


def find_new(
    connection: Connection, now: datetime, sagas: Collection[tuple[str, int]], limit: int
) -> list[tuple[int, str | None]]:
    """See `sagas_framework.storage.ports.StoreTransaction.new_signals`."""
    mine = or_(
        false(),
        *(
            and_(
                saga_signal.c.saga == name,
                or_(saga_instance.c.id.is_(None), saga_instance.c.version == version),
            )
            for name, version in sagas
        ),
    )
    query = (
        select(saga_signal.c.id, saga_instance.c.id)
        .select_from(saga_signal.outerjoin(saga_instance, _HOLDER))
        .where(saga_signal.c.look_at <= now, mine)
        .order_by(saga_signal.c.look_at, saga_signal.c.id)
        .limit(limit)
    )
    return [(number, saga_id) for number, saga_id in connection.execute(query)]


def lock_open(connection: Connection, whose: Collection[tuple[str, str]]) -> list[SignalRow]:
    """See `sagas_framework.storage.ports.StoreTransaction.open_signals`."""
    if not whose:
        return []
    table = saga_signal.c
    query = (
        select(saga_signal)
        .where(
            tuple_(table.key, table.saga).in_([(key, saga) for saga, key in whose]),
            table.handled_at.is_(None),
        )
        .order_by(table.id)
        .with_for_update()
    )
    return [signal_row(row) for row in connection.execute(query)]


def note_answers(connection: Connection, answers: Sequence[SignalAnswer], at: datetime) -> None:
    """See `sagas_framework.storage.ports.StoreTransaction.answer_signals`."""
    rows = [
        {
            "b_id": one.id,
            "b_became": one.became.value,
            "b_answer": one.answer,
            "b_look_at": one.look_again,
            "b_handled_at": at if one.became in (Became.TAKEN, Became.TOO_LATE) else None,
        }
        for one in sorted(answers, key=lambda one: one.id)
    ]
    if rows:
        connection.execute(_ANSWER, rows)


def forget(connection: Connection, before: datetime, limit: int) -> int:
    """See `sagas_framework.storage.ports.Store.forget_signals`."""
    table = saga_signal.c
    old = (
        select(table.id)
        .where(
            table.said_at < before,
            or_(table.handled_at.is_not(None), ~exists(select(saga_instance.c.id).where(_HOLDER))),
        )
        .order_by(table.said_at)
        .limit(limit)
    )
    return connection.execute(delete(saga_signal).where(table.id.in_(old))).rowcount


# ---- reading --------------------------------------------------------------------------------------


def read_signal(connection: Connection, number: int) -> SignalRow | None:
    """A signal, with its answer once there is one."""
    row = connection.execute(select(saga_signal).where(saga_signal.c.id == number)).one_or_none()
    return None if row is None else signal_row(row)


def read_signals(
    connection: Connection,
    *,
    saga: str | None = None,
    key: str | None = None,
    kept_only: bool = False,
    taken_only: bool = False,
    but_taken: bool = False,
    limit: int = 50,
) -> list[SignalRow]:
    """Signals, newest first; of one saga, and of one key, if given.

    Args:
        kept_only: those that nobody has taken and that are not too late.
        taken_only: those that a saga has taken.
        but_taken: those that nobody has taken.
    """
    table = saga_signal.c
    query = select(saga_signal).order_by(table.id.desc()).limit(limit)
    if key is not None:
        query = query.where(table.key == key)
    if saga is not None:
        query = query.where(table.saga == saga)
    if kept_only:
        query = query.where(table.became.in_(_KEPT))
    if taken_only:
        query = query.where(table.became == Became.TAKEN.value)
    if but_taken:
        query = query.where(table.became != Became.TAKEN.value)
    return [signal_row(row) for row in connection.execute(query)]


def count_kept(connection: Connection) -> int:
    """How many signals wait for a saga that is not there, or not there yet."""
    query = select(func.count()).select_from(saga_signal).where(saga_signal.c.became.in_(_KEPT))
    return connection.execute(query).scalar_one()


def signal_row(row: Row[Any]) -> SignalRow:
    """A row of `saga_signal` as a value."""
    return SignalRow(
        id=row.id,
        saga=row.saga,
        key=row.key,
        said_id=row.said_id,
        signal=row.signal,
        payload=row.payload,
        said_at=row.said_at,
        by=row.by,
        reason=row.reason,
        look_at=row.look_at,
        became=Became(row.became),
        handled_at=row.handled_at,
        answer=row.answer,
        trace=row.trace,
    )
