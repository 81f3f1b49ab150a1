"""Imported by every worker of the matrix (``celery -I``): waits at points, and is in a hurry.

Recovery is a matter of pauses. Those of production are chosen for a broker with a day's backlog; with
them a cell would take a minute. What is decided is the same.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from functools import partial
from typing import Final

import sagas_framework.orchestrator as shell
import sagas_framework.worker.orchestrating as worker
from sagas_framework.core.events import Policy
from sagas_framework.core.lost import Horizons
from sagas_framework.timekeeper import Timekeeper
from tests.stress.matrix import saboteur

POLICY: Final = Policy(resend_first=timedelta(seconds=1), resend_ceiling=timedelta(seconds=4))
GRACE: Final = timedelta(seconds=1)
OBSERVE_EVERY: Final = timedelta(seconds=0.5)


def hurry() -> None:
    """Short pauses for the orchestrator of this process."""
    if (service := sys.modules.get("order_service.orchestrator")) is None:
        return  # a participant
    service.sagas.policy = POLICY
    setattr(shell, "Horizons", partial(Horizons, GRACE))  # noqa: B010 (types may not be assigned to)
    setattr(worker, "Timekeeper", partial(Timekeeper, observe_every=OBSERVE_EVERY))  # noqa: B010


hurry()
saboteur.begin()
