"""What the walk over one saga tells of its declaration: refusals nobody can act on, hooks that raise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from sagas_framework.check.findings import Finding, Severity, found, listed
from sagas_framework.check.paths import Fault, Hook, Walk, What
from sagas_framework.core.why import in_words
from sagas_framework.errors import DefinitionError
from sagas_framework.examples import example
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep, EndStep, LocalStep, NoDeadline, WaitStep

UNWALKED: Final = frozenset({"example-needed", "not-walked", "hook-raises", "wrong-message"})
"""Codes of what keeps a walk from going further: a diagram or a table of it lacks what comes after."""


def of_walk(walk: Walk) -> Iterator[Finding]:
    """What is wrong with the saga that was walked."""
    yield from _no_example(walk)
    yield from _refusals_after_pivot(walk)
    yield from _ends_at_the_end(walk)
    yield from _waits(walk)
    yield from _faults(walk)
    yield from _replies_not_kept(walk)


def _no_example(walk: Walk) -> Iterator[Finding]:
    saga = walk.definition
    for step, error in walk.missing:
        what = f"No example of {error.model.__name__} can be guessed ({error.why}), so"
        instead = f"Give its field one: Field(examples=[...]) in {error.model.__name__}."
        if step:
            told = f"{what} what comes after it was not walked."
            yield found(saga, Severity.WARNING, "example-needed", told, instead, step=step)
        else:  # nothing was looked at: that must not pass for a saga in order
            told = f"{what} the saga was not walked."
            yield found(saga, Severity.ERROR, "not-walked", told, instead)


def _refusals_after_pivot(walk: Walk) -> Iterator[Finding]:
    saga = walk.definition
    refused: dict[str, list[str]] = {}
    for end in walk.ends:
        for told in end.story:
            if told.what in (What.REFUSED, What.TOLD_NO) and saga.index(told.step) > saga.pivot:
                refused.setdefault(told.step, []).append(told.name)
    for name, failures in refused.items():
        pivot = saga.steps[saga.pivot].name
        if not isinstance(saga.steps[saga.index(name)], CommandStep):
            yield _no_after_pivot(saga, name, pivot, failures)
            continue
        step = _command(saga, name)
        command = step.command.__name__
        tried_again = (
            f"; or see that it cannot be refused, and take failures= from {command}: then whatever goes "
            "wrong there is tried again"
        )
        yield found(
            saga,
            Severity.ERROR,
            "refusal-after-pivot",
            f"{command} may be refused ({listed(dict.fromkeys(failures), last='or')}) after the pivot "
            f"{pivot}, where nothing can be undone: each such refusal parks the saga for a person.",
            f"Do {name} before {pivot}, or make it the pivot{tried_again if step.has_inbox else ''}.",
            step=name,
        )


def _no_after_pivot(saga: SagaDefinition, name: str, pivot: str, failures: list[str]) -> Finding:
    return found(
        saga,
        Severity.ERROR,
        "refusal-after-pivot",
        f"Its signal may be a no ({listed(dict.fromkeys(failures), last='or')}) after the pivot {pivot}, "
        "where nothing can be undone: each such no parks the saga for a person.",
        f"Wait before {pivot}; or let the hook note the no in the state, and decide by it with when=.",
        step=name,
    )


def _ends_at_the_end(walk: Walk) -> Iterator[Finding]:
    saga = walk.definition
    if isinstance(last := saga.steps[-1], EndStep):
        yield found(
            saga,
            Severity.WARNING,
            "end-at-the-end",
            "It is the last step: with or without it the saga completes here.",
            "Remove it, or move it to where the saga may end early.",
            step=last.name,
        )


def _waits(walk: Walk) -> Iterator[Finding]:
    saga = walk.definition
    for step in saga.steps:
        if not isinstance(step, WaitStep):
            continue
        if isinstance(step.deadline, NoDeadline) and saga.deadline is None:
            yield found(
                saga,
                Severity.NOTE,
                "waits-for-ever",
                f"It waits for {listed(step.names, last='or')} without a deadline: a saga of which nobody "
                "says anything never ends.",
                "Give it a deadline=, or the saga one.",
                step=step.name,
            )
        its, whole = step.deadline, saga.deadline
        if not isinstance(its, timedelta) or not isinstance(whole, timedelta):
            continue
        if its >= whole and saga.index(step.name) < saga.pivot:
            yield found(
                saga,
                Severity.WARNING,
                "deadline-never-comes",
                f"Its deadline of {in_words(its)} is not shorter than the saga's own of {in_words(whole)}, "
                "which counts from the start: what is declared for it never comes.",
                "Give it less, or the saga more.",
                step=step.name,
            )


# ---- hooks that raise -----------------------------------------------------------------------------


def _faults(walk: Walk) -> Iterator[Finding]:
    always = {fault.step for fault in walk.faults if fault.hook is Hook.COMPENSATION and fault.known}
    for fault in walk.faults:
        if fault.hook is not Hook.COMPENSATION or fault.known:
            yield _hook_raises(walk, fault)
        elif fault.step not in always:
            yield _needs_reply(walk, fault)


def _needs_reply(walk: Walk, fault: Fault) -> Finding:
    step = _command(walk.definition, fault.step)
    undo = step.command.compensation
    assert undo is not None
    return found(
        walk.definition,
        Severity.ERROR,
        "compensation-needs-reply",
        f"{undo.__name__} cannot be made when {step.command.__name__} was not answered, though then it is to "
        f"be undone, too ({fault.told}): the saga would park.",
        f"{_with_none(undo, fault.error)} The participant's inbox knows the reply: its undo handler gets it "
        "as undo.reply.",
        step=fault.step,
    )


def _with_none(undo: type[BaseModel], error: Exception) -> str:
    """What to write in the compensation; its fields by name, where they are what is wrong."""
    troubles = error.errors() if isinstance(error, ValidationError) else []
    names = dict.fromkeys(str(trouble["loc"][0]) for trouble in troubles if trouble["loc"])
    lacking = [undo.model_fields[name] for name in names if name in undo.model_fields]
    if not lacking:
        return f"Make {undo.__name__} from a state that lacks what only the reply says: let that be None."
    fields = (
        f"{name}: {getattr(field.annotation, '__name__', field.annotation)} | None"
        for name, field in zip(names, lacking, strict=False)
    )
    return f"Write {listed(fields)} in {undo.__name__}."


def _hook_raises(walk: Walk, fault: Fault) -> Finding:
    saga = walk.definition
    its = {
        Hook.REQUEST: "what makes its command",
        Hook.ON_SUCCESS: "its on_success",
        Hook.COMPENSATION: "what makes its compensation",
        Hook.CONDITION: "its condition",
        Hook.SIGNAL: "what takes its signal or its deadline",
        Hook.MOMENT: "what works out until when it waits",
    }[fault.hook]
    lacking = [step.name for step in saga.steps if step.name not in walk.reached]
    unseen = f" {listed(lacking)} could not be walked." if lacking else ""
    model = saga.state.__name__
    then = "the saga would park" if _parks(saga, fault) else "the step would fail"
    left = (
        " What a local step or a plain task leaves there is such an example, too: "
        "name: str | None = Field(None, examples=[...])."
        if _leaves_something_before(saga, fault.step)
        else ""
    )
    if isinstance(fault.error, DefinitionError):  # no other state makes the message that is declared of it
        return found(
            saga,
            Severity.ERROR,
            "wrong-message",
            f"{its.capitalize()} makes something else: {fault.error}.{unseen} In a running saga {then}.",
            "Return the message that the step declares.",
            step=fault.step,
        )
    return found(
        saga,
        Severity.WARNING,
        "hook-raises",
        f"{its.capitalize()} raised {fault.told} on the example {_example(saga.state)}.{unseen}",
        f"If every real state is all right, give the fields of {model} examples that are: "
        f"Field(examples=[...]). Those with a default keep it until an on_success sets them.{left} Else mend "
        f"the hook: in a running saga {then}.",
        step=fault.step,
    )


def _parks(saga: SagaDefinition, fault: Fault) -> bool:
    """Whether a saga whose hook raises there can neither go on nor turn back."""
    index = saga.index(fault.step)
    answered = fault.hook in (Hook.ON_SUCCESS, Hook.SIGNAL)
    return fault.hook is Hook.COMPENSATION or index > saga.pivot or (answered and index == saga.pivot)


def _leaves_something_before(saga: SagaDefinition, name: str) -> bool:
    return any(
        (isinstance(step, LocalStep) and step.action is not None)
        or (isinstance(step, CommandStep) and step.command.answers_anything)
        for step in saga.steps[: saga.index(name)]
    )


def _example(state: type[BaseModel]) -> str:
    return json.dumps(example(state).model_dump(mode="json"), ensure_ascii=False)


# ---- replies --------------------------------------------------------------------------------------


def _replies_not_kept(walk: Walk) -> Iterator[Finding]:
    saga = walk.definition
    raised = {fault.step for fault in walk.faults}
    for step in saga.steps:
        if not isinstance(step, CommandStep) or step.name in raised:
            continue
        sent = [undone.payload for undone in walk.undone if undone.step == step.name and undone.known]
        wanted, undo = step.command.reply_type(), step.command.compensation
        if not sent or undo is None or not issubclass(wanted, BaseModel):
            continue
        said = {name for name, value in example(wanted).model_dump().items() if value is not None}
        lost = [name for name in sent[0] if name in said and all(body[name] is None for body in sent)]
        if lost:
            yield found(
                saga,
                Severity.WARNING,
                "reply-not-kept",
                f"{undo.__name__} is sent with {listed(lost)} None also when {wanted.__name__} had said it.",
                f"Keep it in the state, with on_success= of {step.name}; or take the field from "
                f"{undo.__name__}, as the undo handler gets the reply as undo.reply.",
                step=step.name,
            )


def _command(saga: SagaDefinition, name: str) -> CommandStep[Any]:
    step = saga.steps[saga.index(name)]
    assert isinstance(step, CommandStep)
    return step
