"""Who signals a simulated saga, and when: early, late, twice, at the very moment of a deadline."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from typing import Any, Final

from sagas_framework.core.instance import Phase, SagaInstance
from sagas_framework.core.waiting import moment
from sagas_framework.messages import Signal
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import DelayStep, NoDeadline, WaitStep
from sagas_framework.storage.ports import AT_ONCE, SignalRow
from sagas_framework.testing.choices import durations
from sagas_framework.testing.world import World

_LATER: Final = (
    "after 0.005 s",
    "after 0.025 s",
    "after 3 s",
    "after 30 s",
    "after 61 s",
    "after 150 s",
    "after 2500 s",
)
_IN_TIME: Final = ("after 1 s", "never", "before it begins", *_LATER)
_PERHAPS: Final = ("never", "before it begins", "after 1 s", *_LATER)
_AGAIN: Final = (
    "never",
    "under its id after 0 s",
    "under its id after 2 s",
    "as another after 0 s",
    "as another after 2 s",
)
_AT: Final = {"just before it": -0.005, "at it": 0.0, "just after it": 0.005}
SAYS: Final = "somebody says"
"""The agenda's word for a signal that will be said; then come its saga, its name and its id."""


class Sayers:
    """The people and services that signal the sagas of a run.

    Args:
        say: stores a signal as of now.
        example_of: what is said.
    """

    def __init__(
        self,
        world: World,
        definition: SagaDefinition,
        example_of: Callable[[type[Signal]], Signal],
        say: Callable[[SignalRow], None],
    ) -> None:
        self._world = world
        self._definition = definition
        self._example_of = example_of
        self._say = say
        self.seen: set[Hashable] = set()
        """The waits whose deadlines were thought about."""

    def plan(self, key: str, prefix: str) -> None:
        """Decide when each signal is said to the saga with this key."""
        firsts = [step.names[0] for step in self._definition.steps if isinstance(step, WaitStep)]
        for name in self._definition.signals:
            choices = self._world.choices
            menu = _IN_TIME if name in firsts else _PERHAPS
            choice = choices.at(f"{prefix}{name} is said", menu, weight=3)
            if choice == "never":
                continue
            after = next(iter(durations(choice)), 0.0)
            self._saying(key, name, "first", after)
            for number in range(1, firsts.count(name)):  # one for each step that waits for it first
                self._saying(key, name, f"for step {number + 1}", after + number)
            again = choices.at(f"{prefix}{name} is said again", _AGAIN, weight=2)
            if again != _AGAIN[0]:
                its_id = "first" if again.startswith("under its id") else "second"
                self._saying(key, name, its_id, after + durations(again)[0])

    def think_about(self, instance: SagaInstance, prefix: str) -> None:
        """When a saga has begun to wait, somebody may speak at the moment of its deadline."""
        for name in self._definition.waits:
            record = instance.steps.get(name)
            if record is None or record.phase is not Phase.WAITING or record.deadline is None:
                continue
            if (instance.id, name) in self.seen:
                continue
            self.seen.add((instance.id, name))
            step = self._definition.steps[self._definition.index(name)]
            assert isinstance(step, WaitStep)
            signal = step.names[0]
            menu = ("nothing more is said", *(f"{signal} is said {when}" for when in _AT))
            choice = self._world.choices.at(f"{prefix}the deadline of {name}", menu, weight=3)
            for when, seconds in _AT.items():
                if choice.endswith(f" {when}"):
                    until = (record.deadline - self._world.now).total_seconds() + seconds
                    self._saying(instance.key, signal, f"at the deadline of {name}", max(until, 0.0))

    def _saying(self, key: str, name: str, said_id: str, after: float) -> None:
        self._world.after(after, lambda: self.say(key, name, said_id), (SAYS, key, name, said_id))

    def say(self, key: str, name: str, said_id: str, payload: dict[str, Any] | None = None) -> None:
        """Somebody signals the saga, now."""
        self._world.say(f"somebody says {name} ({said_id})")
        signal = self._definition.signal(name)
        assert signal is not None
        now = self._world.now
        said = payload if payload is not None else self._example_of(signal).to_json()
        self._say(SignalRow(0, self._definition.name, key, said_id, name, said, now, look_at=AT_ONCE))


def spans(definition: SagaDefinition, state: Any, beginning: datetime) -> list[timedelta]:
    """How long its waits and delays, and the saga as a whole, may take, from this state on."""
    given: list[Any] = [definition.deadline] if definition.deadline is not None else []
    for step in definition.steps:
        if isinstance(step, WaitStep) and not isinstance(step.deadline, NoDeadline):
            given.append(step.deadline)
        elif isinstance(step, DelayStep):
            given.append(step.until)
    found = []
    for one in given:
        made = one(state.model_copy(deep=True)) if callable(one) else one
        found.append(max(moment(made, beginning) - beginning, timedelta(0)))
    return found
