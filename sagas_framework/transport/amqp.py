"""Publishing to RabbitMQ: a batch goes out at once, and its confirmations are awaited together."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import takewhile
from typing import Any, Final

import amqp
from kombu import Connection

from sagas_framework.messages import Queue
from sagas_framework.transport.connecting import connect, queue_arguments
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt

logger = logging.getLogger(__name__)

# What a connection to RabbitMQ raises when it breaks, or when the broker closes it.
LINK_ERRORS: Final[tuple[type[Exception], ...]] = (
    OSError,
    amqp.AMQPError,
    *amqp.Connection.recoverable_connection_errors,
)


class AmqpPublisher:
    """See `sagas_framework.transport.publisher.Publisher`.

    Safe for threads; a fork gets a connection of its own.

    Args:
        queues: those that this process declares, before it first publishes to one. To others, as to
            the reply queue of an orchestrator, it only publishes.
        confirm_within: how long to wait for the broker's confirmations of a batch. RabbitMQ does not
            confirm while it has no memory or disk left.
    """

    def __init__(
        self, url: str, queues: Iterable[Queue] = (), *, confirm_within: timedelta = timedelta(seconds=10)
    ) -> None:
        self._url = url
        self._queues = {queue.name: queue for queue in queues}
        self._confirm_within = confirm_within.total_seconds()
        self._lock = threading.Lock()
        self._link: _Link | None = None

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        receipts = [Receipt.UNSENT] * len(messages)
        todo: Sequence[int] = range(len(messages))
        with self._lock:
            if any(message.once for message in messages):
                self._renew(messages[0].queue)
            # Once more for what an old connection did not take, which may have died while nobody looked
            # at it, and for a queue of ours that was deleted.
            for _ in (1, 2):
                old = self._link is not None
                try:
                    link = self._connected()
                    todo = self._declared(link, messages, todo)
                    link.publish(messages, todo, receipts, self._confirm_within)
                except LINK_ERRORS as error:
                    self._drop()
                    if not old or isinstance(error, TimeoutError):  # whoever was too slow is not asked twice
                        logger.warning("the broker did not take a batch of %d: %s", len(todo), error)
                        break
                todo = [index for index in todo if self._again(messages[index], receipts[index])]
                if not todo:
                    break
        return receipts

    def _declared(self, link: _Link, messages: Sequence[WireMessage], todo: Sequence[int]) -> list[int]:
        """Declare the queues of ours among these messages'; the messages whose queue was not refused."""
        names = {messages[index].queue for index in todo if not messages[index].exchange}
        refused = {name for name in names if not link.declare(self._queues.get(name))}
        exchanges = {messages[index].exchange for index in todo} - {""}
        closed = {name for name in exchanges if not link.declare_exchange(name)}
        return [
            index
            for index in todo
            if (messages[index].exchange or None) not in closed
            and (messages[index].exchange or messages[index].queue not in refused)
        ]

    def _again(self, message: WireMessage, receipt: Receipt) -> bool:
        if receipt is Receipt.UNROUTABLE:
            return message.queue in self._queues
        return receipt is Receipt.UNSENT and self._link is None and not message.once

    def _renew(self, queue: str) -> None:
        """Replace a connection that died unseen: what is sent only once must not be tried on that one."""
        if self._link is not None and self._link.pid == os.getpid():
            try:
                self._link.load(queue)
            except LINK_ERRORS:
                self._drop()

    def load(self, queue: str) -> Load | None:
        with self._lock:
            try:
                return self._connected().load(queue)
            except LINK_ERRORS:
                self._drop()
                return None

    def close(self) -> None:
        with self._lock:
            self._drop(broken=False)

    def _connected(self) -> _Link:
        if self._link is not None and self._link.pid != os.getpid():
            self._link = None  # the parent's: closing it here would close it there
        if self._link is None:
            self._link = _Link(connect(self._url))
        return self._link

    def _drop(self, *, broken: bool = True) -> None:
        link, self._link = self._link, None
        if link is not None and link.pid == os.getpid():
            with contextlib.suppress(Exception):
                link.close(broken=broken)


