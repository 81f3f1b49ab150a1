"""Many orders on RabbitMQ and PostgreSQL while processes die and messages vanish: nothing is lost or doubled.

The numbers are those that fit into every run of the tests; SAGAS_STRESS_ORDERS and
SAGAS_STRESS_STOP (seconds) raise them to those of a release: 1000 and 5000 orders, 120 s.
"""

from __future__ import annotations

import os
import time
from itertools import cycle
from typing import Final

import pytest

from tests.stress.fleet import PARTICIPANTS, Fleet

ORDERS: Final = int(os.environ.get("SAGAS_STRESS_ORDERS", "150"))
STOP: Final = float(os.environ.get("SAGAS_STRESS_STOP", "35"))

pytestmark = pytest.mark.timeout(1800)


def test_every_order_ends_and_tickets_and_money_agree_with_the_orders(fleet: Fleet) -> None:
    fleet.workers()

    fleet.launch("/run-random-saga", ORDERS)

    fleet.wait_until_all_ended(within=30 + ORDERS)
    ended = fleet.assert_rows_agree()
    assert sum(ended.values()) == ORDERS


def test_the_same_while_workers_are_killed_and_the_queues_are_purged_twice(fleet: Fleet) -> None:
    fleet.workers()
    fleet.launch("/run-random-saga", ORDERS // 2)
    victims = cycle(("order_service", *PARTICIPANTS))

    purged = 0
    for round_ in range(8):
        if round_ in (2, 5):
            fleet.launch("/run-random-saga", ORDERS // 4)
            purged += fleet.purge()
        victim = next(victims)
        fleet.kill(victim)
        time.sleep(0.5)
        fleet.worker(victim)
        time.sleep(1.5)

    fleet.wait_until_all_ended(within=180 + ORDERS)
    ended = fleet.assert_rows_agree()
    assert sum(ended.values()) == ORDERS // 2 + 2 * (ORDERS // 4)
    print(f"purged {purged} messages; {ended}; {fleet.sent_again()} commands sent again")


def test_the_same_with_two_orchestrators(fleet: Fleet) -> None:
    fleet.workers(orchestrators=2)

    fleet.launch("/run-random-saga", ORDERS // 2)
    fleet.kill("order_service", 2)
    fleet.worker("order_service", 2)
    fleet.launch("/run-random-saga", ORDERS // 2)

    fleet.wait_until_all_ended(within=60 + ORDERS)
    ended = fleet.assert_rows_agree()
    assert sum(ended.values()) == 2 * (ORDERS // 2)


def test_a_backlog_at_a_stopped_participant_is_not_sent_again(fleet: Fleet) -> None:
    fleet.worker("order_service")
    fleet.worker("restaurant_service")
    fleet.worker("accounting_service")
    fleet.launch("/run-success-saga", ORDERS)
    time.sleep(STOP)  # the consumer service is down meanwhile
    assert fleet.waiting("consumer_service.commands") == ORDERS

    fleet.worker("consumer_service")

    fleet.wait_until_all_ended(within=60 + ORDERS)
    assert fleet.assert_rows_agree() == {"approved": ORDERS, "rejected": 0}
    assert fleet.sent_again() == 0
