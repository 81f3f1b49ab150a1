"""Workers are killed with -9 in the middle of a day's wait: nothing of it is lost, and nothing is late.

Nobody waits a day here. An order that has waited for hours was taken up by an orchestrator whose clock was
so much behind; its row says what it would say. The workers that are killed have the clock of this machine.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from sagas_framework import Act, Became, OutcomeKind, SagaInstance, Status, reading
from sagas_framework.clock import utc_now
from sagas_framework.core.instance import Cause
from sagas_framework.evolution import TIMEKEEPER
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.ports import Beat
from sagas_framework.storage.reads import read_beats
from sagas_framework.storage.sql import SqlStore
from sagas_framework.timekeeper import Timekeeper
from tests.integration.approval_shop import DAY, Approval, ApprovedOrder, Order, shop
from tests.integration.nowhere import Nowhere
from tests.servers import wait_until

WITHIN: Final = 60.0  # seconds, for a process to come up
PUNCTUAL: Final = timedelta(seconds=1)
MODULE: Final = "tests.integration.approval_shop"
CELERY: Final = (
    "-m",
    "celery",
    "-A",
    MODULE,
    "worker",
    "--pool",
    "solo",
    "--without-gossip",
    "--without-mingle",
)
EMBEDDED: Final = ("-m", MODULE)


class Shop:
    """The service's database, and its worker."""

    def __init__(self, database: str, broker: str, arguments: tuple[str, ...], log: Path) -> None:
        self.sagas = shop(database)
        self.sagas.upgrade()
        self._database, self._arguments, self._log = database, arguments, log
        self._environment = {**os.environ, "SHOP_DATABASE": database, "SHOP_BROKER": broker}
        self._worker: subprocess.Popen[bytes] | None = None

    def start_worker(self) -> Beat:
        """Start it, and wait until its timekeeper has looked; when it began."""
        with self._log.open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, *self._arguments], env=self._environment, stdout=log, stderr=log
            )
        wait_until(lambda: self._beat() is not None, f"the timekeeper turns; see {self._log}", WITHIN)
        beat = self._beat()
        assert beat is not None
        return beat

    def kill_worker(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()

    def close(self) -> None:
        self.kill_worker()
        self.sagas.engine.dispose()

    def _beat(self) -> Beat | None:
        assert self._worker is not None
        assert self._worker.poll() is None, self._log.read_text()
        with reading(self.sagas.engine) as connection:
            beats = read_beats(connection)
        mine = [
            one for one in beats if one.role == TIMEKEEPER and one.worker.endswith(f"-{self._worker.pid}")
        ]
        return mine[0] if mine else None

    def waiting_for(self, span: timedelta) -> SagaInstance:
        """An order that has waited for so long, with no worker meanwhile."""
        then = shop(self._database, lambda: utc_now() - span)
        with then.engine.begin() as connection:
            run = then.start(ApprovedOrder, Order(), session=connection)
        store = SqlStore(then.engine)
        orchestrator = Orchestrator(store, then.definitions, Nowhere(), reply_to="r", clock=then.clock)
        Timekeeper(orchestrator, []).turn()
        then.engine.dispose()
        instance = self.sagas.get(run.id)
        assert instance.waiting is not None
        assert instance.waiting.cause is Cause.SIGNAL
        return instance

    def move(self, instance: SagaInstance, until: datetime) -> None:
        """Ask for another deadline, as an operator does."""
        why = "the customer cannot wait"
        self.sagas.act(instance.id, Act.RESCHEDULE, by="ann", reason=why, step="approve", until=until)

    def entries(self, saga_id: str) -> list[str]:
        return [line.recorded.entry for line in self.sagas.history(saga_id)]

    def ended(self, saga_id: str) -> SagaInstance:
        return self.sagas.wait(saga_id, timeout=timedelta(seconds=WITHIN))


@pytest.fixture(params=["postgres", "sqlite"])
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """On RabbitMQ and PostgreSQL, and as `make demo` has it."""
    database = request.getfixturevalue(f"{request.param}_url")
    postgres = request.param == "postgres"
    broker = request.getfixturevalue("rabbitmq_url") if postgres else "memory://"
    service = Shop(database, broker, CELERY if postgres else EMBEDDED, tmp_path / "worker.log")
    yield service
    service.close()


def deadline(instance: SagaInstance) -> datetime:
    made = instance.steps["approve"].deadline
    assert made is not None
    return made


def test_after_kill_9_it_waits_on_until_the_same_deadline_and_is_approved(service: Shop) -> None:
    before = service.waiting_for(timedelta(hours=11))
    told = service.entries(before.id)
    service.start_worker()
    service.kill_worker()

    service.start_worker()
    after = service.sagas.get(before.id)
    service.kill_worker()
    number = service.sagas.signal(ApprovedOrder, Approval(approver="ann"), key=before.key).id
    stored = service.sagas.signal_answer(number).became
    service.start_worker()
    ended = service.ended(before.id)

    assert after == before
    assert timedelta(hours=12) < deadline(after) - utc_now() < timedelta(hours=13)
    assert stored is Became.STORED
    assert service.sagas.signal_answer(number).became is Became.TAKEN
    assert ended.status is Status.COMPLETED
    assert ended.state == {"approver": "ann", "told": ["received", "shipped"]}
    assert service.entries(before.id)[: len(told)] == told


def test_what_fell_due_while_nothing_ran_fires_within_a_second_of_the_start(service: Shop) -> None:
    overdue = service.waiting_for(DAY + timedelta(hours=3))
    just_now = service.waiting_for(DAY - timedelta(seconds=1))
    moved = service.waiting_for(timedelta(hours=11))
    service.move(moved, utc_now())
    wait_until(lambda: utc_now() > deadline(just_now), "all of them are due", WITHIN)

    begun = service.start_worker().started_at

    for instance in (overdue, just_now, moved):
        ended = service.ended(instance.id)
        assert ended.status is Status.COMPENSATED
        assert ended.outcome is not None
        assert ended.outcome.kind is OutcomeKind.EXPIRED
        assert ended.ended_at is not None
        assert timedelta(0) <= ended.ended_at - begun < PUNCTUAL
        assert ended.state["told"] == ["received", "expired"]


def test_a_worker_that_was_killed_and_started_again_is_on_time(service: Shop) -> None:
    instance = service.waiting_for(timedelta(hours=11))
    service.start_worker()
    service.kill_worker()
    service.start_worker()
    moment = utc_now() + timedelta(seconds=2)

    service.move(instance, moment)
    ended = service.ended(instance.id)

    assert ended.outcome is not None
    assert ended.outcome.kind is OutcomeKind.EXPIRED
    assert ended.ended_at is not None
    assert timedelta(0) <= ended.ended_at - moment < PUNCTUAL
