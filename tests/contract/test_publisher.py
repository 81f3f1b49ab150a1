"""What every publisher promises the shell, and what RabbitMQ adds to it."""

from __future__ import annotations

import logging
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from kombu import Connection
from kombu import Queue as KombuQueue

from sagas_framework.events import EXCHANGE, EventQueue
from sagas_framework.messages import Queue, QueueType
from sagas_framework.transport.amqp import AmqpPublisher
from sagas_framework.transport.connecting import connect, kombu_queue
from sagas_framework.transport.envelope import Envelope, WireMessage, to_wire
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire
from sagas_framework.transport.generic import KombuPublisher, make_publisher
from sagas_framework.transport.publisher import Load, Publisher, Receipt
from tests.contract.looking import BOUNDED, depth, in_thread
from tests.servers import wait_until


def a_queue(type_: QueueType = QueueType.QUORUM) -> Queue:
    return Queue(f"test.{uuid4().hex[:12]}", type_)


def a_message(queue: Queue, number: int = 1, **properties: Any) -> WireMessage:
    wire = to_wire(
        Envelope(
            queue=queue.name,
            task="restaurant_service.create_ticket",
            message_id=str(uuid4()),
            saga_id="saga-1",
            payload={"number": number, "text": "naïve \U0001f355"},
            reply_to="order_service.replies",
            headers={"saga_attempt": 1, "saga_not_after": "2026-03-01T12:00:00+00:00"},
        )
    )
    return WireMessage(wire.queue, wire.headers, {**wire.properties, **properties}, wire.body)


def an_event_queue(*topics: str) -> EventQueue:
    return EventQueue(f"test.{uuid4().hex[:12]}", topics=topics)


def an_event(topic: str) -> WireMessage:
    return event_to_wire(EventEnvelope(str(uuid4()), topic, '{"kilos":5}', datetime.now(UTC), 1))


class Broker:
    """The other side of a broker, seen through plain kombu."""

    def __init__(self, url: str) -> None:
        self.url = url

    def declare(self, queue: Queue) -> None:
        with connect(self.url) as connection:
            kombu_queue(queue)(connection.default_channel).declare()

    def delete(self, queue: Queue) -> None:
        with connect(self.url) as connection:
            channel: Any = connection.default_channel
            channel.queue_delete(queue.name)

    def take(self, queue: Queue) -> list[WireMessage]:
        """What waits in the queue, in order, byte for byte."""
        with connect(self.url) as connection:
            return self._take(connection, queue)

    @staticmethod
    def _take(connection: Connection, queue: Queue) -> list[WireMessage]:
        channel: Any = connection.default_channel
        channel.auto_decode = False
        bound = KombuQueue(queue.name)(channel)
        taken: list[WireMessage] = []
        while (message := bound.get(no_ack=True)) is not None:
            body = message.body if isinstance(message.body, bytes) else str(message.body).encode()
            properties = {
                **message.properties,
                "content_type": message.content_type,
                "content_encoding": message.content_encoding,
            }
            # A quorum queue counts deliveries in a header of its own.
            headers = {name: v for name, v in message.headers.items() if name != "x-delivery-count"}
            taken.append(WireMessage(queue.name, headers, properties, body))
        return taken


