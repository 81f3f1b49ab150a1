"""The front door: start a saga in your own transaction, see where it is, wait for it, act on it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID
from weakref import WeakSet

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, Transaction, event, insert, select
from sqlalchemy.orm import Session

from sagas_framework.clock import utc_now
from sagas_framework.core.decide import DEFAULT_POLICY
from sagas_framework.core.events import Act, Policy
from sagas_framework.core.instance import Phase, SagaInstance, Status, steps_to_json
from sagas_framework.errors import KeyConflict, SagaNotEnded, SagasError, UnknownRun
from sagas_framework.messages import Queue
from sagas_framework.saga import CommandStep, Definitions, Saga
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import ActRow, Filter, HistoryLine
from sagas_framework.storage.sql import (
    find_instances,
    instance_values,
    nudge,
    read_act,
    read_acts,
    read_history,
    read_instance,
    read_instances,
)
from sagas_framework.storage.tables import saga_instance, saga_signal

S = TypeVar("S", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class SagaRun:
    """A saga that was started. `new` is False when its key had started it before."""

    id: str
    key: str
    saga: str
    version: int
    new: bool


class Sagas:
    """The sagas of one service, as its web requests, scripts and workers see them.

    Args:
        service: whose they are; its worker is ``<service>.worker``.
        database: address of the service's own database; sagas commit there together with its rows.
        sagas: the declarations that this process knows.
        reply_queue: where participants answer.
        migrations: folder of the service's own Alembic scripts.
    """

    def __init__(
        self,
        service: str,
        database: str,
        *,
        sagas: Iterable[type[Saga[Any]]],
        reply_queue: Queue,
        policy: Policy = DEFAULT_POLICY,
        migrations: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.service = service
        self.database = Database(service, database, migrations)
        self.definitions = Definitions(sagas)
        self.reply_queue = reply_queue
        self.policy = policy
        self.clock = clock
        self._watched: WeakSet[Transaction] = WeakSet()
        self.woken = threading.Event()
        """Set when something was committed through this object that a timekeeper should look at."""

    @property
    def engine(self) -> Engine:
        """The engine of the service's database, made when first needed."""
        return self.database.engine

    @property
    def command_queues(self) -> list[Queue]:
        """The queues of every command that a saga here may send, by name."""
        queues = {
            step.command.contract.service.queue
            for definition in self.definitions
            for step in definition.steps
            if isinstance(step, CommandStep)
        }
        return sorted(queues, key=lambda queue: queue.name)

    def upgrade(self) -> list[str]:
        """Bring the service's database to this release's schema; the migrations that ran."""
        return self.database.upgrade()

    # ---- starting ---------------------------------------------------------------------------------

    def start(
        self, saga: type[Saga[S]], state: S, *, key: str | None = None, session: Session | Connection
    ) -> SagaRun:
        """Start a saga in the caller's transaction: they commit together, or neither does.

        No step runs here; an orchestrator finds the row when it is committed.

        Args:
            key: the business key, unique per saga. Starting again with an equal state returns the
                first run. None: the run's own id.

        Raises:
            KeyConflict: the key was used with another state.
            UnknownSaga: the saga was not given to this object.
        """
        definition = self.definitions.get(saga.definition.name, saga.definition.version)
        now = self.clock()
        saga_id = new_saga_id(now)
        body = state.model_dump(mode="json", warnings="error")
        instance = SagaInstance(
            id=saga_id,
            saga=definition.name,
            version=definition.version,
            shape=definition.shape,
            key=key if key is not None else saga_id,
            status=Status.RUNNING,
            state=body,
            created_at=now,
            updated_at=now,
            due_at=now,
        )
        connection = session.connection() if isinstance(session, Session) else session
        run = self._insert(connection, instance, _digest(state))
        if run.new:
            nudge(connection)
            self._wake_after(connection)
        return run

    @staticmethod
    def _insert(connection: Connection, instance: SagaInstance, digest: str) -> SagaRun:
        values = instance_values(instance) | {"digest": digest}
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert as upsert
        else:
            from sqlalchemy.dialects.sqlite import insert as upsert  # type: ignore[assignment]
        placed = connection.execute(
            upsert(saga_instance)
            .values(values)
            .on_conflict_do_nothing(index_elements=["saga", "key"])
            .returning(saga_instance.c.id)
        ).one_or_none()
        if placed is not None:
            return SagaRun(instance.id, instance.key, instance.saga, instance.version, new=True)
        first = connection.execute(
            select(saga_instance.c.id, saga_instance.c.version, saga_instance.c.digest).where(
                saga_instance.c.saga == instance.saga, saga_instance.c.key == instance.key
            )
        ).one()
        if first.digest != digest:
            raise KeyConflict(instance.saga, instance.key, first.id)
        return SagaRun(first.id, instance.key, instance.saga, first.version, new=False)

    def _wake_after(self, connection: Connection) -> None:
        """Within this process, wake the timekeeper on the commit; across processes PostgreSQL does."""

        transaction = connection.get_transaction()
        if transaction is None or transaction in self._watched:
            return
        self._watched.add(transaction)
        event.listen(connection, "commit", lambda _connection: self.woken.set(), once=True)

    # ---- looking ----------------------------------------------------------------------------------

    def get(self, saga_id: str) -> SagaInstance:
        """The instance as it stands.

        Raises:
            UnknownRun: there is none with this id.
        """
        with reading(self.engine) as connection:
            instance = read_instance(connection, saga_id)
        if instance is None:
            raise UnknownRun(saga_id)
        return instance

    def list(self, wanted: Filter = Filter()) -> Sequence[SagaInstance]:  # noqa: B008 (frozen)
        """Instances that fit, parked ones first, then the newest first."""
        with reading(self.engine) as connection:
            return read_instances(connection, wanted)

    def find(self, named: str) -> Sequence[SagaInstance]:
        """Instances that a person may mean: by id, by key, or by the beginning of the id; at most 10."""
        with reading(self.engine) as connection:
            return find_instances(connection, named)

    def history(self, saga_id: str, *, after_revision: int = -1) -> Sequence[HistoryLine]:
        """What happened to the instance, oldest first.

        Raises:
            UnknownRun: there is none with this id.
        """
        with reading(self.engine) as connection:
            if read_instance(connection, saga_id) is None:
                raise UnknownRun(saga_id)
            return read_history(connection, saga_id, after_revision=after_revision)

    def describe(self, saga_id: str) -> dict[str, Any]:
        """All that is known of an instance, as plain JSON.

        Shape: ``id``, ``saga``, ``version``, ``key``, ``status``, ``outcome`` (or None), ``state``,
        ``steps`` (in order; see `StepRecord`), ``history`` (oldest first: ``at``, ``entry``, ``step``,
        ``detail``), ``revision``, and the times ``created_at``, ``updated_at``, ``ended_at``.

        Raises:
            UnknownRun: there is none with this id.
        """
        instance = self.get(saga_id)
        return summary(instance) | {
            "state": dict(instance.state),
            # The row leaves out what has not begun; whoever reads this should not have to know.
            "steps": [{"phase": Phase.PENDING.value, **step} for step in steps_to_json(instance.steps)],
            "history": [line_to_json(line) for line in self.history(saga_id)],
        }

    def wait(self, run: SagaRun | str, *, timeout: timedelta = timedelta(seconds=30)) -> SagaInstance:
        """The instance once it has ended.

        Raises:
            SagaNotEnded: it had not after `timeout`; it goes on.
            UnknownRun: there is none with this id.
        """
        saga_id = run if isinstance(run, str) else run.id
        until = time.monotonic() + timeout.total_seconds()
        pause = 0.01
        while True:
            instance = self.get(saga_id)
            if instance.status.ended:
                return instance
            left = until - time.monotonic()
            if left <= 0:
                raise SagaNotEnded(
                    f"The saga {saga_id} is {instance.status.value} after {timeout.total_seconds():g} s, "
                    f"and goes on. `saga -A {self.service}.worker show {saga_id}` says where it stands."
                )
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, 0.25)

    # ---- acting -----------------------------------------------------------------------------------

    def act(
        self,
        saga_id: str,
        act: Act,
        *,
        by: str,
        reason: str,
        revision: int | None = None,
        step: str | None = None,
        reply: Mapping[str, Any] | None = None,
        force: bool = False,
    ) -> int:
        """Ask the orchestrator for an operator's act; its number, with which `act_answer` finds the answer.

        Args:
            by, reason: who and why; both are kept in the history.
            revision: of the instance that it was decided on; on another one it is refused.

        Raises:
            UnknownRun: there is no such instance.
            SagasError: nobody is named, or no reason is given.
        """
        if not by.strip() or not reason.strip():
            raise SagasError("An act needs a name and a reason: both are kept in the saga's history.")
        self.get(saga_id)
        with self.engine.begin() as connection:
            number: int = connection.execute(
                insert(saga_signal)
                .values(
                    saga_id=saga_id,
                    act=act.value,
                    by=by,
                    reason=reason,
                    revision=revision,
                    step=step,
                    reply=None if reply is None else dict(reply),
                    force=force,
                    created_at=self.clock(),
                    refused=False,
                )
                .returning(saga_signal.c.id)
            ).scalar_one()
            nudge(connection)
        self.woken.set()
        return number

    def act_answer(self, number: int) -> ActRow:
        """The act; its `handled_at` is None until an orchestrator has taken it.

        Raises:
            SagasError: there is no such act.
        """
        with reading(self.engine) as connection:
            act = read_act(connection, number)
        if act is None:
            raise SagasError(f"There is no act number {number}.")
        return act

    def acts(self, saga_id: str) -> Sequence[ActRow]:
        """What operators asked of the instance and what became of it, newest first; the last 20."""
        with reading(self.engine) as connection:
            return read_acts(connection, saga_id)


