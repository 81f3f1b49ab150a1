"""What happens because time passes: timeouts, pauses, sending again, and what people asked for in rows."""

from __future__ import annotations

import logging
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from sagas_framework.core.why import QueueSeen
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.ports import SendAgain

logger = logging.getLogger(__name__)

_BATCH: Final = 200
_ACTS: Final = 100


class Timekeeper:
    """Looks after the rows of one orchestrator. Any number may turn side by side.

    Args:
        queues: the command queues whose length tells lost messages from waiting ones.
        resend: sends quarantined messages, that somebody wants replayed, to their queue again.
        observe_every: how often the queues' lengths are asked for.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        queues: Collection[str],
        *,
        resend: SendAgain | None = None,
        observe_every: timedelta = timedelta(seconds=2),
    ) -> None:
        self._orchestrator = orchestrator
        self._queues = sorted(queues)
        self._resend = resend
        self._observe_every = observe_every
        self._observed_at: datetime | None = None

    def turn(self) -> datetime | None:
        """Do all that is due; when the next thing will be, None if nothing waits for a moment.

        Raises:
            StoreUnavailable: the database is away; turn again later.
        """
        orchestrator = self._orchestrator
        self.observe()
        while orchestrator.obey_acts(_ACTS) == _ACTS:
            pass
        seen = orchestrator.horizons
        while orchestrator.fire_timers(seen.ripe(), _BATCH, unattended=seen.unattended) == _BATCH:
            pass
        if self._resend is not None:
            orchestrator.store.replay(self._resend)
        return orchestrator.store.next_due(orchestrator.definitions.known())

    def observe(self) -> None:
        """Look which queues are empty, and note all for people. A reply queue may hold what we miss."""
        now = self._orchestrator.clock()
        if self._observed_at is not None and now - self._observed_at < self._observe_every:
            return
        self._observed_at = now
        horizons, publisher = self._orchestrator.horizons, self._orchestrator.publisher
        replies = self._orchestrator.reply_to
        seen: list[QueueSeen] = []
        # The moment is taken before asking: what is sent while we ask was not seen.
        for queue in (*self._queues, replies):
            load = publisher.load(queue)
            if load is None:
                break  # the broker is away: the others would only wait for it, too
            seen.append(QueueSeen(queue, now, load.messages, load.consumers))
            if load.messages == 0 and queue == replies:
                horizons.saw_no_replies_waiting(now)
            elif load.messages == 0:
                horizons.saw_empty(queue, now)
        horizons.saw_unattended(look.queue for look in seen if look.consumers == 0)  # None: it does not say
        self._orchestrator.store.note_queues(seen)
