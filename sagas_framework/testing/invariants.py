"""What must hold in every run, whatever fails. Each function says in its docstring what it sees to.

They look at a `View`, and yield a sentence for each promise that they find broken.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final

from sagas_framework.core.events import Recorded
from sagas_framework.core.ids import operation_id
from sagas_framework.core.instance import OutcomeKind, Phase, SagaInstance, Status, StepRecord
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep, LocalStep, WaitStep
from sagas_framework.storage.ports import Became, SignalRow
from sagas_framework.testing.effects import Effects, Tally

_LANDED: Final = frozenset(
    {
        Phase.SUCCEEDED,
        Phase.REFUSED,
        Phase.FAILED,
        Phase.UNKNOWN,
        Phase.WITHDRAWN,
        Phase.SKIPPED,
        Phase.LEFT_OUT,
        Phase.HANDED_OVER,
        Phase.COMPENSATED,
    }
)
_THERE: Final = frozenset({Phase.SUCCEEDED, Phase.ANSWERED})
_GONE: Final = frozenset({Phase.REFUSED, Phase.WITHDRAWN, Phase.SKIPPED, Phase.LEFT_OUT, Phase.COMPENSATED})
_SKEW: Final = timedelta(seconds=100)
"""By how much the clocks of a run may differ, and a little more."""
_BY_HAND: Final = ("by_hand", "force", "forced", "effect")
"""Details of a history line after which a person, not the library, answers for a step's effect."""


@dataclass(frozen=True)
class View:
    """One saga of a run and what its participants have done.

    Args:
        history: its lines, oldest first.
        taken: the faults so far.
        signals: that were said to it.
    """

    instance: SagaInstance
    definition: SagaDefinition
    history: Sequence[Recorded]
    effects: Effects
    taken: Mapping[str, str]
    signals: Sequence[SignalRow] = ()
    _tallied: dict[str, Tally] = field(default_factory=dict, compare=False)

    def tally(self, record: StepRecord) -> Tally:
        """How often the step's effect is there, and how often it was undone."""
        found = self._tallied.get(record.name)
        if found is None:
            found = self.effects.tally(operation_id(self.instance.id, record.name))
            self._tallied[record.name] = found
        return found

    @cached_property
    def working(self) -> list[StepRecord]:
        """The steps that do something: all but those that only wait, or end the saga."""
        kinds = {step.name: isinstance(step, LocalStep | CommandStep) for step in self.definition.steps}
        return [record for record in self.instance.steps.values() if kinds[record.name]]

    def count(self, record: StepRecord) -> int:
        """How often the step's effect is there."""
        return self.tally(record).there

    def by_hand(self, name: str) -> bool:
        """Whether a person took the step over."""
        return name in self.taken_over

    @cached_property
    def taken_over(self) -> frozenset[str]:
        """The steps that a person took over."""
        return frozenset(
            line.step for line in self.history if line.step and any(map(line.detail.get, _BY_HAND))
        )

    def stays(self, record: StepRecord) -> bool:
        """Whether the declaration says that there is nothing to undo."""
        index = self.definition.index(record.name)
        return index < self.definition.pivot and not self.definition.steps[index].undoable


Invariant = Callable[[View], Iterator[str]]


def at_most_once(view: View) -> Iterator[str]:
    """Never two effects at once for one operation, and never less than none."""
    for record in view.instance.steps.values():
        if view.count(record) not in (0, 1):
            yield f"the effect of {record.name} is there {view.count(record)} times"


def undone_at_most_once(view: View) -> Iterator[str]:
    """An undo handler's work is committed at most once for an operation."""
    for record in view.instance.steps.values():
        times = view.tally(record).undone
        if times > 1:
            yield f"{record.name} was undone {times} times"


def one_key_per_operation(view: View) -> Iterator[str]:
    """A third party sees one idempotency key per operation, whatever the attempt."""
    for purpose, keys in view.effects.provider.keys.items():
        if len(keys) > 1:
            yield f"the provider saw {len(keys)} keys for {purpose}"


def what_it_believes_is_true(view: View) -> Iterator[str]:
    """A step seen as succeeded has its effect, one seen as refused, withdrawn, skipped or undone has none."""
    if view.instance.status is Status.COMPENSATED:
        return
    for record in view.working:
        there = view.count(record)
        if record.phase in _THERE and there != 1 and not view.by_hand(record.name):
            yield f"the saga believes that {record.name} succeeded, and its effect is not there"
        if record.phase in _GONE and there and not view.stays(record) and not view.by_hand(record.name):
            yield f"the saga believes that {record.name} is {record.phase.value}, and its effect is there"


