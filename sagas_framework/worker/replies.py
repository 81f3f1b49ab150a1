"""The reply consumer: takes what has arrived, decides it as one batch, then acknowledges."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime

from typing_extensions import override

from sagas_framework.core.events import Event
from sagas_framework.core.records import replace
from sagas_framework.errors import InvalidSignal, SagasError
from sagas_framework.messages import Queue
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.participant import quarantined
from sagas_framework.points import Point, reach
from sagas_framework.spans import told_by
from sagas_framework.storage.engine import translated
from sagas_framework.storage.ports import Quarantined
from sagas_framework.telemetry import active, carried_by
from sagas_framework.transport.arrivals import Arrivals
from sagas_framework.transport.envelope import (
    Envelope,
    UnreadableError,
    WireMessage,
    from_wire,
    reply_received,
    signal_said,
)
from sagas_framework.worker.batches import BatchConsumer

logger = logging.getLogger(__name__)


class ReplyConsumer(BatchConsumer):
    """Consumes the reply queue: replies, and signals from other services.

    Acknowledged is what was committed and published, in this order (rule 20). When the store is
    away the connection is closed, and the broker delivers the batch again later.

    Args:
        say: stores a signal, given saga, key, name, payload and id; None: what comes is set aside.
    """

    def __init__(
        self,
        url: str,
        queue: Queue,
        orchestrator: Orchestrator,
        *,
        say: Callable[[str, str, str, object, str], object] | None = None,
        turned: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(url, queue, self._take, turned=lambda count: turned(f"{count} replies"))
        self._orchestrator = orchestrator
        self._say = say

    def _take(self, batch: Sequence[WireMessage]) -> None:
        reach(Point.BATCH_TAKEN)
        self._decide(batch)

    @override
    def _acknowledge(self, come: Arrivals, count: int) -> None:
        super()._acknowledge(come, count)
        reach(Point.BATCH_ACKNOWLEDGED)

    def _decide(self, batch: Sequence[WireMessage]) -> None:
        now = self._orchestrator.clock()
        events: list[Event] = []
        origins: dict[int, WireMessage] = {}
        for wire in batch:
            try:
                envelope = from_wire(wire)
                if (said := signal_said(envelope)) is not None:
                    with told_by(wire.headers):
                        self._take_signal(envelope, *said)
                    continue
                reply = reply_received(envelope, now)
            except UnreadableError as error:
                logger.error("a reply was set aside: %s", error.reason)
                self._orchestrator.set_aside(quarantined(wire, error.reason, error.path, now))
                continue
            if active() is not None:
                reply = replace(reply, trace=carried_by(wire.headers))
            origins[id(reply)] = wire
            events.append(reply)
        if not events:
            return
        left = self._orchestrator.process(
            events, lambda event, why: self._aside(origins[id(event)], why, now)
        )
        for event in left:
            logger.warning("a reply for saga %s is dropped; its command is sent again", event.saga_id)

    def _take_signal(self, envelope: Envelope, saga: str, signal: str) -> None:
        """Store it, before it is acknowledged; its id is the task's, so one that comes again is the same."""
        if self._say is None:
            raise UnreadableError(f"nobody here takes the signal {envelope.task!r}")
        try:
            with translated():
                self._say(saga, envelope.saga_id, signal, envelope.payload, envelope.message_id)
        except SagasError as error:
            path = "$[0][1]" if isinstance(error, InvalidSignal) else "$"
            raise UnreadableError(str(error), path) from None

    @staticmethod
    def _aside(wire: WireMessage, why: str, now: datetime) -> Quarantined:
        logger.error("a reply was set aside: %s", why)
        return quarantined(wire, why, "$[0][0]", now)
