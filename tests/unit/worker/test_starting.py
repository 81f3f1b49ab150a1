"""Waiting for servers before anything is taken from a queue."""

from __future__ import annotations

import gc
import logging
import os
import threading
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from celery.exceptions import WorkerShutdown
from celery.worker import state
from sqlalchemy import QueuePool

from sagas_framework import ConfigurationError, DefinitionError
from sagas_framework.storage.database import Database
from sagas_framework.worker.starting import (
    Away,
    Need,
    broker_need,
    collect_seldom,
    database_need,
    or_exit,
    wait_for,
)


class Server:
    """Away so many times, then there."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.asked = 0

    def attempt(self) -> None:
        self.asked += 1
        if self.asked <= self.away:
            raise Away("connection refused")


def test_what_is_there_is_not_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(away=0)

    wait_for([Need("the server", server.attempt)], sleep=lambda _: pytest.fail("it slept"))

    assert server.asked == 1
    assert caplog.messages == []


def test_a_server_that_is_away_for_a_minute_makes_one_line_every_30_seconds(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = Server(away=61)
    slept: list[float] = []

    wait_for([Need("the server", server.attempt)], sleep=slept.append)

    assert sum(slept) == 61
    assert caplog.messages == [
        "waiting for the server: connection refused",
        "waiting for the server: connection refused",
        "waiting for the server: connection refused",
        "the server is there after 61 s",
    ]


def test_the_second_need_is_tried_only_once_the_first_is_there() -> None:
    first, second = Server(away=3), Server(away=0)

    wait_for([Need("first", first.attempt), Need("second", second.attempt)], sleep=lambda _: None)

    assert (first.asked, second.asked) == (4, 1)


def test_a_worker_that_is_told_to_stop_stops_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "should_stop", 0)

    with pytest.raises(WorkerShutdown):
        wait_for([Need("the server", Server(away=10**9).attempt)], sleep=lambda _: pytest.fail("it slept"))


def test_a_wrong_setting_is_not_waited_for() -> None:
    def refuse() -> None:
        raise ConfigurationError("wrong password")

    with pytest.raises(ConfigurationError):
        wait_for([Need("the server", refuse)], sleep=lambda _: pytest.fail("it slept"))


@pytest.mark.parametrize("error", [ConfigurationError("wrong password"), DefinitionError("no such step")])
def test_a_wrong_setting_ends_the_worker_with_one_line(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(SystemExit) as ended, or_exit():
        raise error

    assert ended.value.code == os.EX_CONFIG
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [
        (logging.CRITICAL, str(error))
    ]
    assert caplog.records[0].exc_info is None


def test_a_database_that_nobody_serves_is_away_and_its_password_is_not_told() -> None:
    need = database_need(Database("order_service", "postgresql://ann:secret@127.0.0.1:1/orders"))

    with pytest.raises(Away) as away:
        need.attempt()

    assert "secret" not in str(away.value) + need.name
    assert need.name == "the database postgresql://ann:***@127.0.0.1:1/orders"


def test_a_broker_that_nobody_serves_is_away_and_its_password_is_not_told() -> None:
    need = broker_need("amqp://ann:secret@127.0.0.1:1//")

    with pytest.raises(Away) as away:
        need.attempt()

    assert "secret" not in str(away.value) + need.name


@pytest.mark.parametrize("address", ["amqp://ann:secret@host:port/", "no-such-transport://ann:secret@host/"])
def test_a_malformed_broker_address_is_told_without_its_password(address: str) -> None:
    with pytest.raises(ConfigurationError, match="cannot be used") as wrong:
        broker_need(address).attempt()

    assert "secret" not in str(wrong.value)


def test_an_old_schema_is_told_with_the_command_that_mends_it(tmp_path: object) -> None:
    need = database_need(Database("order_service", f"sqlite:///{tmp_path}/orders.sqlite"))

    with pytest.raises(ConfigurationError, match=r"Run: saga -A order_service\.worker db upgrade"):
        need.attempt()


def test_looking_for_the_database_neither_keeps_a_connection_nor_takes_those_in_use(tmp_path: object) -> None:
    database = Database("order_service", f"sqlite:///{tmp_path}/orders.sqlite", poolclass=QueuePool)
    database.upgrade()
    need = database_need(database)

    with database.engine.connect():
        need.attempt()

    # What another part of the worker had in hand went back to the pool that it came from.
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 1
    database.engine.dispose()
    need.attempt()
    pool = database.engine.pool
    assert isinstance(pool, QueuePool)
    assert pool.checkedin() == 0


def test_a_start_that_was_given_up_does_not_happen_later() -> None:
    stopping = threading.Event()
    server = Server(away=10)

    with pytest.raises(WorkerShutdown):
        wait_for([Need("the server", server.attempt)], stopping=stopping, sleep=lambda _: stopping.set())

    assert server.asked == 2


def test_a_password_in_an_addresss_query_is_not_told() -> None:
    need = database_need(
        Database("order_service", "postgresql://127.0.0.1:1/orders?user=ann&password=secret")
    )

    with pytest.raises(Away) as away:
        need.attempt()

    assert "secret" not in str(away.value) + need.name


@pytest.fixture
def collector() -> Iterator[None]:
    """The collector as it is in a new process; afterwards as it was."""
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.unfreeze()
    gc.set_threshold(*before)


@pytest.mark.usefixtures("collector")
def test_a_worker_of_its_own_leaves_what_was_imported_out_of_collections() -> None:
    before = gc.get_threshold()

    collect_seldom(SimpleNamespace(app=SimpleNamespace()))

    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() > before


@pytest.mark.usefixtures("collector")
def test_a_process_with_something_else_in_it_collects_as_before() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()

    collect_seldom(SimpleNamespace(app=SimpleNamespace(saga_stopping=threading.Event())))

    assert (gc.get_threshold(), gc.get_freeze_count()) == before
