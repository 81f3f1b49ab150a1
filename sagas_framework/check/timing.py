"""Timeouts against each other and against what may still be sent (rule 10)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from sagas_framework.check.findings import Finding, Severity, found
from sagas_framework.core.events import Policy
from sagas_framework.core.why import in_words
from sagas_framework.examples import example
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep, DelayStep, WaitStep

_PATIENCE: Final = 10_000
"""Attempts that are counted; more are as many as anybody wants."""


def of_times(saga: SagaDefinition, policy: Policy) -> Iterator[Finding]:
    """What is wrong with the saga's timeouts and retries."""
    too_long = list(_one_timeout(saga, policy))
    yield from too_long
    if not too_long:
        yield from _all_timeouts(saga, policy)
    yield from _attempts_never_made(saga)


def _inbox_steps(saga: SagaDefinition) -> Iterator[tuple[int, CommandStep[Any]]]:
    for index, step in enumerate(saga.steps):
        if isinstance(step, CommandStep) and step.has_inbox:
            yield index, step


def _one_timeout(saga: SagaDefinition, policy: Policy) -> Iterator[Finding]:
    for _, step in _inbox_steps(saga):
        if step.timeout >= policy.sendable_for:
            yield found(
                saga,
                Severity.ERROR,
                "timeout-too-long",
                f"Its timeout of {in_words(step.timeout)} is not shorter than the "
                f"{in_words(policy.sendable_for)} for which a step may be sent "
                "anything: the saga would park before the timeout decides.",
                _shorter(policy),
                step=step.name,
            )


def _all_timeouts(saga: SagaDefinition, policy: Policy) -> Iterator[Finding]:
    for index, step in _inbox_steps(saga):
        if index < saga.pivot and step.undoable:
            age = longest_until_undone(saga, index)
            if age >= policy.sendable_for:
                yield found(
                    saga,
                    Severity.ERROR,
                    "timeout-too-long",
                    f"On the longest path it is undone {in_words(age)} after it was first sent: the timeouts "
                    "of the steps from it to the pivot, and of what is undone before it, one after another. "
                    f"Nothing may be sent for it after {in_words(policy.sendable_for)}: the saga would park.",
                    _shorter(policy),
                    step=step.name,
                )
                return  # the steps after it wait for less, and for the same reason


def _shorter(policy: Policy) -> str:
    return (
        "Give timeout= less; or keep inbox rows for longer, here and at every participant: "
        f"Policy(inbox_retention=...), now {in_words(policy.inbox_retention)}, and the participants' "
        "retention."
    )


def longest_until_undone(saga: SagaDefinition, index: int) -> timedelta:
    """How long after its first sending a step before the pivot is undone at the latest.

    Every step after it answers just before its timeout, the last not at all, and so do the compensations
    of those after it. Waits last until their deadlines. Pauses between attempts are within the timeouts. A
    pivot is settled for as long again.
    """
    total = timedelta()
    for later, step in enumerate(saga.steps[: saga.pivot + 1]):
        if later < index:
            continue
        if not isinstance(step, CommandStep):
            total += _span(saga, step)
            continue
        total += step.timeout
        if later == saga.pivot or (later > index and step.undoable):
            total += step.timeout
    return total


def _span(saga: SagaDefinition, step: AnyStep) -> timedelta:
    """How long a step that waits may take, on the example of the state; nothing if that is not known."""
    given = (
        step.deadline if isinstance(step, WaitStep) else step.until if isinstance(step, DelayStep) else None
    )
    if isinstance(given, timedelta):
        return given
    if not callable(given):
        return timedelta()
    try:
        made = given(example(saga.state))
    except Exception:
        return timedelta()  # which the walk tells of
    return made if isinstance(made, timedelta) else timedelta()


def _attempts_never_made(saga: SagaDefinition) -> Iterator[Finding]:
    for index, step in _inbox_steps(saga):
        possible = _attempts_within(step)
        if index <= saga.pivot and possible < min(step.retry.attempts, _PATIENCE):
            yield found(
                saga,
                Severity.WARNING,
                "attempts-never-made",
                f"Of its {step.retry.attempts} attempts at most {possible} can be made: the timeout of "
                f"{in_words(step.timeout)} runs from the first one and covers the pauses between them.",
                f"Give it a longer timeout=, shorter pauses, or Retry({possible}).",
                step=step.name,
            )


def _attempts_within(step: CommandStep[Any]) -> int:
    """How many attempts begin before the timeout, if each fails at once."""
    begun = timedelta()
    for attempt in range(1, min(step.retry.attempts, _PATIENCE)):
        begun += step.retry.pause_after(attempt)
        if begun >= step.timeout:
            return attempt
    return min(step.retry.attempts, _PATIENCE)
