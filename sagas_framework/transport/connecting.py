"""Connections to a broker, and the difference between one that is away and one that says no."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from amqp.exceptions import AccessRefused, NotAllowed
from kombu import Connection, Exchange, binding
from kombu import Queue as KombuQueue
from kombu.exceptions import OperationalError
from kombu.transport import TRANSPORT_ALIASES, pyamqp

from sagas_framework.errors import ConfigurationError
from sagas_framework.events import EXCHANGE, EventQueue
from sagas_framework.messages import Queue, QueueType
from sagas_framework.transport.pieces import PiecesTlsTransport, PiecesTransport

# Asked for on every connection of ours. Confirms are awaited by the publisher itself, pipelined.
_TIMEOUTS: Final[dict[str, Any]] = {"read_timeout": 10, "write_timeout": 10, "connect_timeout": 5}
# Of kombu's own transport, if something has used it before us; ours is woken (see `memory`).
_MEMORY: Final[dict[str, Any]] = {"polling_interval": 0.01}
TRANSPORT_ALIASES["memory"] = "sagas_framework.transport.memory:Transport"

_OURS: Final[dict[type, type]] = {
    pyamqp.Transport: PiecesTransport,
    pyamqp.SSLTransport: PiecesTlsTransport,
}


def connect(url: str, *, heartbeat: int = 0, **options: Any) -> Connection:
    """A connection that is not open yet.

    Raises:
        ConfigurationError: the address cannot be read; the message masks the password.
    """
    try:
        # A transport reads its options when it is made, so the kind is asked of another connection.
        probe = Connection(url)
        settings: dict[str, Any] = {}
        if is_amqp(probe):
            settings |= _TIMEOUTS
        elif probe.transport_cls == "memory":
            settings |= _MEMORY
        # Ours is the same for whatever py-amqp would be used for, and only for that.
        ours = _OURS.get(type(probe.transport))
        settings |= options
        connection = Connection(url, transport=ours, heartbeat=heartbeat, transport_options=settings)
    except (KeyError, ValueError, ImportError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"The broker's address {masked_broker(url)} cannot be used ({type(error).__name__}). "
            "Write it like amqp://user:password@host:5672/vhost, or memory:// for one process."
        ) from None
    return connection


def is_amqp(connection: Connection) -> bool:
    """Whether there is RabbitMQ at the other end: confirms, returns, queue types."""
    return bool(connection.transport.driver_type == "amqp")


def masked_broker(url: str) -> str:
    """The address without its password, also when it cannot be read."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, credentials = head.partition("://")
    return f"{scheme}{slashes}{credentials.partition(':')[0]}:***@{tail}" if at else url


def kombu_queue(queue: Queue) -> KombuQueue:
    """The queue as everybody declares it: durable, on the default exchange, bound to its topics."""
    topics = queue.topics if isinstance(queue, EventQueue) else ()
    return KombuQueue(
        queue.name,
        routing_key=queue.name,
        durable=True,
        queue_arguments=queue_arguments(queue),
        bindings=[binding(topic_exchange(EXCHANGE), routing_key=topic) for topic in topics],
    )


def topic_exchange(name: str) -> Exchange:
    """The exchange as everybody declares it: durable, of topics."""
    return Exchange(name, type="topic", durable=True, auto_delete=False)


def queue_arguments(queue: Queue) -> dict[str, Any]:
    """What RabbitMQ must be told. Nothing for a classic queue: so a plain Celery app declares it, too."""
    return {"x-queue-type": "quorum"} if queue.type is QueueType.QUORUM else {}


def try_broker(url: str) -> None:
    """Open a connection and close it again.

    Raises:
        ConfigurationError: the address cannot be read, or the broker refuses user, password or vhost.
        OSError, OperationalError: nobody answers; waiting may help.
    """
    connection = connect(url)
    try:
        connection.connect()
    except (AccessRefused, NotAllowed) as error:
        raise ConfigurationError(
            f"The broker at {masked_broker(url)} refuses us: {error}. Check user, password and virtual host."
        ) from None
    finally:
        with contextlib.suppress(OSError, OperationalError):
            connection.release()
