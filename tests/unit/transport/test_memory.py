"""The broker in memory: whoever waits is woken by the message, not by a look at a clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Consumer, Exchange, Producer
from kombu import Queue as KombuQueue

from sagas_framework.transport import memory
from sagas_framework.transport.connecting import connect

BOUNDED = 30
"""Seconds after which a test that hangs fails."""


@pytest.fixture
def name() -> str:
    return f"test.{uuid4().hex[:12]}"


@pytest.fixture
def never_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_LOOK", BOUNDED)


class Taker:
    """A connection that takes from a queue."""

    def __init__(self, queue: KombuQueue) -> None:
        self.connection = connect("memory://")
        self.taken: list[Any] = []
        channel: Any = self.connection.default_channel
        self.consumer = Consumer(
            channel, [queue], on_message=lambda message: self.taken.append(message.payload), no_ack=True
        )
        self.consumer.consume()

    def take(self, timeout: float = BOUNDED) -> Any:
        self.connection.drain_events(timeout=timeout)
        return self.taken.pop()

    def close(self) -> None:
        self.connection.release()


@pytest.fixture
def taker(name: str) -> Iterator[Taker]:
    with closing(Taker(KombuQueue(name))) as taker:
        yield taker


def publish(name: str, said: str, connection: Connection | None = None) -> None:
    with connection or connect("memory://") as link, Producer(link.default_channel) as producer:
        producer.publish(said, routing_key=name, serializer="json")


def waits(taker: Taker, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Have it wait in a thread; returns once it has found nothing, with what gives its message."""
    transport: Any = taker.connection.transport
    bell = transport.bell
    asleep = threading.Event()
    wait = bell.wait

    def noted(timeout: float) -> bool:
        asleep.set()
        woken: bool = wait(timeout)
        return woken

    monkeypatch.setattr(bell, "wait", noted)
    future = pool.submit(taker.take)
    assert asleep.wait(BOUNDED)
    return lambda: future.result(BOUNDED)


@pytest.mark.usefixtures("never_looks")
def test_a_message_wakes_who_waits_for_it(taker: Taker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with ThreadPoolExecutor() as pool:
        message = waits(taker, pool, monkeypatch)
        publish(name, "rice")

        assert message() == "rice"


@pytest.mark.usefixtures("never_looks")
def test_so_does_one_of_an_exchange_that_copies_to_all(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exchange = Exchange(f"{name}.all", type="fanout")
    queue = KombuQueue(name, exchange)
    with closing(Taker(queue)) as taker, ThreadPoolExecutor() as pool:
        message = waits(taker, pool, monkeypatch)
        with connect("memory://") as link, Producer(link.default_channel, exchange) as producer:
            producer.publish("soup", serializer="json")

        assert message() == "soup"


def test_one_that_came_before_is_there(taker: Taker, name: str) -> None:
    publish(name, "rice")

    assert taker.take(timeout=0) == "rice"


def test_a_message_of_kombus_own_kind_is_found_by_looking(
    taker: Taker, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadPoolExecutor() as pool:
        message = waits(taker, pool, monkeypatch)
        publish(name, "rice", Connection("memory://", transport="kombu.transport.memory:Transport"))

        assert message() == "rice"


@pytest.mark.parametrize("seconds", [0, 0.001])
def test_nothing_comes_in_time(taker: Taker, seconds: float) -> None:
    with pytest.raises(TimeoutError):
        taker.take(timeout=seconds)
