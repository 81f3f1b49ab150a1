"""The reply consumer: takes what has arrived, decides it as one batch, then acknowledges."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from kombu import Connection
from typing_extensions import override

from sagas_framework.core.events import Event
from sagas_framework.messages import Queue
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.participant import quarantined
from sagas_framework.points import Point, reach
from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.envelope import UnreadableError, WireMessage, from_wire, reply_received
from sagas_framework.worker.batches import BatchConsumer, wire_message

logger = logging.getLogger(__name__)


class ReplyConsumer(BatchConsumer):
    """Consumes the reply queue.

    Acknowledged is what was committed and published, in this order (rule 20). When the store is
    away the connection is closed, and the broker delivers the batch again later.
    """

    def __init__(
        self,
        url: str,
        queue: Queue,
        orchestrator: Orchestrator,
        *,
        turned: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(url, queue, self._take, turned=lambda count: turned(f"{count} replies"))
        self._orchestrator = orchestrator

    def _take(self, batch: list[Any]) -> None:
        reach(Point.BATCH_TAKEN)
        self._decide(batch)

    @override
    def _acknowledge(self, connection: Connection, batch: list[Any]) -> None:
        super()._acknowledge(connection, batch)
        reach(Point.BATCH_ACKNOWLEDGED)

    def _decide(self, batch: list[Any]) -> None:
        now = self._orchestrator.clock()
        events: list[Event] = []
        origins: dict[int, WireMessage] = {}
        for message in batch:
            wire = wire_message(self._queue.name, message)
            try:
                event: Event = reply_received(from_wire(wire), now)
            except UnreadableError as error:
                logger.error("a reply was set aside: %s", error.reason)
                self._orchestrator.set_aside(quarantined(wire, error.reason, error.path, now))
                continue
            origins[id(event)] = wire
            events.append(event)
        if not events:
            return
        left = self._orchestrator.process(
            events, lambda event, why: self._aside(origins[id(event)], why, now)
        )
        for event in left:
            logger.warning("a reply for saga %s is dropped; its command is sent again", event.saga_id)

    @staticmethod
    def _aside(wire: WireMessage, why: str, now: datetime) -> Quarantined:
        logger.error("a reply was set aside: %s", why)
        return quarantined(wire, why, "$[0][0]", now)
