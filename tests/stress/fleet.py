"""The order platform as separate processes on real servers, to be killed, stopped and counted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from kombu import Connection
from sqlalchemy import Connection as DatabaseConnection
from sqlalchemy import Engine, create_engine, make_url, text

from sagas_framework.core.ids import operation_id

SERVICES: Final = ("order_service", "consumer_service", "restaurant_service", "accounting_service")
PARTICIPANTS: Final = SERVICES[1:]
REPLIES: Final = "create_order_saga_responses"
ROOT: Final = Path(__file__).parents[2]

_LAUNCH: Final = """
import sys
from order_service.web import create_app
client = create_app().test_client()
for _ in range(int(sys.argv[2])):
    response = client.post(sys.argv[1], headers={"Accept": "application/json"})
    assert response.status_code == 202, response.get_data()
"""
_UPGRADE: Final = """
import sys
from app_common.running import upgrade
for service in sys.argv[1:]:
    upgrade(service)
"""


@dataclass
class Fleet:
    """Processes of the application, and what their databases say.

    Args:
        broker: a virtual host of one's own.
        database: address of an empty database; its server gets one more for each service.
        folder: for the logs.
        services: those that there are.
    """

    broker: str
    database: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    services: Sequence[str] = SERVICES

    def __post_init__(self) -> None:
        self._base = make_url(self.database).database
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._engines: dict[str, Engine] = {}
        with self._server() as connection:
            for service in self.services:
                connection.execute(text(f'CREATE DATABASE "{self._base}_{service}"'))
        self.python(_UPGRADE, *self.services)

    # ---- processes --------------------------------------------------------------------------------

    def worker(
        self,
        service: str,
        number: int = 1,
        *,
        concurrency: int = 1,
        app: str | None = None,
        include: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Start a worker of the service.

        Args:
            app: another module that serves it; None: the service's own.
            include: a module that it imports before it begins.
            environment: variables of this worker alone.
        """
        name = f"{service}-{number}"
        command = (
            f"{sys.executable} -m celery -A {app or f'{service}.worker'} worker -n {name}@%h "
            f"-c {concurrency} --without-gossip --without-mingle --loglevel WARNING"
        )
        self._start(name, command + (f" -I {include}" if include else ""), environment or {})

    def workers(self, *, orchestrators: int = 1) -> None:
        """Start one worker for each participant, and the orchestrators."""
        for service in PARTICIPANTS:
            self.worker(service)
        for number in range(1, orchestrators + 1):
            self.worker("order_service", number)

    def kill(self, service: str, number: int = 1) -> None:
        """kill -9, children included."""
        process = self._running.pop(f"{service}-{number}")
        _kill_group(process)

    def running(self, service: str, number: int = 1) -> int | None:
        """The process of a worker; None if there is none or it has ended."""
        process = self._running.get(f"{service}-{number}")
        return None if process is None or process.poll() is not None else process.pid

    def group(self, service: str, number: int = 1) -> int | None:
        """The process group of a worker that was started and not killed here, whether it lives or not."""
        process = self._running.get(f"{service}-{number}")
        return None if process is None else process.pid

    def web(self, name: str, port: int, environment: Mapping[str, str]) -> None:
        """Serve the order service's pages and API on this port; killed like a worker of this name."""
        arguments = f"-m waitress --listen 127.0.0.1:{port} --threads 16 --call order_service.web:create_app"
        self._start(f"{name}-1", f"{sys.executable} {arguments}", environment)

    def launch(self, path: str, times: int) -> None:
        """Press a button of the homepage so often."""
        self.python(_LAUNCH, path, str(times))

    def stop(self) -> None:
        """End everything, and drop the databases."""
        for process in self._running.values():
            _kill_group(process)
        for engine in self._engines.values():
            engine.dispose()
        with self._server() as connection:
            for service in self.services:
                connection.execute(text(f'DROP DATABASE IF EXISTS "{self._base}_{service}" WITH (FORCE)'))

    def _start(self, name: str, command: str, environment: Mapping[str, str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                command.split(),
                env={**self.environ(), **environment},
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def python(self, script: str, *arguments: str) -> None:
        """Run a script of the application's, to its end."""
        subprocess.run([sys.executable, "-c", script, *arguments], env=self.environ(), cwd=ROOT, check=True)

    def environ(self) -> dict[str, str]:
        """What a process of the application has in its environment."""
        template = make_url(self.database).set(database=f"{self._base}_SERVICE")
        return {
            **os.environ,
            "CELERY_BROKER": self.broker,
            "APP_SQLALCHEMY_DATABASE_URI": template.render_as_string(hide_password=False).replace(
                "SERVICE", "{service}"
            ),
            "PYTHONPATH": str(ROOT),
            **self.environment,
        }

    # ---- the broker -------------------------------------------------------------------------------

    def purge(self) -> int:
        """Throw away every message that waits in a queue; how many there were."""
        return sum(self._each_queue(lambda channel, queue: int(channel.queue_purge(queue))))

    def waiting(self, queue: str) -> int:
        """How many messages wait in the queue."""
        with Connection(self.broker) as connection:
            channel: Any = connection.default_channel
            return int(channel.queue_declare(queue, passive=True).message_count)

    def consumers(self, queue: str) -> int:
        """How many workers take from the queue; 0 if there is no such queue yet."""
        with Connection(self.broker) as connection:
            channel: Any = connection.default_channel
            try:
                return int(channel.queue_declare(queue, passive=True).consumer_count)
            except connection.channel_errors:
                return 0

    def _each_queue(self, act: Callable[[Any, str], int]) -> Iterable[int]:
        events = (f"{service}.events" for service in self.services)
        for queue in (REPLIES, *(f"{service}.commands" for service in PARTICIPANTS), *events):
            with Connection(self.broker) as connection:
                try:
                    yield act(connection.default_channel, queue)
                except connection.channel_errors:
                    yield 0  # nobody has declared it yet

    # ---- what the databases say -------------------------------------------------------------------

    def query(self, service: str, statement: str, **values: Any) -> list[Any]:
        """Rows of a service's database."""
        if service not in self._engines:
            url = make_url(self.database).set(
                drivername="postgresql+psycopg", database=f"{self._base}_{service}"
            )
            self._engines[service] = create_engine(url, pool_pre_ping=True)
        with self._engines[service].connect() as connection:
            return list(connection.execute(text(statement), values))

    def open_sagas(self) -> int:
        """How many sagas have not ended."""
        (row,) = self.query(
            "order_service",
            "SELECT count(*) FROM saga_instance WHERE status NOT IN ('completed', 'compensated')",
        )
        return int(row[0])

    def sent_again(self) -> int:
        """How many commands were sent again."""
        (row,) = self.query(
            "order_service", "SELECT count(*) FROM saga_history WHERE entry LIKE '%.sent_again'"
        )
        return int(row[0])

    def wait_until_all_ended(self, within: float) -> float:
        """Seconds until no saga was open.

        Raises:
            AssertionError: some still were; what they wait for is in the message.
        """
        begun = time.monotonic()
        while left := self.open_sagas():
            if time.monotonic() - begun > within:
                stuck = self.query(
                    "order_service",
                    "SELECT id, status, steps FROM saga_instance "
                    "WHERE status NOT IN ('completed', 'compensated') LIMIT 3",
                )
                raise AssertionError(f"{left} sagas have not ended within {within:g} s, such as {stuck}")
            time.sleep(0.2)
        return time.monotonic() - begun

    def assert_rows_agree(self) -> dict[str, int]:
        """Tickets and authorizations agree with the orders, one to one; how the orders ended.

        Each ticket and authorization is found by the operation that made it, so that a second one, or
        one of an order that was rejected, cannot hide in a sum.
        """
        sagas = {
            row.id: row for row in self.query("order_service", "SELECT id, status, key FROM saga_instance")
        }
        orders = {
            f"order-{row.id}": row.status
            for row in self.query("order_service", "SELECT id, status FROM orders")
        }
        approved = {saga_id for saga_id, saga in sagas.items() if saga.status == "completed"}
        assert {sagas[s].key for s in approved} == {
            key for key, status in orders.items() if status == "approved"
        }
        assert {s.key for s in sagas.values()} == set(orders)
        assert set(orders.values()) <= {"approved", "rejected"}
        kept = self.query(
            "restaurant_service", "SELECT operation_key FROM tickets WHERE status <> 'REJECTED'"
        )
        assert sorted(row[0] for row in kept) == sorted(
            operation_id(s, "create_restaurant_ticket") for s in approved
        )
        unapproved = self.query(
            "restaurant_service", "SELECT id FROM tickets WHERE status = 'CREATE_PENDING'"
        )
        assert unapproved == []
        money = self.query(
            "accounting_service", "SELECT operation_key FROM authorizations WHERE status = 'AUTHORIZED'"
        )
        assert sorted(row[0] for row in money) == sorted(operation_id(s, "authorize_card") for s in approved)
        return {"approved": len(approved), "rejected": len(sagas) - len(approved)}

    @contextmanager
    def _server(self) -> Iterator[DatabaseConnection]:
        url = make_url(self.database).set(drivername="postgresql+psycopg")
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            yield connection
        engine.dispose()


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group, and what is left of the group if it has ended before."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
