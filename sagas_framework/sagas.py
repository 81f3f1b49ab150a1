"""The front door: start a saga in your own transaction, see where it is, wait for it, act on it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import Any, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import Connection, Engine, event, select
from sqlalchemy.orm import Session

from sagas_framework.clock import utc_now
from sagas_framework.core.decide import DEFAULT_POLICY
from sagas_framework.core.events import Act, Policy
from sagas_framework.core.instance import Cause, SagaInstance, Status, Waiting
from sagas_framework.core.why import MOST, QueueSeen
from sagas_framework.errors import (
    ConfigurationError,
    DefinitionError,
    KeyConflict,
    SagaNotEnded,
    SagasError,
    UnknownRun,
)
from sagas_framework.evolution import Batch, Plan, make_plan, move
from sagas_framework.messages import Queue, Signal
from sagas_framework.points import Point, reach
from sagas_framework.retention import KEEP, Retention
from sagas_framework.saga import Definitions, Saga, SagaDefinition
from sagas_framework.signalling import store_signal
from sagas_framework.spans import begin_starts, end_starts, said
from sagas_framework.storage.database import Database
from sagas_framework.storage.declarations import started_otherwise
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import (
    ActRow,
    Became,
    Filter,
    HistoryLine,
    SignalRow,
    Stuck,
    is_storable,
)
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
from sagas_framework.storage.signals import read_signal, read_signals
from sagas_framework.storage.sql import SqlStore, insert_acts, insert_instances, instance_values, nudge
from sagas_framework.storage.sqlite import tell_after_commit
from sagas_framework.storage.tables import saga_instance
from sagas_framework.telemetry import Carrier, active
from sagas_framework.view import SagaView, StuckView

S = TypeVar("S", bound=BaseModel)
R = TypeVar("R", ActRow, SignalRow)

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
        retention: how long ended sagas stay in the database, unless their class says otherwise; also
            those that are not declared any more. For ever if nothing is said.
        archive: folder for those that go.

    Raises:
        ConfigurationError: sagas are to be archived, and there is no archive.
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
        retention: Retention = KEEP,
        archive: Path | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.service = service
        self.database = Database(service, database, migrations)
        self.definitions = Definitions(sagas)
        self.reply_queue = reply_queue
        self.policy = policy
        self.retention = retention
        self.archive = archive
        self.clock = clock
        self._check_archive()
        self._startable: set[tuple[str, int]] = set()
        self.woken = threading.Event()
        """Set when something was committed through this object that a timekeeper should look at."""

    def retention_of(self, saga: str) -> Retention:
        """How long ended instances of the saga are kept: as its newest version says, or the service."""
        newest = self.definitions.newest(saga)
        return self.retention if newest is None or newest.retention is None else newest.retention

    @property
    def retentions(self) -> Mapping[str | None, Retention]:
        """What holds for each declared saga, by name; under None for all others."""
        names = sorted({definition.name for definition in self.definitions})
        return {name: self.retention_of(name) for name in names} | {None: self.retention}

    def _check_archive(self) -> None:
        wanting = [name for name, kept in self.retentions.items() if kept.keep is not None and kept.archive]
        if wanting and self.archive is None:
            whose = wanting[0] or "all that declare nothing else"
            raise ConfigurationError(
                f"{self.service} keeps ended sagas ({whose}) for a time and archives them then, but where? "
                "Give Sagas(archive=Path(...)), or drop them: Retention(..., archive=False)."
            )

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
        begun: Sequence[tuple[Any, Carrier]] = ()
        if (telemetry := active()) is not None:
            begun = begin_starts(telemetry, [instance for instance, _ in wanted])
            wanted = [
                (replace(instance, trace=carrier or None), digest)
                for (instance, digest), (_, carrier) in zip(wanted, begun, strict=True)
            ]
        # Always in the same order: two that start with the same keys cannot wait for each other.
        order = sorted(range(len(wanted)), key=lambda place: wanted[place][0].key)
        runs: dict[int, SagaRun] = {}
        # A single INSERT needs no savepoint to be all or nothing.
        with nullcontext() if len(wanted) <= 1 else connection.begin_nested():
            for begin in range(0, len(order), _CHUNK):
                places = order[begin : begin + _CHUNK]
                runs.update(zip(places, _insert(connection, [wanted[p] for p in places]), strict=True))
        if any(run.new for run in runs.values()):
            self._wake_after(connection)
            reach(Point.SAGA_WRITTEN)
        started = [runs[place] for place in range(len(wanted))]
        if telemetry is not None:
            end_starts(telemetry, begun, [(run.id, run.saga, run.version, run.new) for run in started])
        return started

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
        """On SQLite, wake this process's timekeeper after the commit; PostgreSQL wakes those of all."""
        if connection.dialect.name != "postgresql" and not tell_after_commit(connection, self.woken.set):
            # An engine of somebody else's: it tells only that it is about to commit.
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
                said=read_signals(connection, saga=instance.saga, key=instance.key, but_taken=True),
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
        until: datetime | None = None,
    ) -> int:
        """Ask the orchestrator for an operator's act; its number, with which `act_answer` finds the answer.

        Args:
            by, reason: who and why; both are kept in the history.
            revision: of the instance that it was decided on; on another one it is refused.
            until: for `Act.RESCHEDULE`, the new moment, with a time zone.

        Raises:
            UnknownRun: there is no such instance.
            SagasError: nobody is named, or no reason is given.
        """
        self.get(saga_id)
        given = dict(reply) if isinstance(reply, Mapping) else reply
        asked = ActRow(0, saga_id, act, by, reason, self.clock(), revision, step, given, force, until)
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
        return self._answered(
            "act", number, read_act, lambda it: it.handled_at is not None, within=within, every=0.1
        )

    def acts(self, saga_id: str) -> Sequence[ActRow]:
        """What operators asked of the instance and what became of it, newest first; the last 20."""
        with reading(self.engine) as connection:
            return read_acts(connection, saga_id)

    def cancel(
        self,
        saga: SagaRun | type[Saga[Any]] | str,
        *,
        key: str | None = None,
        by: str,
        reason: str,
        session: Session | Connection | None = None,
    ) -> int:
        """Ask the orchestrator to undo a saga that is not past its pivot; the number of the act.

        The same act as an operator's (`Act.CANCEL`): in the history, and answered (`act_answer`). It counts
        while a command is in flight, too; a pivot in flight is settled first.

        Args:
            saga: a run or its id; with `key`, the saga's class or name.
            session: in this transaction; None: in one of its own.

        Raises:
            UnknownRun: there is no such instance.
            SagasError: nobody is named, or no reason is given.
        """
        if session is None:
            with self.engine.begin() as connection:
                return self.cancel(saga, key=key, by=by, reason=reason, session=connection)
        if not (by.strip() and reason.strip()):
            raise SagasError("An act needs a name and a reason: both are kept in the saga's history.")
        connection = session.connection() if isinstance(session, Session) else session
        _, _, saga_id = self._whose(connection, saga, key)
        if saga_id is None:
            raise UnknownRun(key or "")
        (number,) = insert_acts(connection, [ActRow(0, saga_id, Act.CANCEL, by, reason, self.clock())])
        nudge(connection)
        self._wake_after(connection)
        return number

    # ---- signals ----------------------------------------------------------------------------------

    def signal(
        self,
        saga: SagaRun | type[Saga[Any]] | str,
        signal: Signal | tuple[str, object],
        *,
        key: str | None = None,
        id: str | None = None,
        by: str = "",
        reason: str = "",
        session: Session | Connection | None = None,
    ) -> SignalRow:
        """Tell a saga what one of its steps waits for, in the caller's transaction.

        One that comes before its saga waits, or before its saga, is kept and taken then. What became of it
        may be known at once (`SignalRow.too_late`); else `signal_answer` says it.

        Args:
            saga: a run or its id; with `key`, the saga's class or name, whether or not such a run exists.
            signal: or its name and its payload as plain JSON, from anywhere.
            id: of this signal, so that a repetition is the same one: no second row, the same answer.
                None: there is no repetition.
            by, reason: who says it and why, for the history.
            session: in this transaction; None: in one of its own.

        Raises:
            UnknownRun: a run was named by its id, and there is none.
            UnknownSaga: the saga is not declared here.
            UnknownSignal: no step of it waits for this signal.
            InvalidSignal: the payload does not fit, or the key or the id is none.
            SignalConflict: the id was used for another signal.
        """
        if session is None:
            with self.engine.begin() as connection:
                return self.signal(saga, signal, key=key, id=id, by=by, reason=reason, session=connection)
        connection = session.connection() if isinstance(session, Session) else session
        name, its_key, _ = self._whose(connection, saga, key)
        row = store_signal(
            connection,
            self.definitions,
            name,
            its_key,
            signal,
            said_id=id,
            by=by,
            reason=reason,
            now=self.clock(),
            trace=said(f"signal {name}", {"saga.name": name}) or None,
        )
        self._wake_after(connection)
        return row

    def signal_answer(self, number: int, *, within: timedelta = timedelta(0)) -> SignalRow:
        """The signal; its `became` is ``stored`` if no orchestrator has looked at it `within` this time.

        Raises:
            SagasError: there is no such signal.
        """
        return self._answered(
            "signal",
            number,
            read_signal,
            lambda row: row.became is not Became.STORED,
            within=within,
            every=0.02,
        )

    def _answered(
        self,
        what: str,
        number: int,
        read: Callable[[Connection, int], R | None],
        done: Callable[[R], bool],
        *,
        within: timedelta,
        every: float,
    ) -> R:
        """The row, once it is done or the time is over; looked at every so many seconds."""
        until = time.monotonic() + within.total_seconds()
        while True:
            with reading(self.engine) as connection:
                row = read(connection, number)
            if row is None:
                raise SagasError(f"There is no {what} number {number}.")
            if done(row) or time.monotonic() >= until:
                return row
            time.sleep(every)

    def signals(
        self,
        saga: str | None = None,
        *,
        key: str | None = None,
        kept_only: bool = False,
        taken_only: bool = False,
        limit: int = 50,
    ) -> Sequence[SignalRow]:
        """Signals and what became of them, newest first; of one saga, and of one key, if given.

        Args:
            kept_only: those that nobody has taken and that are not too late.
            taken_only: those that a saga has taken.
        """
        with reading(self.engine) as connection:
            return read_signals(
                connection, saga=saga, key=key, kept_only=kept_only, taken_only=taken_only, limit=limit
            )

    def _whose(
        self, connection: Connection, saga: SagaRun | type[Saga[Any]] | str, key: str | None
    ) -> tuple[str, str, str | None]:
        """Name and key of the saga, and the id of the instance if there is one.

        Raises:
            UnknownRun: it was named by its id, and there is none.
        """
        table = saga_instance.c
        if key is None:
            if isinstance(saga, type):
                raise SagasError(f"Which {saga.__name__}? Give its key=, or its run.")
            saga_id = saga if isinstance(saga, str) else saga.id
            row = connection.execute(select(table.saga, table.key).where(table.id == saga_id)).one_or_none()
            if row is None:
                raise UnknownRun(saga_id)
            return row.saga, row.key, saga_id
        name = (
            saga.definition.name if isinstance(saga, type) else saga if isinstance(saga, str) else saga.saga
        )
        if not (is_storable(name) and is_storable(key)):
            return name, key, None  # no database has it
        found = select(table.id).where(table.key == key, table.saga == name)
        return name, key, connection.execute(found).scalar()

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
        case None | str() | int() | float() | Decimal():  # most, told apart without asking an ABC
            return encode_basestring_ascii(str(value))
        case dict() | Mapping():
            inner = sorted([f"{_canonical(name)}:{_canonical(item)}" for name, item in value.items()])
            return "{" + ",".join(inner) + "}"
        case set() | frozenset():
            return "{" + ",".join(sorted(map(_canonical, value))) + "}"
        case list() | tuple():
            return "[" + ",".join(map(_canonical, value)) + "]"
        case _:
            return encode_basestring_ascii(str(value))
