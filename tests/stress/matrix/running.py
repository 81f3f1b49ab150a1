"""Running cells: servers for all of them, a fleet for each column, a deed for each cell."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import psycopg
from kombu import Connection
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import OperationalError

from sagas_framework.core.events import Act
from sagas_framework.participant import quarantined
from sagas_framework.storage.outbox import Outbox
from sagas_framework.storage.ports import ActRow
from sagas_framework.storage.sql import ask_replay, insert_acts, insert_quarantined, nudge
from sagas_framework.transport.arrivals import wire_message
from tests.servers import OwnPostgres, OwnRabbitmq
from tests.stress.fleet import PARTICIPANTS, REPLIES, SERVICES, Fleet
from tests.stress.matrix import saboteur
from tests.stress.matrix.bank import LEASE_VARIABLE
from tests.stress.matrix.counting import Count, Disagreement, Mark, count, count_told, still_open
from tests.stress.matrix.disk import Disk
from tests.stress.matrix.processes import Web, state
from tests.stress.matrix.proxy import Proxy
from tests.stress.matrix.saboteur import Trap, Victim
from tests.stress.matrix.table import (
    BANK,
    CELLS,
    KITCHEN,
    LISTENER,
    ORCHESTRATOR,
    WEB,
    Cell,
    Deed,
    Scene,
)

T = TypeVar("T")

APPROVED_PRICE: Final = 20
REFUSED_PRICE: Final = 80
"""Above what a card is good for: the ticket is there by then, and must be taken back."""
CARD_REFUSED_EVERY: Final = 4

HEARTBEAT: Final = 2  # seconds; the broker gives up on a connection after twice that
STEP_TIMEOUT: Final = {Deed.STOP: 4.0}
PATIENT: Final = 120.0
"""Seconds of a step's timeout in the other columns: no order suffers because something was away."""
LEASE: Final = {Deed.KILL: 6.0, Deed.STOP: 6.0, Deed.RESET: 40.0}
LEASE_OTHERWISE: Final = 20.0
"""A handler is killed after half of its lease, and must not be while it is held."""
STOPPED_FOR: Final = 8.0
"""Longer than heartbeats, lease and step timeout."""
AWAY_FOR: Final = 1.0  # that a server stays away before it is started again
SILENT_FOR: Final = 4.0
FULL_FOR: Final = 3.0

REACHED_WITHIN: Final = 60.0
ENDED_WITHIN: Final = 180.0
ACTS: Final = 20
SET_ASIDE: Final = 20

EVENTS: Final = f"{LISTENER}.events"

_HURRY: Final = "tests.stress.matrix.inside"


class NotReached(AssertionError):
    """The point was not reached, or the deed not done: the cell shows nothing."""


@dataclass(frozen=True)
class Result:
    """What a cell showed.

    Args:
        why: it failed; None if it passed.
        recovery: seconds from the deed to the end of the last order.
        sent_again: commands.
        took: seconds for the whole cell.
    """

    cell: str
    why: str | None
    recovery: float
    approved: int
    rejected: int
    sent_again: int
    took: float


class Servers:
    """A PostgreSQL and a RabbitMQ of the matrix's own.

    Raises:
        Missing: they are not installed.
    """

    def __init__(self) -> None:
        self.postgres = OwnPostgres()
        self.rabbitmq = OwnRabbitmq(settings=f"heartbeat = {HEARTBEAT}")
        self.start()

    def start(self) -> None:
        """Start what does not run."""
        self.postgres.start()
        self.rabbitmq.start()

    def close(self) -> None:
        """Stop both and remove what they hold."""
        self.rabbitmq.close()
        self.postgres.close()


