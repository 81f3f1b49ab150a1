"""What every consumer's connection promises, through RabbitMQ and through kombu's memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection, Producer

from sagas_framework.messages import Queue, QueueType
from sagas_framework.transport.arrivals import AmqpArrivals, Arrivals, KombuArrivals, arrivals
from sagas_framework.transport.connecting import connect
from sagas_framework.transport.envelope import WireMessage, from_wire
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher, Receipt
from tests.contract.looking import BOUNDED
from tests.contract.test_publisher import Broker, Memory, a_message, a_queue
from tests.servers import OwnRabbitmq, wait_until

AHEAD = 8


def take(come: Arrivals, count: int) -> list[WireMessage]:
    """Wait for so many messages."""
    while len(come.messages) < count:
        come.take_in(BOUNDED)
    return come.messages


def nothing_comes(come: Arrivals) -> bool:
    try:
        come.take_in(0.3)
    except TimeoutError:
        return True
    return False


class ArrivalsContract(ABC):
    """Subclass it with a fixture `broker`."""

    @pytest.fixture
    def queue(self, broker: Broker) -> Iterator[Queue]:
        queue = a_queue(QueueType.CLASSIC)
        broker.declare(queue)
        yield queue
        broker.delete(queue)

    @pytest.fixture
    def publisher(self, broker: Broker, queue: Queue) -> Iterator[Publisher]:
        with closing(make_publisher(broker.url, [queue])) as publisher:
            yield publisher

    @pytest.fixture
    def come(self, broker: Broker, queue: Queue) -> Iterator[Arrivals]:
        with closing(arrivals(broker.url, queue, AHEAD)) as come:
            yield come

    @pytest.fixture
    @abstractmethod
    def broker(self) -> Broker: ...

    def test_messages_arrive_in_order_and_as_they_were_sent(
        self, come: Arrivals, publisher: Publisher, queue: Queue
    ) -> None:
        sent = [a_message(queue, number) for number in range(5)]
        publisher.publish(sent)

        got = take(come, 5)

        assert [message.body for message in got] == [message.body for message in sent]
        for message, was in zip(got, sent, strict=True):
            assert message.queue == queue.name
            assert dict(message.headers) | dict(was.headers) == dict(message.headers)
            expected = {name: value for name, value in was.properties.items() if name != "delivery_mode"}
            assert message.properties == expected
            assert from_wire(message) == from_wire(was)

    def test_nothing_comes_from_an_empty_queue(self, come: Arrivals) -> None:
        assert nothing_comes(come)
        assert come.messages == []

    def test_no_more_are_sent_ahead_than_asked_for(
        self, come: Arrivals, publisher: Publisher, queue: Queue
    ) -> None:
        publisher.publish([a_message(queue, number) for number in range(3 * AHEAD)])

        take(come, AHEAD)
        assert nothing_comes(come)
        come.acknowledge(AHEAD)
        take(come, AHEAD)
        assert nothing_comes(come)

    def test_strangers_messages_arrive_as_well(self, broker: Broker, come: Arrivals, queue: Queue) -> None:
        with connect(broker.url) as connection, Producer(connection.default_channel) as producer:
            headers: dict[str, Any] = {"list": [None, 1], "table": {"deep": "yes"}, "large": 2**40}
            producer.publish(
                "hello", routing_key=queue.name, headers=headers, priority=3, content_type="text/plain"
            )

        (message,) = take(come, 1)

        assert message.body == b"hello"
        assert message.properties["content_type"] == "text/plain"
        assert {name: message.headers[name] for name in headers} == headers

    def test_a_sign_of_life_changes_nothing(self, come: Arrivals, publisher: Publisher, queue: Queue) -> None:
        come.live()
        publisher.publish([a_message(queue)])

        assert len(take(come, 1)) == 1


class TestKombuArrivals(ArrivalsContract):
    """In memory. What was not acknowledged is lost with the connection, and sent again from the rows."""

    @pytest.fixture
    def broker(self) -> Broker:
        return Memory("memory://")

    def test_it_is_what_takes_from_memory(self, come: Arrivals) -> None:
        assert isinstance(come, KombuArrivals)


class TestAmqpArrivals(ArrivalsContract):
    @pytest.fixture
    def broker(self, rabbitmq_module_url: str) -> Broker:
        return Broker(rabbitmq_module_url)

    def test_it_is_what_takes_from_rabbitmq(self, come: Arrivals) -> None:
        assert isinstance(come, AmqpArrivals)

    def test_what_was_acknowledged_is_gone_and_the_rest_comes_again(
        self, broker: Broker, come: Arrivals, publisher: Publisher, queue: Queue
    ) -> None:
        sent = [a_message(queue, number) for number in range(5)]
        publisher.publish(sent)
        take(come, 5)

        come.acknowledge(2)
        assert [message.body for message in come.messages] == [message.body for message in sent[2:]]
        come.acknowledge(1)
        come.close()

        with closing(arrivals(broker.url, queue, AHEAD)) as again:
            assert [message.body for message in take(again, 2)] == [message.body for message in sent[3:]]

    def test_large_messages_arrive_whole(self, come: Arrivals, publisher: Publisher, queue: Queue) -> None:
        sent = [WireMessage(queue.name, {"n": n}, {}, bytes([n]) * 700_000) for n in range(3)]

        assert publisher.publish(sent) == [Receipt.CONFIRMED] * 3

        assert [message.body for message in take(come, 3)] == [message.body for message in sent]

    def test_large_messages_without_a_queue_all_come_back(self, publisher: Publisher) -> None:
        sent = [WireMessage(f"nowhere.{uuid4()}", {}, {}, bytes([n]) * 700_000) for n in range(20)]

        assert publisher.publish(sent) == [Receipt.UNROUTABLE] * 20

    def test_a_queue_that_is_deleted_is_an_error_of_the_connection(
        self, broker: Broker, come: Arrivals, queue: Queue
    ) -> None:
        broker.delete(queue)

        with pytest.raises(come.errors):
            take(come, 1)

    def test_a_queue_that_cannot_be_consumed_says_so(self, broker: Broker, queue: Queue) -> None:
        with pytest.raises(ConnectionError, match="cannot be consumed"):
            arrivals(broker.url, Queue(queue.name, QueueType.QUORUM), AHEAD)


def test_a_broker_that_is_away_says_so() -> None:
    with pytest.raises(ConnectionError, match="cannot be consumed"):
        arrivals("amqp://guest:guest@127.0.0.1:1//", a_queue(), AHEAD)


def test_a_broker_that_dies_has_what_was_not_acknowledged_when_it_is_back(own_rabbitmq: OwnRabbitmq) -> None:
    queue = a_queue(QueueType.CLASSIC)
    sent = [a_message(queue, number) for number in range(3)]
    with closing(make_publisher(own_rabbitmq.url, [queue])) as publisher:
        publisher.publish(sent)
        with closing(arrivals(own_rabbitmq.url, queue, AHEAD)) as come:
            take(come, 3)
            come.acknowledge(1)
            wait_until(lambda: _unacknowledged(own_rabbitmq.url, queue) == 0, "nothing waits", BOUNDED)

            own_rabbitmq.stop()
            with pytest.raises(come.errors):
                take(come, 4)
        own_rabbitmq.start()

        with closing(arrivals(own_rabbitmq.url, queue, AHEAD)) as again:
            assert [message.body for message in take(again, 2)] == [message.body for message in sent[1:]]


def _unacknowledged(url: str, queue: Queue) -> int:
    """How many messages wait; what was delivered does not."""
    with Connection(url) as connection:
        channel: Any = connection.default_channel
        return int(channel.queue_declare(queue.name, passive=True).message_count)