def completed_keeps_everything(view: View) -> Iterator[str]:
    """Completed: every effect is there exactly once, but for steps that a person has skipped."""
    if view.instance.status is not Status.COMPLETED:
        return
    for record in view.working:
        if record.phase in (Phase.SKIPPED, Phase.LEFT_OUT):
            continue
        if view.count(record) != 1 and not view.by_hand(record.name):
            yield f"the saga is completed, and {record.name} has {view.count(record)} effects"


def compensated_leaves_nothing(view: View) -> Iterator[str]:
    """Compensated: no effect is there, but for steps with nothing to undo, said so in the declaration."""
    if view.instance.status is not Status.COMPENSATED:
        return
    for record in view.instance.steps.values():
        if view.count(record) != 0 and not view.stays(record) and not view.by_hand(record.name):
            yield f"the saga is compensated, and the effect of {record.name} stays"


def what_has_landed_waits_for_nothing(view: View) -> Iterator[str]:
    """A step that is over has nothing in flight and no timer; a saga that has ended has none at all."""
    for record in view.instance.steps.values():
        if record.phase in _LANDED and (record.flight or record.deadline or record.resume_at):
            yield f"{record.name} is {record.phase.value} and still waits for something"
    if view.instance.status.ended and view.instance.due_at is not None:
        yield f"the saga is {view.instance.status.value} and still has a timer"


def parked_says_why(view: View) -> Iterator[str]:
    """A parked saga names the step and the reason; one with such a step is shown as parked."""
    reasons = [record.parked for record in view.instance.steps.values() if record.parked]
    if (view.instance.status is Status.PARKED) != bool(reasons) and not view.instance.status.ended:
        yield f"the saga is {view.instance.status.value}, and the reasons to park it are {reasons}"


def the_outcome_fits(view: View) -> Iterator[str]:
    """Completed sagas went well; compensated ones say why not."""
    kind = view.instance.outcome.kind if view.instance.outcome else None
    if (view.instance.status is Status.COMPLETED) != (kind is OutcomeKind.OK):
        yield f"the saga is {view.instance.status.value}, and its outcome is {kind}"


def the_history_tells_the_truth(view: View) -> Iterator[str]:
    """Its last word is the saga's status; a succeeded step has its effect, unless it is being undone."""
    statuses = [line.entry for line in view.history if line.entry in tuple(Status)]
    last = statuses[-1] if statuses else Status.RUNNING
    if last != view.instance.status:
        yield f"the history ends with {last}, and the saga is {view.instance.status.value}"
    words = [line.entry for line in view.history]
    for record in view.working:
        if words.count(f"{record.name}.succeeded") > 1 or words.count(f"{record.name}.compensated") > 1:
            yield f"the history says twice that {record.name} succeeded, or was compensated"
        told = f"{record.name}.succeeded" in words and f"{record.name}.compensating" not in words
        if told and not view.by_hand(record.name) and view.count(record) != 1:
            yield f"the history says that {record.name} succeeded, and its effect is not there"


def no_failure_is_invented(view: View) -> Iterator[str]:
    """An attempt that the history calls failed was answered with a failure."""
    for line in view.history:
        if line.step and line.entry.endswith(".attempt_failed"):
            key = operation_id(view.instance.id, line.step)
            attempt = line.detail["attempt"]
            if attempt not in view.effects.failures_answered[key]:
                yield f"the history says that {line.step} failed in attempt {attempt}: it did not"


def only_the_last_attempt_gives_up(view: View) -> Iterator[str]:
    """A saga that turned back because a step failed has had a failure of that step's last attempt."""
    outcome = view.instance.outcome
    if outcome is None or outcome.kind is not OutcomeKind.FAILED:
        return
    if outcome.step not in {record.name for record in view.working}:
        return
    record = view.instance.steps[outcome.step]
    failures = view.effects.failures_answered[operation_id(view.instance.id, record.name)]
    if record.attempts and not record.known and record.attempts not in failures:
        yield f"the history says that {record.name} failed in attempt {record.attempts}: it did not"


def undone_in_reverse(view: View) -> Iterator[str]:
    """Compensations begin in the reverse order of the steps."""
    order: list[int] = []
    for line in view.history:
        if line.step and line.entry == f"{line.step}.compensating":
            index = view.definition.index(line.step)
            if index not in order:
                order.append(index)
    if order != sorted(order, reverse=True):
        yield f"the steps are undone in the order {order}"