class Column:
    """The order platform, set up for one deed.

    Args:
        fleet: nothing of it runs.
        folder: for logs and traps; made here.
        orders: how many come in for each cell.
    """

    def __init__(self, deed: Deed, servers: Servers, fleet: Fleet, folder: Path, orders: int) -> None:
        self.deed = deed
        self.fleet = fleet
        self._servers = servers
        self._folder = fleet.folder = folder
        self._orders = orders
        self._running: dict[tuple[str, int], str | None] = {}
        self._proxies: dict[str, tuple[Proxy, Proxy]] = {}
        for victim in (WEB, ORCHESTRATOR, KITCHEN, BANK, LISTENER):
            (folder / victim).mkdir(parents=True)
        full = (ORCHESTRATOR, KITCHEN, BANK, LISTENER) if deed is Deed.DISK else ()
        self._disks = {service: Disk(self.database(service)) for service in full}
        self._web = Web(self._environment(WEB), folder / "web.log")
        self._web.start()

    def close(self) -> None:
        """End every process. The databases stay as they are."""
        self._web.close()
        for worker in self._running:
            self.fleet.kill(*worker)
        for proxies in self._proxies.values():
            for proxy in proxies:
                proxy.close()
        self._servers.start()
        for disk in self._disks.values():
            disk.close()

    # ---- a cell -----------------------------------------------------------------------------------

    def run(self, cell: Cell) -> Result:
        """Do the deed at the point while orders come in, then count.

        Raises:
            AssertionError: the cell failed.
            TimeoutError: something did not happen in time.
        """
        begun, at = time.monotonic(), datetime.now(UTC)
        away = KITCHEN if cell.row.scene in (Scene.ACTS, Scene.REPLAY) else None
        told = cell.row.scene is Scene.EVENTS
        self._settle(cell, away)
        if told:
            self._await_listener()
        mark, sent_before = Mark.now(self.fleet.query), self.fleet.sent_again()
        prices, prefix = self._prices(), f"{cell.name}:{uuid4().hex[:8]}:"
        trap = Trap.set(self._folder / cell.row.victim, cell.row.point, cell.row.nth, self._trap(cell))
        try:
            self._web.post(prefix, prices, told=told)
            self._play(cell, mark)
            victim = _await(trap.victim, f"nobody has reached {cell.row.point.value}", REACHED_WITHIN)
            done = time.monotonic()
            self._settle(cell)  # who was away for the scene comes back
            self._do(cell, trap, victim)
        finally:
            trap.remove()
        self._settle(cell)  # and who was killed
        self._wait_for_the_end(prefix, mark, len(prices))
        if told and cell.deed is Deed.RESET:
            self._send_again(at)
        if told:
            heard = "SELECT count(DISTINCT order_id) FROM notifications WHERE starts_with(order_id, :prefix)"
            _await(
                lambda: self.fleet.query(LISTENER, heard, prefix=prefix)[0][0] >= len(prices),
                "an event was not heard",
                ENDED_WITHIN,
            )
        recovery = time.monotonic() - done
        self._count(cell, mark, prefix, prices)
        _await(self._at_rest, "messages, events, acts or replays are left", ENDED_WITHIN)
        counted = self._count(cell, mark, prefix, prices)  # what came late has changed nothing
        self._see_who_lives()
        self._see_what_was_set_aside()
        return Result(
            cell=cell.name,
            why=None,
            recovery=round(recovery, 1),
            approved=counted.approved,
            rejected=counted.rejected,
            sent_again=self.fleet.sent_again() - sent_before,
            took=round(time.monotonic() - begun, 1),
        )

    def undisturbed(self) -> float:
        """Seconds from the first order to the end of the last when nothing is broken.

        Raises:
            AssertionError: the databases do not agree even so.
        """
        self._settle(CELLS[0])
        mark, prices, prefix = Mark.now(self.fleet.query), self._prices(), f"undisturbed:{uuid4().hex[:8]}:"
        # The first order of all waits until the workers are up.
        self._web.post(f"{prefix}first:", prices[:1])
        self._wait_for_the_end(f"{prefix}first:", mark, 1)
        mark, begun = Mark.now(self.fleet.query), time.monotonic()
        self._web.post(prefix, prices)
        self._wait_for_the_end(prefix, mark, len(prices))
        took = time.monotonic() - begun
        count(self.fleet.query, mark, prefix, prices)
        return took

    def _prices(self) -> list[int]:
        return [
            REFUSED_PRICE if place % CARD_REFUSED_EVERY == CARD_REFUSED_EVERY - 1 else APPROVED_PRICE
            for place in range(self._orders)
        ]

    def _count(self, cell: Cell, mark: Mark, prefix: str, prices: list[int]) -> Count:
        counted = count(self.fleet.query, mark, prefix, prices)
        due = prices.count(APPROVED_PRICE)
        if not fewest_approved(cell, due) <= counted.approved <= due:
            raise Disagreement(f"{counted.approved} orders were approved where {due} were due")
        if cell.row.scene is Scene.EVENTS:
            count_told(self.fleet.query, prefix, len(prices))
        return counted

    # ---- scenes -----------------------------------------------------------------------------------

    def _play(self, cell: Cell, mark: Mark) -> None:
        """Whatever the scene needs beside orders, which come in already."""
        match cell.row.scene:
            case Scene.ACTS:
                self._cancel_some(mark)
            case Scene.REPLAY:
                self._set_some_aside()
                self._settle(cell)

    def _await_listener(self) -> None:
        """What is told before its queue is bound is not for it."""
        _await(lambda: self.fleet.consumers(EVENTS) > 0, f"nobody takes from {EVENTS}", REACHED_WITHIN)

    def _send_again(self, since: datetime) -> None:
        """A broker that has forgotten what it had confirmed is told again by a person's word (rule E2)."""
        self._await_listener()
        engine = create_engine(make_url(self.database(ORCHESTRATOR)).set(drivername="postgresql+psycopg"))
        try:
            Outbox(engine).send_again(since)
        finally:
            engine.dispose()

    def _cancel_some(self, mark: Mark) -> None:
        wanted = min(ACTS, self._orders)
        query = (
            "SELECT i.id FROM saga_instance i JOIN orders o ON i.key = 'order-' || o.id WHERE o.id > :mark "
            "AND EXISTS (SELECT FROM saga_history h "
            "WHERE h.saga_id = i.id AND h.step = 'create_restaurant_ticket')"
        )

        def there() -> list[Any] | None:
            rows = self.fleet.query(ORCHESTRATOR, query, mark=mark.orders)
            return rows if len(rows) >= wanted else None

        for row in _await(there, "no orders came as far as the kitchen", REACHED_WITHIN)[:wanted]:
            act = ActRow(0, row.id, Act.CANCEL, "ann", "the customer has called", datetime.now(UTC))
            with self._writing(ORCHESTRATOR) as connection:
                insert_acts(connection, [act])
                nudge(connection)

    def _set_some_aside(self) -> None:
        """Take commands from their queue into the quarantine, and ask for them to be replayed."""
        queue, wanted = f"{KITCHEN}.commands", min(SET_ASIDE, self._orders)
        _await(lambda: self._waiting(queue) >= wanted, f"{queue} does not fill", REACHED_WITHIN)
        with Connection(self._servers.rabbitmq.url) as broker, self._writing(KITCHEN) as connection:
            channel: Any = broker.default_channel
            for _ in range(wanted):
                message = channel.basic_get(queue)
                wire = wire_message(queue, channel.message_to_python(message))
                insert_quarantined(connection, quarantined(wire, "set aside", "$", datetime.now(UTC)))
                channel.basic_ack(message.delivery_tag)
        with self._writing(KITCHEN) as connection:
            for row in self.fleet.query(KITCHEN, "SELECT id FROM saga_quarantine"):
                ask_replay(connection, row.id, "ann")

    @contextmanager
    def _writing(self, service: str) -> Iterator[Any]:
        engine = create_engine(make_url(self.database(service)).set(drivername="postgresql+psycopg"))
        try:
            with engine.begin() as connection:
                yield connection
        finally:
            engine.dispose()

    # ---- deeds ------------------------------------------------------------------------------------

    def _trap(self, cell: Cell) -> str:
        if cell.deed is Deed.KILL:
            return saboteur.KILL_ALL if cell.row.whole else saboteur.KILL
        if cell.deed is Deed.STOP:
            # An outside handler must not outlive its lease (rule 8): that its worker lives to kill it in
            # time is what the rule relies on.
            return saboteur.STOP if cell.row.scene is Scene.OUTSIDE else saboteur.STOP_ALL
        return saboteur.HOLD

    def _do(self, cell: Cell, trap: Trap, victim: Victim) -> None:
        """Do it, and see that it was done."""
        match cell.deed:
            case Deed.KILL:
                _await(lambda: state(victim.pid) is None, "it survived kill -9")
                self._bury(cell, victim)
                return
            case Deed.STOP:
                self._stop(cell, trap, victim)
                return
            case Deed.POSTGRES:
                self._servers.postgres.kill()
                trap.release()
                time.sleep(AWAY_FOR)
                self._servers.postgres.start()
            case Deed.RABBITMQ:
                self._servers.rabbitmq.kill()
                trap.release()
                time.sleep(AWAY_FOR)
                self._servers.rabbitmq.start()
            case Deed.RESET:
                self._servers.rabbitmq.reset()
                trap.release()
            case Deed.CUT:
                self._cut(cell, trap)
            case Deed.DISK:
                self._fill(cell, trap)
        # A worker whose broker is gone ends the children whose messages will come again.
        _await(lambda: trap.passed() or state(victim.pid) is None, "who was held has not gone on")

    def _bury(self, cell: Cell, victim: Victim) -> None:
        if cell.row.victim == WEB:
            self._web.close()
            self._web.start()
        elif cell.row.whole:
            number = self._number(cell.row.victim, victim)
            self.fleet.kill(cell.row.victim, number)
            del self._running[cell.row.victim, number]

    def _stop(self, cell: Cell, trap: Trap, victim: Victim) -> None:
        _await(lambda: state(victim.pid) == "T", "it was not stopped")
        until = time.monotonic() + STOPPED_FOR
        while time.monotonic() < until:
            stopped = state(victim.pid)
            if stopped != "T" and cell.row.scene is Scene.OUTSIDE:
                # Its worker has killed it, as it should: it wakes up for just that.
                _await(lambda: state(victim.pid) is None, "it woke up, and was not killed")
                break
            if stopped != "T":
                raise NotReached(f"it was not stopped for {STOPPED_FOR:g} s")
            time.sleep(0.1)
        else:
            if cell.row.scene is Scene.OUTSIDE:
                raise Disagreement("its worker did not kill a handler that was about to outlive its lease")
            os.killpg(victim.group, signal.SIGCONT)
            _await(lambda: trap.passed() or state(victim.pid) is None, "it did not go on")

    def _cut(self, cell: Cell, trap: Trap) -> None:
        proxies = self._proxies[cell.row.victim]
        before = sum(proxy.silenced for proxy in proxies)
        for proxy in proxies:
            proxy.silence()
        trap.release()
        time.sleep(SILENT_FOR)
        for proxy in proxies:
            proxy.reset()
        if sum(proxy.silenced for proxy in proxies) == before:
            raise NotReached("there was no connection to cut")

    def _fill(self, cell: Cell, trap: Trap) -> None:
        disk = self._disks[ORCHESTRATOR if cell.row.victim == WEB else cell.row.victim]
        before = disk.refusals
        disk.fill()
        trap.release()
        time.sleep(FULL_FOR)
        disk.free()
        if disk.refusals == before:
            raise NotReached("nothing was written while the disk was full")

    # ---- processes --------------------------------------------------------------------------------

    def _settle(self, cell: Cell, away: str | None = None) -> None:
        """Have those workers run that the cell needs, but for those of a service that is away."""
        # Beside a worker that is stopped another one takes over, and the first must not know it.
        numbers = (1, 2) if self.deed is Deed.STOP else (1,)
        wanted: dict[tuple[str, int], str | None] = {
            (service, number): None
            for service in (ORCHESTRATOR, *PARTICIPANTS)
            for number in numbers
            if service != away
        }
        if cell.row.scene is Scene.OUTSIDE:
            wanted |= {(BANK, number): "tests.stress.matrix.bank" for number in numbers}
        if cell.row.scene is Scene.EVENTS:
            wanted |= {(LISTENER, number): "tests.stress.matrix.listener" for number in numbers}
        if cell.row.scene is Scene.BATCHES:
            wanted |= {(KITCHEN, number): "tests.stress.matrix.kitchen" for number in numbers}
        for worker, app in list(self._running.items()):
            if worker not in wanted or wanted[worker] != app:
                self.fleet.kill(*worker)
                del self._running[worker]
        for (service, number), app in wanted.items():
            if (service, number) not in self._running:
                self.fleet.worker(
                    service, number, app=app, include=_HURRY, environment=self._environment(service)
                )
                self._running[service, number] = app

    def _see_who_lives(self) -> None:
        dead = [
            f"{service}-{number}" for service, number in self._running if not self._alive(service, number)
        ]
        if not self._web.running:
            dead.append(WEB)
        if dead:
            raise Disagreement(f"ended by themselves: {', '.join(dead)}")

    def _see_what_was_set_aside(self) -> None:
        for service in (ORCHESTRATOR, *PARTICIPANTS, LISTENER):
            for row in self.fleet.query(service, "SELECT task, reason FROM saga_quarantine LIMIT 1"):
                raise Disagreement(f"{service} has set {row.task} aside: {row.reason}")

    def _alive(self, service: str, number: int) -> bool:
        return self.fleet.running(service, number) is not None

    def _number(self, service: str, victim: Victim) -> int:
        for name, number in self._running:
            # It has ended, so the fleet does not call it running; its group is still known.
            if name == service and self.fleet.group(service, number) == victim.group:
                return number
        raise NotReached(f"process {victim.pid} is no worker of {service}")

    def _environment(self, victim: str) -> dict[str, str]:
        """What is special about the processes of a service; all of it for the web process."""
        timeouts = ("CONSUMER_TIMEOUT", "RESTAURANT_TIMEOUT", "ACCOUNTING_TIMEOUT")
        own = {
            **dict.fromkeys(timeouts, str(STEP_TIMEOUT.get(self.deed, PATIENT))),
            LEASE_VARIABLE: str(LEASE.get(self.deed, LEASE_OTHERWISE)),
            saboteur.VARIABLE: str(self._folder / victim),
        }
        everybody = self.fleet.environ()
        if self.deed is Deed.CUT and (self._folder / victim).exists():
            broker, database = self._servers.rabbitmq.url, self._servers.postgres.url
            ports = [urlsplit(url).port or 0 for url in (broker, database)]
            if victim not in self._proxies:
                self._proxies[victim] = (Proxy(ports[0]), Proxy(ports[1]))
            for variable, port, proxy in zip(
                ("CELERY_BROKER", "APP_SQLALCHEMY_DATABASE_URI"), ports, self._proxies[victim], strict=True
            ):
                own[variable] = everybody[variable].replace(f":{port}/", f":{proxy.port}/")
        return (everybody | own) if victim == WEB else own

    # ---- servers ----------------------------------------------------------------------------------

    def database(self, service: str) -> str:
        """Address of a service's database."""
        return database_of(self.fleet, service)

    def _waiting(self, queue: str) -> int:
        with Connection(self._servers.rabbitmq.url) as connection:
            try:
                return self.fleet.waiting(queue)
            except connection.channel_errors:
                return 0  # nobody has declared it yet

    def _ask_again(self) -> None:
        """What the broker was away for stays aside, and says so; whoever asked sees that and asks anew."""
        unsent = (
            "SELECT id FROM saga_quarantine WHERE replay IS NULL AND reason LIKE '%(not sent again: unsent)'"
        )
        if rows := self.fleet.query(KITCHEN, unsent):
            with self._writing(KITCHEN) as connection:
                for row in rows:
                    ask_replay(connection, row.id, "ann")

    def _at_rest(self) -> bool:
        self._ask_again()
        queues = (REPLIES, EVENTS, *(f"{service}.commands" for service in PARTICIPANTS))
        left = (
            *self.fleet.query(ORCHESTRATOR, "SELECT id FROM saga_act WHERE handled_at IS NULL"),
            *self.fleet.query(KITCHEN, "SELECT id FROM saga_quarantine WHERE replay IS NOT NULL"),
            *self.fleet.query(ORCHESTRATOR, "SELECT number FROM saga_outbox WHERE sent_at IS NULL"),
            *self.fleet.query(LISTENER, "SELECT event_id FROM saga_event WHERE state <> 'done'"),
        )
        return not left and all(self._waiting(queue) == 0 for queue in queues)

    def _wait_for_the_end(self, prefix: str, mark: Mark, wanted: int) -> None:
        def left() -> int:
            try:
                return still_open(self.fleet.query, mark, wanted)
            except OperationalError:
                return wanted  # the server comes back

        until = time.monotonic() + ENDED_WITHIN
        while (open_orders := left()) or not self._web.taken(prefix):
            if time.monotonic() > until:
                stuck = self.fleet.query(
                    ORCHESTRATOR,
                    "SELECT id, status, cause, waits_for, steps FROM saga_instance "
                    "WHERE status NOT IN ('completed', 'compensated') LIMIT 2",
                )
                raise Disagreement(
                    f"{open_orders} orders have not ended within {ENDED_WITHIN:g} s; open sagas: {stuck}"
                )
            time.sleep(0.1)


