"""Publishing through any of kombu's transports; for us that is ``memory://``, the embedded default."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from sagas_framework.messages import Queue
from sagas_framework.transport.amqp import AmqpPublisher
from sagas_framework.transport.connecting import connect, is_amqp, kombu_queue, topic_exchange
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Publisher, Receipt

logger = logging.getLogger(__name__)


class KombuPublisher:
    """See `sagas_framework.transport.publisher.Publisher`.

    These transports confirm nothing, so what was handed over counts as confirmed.
    """

    def __init__(self, url: str, queues: Iterable[Queue] = ()) -> None:
        self._url = url
        self._queues = {queue.name: queue for queue in queues}
        self._lock = threading.Lock()
        transport = connect(url)
        self._link_errors: tuple[type[BaseException], ...] = (
            OSError,
            OperationalError,
            *transport.connection_errors,
            *transport.channel_errors,
        )
        self._connection: Connection | None = None
        self._declared: set[str] = set()
        self._exchanges: set[str] = set()

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        receipts = [Receipt.UNSENT] * len(messages)
        with self._lock:
            try:
                connection = self._connected()
                there = self._are_there(connection, messages)
                with Producer(connection.default_channel) as producer:
                    for index, message in enumerate(messages):
                        if (message.exchange, message.queue) not in there:
                            receipts[index] = Receipt.UNROUTABLE
                            continue
                        producer.publish(
                            message.body,
                            exchange=message.exchange,
                            routing_key=message.queue,
                            headers=dict(message.headers),
                            **message.properties,
                        )
                        receipts[index] = Receipt.CONFIRMED
            except self._link_errors as error:
                logger.warning(
                    "the broker did not take a batch of %d: %s", receipts.count(Receipt.UNSENT), error
                )
                self._drop()
        return receipts

    def _are_there(self, connection: Connection, messages: Sequence[WireMessage]) -> set[tuple[str, str]]:
        """Exchange and queue of those that can be published; that nobody subscribes to a topic is fine."""
        places = {(message.exchange, message.queue) for message in messages}
        for exchange in {exchange for exchange, _ in places if exchange} - self._exchanges:
            topic_exchange(exchange)(connection.default_channel).declare()
            self._exchanges.add(exchange)
        return {place for place in places if place[0] or self._is_there(connection, place[1])}

    def _is_there(self, connection: Connection, queue: str) -> bool:
        """Whether there is such a queue; one of ours is made, also if it was deleted."""
        self._declare(connection, queue)
        if self._waiting(connection, queue) is not None:
            return True
        self._declared.discard(queue)
        self._declare(connection, queue)
        return queue in self._declared

    def load(self, queue: str) -> Load | None:
        with self._lock:
            try:
                connection = self._connected()
                return Load(self._waiting(connection, queue) or 0)
            except self._link_errors:
                self._drop()
                return None

    def close(self) -> None:
        with self._lock:
            self._drop()

    def _connected(self) -> Connection:
        if self._connection is None:
            self._connection = connect(self._url)
            self._connection.connect()
        return self._connection

    def _declare(self, connection: Connection, name: str) -> None:
        queue = self._queues.get(name)
        if queue is not None and name not in self._declared:
            kombu_queue(queue)(connection.default_channel).declare()
            self._declared.add(name)

    @staticmethod
    def _waiting(connection: Connection, name: str) -> int | None:
        """How many messages wait in the queue; None when there is no such queue."""
        channel: Any = connection.default_channel
        try:
            return int(channel.queue_declare(name, passive=True).message_count)
        except connection.channel_errors:
            return None

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        self._declared.clear()
        self._exchanges.clear()
        if connection is not None:
            connection.release()


def make_publisher(url: str, queues: Iterable[Queue] = ()) -> Publisher:
    """The publisher that fits the broker's address.

    Raises:
        ConfigurationError: the address cannot be read.
    """
    return AmqpPublisher(url, queues) if is_amqp(connect(url)) else KombuPublisher(url, queues)