class _Link:
    """One open connection with a channel in confirm mode."""

    def __init__(self, connection: Connection) -> None:
        self.pid = os.getpid()
        self.connection = connection
        self._amqp: Any = connection.connect()
        self._declared: set[str] = set()
        self._exchanges: set[str] = set()
        self._open_channel()

    def _open_channel(self) -> None:
        self._channel = self._amqp.channel()
        self._channel.auto_decode = False  # a returned message is told by its bytes
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._on_ack)
        self._channel.events["basic_nack"].add(self._on_nack)
        self._channel.events["basic_return"].add(self._on_return)
        self._tag = 0
        self._waiting: dict[int, int] = {}

    def close(self, *, broken: bool) -> None:
        if broken:
            self._amqp.collect()  # without a word to the broker, which may hang
        self.connection.release()

    def declare(self, queue: Queue | None) -> bool:
        """Declare the queue, unless that was done; False when the broker refuses."""
        if queue is None or queue.name in self._declared:
            return True
        try:
            self._channel.queue_declare(
                queue.name, durable=True, auto_delete=False, arguments=queue_arguments(queue)
            )
        except amqp.ChannelError as error:
            logger.error("%s; nothing is sent to it", _refusal(queue, error))
            self._open_channel()  # the broker has closed that one, and not the connection
            return False
        self._declared.add(queue.name)
        return True

    def declare_exchange(self, name: str) -> bool:
        """Declare the topic exchange, unless that was done; False when the broker refuses."""
        if name in self._exchanges:
            return True
        try:
            self._channel.exchange_declare(name, "topic", durable=True, auto_delete=False)
        except amqp.ChannelError as error:
            logger.error("the broker refuses the topic exchange %s: %s; nothing is sent to it", name, error)
            self._open_channel()  # the broker has closed that one, and not the connection
            return False
        self._exchanges.add(name)
        return True

    def publish(
        self,
        messages: Sequence[WireMessage],
        todo: Sequence[int],
        receipts: list[Receipt],
        within: float,
    ) -> None:
        """Publish the messages with these indices; each receipt is written as soon as it is known.

        Raises:
            TimeoutError: not all were confirmed in time.
        """
        self._messages, self._receipts = messages, receipts
        self._waiting = dict(enumerate(todo, start=self._tag + 1))
        self._tag += len(todo)
        self._returned = set[_Identity]()
        until = time.monotonic() + within
        batch = [messages[index] for index in todo]
        self._amqp.publish(self._channel.channel_id, batch, within)
        while self._waiting:
            try:
                self._amqp.take_in(max(until - time.monotonic(), 0.001))
            except TimeoutError:
                raise TimeoutError(
                    f"{len(self._waiting)} messages not confirmed within {within:g} s"
                ) from None

    def load(self, queue: str) -> Load:
        channel = self._amqp.channel()  # of its own: RabbitMQ closes it when there is no such queue
        try:
            declared = channel.queue_declare(queue, passive=True)
            return Load(int(declared.message_count), int(declared.consumer_count))
        except amqp.NotFound:
            return Load(0, 0)
        finally:
            with contextlib.suppress(Exception):
                channel.close()

    def _on_ack(self, tag: int, multiple: bool) -> None:
        for index in self._answered(tag, multiple):
            message = self._messages[index]
            # What has no queue is returned first, then confirmed.
            if self._came_back(message):
                self._receipts[index] = Receipt.UNROUTABLE
                self._declared.discard(message.queue)  # it is gone: declare it again next time
            else:
                self._receipts[index] = Receipt.CONFIRMED

    def _on_nack(self, tag: int, multiple: bool) -> None:
        for index in self._answered(tag, multiple):
            logger.warning("the broker refused a message for %s", self._messages[index].queue)

    def _answered(self, tag: int, multiple: bool) -> list[int]:
        # They were given in ascending order, and are kept in it.
        tags = list(takewhile(tag.__ge__, self._waiting)) if multiple else [tag]
        return [index for known in tags if (index := self._waiting.pop(known, None)) is not None]

    def _came_back(self, message: WireMessage) -> bool:
        if not self._returned:
            return False
        return _identity(message.queue, message.properties, message.body) in self._returned

    def _on_return(self, _error: object, _exchange: str, queue: str, message: Any) -> None:
        self._returned.add(_identity(queue, message.properties, message.body))


_Identity = tuple[str, Any, bytes]


def _identity(queue: str, properties: Mapping[str, Any], body: Any) -> _Identity:
    """What tells a returned message from its neighbours; one that is not ours may have no id."""
    return queue, properties.get("correlation_id"), bytes(body)


def _refusal(queue: Queue, error: amqp.ChannelError) -> str:
    """Why a queue could not be declared; for the one reason that people meet, both types."""
    said = str(error)
    if "'x-queue-type'" in said:
        there = re.search(r"current is the value '(\w+)'", said)
        other = there[1] if there else "classic"
        return (
            f"the queue {queue.name} is a {other} queue, and here it is declared as {queue.type.value}: give "
            "everybody the same type, or delete it on the broker once it is empty"
        )
    return f"the broker refuses the queue {queue.name}: {said}"