def fewest_approved(cell: Cell, due: int) -> int:
    """How many orders must be approved at least, of so many that could be.

    Where time runs out an order may end either way, and so may each that an operator cancels. Elsewhere
    none may suffer.
    """
    if cell.deed is Deed.STOP:
        return 0
    return max(due - ACTS, 0) if cell.row.scene is Scene.ACTS else due


def _await(look: Callable[[], T | None], otherwise: str, within: float = 60.0) -> T:
    """What is looked for, once it is there (and neither None nor False).

    Raises:
        NotReached: it did not come in time.
    """
    until = time.monotonic() + within
    while True:
        found = look()
        if found is not None and found is not False:
            return found
        if time.monotonic() > until:
            raise NotReached(f"{otherwise} (waited {within:g} s)")
        time.sleep(0.02)


def database_of(fleet: Fleet, service: str) -> str:
    """Address of a service's database."""
    return fleet.environ()["APP_SQLALCHEMY_DATABASE_URI"].replace("{service}", service)


def new_fleet(servers: Servers, folder: Path) -> Fleet:
    """A fleet with databases of its own, of which nothing runs."""
    folder.mkdir(parents=True, exist_ok=True)
    fleet = Fleet(servers.rabbitmq.url, servers.postgres.create(), folder, services=(*SERVICES, LISTENER))
    # Without these, what was done twice would be refused by the tables, not by the inbox.
    once = ((KITCHEN, "tickets", "operation_key"), (BANK, "authorizations", "operation_key"))
    for service, table, column in (*once, (LISTENER, "notifications", "event_id")):
        with psycopg.connect(database_of(fleet, service), autocommit=True) as connection:
            unique = f"{table}_{column}_key"
            connection.execute(f"ALTER TABLE {table} DROP CONSTRAINT {unique}".encode())
    return fleet


