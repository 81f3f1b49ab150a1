"""A consumer that takes what has arrived as one batch, on a connection of its own, from one thread."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from amqp.exceptions import AccessRefused
from kombu import Connection, Consumer

from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue
from sagas_framework.transport.connecting import connect, is_amqp, kombu_queue
from sagas_framework.transport.envelope import WireMessage

logger = logging.getLogger(__name__)

BATCH: Final = 200
_IDLE: Final = 1.0
"""Seconds after which a turn without messages ends, to show that the loop lives."""


class BatchConsumer:
    """Takes batches from one queue and acknowledges what was taken.

    Args:
        take: handles a batch of kombu's messages. When it raises, none of them is acknowledged: the
            connection is closed, and the broker delivers them again.
        size: messages in a batch, at most.
        turned: called after every turn with the number of messages in it.
    """

    def __init__(
        self,
        url: str,
        queue: Queue,
        take: Callable[[list[Any]], None],
        *,
        size: int = BATCH,
        turned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._queue = queue
        self._handle = take
        self._size = size
        self._turned = turned
        self._connection: Connection | None = None
        self._arrived: list[Any] = []

    def turn(self) -> None:
        """Take one batch, or find that nothing comes.

        Raises:
            StoreUnavailable, OSError: database or broker are away; turn again later.
        """
        connection = self._connected()
        try:
            self._drain(connection)
            batch, self._arrived = self._arrived[: self._size], self._arrived[self._size :]
            if batch:
                self._handle(batch)
                self._acknowledge(connection, batch)
            if connection.heartbeat:
                connection.heartbeat_check()
        except connection.connection_errors + connection.channel_errors as error:
            self.close()
            raise ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._turned(len(batch))

    def close(self) -> None:
        """Give the connection back; what was not acknowledged is delivered again."""
        connection, self._connection = self._connection, None
        self._arrived = []
        if connection is not None:
            try:
                connection.release()
            except Exception:
                logger.debug("closing the consumer's connection", exc_info=True)

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._url, heartbeat=30)
            try:
                connection.connect()
                # Twice a batch: the next one arrives while this one is handled.
                consumer = Consumer(
                    connection.default_channel,
                    [kombu_queue(self._queue)],
                    on_message=lambda message: self._arrived.append(message),
                    prefetch_count=2 * self._size,
                    accept=None,
                )
                consumer.consume()
            except connection.connection_errors + connection.channel_errors as error:
                connection.release()
                raise ConnectionError(f"the queue {self._queue.name} cannot be consumed: {error}") from error
            self._connection = connection
        return self._connection

    def _drain(self, connection: Connection) -> None:
        """Wait for the first message, then take what is there: a lone one never waits for a batch to fill."""
        try:
            if not self._arrived:
                connection.drain_events(timeout=_IDLE)
            while len(self._arrived) < self._size:
                connection.drain_events(timeout=0)
        except (TimeoutError, BlockingIOError):
            pass

    def _acknowledge(self, connection: Connection, batch: list[Any]) -> None:
        if is_amqp(connection):
            batch[-1].ack(multiple=True)
        else:
            for message in batch:
                message.ack()


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
        **{
            name: message.properties[name]
            for name in ("correlation_id", "reply_to")
            if name in message.properties
        },
    }
    return WireMessage(queue, message.headers or {}, properties, data)


def check_queue(url: str, queue: Queue) -> None:
    """Declare the queue, so that an unlike declaration is found before anything runs.

    Raises:
        ConfigurationError: it exists with other arguments.
    """
    connection = connect(url)
    try:
        connection.connect()
        kombu_queue(queue)(connection.default_channel).declare()
    except AccessRefused as error:
        raise ConfigurationError(
            f"The broker does not let us declare the queue {queue.name}: {error}. "
            "Give the user permission to."
        ) from None
    except connection.channel_errors as error:
        raise ConfigurationError(
            f"The queue {queue.name} exists and was declared otherwise: {error}. Every publisher and worker "
            "must declare it alike; delete it when it is empty, or give the type that it has: "
            f"Queue({queue.name!r}, type=QueueType.CLASSIC)."
        ) from None
    finally:
        connection.release()
