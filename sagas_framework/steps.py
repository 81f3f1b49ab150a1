"""The kinds of steps that a saga is made of, as the core reads them. `Steps` makes them.

A step that a participant does (`CommandStep`), one of the orchestrator's own (`LocalStep`), one that
waits for somebody (`WaitStep`) or for a moment (`DelayStep`), and one that ends the saga early (`EndStep`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Generic, Self, TypeAlias, TypeVar, overload

from pydantic import BaseModel
from typing_extensions import override

from sagas_framework.errors import DefinitionError, Failure
from sagas_framework.messages import Command, Compensation, Signal, WireProtocol

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sagas_framework.core.instance import Outcome
    from sagas_framework.saga import Saga
    from sagas_framework.storage.ports import Wanted

S = TypeVar("S", bound=BaseModel)
G = TypeVar("G", bound=Signal)

DEFAULT_TIMEOUT: Final = timedelta(minutes=5)


class NothingToUndo(Enum):
    """Said on purpose of a step before the pivot that leaves nothing behind."""

    NOTHING_TO_UNDO = "nothing to undo"


NOTHING_TO_UNDO: Final = NothingToUndo.NOTHING_TO_UNDO


@dataclass(frozen=True)
class Retry:
    """How often a step is attempted after transient faults, and how long the saga pauses in between.

    Before and at the pivot the step is given up after `attempts`; after the pivot, and for
    compensations, there is no giving up: after `attempts` the saga is parked for a person to see,
    and goes on trying.

    Args:
        attempts: how many, the first included.
        pause: before the second attempt; multiplied by `factor` for each further one, never more
            than `ceiling`.

    Raises:
        DefinitionError: less than one attempt, a negative pause or ceiling, or a factor below 1.
    """

    attempts: int = 3
    pause: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    ceiling: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.pause, self.ceiling) < timedelta(0) or self.factor < 1:
            raise DefinitionError(
                f"{self!r}: attempts and factor are at least 1, and a pause is not negative."
            )

    def pause_after(self, attempt: int) -> timedelta:
        """The pause after the failed `attempt` (1 for the first). No jitter: decisions are repeatable."""
        try:
            seconds = self.pause.total_seconds() * self.factor ** min(attempt - 1, 64)
        except OverflowError:  # a factor of 100000 and more
            return self.ceiling
        return timedelta(seconds=min(seconds, self.ceiling.total_seconds()))


UNDO_RETRY: Final = Retry(attempts=5)

LocalUndo: TypeAlias = "Callable[[S, Session], None] | Callable[[S, Session, Outcome], None]"
"""Undoes a local step: gets the state and the session, and why the saga turned back if it asks for it."""


class Step(Generic[S]):
    """One step of a saga whose state is an `S`; its name is that of the attribute it is bound to."""

    name: str = ""
    bound_to: tuple[str, ...] = ()

    def __init__(
        self,
        state: type[S],
        *,
        when: Callable[[S], bool] | None,
        pivot: bool = False,
        retry: Retry = Retry(),
        undo_retry: Retry = UNDO_RETRY,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> None:
        self.state = state
        self.when = when
        self.pivot = pivot
        self.retry = retry
        self.undo_retry = undo_retry
        self.timeout = timeout

    def __set_name__(self, owner: type[Any], name: str) -> None:
        # Judged when the saga's class is made: what is raised here, Python 3.11 wraps in a RuntimeError.
        self.bound_to = (*self.bound_to, f"{owner.__name__}.{name}")
        self.name = self.name or name

    @overload
    def __get__(self, instance: None, owner: type[Saga[S]]) -> Self: ...
    @overload
    def __get__(self, instance: Saga[S], owner: type[Saga[S]]) -> Self: ...
    def __get__(self, instance: Saga[S] | None, owner: type[Saga[S]]) -> Self:
        return self

    @property
    def undoable(self) -> bool:
        """Whether there is a compensation to run."""
        return False

    def shape(self) -> list[object]:
        """What two versions of a saga must share for an instance of one to be run by the other."""
        raise NotImplementedError


class LocalStep(Step[S]):
    """A step of the orchestrator's own: it runs in the transaction that moves the saga.

    Args:
        compensation: if it takes a third argument, that is why the saga turned back.
    """

    def __init__(
        self,
        state: type[S],
        action: Callable[[S, Session], None] | None,
        compensation: LocalUndo[S] | NothingToUndo | None,
        *,
        loads: Callable[[S], Wanted | None] | None,
        when: Callable[[S], bool] | None,
        pivot: bool,
        undo_retry: Retry,
    ) -> None:
        super().__init__(state, when=when, pivot=pivot, undo_retry=undo_retry)
        self.action = action
        self.compensation = compensation
        self.loads = loads
        self._undo_asks_why = callable(compensation) and _takes_three(compensation)

    def do(self, state: S, session: Session) -> None:
        """Run its action, if it has one."""
        if self.action is not None:
            self.action(state, session)

    def undo(self, state: S, session: Session, why: Outcome | None) -> None:
        """Run its compensation, if it has one.

        Args:
            why: the saga turned back; there is an outcome from then on.
        """
        undo: Any = self.compensation
        if callable(undo):
            undo(state, session, why) if self._undo_asks_why else undo(state, session)

    @property
    @override
    def undoable(self) -> bool:
        return callable(self.compensation)

    @override
    def shape(self) -> list[object]:
        return [self.name, "local", self.pivot, self.undoable]


def _takes_three(hook: Callable[..., None]) -> bool:
    """Whether it must be given a third argument."""
    try:
        parameters = inspect.signature(hook).parameters.values()
    except ValueError:  # written in C, and it does not say
        return False
    placed = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(one.kind in placed and one.default is one.empty for one in parameters) > 2


class CommandStep(Step[S]):
    """A step that a participant does."""

    def __init__(
        self,
        state: type[S],
        command: type[Command[Any]],
        request: Callable[[S], Command[Any]],
        on_success: Callable[[S, Any], None] | None,
        compensation: Callable[[S], Compensation[Any]] | NothingToUndo | None,
        *,
        when: Callable[[S], bool] | None,
        pivot: bool,
        retry: Retry,
        undo_retry: Retry,
        timeout: timedelta,
    ) -> None:
        super().__init__(state, when=when, pivot=pivot, retry=retry, undo_retry=undo_retry, timeout=timeout)
        self.command = command
        self.request = request
        self.on_success = on_success
        self.compensation = compensation

    @property
    @override
    def undoable(self) -> bool:
        return callable(self.compensation)

    @property
    def has_inbox(self) -> bool:
        """Whether its participant keeps one; without it the step is at most once (rule 11)."""
        return self.command.contract.service.has_inbox

    @property
    def undo_answers(self) -> bool:
        """Whether its compensation is answered; if not, the broker's confirmation is all there is."""
        return self.command.contract.service.protocol != WireProtocol.DEMO

    @override
    def shape(self) -> list[object]:
        undo = (
            self.command.compensation.contract.task if self.undoable and self.command.compensation else None
        )
        parts = [self.name, self.command.contract.task, self.pivot, undo]
        # What was sent without an inbox in mind must not be carried on as if there were one, or vice versa.
        return parts if self.has_inbox else [*parts, str(self.command.contract.service.protocol)]


