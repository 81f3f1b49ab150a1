"""Where a worker's relay turns: in a thread beside the solo pool, else in the consumer's own timer.

Threads beside a pool that forks deadlock. There, a child that has committed an event sends it itself at
once, and the parent's timer looks every second for what a dead child, or another program, has left.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from celery import Celery, bootsteps
from sqlalchemy import Engine

from sagas_framework.outbox import Relay
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher
from sagas_framework.worker.loops import Loop

logger = logging.getLogger(__name__)

_LOOK_EVERY: Final = 1.0
"""Seconds within which events are found even if nobody tells of them."""
_AFTER: Final = (0.0, 0.005, 0.02, 0.1)
"""Seconds: who commits tells of it a moment before the database has it."""
_GRACE: Final = timedelta(seconds=15)


def add_relay(app: Celery, engine_of: Callable[[], Engine], after: type[Any]) -> None:
    """X
    Args:
        engine_of: gives the engine of the service's database; called once the worker starts.
    """
    app.relay_engine = engine_of  # type: ignore[attr-defined]
    app.relay_woken = threading.Event()  # type: ignore[attr-defined]

    class Step(RelayStep):
        requires: Any = (after,)

    app.steps["worker"].add(Step)
    app.steps["consumer"].add(RelayBeat)


def _is_solo(worker: Any) -> bool:
    return str(worker.pool_cls.__module__).endswith(".solo")


class RelayStep(bootsteps.StartStopStep):
    """Turns the relay in a thread, in workers with the solo pool."""

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._relay: Relay | None = None
        self._loop: Loop | None = None

    def start(self, parent: Any) -> None:
        if not _is_solo(parent):
            return
        publisher = make_publisher(parent.app.conf.broker_url)
        relay = self._relay = Relay(parent.app.relay_engine(), publisher)
        # Rung by whoever listens to the database.
        parent.app.relay_woken = relay.woken

        forgetful = str(parent.app.conf.broker_url).startswith("memory:")

        def turn() -> None:
            nonlocal forgetful
            if forgetful:
                relay.recall()
                forgetful = False
            woken = relay.woken.wait(_LOOK_EVERY)
            relay.woken.clear()
            for pause in _AFTER if woken else _AFTER[:1]:
                if loop.stopping or relay.woken.wait(pause) or relay.turn():
                    return

        loop = self._loop = Loop("relay", turn, cleanup=publisher.close)
        loop.start()

    def stop(self, parent: Any) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._relay is not None:
            loop.stop()
            self._relay.woken.set()
            if not loop.join(_GRACE):
                logger.warning("the relay did not end within %.0f s", _GRACE.total_seconds())

    terminate = stop


class RelayBeat(bootsteps.StartStopStep):
    """Turns the relay in the timer of the consumer, in workers whose pool forks."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._publisher: Publisher | None = None

    def start(self, parent: Any) -> None:
        if _is_solo(parent.controller):
            return
        # Of its own: a child that is forked later must not share the connection.
        self._publisher = make_publisher(parent.app.conf.broker_url)
        relay = Relay(parent.app.relay_engine(), self._publisher)
        self._timer = parent.timer.call_repeatedly(_LOOK_EVERY, lambda: turned(relay))

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None


class ChildRelay:
    """Sends, from a forked child, what it has itself committed; made before the fork."""

    def __init__(self, engine_of: Callable[[], Engine], publisher: Publisher) -> None:
        self._parent = os.getpid()
        self._engine_of = engine_of
        self._publisher = publisher
        self._relay: Relay | None = None

    def watch(self) -> None:
        """Before the work: from now on it is known whether something is published."""
        if self._relay is None and os.getpid() != self._parent:
            engine: Engine = self._engine_of()
            self._relay = Relay(engine, self._publisher)

    def after_work(self) -> None:
        """The work is committed."""
        if self._relay is not None and self._relay.woken.is_set():
            self._relay.woken.clear()
            turned(self._relay)


def turned(relay: Relay) -> None:
    """Turn it; a database that is away is waited for."""
    try:
        relay.turn()
    except StoreUnavailable as error:
        logger.warning("the outbox is away: %s", str(error).partition("\n")[0])
