"""Runs a system: a place on the servers, its processes, the questions to its driver, and the end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from benchmarks.driving import Driver, DriverFailed
from benchmarks.metering import Meter
from benchmarks.results import percentile
from benchmarks.systems import ROOT, Group, Needs, Program, System
from tests.servers import OwnPostgres, OwnRabbitmq, PostgresServer, RabbitmqServer

READY_WITHIN: Final = 90.0  # seconds
STOP_WITHIN: Final = 10.0
ENDED_WITHIN: Final = 300.0

_SETTINGS: Final = "shared_buffers = 128MB\nshared_preload_libraries = 'pg_stat_statements'\n"
"""PostgreSQL's own default, which servers of tests go below; and what counts statements."""


@dataclass(frozen=True)
class Load:
    """How many sagas a run is made of.

    Args:
        warm: run first and not measured; a third of them declined.
        batch, declined: started at once, and measured together.
        alone: one at a time; of declined ones a third as many.
    """

    warm: int = 60
    batch: int = 1000
    declined: int = 300
    alone: int = 100


class CannotMeasure(Exception):
    """A system could not be measured; the message says why."""


# ---- servers --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Servers:
    """PostgreSQL and RabbitMQ, those of this machine or own ones."""

    postgres: PostgresServer
    rabbitmq: RabbitmqServer | OwnRabbitmq

    @contextmanager
    def place(self, needs: frozenset[Needs]) -> Iterator[Place]:
        """A database and a virtual host of one's own, as far as they are needed; dropped afterwards."""
        with ExitStack() as stack:
            database = broker = None
            if Needs.POSTGRES in needs:
                database = self.postgres.create()
                stack.callback(drop_all, self.postgres, database)
            if Needs.RABBITMQ in needs:
                broker = self.virtual_host(stack)
            yield Place(database, broker)

    def virtual_host(self, stack: ExitStack) -> str:
        """An empty one, dropped when the stack is left; its address."""
        if isinstance(self.rabbitmq, OwnRabbitmq):
            self.rabbitmq.reset()
            return self.rabbitmq.url
        broker = self.rabbitmq.create()
        stack.callback(self.rabbitmq.drop, broker)
        return broker


@dataclass(frozen=True)
class Place:
    """Where a run keeps its rows and messages. Databases of services have the database's name in front."""

    database: str | None
    broker: str | None

    def environment(self) -> dict[str, str]:
        """Variables that tell it: ours of the order platform, and those that drivers of peers read."""
        told = {}
        if self.database is not None:
            told["BENCHMARK_DATABASE"] = self.database
            told["APP_SQLALCHEMY_DATABASE_URI"] = self.database + "_{service}"
        if self.broker is not None:
            told["BENCHMARK_BROKER"] = told["CELERY_BROKER"] = self.broker
        return told


@contextmanager
def servers(*, own: bool, settings: str = "") -> Iterator[Servers]:
    """The servers of this machine; or ones started for this, whose CPU nobody else can add to.

    Args:
        settings: further lines for the ``postgresql.conf`` of one that is started.

    Raises:
        Missing: there are none.
    """
    if not own:
        yield Servers(PostgresServer(), RabbitmqServer())
        return
    with ExitStack() as stack:
        postgres = OwnPostgres(settings=_SETTINGS + settings)
        stack.callback(postgres.close)
        rabbitmq = OwnRabbitmq()
        stack.callback(rabbitmq.close)
        postgres.start()
        rabbitmq.start()
        yield Servers(PostgresServer(postgres.url), rabbitmq)


def drop_all(server: PostgresServer, database: str) -> None:
    """Drop the database and those of services beside it."""
    name = urlsplit(database).path[1:]
    with psycopg.connect(server.url, autocommit=True) as connection:
        beside = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        for (found,) in connection.execute(beside, [name]).fetchall():
            drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(found))
            connection.execute(drop)


# ---- a run ----------------------------------------------------------------------------------------


def measure(system: System, servers: Servers, load: Load, logs: Path) -> list[dict[str, Any]]:
    """Start the system, warm it up, measure it, stop it; a record for each kind of measurement.

    Args:
        logs: folder for what the processes say.

    Raises:
        CannotMeasure: it did not start, or its sagas did not end as they should.
    """
    logs.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="sagas_benchmark_"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        place = stack.enter_context(servers.place(system.needs))
        running = stack.enter_context(Running(system, place, folder, logs))
        try:
            running.start()
            return list(_measurements(running, place, load))
        except DriverFailed as error:
            raise CannotMeasure(f"{system.title}: {error}\n{running.last_words()}") from None


