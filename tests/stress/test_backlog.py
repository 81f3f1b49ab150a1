"""A backlog at a stopped participant, on RabbitMQ and PostgreSQL: it holds each order once, and drains.

The numbers are those that fit into every run of the tests; SAGAS_STRESS_BACKLOG (orders) and
SAGAS_STRESS_STOP (seconds) raise them to those of a release: 20000, 120 s.

Nothing goes again, however long the stop and the draining take: while nobody takes from the queue a copy
would only wait as well, and a queue that moves on comes to every message (rule 21).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from kombu import Connection
from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from sagas_framework import Participant, Queue, Sagas
from sagas_framework.transport.connecting import kombu_queue
from tests.stress.backlog_shop import COMMANDS, REPLIES, Parcel, ParcelSaga, metadata, packed, parcels_service

ORDERS: Final = int(os.environ.get("SAGAS_STRESS_BACKLOG", "1000"))
STOP: Final = float(os.environ.get("SAGAS_STRESS_STOP", "35"))
ROOT: Final = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(1800 + ORDERS / 5)

_PER_TRANSACTION: Final = 500


@dataclass
class Shop:
    """Orders and parcels in databases of their own, and what waits between them.

    Args:
        timeout: of the step, in seconds.

    Attributes:
        counted: `(seconds, messages)` of each look at the command queue, oldest first.
    """

    broker: str
    orders: str
    parcels: str
    folder: Path
    timeout: float
    counted: list[tuple[float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sagas = Sagas("parcel_orders", self.orders, sagas=[ParcelSaga], reply_queue=Queue(REPLIES))
        self.sagas.upgrade()
        participant = Participant(parcels_service, database=self.parcels)
        participant.upgrade()
        self.packed = participant.engine
        metadata.create_all(self.packed)
        self._begun = time.monotonic()
        self._connection = Connection(self.broker)
        kombu_queue(parcels_service.queue)(self._connection.default_channel).declare()

    def close(self) -> None:
        self._connection.release()
        self.sagas.engine.dispose()
        self.packed.dispose()

    @contextmanager
    def worker(self, app: str, *options: str) -> Iterator[None]:
        """A worker of the app, until the block is left."""
        command = [sys.executable, "-m", "celery", "-A", f"tests.stress.backlog_shop:{app}", "worker"]
        own = {
            "BACKLOG_BROKER": self.broker,
            "BACKLOG_ORDERS": self.orders,
            "BACKLOG_PARCELS": self.parcels,
            "BACKLOG_TIMEOUT": str(self.timeout),
            "C_FORCE_ROOT": "1",
        }
        with (self.folder / f"{app}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "-n", f"{app}@%h", "--without-gossip", "--without-mingle", *options],
                cwd=ROOT,
                env=os.environ | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def order(self, count: int) -> None:
        """Start so many sagas, many in a transaction."""
        for first in range(0, count, _PER_TRANSACTION):
            with Session(self.sagas.engine) as session, session.begin():
                for order in range(first, min(first + _PER_TRANSACTION, count)):
                    self.sagas.start(ParcelSaga, Parcel(order=order), session=session)

    def waiting(self) -> int:
        """How many messages wait for the participant; noted in `counted`."""
        channel: Any = self._connection.default_channel
        count = int(channel.queue_declare(COMMANDS, passive=True).message_count)
        self.counted.append((round(time.monotonic() - self._begun, 1), count))
        return count

    def watch(self, seconds: float, until: Callable[[], bool] = lambda: False) -> bool:
        """Count what waits, twice a second, until it is so; whether it came to that within these seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.waiting()
            if until():
                return True
            time.sleep(0.5)
        return False

    def statuses(self) -> dict[str, int]:
        """How many sagas stand where."""
        rows = self._ask("SELECT status, count(*) FROM saga_instance GROUP BY status")
        return {str(status): int(count) for status, count in rows}

    def sent_again(self) -> dict[str, int]:
        """How many copies were sent, by why."""
        rows = self._ask(
            "SELECT detail ->> 'why', count(*) FROM saga_history WHERE entry LIKE '%.sent_again' GROUP BY 1"
        )
        return {str(why): int(count) for why, count in rows}

    def parcels_there(self) -> int:
        """How many parcels are packed."""
        with self.packed.connect() as connection:
            return connection.execute(select(func.count()).select_from(packed)).scalar_one()

    def _ask(self, statement: str) -> list[Any]:
        with self.sagas.engine.connect() as connection:
            return list(connection.execute(text(statement)))


@pytest.mark.parametrize(
    ("timeout", "of_each", "end"),
    [(3600 + 10 * STOP, 1, "completed"), (STOP / 3, 2, "compensated")],
    ids=["the timeout is longer than the stop", "the timeout is shorter than the stop"],
)
def test_a_backlog_at_a_stopped_participant_does_not_grow_with_time(
    postgres_urls: Callable[[], str],
    rabbitmq_url: str,
    tmp_path: Path,
    timeout: float,
    of_each: int,
    end: str,
) -> None:
    """Of each order a command waits, and a compensation once it was given up. All are answered in the end."""
    with closing(Shop(rabbitmq_url, postgres_urls(), postgres_urls(), tmp_path, timeout)) as shop:
        told = _filled_and_drained(shop, of_each * ORDERS, end)

    print(told)
    print("messages by second:", shop.counted[:: max(1, len(shop.counted) // 40)])


def _filled_and_drained(shop: Shop, most: int, end: str) -> str:
    """Let so many messages wait, then all be answered; what happened, in a sentence."""
    with shop.worker("orders_app", "--pool", "solo"):
        begun = time.monotonic()
        shop.order(ORDERS)
        ordered = time.monotonic() - begun
        given_up = shop.timeout if most > ORDERS else 0
        assert shop.watch(60 + given_up + ORDERS / 20, lambda: shop.waiting() >= most), shop.counted[-5:]
        filled = time.monotonic() - begun

        shop.watch(STOP)

        while_stopped = [count for _, count in shop.counted]
        assert while_stopped == sorted(while_stopped)
        assert while_stopped[-1] == max(while_stopped) == most
        assert shop.sent_again() == {}

        back = time.monotonic()
        with shop.worker("parcels_app", "--pool", "prefork", "-c", "4"):
            assert shop.watch(60 + ORDERS / 5, lambda: shop.statuses() == {end: ORDERS}), shop.statuses()
            drained = time.monotonic() - back
            assert shop.sent_again() == {}
            assert shop.watch(60 + ORDERS / 5, lambda: shop.waiting() == 0)
            shop.watch(2)

    assert shop.waiting() == 0
    assert shop.statuses() == {end: ORDERS}
    assert shop.parcels_there() == (ORDERS if end == "completed" else 0)
    return (
        f"{ORDERS} orders: started in {ordered:.1f} s, {most} messages waited after {filled:.1f} s and "
        f"{STOP:g} s later, all {end} {drained:.1f} s after the participant came back; none was sent again"
    )