def summary(instance: SagaInstance) -> dict[str, Any]:
    """An instance in a line, as plain JSON: `Sagas.describe` without state, steps and history."""
    return {
        "id": instance.id,
        "saga": instance.saga,
        "version": instance.version,
        "key": instance.key,
        "status": instance.status.value,
        "outcome": instance.outcome and instance.outcome.to_json(),
        "revision": instance.revision,
        "created_at": instance.created_at.isoformat(),
        "updated_at": instance.updated_at.isoformat(),
        "ended_at": instance.ended_at and instance.ended_at.isoformat(),
    }


def line_to_json(line: HistoryLine) -> dict[str, Any]:
    """A line of the history as plain JSON."""
    recorded = line.recorded
    return {
        "at": recorded.at.isoformat(),
        "entry": recorded.entry,
        "step": recorded.step,
        "detail": dict(recorded.detail),
        "revision": line.revision,
    }


def new_saga_id(now: datetime) -> str:
    """A UUIDv7: sorted by time, and never issued again by a database that was rebuilt (RFC 9562, 5.7)."""
    millis = int(now.timestamp() * 1000)
    noise = int.from_bytes(os.urandom(10))
    value = (millis & (1 << 48) - 1) << 80 | noise
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return str(UUID(int=value))


def _digest(state: BaseModel) -> str:
    """Of what the caller said: fields left at their default, and the order of a set, make no difference."""
    said = state.model_dump(exclude_defaults=True)
    return hashlib.sha256(_canonical(said).encode()).hexdigest()


def _canonical(value: Any) -> str:
    match value:
        case Mapping():
            inner = sorted(f"{_canonical(name)}:{_canonical(item)}" for name, item in value.items())
            return "{" + ",".join(inner) + "}"
        case set() | frozenset():
            return "{" + ",".join(sorted(map(_canonical, value))) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case _:
            return json.dumps(str(value))