def a_signal_is_taken_once(view: View) -> Iterator[str]:
    """A signal that was taken ended one wait, one that was not ended none; a wait takes at most one."""
    numbers = [
        line.detail["number"] for line in view.history if line.step and line.detail.get("number") is not None
    ]
    taken = sorted(row.id for row in view.signals if row.became is Became.TAKEN)
    if sorted(numbers) != taken and not any(line.entry.startswith("operator.") for line in view.history):
        yield f"the signals {taken} were taken, and the waits ended with {sorted(numbers)}"


def what_was_said_in_time_counts(view: View) -> Iterator[str]:
    """No wait ends by its deadline while a signal for it lies there that was stored before that."""
    skew = _SKEW if any("jumps" in choice for choice in view.taken.values()) else timedelta(0)
    for line in view.history:
        if line.detail.get("because") != "the deadline has passed" and not (
            line.entry.endswith(".failed") and line.detail.get("type") == "DeadlinePassed"
        ):
            continue
        step = next((one for one in view.definition.steps if one.name == line.step), None)
        waiting = next((one for one in view.history if one.entry == f"{line.step}.waiting"), None)
        if not isinstance(step, WaitStep) or waiting is None or waiting.detail.get("until") is None:
            continue
        until = datetime.fromisoformat(waiting.detail["until"])
        for row in view.signals:
            early = row.said_at < min(until, line.at - skew)
            if early and step.reaction(row.signal) and row.became is not Became.TAKEN:
                yield f"{line.step} ended by its deadline, and {row.signal} had been said in time"


def every_signal_is_answered(view: View) -> Iterator[str]:
    """Once the saga has ended nobody waits for an answer to a signal."""
    for row in view.signals:
        if row.handled_at is None and view.instance.status.ended:
            yield f"the saga has ended, and the signal {row.signal} is {row.became.value}"


ALWAYS: Final[tuple[Invariant, ...]] = (
    at_most_once,
    undone_at_most_once,
    one_key_per_operation,
    what_it_believes_is_true,
    completed_keeps_everything,
    compensated_leaves_nothing,
    what_has_landed_waits_for_nothing,
    parked_says_why,
    the_outcome_fits,
    no_failure_is_invented,
    only_the_last_attempt_gives_up,
    a_signal_is_taken_once,
    what_was_said_in_time_counts,
)
"""Seen to after every event."""

AT_THE_END: Final[tuple[Invariant, ...]] = (
    the_history_tells_the_truth,
    undone_in_reverse,
    every_signal_is_answered,
)
"""Seen to when nothing more happens."""

_NEED_A_PERSON: Final = ("refuses", "raises", "forgets", "completes", "force")
"""Choices after which a saga may rightly wait for a person."""
_LEAVE_A_CLAIM: Final = ("dies", "database away", "fails", "is away")
"""Choices after which an outside handler may have worked that nothing can undo."""


def it_ends(view: View) -> Iterator[str]:
    """Once faults have stopped the saga ends, or is parked where only a person can decide."""
    instance = view.instance
    if instance.status.ended:
        return
    if instance.status is not Status.PARKED:
        yield f"the saga is still {instance.status.value} long after the last fault"
        return
    for record in instance.steps.values():
        if not record.parked:
            continue
        key = operation_id(instance.id, record.name)
        needs = _LEAVE_A_CLAIM if "OutcomeUnknown" in record.parked else _NEED_A_PERSON
        if record.flight or record.resume_at:
            yield f"{record.name} is parked long after the last fault, and needs no person: {record.parked}"
        elif key in view.effects.killed and "OutcomeUnknown" in record.parked:
            continue
        elif not any(need in choice for need in needs for choice in view.taken.values()):
            yield f"{record.name} waits for a person, and nothing happened that needs one: {record.parked}"


def excuses(view: View) -> frozenset[Hashable]:
    """Whatever lets an invariant look away. A run that has more of it may hide what another one breaks."""
    effects = view.effects
    return frozenset(
        [
            *_words_in(tuple(view.taken.values())),
            *(("by hand", view.instance.id, step) for step in view.taken_over),
            *(("killed", key) for key in effects.killed),
            *(("claimed", key, n) for key, most in effects.claimed.items() for n in range(1, most + 1)),
        ]
    )


@lru_cache(maxsize=4096)
def _words_in(choices: tuple[str, ...]) -> tuple[str, ...]:
    words = (*_NEED_A_PERSON, *_LEAVE_A_CLAIM)
    return tuple(word for word in words if any(word in choice for choice in choices))
