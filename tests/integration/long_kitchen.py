"""The kitchen as a worker of its own, in which the first order takes as long as the test wants.

Run by `test_corners.py` as a prefork pool. What its handlers do is a line each of ``KITCHEN_FOLDER/diary``;
the first order is ready when there is a file ``KITCHEN_FOLDER/go``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from sagas_framework import Context, participant_app
from tests.integration.kitchen import Handlers, OpenTicket, make_kitchen

_folder = Path(os.environ["KITCHEN_FOLDER"])


def _note(*told: object) -> None:
    with (_folder / "diary").open("a") as diary:
        diary.write(" ".join(map(str, told)) + "\n")


def _slowly(command: OpenTicket, context: Context) -> None:
    _note("begun", command.order_id, os.getpid())
    while command.order_id == 1 and not (_folder / "go").exists():
        time.sleep(0.05)
    _note("ended", command.order_id, os.getpid())


participant = make_kitchen(
    os.environ["KITCHEN_DATABASE"],
    Handlers(opening=_slowly),
    outside=bool(os.environ.get("KITCHEN_OUTSIDE")),
)
participant.engine.dispose()  # each process of the pool has connections of its own
app = participant_app(participant, broker=os.environ["KITCHEN_BROKER"])