class PublisherContract(ABC):
    """What every Publisher promises. Subclass it with a fixture `broker`."""

    @abstractmethod
    def publisher_for(self, url: str, queues: Iterable[Queue]) -> Publisher: ...

    @pytest.fixture
    def queue(self, broker: Broker) -> Iterator[Queue]:
        queue = a_queue()
        yield queue
        broker.delete(queue)

    @pytest.fixture
    def publisher(self, broker: Broker, queue: Queue) -> Iterator[Publisher]:
        """A publisher that declares `queue`."""
        with closing(self.publisher_for(broker.url, [queue])) as publisher:
            yield publisher

    def test_what_is_confirmed_is_there_once_in_order_and_byte_for_byte(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        sent = [a_message(queue, number) for number in range(5)]

        receipts = publisher.publish(sent)

        assert receipts == [Receipt.CONFIRMED] * 5
        taken = broker.take(queue)
        assert [message.body for message in taken] == [message.body for message in sent]
        assert [dict(message.headers) for message in taken] == [dict(message.headers) for message in sent]
        for got, want in zip(taken, sent, strict=True):
            named = ("correlation_id", "reply_to", "content_type", "content_encoding")
            assert {name: got.properties[name] for name in named} == {
                name: want.properties[name] for name in named
            }

    def test_nothing_to_publish_is_nothing_to_confirm(self, publisher: Publisher) -> None:
        assert publisher.publish([]) == []

    def test_a_queue_that_another_declared_is_published_to(
        self, publisher: Publisher, broker: Broker
    ) -> None:
        others = a_queue()
        broker.declare(others)

        assert publisher.publish([a_message(others)]) == [Receipt.CONFIRMED]
        assert len(broker.take(others)) == 1
        broker.delete(others)

    def test_a_queue_that_nobody_declared_is_unroutable_and_its_neighbours_are_confirmed(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        nowhere = a_queue()
        sent = [a_message(queue, 1), a_message(nowhere), a_message(queue, 2), a_message(nowhere)]

        receipts = publisher.publish(sent)

        assert receipts == [Receipt.CONFIRMED, Receipt.UNROUTABLE, Receipt.CONFIRMED, Receipt.UNROUTABLE]
        assert [message.body for message in broker.take(queue)] == [sent[0].body, sent[2].body]

    def test_what_bears_no_id_is_unroutable_too(self, publisher: Publisher, queue: Queue) -> None:
        # A stranger's message, replayed from the quarantine.
        stranger = WireMessage(a_queue().name, {}, {"content_type": "text/plain"}, b"hello")

        assert publisher.publish([stranger, a_message(queue)]) == [Receipt.UNROUTABLE, Receipt.CONFIRMED]

    def test_a_queue_declared_later_is_routable_then(self, publisher: Publisher, broker: Broker) -> None:
        late = a_queue()
        assert publisher.publish([a_message(late)]) == [Receipt.UNROUTABLE]

        broker.declare(late)

        assert publisher.publish([a_message(late)]) == [Receipt.CONFIRMED]
        broker.delete(late)

    def test_a_queue_of_ours_that_was_deleted_is_declared_again(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        publisher.publish([a_message(queue, 1)])
        broker.delete(queue)

        receipts = publisher.publish([a_message(queue, 2), a_message(queue, 3)])

        assert receipts == [Receipt.CONFIRMED] * 2
        assert len(broker.take(queue)) == 2

    def test_the_depth_is_what_waits_in_the_queue(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        publisher.publish([a_message(queue, number) for number in range(3)])
        assert depth(publisher, queue.name) == 3

        # What somebody has taken and not acknowledged does not wait.
        with connect(broker.url) as connection:
            taken = KombuQueue(queue.name)(connection.default_channel).get()
            assert taken is not None
            wait_until(lambda: depth(publisher, queue.name) == 2, "one is being handled", BOUNDED)
            taken.requeue()
            wait_until(lambda: depth(publisher, queue.name) == 3, "it came back", BOUNDED)

        assert len(broker.take(queue)) == 3
        assert depth(publisher, queue.name) == 0

    def test_a_queue_that_does_not_exist_holds_nothing(self, publisher: Publisher, queue: Queue) -> None:
        assert depth(publisher, a_queue().name) == 0
        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]  # asking has broken nothing
        assert depth(publisher, queue.name) == 1

    def test_a_thousand_messages_go_in_one_batch(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        sent = [a_message(queue, number) for number in range(1000)]

        assert publisher.publish(sent) == [Receipt.CONFIRMED] * 1000

        assert [message.body for message in broker.take(queue)] == [message.body for message in sent]

    def test_threads_share_a_publisher(self, publisher: Publisher, broker: Broker, queue: Queue) -> None:
        gate = threading.Barrier(6)

        def publish(thread: int) -> list[Receipt]:
            gate.wait(BOUNDED)
            receipts: list[Receipt] = []
            for batch in range(5):
                number = 100 * thread + 10 * batch
                receipts += publisher.publish([a_message(queue, number), a_message(queue, number + 1)])
                depth(publisher, queue.name)
            return receipts

        running = [in_thread(lambda n=n: publish(n)) for n in range(6)]  # type: ignore[misc]

        assert [one.result(BOUNDED) for one in running] == [[Receipt.CONFIRMED] * 10] * 6
        assert len({message.body for message in broker.take(queue)}) == 60

    def test_a_topic_goes_to_each_queue_that_is_bound_to_it_once(
        self, publisher: Publisher, broker: Broker
    ) -> None:
        topic, other = f"mill.{uuid4().hex[:12]}", f"mill.{uuid4().hex[:12]}"
        shop, inn, deaf = an_event_queue(topic), an_event_queue(topic, other), an_event_queue(other)
        for bound in (shop, inn, deaf):
            broker.declare(bound)
        sent = [an_event(topic), an_event(topic)]

        assert publisher.publish(sent) == [Receipt.CONFIRMED] * 2

        for bound in (shop, inn):
            assert [message.body for message in broker.take(bound)] == [message.body for message in sent]
        assert broker.take(deaf) == []
        for bound in (shop, inn, deaf):
            broker.delete(bound)

    def test_a_topic_to_which_nobody_is_bound_is_no_error_and_its_neighbours_are_confirmed(
        self, publisher: Publisher, queue: Queue, broker: Broker
    ) -> None:
        sent = [a_message(queue), an_event(f"mill.{uuid4().hex}"), a_message(queue)]

        assert publisher.publish(sent) == [Receipt.CONFIRMED] * 3
        assert len(broker.take(queue)) == 2

    def test_a_closed_publisher_connects_again_when_it_is_used(
        self, publisher: Publisher, queue: Queue
    ) -> None:
        publisher.publish([a_message(queue)])

        publisher.close()
        publisher.close()

        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]


class Memory(Broker):
    """kombu's memory, which does not delete a queue that is bound to the default exchange only."""

    def delete(self, queue: Queue) -> None:
        with connect(self.url) as connection:
            channel: Any = connection.default_channel
            channel.queues.pop(queue.name, None)


class TestKombuPublisher(PublisherContract):
    """In memory. A process that forks has another memory, and the broker is never away."""

    def publisher_for(self, url: str, queues: Iterable[Queue]) -> Publisher:
        return KombuPublisher(url, queues)

    @pytest.fixture
    def broker(self) -> Broker:
        return Memory("memory://")

    def test_who_takes_from_a_queue_is_not_known(self, publisher: Publisher, queue: Queue) -> None:
        publisher.publish([a_message(queue)])

        assert publisher.load(queue.name) == Load(1, None)

    def test_it_is_the_publisher_for_a_broker_in_memory(self) -> None:
        assert isinstance(make_publisher("memory://"), KombuPublisher)

    def test_a_broker_that_is_away_takes_nothing_and_raises_nothing(self) -> None:
        # In memory none is ever away; Redis stands for kombu's other transports.
        queue = a_queue()
        with closing(KombuPublisher("redis://127.0.0.1:1/0", [queue])) as publisher:
            assert publisher.publish([a_message(queue), a_message(queue)]) == [Receipt.UNSENT] * 2
            assert depth(publisher, queue.name) is None


def test_topics_go_through_redis_too(redis_url: str) -> None:
    broker, topic = Broker(redis_url), f"mill.{uuid4().hex[:12]}"
    bound, deaf = an_event_queue(topic), an_event_queue("mill.other")
    broker.declare(bound)
    broker.declare(deaf)

    with closing(KombuPublisher(redis_url)) as publisher:
        assert publisher.publish([an_event(topic), an_event("mill.unheard_of")]) == [Receipt.CONFIRMED] * 2

    assert len(broker.take(bound)) == 1
    assert broker.take(deaf) == []


class TestAmqpPublisher(PublisherContract):
    def publisher_for(self, url: str, queues: Iterable[Queue]) -> Publisher:
        return AmqpPublisher(url, queues)

    @pytest.fixture
    def broker(self, rabbitmq_module_url: str) -> Broker:
        return Broker(rabbitmq_module_url)

    def test_it_is_the_publisher_for_rabbitmq(self, broker: Broker) -> None:
        assert isinstance(make_publisher(broker.url), AmqpPublisher)

    @pytest.mark.parametrize("type_", list(QueueType))
    def test_queues_of_both_types_take_persistent_messages(self, broker: Broker, type_: QueueType) -> None:
        queue = a_queue(type_)
        with closing(AmqpPublisher(broker.url, [queue])) as publisher:
            assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]

        (taken,) = broker.take(queue)
        assert taken.properties["delivery_mode"] == 2
        broker.declare(queue)  # alike for everybody, so declaring it again is no conflict
        broker.delete(queue)

    def test_the_load_counts_who_takes_from_the_queue(
        self, publisher: Publisher, broker: Broker, queue: Queue
    ) -> None:
        def load() -> Load | None:
            return publisher.load(queue.name)

        publisher.publish([a_message(queue)])
        assert load() == Load(1, 0)

        with connect(broker.url) as worker:
            consumer = worker.Consumer(
                [kombu_queue(queue)(worker.default_channel)], callbacks=[lambda *_: None]
            )
            consumer.consume()
            wait_until(lambda: load() == Load(0, 1), "the worker has taken it", BOUNDED)

        wait_until(lambda: load() == Load(1, 0), "the worker is gone, and its message is back", BOUNDED)

    def test_an_exchange_of_another_type_takes_nothing_and_the_log_says_why(
        self, rabbitmq_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        queue = a_queue()
        with connect(rabbitmq_url) as connection:
            channel: Any = connection.default_channel
            channel.exchange_declare(EXCHANGE, "fanout", durable=True, auto_delete=False)

        with closing(AmqpPublisher(rabbitmq_url, [queue])) as publisher, caplog.at_level(logging.ERROR):
            receipts = publisher.publish([a_message(queue), an_event("mill.flour"), a_message(queue)])

        assert receipts == [Receipt.CONFIRMED, Receipt.UNSENT, Receipt.CONFIRMED]
        assert f"the broker refuses the topic exchange {EXCHANGE}" in caplog.text

    def test_nobody_takes_from_a_queue_that_does_not_exist(self, publisher: Publisher) -> None:
        assert publisher.load(a_queue().name) == Load(0, 0)

    @pytest.mark.parametrize("ours", list(QueueType))
    def test_a_queue_of_another_type_takes_nothing_and_the_log_says_why(
        self, broker: Broker, queue: Queue, ours: QueueType, caplog: pytest.LogCaptureFixture
    ) -> None:
        theirs = QueueType.CLASSIC if ours is QueueType.QUORUM else QueueType.QUORUM
        clash = a_queue(ours)
        broker.declare(Queue(clash.name, theirs))

        with closing(AmqpPublisher(broker.url, [queue, clash])) as publisher:
            for _ in range(2):
                sent = [a_message(queue, 1), a_message(clash), a_message(queue, 2)]
                with caplog.at_level(logging.ERROR):
                    receipts = publisher.publish(sent)
                assert receipts == [Receipt.CONFIRMED, Receipt.UNSENT, Receipt.CONFIRMED]

        assert (
            f"{clash.name} is a {theirs.value} queue, and here it is declared as {ours.value}" in caplog.text
        )
        assert len(broker.take(queue)) == 4
        assert broker.take(clash) == []
        broker.delete(clash)

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_fork_gets_a_connection_of_its_own(self, broker: Broker, queue: Queue) -> None:
        with closing(AmqpPublisher(broker.url, [queue])) as publisher:
            assert publisher.publish([a_message(queue, 1)]) == [Receipt.CONFIRMED]

            child = os.fork()
            if child == 0:
                confirmed = False
                try:
                    confirmed = publisher.publish([a_message(queue, 2)]) == [Receipt.CONFIRMED]
                finally:
                    os._exit(0 if confirmed else 1)
            _, status = os.waitpid(child, 0)
            after_it = publisher.publish([a_message(queue, 3)])

        assert os.waitstatus_to_exitcode(status) == 0
        assert after_it == [Receipt.CONFIRMED]
        assert len(broker.take(queue)) == 3

    def test_a_refused_password_takes_nothing_and_raises_nothing(self, broker: Broker, queue: Queue) -> None:
        url = broker.url.replace("guest:guest", "guest:wrong")
        if url == broker.url:
            url = broker.url.replace("://", "://nobody:wrong@" if "@" not in broker.url else "://x")
        with closing(AmqpPublisher(url, [queue])) as publisher:
            assert publisher.publish([a_message(queue)]) == [Receipt.UNSENT]
            assert depth(publisher, queue.name) is None
