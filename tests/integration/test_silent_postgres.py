"""A PostgreSQL whose host has vanished: nothing waits for it without end."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from sagas_framework import make_engine
from sagas_framework.storage.database import Database
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.sql import SqlStore
from sagas_framework.worker.waking import Alarm
from tests.contract.looking import BOUNDED, in_thread

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"postgresql://ann@127.0.0.1:{server.getsockname()[1]}/db"


def test_connecting_gives_up_and_says_that_the_database_is_away(silent: str) -> None:
    store = SqlStore(make_engine(f"{silent}?connect_timeout=2"))

    with pytest.raises(StoreUnavailable, match="timeout"):
        in_thread(lambda: store.next_due([("create_order", 1)])).result(BOUNDED)


def test_the_environment_names_the_time_as_well(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGCONNECT_TIMEOUT", "2")
    store = SqlStore(make_engine(silent))

    with pytest.raises(StoreUnavailable, match="timeout"):
        in_thread(lambda: store.next_due([("create_order", 1)])).result(BOUNDED)


def test_a_timekeeper_that_listens_gives_up_and_goes_on_by_looking(silent: str) -> None:
    woken = threading.Event()
    alarm = Alarm(Database("order_service", f"{silent}?connect_timeout=2"), woken)

    in_thread(lambda: alarm.sleep(timedelta(milliseconds=10))).result(BOUNDED)

    assert not woken.is_set()
    alarm.close()


@pytest.mark.skipif(sys.platform != "linux", reason="these are Linux's names for them")
def test_an_open_connection_asks_whether_its_other_end_is_there(postgres_url: str) -> None:
    engine = make_engine(postgres_url)

    with engine.connect() as connection:
        connection.execute(text("SELECT 1"))
        descriptor = connection.connection.driver_connection.fileno()  # type: ignore[union-attr]
        with socket.socket(fileno=socket.dup(descriptor)) as link:
            told = {
                name: link.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")
            }
            keeps_alive = link.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    engine.dispose()
    assert keeps_alive
    assert told == {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 30_000}