def _measurements(running: Running, place: Place, load: Load) -> Iterator[dict[str, Any]]:
    driver = running.driver
    within = ENDED_WITHIN
    driver.batch(load.warm, declined=False, within=within)
    driver.batch(max(load.warm // 3, 1), declined=True, within=within)
    for kind, count in (("completed", load.batch), ("declined", load.declined)):
        if count:
            meter = Meter(running.groups(), place.database, place.broker)
            with meter:
                seconds = driver.batch(count, declined=kind == "declined", within=within)
            yield {
                "kind": kind,
                "sagas": count,
                "seconds": round(seconds, 3),
                "per_second": round(count / seconds, 1),
                **meter.usage.each(count),
            }
    if load.alone:
        with Meter(running.groups(), place.database, place.broker) as meter:
            completed = driver.each(load.alone, declined=False, within=within)
        declined = driver.each(max(load.alone // 3, 1), declined=True, within=within)
        yield {
            "kind": "alone",
            "sagas": load.alone,
            "p50_ms": round(1000 * percentile(completed, 50), 2),
            "p99_ms": round(1000 * percentile(completed, 99), 2),
            "declined_p50_ms": round(1000 * percentile(declined, 50), 2),
            "cpu_ms_by_group": meter.usage.each(load.alone)["cpu_ms_by_group"],
        }


class Running:
    """The processes of a system. Use as a context manager; each leads a session of its own."""

    def __init__(self, system: System, place: Place, folder: Path, logs: Path) -> None:
        self._system = system
        self.place = place
        self._folder = folder
        self._logs = logs
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("CELERY_")},
            "PYTHONPATH": str(ROOT),
            **place.environment(),
            **system.environment,
        }
        self._started: list[tuple[Program, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *raised: object) -> None:
        for _, process in self._started:
            process.terminate()
        end = time.monotonic() + STOP_WITHIN
        for _, process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(end - time.monotonic(), 0.1))
            with suppress(ProcessLookupError):  # its children, too, if it has left some behind
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):  # what was asked last was never read
                        pipe.close()

    def start(self) -> None:
        """Start everything, and wait for the driver.

        Raises:
            CannotMeasure: something could not be prepared.
            DriverFailed: it is not ready in time.
        """
        for program in self._system.prepare:
            self._prepare(program)
        for program in self._system.programs:
            self._launch(program)
        self.driver = Driver(self._launch(self._system.driver, pipes=True))
        self.driver.wait_until_ready(READY_WITHIN)

    def groups(self) -> Mapping[str, Sequence[int]]:
        """The processes, by group."""
        found: dict[str, list[int]] = {}
        for program, process in self._started:
            found.setdefault(program.group.value, []).append(process.pid)
        return found

    def said(self, *arguments: str, within: float) -> str:
        """What another program of the system's Python prints, in the system's environment.

        Raises:
            CannotMeasure: it failed, or did not end in time (seconds).
        """
        program = Program(Group.DRIVER, arguments)
        try:
            done = subprocess.run(
                self._command(program),
                env=self._environ(program),
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=within,
            )
        except subprocess.TimeoutExpired:
            raise CannotMeasure(f"{' '.join(arguments)} did not end within {within:g} s") from None
        if done.returncode:
            raise CannotMeasure(f"{' '.join(arguments)} failed: {done.stderr}")
        return done.stdout

    def last_words(self, lines: int = 15) -> str:
        """The ends of the logs of those that have ended."""
        words = []
        for log in sorted(self._logs.glob("*.log")):
            said = log.read_text(errors="replace").splitlines()[-lines:]
            words += [f"-- {log}", *said] if said else []
        return "\n".join(words)

    def _prepare(self, program: Program) -> None:
        with (self._logs / "prepare.log").open("ab") as log:
            code = subprocess.run(
                self._command(program), env=self._environ(program), cwd=ROOT, stdout=log, stderr=log
            ).returncode
        if code:
            raise CannotMeasure(
                f"{self._system.title}: {' '.join(program.arguments)} failed; see {self._logs}"
            )

    def _launch(self, program: Program, *, pipes: bool = False) -> subprocess.Popen[bytes]:
        number = sum(other.group is program.group for other, _ in self._started)
        with (self._logs / f"{program.group.value.replace(' ', '_')}{number}.log").open("ab") as log:
            process = subprocess.Popen(
                self._command(program),
                env=self._environ(program),
                cwd=ROOT,
                stdin=subprocess.PIPE if pipes else subprocess.DEVNULL,
                stdout=subprocess.PIPE if pipes else log,
                stderr=log,
                start_new_session=True,
            )
        self._started.append((program, process))
        return process

    def _command(self, program: Program) -> list[str]:
        arguments = [argument.replace("{folder}", str(self._folder)) for argument in program.arguments]
        return [str(program.binary or self._system.python), *arguments]

    def _environ(self, program: Program) -> dict[str, str]:
        both = {**self._environment, **program.environment}
        return {name: value.replace("{folder}", str(self._folder)) for name, value in both.items()}


def warn_of_load(record: Mapping[str, Any], limit: float = 0.2) -> None:
    """Say that other programs used the machine meanwhile, so that the figures are worth less."""
    other = record.get("other_cores", 0.0)
    if other > limit:
        print(
            f"  warning: other programs used {other:.2f} cores meanwhile (more than {limit:g}): stop them, "
            "and measure again",
            file=sys.stderr,
        )
