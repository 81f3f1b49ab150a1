"""A user's saga in a simulated world: schedules of faults, checked after every event.

simulation = Simulation(CreateOrderSaga, CreateOrderState(...))
simulation.check(runs=200)  # long schedules, at random
simulation.exhaust(faults=2)  # every schedule with up to two faults
"""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final, Generic, TypeVar

from pydantic import BaseModel

from sagas_framework.core.events import Policy
from sagas_framework.errors import ConfigurationError, DefinitionError
from sagas_framework.examples import example
from sagas_framework.messages import Command, Message, Reply, Signal
from sagas_framework.participant import Participant
from sagas_framework.saga import Saga, SagaDefinition
from sagas_framework.steps import CommandStep
from sagas_framework.testing.choices import Choices, Schedule, Scripted, Sown
from sagas_framework.testing.effects import Broken, BrokenPromise
from sagas_framework.testing.exploring import Exploration, Explored, moments_after
from sagas_framework.testing.memento import Memento
from sagas_framework.testing.participants import generated
from sagas_framework.testing.run import Run
from sagas_framework.testing.saying import spans
from sagas_framework.testing.world import BEGINNING

S = TypeVar("S", bound=BaseModel)

POLICY: Final = Policy(
    message_lifetime=timedelta(seconds=1200),
    inbox_retention=timedelta(hours=4),
    clock_skew=timedelta(minutes=1),
)
"""The library's own numbers but for lifetimes, shorter so that a run comes to their end."""

_REMEMBERS: Final = (
    "A handler, a hook or a promise remembers something from one run to the next, or goes by chance. "
    "Keep what a handler must know in `context.session.rows`, which every run has for itself."
)
_TOLD_FIRST: Final = 120
_TOLD_LAST: Final = 20
_LEASE: Final = timedelta(minutes=4)
_KILLED_BEFORE: Final = timedelta(seconds=30)
"""By how much, and the clocks' skew, a process is killed before its lease ends; as workers are."""
_FAULTS_STOP: Final = 2400.0
_PATIENCE: Final = 6600.0
_AFTERMATH: Final = 12000.0
"""How long after the end what is late, and retention, may still do harm."""


