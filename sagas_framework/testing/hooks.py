"""A saga whose hooks may raise: what makes a command, takes a reply, makes a compensation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from sagas_framework.saga import Definitions, SagaDefinition
from sagas_framework.steps import CommandStep, On, WaitStep
from sagas_framework.testing.world import World

_CALLING: Final = ("returns", "raises")


class HookRaised(Exception):
    """What a hook raises when the schedule says so."""


def with_hooks_that_may_raise(definition: SagaDefinition, world: World) -> SagaDefinition:
    """The same declaration; before each of its hooks there is a choice."""
    return replace(definition, steps=tuple(_hooked(step, world) for step in definition.steps))


def only(definition: SagaDefinition) -> Definitions:
    """The sagas of a process that knows this one."""
    definitions = Definitions([])
    definitions._by_name[definition.name, definition.version] = definition
    return definitions


def _hooked(step: Any, world: World) -> Any:
    hooked = copy.copy(step)
    if step.when is not None:
        hooked.when = _guarded(step.when, f"asking whether {step.name} is done", world)
    if isinstance(hooked, WaitStep):
        hooked.signals = tuple(_hooked_signal(one, step.name, world) for one in hooked.signals)
        if callable(hooked.at_deadline):
            hooked.at_deadline = _guarded(hooked.at_deadline, f"taking the deadline of {step.name}", world)
    if not isinstance(step, CommandStep):
        return hooked  # the simulated store makes local steps raise
    hooked.request = _guarded(step.request, f"making {step.name}", world)
    if step.on_success is not None:
        hooked.on_success = _guarded(step.on_success, f"taking the reply of {step.name}", world)
    if callable(step.compensation):
        hooked.compensation = _guarded(step.compensation, f"making undo {step.name}", world)
    return hooked


def _hooked_signal(one: On[Any], step: str, world: World) -> On[Any]:
    if one.hook is None:
        return one
    return replace(one, hook=_guarded(one.hook, f"taking {one.signal.signal_name} at {step}", world))


def _guarded(hook: Callable[..., Any], point: str, world: World) -> Callable[..., Any]:
    def call(*args: Any) -> Any:
        if world.choices.at(point, _CALLING, weight=0.3) != _CALLING[0]:
            world.say(f"{point}: raises")
            raise HookRaised(point)
        return hook(*args)

    return call
