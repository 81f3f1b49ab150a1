"""Orders in mid-flight while the servers under them stop, come back, or forget everything."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import pytest

from tests.servers import OwnPostgres, OwnRabbitmq
from tests.stress.fleet import Fleet

ORDERS: Final = 60

pytestmark = pytest.mark.timeout(600)


def test_rabbitmq_that_stops_and_comes_back_loses_no_order(
    own_rabbitmq: OwnRabbitmq, postgres_url: str, tmp_path: Path
) -> None:
    fleet = Fleet(own_rabbitmq.url, postgres_url, tmp_path)
    try:
        fleet.workers()
        fleet.launch("/run-random-saga", ORDERS)

        own_rabbitmq.stop()
        fleet.launch("/run-success-saga", 5)  # an order can be placed without a broker
        time.sleep(2)
        own_rabbitmq.start()

        fleet.wait_until_all_ended(within=240)
        assert sum(fleet.assert_rows_agree().values()) == ORDERS + 5
    finally:
        fleet.stop()


def test_rabbitmq_that_forgets_every_queue_and_message_loses_no_order(
    own_rabbitmq: OwnRabbitmq, postgres_url: str, tmp_path: Path
) -> None:
    fleet = Fleet(own_rabbitmq.url, postgres_url, tmp_path)
    try:
        fleet.workers()
        fleet.launch("/run-random-saga", ORDERS)

        own_rabbitmq.reset()
        own_rabbitmq.start()

        fleet.wait_until_all_ended(within=240)
        assert sum(fleet.assert_rows_agree().values()) == ORDERS
    finally:
        fleet.stop()


def test_postgresql_that_is_killed_and_comes_back_loses_no_order(
    rabbitmq_url: str, own_postgres: OwnPostgres, tmp_path: Path
) -> None:
    fleet = Fleet(rabbitmq_url, own_postgres.url, tmp_path)
    try:
        fleet.workers()
        fleet.launch("/run-random-saga", ORDERS)

        own_postgres.kill()
        time.sleep(2)
        own_postgres.start()

        fleet.wait_until_all_ended(within=240)
        assert sum(fleet.assert_rows_agree().values()) == ORDERS
    finally:
        fleet.stop()
