"""The reply consumer: takes what has arrived, decides it as one batch, then acknowledges."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from amqp.exceptions import AccessRefused
from kombu import Connection, Consumer

from sagas_framework.core.events import Event
from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.participant import quarantined
from sagas_framework.points import Point, reach
from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.connecting import connect, is_amqp, kombu_queue
from sagas_framework.transport.envelope import UnreadableError, WireMessage, from_wire, reply_received

logger = logging.getLogger(__name__)

BATCH: Final = 200
_IDLE: Final = 1.0
"""Seconds after which a turn without replies ends, to show that the loop lives."""


class ReplyConsumer:
    """Consumes the reply queue on a connection of its own, from one thread.

    Acknowledged is what was committed and published, in this order (rule 20). When the store is
    away the connection is closed, and the broker delivers the batch again later.
    """

    def __init__(
        self,
        url: str,
        queue: Queue,
        orchestrator: Orchestrator,
        *,
        turned: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._queue = queue
        self._orchestrator = orchestrator
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
            batch, self._arrived = self._arrived[:BATCH], self._arrived[BATCH:]
            if batch:
                reach(Point.BATCH_TAKEN)
                self._take(batch)
                self._acknowledge(connection, batch)
                reach(Point.BATCH_ACKNOWLEDGED)
            if connection.heartbeat:
                connection.heartbeat_check()
        except connection.connection_errors + connection.channel_errors as error:
            self.close()
            raise ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._turned(f"{len(batch)} replies")

    def close(self) -> None:
        """Give the connection back; what was not acknowledged is delivered again."""
        connection, self._connection = self._connection, None
        self._arrived = []
        if connection is not None:
            try:
                connection.release()
            except Exception:
                logger.debug("closing the reply consumer's connection", exc_info=True)

    def _connected(self) -> Connection:
        if self._connection is None:
            connection = connect(self._url, heartbeat=30)
            try:
                connection.connect()
                # Twice a batch: the next one arrives while this one is decided.
                consumer = Consumer(
                    connection.default_channel,
                    [kombu_queue(self._queue)],
                    on_message=lambda message: self._arrived.append(message),
                    prefetch_count=2 * BATCH,
                    accept=None,
                )
                consumer.consume()
            except connection.connection_errors + connection.channel_errors as error:
                connection.release()
                raise ConnectionError(
                    f"the reply queue {self._queue.name} cannot be consumed: {error}"
                ) from error
            self._connection = connection
        return self._connection

    def _drain(self, connection: Connection) -> None:
        """Wait for the first reply, then take what is there: a lone saga never waits for a batch to fill."""
        try:
            if not self._arrived:
                connection.drain_events(timeout=_IDLE)
            while len(self._arrived) < BATCH:
                connection.drain_events(timeout=0)
        except (TimeoutError, BlockingIOError):
            pass

    def _take(self, batch: list[Any]) -> None:
        now = self._orchestrator.clock()
        events: list[Event] = []
        origins: dict[int, WireMessage] = {}
        for message in batch:
            wire = wire_message(self._queue.name, message)
            try:
                event: Event = reply_received(from_wire(wire), now)
            except UnreadableError as error:
                logger.error("a reply was set aside: %s", error.reason)
                self._orchestrator.set_aside(quarantined(wire, error.reason, error.path, now))
                continue
            origins[id(event)] = wire
            events.append(event)
        if not events:
            return
        left = self._orchestrator.process(
            events, lambda event, why: self._aside(origins[id(event)], why, now)
        )
        for event in left:
            logger.warning("a reply for saga %s is dropped; its command is sent again", event.saga_id)

    @staticmethod
    def _aside(wire: WireMessage, why: str, now: datetime) -> Quarantined:
        logger.error("a reply was set aside: %s", why)
        return quarantined(wire, why, "$[0][0]", now)

    @staticmethod
    def _acknowledge(connection: Connection, batch: list[Any]) -> None:
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


def check_reply_queue(url: str, queue: Queue) -> None:
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
