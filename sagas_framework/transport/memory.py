"""A broker in memory whose consumers are woken by what comes: kombu's own looks, and sleeps, and looks.

The queues are kombu's, so that both kinds of connection meet there.
"""

from __future__ import annotations

import threading
import time
from queue import Empty
from typing import Any, Final
from weakref import ref

from kombu.transport import memory

_LOOK: Final = 0.25
"""Seconds after which it looks nevertheless: a connection of kombu's own kind wakes nobody."""

_listeners: dict[str, tuple[ref[threading.Event], ...]] = {}
_lock: Final = threading.Lock()
"""Held while somebody is added; who rings reads what is there."""


class Channel(memory.Channel):
    """Wakes those who take from a queue."""

    def basic_consume(self, queue: str, *args: Any, **options: Any) -> Any:
        transport: Any = self.connection
        with _lock:
            others = [one for one in _listeners.get(queue, ()) if one() not in (None, transport.bell)]
            _listeners[queue] = (*others, ref(transport.bell))
        return super().basic_consume(queue, *args, **options)

    def _put(self, queue: str, message: Any, **options: Any) -> None:
        super()._put(queue, message, **options)
        _ring(queue)

    def _put_fanout(
        self, exchange: str, message: Any, routing_key: str | None = None, **options: Any
    ) -> None:
        super()._put_fanout(exchange, message, routing_key, **options)
        for queue in self._lookup(exchange, routing_key or ""):
            _ring(queue)


class Transport(memory.Transport):
    """See the module."""

    Channel = Channel

    def __init__(self, client: Any, **options: Any) -> None:
        super().__init__(client, **options)
        self.bell = threading.Event()

    def drain_events(self, connection: Any, timeout: float | None = None, **options: Any) -> None:
        """Hand over one message.

        Raises:
            TimeoutError: none came in this time (seconds).
        """
        cycle: Any = self.cycle
        until = None if timeout is None else time.monotonic() + timeout
        while True:
            self.bell.clear()  # first: what comes while we look rings again
            try:
                cycle.get(self._deliver, timeout=timeout)
                return
            except Empty:
                left = _LOOK if until is None else until - time.monotonic()
            if left <= 0:
                raise TimeoutError("no message came")
            self.bell.wait(min(left, _LOOK))


def _ring(queue: str) -> None:
    for listener in _listeners.get(queue, ()):
        bell = listener()
        if bell is not None and not bell.is_set():
            bell.set()
