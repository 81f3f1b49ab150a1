"""Events on RabbitMQ and PostgreSQL: workers are killed with -9 at each point, and each coin is kept once."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_OID, uuid5

import pytest
from celery import Celery

from sagas_framework import EmbeddedWorkers, Participant, Subscriber, participant_app, publish, subscriber_app
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.messages import Queue, QueueType
from sagas_framework.points import EventPoint
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import reading
from sagas_framework.storage.event_inbox import read_events
from sagas_framework.storage.outbox import Outbox, read_backlog
from sagas_framework.transport.envelope import WireMessage, command, to_wire
from sagas_framework.transport.generic import make_publisher
from sagas_framework.worker.batches import check_queue
from sagas_framework.worker.waking import Alarm
from tests.integration.mint import Coined, bank, kept_coins, make_bank, make_mint, mint, prepare
from tests.servers import OwnRabbitmq, wait_until
from tests.stress.matrix.saboteur import KILL_ALL, VARIABLE, Trap

REPLIES: Final = Queue("mint.replies", QueueType.CLASSIC)
WITHIN: Final = 60.0  # seconds

MINT: Final = (
    EventPoint.EVENT_WRITTEN,
    EventPoint.EVENTS_READ,
    EventPoint.EVENTS_PUBLISHED,
    EventPoint.EVENTS_MARKED,
)
BANK: Final = (
    EventPoint.EVENTS_TAKEN,
    EventPoint.EVENTS_RECEIVED,
    EventPoint.EVENT_CLAIMED,
    EventPoint.EVENT_HANDLED,
    EventPoint.EVENT_DONE,
    EventPoint.EVENT_FAILED,
)


def coining(coin: int) -> WireMessage:
    """The command to coin it: always the same message."""
    saga = str(uuid5(NAMESPACE_OID, str(coin)))
    outgoing = Outgoing(
        saga_id=saga,
        message_id=message_id(saga, "coin", Kind.DO, 1),
        operation_id=operation_id(saga, "coin"),
        kind=Kind.DO,
        task="mint.coin",
        queue=mint.queue.name,
        attempt=1,
        not_after=datetime.now(UTC) + timedelta(hours=1),
        payload={"coin": coin},
    )
    return to_wire(command(outgoing, REPLIES.name))


class Worker:
    """A Celery worker in a process group of its own."""

    def __init__(self, app: str, pool: Sequence[str], environment: dict[str, str], log: Path) -> None:
        self._arguments = [
            *(sys.executable, "-m", "celery", "-A", f"tests.integration.mint:{app}", "worker"),
            *(*pool, "--without-gossip", "--without-mingle", "-n", f"{app}@%h", "-l", "WARNING"),
        ]
        self._environment, self._log = environment, log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                env={**os.environ, **self._environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def restart_if_dead(self) -> bool:
        assert self._process is not None
        if self._process.poll() is None:
            return False
        self.start()
        return True

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)


class Town:
    """The mint, whose pool forks, and the bank."""

    def __init__(self, folder: Path, broker: str, mint_url: str, bank_url: str) -> None:
        self.mint, self.bank = make_mint(mint_url), make_bank(bank_url)
        self.mint.upgrade()
        prepare(self.bank)
        check_queue(broker, REPLIES)
        check_queue(broker, self.bank.queue)  # who is bound later gets what is published later
        self.folder = folder
        self.publisher = make_publisher(broker, [mint.queue])
        said = {"BROKER": broker, "MINT": mint_url, "BANK": bank_url, VARIABLE: str(folder)}
        self.workers = [
            Worker("mint_app", ["--concurrency", "2"], said, folder / "mint.log"),
            Worker("bank_app", ["--pool", "solo"], said, folder / "bank.log"),
        ]

    def run(self) -> None:
        for worker in self.workers:
            worker.start()

    def publish(self, coins: Sequence[int]) -> None:
        """Coin them from another program, which has no relay."""
        for coin in coins:
            with self.mint.engine.begin() as connection:
                publish(Coined(coin=coin), connection)

    def backlog(self) -> int:
        with reading(self.mint.engine) as connection:
            return read_backlog(connection).events

    def coin(self, coins: Sequence[int]) -> None:
        self.publisher.publish([coining(coin) for coin in coins])

    def keeps(self, coins: Sequence[int]) -> bool:
        for worker in self.workers:
            worker.restart_if_dead()
        return kept_coins(self.bank.engine) == {"vault": list(coins), "ledger": list(coins)}

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
        self.publisher.close()
        self.mint.engine.dispose()
        self.bank.engine.dispose()


@pytest.fixture
def town(tmp_path: Path, rabbitmq_url: str, postgres_urls: Any) -> Iterator[Town]:
    town = Town(tmp_path, rabbitmq_url, postgres_urls(), postgres_urls())
    yield town
    town.close()


@pytest.mark.parametrize("point", [*MINT, *BANK])
def test_a_worker_that_dies_there_neither_loses_nor_doubles(town: Town, point: EventPoint) -> None:
    trap: Any = Trap.set(town.folder, point, 1, KILL_ALL)
    others, commanded = range(1, 25), range(101, 105)
    town.run()

    town.publish(others)
    town.coin(commanded)

    wait_until(
        lambda: trap.victim() is not None and town.keeps([*others, *commanded]),
        f"each coin is kept after a death at {point}; see {town.folder}",
        WITHIN,
    )
    assert town.backlog() == 0
    with reading(town.bank.engine) as connection:
        assert read_events(connection) == []


def test_no_point_is_left_out_here() -> None:
    assert {*MINT, *BANK} == set(EventPoint)


# ---- a broker that is away, or forgets --------------------------------------------------------------


def test_what_is_published_while_rabbitmq_is_away_is_kept_once_when_it_is_back(
    tmp_path: Path, own_rabbitmq: OwnRabbitmq, postgres_urls: Any
) -> None:
    town = Town(tmp_path, own_rabbitmq.url, postgres_urls(), postgres_urls())
    town.run()
    town.publish(range(1, 6))
    wait_until(lambda: town.keeps(range(1, 6)), "the first are kept", WITHIN)

    own_rabbitmq.stop()
    town.publish(range(6, 11))
    own_rabbitmq.start()

    wait_until(lambda: town.keeps(range(1, 11)), f"all are kept; see {tmp_path}", WITHIN)
    town.close()


def test_a_rabbitmq_that_has_forgotten_everything_is_told_again_by_a_persons_word(
    tmp_path: Path, own_rabbitmq: OwnRabbitmq, postgres_urls: Any
) -> None:
    town = Town(tmp_path, own_rabbitmq.url, postgres_urls(), postgres_urls())
    town.run()
    town.publish(range(1, 6))
    wait_until(lambda: town.keeps(range(1, 6)), "the first are kept", WITHIN)
    town.workers[1].kill()
    town.publish(range(6, 11))
    wait_until(lambda: town.backlog() == 0, "the others are confirmed", WITHIN)

    own_rabbitmq.reset()
    town.workers[1].start()

    def bound() -> bool:
        load = town.publisher.load(town.bank.queue.name)
        return load is not None and load.consumers == 1

    wait_until(bound, "the bank listens again", WITHIN)
    assert Outbox(town.mint.engine).send_again(datetime.now(UTC) - timedelta(hours=1)) == 10
    wait_until(lambda: town.keeps(range(1, 11)), f"each is kept once; see {tmp_path}", WITHIN)
    town.close()


# ---- waking ---------------------------------------------------------------------------------------


def test_what_another_program_publishes_rings_the_relay_and_does_not_wake_the_timekeeper(
    postgres_url: str,
) -> None:
    database, elsewhere = Database("mint", postgres_url), Database("mint", postgres_url)
    database.upgrade()
    woken, rung = threading.Event(), threading.Event()
    alarm = Alarm(database, woken, rung.set)
    alarm.sleep(timedelta(seconds=1))  # from now on it listens
    waiting = threading.Thread(target=lambda: alarm.sleep(timedelta(seconds=WITHIN)))
    waiting.start()

    with elsewhere.engine.begin() as connection:
        publish(Coined(coin=1), connection)

    assert rung.wait(WITHIN)
    assert waiting.is_alive()
    alarm.ring()
    waiting.join(WITHIN)
    alarm.close()
    for one in (database, elsewhere):
        one.engine.dispose()


# ---- in one process ---------------------------------------------------------------------------------


def embedded(mint_url: str, bank_url: str) -> tuple[Participant, Subscriber, list[Celery]]:
    participant, subscriber = make_mint(mint_url), make_bank(bank_url)
    participant.upgrade()
    prepare(subscriber)
    broker = "memory://"
    return (
        participant,
        subscriber,
        [participant_app(participant, broker=broker), subscriber_app(subscriber, broker=broker)],
    )


def test_a_broker_in_memory_is_told_again_at_the_next_start_what_it_had_forgotten(sqlite_urls: Any) -> None:
    participant, subscriber, _ = embedded(mint_url := sqlite_urls(), bank_url := sqlite_urls())
    with participant.engine.begin() as connection:
        publish(Coined(coin=1), connection)
    Outbox(participant.engine).send(lambda rows: [True], 10, datetime.now(UTC))  # and the process dies

    _, _, apps = embedded(mint_url, bank_url)
    with EmbeddedWorkers(apps):
        wait_until(lambda: kept_coins(subscriber.engine) == {"vault": [1], "ledger": [1]}, "kept", WITHIN)

    participant.engine.dispose()
    subscriber.engine.dispose()


def test_it_works_in_one_process_without_a_server(sqlite_urls: Any) -> None:
    participant, subscriber, apps = embedded(sqlite_urls(), sqlite_urls())
    coins = [1, 2, 4, 5]

    with EmbeddedWorkers(apps):
        for coin in coins:
            with participant.engine.begin() as connection:
                publish(Coined(coin=coin), connection)
        wait_until(lambda: kept_coins(subscriber.engine) == {"vault": coins, "ledger": coins}, "kept", WITHIN)

    assert bank.name == subscriber.service.name
    participant.engine.dispose()
    subscriber.engine.dispose()
