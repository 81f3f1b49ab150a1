"""What is broken where: a row for every named point, a column for every deed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, StrEnum
from fnmatch import fnmatchcase
from typing import Final

from sagas_framework.points import EventPoint, Point


class Deed(StrEnum):
    """What happens at a point. The words are the headings of the table."""

    KILL = "kill -9"
    POSTGRES = "PostgreSQL restart"
    RABBITMQ = "RabbitMQ restart"
    RESET = "RabbitMQ reset"
    CUT = "connection cut"
    DISK = "disk full"
    STOP = "stopped"


class Scene(Enum):
    """What goes on while the point is awaited."""

    ORDERS = "orders come in"
    ACTS = "the kitchen is away, and operators cancel orders that wait for it"
    REPLAY = "commands of the orders were set aside, and somebody wants them replayed"
    OUTSIDE = "cards are authorized by a handler that works outside its transaction"
    BATCHES = "the kitchen handles its commands in batches"
    EVENTS = "each order is told of in an event, and somebody listens who fails now and then"


ORCHESTRATOR: Final = "order_service"
KITCHEN: Final = "restaurant_service"
BANK: Final = "accounting_service"
LISTENER: Final = "notification_service"
WEB: Final = "web"


@dataclass(frozen=True)
class Row:
    """A point, and which process is awaited there.

    Args:
        victim: the service whose worker it is, or `WEB`.
        nth: at which time the process is caught there, from 1; each process counts for itself.
        whole: kill -9 hits the worker with its children; otherwise the one child that got there.
    """

    point: Point | EventPoint
    victim: str
    nth: int = 3
    whole: bool = True
    scene: Scene = Scene.ORDERS


@dataclass(frozen=True)
class Cell:
    """One experiment."""

    row: Row
    deed: Deed

    @property
    def name(self) -> str:
        """As it is selected and reported: ``batch_taken:kill``."""
        return f"{self.row.point.name}:{self.deed.name}".lower()


ROWS: Final = (
    Row(Point.SAGA_WRITTEN, WEB, nth=20),
    Row(Point.TIMERS_DECIDED, ORCHESTRATOR),
    Row(Point.TIMERS_COMMITTED, ORCHESTRATOR),
    Row(Point.TIMERS_PUBLISHED, ORCHESTRATOR),
    Row(Point.BATCH_TAKEN, ORCHESTRATOR, nth=8),
    Row(Point.BATCH_DECIDED, ORCHESTRATOR, nth=8),
    Row(Point.BATCH_COMMITTED, ORCHESTRATOR, nth=8),
    Row(Point.BATCH_PUBLISHED, ORCHESTRATOR, nth=8),
    Row(Point.BATCH_ACKNOWLEDGED, ORCHESTRATOR, nth=8),
    Row(Point.ACTS_DECIDED, ORCHESTRATOR, nth=1, scene=Scene.ACTS),
    Row(Point.ACTS_COMMITTED, ORCHESTRATOR, nth=1, scene=Scene.ACTS),
    Row(Point.ACTS_PUBLISHED, ORCHESTRATOR, nth=1, scene=Scene.ACTS),
    Row(Point.COMMAND_TAKEN, KITCHEN, nth=10, whole=False),
    Row(Point.COMMAND_CLAIMED, BANK, nth=10, scene=Scene.OUTSIDE),
    Row(Point.COMMAND_HANDLED, KITCHEN, nth=10),
    Row(Point.COMMAND_COMMITTED, KITCHEN, nth=10, whole=False),
    Row(Point.COMMAND_ANSWERED, KITCHEN, nth=10),
    Row(Point.COMMANDS_TAKEN, KITCHEN, scene=Scene.BATCHES),
    Row(Point.COMMANDS_HANDLED, KITCHEN, scene=Scene.BATCHES),
    Row(Point.COMMANDS_COMMITTED, KITCHEN, scene=Scene.BATCHES),
    Row(Point.COMMANDS_ANSWERED, KITCHEN, scene=Scene.BATCHES),
    Row(Point.REPLAY_TAKEN, KITCHEN, nth=1, scene=Scene.REPLAY),
    Row(Point.REPLAY_PUBLISHED, KITCHEN, nth=1, scene=Scene.REPLAY),
    Row(EventPoint.EVENT_WRITTEN, WEB, nth=20, scene=Scene.EVENTS),
    Row(EventPoint.EVENTS_READ, ORCHESTRATOR, scene=Scene.EVENTS),
    Row(EventPoint.EVENTS_PUBLISHED, ORCHESTRATOR, scene=Scene.EVENTS),
    Row(EventPoint.EVENTS_MARKED, ORCHESTRATOR, scene=Scene.EVENTS),
    Row(EventPoint.EVENTS_TAKEN, LISTENER, scene=Scene.EVENTS),
    Row(EventPoint.EVENTS_RECEIVED, LISTENER, scene=Scene.EVENTS),
    Row(EventPoint.EVENT_CLAIMED, LISTENER, nth=10, scene=Scene.EVENTS),
    Row(EventPoint.EVENT_HANDLED, LISTENER, nth=10, scene=Scene.EVENTS),
    Row(EventPoint.EVENT_DONE, LISTENER, nth=10, scene=Scene.EVENTS),
    Row(EventPoint.EVENT_FAILED, LISTENER, nth=1, scene=Scene.EVENTS),
)

# Column after column: the workers of one column are set up alike, and most of them live through it.
CELLS: Final = tuple(Cell(row, deed) for deed in Deed for row in ROWS)

SAMPLE: Final = (
    "batch_committed:kill",
    "acts_decided:kill",
    "command_committed:kill",
    "commands_committed:kill",
    "command_handled:postgres",
    "commands_handled:postgres",
    "timers_committed:rabbitmq",
    "batch_published:reset",
    "batch_decided:cut",
    "command_handled:disk",
    "command_claimed:stop",
    "replay_published:kill",
    "saga_written:kill",
    "events_published:kill",
    "event_handled:postgres",
)
"""Cells that every run of the tests has time for: each column and each kind of process is in it."""


def select(patterns: Iterable[str]) -> list[Cell]:
    """The cells that one of the patterns names, such as ``batch_*:kill``, in the order of the table.

    Raises:
        ValueError: a pattern names none.
    """
    wanted = list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(cell.name, pattern) for cell in CELLS):
            raise ValueError(
                f"{pattern!r} names no cell. A cell is point:deed, such as {CELLS[0].name}; points are "
                f"{', '.join(row.point.name.lower() for row in ROWS)}, deeds are "
                f"{', '.join(deed.name.lower() for deed in Deed)}; * stands for anything."
            )
    return [cell for cell in CELLS if any(fnmatchcase(cell.name, pattern) for pattern in wanted)]