class Bench:
    """Runs cells, one after the other, and keeps what a failing one left behind.

    Args:
        folder: for logs; ``failed/`` in it is kept.
    """

    def __init__(self, servers: Servers, folder: Path, orders: int) -> None:
        self._servers = servers
        self._folder = folder
        self._orders = orders
        self._fleet: Fleet | None = None
        self._column: Column | None = None
        self._columns = 0
        self.troubles: list[tuple[Deed, str]] = []
        """Where the databases contradict each other at the end of a column, though each cell had agreed."""

    def run(self, cell: Cell) -> Result:
        """Run a cell. What it raises is in the result."""
        begun = time.monotonic()
        try:
            return self._prepared(cell.deed).run(cell)
        except Exception as error:
            self._end_column()
            where = self._keep(cell.name)
            self._drop_fleet()  # the next cell begins from nothing
            why = f"{type(error).__name__}: {error} [logs: {where}]"
            return Result(cell.name, why, 0.0, 0, 0, 0, round(time.monotonic() - begun, 1))

    def undisturbed(self) -> float:
        """Seconds that the orders of a cell take when nothing is broken."""
        return self._prepared(CELLS[0].deed).undisturbed()

    def finish(self) -> None:
        """End the column, and see whether all that its cells did still agrees."""
        deed = self._end_column()
        if self._fleet is None or deed is None:
            return
        try:
            self._fleet.assert_rows_agree()
        except AssertionError as error:
            where = self._keep(f"all_{deed.name.lower()}")
            self.troubles.append((deed, f"{error} [logs: {where}]"))
            self._drop_fleet()

    def close(self) -> None:
        """End everything and drop the databases."""
        self.finish()
        self._drop_fleet()

    def _prepared(self, deed: Deed) -> Column:
        if self._column is None or self._column.deed is not deed:
            self.finish()
            self._columns += 1
            folder = self._folder / f"{self._columns:02}_{deed.name.lower()}"
            self._fleet = self._fleet or new_fleet(self._servers, folder)
            self._column = Column(deed, self._servers, self._fleet, folder, self._orders)
        return self._column

    def _end_column(self) -> Deed | None:
        """Which it was; None if there was none."""
        column, self._column = self._column, None
        if column is None:
            return None
        column.close()
        return column.deed

    def _drop_fleet(self) -> None:
        fleet, self._fleet = self._fleet, None
        if fleet is not None:
            fleet.stop()
            fleet.purge()  # the broker stays, and nobody is left who would know of its messages

    def _keep(self, name: str) -> Path:
        """Copy the logs to where they stay; the folder."""
        kept = self._folder / "failed" / name.replace(":", "_")
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir(parents=True)
        if self._fleet is not None:
            for log in self._fleet.folder.glob("*.log"):
                shutil.copy(log, kept)
        return kept
