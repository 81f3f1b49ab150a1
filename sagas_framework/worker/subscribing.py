"""The subscriber in a worker: a consumer that writes down what comes, and a thread for each subscriber.

``celery -A notification_service.worker worker --pool solo`` runs one that does nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from celery import Celery, bootsteps

from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue, QueueType
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.subscriber import Subscriber, Subscription
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher
from sagas_framework.worker.batches import BatchConsumer, check_queue
from sagas_framework.worker.loops import Loop, Pulse, worker_name
from sagas_framework.worker.relaying import add_relay
from sagas_framework.worker.replaying import send_again
from sagas_framework.worker.settings import celery_app, hardened
from sagas_framework.worker.starting import broker_need, collect_seldom, database_need, or_exit, wait_for

logger = logging.getLogger(__name__)

SUBSCRIBER: Final = "subscriber"
"""The role in which its consumer beats."""
_LONGEST_SLEEP: Final = timedelta(seconds=1)
_SHORTEST_SLEEP: Final = timedelta(milliseconds=50)
_UPKEEP_EVERY: Final = timedelta(seconds=2)
_FORGET_EVERY: Final = timedelta(minutes=1)
_FORGET_FOR: Final = 0.05
"""Seconds."""
_FORGET: Final = 1000
_GRACE: Final = timedelta(seconds=15)


def subscriber_app(subscriber: Subscriber, *, broker: str) -> Celery:
    """A Celery app whose workers handle events and nothing else. They need the solo pool; any number may run.

    A service that orchestrates or takes commands, too, gives its subscriber to `orchestrator_app` or
    `participant_app`, or runs a second worker for its events.

    Raises:
        DefinitionError: nothing is subscribed to.
    """
    own = Queue(f"{subscriber.service.name}.tasks", QueueType.CLASSIC)  # for tasks that the team may add
    settings = hardened([own]) | {"task_default_queue": own.name, "task_default_routing_key": own.name}
    app = celery_app(subscriber.service.name, broker, settings)
    add_relay(app, lambda: subscriber.engine, after=SubscriberStep)
    add_subscriber(app, subscriber)
    return app


def add_subscriber(app: Celery, subscriber: Subscriber | None) -> None:
    """Have the workers of this app handle events, too.

    Raises:
        ConfigurationError: it is another service's.
        DefinitionError: nothing is subscribed to.
    """
    if subscriber is None:
        return
    if subscriber.service.name != app.main:
        raise ConfigurationError(
            f"The subscriber of {subscriber.service.name} was given to the workers of {app.main}: a service "
            "handles its own events, in its own database."
        )
    subscriber.check()
    app.subscriber = subscriber  # type: ignore[attr-defined]
    app.conf.update({"worker_pool": "solo"})
    app.steps["worker"].add(SubscriberStep)


class SubscriberStep(bootsteps.StartStopStep):
    """Waits for the servers, then turns the consumer and the subscribers in threads."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._loops: list[Loop] = []
        self._subscriber: Subscriber | None = None
        self._publisher: Publisher | None = None

    def start(self, parent: Any) -> None:
        subscriber: Subscriber = parent.app.subscriber
        broker = parent.app.conf.broker_url
        with or_exit():
            if not str(parent.pool_cls.__module__).endswith(".solo"):
                raise ConfigurationError(
                    f"{subscriber.service.name} subscribes to events and needs --pool solo: threads would "
                    "deadlock beside a pool that forks. Or leave subscriber= out, and run a second worker "
                    "with subscriber_app(...)."
                )
            wait_for(
                [database_need(subscriber.database), broker_need(broker)],
                stopping=getattr(parent.app, "saga_stopping", None),
            )
            check_queue(broker, subscriber.queue)
        collect_seldom(parent)
        self._subscriber = subscriber
        self._publisher = make_publisher(broker, [subscriber.queue])
        upkeep = _Upkeep(subscriber, self._publisher)
        consumer = BatchConsumer(
            broker,
            subscriber.queue,
            subscriber.receive,
            turned=lambda _: upkeep.turned(),
        )
        self._loops = [
            Loop("event consumer", consumer.turn, cleanup=consumer.close),
            *(
                Loop(f"subscriber {each.name}", handling(subscriber, each))
                for each in subscriber.subscriptions.values()
            ),
        ]
        for loop in self._loops:
            loop.start()
        logger.info("subscribed to %s", ", ".join(subscriber.queue.topics))

    def stop(self, parent: Any) -> None:
        for loop in self._loops:
            loop.stop()
        if self._subscriber is not None:
            for subscription in self._subscriber.subscriptions.values():
                subscription.woken.set()
        for loop in self._loops:
            if not loop.join(_GRACE):
                logger.warning("%s did not end within %.0f s", loop.name, _GRACE.total_seconds())
        self._loops = []
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None

    terminate = stop


def handling(subscriber: Subscriber, subscription: Subscription) -> Callable[[], None]:
    """What the thread of one subscriber does in each turn. A slow one holds up no other."""

    def turn() -> None:
        subscription.woken.clear()
        if subscriber.handle_due(subscription.name):
            return
        due = subscriber.next_due(subscription.name)
        left = _LONGEST_SLEEP if due is None else due - subscriber.clock()
        # Never nothing: what is due may be held by another worker.
        subscription.woken.wait(min(max(left, _SHORTEST_SLEEP), _LONGEST_SLEEP).total_seconds())

    return turn


class _Upkeep:
    """What the consumer's loop does beside: says that it turns, forgets old rows, replays."""

    def __init__(self, subscriber: Subscriber, publisher: Publisher) -> None:
        self._subscriber = subscriber
        self._publisher = publisher
        worker = worker_name(subscriber.service.name)
        self._pulse = Pulse(SUBSCRIBER, worker, subscriber.inbox.beat)
        self._done_at: datetime | None = None
        self._forgot_at: datetime | None = None

    def turned(self) -> None:
        """The loop has come round: every two seconds that is seen to."""
        now = self._subscriber.clock()
        if self._done_at is not None and now - self._done_at < _UPKEEP_EVERY:
            return
        self._done_at = now
        try:
            self._pulse.turned(", ".join(self._subscriber.subscriptions))
            if self._forgot_at is None or now - self._forgot_at >= _FORGET_EVERY:
                self._forget(now)
            self._subscriber.inbox.replay(lambda messages: send_again(self._publisher, messages))
        except StoreUnavailable as error:
            logger.warning("the database is away: %s", str(error).partition("\n")[0])

    def _forget(self, now: datetime) -> None:
        """Delete what is over and old: a few at a time, so that the consumer hardly waits."""
        until = time.monotonic() + _FORGET_FOR
        while more := self._subscriber.forget_old(_FORGET) == _FORGET:
            if time.monotonic() >= until:
                break
        self._forgot_at = None if more else now  # whoever is behind goes on the next time
