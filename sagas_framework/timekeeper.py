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
_FORGET_EVERY: Final = timedelta(hours=1)
_FORGET: Final = 1000


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
        self._forgot_at: datetime | None = None

    def turn(self) -> datetime | None:
        """Do all that is due; when the next thing will be, None if nothing waits for a moment.

        Of a backlog that takes long only the first part: then the queues are due to be looked at again,
        and whoever calls says that we live. What is left is due at once.

        Raises:
            StoreUnavailable: the database is away; turn again later.
        """
        orchestrator = self._orchestrator
        store, known = orchestrator.store, orchestrator.definitions.known()
        if self._observed_at is not None and self._unseen_for(2 * self._observe_every):
            self.observe()  # what was seen so long ago tells nothing of what is due now
        fired, began = None, orchestrator.clock()
        while fired is None or (fired == _BATCH and orchestrator.clock() - began < self._observe_every):
            # One statement: what wakes a timekeeper is hardly ever anything but a saga that was started.
            ahead = store.ahead(known)
            if ahead.acts:  # before what is due: a saga can be cancelled before its first step
                while orchestrator.obey_acts(_ACTS) == _ACTS:
                    pass
            if ahead.signals:
                while orchestrator.take_signals(_ACTS) == _ACTS:
                    pass
            if ahead.replays and self._resend is not None:
                store.replay(self._resend)
            is_due = ahead.due is not None and ahead.due <= orchestrator.clock()
            fired = self._fire() if ahead.acts or ahead.signals or is_due else 0
        self.observe()
        self._forget_signals()
        looked = ahead.acts or ahead.signals or fired
        return store.next_due(known) if looked else ahead.due

    def _fire(self) -> int:
        seen = self._orchestrator.horizons
        return self._orchestrator.fire_timers(seen.ripe(), _BATCH, unattended=seen.unattended)

    def _forget_signals(self) -> None:
        """Delete, once an hour, those that are kept for nobody and those that were answered long ago."""
        orchestrator, now = self._orchestrator, self._orchestrator.clock()
        if not any(definition.waits for definition in orchestrator.definitions):
            return
        if self._forgot_at is not None and now - self._forgot_at < _FORGET_EVERY:
            return
        gone = orchestrator.store.forget_signals(now - orchestrator.policy.signal_retention, _FORGET)
        self._forgot_at = None if gone == _FORGET else now  # whoever is behind goes on with the next turn

    def _unseen_for(self, span: timedelta) -> bool:
        return self._observed_at is None or self._orchestrator.clock() - self._observed_at >= span

    def observe(self) -> None:
        """Look which queues are empty, and note all for people. A reply queue may hold what we miss."""
        if not self._unseen_for(self._observe_every):
            return
        now = self._observed_at = self._orchestrator.clock()
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
