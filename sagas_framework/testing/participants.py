"""Participants of a simulation: a user's own, or made from the contracts; every handler may misbehave."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, cast

from sagas_framework.core.ids import Kind
from sagas_framework.errors import Failure, Unavailable
from sagas_framework.messages import Command, Reply, Service, settle_task
from sagas_framework.participant import Context, Handling, Participant
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.storage.ports import Inbox
from sagas_framework.testing.choices import duration
from sagas_framework.testing.effects import Effects
from sagas_framework.testing.network import Names
from sagas_framework.testing.sessions import StandInSession
from sagas_framework.testing.world import Crashed, World

_DOING: Final[tuple[str, ...]] = ("works", "fails", "is away", "takes 3 s", "takes 20 s", "takes 90 s")
_OUTSIDE: Final = ("fails after it worked",)
_REFUSES: Final = "refuses"
_UNDOING: Final[tuple[str, ...]] = ("works", "fails", "is away", "takes 3 s", "takes 20 s", _REFUSES)


class TransientFault(Exception):
    """What a handler raises when the schedule says that it fails."""


class Handlers:
    """Wraps handlers: the choices make them misbehave, and what they do is counted.

    Args:
        time_limit: seconds after which the process of a handler that works outside is killed.
    """

    def __init__(self, world: World, effects: Effects, names: Names, time_limit: float) -> None:
        self._time_limit = time_limit
        self._world = world
        self._effects = effects
        self._names = names

    def wrapped(self, handling: Handling) -> Handling:
        """The same task, with a handler that obeys the schedule."""
        if handling.handler is None:
            return handling
        if handling.kind is Kind.DO:
            return replace(handling, handler=self._doing(handling, handling.handler))
        return handling  # an undo is wrapped by `wrapped_undo`, which knows whether its command works outside

    def wrapped_undo(self, handling: Handling, outside: bool) -> Handling:
        """The same for a compensation."""
        assert handling.handler is not None
        return replace(handling, handler=self._undoing(handling.handler, outside))

    def _doing(self, handling: Handling, original: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        command = handling.command
        menu = _DOING
        if handling.outside:
            menu += _OUTSIDE
        if command.failures:
            menu += (_REFUSES,)

        def handler(message: Any, context: Context) -> Any:
            name = self._names.operations.get(context.key, command.contract.task)
            self._world.changed = True
            self._effects.begin(name, context.key, context.attempt)
            if not handling.outside:
                return self._work(handling, original, message, context, menu)
            with self._effects.alone(name, context.key):
                return self._work(handling, original, message, context, menu)

        return handler

    def _work(
        self,
        handling: Handling,
        original: Callable[[Any, Any], Any],
        message: Any,
        context: Context,
        menu: tuple[str, ...],
    ) -> Any:
        command = handling.command
        name = self._names.operations.get(context.key, command.contract.task)
        at_most = self._time_limit if handling.outside else math.inf
        fate = self._fate(f"{name} {context.attempt}", menu, at_most)
        if fate.startswith("takes ") and duration(fate) > at_most:
            self._effects.killed.add(context.key)
            raise Crashed(f"after {at_most:g} s, its time limit")
        if fate == _REFUSES:
            failure = command.failures[0] if command.failures else Failure
            raise failure("the schedule says so")
        answer = original(message, context)
        if handling.outside:
            self._effects.charged(name, context.key)
            self._world.changed = True
            self._effects.provider.charge(context.key, name)
        else:
            self._effects.done(_rows(context), context.key)
        if fate in _OUTSIDE:
            raise TransientFault("after it worked")
        return answer

    def _undoing(self, original: Callable[[Any, Any], Any], outside: bool) -> Callable[[Any, Any], Any]:
        def handler(message: Any, context: Context) -> None:
            name = self._names.operations.get(context.key, context.key)
            if self._fate(f"undo {name} {context.attempt}", _UNDOING) == _REFUSES:
                raise Failure("the schedule says so")
            original(message, context)
            if outside:
                self._effects.provider.void(context.key)
            else:
                self._effects.undone(_rows(context), context.key)

        return handler

    def _fate(self, name: str, menu: tuple[str, ...], at_most: float = math.inf) -> str:
        fate = self._world.choices.at(f"handling {name}", menu, weight=2)
        self._world.say(f"{name} is handled: {fate}")
        if fate == "is away":
            raise Unavailable("the schedule says so")
        if fate == "fails":
            raise TransientFault("the schedule says so")
        if fate.startswith("takes "):
            self._world.pass_time(min(duration(fate), at_most))
        return fate


def simulated(
    participant: Participant, inbox: Inbox, handlers: Handlers, clock: Callable[[], Any]
) -> Participant:
    """The same participant over another inbox, its handlers wrapped."""
    copy = Participant(
        participant.service,
        inbox=inbox,
        lease=participant.lease,
        retention=participant.retention,
        clock=clock,
    )
    for task, handling in participant._handlings.items():
        if handling.kind is Kind.UNDO:
            doing = participant._handlings.get(handling.command.contract.task)
            copy._handlings[task] = handlers.wrapped_undo(handling, doing is not None and doing.outside)
        else:
            copy._handlings[task] = handlers.wrapped(handling)
    return copy


def generated(
    definition: SagaDefinition,
    *,
    given: Iterable[Participant],
    outside: Collection[type[Command[Any]]],
    example_of: Callable[[type[Reply]], Reply],
    lease: timedelta,
    retention: timedelta,
) -> list[Participant]:
    """A participant for each service that none was given for. Its handlers answer with examples."""
    there = {participant.service.name for participant in given}
    made: dict[str, Participant] = {}
    for step in definition.steps:
        if not isinstance(step, CommandStep) or step.command.contract.service.name in there:
            continue
        service: Service = step.command.contract.service
        participant = made.setdefault(
            service.name,
            # Replaced by a simulated one in every run.
            Participant(service, inbox=MemoryInbox(MemoryDatabase()), lease=lease, retention=retention),
        )
        if step.command.contract.task in participant.tasks:
            continue
        _declare(participant, step.command, step.command in outside, example_of)
    return list(made.values())


def _declare(
    participant: Participant,
    command: type[Command[Any]],
    outside: bool,
    example_of: Callable[[type[Reply]], Reply],
) -> None:
    wanted = command.reply_type()

    def do(message: Any, context: Context) -> Any:
        return example_of(wanted) if issubclass(wanted, Reply) else None

    def undo(message: Any, context: Context) -> None:
        pass

    task, settling = command.contract.task, settle_task(command)
    participant._handlings[task] = Handling(Kind.DO, command, outside, do)
    participant._handlings[settling] = Handling(Kind.SETTLE, command, outside)
    if command.compensation is not None:
        undoing = Handling(Kind.UNDO, command, handler=undo)
        participant._handlings[command.compensation.contract.task] = undoing


def _rows(context: Context) -> dict[str, Any]:
    return cast(StandInSession, cast(Any, context.session)).rows