class Simulation(Generic[S]):
    """A saga to be run under faults.

    Its participants are those given, over inboxes in memory, and for the other services ones made
    from the contracts. Hooks and handlers get a session whose ``rows`` (a dict) are kept with the
    transaction; whatever else they ask of it is taken and forgotten.

    Args:
        state: of each run; a function makes one for each saga of a run from its number.
        participants: real ones, with their handlers.
        outside: commands whose generated handler works outside its transaction.
        examples: replies for generated handlers, and signals, where a plain value for each field does not do.
        promises: what else must hold when a run is over; each yields a sentence for what does not.
        sagas: how many run side by side in each run.
        policy: `POLICY`, with a retention that fits the saga's timeouts, unless given.

    Raises:
        DefinitionError: no example of a reply can be guessed, two participants are of one service, or a
            step has no inbox: what it promises under faults is that a person decides, which `scenario`
            tells better.
        ValueError: not even one saga is to be run.
    """

    def __init__(
        self,
        saga: type[Saga[S]],
        state: S | Callable[[int], S],
        *,
        participants: Sequence[Participant] = (),
        outside: Collection[type[Command[Any]]] = (),
        examples: Iterable[Reply | Signal] = (),
        promises: Sequence[Callable[[Run[S]], Iterable[str] | None]] = (),
        sagas: int = 1,
        policy: Policy | None = None,
        lease: timedelta = _LEASE,
    ) -> None:
        if sagas < 1:
            raise ValueError(f"sagas={sagas}: there must be at least one to look at.")
        self.saga = saga
        self.sagas = sagas
        first = state if isinstance(state, BaseModel) else state(0)
        waits = sum(span.total_seconds() for span in spans(saga.definition, first, BEGINNING))
        self.faults_stop = max(_FAULTS_STOP, 2 * (_timeouts(saga.definition) + waits))
        """Seconds since the beginning in which something may go wrong: also after every timeout."""
        self.ended_by = self.faults_stop + max(_PATIENCE, 2 * (_longest(saga.definition) + waits))
        """Seconds since the beginning after which every saga must have ended, or need a person."""
        self.over_by = self.ended_by + _AFTERMATH
        kept = max(POLICY.inbox_retention, timedelta(seconds=2 * self.ended_by - _PATIENCE))
        self.policy = policy or replace(POLICY, inbox_retention=kept)
        self.promises = promises
        self._state = state
        self._given = list(participants)
        self._outside = outside
        self._examples: dict[type[Message], Reply | Signal] = {type(one): one for one in examples}
        self._lease = lease
        self.time_limit = (lease - self.policy.clock_skew - _KILLED_BEFORE).total_seconds()
        """Seconds after which the process of a handler that works outside is killed."""
        there = {participant.service.name for participant in self._given}
        if len(there) < len(self._given):
            raise DefinitionError(
                "Two participants of one service were given: hand in one, with all handlers."
            )
        for step in saga.definition.steps:
            if isinstance(step, CommandStep) and not step.has_inbox:
                raise DefinitionError(
                    f"{saga.__name__}.{step.name} is done by {step.command.contract.service.name}, which "
                    "keeps no inbox: a message that is lost or comes twice is a person's to judge there, and "
                    "not what a simulation can check. Tell its story with scenario(...)."
                )
        for step in saga.definition.steps:  # found here, not taken for a fault of a handler
            if isinstance(step, CommandStep) and step.command.contract.service.name not in there:
                self.answer_of(step.command)

    # ---- running it -------------------------------------------------------------------------------

    def run(
        self, choices: Choices, *, meanwhile: Mapping[float, Callable[[Run[S]], object]] | None = None
    ) -> Run[S]:
        """One run in which these choices are made.

        Args:
            meanwhile: what else is done to the run, by seconds since its beginning.

        Raises:
            BrokenPromise: an invariant does not hold.
        """
        try:
            return self._run(choices, meanwhile or {})
        except _Found as found:
            raise BrokenPromise(self._told(found.schedule, None, found)) from None

    def replay(
        self, schedule: Schedule, *, meanwhile: Mapping[float, Callable[[Run[S]], object]] | None = None
    ) -> Run[S]:
        """The run with these faults and no others.

        Args:
            meanwhile: see `run`.

        Raises:
            BrokenPromise: an invariant does not hold.
            ValueError: the run never came by one of the schedule's points, or what the schedule says
                cannot happen there.
        """
        choices = Scripted(schedule)
        run = self.run(choices, meanwhile=meanwhile)
        for point, menu in choices.impossible().items():
            raise ValueError(
                f"{schedule[point]!r} never happens at {point!r}. What may happen there (with any number of "
                "seconds):\n  " + "\n  ".join(menu)
            )
        if choices.unused():
            raise ValueError(
                f"The run never came to {', '.join(map(repr, choices.unused()))}. It came by:\n  "
                + "\n  ".join(choices.seen)
                + f"\n\n{run.trace()}"
            )
        return run

    def check(self, runs: int = 100, *, seed: int = 0) -> None:
        """Random schedules, long and short: so many, the same for the same seed.

        Raises:
            BrokenPromise: at the first that breaks a promise, with the shortest schedule found.
            ValueError: there is no such number of runs.
            ConfigurationError: Hypothesis is not installed, or a handler remembers former runs.
            DefinitionError: a participant that was given lacks a handler.
        """
        if runs < 1:
            raise ValueError(f"runs={runs}: at least one run is needed to check anything.")
        self._see_that_all_is_handled()
        try:
            from sagas_framework.testing.driving import Unrepeatable, drive
        except ModuleNotFoundError as missing:
            raise ConfigurationError(
                "Random schedules are made by Hypothesis, which comes with an extra. "
                "Run: pip install 'sagas-framework[testing]'"
            ) from missing
        run: Run[S] = Run(self, Choices())
        run.world.tells = False
        beginning = Memento(run.stateful())

        def play(choices: Sown) -> None:
            beginning.recall()
            run.world.choices = choices
            self._go(run)

        with _silence():
            try:
                drive(play, runs, seed)
            except Unrepeatable:
                raise ConfigurationError(f"The same faults gave another run. {_REMEMBERS}") from None
            except _Found as found:
                schedule = self.shrunk(found.schedule)
                raise BrokenPromise(self._told(schedule, f"seed {seed}")) from None

    def exhaust(self, faults: int = 2) -> Explored:
        """Every schedule with up to so many faults, for one saga: a proof within that bound.

        Of times there is one before the first timer that could fire, and one after each.

        Raises:
            BrokenPromise: at the shortest that breaks a promise.
            ConfigurationError: a handler remembers former runs.
            DefinitionError: a participant that was given lacks a handler.
            ValueError: there is no such number of faults.
        """
        if faults < 0:
            raise ValueError(f"faults={faults}: the least is 0, the schedule on which nothing goes wrong.")
        self._see_that_all_is_handled()
        run: Run[S] = Run(self, Choices())
        run.world.tells = False
        (expired,) = moments_after([self.policy.message_lifetime])
        exploration = Exploration(run, moments_after(self._timers()), expired, self.over_by)
        with _silence(), _little_garbage():
            try:
                return exploration.go(faults)
            except Broken:
                found = run.schedule
        bound = f"{len(found)} fault" + "s" * (len(found) != 1)
        raise BrokenPromise(self._told(found, f"all schedules with up to {bound}"))

    def shrunk(self, schedule: Schedule) -> dict[str, str]:
        """A part of a failing schedule that still fails, but no longer does without any one of its faults."""
        left = dict(schedule)
        removed = True
        while removed:
            removed = False
            for point in list(left):
                fewer = {name: choice for name, choice in left.items() if name != point}
                try:
                    self._run(Scripted(fewer), {})
                except _Found as found:
                    left, removed = found.schedule, True
                    break
        return left

    def _see_that_all_is_handled(self) -> None:
        """Each time refused by mistake, a saga keeps its promises. (A `replay` may tell of a deployment.)"""
        for one in self._given:
            one.check()
        given = {one.service.name: one for one in self._given}
        for step in self.saga.definition.steps:
            if not isinstance(step, CommandStep):
                continue
            contract = step.command.contract
            participant = given.get(contract.service.name)
            if participant is not None and contract.task not in participant.tasks:
                raise DefinitionError(
                    f"{self.saga.__name__}.{step.name} would always be refused: the participant of "
                    f"{contract.service.name} that was given has no handler of {contract.task}."
                )

    # ---- what is in it ----------------------------------------------------------------------------

    def state(self, number: int) -> S:
        """The state that the saga of this number starts with."""
        return self._state if isinstance(self._state, BaseModel) else self._state(number)

    def answer_of(self, command: type[Command[Any]]) -> Reply | None:
        """What a generated participant answers to the command."""
        wanted = command.reply_type()
        return self.example_of(wanted) if issubclass(wanted, Reply) else None

    def example_of(self, reply: type[Reply]) -> Reply:
        """The example given for this reply, or a guess."""
        given = self._examples.get(reply)
        return given if isinstance(given, Reply) else example(reply)

    def signal_of(self, signal: type[Signal]) -> Signal:
        """What is said: the example given for this signal, or a guess."""
        given = self._examples.get(signal)
        return given if isinstance(given, Signal) else example(signal)

    def holds(self, step: str, number: int) -> bool:
        """Whether the step's condition does, for the state that the saga of this number starts with."""
        when = self.saga.definition.steps[self.saga.definition.index(step)].when
        return when is None or bool(when(self.state(number).model_copy(deep=True)))

    def participants(self) -> list[Participant]:
        """Those given, and generated ones for the other services."""
        return self._given + generated(
            self.saga.definition,
            given=self._given,
            outside=self._outside,
            example_of=self.example_of,
            lease=self._lease,
            retention=self.policy.inbox_retention,
        )

    def _timers(self) -> list[timedelta]:
        """The timers that may fire in a run."""
        timers = {self.policy.resend_first}
        for step in self.saga.definition.steps:
            timers |= {step.timeout} if isinstance(step, CommandStep) else set()
        timers.update(spans(self.saga.definition, self.state(0), BEGINNING))
        return list(timers)

    def _run(self, choices: Choices, meanwhile: Mapping[float, Callable[[Run[S]], object]]) -> Run[S]:
        run: Run[S] = Run(self, choices)
        with _silence():
            self._go(run, meanwhile)
        return run

    @staticmethod
    def _go(
        run: Run[S], meanwhile: Mapping[float, Callable[[Run[S]], object]] = MappingProxyType({})
    ) -> None:
        try:
            run.go(meanwhile)
        except Broken as broken:
            raise _Found(run.schedule, str(broken), run) from broken

    def _told(self, schedule: Schedule, how: str | None, found: _Found[S] | None = None) -> str:
        if found is None:
            try:
                self._run(Scripted(schedule), {})
            except _Found as again:
                found = again
        if found is None:
            raise ConfigurationError(
                f"A promise was broken by {dict(schedule)}, but not when it was replayed. {_REMEMBERS}"
            )
        where = "" if how is None else f" ({how})"
        faults = "".join(f"            {point!r}: {choice!r},\n" for point, choice in schedule.items())
        name = re.sub(r"\W+", "_", found.broken.lower()).strip("_")[:80].rstrip("_")
        return (
            f"{found.broken}{where}\n\n"
            f"    def test_{name}() -> None:\n"
            f"        # {' '.join(found.broken.split())}\n"
            "        simulation.replay({\n"
            f"{faults}"
            "        })\n\n"
            f"{_shortened(found.run.trace())}\n"
        )


