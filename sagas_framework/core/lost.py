"""When a message that was not answered is presumed lost, and when it only waits its turn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from types import MappingProxyType


class Horizons:
    """For each queue the moment before which everything sent to it has left it.

    A queue seen empty at a moment, or a command answered that was sent at a moment, moves its
    horizon there. What was sent earlier has left the queue: it is lost, or being handled, or its
    reply is on its way. To tell these apart an observation counts only once it is `grace` old and
    the reply queue was seen empty since: until then the answers may still be waiting for us.
    """

    def __init__(self, grace: timedelta = timedelta(seconds=4)) -> None:
        self._grace = grace
        self._fresh: dict[str, datetime] = {}
        self._ripening: dict[str, datetime] = {}
        self._ripening_since: datetime | None = None
        self._ripe: dict[str, datetime] = {}
        self._unattended: frozenset[str] = frozenset()

    def saw_empty(self, queue: str, at: datetime) -> None:
        """No message was waiting in the queue at this moment."""
        self._move(self._fresh, queue, at)

    def saw_answer(self, queue: str, sent_at: datetime) -> None:
        """A command was answered that had been sent to the queue at this moment, or later."""
        self._move(self._fresh, queue, sent_at)

    def saw_no_replies_waiting(self, at: datetime) -> None:
        """The reply queue was empty at this moment."""
        if self._ripening_since is not None and at - self._ripening_since < self._grace:
            return
        for queue, horizon in self._ripening.items():
            self._move(self._ripe, queue, horizon)
        self._ripening, self._fresh = self._fresh, {}
        self._ripening_since = at

    def saw_unattended(self, queues: Iterable[str]) -> None:
        """Nobody takes from these queues, and from all others somebody may.

        What was not looked at is not among them: there the cap is all that sends a lost message again.
        """
        self._unattended = frozenset(queues)

    @property
    def unattended(self) -> frozenset[str]:
        """Queues from which nobody took when they were last looked at."""
        return self._unattended

    def ripe(self) -> Mapping[str, datetime]:
        """The horizons that can be relied on."""
        return MappingProxyType(self._ripe)

    @staticmethod
    def _move(horizons: dict[str, datetime], queue: str, at: datetime) -> None:
        if queue not in horizons or horizons[queue] < at:
            horizons[queue] = at
