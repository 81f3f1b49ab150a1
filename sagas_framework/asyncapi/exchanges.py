"""Which messages a service can be asked with, and which of them are answered: found in its declarations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from sagas_framework.core.ids import Kind
from sagas_framework.errors import DefinitionError
from sagas_framework.messages import Command, Compensation, Queue, Service, WireProtocol, settle_task
from sagas_framework.participant import Handling
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import NOTHING_TO_UNDO, CommandStep


@dataclass(frozen=True)
class Use:
    """A step from which a command is sent."""

    saga: str
    version: int
    step: str


@dataclass(frozen=True)
class Exchange:
    """A message that asks a service for something, whoever is asked for its document.

    Args:
        contract: the command or the compensation; of a settling, the command that it settles.
        protocol: how the service is spoken to.
        uses: at the sender, the steps that send it; none at the receiver.
    """

    kind: Kind
    contract: type[Command[Any]] | type[Compensation[Any]]
    protocol: WireProtocol
    uses: tuple[Use, ...] = ()

    @property
    def command(self) -> type[Command[Any]]:
        """The command that it is, undoes or settles."""
        return self.contract.command if issubclass(self.contract, Compensation) else self.contract

    @property
    def service(self) -> Service:
        """Who is asked."""
        return self.contract.contract.service

    @property
    def task(self) -> str:
        """The name of the Celery task."""
        return settle_task(self.command) if self.kind is Kind.SETTLE else self.contract.contract.task

    @property
    def queue(self) -> Queue:
        """Where it is sent."""
        return self.service.queue

    @property
    def answered(self) -> bool:
        """Whether an answer is expected. Old participants do not answer compensations."""
        return not (self.kind is Kind.UNDO and self.protocol is WireProtocol.DEMO)


def received(handlings: Iterable[Handling]) -> list[Exchange]:
    """What a participant takes, in the order in which its handlers are registered."""
    exchanges = []
    for handling in handlings:
        contract: type[Command[Any]] | type[Compensation[Any]] = handling.command
        if handling.kind is Kind.UNDO:
            # It is registered by this class, so there is one.
            assert handling.command.compensation is not None
            contract = handling.command.compensation
        # A participant of this library speaks the one protocol, whatever its callers still believe.
        exchanges.append(Exchange(handling.kind, contract, WireProtocol.INBOX))
    return exchanges


def sent(definitions: Iterable[SagaDefinition]) -> list[Exchange]:
    """What sagas may send, in the order of their steps; a task that several steps send comes once.

    Raises:
        DefinitionError: two different contracts are the same task.
    """
    exchanges: dict[str, Exchange] = {}
    for definition in definitions:
        for step in definition.steps:
            if isinstance(step, CommandStep):
                use = Use(definition.name, definition.version, step.name)
                for exchange in _of_step(step, use):
                    _add(exchanges, exchange)
    return list(exchanges.values())


def _of_step(step: CommandStep[Any], use: Use) -> Iterator[Exchange]:
    protocol = WireProtocol(step.command.contract.service.protocol)
    yield Exchange(Kind.DO, step.command, protocol, (use,))
    if step.undoable and step.command.compensation is not None:
        yield Exchange(Kind.UNDO, step.command.compensation, protocol, (use,))
    # Only an inbox can be asked how an operation stands. Before the pivot only an operator asks, who takes
    # an undoing over.
    if step.has_inbox and step.compensation is not NOTHING_TO_UNDO:
        yield Exchange(Kind.SETTLE, step.command, protocol, (use,))


def _add(exchanges: dict[str, Exchange], exchange: Exchange) -> None:
    known = exchanges.setdefault(exchange.task, exchange)
    if known is exchange:
        return
    # Each `step.task(...)` makes a contract of its own, and a plain task takes whatever it is called with.
    same = known.contract is exchange.contract or known.protocol is WireProtocol.CELERY
    if (known.kind, known.queue, same) != (exchange.kind, exchange.queue, True):
        raise DefinitionError(
            f"{known.contract.__module__}.{known.contract.__qualname__} and "
            f"{exchange.contract.__module__}.{exchange.contract.__qualname__} are both the task "
            f"{exchange.task!r}, so no document can say what it carries. "
            "Declare the contract once, and import it; or give one of them another name=."
        )
    exchanges[exchange.task] = replace(known, uses=(*known.uses, *exchange.uses))
