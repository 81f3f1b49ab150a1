"""What comes from one queue: taken in as it arrives, acknowledged from the oldest on."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, Final

from kombu import Connection, Consumer
from typing_extensions import override

from sagas_framework.messages import Queue
from sagas_framework.transport.connecting import connect, kombu_queue
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.frames import Content
from sagas_framework.transport.pieces import PiecesConnection

logger = logging.getLogger(__name__)

_HEARTBEAT: Final = 30
"""Seconds."""
# Of a message's properties these are kept.
_ALWAYS: Final = ("content_type", "content_encoding")
_SOMETIMES: Final = ("correlation_id", "reply_to")


class Arrivals(ABC):
    """An open connection on which messages of a queue arrive. For one thread.

    When the connection breaks, each method raises one of `errors`; it is of no more use then.
    """

    def __init__(self, connection: Connection, queue: Queue) -> None:
        self._connection = connection
        self._queue = queue.name
        self.errors = connection.connection_errors + connection.channel_errors
        self.messages: list[WireMessage] = []
        """What has arrived and is not acknowledged, oldest first."""

    @abstractmethod
    def take_in(self, timeout: float) -> None:
        """Take in what has come; if there is nothing, wait for it so many seconds.

        Raises:
            TimeoutError: nothing has come.
        """

    @abstractmethod
    def acknowledge(self, count: int) -> None:
        """Acknowledge the oldest so many messages, and forget them."""

    def live(self) -> None:
        """Send a heartbeat if it is time, and see whether the broker still does."""
        if self._connection.heartbeat:
            self._connection.heartbeat_check()

    def close(self) -> None:
        """Give the connection back; what was not acknowledged is delivered again."""
        try:
            self._connection.release()
        except Exception:
            logger.debug("closing the consumer's connection", exc_info=True)


class AmqpArrivals(Arrivals):
    """From RabbitMQ, by a connection that reads in pieces, and past kombu's layers."""

    def __init__(self, connection: Connection, queue: Queue, ahead: int) -> None:
        super().__init__(connection, queue)
        self._amqp: PiecesConnection = connection.connection
        channel: Any = connection.default_channel
        self._channel = channel
        self._tags: list[int] = []
        self._amqp.takers[channel.channel_id] = self._arrive
        kombu_queue(queue)(channel).declare()
        channel.basic_qos(0, ahead, False)
        channel.basic_consume(queue.name)

    def _arrive(self, tag: int, content: Content, body: bytes) -> None:
        told = content.properties
        properties = {name: told.get(name) for name in _ALWAYS}
        for name in _SOMETIMES:
            if name in told:
                properties[name] = told[name]
        self._tags.append(tag)
        self.messages.append(WireMessage(self._queue, content.headers, properties, body))

    @override
    def take_in(self, timeout: float) -> None:
        self._amqp.take_in(timeout)

    @override
    def acknowledge(self, count: int) -> None:
        self._channel.basic_ack(self._tags[count - 1], multiple=True)
        del self._tags[:count], self.messages[:count]


class KombuArrivals(Arrivals):
    """From any of kombu's transports."""

    def __init__(self, connection: Connection, queue: Queue, ahead: int) -> None:
        super().__init__(connection, queue)
        self._taken: list[Any] = []
        Consumer(
            connection.default_channel,
            [kombu_queue(queue)],
            on_message=self._arrive,
            prefetch_count=ahead,
            accept=None,
        ).consume()

    def _arrive(self, message: Any) -> None:
        self._taken.append(message)
        self.messages.append(wire_message(self._queue, message))

    @override
    def take_in(self, timeout: float) -> None:
        try:
            self._connection.drain_events(timeout=timeout)
        except BlockingIOError:
            raise TimeoutError from None

    @override
    def acknowledge(self, count: int) -> None:
        for message in self._taken[:count]:
            message.ack()
        del self._taken[:count], self.messages[:count]


def arrivals(url: str, queue: Queue, ahead: int) -> Arrivals:
    """Begin to consume a queue.

    Args:
        ahead: how many messages are sent to us before we have acknowledged one.

    Raises:
        ConnectionError: the broker is away, or refuses.
    """
    connection = connect(url, heartbeat=_HEARTBEAT)
    try:
        connection.connect()
        kind = AmqpArrivals if isinstance(connection.connection, PiecesConnection) else KombuArrivals
        return kind(connection, queue, ahead)
    except connection.connection_errors + connection.channel_errors as error:
        connection.release()
        raise ConnectionError(f"the queue {queue.name} cannot be consumed: {error}") from error


def wire_message(queue: str, message: Any) -> WireMessage:
    """A message of kombu's as ours."""
    body = message.body
    data = (
        body
        if isinstance(body, bytes)
        else bytes(body)
        if isinstance(body, memoryview)
        else str(body).encode()
    )
    properties = {
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        **{name: message.properties[name] for name in _SOMETIMES if name in message.properties},
    }
    return WireMessage(queue, message.headers or {}, properties, data)
