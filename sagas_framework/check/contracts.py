"""Names that must be told apart, in one contract and between the contracts of a program."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from pydantic import BaseModel

from sagas_framework.check.findings import Finding, Severity, found, listed
from sagas_framework.messages import Command, Compensation, WireProtocol, settle_task
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep

OWN_FAILURES: Final = ("InboxRowMissing", "InvalidPayload", "OutcomeUnknown", "UnknownTask", "Withdrawn")
"""What participants of this library answer by themselves."""


def of_contracts(saga: SagaDefinition) -> Iterator[Finding]:
    """What one saga's contracts say, each by itself."""
    for step in saga.steps:
        if isinstance(step, CommandStep):
            yield from _failures(saga, step)
            yield from _not_guaranteed(saga, step)


def _failures(saga: SagaDefinition, step: CommandStep[Any]) -> Iterator[Finding]:
    names = Counter(failure.wire_name for failure in dict.fromkeys(step.command.failures))
    for name, count in names.items():
        same = [failure for failure in step.command.failures if failure.wire_name == name]
        if count > 1:
            yield found(
                saga,
                Severity.WARNING,
                "same-failure",
                f"{count} failures of {step.command.__name__} travel under the one name {name!r} "
                f"({listed(_full_name(failure) for failure in same)}): nobody can tell which it was.",
                'Give one of them another name: wire_name = "..." in its class.',
                step=step.name,
            )
        if name in OWN_FAILURES:
            yield found(
                saga,
                Severity.WARNING,
                "reserved-failure",
                f"{_full_name(same[0])} travels under the name {name!r}, with which participants answer by "
                "themselves: nobody can tell the two apart.",
                'Give it another name: wire_name = "..." in its class.',
                step=step.name,
            )


def _not_guaranteed(saga: SagaDefinition, step: CommandStep[Any]) -> Iterator[Finding]:
    service = step.command.contract.service
    if step.has_inbox:
        return
    kind = "a plain Celery task" if service.protocol == WireProtocol.CELERY else f"of {service.name}"
    yield found(
        saga,
        Severity.NOTE,
        "at-most-once",
        f"It is {kind}, which keeps no inbox: never sent again, a failure is final and undoes nothing of "
        "it, and when no answer comes in time a person says whether it happened.",
        "A participant of this library keeps an inbox; docs/explanation/without-inbox.md says what it "
        "means to have none.",
        step=step.name,
    )
    if step.undoable and not step.undo_answers:
        yield found(
            saga,
            Severity.NOTE,
            "undo-unanswered",
            f"{service.name} does not answer compensations: it counts as undone once the broker has the "
            "message, and that it failed is not noticed.",
            "Look for failed compensations where the service logs them.",
            step=step.name,
        )


# ---- between contracts ----------------------------------------------------------------------------

_Contract = type[Command[Any]] | type[Compensation[Any]]


@dataclass(frozen=True)
class _Use:
    """A task as a saga uses it."""

    task: str
    contract: _Contract
    settles: bool
    where: str

    @property
    def told(self) -> str:
        return f"{'the settling of ' if self.settles else ''}{_full_name(self.contract)} ({self.where})"

    @property
    def shape(self) -> object:
        """What sender and receiver must agree upon."""
        if not issubclass(self.contract, Command):
            return _fields(self.contract)
        reply = self.contract.reply_type()
        return (
            _fields(self.contract),
            _fields(reply) if issubclass(reply, BaseModel) else None,
            {failure.wire_name for failure in self.contract.failures},
        )


def between_contracts(sagas: Iterable[SagaDefinition]) -> Iterator[Finding]:
    """Tasks of one name that are not one contract."""
    uses: dict[str, list[_Use]] = {}
    for saga in sagas:
        for step in saga.steps:
            if isinstance(step, CommandStep):
                for use in _uses(saga, step):
                    uses.setdefault(use.task, []).append(use)
    for task, same in uses.items():
        first = same[0]
        others: dict[object, _Use] = {}
        for use in same[1:]:
            another = (use.contract, use.settles) != (first.contract, first.settles)
            # If both settle, their commands have one name, too, which is told already.
            if another and not (use.settles and first.settles) and not _both_plain(first, use):
                others.setdefault((use.contract, use.settles), use)
        for other in others.values():
            yield _same_task(task, first, other)


def _uses(saga: SagaDefinition, step: CommandStep[Any]) -> Iterator[_Use]:
    where = f"{saga.name}.{step.name}"
    yield _Use(step.command.contract.task, step.command, False, where)
    if step.has_inbox:
        yield _Use(settle_task(step.command), step.command, True, where)
    if step.undoable and step.command.compensation is not None:
        undo = step.command.compensation
        yield _Use(undo.contract.task, undo, False, where)


def _both_plain(one: _Use, other: _Use) -> bool:
    # Each step.task(...) makes a contract of its own, and a plain task takes whatever it is called with.
    return all(use.contract.contract.service.protocol == WireProtocol.CELERY for use in (one, other))


def _same_task(task: str, one: _Use, other: _Use) -> Finding:
    kinds = {(issubclass(use.contract, Command), use.settles) for use in (one, other)}
    alike = len(kinds) == 1 and one.shape == other.shape
    if alike:
        return Finding(
            "same-task",
            Severity.WARNING,
            f"{one.told} and {other.told} are two declarations of the task {task!r}. They are alike today; "
            "once one is changed, the participant reads the other's messages wrongly.",
            "Declare the contract once, and import it where it is needed.",
        )
    return Finding(
        "same-task",
        Severity.ERROR,
        f"{one.told} and {other.told} are both the task {task!r} and are not alike: the participant would "
        "read the messages of one as the other's.",
        "Declare the contract once, and import it; or give one of them another name=.",
    )


def _fields(model: type[BaseModel]) -> object:
    schema = model.model_json_schema()
    return {
        part: schema[part] for part in ("properties", "required", "$defs") if part in schema
    }  # without title and description, which nobody reads from the wire


def _full_name(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
