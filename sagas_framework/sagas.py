"""The front door: start a saga in your own transaction, see where it is, wait for it, act on it."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID
from weakref import WeakSet

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, Transaction, event, select
from sqlalchemy.orm import Session

from sagas_framework.clock import utc_now
from sagas_framework.core.decide import DEFAULT_POLICY
from sagas_framework.core.events import Act, Policy
from sagas_framework.core.instance import Cause, SagaInstance, Status, Waiting
from sagas_framework.core.why import MOST, QueueSeen
from sagas_framework.errors import DefinitionError, KeyConflict, SagaNotEnded, SagasError, UnknownRun
from sagas_framework.evolution import Batch, Plan, make_plan, move
from sagas_framework.messages import Queue
from sagas_framework.points import Point, reach
from sagas_framework.saga import Definitions, Saga, SagaDefinition
from sagas_framework.storage.database import Database
from sagas_framework.storage.declarations import started_otherwise
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import ActRow, Filter, HistoryLine, Stuck
from sagas_framework.storage.reads import (
    count_fitting,
    count_statuses,
    count_waiting,
    find_instances,
    read_act,
    read_acts,
    read_history,
    read_instance,
    read_instances,
    read_page,
    read_queues,
    read_stuck,
)
from sagas_framework.storage.sql import SqlStore, insert_acts, insert_instances, instance_values, nudge
from sagas_framework.storage.tables import saga_instance
from sagas_framework.view import SagaView, StuckView

S = TypeVar("S", bound=BaseModel)

_CHUNK: Final = 1000
"""Keys that are looked for in one statement: SQLite takes no more than 32766 parameters."""


@dataclass(frozen=True, slots=True)
class SagaRun:
    """A saga that was started. `new` is False when its key had started it before."""

    id: str
    key: str
    saga: str
    version: int
    new: bool


@dataclass(frozen=True, slots=True)
class SagaPage:
    """Instances as a person looks at them. `next`: for `Filter.after`; None if this is the last page."""

    views: Sequence[SagaView]
    next: str | None


class Sagas:
    """The sagas of one service, as its web requests, scripts and workers see them.

    Args:
        service: whose they are; its worker is ``<service>.worker``.
        database: address of the service's own database; sagas commit there together with its rows.
        sagas: the declarations that this process knows; of one saga there may be several versions.
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
        self._startable: set[tuple[str, int]] = set()
        self.woken = threading.Event()
        """Set when something was committed through this object that a timekeeper should look at."""

    @property
    def engine(self) -> Engine:
        """The engine of the service's database, made when first needed."""
        return self.database.engine

    def upgrade(self) -> list[str]:
        """Bring the service's database to this release's schema; the migrations that ran."""
        return self.database.upgrade()

    # ---- starting ---------------------------------------------------------------------------------

    def start(
        self, saga: type[Saga[S]], state: S, *, key: str | None = None, session: Session | Connection
    ) -> SagaRun:
        """Start a saga in the caller's transaction: they commit together, or neither does.

        No step runs here; an orchestrator finds the row when it is committed. The instance keeps the
        version of the class that is given here.

        Args:
            key: the business key, unique per saga. Starting again with an equal state returns the
                first run. None: the run's own id.

        Raises:
            KeyConflict: the key was used with another state.
            UnknownSaga: the saga was not given to this object.
            DefinitionError: open instances of this version were started with other steps.
        """
        return self.start_many(saga, [(key, state)], session=session)[0]

    def start_many(
        self, saga: type[Saga[S]], starts: Iterable[tuple[str | None, S]], *, session: Session | Connection
    ) -> Sequence[SagaRun]:
        """Start many sagas in the caller's transaction: all of them, or none if this raises.

        For each it is as with `start`, and for ten thousand it takes seconds.

        Args:
            starts: `(key, state)` pairs. A key that comes twice is started once.

        Returns:
            The runs, in the order of `starts`.

        Raises:
            KeyConflict, UnknownSaga, DefinitionError: see `start`.
        """
        definition = self.definitions.get(saga.definition.name, saga.definition.version)
        connection = session.connection() if isinstance(session, Session) else session
        self._see_that_it_is_as_it_was(connection, definition)
        now = self.clock()
        wanted = [(self._instance(definition, key, state, now), _digest(state)) for key, state in starts]
        # Always in the same order: two that start with the same keys cannot wait for each other.
        order = sorted(range(len(wanted)), key=lambda place: wanted[place][0].key)
        runs: dict[int, SagaRun] = {}
        # A single INSERT needs no savepoint to be all or nothing.
        with nullcontext() if len(wanted) <= 1 else connection.begin_nested():
            for begin in range(0, len(order), _CHUNK):
                places = order[begin : begin + _CHUNK]
                runs.update(zip(places, _insert(connection, [wanted[p] for p in places]), strict=True))
        if any(run.new for run in runs.values()):
            nudge(connection)
            self._wake_after(connection)
            reach(Point.SAGA_WRITTEN)
        return [runs[place] for place in range(len(wanted))]

    @staticmethod
    def _instance(
        definition: SagaDefinition, key: str | None, state: BaseModel, now: datetime
    ) -> SagaInstance:
        saga_id = new_saga_id(now)
        return SagaInstance(
            id=saga_id,
            saga=definition.name,
            version=definition.version,
            shape=definition.shape,
            key=key if key is not None else saga_id,
            status=Status.RUNNING,
            state=state.model_dump(mode="json", warnings="error"),
            created_at=now,
            updated_at=now,
            due_at=now,
            waiting=Waiting(Cause.START, "", now),
        )

    def _see_that_it_is_as_it_was(self, connection: Connection, saga: SagaDefinition) -> None:
        """No orchestrator would take up what is started with other steps under the same version."""
        named = (saga.name, saga.version)
        if named in self._startable:
            return
        if others := started_otherwise(connection, saga):
            raise DefinitionError(
                f"{others} open sagas {saga.name!r} version {saga.version} were started with other steps "
                "than are declared here, so none is started. Give the changed class "
                f"version={saga.version + 1}, and keep the old beside it until they have ended: "
                f"`saga -A {self.service}.worker plan`."
            )
        self._startable.add(named)  # once for each process: a class does not change while it runs

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
        """Instances that fit, at most `wanted.limit`; see `Filter` for their order."""
        with reading(self.engine) as connection:
            return read_page(connection, wanted).instances

    def page(self, wanted: Filter = Filter()) -> SagaPage:  # noqa: B008 (frozen)
        """Instances that fit, as a person looks at them, without histories; and where the next page begins.

        Raises:
            SagasError: `wanted.after` is not the end of a page.
        """
        with reading(self.engine) as connection:
            page = read_page(connection, wanted)
        return SagaPage(self.views(page.instances), page.next)

    def views(self, instances: Sequence[SagaInstance]) -> Sequence[SagaView]:
        """These instances as a person looks at them, without histories."""
        now, find = self.clock(), self.definitions.find
        queues = self.queues() if instances else {}
        return [SagaView(i, find(i.saga, i.version), now, queues=queues) for i in instances]

    def count(self, wanted: Filter | None = None) -> dict[Status, int]:
        """How many instances are in each status; more than `MOST` are counted as one more than that."""
        with reading(self.engine) as connection:
            if wanted is None:
                return count_statuses(connection, MOST)
            return {
                status: count_fitting(connection, replace(wanted, status=status), MOST) for status in Status
            }

    def stuck(self, *, waiting: timedelta = timedelta(minutes=1)) -> Sequence[Stuck]:
        """What open instances wait for: those that need a person, then what they have waited for so long."""
        with reading(self.engine) as connection:
            return read_stuck(connection, self.clock() - waiting)

    def stuck_views(self, *, waiting: timedelta = timedelta(minutes=1)) -> Sequence[StuckView]:
        """What `stuck` finds, as a person looks at it: each with one of the instances that wait for it."""
        found, now = self.stuck(waiting=waiting), self.clock()
        with reading(self.engine) as connection:
            instances = read_instances(connection, [stuck.example for stuck in found])
        examples = {view.instance.id: view for view in self.views(instances)}
        views = []
        for stuck in found:
            declared = self.definitions.find(stuck.saga, stuck.version) is not None
            if (example := examples.get(stuck.example)) is not None:
                declared = example.saga is not None
                waits = example.instance.waiting
                if waits is None or (waits.cause, waits.what) != (stuck.cause, stuck.what):
                    example = None  # it has moved on since it was counted
            views.append(StuckView(stuck, declared, example, now))
        return views

    def queues(self) -> Mapping[str, QueueSeen]:
        """The queues as an orchestrator last saw them on the broker, by name."""
        with reading(self.engine) as connection:
            return read_queues(connection)

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

    def view(self, saga_id: str) -> SagaView:
        """All that is known of an instance; `SagaView.to_json` gives it as plain JSON.

        Raises:
            UnknownRun: there is none with this id.
        """
        with reading(self.engine) as connection:
            instance = read_instance(connection, saga_id)
            if instance is None:
                raise UnknownRun(saga_id)
            return SagaView(
                instance,
                self.definitions.find(instance.saga, instance.version),
                self.clock(),
                history=read_history(connection, saga_id),
                acts=[a for a in read_acts(connection, saga_id) if a.handled_at is None or a.refused],
                queues=read_queues(connection),
                same=count_waiting(connection, instance, MOST),
            )

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
        reply: Any = None,
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
        self.get(saga_id)
        given = dict(reply) if isinstance(reply, Mapping) else reply
        asked = ActRow(0, saga_id, act, by, reason, self.clock(), revision, step, given, force)
        return self.act_on_many([asked])[0]

    def act_on_many(self, acts: Sequence[ActRow]) -> Sequence[int]:
        """Ask for all of these acts or, if one cannot be stored, for none; their numbers, in their order.

        Raises:
            SagasError: nobody is named, or no reason is given.
        """
        if not all(act.by.strip() and act.reason.strip() for act in acts):
            raise SagasError("An act needs a name and a reason: both are kept in the saga's history.")
        with self.engine.begin() as connection:
            numbers = insert_acts(connection, acts)
            nudge(connection)
        self.woken.set()
        return numbers

    def act_answer(self, number: int, *, within: timedelta = timedelta(0)) -> ActRow:
        """The act; its `handled_at` is None if no orchestrator has taken it `within` this time.

        Raises:
            SagasError: there is no such act.
        """
        until = time.monotonic() + within.total_seconds()
        while True:
            with reading(self.engine) as connection:
                act = read_act(connection, number)
            if act is None:
                raise SagasError(f"There is no act number {number}.")
            if act.handled_at is not None or time.monotonic() >= until:
                return act
            time.sleep(0.1)

    def acts(self, saga_id: str) -> Sequence[ActRow]:
        """What operators asked of the instance and what became of it, newest first; the last 20."""
        with reading(self.engine) as connection:
            return read_acts(connection, saga_id)

    # ---- changing the declarations ----------------------------------------------------------------

    def plan(self, saga: str | None = None) -> Plan:
        """What becomes of the open instances, of one saga if it is named, under the declarations at hand."""
        return make_plan(self.engine, self.definitions, self.clock(), saga)

    def migrate(
        self,
        saga: str,
        to: int,
        *,
        by: str,
        reason: str,
        from_version: int | None = None,
        leave_rest: bool = False,
        dry_run: bool = False,
    ) -> Batch:
        """Move every open instance of former versions to this one: all in one transaction, or none.

        Args:
            by, reason: who and why; both are kept in each instance's history.
            from_version: only those of this version.
            leave_rest: those that cannot be moved keep their version, and the others are moved.
            dry_run: only say what would be moved.

        Raises:
            SagasError: (also as its subclass `NotMovable`) it cannot be done; nothing was moved.
            UnknownSaga: the version is not declared here.
        """
        batch = move(
            self.engine,
            SqlStore(self.engine),
            self.definitions,
            saga,
            to,
            by=by,
            reason=reason,
            now=self.clock(),
            from_version=from_version,
            leave_rest=leave_rest,
            dry_run=dry_run,
        )
        if batch.moved and not dry_run:
            self.woken.set()
        return batch


def _insert(connection: Connection, wanted: Sequence[tuple[SagaInstance, str]]) -> Iterable[SagaRun]:
    """Insert instances of one saga, with their digests; where the key is taken, find whose it is.

    Raises:
        KeyConflict: it was taken with another digest.
    """
    rows = [instance_values(instance) | {"digest": digest} for instance, digest in wanted]
    placed = insert_instances(connection, rows)
    taken = {instance.key for instance, _ in wanted if instance.id not in placed}
    first: dict[str, Any] = {}
    if taken:
        table = saga_instance.c
        found = select(table.id, table.key, table.version, table.digest).where(
            table.saga == wanted[0][0].saga, table.key.in_(taken)
        )
        first = {row.key: row for row in connection.execute(found)}
    for instance, digest in wanted:
        if instance.id in placed:
            yield SagaRun(instance.id, instance.key, instance.saga, instance.version, new=True)
            continue
        owner = first[instance.key]
        if owner.digest != digest:
            raise KeyConflict(instance.saga, instance.key, owner.id)
        yield SagaRun(owner.id, instance.key, instance.saga, owner.version, new=False)


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
