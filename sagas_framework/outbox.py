"""Publishing events: written down with what they tell of, and sent by a relay once that is committed.

::

    with session.begin():
        stock.left -= 1
        publish(StockLow(item=stock.item, left=stock.left), session)
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import uuid4
from weakref import WeakSet

from sqlalchemy import Connection, Engine, Transaction
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.orm import Session

from sagas_framework.clock import utc_now
from sagas_framework.errors import SagasError
from sagas_framework.events import Event
from sagas_framework.points import EventPoint, reach
from sagas_framework.spans import said
from sagas_framework.storage.outbox import Outbox, OutboxRow, add_to_outbox, nudge_relays
from sagas_framework.telemetry import NOWHERE
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire
from sagas_framework.transport.publisher import Publisher, Receipt

logger = logging.getLogger(__name__)

KEPT: Final = timedelta(days=1)
"""How long events are kept that were sent, for a broker that loses them: `Outbox.send_again`."""
BATCH: Final = 200
LARGEST: Final = 1_048_576
"""Bytes of an event's fields. Brokers refuse what is too large, and it would stand before all the others."""

PUBLISHED: Final = "published"
"""The key in the rows of a simulation's session: `(topic, fields)` of each event."""

_FORGET_EVERY: Final = timedelta(minutes=1)
_FORGET: Final = 1000
_LONGEST_PAUSE: Final = 10.0

_wakers: WeakSet[threading.Event] = WeakSet()
_watched: WeakSet[Transaction] = WeakSet()
_lock: Final = threading.Lock()


def publish(event: Event, session: Session | Connection) -> str:
    """Publish an event in the caller's transaction: it is sent if and when that commits; its id.

    Sent at least once to each service that subscribes to it, and handled there once by each of its
    subscribers. Nobody may subscribe: that is no error. No order is promised.

    Args:
        session: of the publishing service's own database, such as `Context.session`.

    Raises:
        SagasError: the event is larger than a mebibyte.
    """
    body = json.dumps(event.to_json(), separators=(",", ":"))
    topic = event.contract.task
    if len(body) > LARGEST:
        raise SagasError(
            f"The event {topic} has {len(body):,} bytes, and may have {LARGEST:,}: leave out what is large, "
            "and say where it is kept."
        )
    event_id = str(uuid4())
    given: Any = session
    if not isinstance(given, Session | Connection):
        _remember(given, topic, body)
        return event_id
    connection = session.connection() if isinstance(session, Session) else session
    trace = said(f"publish {topic}", {"messaging.message.id": event_id}) or None
    add_to_outbox(connection, OutboxRow(event_id, topic, body, utc_now(), trace=trace))
    _wake_after(connection)
    reach(EventPoint.EVENT_WRITTEN)
    return event_id


def _remember(stand_in: Any, topic: str, body: str) -> None:
    """In a simulation or a scenario, which have no database: what is published is kept with the rows."""
    rows: dict[str, Any] = stand_in.rows
    stand_in.rows = {**rows, PUBLISHED: [*rows.get(PUBLISHED, ()), (topic, json.loads(body))]}


def _wake_after(connection: Connection) -> None:
    """Wake the relays on the commit: those of this process by an event, others as PostgreSQL can."""
    transaction = connection.get_transaction()
    if transaction is None:
        return
    with _lock:
        if transaction in _watched:
            return
        _watched.add(transaction)
    nudge_relays(connection)
    sqlalchemy_event.listen(connection, "commit", _wake, once=True)


def _wake(_connection: object) -> None:
    with _lock:
        wakers = list(_wakers)
    for waker in wakers:
        waker.set()


class Relay:
    """Sends the events of one database, after their commit. Any number may turn side by side.

    Args:
        woken: set whenever a transaction of this process with an event in it commits.
    """

    def __init__(
        self, engine: Engine, publisher: Publisher, *, clock: Callable[[], datetime] = utc_now
    ) -> None:
        self._outbox = Outbox(engine)
        self._publisher = publisher
        self._clock = clock
        self._turning = threading.Lock()
        self._forgot_at: datetime | None = None
        self._pause = 0.0
        self._not_before = 0.0
        self._after = self._last = 0
        self.woken = threading.Event()
        with _lock:
            _wakers.add(self.woken)

    def turn(self) -> int:
        """Send all that waits; how many were sent. After the broker took nothing, not for some seconds.

        Raises:
            StoreUnavailable: the database is away; turn again later.
        """
        with self._turning:
            if time.monotonic() < self._not_before:
                return 0
            total = 0
            while True:
                taken, sent = self._outbox.send(self._send, BATCH, self._clock(), self._after)
                total += sent
                if taken:
                    reach(EventPoint.EVENTS_MARKED)
                if sent < taken:
                    # One full queue may refuse all that stands first: what comes behind does not wait for it.
                    self._after = self._last if taken == BATCH else 0
                    self._pause = min(max(self._pause * 2, 1.0), _LONGEST_PAUSE)
                    self._not_before = time.monotonic() + self._pause
                    return total
                self._pause = 0.0
                if taken < BATCH and self._after:
                    self._after = 0
                elif taken < BATCH:
                    break
            self._forget()
            return total

    def recall(self) -> int:
        """Have all sent once more that is still kept, for a broker whose memory was another process's."""
        return self._outbox.send_again(self._clock() - KEPT)

    def _send(self, rows: Sequence[OutboxRow]) -> list[bool]:
        reach(EventPoint.EVENTS_READ)
        self._last = rows[-1].number
        messages = [
            event_to_wire(
                EventEnvelope(row.event_id, row.topic, row.body, row.at, row.number, row.trace or NOWHERE)
            )
            for row in rows
        ]
        receipts = self._publisher.publish(messages)
        reach(EventPoint.EVENTS_PUBLISHED)
        return [receipt is Receipt.CONFIRMED for receipt in receipts]

    def _forget(self) -> None:
        now = self._clock()
        if self._forgot_at is None or now - self._forgot_at >= _FORGET_EVERY:
            gone = self._outbox.forget(now - KEPT, _FORGET)
            self._forgot_at = None if gone == _FORGET else now  # whoever is behind goes on with the next turn
