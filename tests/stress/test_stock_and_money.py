"""Orders of every ending while workers die at random moments: stock and money are conserved.

What runs is the second journey as it is: its five services on RabbitMQ and PostgreSQL, its HTTP API with an
approver. 60 orders fit into every run of the tests; SAGAS_STRESS_MIXED=300 is a release's, and
SAGAS_STRESS_SEED chooses other moments.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.servers import free_ports, wait_until
from tests.stress.conserved import assert_conserved, assert_nothing_is_left
from tests.stress.customers import APPROVER, PLENTY, TOKEN, Kind, Market, Wanted, mixed
from tests.stress.fleet import REPLIES, Fleet

ORDERS: Final = int(os.environ.get("SAGAS_STRESS_MIXED", "60"))
SEED: Final = int(os.environ.get("SAGAS_STRESS_SEED", "7"))
KILLS: Final = max(ORDERS // 6, 6)
"""While orders come in; those during the maintenance come on top."""
PAUSE: Final = 1.5  # seconds between two kills, on average

SERVICES: Final = (
    "order_service",
    "inventory_service",
    "accounting_service",
    "delivery_service",
    "notification_service",
)
EVENTS: Final = "notification_service.events"
QUEUES: Final = (REPLIES, *(f"{service}.commands" for service in SERVICES[1:4]), EVENTS)

_FILL_UP: Final = """
import sys
from sqlalchemy.orm import Session
from inventory_service import stock
from inventory_service.handlers import participant
with Session(participant.engine) as session, session.begin():
    for item in sys.argv[2:]:
        stock.restock(session, item, int(sys.argv[1]))
"""
_SWITCH: Final = """
import sys
from datetime import UTC, datetime
from sqlalchemy.orm import Session
from delivery_service import shipping
from delivery_service.handlers import participant
with Session(participant.engine) as session, session.begin():
    assert shipping.switch(session, active=sys.argv[1] == "on", by="olga", at=datetime.now(UTC))
"""

pytestmark = pytest.mark.timeout(1800)


class Reaper(threading.Thread):
    """Kills workers at random moments, and starts each again a moment later."""

    def __init__(self, fleet: Fleet, chance: random.Random, kills: int) -> None:
        super().__init__(name="reaper")
        self.killed: Counter[str] = Counter()
        self._fleet, self._chance, self._kills = fleet, chance, kills

    def run(self) -> None:
        while sum(self.killed.values()) < self._kills:
            time.sleep(self._chance.uniform(0.2, 2 * PAUSE - 0.7))
            victim = self._chance.choice(SERVICES)
            self._fleet.kill(victim)
            time.sleep(self._chance.uniform(0.0, 0.5))
            self._fleet.worker(victim)
            self.killed[victim] += 1


@pytest.fixture
def fleet(rabbitmq_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """The services of the second journey, nothing of them running yet."""
    environment = {"APPROVER_TOKENS": f"{APPROVER}:{TOKEN}"}
    fleet = Fleet(rabbitmq_url, postgres_url, tmp_path, environment, SERVICES)
    yield fleet
    fleet.stop()


def test_stock_and_money_are_conserved_whoever_dies_meanwhile(fleet: Fleet) -> None:
    chance = random.Random(SEED)
    port, hasty = free_ports(2)
    fleet.web("web", port, {})
    fleet.web("hasty", hasty, {"APPROVAL_DEADLINE": "2"})
    fleet.python(_FILL_UP, str(10 * ORDERS), *PLENTY)
    fleet.python(_SWITCH, "on")
    for service in SERVICES:
        fleet.worker(service)
    market = Market(port, hasty)
    # What is told before anybody listens is told to nobody.
    wait_until(lambda: fleet.consumers(EVENTS) > 0, "the notification service listens", 60)

    reaper = Reaper(fleet, chance, 2)
    reaper.start()
    unshipped = [Wanted(number, Kind.IN_MAINTENANCE) for number in range(max(ORDERS // 10, 3))]
    orders = market.order_all(unshipped, seconds=2 * PAUSE)
    reaper.join()
    fleet.wait_until_all_ended(within=180)
    fleet.python(_SWITCH, "off")

    reaper = Reaper(fleet, chance, KILLS)
    reaper.start()
    rest = mixed(ORDERS - len(unshipped), first=len(unshipped))
    orders |= market.order_all(rest, seconds=KILLS * PAUSE)
    reaper.join()
    took = fleet.wait_until_all_ended(within=180 + ORDERS)

    wait_until(lambda: _settled(fleet), "all events are handled and all queues empty", 120)
    for service in SERVICES:
        fleet.kill(service)  # what it held without acknowledging is in its queue again
    assert {queue: fleet.waiting(queue) for queue in QUEUES} == dict.fromkeys(QUEUES, 0)
    assert len(orders) == ORDERS
    ended = assert_conserved(fleet, orders)
    assert_nothing_is_left(fleet)
    print(f"{ended}; the last {took:.0f} s after the last kill; killed {dict(reaper.killed)}")


def _settled(fleet: Fleet) -> bool:
    unsent = "SELECT count(*) FROM saga_outbox WHERE sent_at IS NULL"
    left = (
        fleet.query(service, statement)[0][0]
        for service, statement in (
            ("order_service", unsent),
            ("accounting_service", unsent),
            ("notification_service", "SELECT count(*) FROM saga_event WHERE state <> 'done'"),
        )
    )
    return not any(left) and all(fleet.waiting(queue) == 0 for queue in QUEUES)
