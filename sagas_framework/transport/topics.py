"""Bindings of topics to queues, as far as they are not declared with the queue."""

from __future__ import annotations

from typing import Any

from sagas_framework.events import EXCHANGE
from sagas_framework.messages import Queue
from sagas_framework.transport.connecting import connect, kombu_queue


def unbind(url: str, queue: Queue, topic: str) -> None:
    """Take the topic off the queue; nothing if it is not bound.

    Raises:
        OSError, OperationalError: no broker answers.
    """
    connection = connect(url)
    try:
        connection.connect()
        channel: Any = connection.default_channel
        kombu_queue(queue)(channel).declare()
        channel.queue_unbind(queue.name, EXCHANGE, topic)
    finally:
        connection.release()
