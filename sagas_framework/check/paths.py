"""What a walk finds: what can happen to a saga, and where each path leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from pydantic import ValidationError

from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import Status
from sagas_framework.examples import NoExample
from sagas_framework.messages import readable
from sagas_framework.saga import SagaDefinition


class What(StrEnum):
    """What can happen to a step, seen from the saga."""

    SUCCEEDED = "succeeded"
    REFUSED = "refused"  # a failure that its command declares
    FAILED = "failed"  # a fault, until its attempts are used up
    NO_ANSWER = "no answer"
    CANCELLED = "cancelled"  # by a person, while it is under way
    RAISED = "raised"  # our own code: a local step, or a hook on the example
    SETTLED_DONE = "settled: done"
    SETTLED_REFUSED = "settled: refused"
    SETTLED_WITHDRAWN = "settled: withdrawn"
    SAID_DONE = "a person says: done"  # of a step whose participant keeps no inbox and cannot be asked
    SAID_WITHDRAWN = "a person says: withdrawn"
    UNDONE = "undone"
    SIGNALLED = "signalled"  # by the signal of this name
    TOLD_NO = "told no"  # by a failure that a signal's hook declares, or raises on the example
    DEADLINE = "goes on at its deadline"
    EXPIRED = "turns back at its deadline"
    LEFT_OUT = "left out"  # its condition does not hold
    ENDED = "ended early"


ANSWERS: Final = frozenset({What.SUCCEEDED, What.SETTLED_DONE, What.SAID_DONE, What.REFUSED})
"""What makes it irrelevant how long the answer took."""
STRAIGHT: Final = frozenset({What.SUCCEEDED, What.SETTLED_DONE, What.SAID_DONE, What.UNDONE})
"""What does not turn a saga from its way, forward or back."""


BRANCHES: Final = frozenset({What.SIGNALLED, What.DEADLINE, What.LEFT_OUT, What.ENDED})
"""What leads another way forward."""


@dataclass(frozen=True)
class Happening:
    """One thing that happened. `step` is empty before the first one; `name` is a refusal's, or a signal's."""

    what: What
    step: str = ""
    name: str = ""


@dataclass(frozen=True)
class Move:
    """What the saga did: sent a command or a compensation, or ran a local step."""

    step: str
    kind: Kind


@dataclass(frozen=True)
class End:
    """Where a path leads.

    Args:
        story: what made it turn from the straight way; empty when nothing did.
        moves: what was sent and run, in order, each once.
        parked: `(step, why)` of what waits for a person.
    """

    story: tuple[Happening, ...]
    moves: tuple[Move, ...]
    status: Status
    parked: tuple[tuple[str, str], ...] = ()

    @property
    def branches(self) -> tuple[Happening, ...]:
        """What of the story led another way forward."""
        return tuple(told for told in self.story if told.what in BRANCHES)

    @property
    def turn(self) -> tuple[Happening, ...]:
        """What of the story turned it from its way."""
        return tuple(told for told in self.story if told.what not in BRANCHES)

    def did(self, kind: Kind) -> tuple[str, ...]:
        """The steps of the moves of this kind, in order."""
        return tuple(move.step for move in self.moves if move.kind is kind)


class Hook(StrEnum):
    """Code of the saga's own that `decide` calls."""

    REQUEST = "request"
    ON_SUCCESS = "on_success"
    COMPENSATION = "compensation"
    CONDITION = "condition"
    SIGNAL = "signal"  # what takes it, or the deadline
    MOMENT = "moment"  # what works out a deadline, or the end of a delay


@dataclass(frozen=True)
class Fault:
    """A hook that raised.

    Args:
        known: whether the saga had seen the step succeed.
    """

    step: str
    hook: Hook
    known: bool
    error: Exception

    @property
    def told(self) -> str:
        """The error in a line."""
        if isinstance(self.error, ValidationError):
            return f"{self.error.title}: {readable(self.error)}"
        return " ".join(f"{type(self.error).__name__}: {self.error}".split())


@dataclass(frozen=True)
class Undone:
    """A compensation as it was sent, in one of the situations in which it can be."""

    step: str
    known: bool
    payload: Mapping[str, Any]


@dataclass(frozen=True)
class Walk:
    """What was found on the way.

    Args:
        ends: every way to end, or to need a person.
        happened: all that happened on any path.
        faults: hooks that raised on the example.
        undone: the compensations that were sent.
        missing: `(step, error)` where no example can be guessed: of the state (no step), or of a reply.
        reached: the steps at which some path arrived.
        situations: how many were met.
    """

    definition: SagaDefinition
    ends: tuple[End, ...] = ()
    happened: frozenset[Happening] = frozenset()
    faults: tuple[Fault, ...] = ()
    undone: tuple[Undone, ...] = ()
    missing: tuple[tuple[str, NoExample], ...] = ()
    reached: frozenset[str] = frozenset()
    situations: int = 0
