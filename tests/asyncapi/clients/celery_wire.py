"""A wire for generated applications: Celery messages of protocol 2, on RabbitMQ.

What the generator brings for AMQP sets no headers and no content type, which a Celery worker does not take.
This is what another team would have to write, once: it knows Celery, and of our messages only what the
generated code tells it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Unpack
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import amqp
from asyncapi_python.kernel.document import Channel, Message
from asyncapi_python.kernel.endpoint import Subscriber
from asyncapi_python.kernel.typing import IncomingMessage
from asyncapi_python.kernel.typing import Message as Outgoing
from asyncapi_python.kernel.wire import AbstractWireFactory, EndpointParams

EVERY: Final = 0.05
"""Seconds between two looks into a queue that was empty."""

answering: ContextVar[tuple[str, dict[str, Any]]] = ContextVar("answering")
"""Set by a handler: the name of the message that it answers with, and headers of it."""


@dataclass
class Arrived:
    """A message from a queue, as generated code wants it."""

    content: Any
    correlation_id: str | None

    @property
    def payload(self) -> bytes:
        return bytes(self.content.body)

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.content.headers)

    @property
    def reply_to(self) -> str | None:
        named: str | None = self.content.properties.get("reply_to")
        return named

    async def ack(self) -> None:
        self.content.channel.basic_ack(self.content.delivery_tag)

    async def nack(self) -> None:
        self.content.channel.basic_reject(self.content.delivery_tag, requeue=True)

    async def reject(self) -> None:
        self.content.channel.basic_reject(self.content.delivery_tag, requeue=False)


@dataclass
class CeleryWire(AbstractWireFactory[Outgoing, IncomingMessage]):
    """Makes what sends and what receives.

    Args:
        broker: RabbitMQ's address.

    Attributes:
        replies: the queue on which this side wants to be answered. It goes with the connection.
        arrived, sent: every message, in order: queue, headers, properties, body.
    """

    broker: str
    replies: str = field(default_factory=lambda: f"client-{uuid4()}")
    arrived: list[dict[str, Any]] = field(default_factory=list)
    sent: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._readers: dict[str, _Reader] = {}

    def reader(self, queue: str) -> _Reader:
        """The one reader of a queue."""
        if queue not in self._readers:
            self._readers[queue] = _Reader(self, queue)
        return self._readers[queue]

    async def stop(self, queue: str) -> None:
        """Take no more from a queue."""
        reader = self._readers.pop(queue, None)
        if reader is not None:
            await reader.stop()

    async def create_consumer(self, **asked: Unpack[EndpointParams]) -> _Consumer:
        return _Consumer(self, asked["channel"], is_reply=asked["is_reply"])

    async def create_producer(self, **asked: Unpack[EndpointParams]) -> _Producer:
        return _Producer(self, asked["channel"], is_reply=asked["is_reply"])

    def connection(self) -> amqp.Connection:
        """A new connection."""
        parts = urlsplit(self.broker)
        connection = amqp.Connection(
            f"{parts.hostname}:{parts.port or 5672}",
            userid=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
        )
        connection.connect()
        return connection


def hear_no_events(router: object) -> None:
    """Give every event that the service tells a handler: a generated application starts with no fewer."""

    async def ignore(event: Any) -> None:
        pass

    for part in vars(router).values():
        if isinstance(part, Subscriber):
            part(ignore)
        elif type(part).__module__ == type(router).__module__:
            hear_no_events(part)


class _Reader:
    """Takes from a queue, for the channels that share it; each has tasks of its own."""

    def __init__(self, wire: CeleryWire, queue: str) -> None:
        self._wire = wire
        self._queue = queue
        self._connection = wire.connection()
        self._open()
        if queue == wire.replies:
            self._channel.queue_declare(queue, exclusive=True)
        self._waiting: dict[str, asyncio.Queue[Arrived]] = {}
        self._described: dict[str, Message] = {}
        self._running = asyncio.create_task(self._run())

    def _open(self) -> None:
        self._channel: Any = self._connection.channel()
        self._channel.auto_decode = False

    def take(self, channel: Channel) -> asyncio.Queue[Arrived]:
        """What comes for the channel, from now on."""
        arrived = asyncio.Queue[Arrived]()
        for message in channel.messages.values():
            self._waiting[_task(message)] = arrived
            self._described[_task(message)] = message
        return arrived

    async def stop(self) -> None:
        self._running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._running
        self._connection.close()

    async def _run(self) -> None:
        while True:
            try:
                content = self._channel.basic_get(self._queue)
            except amqp.NotFound:  # nobody has declared the queue yet
                content = None
                self._open()  # the broker has closed the channel
            if content is None:
                await asyncio.sleep(EVERY)
                continue
            headers = content.headers
            self._wire.arrived.append(_recorded(self._queue, headers, content.properties, content.body))
            task = headers["task"]
            if self._queue == self._wire.replies:
                # The generated code has one consumer for all replies, with the channel of one of them.
                task = next(iter(self._waiting))
            self._waiting[task].put_nowait(Arrived(content, _correlated(self._described[task], headers)))


class _Consumer:
    def __init__(self, wire: CeleryWire, channel: Channel, *, is_reply: bool) -> None:
        self._wire = wire
        self._described = channel
        self._queue = wire.replies if is_reply else str(channel.address)

    async def start(self) -> None:
        self._arrived = self._wire.reader(self._queue).take(self._described)

    async def stop(self) -> None:
        await self._wire.stop(self._queue)

    async def recv(self) -> AsyncGenerator[IncomingMessage, None]:
        while True:
            yield await self._arrived.get()


class _Producer:
    def __init__(self, wire: CeleryWire, channel: Channel, *, is_reply: bool) -> None:
        self._wire = wire
        self._described = channel
        self._is_reply = is_reply

    async def start(self) -> None:
        self._connection = self._wire.connection()
        self._channel = self._connection.channel()

    async def stop(self) -> None:
        self._connection.close()

    async def send_batch(self, messages: list[Outgoing], *, address_override: str | None = None) -> None:
        for message in messages:
            queue = address_override or self._described.address
            assert queue is not None
            headers = self._reply(message) if self._is_reply else self._command(message)
            properties = {
                "correlation_id": headers["id"],
                "content_type": "application/json",
                "content_encoding": "utf-8",
                "delivery_mode": 2,
            } | ({} if self._is_reply else {"reply_to": self._wire.replies})
            self._wire.sent.append(_recorded(queue, headers, properties, message.payload))
            self._channel.basic_publish(
                amqp.Message(message.payload, application_headers=headers, **properties),
                routing_key=queue,
                mandatory=True,
            )

    def _command(self, message: Outgoing) -> dict[str, Any]:
        (described,) = self._described.messages.values()
        not_after = datetime.now(UTC) + timedelta(minutes=1)
        return {
            **_celery(
                _task(described), str(message.correlation_id), root=message.correlation_id, parent=None
            ),
            "saga_operation_id": str(uuid4()),
            "saga_attempt": 1,
            "saga_not_after": not_after.isoformat(),
        }

    def _reply(self, message: Outgoing) -> dict[str, Any]:
        name, headers = answering.get()
        task = _task(self._described.messages[name])
        answered = message.correlation_id
        return {**_celery(task, str(uuid4()), root=answered, parent=answered), **headers}


def _celery(task: str, message_id: str, *, root: str | None, parent: str | None) -> dict[str, Any]:
    """The headers that Celery's protocol wants."""
    return {
        "lang": "py",
        "task": task,
        "id": message_id,
        "root_id": root,
        "parent_id": parent,
        "group": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "argsrepr": "",
        "kwargsrepr": "",
        "origin": "client",
    }


def _task(message: Message) -> str:
    return str(message.headers["properties"]["task"]["const"])


def _correlated(message: Message, headers: dict[str, Any]) -> str:
    """The value at the place that the document names as the message's correlation id."""
    assert message.correlation_id is not None
    found: Any = headers
    for part in message.correlation_id.location.removeprefix("$message.header#/").split("/"):
        found = found[part]
    return str(found)


def _recorded(queue: str, headers: dict[str, Any], properties: Any, body: bytes) -> dict[str, Any]:
    kept = {name: value for name, value in properties.items() if name != "application_headers"}
    return {"queue": queue, "headers": headers, "properties": kept, "body": bytes(body).decode()}