Moment: TypeAlias = timedelta | Callable[[S], datetime | timedelta]
"""A span of time, or what works out a moment (with a time zone) or a span from (a copy of) the state."""


class NoDeadline(Enum):
    """Said on purpose of a wait that may last for ever."""

    NO_DEADLINE = "no deadline"


NO_DEADLINE: Final = NoDeadline.NO_DEADLINE


class AtDeadline(Enum):
    """What follows when nobody has answered by the deadline."""

    COMPENSATE = "compensate"
    GO_ON = "go on"


COMPENSATE: Final = AtDeadline.COMPENSATE
GO_ON: Final = AtDeadline.GO_ON


@dataclass(frozen=True)
class On(Generic[S]):
    """A signal that a step waits for, and what takes it; see `on`."""

    signal: type[Signal]
    hook: Callable[[S, Any], None] | None
    failures: tuple[type[Failure], ...]


def on(
    signal: type[G],
    hook: Callable[[S, G], None] | None = None,
    *,
    failures: Sequence[type[Failure]] = (),
) -> On[S]:
    """One of the signals that end a wait.

    Args:
        hook: takes what the state should keep of it. A `Failure` that it raises is a business "no": the
            saga turns back with the outcome ``refused``.
        failures: what the hook may raise, so that diagrams and `saga check` know of it.

    Raises:
        DefinitionError: the class is no `Signal`, or a failure no `Failure`.
    """
    if not (isinstance(signal, type) and issubclass(signal, Signal)):
        raise DefinitionError(f"on({signal!r}): give a subclass of Signal.")
    for failure in failures:
        if not (isinstance(failure, type) and issubclass(failure, Failure)):
            raise DefinitionError(
                f"on({signal.__name__}): {failure!r} in failures= is not a subclass of Failure."
            )
    return On(signal, hook, tuple(failures))


class WaitStep(Step[S]):
    """A step that waits for the first of some signals, or for its deadline."""

    def __init__(
        self,
        state: type[S],
        signals: tuple[On[S], ...],
        deadline: Moment[S] | NoDeadline,
        at_deadline: AtDeadline | Callable[[S], None],
        *,
        when: Callable[[S], bool] | None,
    ) -> None:
        super().__init__(state, when=when)
        self.signals = signals
        self.deadline = deadline
        self.at_deadline = at_deadline

    @property
    def names(self) -> tuple[str, ...]:
        """Of the signals that it waits for."""
        return tuple(one.signal.signal_name for one in self.signals)

    def reaction(self, signal: str) -> On[S] | None:
        """What takes the signal of this name; None if it does not wait for it."""
        return next((one for one in self.signals if one.signal.signal_name == signal), None)

    @override
    def shape(self) -> list[object]:
        return [self.name, "wait", *sorted(self.names)]


class DelayStep(Step[S]):
    """A step that waits for a moment."""

    def __init__(self, state: type[S], until: Moment[S], *, when: Callable[[S], bool] | None) -> None:
        super().__init__(state, when=when)
        self.until = until

    @override
    def shape(self) -> list[object]:
        return [self.name, "delay"]


class EndStep(Step[S]):
    """A step that ends the saga early, with every effect kept, if its condition holds."""

    def __init__(self, state: type[S], when: Callable[[S], bool], because: str) -> None:
        super().__init__(state, when=when)
        self.because = because

    @override
    def shape(self) -> list[object]:
        return [self.name, "end"]


AnyStep: TypeAlias = LocalStep[Any] | CommandStep[Any] | WaitStep[Any] | DelayStep[Any] | EndStep[Any]
"""A step of any kind."""