def _timeouts(definition: SagaDefinition) -> float:
    """How many seconds a run takes in which no step is answered in time."""
    return sum((step.timeout for step in definition.steps), timedelta()).total_seconds()


def _longest(definition: SagaDefinition) -> float:
    """How many seconds a run may take when every step times out, and every retry is used up."""
    longest = timedelta()
    for step in definition.steps:
        longest += 2 * step.timeout
        for retry in (step.retry, step.undo_retry):
            longest += retry.ceiling
            for attempt in range(1, min(retry.attempts, 100) + 1):
                longest += retry.pause_after(attempt)
    return longest.total_seconds()


def _shortened(trace: str) -> str:
    """The trace without its middle, if it is long: a saga that never ends tells that over and over."""
    lines = trace.splitlines()
    left = len(lines) - _TOLD_FIRST - _TOLD_LAST
    if left > 1:
        lines[_TOLD_FIRST:-_TOLD_LAST] = [f"... {left} lines, all of them with `run.trace()` of a replay ..."]
    return "\n".join(lines)


class _Found(Exception, Generic[S]):
    """A run in which a promise was broken."""

    def __init__(self, schedule: dict[str, str], broken: str, run: Run[S]) -> None:
        super().__init__(broken)
        self.schedule = schedule
        self.broken = broken
        self.run = run


@contextmanager
def _little_garbage() -> Iterator[None]:
    """What an exploration keeps is no garbage: going through all of it again and again finds nothing."""
    before = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def _silence() -> Iterator[None]:
    """Faults are what a simulation is made of: nobody wants a log line for each."""
    logger = logging.getLogger("sagas_framework")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
