"""What this process wrote last, so that it need not be read again."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple

from sagas_framework.core.instance import SagaInstance

_MOST: Final = 5_000
"""Instances that are remembered, about 10 kB each; those that have waited longest are forgotten first."""


class Mark(NamedTuple):
    """What differs whenever a row was written since, whoever wrote it.

    Args:
        writer: the number of the transaction that wrote the row (PostgreSQL's ``xmin``). After a failover to
            a server that had not received them all, numbers are given again.
        updated_at: of the instance.
    """

    writer: str
    updated_at: datetime


class KnownInstances:
    """Open instances as this process committed them last. May be used by any thread.

    Only a hint: whoever asks has locked the row, and says which `Mark` it bears now, or writes it only if it
    still bears this one.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept: dict[str, tuple[Mark, SagaInstance]] = {}
        self._lock = threading.Lock()

    def get(self, saga_id: str, mark: Mark) -> SagaInstance | None:
        """The instance, if its row was not written since."""
        found = self._kept.get(saga_id)
        return found[1] if found is not None and found[0] == mark else None

    def last(self, saga_id: str) -> tuple[Mark, SagaInstance] | None:
        """The instance as it was written last, and how its row was marked then; it may be another by now."""
        return self._kept.get(saga_id)

    def forget(self, saga_ids: Iterable[str]) -> None:
        """Remember these no more: what is known of them is of the past."""
        with self._lock:
            for saga_id in saga_ids:
                self._kept.pop(saga_id, None)

    def keep(self, instances: Iterable[SagaInstance], writer: str) -> None:
        """Remember what a transaction wrote, once it is committed."""
        with self._lock:
            for instance in instances:
                self._kept.pop(instance.id, None)  # to the end of the queue
                if not instance.status.ended:
                    self._kept[instance.id] = Mark(writer, instance.updated_at), instance
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
