"""The subscriber's shell: what comes is written down, and handled from there, once for each subscriber.

::

    subscriber = Subscriber(notification_service, database="postgresql://...")

    @subscriber.subscribes(StockLow)
    def tell_the_buyer(event: StockLow, context: EventContext) -> None: ...
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeVar
from uuid import NAMESPACE_OID, uuid5

from pydantic import ValidationError
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from sagas_framework.clock import utc_now
from sagas_framework.errors import ConfigurationError, DefinitionError, Unavailable
from sagas_framework.events import Event, EventQueue, event_queue
from sagas_framework.messages import QueueType, Service, readable
from sagas_framework.points import EventPoint, reach
from sagas_framework.spans import subscribing
from sagas_framework.steps import Retry
from sagas_framework.storage.database import Database
from sagas_framework.storage.event_inbox import EventInbox, EventRow, EventState
from sagas_framework.storage.ports import Quarantined, StoreUnavailable, is_storable
from sagas_framework.transport.envelope import UnreadableError, WireMessage
from sagas_framework.transport.event_wire import EventEnvelope, event_from_wire

logger = logging.getLogger(__name__)

E = TypeVar("E", bound=Event)

DEFAULT_RETRY: Final = Retry(attempts=10)
"""Attempts over about eight minutes."""
CLOCK_SKEW: Final = timedelta(minutes=5)
"""By how much the clocks of two machines may differ."""
_LEASE: Final = timedelta(minutes=1)
_BATCH: Final = 50
_WITHOUT_ATTEMPT: Final = timedelta(seconds=5)
"""The pause after a handler could not work at all."""
_LONGEST_NAME: Final = 100


class EventContext:
    """What a subscriber may know beside its event.

    Attributes:
        session: its work commits together with the note that the event is done, or not at all.
        key: one per event and subscriber, for every attempt. Give it to third parties as their
            idempotency key: what is done outside the session is done again by the next attempt.
        at: when the event was published.
        number: of the publishing service's database; growing. No order is promised: whoever needs one
            keeps the number of the last event that it has applied, and leaves out those below.
        attempt: 1 for the first.
    """

    def __init__(self, row: EventRow, session: Session) -> None:
        self.session = session
        self.event_id = row.event_id
        self.key = str(uuid5(NAMESPACE_OID, f"{row.event_id}|{row.subscriber}"))
        self.at = row.at
        self.number = row.number
        self.attempt = row.attempt


@dataclass(frozen=True)
class Subscription:
    """One function of a service that handles one event.

    Args:
        name: under which rows remember it.
        woken: set when there may be something for it to do.
    """

    name: str
    event: type[Event]
    handler: Callable[[Any, EventContext], None]
    retry: Retry
    woken: threading.Event = field(default_factory=threading.Event, compare=False)

    @property
    def topic(self) -> str:
        return self.event.contract.task


class Subscriber:
    """A service's side of the events that it subscribes to.

    Args:
        service: whose they are; the events come on ``<service>.events``.
        database: of the service; the same as its participant's or its sagas', if it has those.
        queue_type: of the queue of events; that of the service's commands unless given.
        migrations: folder of the service's own Alembic scripts (``versions/*.py`` in it).
        retry: of subscribers that say nothing else. One whose attempts are used up is parked.
        retention: how long it is remembered that an event was handled. What is older when it comes is set
            aside: nobody could say any more whether it was.
    """

    def __init__(
        self,
        service: Service,
        *,
        database: str | Database,
        queue_type: QueueType | None = None,
        migrations: Path | None = None,
        retry: Retry = DEFAULT_RETRY,
        lease: timedelta = _LEASE,
        retention: timedelta = timedelta(days=30),
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        if isinstance(database, str):
            database = Database(service.name, database, migrations)
        elif migrations is not None:
            raise ConfigurationError(
                f"The database of {service.name} has its migrations already; give them with its address."
            )
        self.service = service
        self.database = database
        self.retry = retry
        self.lease = lease
        self.retention = retention
        self.clock = clock
        self._queue_type = queue_type
        self._subscriptions: dict[str, Subscription] = {}
        self._inbox: EventInbox | None = None

    @property
    def engine(self) -> Engine:
        """The engine of the service's database, made when first needed."""
        return self.database.engine

    @property
    def inbox(self) -> EventInbox:
        """Where it is remembered what came, and what became of it."""
        if self._inbox is None:
            self._inbox = EventInbox(self.engine)
        return self._inbox

    @property
    def queue(self) -> EventQueue:
        """Its queue, bound to all that it subscribes to."""
        topics = [subscription.topic for subscription in self._subscriptions.values()]
        return event_queue(self.service, topics, self._queue_type)

    @property
    def subscriptions(self) -> Mapping[str, Subscription]:
        """Its subscribers, by name, in the order in which they were registered."""
        return MappingProxyType(self._subscriptions)

    @property
    def events(self) -> list[type[Event]]:
        """What it subscribes to, each once."""
        return list(dict.fromkeys(subscription.event for subscription in self._subscriptions.values()))

    def upgrade(self) -> list[str]:
        """Bring the service's database to this release's schema; the migrations that ran."""
        return self.database.upgrade()

    # ---- declaring --------------------------------------------------------------------------------

    def subscribes(
        self, event: type[E], *, name: str = "", retry: Retry | None = None
    ) -> Callable[[Callable[[E, EventContext], None]], Callable[[E, EventContext], None]]:
        """Register a function that handles an event. An event may have several; each handles it for itself.

        Args:
            name: by which its rows know it: the function's own unless given. To rename the function, give
                the name that it had, or it handles again what comes again.

        Raises:
            DefinitionError: the name is taken or too long, or it is no event.
        """
        if not (isinstance(event, type) and issubclass(event, Event) and "contract" in vars(event)):
            raise DefinitionError(
                f"{self.service.name} cannot subscribe to {getattr(event, '__name__', event)!r}: write "
                "class X(Event, service=..., name=...) and subscribe to that."
            )

        def register(handler: Callable[[E, EventContext], None]) -> Callable[[E, EventContext], None]:
            named = name or handler.__name__
            if named in self._subscriptions:
                raise DefinitionError(
                    f"{self.service.name} has a subscriber {named} already, of "
                    f"{self._subscriptions[named].event.__name__}: give this one another name=, for rows "
                    "remember by it who has handled what."
                )
            if not named.isprintable() or len(named) > _LONGEST_NAME:
                raise DefinitionError(
                    f"A subscriber's name has 1 to {_LONGEST_NAME} printable characters, unlike {named!r}."
                )
            self._subscriptions[named] = Subscription(named, event, handler, retry or self.retry)
            return handler

        return register

    def check(self) -> None:
        """See that there is something to do.

        Raises:
            DefinitionError: nothing is subscribed to.
        """
        if not self._subscriptions:
            raise DefinitionError(
                f"{self.service.name} subscribes to nothing: import the module with its functions under "
                "@subscriber.subscribes(SomeEvent), or leave the subscriber out."
            )

    # ---- receiving --------------------------------------------------------------------------------

    def receive(self, messages: Sequence[WireMessage]) -> None:
        """Write down what came, to be handled; set aside what cannot be read.

        Raises:
            StoreUnavailable: nothing was written; acknowledge none.
        """
        reach(EventPoint.EVENTS_TAKEN)
        now = self.clock()
        rows: dict[tuple[str, str], EventRow] = {}
        unreadable = []
        for message in messages:
            try:
                envelope, takers = self._read(message, now)
            except UnreadableError as error:
                logger.warning("an event on %s is set aside: %s", message.queue, error.reason)
                unreadable.append(_quarantined(message, error, now))
                continue
            for taker in takers:
                rows.setdefault((envelope.event_id, taker.name), _row(envelope, taker, now))
        if rows or unreadable:
            self.inbox.receive(list(rows.values()), unreadable)
        reach(EventPoint.EVENTS_RECEIVED)
        names = {name for _, name in rows}
        for name in names:
            self._subscriptions[name].woken.set()

    def _read(self, message: WireMessage, now: datetime) -> tuple[EventEnvelope, list[Subscription]]:
        """The event and whom it is for.

        Raises:
            UnreadableError: nobody here can handle it.
        """
        envelope = event_from_wire(message)
        takers = [taker for taker in self._subscriptions.values() if taker.topic == envelope.topic]
        if not takers:
            raise UnreadableError(
                f"{self.service.name} subscribes to no {envelope.topic!r} here, and its queue is bound "
                "to it: a newer worker may know it, then replay it; else unbind it "
                f"(saga -A {self.service.name}.worker events unbind {envelope.topic})"
            )
        if now - envelope.at > self.retention - CLOCK_SKEW:  # a sum may be beyond the last year
            raise UnreadableError(
                f"it is from {envelope.at.isoformat()}: what was handled then is not remembered any more"
            )
        try:
            takers[0].event.model_validate_json(envelope.body)
        except ValidationError as error:
            raise UnreadableError(f"not a {envelope.topic}: {readable(error)}", "$[0][1]") from None
        except Exception as error:  # a validator of the team's: it must not hold up what comes behind
            told = f"{type(error).__name__}: {error}"
            raise UnreadableError(f"not a {envelope.topic}: {told}", "$[0][1]") from error
        return envelope, takers

    # ---- handling ---------------------------------------------------------------------------------

    def handle_due(self, name: str, limit: int = _BATCH) -> int:
        """Let one subscriber handle what is due; for how many events it was tried.

        What a handler raises costs an attempt of this event for this subscriber, and nothing else. A lock,
        a lost connection or `Unavailable` costs none: it is tried again after 5 s.

        Raises:
            StoreUnavailable: the database is away; come again later.
        """
        subscription = self._subscriptions[name]
        claimed = self.inbox.claim(name, self.clock(), self.lease, limit)
        if claimed:
            reach(EventPoint.EVENT_CLAIMED)
        for row in claimed:
            self._handle(subscription, row)
        return len(claimed)

    def next_due(self, name: str) -> datetime | None:
        """When there is something to do for a subscriber."""
        return self.inbox.next_due(name)

    def _handle(self, subscription: Subscription, row: EventRow) -> None:
        if row.attempt > subscription.retry.attempts:
            # Each attempt is noted when it fails, but for those in which the process died.
            self.inbox.fail(row, row.reason or "the process died in each attempt", None, self.clock())
            return
        try:
            with self.inbox.turn(row, self.clock()) as session:
                if session is None:
                    return
                event = subscription.event.model_validate_json(row.body or "null")
                with subscribing(row.trace, row.subscriber, row.topic, row.event_id, row.attempt):
                    subscription.handler(event, EventContext(row, session))
                    session.flush()
                reach(EventPoint.EVENT_HANDLED)
        except (Unavailable, StoreUnavailable) as error:
            logger.warning("%s cannot handle %s now: %s", subscription.name, row.topic, error)
            now = self.clock()
            self.inbox.give_back(row, now + _WITHOUT_ATTEMPT, now)
        except Exception as error:
            self._failed(subscription, row, error)
        else:
            reach(EventPoint.EVENT_DONE)

    def _failed(self, subscription: Subscription, row: EventRow, error: Exception) -> None:
        reach(EventPoint.EVENT_FAILED)
        now = self.clock()
        why = readable(error) if isinstance(error, ValidationError) else str(error)
        told = f"{type(error).__name__}: {why}"
        last = row.attempt >= subscription.retry.attempts
        due = None if last else now + subscription.retry.pause_after(row.attempt)
        self.inbox.fail(row, told if is_storable(told) else ascii(told), due, now)
        logger.warning(
            "%s failed over %s %s (attempt %d)%s: %s",
            *(subscription.name, row.topic, row.event_id, row.attempt, ", parked" if last else "", told),
            exc_info=error if row.attempt == 1 else None,
        )

    # ---- upkeep -----------------------------------------------------------------------------------

    def forget_old(self, limit: int = 1000) -> int:
        """Delete some of what was over before the retention; how many there were."""
        return self.inbox.forget(self.clock() - self.retention, limit)


def _row(envelope: EventEnvelope, taker: Subscription, now: datetime) -> EventRow:
    return EventRow(
        event_id=envelope.event_id,
        subscriber=taker.name,
        topic=envelope.topic,
        number=envelope.number,
        at=envelope.at,
        body=envelope.body,
        state=EventState.WAITING,
        attempt=0,
        due_at=now,
        received_at=now,
        updated_at=now,
        trace=envelope.trace or None,
    )


def _quarantined(message: WireMessage, why: UnreadableError, now: datetime) -> Quarantined:
    return Quarantined(
        queue=message.queue,
        task=str(message.headers.get("task", "")),
        headers=message.headers,
        properties=message.properties,
        body=message.body.decode("utf-8", "backslashreplace"),
        reason=why.reason,
        path=why.path,
        at=now,
    )
