"""``saga`` as a process of its own, on SQLite and PostgreSQL, beside a real worker that is killed."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from sagas_framework import Sagas
from sagas_framework.health import check_orchestrator
from tests.servers import wait_until
from tests.unit.core.stories import DeliverOrderSaga, OrderState

ROOT = Path(__file__).parents[2]
WORKER = """
import os

from sagas_framework import Queue, Sagas, orchestrator_app
from tests.unit.core.stories import DeliverOrderSaga

sagas = Sagas(
    "order_service",
    os.environ["ORDERS_DATABASE"],
    sagas=[DeliverOrderSaga],
    reply_queue=Queue("order_service.replies"),
)
app = orchestrator_app(sagas, broker="memory://")
"""


class Service:
    """order_service in a folder of its own, and the processes that are started there."""

    def __init__(self, folder: Path, address: str) -> None:
        (folder / "orders_worker.py").write_text(WORKER)
        self.folder = folder
        self.environment = {
            **os.environ,
            "ORDERS_DATABASE": address,
            "PYTHONPATH": str(ROOT),
            "SAGA_APP": "orders_worker",
            "NO_COLOR": "1",
        }
        self.sagas = self._loaded(address)

    def _loaded(self, address: str) -> Sagas:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ORDERS_DATABASE", address)
            spec = importlib.util.spec_from_file_location("orders_worker", self.folder / "orders_worker.py")
            assert spec is not None
            assert spec.loader is not None
            module: Any = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        sagas: Sagas = module.sagas
        return sagas

    def start(self, key: str) -> str:
        with self.sagas.engine.begin() as connection:
            return self.sagas.start(DeliverOrderSaga, OrderState(), key=key, session=connection).id

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Call ``saga`` in a pipe."""
        program = [sys.executable, "-c", "from sagas_framework.cli import main; main()"]
        return subprocess.run(
            [*program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def json(self, *arguments: str) -> Any:
        return json.loads(self.say(*arguments, "--json").stdout)

    def healthy(self) -> bool:
        """Whether it is, asked in this process: starting one to ask takes what the worker needs to start."""
        return not check_orchestrator(self.sagas).troubles

    @contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the orchestrator; killed at the end, if it still lives."""
        celery = [sys.executable, "-m", "celery", "-A", "orders_worker", "worker", "--pool", "solo"]
        process = subprocess.Popen(
            [*celery, "--loglevel", "WARNING"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(params=["sqlite", "postgres"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """The service on each database, without any table yet."""
    service = Service(tmp_path, request.getfixturevalue(f"{request.param}_url"))
    yield service
    service.sagas.engine.dispose()


def test_the_way_of_an_operator_from_an_empty_database_to_a_cancelled_saga(service: Service) -> None:
    without_tables = service.say("list")
    upgraded, again = service.say("db", "upgrade"), service.say("db", "upgrade")
    saga_id = service.start("order-1")
    unhealthy = service.say("health")

    assert without_tables.returncode == 1
    assert without_tables.stderr.endswith("Run: saga -A orders_worker db upgrade\n")
    assert "0001 the tables" in upgraded.stdout
    assert again.stdout.endswith(": nothing to do\n")
    assert unhealthy.returncode == 1
    assert "no timekeeper has turned within a day: is a worker running?" in unhealthy.stdout

    with service.worker() as process:
        wait_until(service.healthy, "a healthy worker")
        assert service.say("health").returncode == 0
        wait_until(lambda: service.sagas.get(saga_id).started, "the saga's first step")
        shown = service.say("show", saga_id[:23])
        cancelled = service.say("cancel", "order-1", "--reason", "the customer called", "--by", "ann")
        process.send_signal(signal.SIGKILL)
        process.wait()

    assert "for consumer_service.verify_consumer_details (try 1" in shown.stdout
    assert cancelled.returncode == 0, cancelled.stderr
    assert cancelled.stdout.startswith(
        "done: cancelled: what was done is being undone.\norder-1 is compensated\n"
    )
    assert service.json("show", "order-1")["outcome"]["message"] == "the customer called"
    assert service.json("show", "order-1")["why"] == "Undone because it was cancelled (the customer called)."


def test_a_worker_that_was_killed_is_not_called_healthy(service: Service) -> None:
    service.say("db", "upgrade")
    with service.worker():
        wait_until(service.healthy, "a healthy worker")
        assert service.say("health").returncode == 0

    # What a minute does, without waiting for it.
    minute = "interval '1 minute'" if service.sagas.engine.dialect.name == "postgresql" else None
    earlier = f"turned_at - {minute}" if minute else "datetime(turned_at, '-1 minute') || '.000000'"
    with service.sagas.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE saga_worker SET turned_at = {earlier}")
    told = service.say("health")

    assert told.returncode == 1
    assert "order_service is not healthy\n" in told.stdout
    assert "last seen 1 min ago" in told.stdout


def test_an_act_without_a_worker_is_stored_and_a_worker_takes_it_later(service: Service) -> None:
    service.say("db", "upgrade")
    saga_id = service.start("order-1")

    stored = service.say("cancel", saga_id, "--reason", "x", "--by", "ann", "--no-wait")
    asked = service.json("show", saga_id)["acts"]

    assert stored.returncode == 0
    assert stored.stdout.startswith("stored as act 1.\n")
    assert "\x1b" not in stored.stdout
    assert [(act["by"], act["became"]) for act in asked] == [("ann", "stored")]

    with service.worker():
        wait_until(lambda: service.sagas.get(saga_id).status.ended, "the saga's end")


def test_sagas_are_found_by_the_beginning_of_their_ids(service: Service) -> None:
    service.say("db", "upgrade")
    ids = [service.start(f"order-{number}") for number in range(3)]

    found = [[i.id for i in service.sagas.find(named)] for named in (ids[0][:-4], ids[1].upper(), "order-2")]
    several = service.sagas.find(ids[0][:8].replace("-", ""))

    assert found == [[ids[0]], [ids[1]], [ids[2]]]
    assert {instance.id for instance in several} == set(ids)
    assert service.json("show", ids[0][:-4])["key"] == "order-0"


def test_a_key_that_the_terminal_cannot_write_is_escaped(service: Service) -> None:
    service.say("db", "upgrade")
    service.start("bestellung-f\u00fcr-\u6771\u4eac")
    service.environment["PYTHONIOENCODING"] = "ascii"

    listed = service.say("list")

    assert listed.returncode == 0
    assert r"bestellung-f\xfcr-\u6771\u4eac" in listed.stdout
