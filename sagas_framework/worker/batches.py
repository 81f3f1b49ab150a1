"""A consumer that takes what has arrived as one batch, on a connection of its own, from one thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from amqp.exceptions import AccessRefused

from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue
from sagas_framework.transport.arrivals import Arrivals, arrivals
from sagas_framework.transport.connecting import connect, kombu_queue
from sagas_framework.transport.envelope import WireMessage

BATCH: Final = 200
_IDLE: Final = 1.0
"""Seconds after which a turn without messages ends, to show that the loop lives."""


class BatchConsumer:
    """Takes batches from one queue and acknowledges what was taken.

    Args:
        take: handles a batch. When it raises, none of its messages is acknowledged: the connection is
            closed, and the broker delivers them again.
        size: messages in a batch, at most.
        turned: called after every turn with the number of messages in it.
    """

    def __init__(
        self,
        url: str,
        queue: Queue,
        take: Callable[[Sequence[WireMessage]], None],
        *,
        size: int = BATCH,
        turned: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._url = url
        self._queue = queue
        self._handle = take
        self._size = size
        self._turned = turned
        self._arrivals: Arrivals | None = None

    def turn(self) -> None:
        """Take one batch, or find that nothing comes.

        Raises:
            StoreUnavailable, OSError: database or broker are away; turn again later.
        """
        if self._arrivals is None:
            # Twice a batch: the next one arrives while this one is handled.
            self._arrivals = arrivals(self._url, self._queue, 2 * self._size)
        come = self._arrivals
        try:
            self._drain(come)
            batch = come.messages[: self._size]
            if batch:
                self._handle(batch)
                self._acknowledge(come, len(batch))
            come.live()
        except come.errors as error:
            self.close()
            raise ConnectionError(str(error)) from error
        except BaseException:
            self.close()
            raise
        self._turned(len(batch))

    def close(self) -> None:
        """Give the connection back; what was not acknowledged is delivered again."""
        come, self._arrivals = self._arrivals, None
        if come is not None:
            come.close()

    def _drain(self, come: Arrivals) -> None:
        """Wait for the first message, then take what is there: a lone one never waits for a batch to fill."""
        try:
            if not come.messages:
                come.take_in(_IDLE)
            while len(come.messages) < self._size:
                come.take_in(0)
        except TimeoutError:
            pass

    def _acknowledge(self, come: Arrivals, count: int) -> None:
        come.acknowledge(count)


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
