"""Queues as the parts of one program declare them, and who takes from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sagas_framework.check.findings import Finding, Severity, found, listed
from sagas_framework.core.decide import DEFAULT_POLICY
from sagas_framework.core.events import Policy
from sagas_framework.messages import Queue, Service, WireProtocol
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep


def _nowhere(task: str) -> str | None:
    return None


@dataclass(frozen=True)
class Setup:
    """What a program says beside its sagas.

    Args:
        reply_queue: where participants answer.
        serves: services whose participants run in the program, too.
        taken: queues from which a Celery app of the program takes tasks.
        routed: the queue to which its Celery app's ``task_routes`` send a task of this name.
    """

    policy: Policy = DEFAULT_POLICY
    reply_queue: Queue | None = None
    serves: Sequence[Service] = ()
    taken: Sequence[Queue] = ()
    routed: Callable[[str], str | None] = _nowhere


def of_queues(sagas: Sequence[SagaDefinition], setup: Setup) -> Iterator[Finding]:
    """What is wrong with the queues of these sagas."""
    commands = list(dict.fromkeys(step.command.contract.service for _, step in _commands(sagas)))
    yield from _declared_otherwise(sagas, setup)
    yield from _services(sagas, setup)
    replies = setup.reply_queue.name if setup.reply_queue else ""
    served = {service.queue.name for service in setup.serves}
    for service in commands:
        if service.queue.name == replies:
            yield Finding(
                "reply-queue-shared",
                Severity.ERROR,
                f"{replies} is the reply queue, and {service.name} takes its commands from it: each would "
                "take the other's messages.",
                "Give Sagas(reply_queue=...) a queue of its own.",
            )
    strangers = {service.queue.name: service.name for service in commands}
    for queue in setup.taken:
        if queue.name == replies:
            yield _taken(queue, "replies to its sagas", "the orchestrator itself consumes it")
        elif queue.name in strangers and queue.name not in served and not _plain(commands, queue.name):
            yield _taken(
                queue,
                f"commands for {strangers[queue.name]}",
                f"the worker of {strangers[queue.name]} consumes it",
            )
    yield from _routed_elsewhere(sagas, setup)


def _commands(sagas: Iterable[SagaDefinition]) -> Iterator[tuple[SagaDefinition, CommandStep[Any]]]:
    for saga in sagas:
        for step in saga.steps:
            if isinstance(step, CommandStep):
                yield saga, step


def _plain(services: Iterable[Service], queue: str) -> bool:
    """Whether plain Celery tasks are taken from there, which a worker of the program's own may do."""
    return any(s.queue.name == queue and s.protocol == WireProtocol.CELERY for s in services)


def _taken(queue: Queue, what: str, why: str) -> Finding:
    return Finding(
        "queue-taken-by-celery",
        Severity.ERROR,
        f"The program's own Celery app takes tasks from {queue.name}, where {what} arrive: it knows no such "
        "tasks and would throw them away.",
        f"Take {queue.name} from its task_queues: {why}.",
    )


def _declared_otherwise(sagas: Sequence[SagaDefinition], setup: Setup) -> Iterator[Finding]:
    declared: dict[str, dict[str, str]] = {}

    def note(queue: Queue, who: str) -> None:
        declared.setdefault(queue.name, {}).setdefault(queue.type.value, who)

    for saga, step in _commands(sagas):
        note(step.command.contract.service.queue, f"{step.command.__name__} ({saga.name}.{step.name})")
    for service in setup.serves:
        note(service.queue, f"the participant {service.name}")
    if setup.reply_queue is not None:
        note(setup.reply_queue, "Sagas(reply_queue=...)")
    for queue in setup.taken:
        note(queue, "the Celery app's task_queues")
    for name, types in sorted(declared.items()):
        if len(types) > 1:
            told = listed(f"{type_} by {who}" for type_, who in types.items())
            yield Finding(
                "queue-declared-otherwise",
                Severity.ERROR,
                f"The queue {name} is declared as {told}. RabbitMQ refuses whoever comes second: nothing "
                "would be sent, or the worker would not start.",
                f"Say the same everywhere: one Service object that all import, with Queue({name!r}), "
                "or QueueType.CLASSIC where an older worker has declared it.",
            )


def _services(sagas: Sequence[SagaDefinition], setup: Setup) -> Iterator[Finding]:
    """Services of one name that are not one: their participant takes from one queue, and speaks one way."""
    first: dict[str, tuple[Service, str]] = {s.name: (s, "the participant itself") for s in setup.serves}
    for saga, step in _commands(sagas):
        service = step.command.contract.service
        if service.protocol == WireProtocol.CELERY:  # named after the tasks' module, whatever their queue
            continue
        other, who = first.setdefault(service.name, (service, f"{step.command.__name__}"))
        if (other.queue.name, other.protocol) != (service.queue.name, service.protocol):
            yield found(
                saga,
                Severity.ERROR,
                "service-declared-otherwise",
                f"{step.command.__name__} goes to {service.name} on {service.queue.name} "
                f"({service.protocol}); "
                f"for {who} that is {other.queue.name} ({other.protocol}). Its "
                "participant takes from one queue, in one way.",
                f"Declare Service({service.name!r}, ...) once, and import it.",
                step=step.name,
            )


def _routed_elsewhere(sagas: Sequence[SagaDefinition], setup: Setup) -> Iterator[Finding]:
    for saga, step in _commands(sagas):
        contract = step.command.contract
        if contract.service.protocol != WireProtocol.CELERY:
            continue
        queue = setup.routed(contract.task)
        if queue is not None and queue != contract.service.queue.name:
            yield found(
                saga,
                Severity.WARNING,
                "task-routed-elsewhere",
                f"task_routes send {contract.task} to {queue}, but a saga does not ask them: it sends it to "
                f"{contract.service.queue.name}.",
                f"Name its workers' queue in the step: step.task(..., queue=Queue({queue!r}, ...)).",
                step=step.name,
            )
