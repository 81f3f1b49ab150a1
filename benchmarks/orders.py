"""Drives the order platform: orders come in and their sagas are waited for.

``python -m benchmarks.orders`` is the driver of services that run as processes of their own; with
``--embedded`` it runs all of them itself, as threads, the way ``make demo`` does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text

from app_common.magic import Dish
from app_common.running import upgrade, worker_module
from benchmarks.asked import PARTICIPANTS, SERVICES
from benchmarks.driving import UNCOUNTED, serve, until
from order_service.orchestrator import sagas, settings
from order_service.orders import Line, NewOrder, place, place_many
from sagas_framework import EmbeddedWorkers, reading
from sagas_framework.clock import utc_now
from sagas_framework.sagas import new_saga_id
from sagas_framework.transport.generic import make_publisher

CHUNK: Final = 100
"""Orders in a transaction of a batch: whoever starts many does not commit each by itself, and the first
are carried on while the last come in."""
CONSUMER: Final = 70
CARD: Final = 3
APPROVED_PRICE: Final = Decimal(20)
DECLINED_PRICE: Final = Decimal(80)
QUANTITY: Final = 2

READY_WITHIN: Final = 60.0  # seconds
ENDED_WITHIN: Final = 240.0
LOOK_EVERY: Final = 0.05
LOOK_EVERY_ALONE: Final = 0.001

_OPEN: Final = text(  # not how many: in the embedded case the looking is in the process that is measured
    f"SELECT {UNCOUNTED} EXISTS "
    "(SELECT 1 FROM saga_instance WHERE status IN ('running', 'compensating', 'parked') AND id > :since)"
)
_STATUSES: Final = text(
    f"SELECT {UNCOUNTED} status, count(*) FROM saga_instance WHERE id > :since GROUP BY status"
)
_ORDERS: Final = text(f"SELECT {UNCOUNTED} status, count(*) FROM orders WHERE id > :last GROUP BY status")
_LAST_ORDER: Final = text(f"SELECT {UNCOUNTED} coalesce(max(id), 0) FROM orders")
_STATUS: Final = f"SELECT {UNCOUNTED} status FROM saga_instance WHERE id = "


class Orders:
    """See `benchmarks.driving.Driven`. What was in the database before is left out of account."""

    def __init__(self, looking: Connection) -> None:
        self._looking = looking
        self._since = new_saga_id(utc_now())
        self._last = self._rows(_LAST_ORDER)[0][0]
        self._expected = {"approved": 0, "rejected": 0}

    def batch(self, count: int, *, declined: bool) -> float:
        """Take so many orders and wait until each is approved or rejected; seconds."""
        begun = time.perf_counter()
        for chunk in _chunks(count):
            take(chunk, declined=declined)
        until(self._all_ended, every=LOOK_EVERY, within=ENDED_WITHIN, what=self._told)
        seconds = time.perf_counter() - begun
        self._expect(count, declined)
        return seconds

    def one(self, *, declined: bool) -> float:
        """Take an order as the web application does, and wait for the end of its saga; seconds."""
        order = _order(declined)
        begun = time.perf_counter()
        saga_id = place(order).saga_id
        until(
            lambda: self._status(saga_id) in ("completed", "compensated"),
            every=LOOK_EVERY_ALONE,
            within=ENDED_WITHIN,
            what=self._told,
        )
        seconds = time.perf_counter() - begun
        self._expect(1, declined)
        return seconds

    def _status(self, saga_id: str) -> str:
        """Asked of the bare driver: that is done every millisecond, beside what is measured."""
        placeholder = "%s" if sagas.engine.dialect.name == "postgresql" else "?"
        with closing(self._looking.connection.cursor()) as cursor:
            cursor.execute(_STATUS + placeholder, (saga_id,))
            row = cursor.fetchone()
        assert row is not None
        return str(row[0])

    def _all_ended(self) -> bool:
        return not self._rows(_OPEN, since=self._since)[0][0]

    def _expect(self, count: int, declined: bool) -> None:
        """See that what was measured is what was asked for."""
        self._expected["rejected" if declined else "approved"] += count
        found = {"approved": 0, "rejected": 0} | dict(self._rows(_ORDERS, last=self._last))
        if found != self._expected:
            raise RuntimeError(f"the orders are {found}, and should be {self._expected}; {self._told()}")

    def _told(self) -> str:
        return f"sagas by status: {dict(self._rows(_STATUSES, since=self._since))}"

    def _rows(self, statement: TextClause, **values: object) -> list[tuple[Any, ...]]:
        rows = [tuple(row) for row in self._looking.execute(statement, values)]
        self._looking.rollback()  # the next look must see what was committed since
        return rows


def take(count: int, *, declined: bool = False) -> None:
    """So many orders and their sagas, in one transaction."""
    place_many([_order(declined) for _ in range(count)])


def _order(declined: bool) -> NewOrder:
    return NewOrder(
        consumer_id=CONSUMER,
        card_id=CARD,
        price=DECLINED_PRICE if declined else APPROVED_PRICE,
        items=[Line(name=Dish.PLAIN, quantity=QUANTITY)],
    )


def _chunks(count: int) -> Iterator[int]:
    for begun in range(0, count, CHUNK):
        yield min(CHUNK, count - begun)


@contextmanager
def _looking() -> Iterator[Connection]:
    """A connection that looks, outside every transaction where the database can do that."""
    if sagas.engine.dialect.name == "postgresql":
        with closing(sagas.engine.connect().execution_options(isolation_level="AUTOCOMMIT")) as connection:
            yield connection
    else:
        with reading(sagas.engine) as connection:
            yield connection


def wait_for_workers(orchestrators: int) -> None:
    """Wait until every service takes from its queue, and so many orchestrators take replies.

    Raises:
        TimeoutError: one of them does not come.
    """
    wanted = {sagas.reply_queue.name: orchestrators}
    wanted |= {worker_module(service).participant.service.queue.name: 1 for service in PARTICIPANTS}
    with closing(make_publisher(settings.celery_broker, [])) as broker:

        def consumers(queue: str) -> int:
            load = broker.load(queue)
            return 0 if load is None else load.consumers or 0

        until(
            lambda: all(consumers(queue) >= count for queue, count in wanted.items()),
            every=0.1,
            within=READY_WITHIN,
            what=lambda: (
                f"consumers are { ({queue: consumers(queue) for queue in wanted}) }, wanted: {wanted}"
            ),
        )


def main() -> None:
    """Serve the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orders", description=__doc__)
    parser.add_argument("--embedded", action="store_true", help="run the services as well, in this process")
    parser.add_argument("--orchestrators", type=int, default=1, help="how many are to be waited for")
    given = parser.parse_args()
    if given.embedded:
        for service in SERVICES:
            upgrade(service)
        with EmbeddedWorkers(worker_module(service).app for service in SERVICES), _looking() as connection:
            serve(Orders(connection))
    else:
        wait_for_workers(given.orchestrators)
        with _looking() as connection:
            serve(Orders(connection))


if __name__ == "__main__":
    main()
