"""Contracts: what services say to each other. Commands, their replies, failures and compensations.

A contract is a pydantic model with the service, the name and the failures written out as class
arguments::

    class CreateTicket(Command[TicketCreated], service=restaurant_service, name="create_ticket",
                       failures=[RestaurantClosed]):
        order_id: int

    class RejectTicket(Compensation[CreateTicket], service=restaurant_service, name="reject_ticket"):
        ticket_id: int | None
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict

from sagas_framework.errors import DefinitionError, Failure


class QueueType(StrEnum):
    """How RabbitMQ keeps a queue. Every publisher and worker must declare the same."""

    QUORUM = "quorum"
    CLASSIC = "classic"


@dataclass(frozen=True)
class Queue:
    """A durable queue; `type` matters to RabbitMQ only."""

    name: str
    type: QueueType = QueueType.QUORUM


@dataclass(frozen=True)
class Service:
    """A participant as its callers see it: a name and the queue on which it takes commands.

    Args:
        name: prefix of its task names (``restaurant_service.create_ticket``).
        queue: ``<name>.commands``, a quorum queue, unless given.
    """

    name: str
    queue: Queue = field(default=Queue(""))

    def __post_init__(self) -> None:
        if not self.queue.name:
            object.__setattr__(self, "queue", Queue(f"{self.name}.commands", self.queue.type))


class Message(BaseModel):
    """What travels. Unknown fields are ignored, so that a sender may be newer than its receiver."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The body as plain JSON types: ISO 8601 dates, decimals as strings."""
        return self.model_dump(mode="json")


class Reply(Message):
    """What a command answers when it succeeded."""


R = TypeVar("R", bound=Reply | None)
C = TypeVar("C", bound="Command[Any]")


@dataclass(frozen=True)
class Contract:
    """What a message class says of itself. `task` is the Celery task's name."""

    service: Service
    name: str

    @property
    def task(self) -> str:
        return f"{self.service.name}.{self.name}"


class Command(Message, Generic[R]):
    """Asks one service for one thing, and is answered with an `R` or one of its `failures`.

    Raises:
        DefinitionError: the class names no service or no name, or a failure is not a `Failure`.
    """

    contract: ClassVar[Contract]
    failures: ClassVar[tuple[type[Failure], ...]]
    compensation: ClassVar[type[Compensation[Any]] | None]
    _reply_type: ClassVar[type[Reply] | None]

    def __init_subclass__(
        cls, *, service: Service | None = None, name: str = "", failures: Sequence[type[Failure]] = ()
    ) -> None:
        super().__init_subclass__()  # for type checkers; the work is done once pydantic has made the class

    @classmethod
    def reply_type(cls) -> type[R]:
        """The class of its success reply; ``NoneType`` when success carries nothing."""
        return cls._reply_type or type(None)  # type: ignore[return-value]

    @classmethod
    def itself(cls) -> type[Self]:
        """The class: with `reply_type` it lets a type checker pair a command with its reply."""
        return cls

    @classmethod
    def __pydantic_init_subclass__(
        cls,
        *,
        service: Service | None = None,
        name: str = "",
        failures: Sequence[type[Failure]] = (),
        **kwargs: Any,
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if _is_parametrized(cls):
            return
        cls.contract = _contract(cls, service, name)
        cls.failures = tuple(failures)
        cls.compensation = None
        argument = _type_argument(cls, Command)
        cls._reply_type = None if argument in (None, type(None)) else argument
        if cls._reply_type is not None and not (isinstance(argument, type) and issubclass(argument, Reply)):
            raise DefinitionError(
                f"{cls.__name__} answers {argument!r}: write Command[X] with X a subclass of Reply, "
                "or Command[None]."
            )
        for failure in cls.failures:
            if not (isinstance(failure, type) and issubclass(failure, Failure)):
                raise DefinitionError(
                    f"{cls.__name__}: {failure!r} in failures= is not a subclass of Failure."
                )


class Compensation(Message, Generic[C]):
    """Undoes what a command `C` did or may have done. Handled by the command's own service.

    Its payload must be buildable without the command's reply: a command that was never answered is
    compensated too, and the participant finds the reply in its own inbox.

    Raises:
        DefinitionError: the class names another service than its command, or the command has a
            compensation already.
    """

    contract: ClassVar[Contract]
    command: ClassVar[type[Command[Any]]]

    def __init_subclass__(cls, *, service: Service | None = None, name: str = "") -> None:
        super().__init_subclass__()  # for type checkers; the work is done once pydantic has made the class

    @classmethod
    def undoes(cls) -> type[C]:
        """The command class that it undoes."""
        return cls.command  # type: ignore[return-value]

    @classmethod
    def itself(cls) -> type[Self]:
        """The class, for type checkers."""
        return cls

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, service: Service | None = None, name: str = "", **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if _is_parametrized(cls):
            return
        cls.contract = _contract(cls, service, name)
        command = _type_argument(cls, Compensation)
        if not (isinstance(command, type) and issubclass(command, Command)):
            raise DefinitionError(f"{cls.__name__} undoes nothing: write Compensation[SomeCommand].")
        if command.contract.service != cls.contract.service:
            raise DefinitionError(
                f"{cls.__name__} is handled by {cls.contract.service.name}, but {command.__name__} by "
                f"{command.contract.service.name}. Only the service that did the work has the inbox row that "
                "tells whether there is something to undo: give both the same service."
            )
        if command.compensation is not None:
            raise DefinitionError(
                f"{command.__name__} already has a compensation, {command.compensation.__name__}; "
                f"{cls.__name__} would be a second."
            )
        cls.command = command
        command.compensation = cls


def settle_task(command: type[Command[Any]]) -> str:
    """Name of the framework's task that closes a command's inbox row and says how it stood."""
    return f"{command.contract.task}.settle"


def _contract(cls: type[Message], service: Service | None, name: str) -> Contract:
    if not isinstance(service, Service) or not name:
        raise DefinitionError(
            f"{cls.__name__} needs a service and a name: "
            f'class {cls.__name__}(..., service=some_service, name="..."). '
            "The name is written out so that renaming the class does not orphan messages on their way."
        )
    return Contract(service, name)


def _is_parametrized(cls: type[BaseModel]) -> bool:
    """Whether pydantic made the class itself, for ``Command[TicketCreated]``."""
    return cls.__pydantic_generic_metadata__["origin"] is not None


def _type_argument(cls: type[BaseModel], generic: type[BaseModel]) -> Any:
    for base in cls.__mro__:
        metadata: Any = getattr(base, "__pydantic_generic_metadata__", None)
        if metadata and metadata["origin"] is generic:
            return metadata["args"][0]
    return None


def declared_failure(command: type[Command[Any]], wire_name: str) -> bool:
    """Whether a failure of this name is one that the command's contract declares."""
    return wire_name in _names(command.failures)


def _names(failures: Collection[type[Failure]]) -> set[str]:
    return {failure.wire_name for failure in failures}
