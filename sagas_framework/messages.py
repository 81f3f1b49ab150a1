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
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, ClassVar, Final, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

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


class WireProtocol(StrEnum):
    """What a service's participant understands, and with it what a saga may rely on there.

    Only the first keeps an inbox. The others are *at most once*: what was sent is never sent again,
    and where no answer comes a person says what happened; see ``docs/explanation/without-inbox.md``.
    """

    INBOX = "inbox"  # a `Participant` of this library
    DEMO = "demo-0.1"  # one of PyPI's saga-framework 0.1
    CELERY = "celery"  # plain Celery tasks, with no library at their side


@dataclass(frozen=True)
class Service:
    """A participant as its callers see it: a name and the queue on which it takes commands.

    Args:
        name: prefix of its task names (``restaurant_service.create_ticket``).
        queue: ``<name>.commands``, a quorum queue, unless given.
        protocol: a `WireProtocol`, or its value: ``"demo-0.1"``, ``"celery"``.

    Raises:
        DefinitionError: there is no such protocol.
    """

    name: str
    queue: Queue = field(default=Queue(""))
    protocol: WireProtocol | str = WireProtocol.INBOX

    def __post_init__(self) -> None:
        if not self.queue.name:
            object.__setattr__(self, "queue", Queue(f"{self.name}.commands", self.queue.type))
        try:
            object.__setattr__(self, "protocol", WireProtocol(self.protocol))
        except ValueError:
            raise DefinitionError(
                f"The service {self.name} speaks {self.protocol!r}, which is no protocol here; there are: "
                f"{', '.join(repr(known.value) for known in WireProtocol)}."
            ) from None

    @property
    def has_inbox(self) -> bool:
        """Whether a command may be sent again: its participant remembers what it has done."""
        return self.protocol == WireProtocol.INBOX


class Message(BaseModel):
    """What travels. Unknown fields are ignored, so that a sender may be newer than its receiver."""

    model_config = ConfigDict(frozen=True)

    def to_json(self) -> dict[str, Any]:
        """The body as plain JSON types: ISO 8601 dates, decimals as strings."""
        return self.model_dump(mode="json")


class Reply(Message):
    """What a command answers when it succeeded."""


class Signal(Message):
    """What somebody outside tells a saga that waits for it: ``class Approval(Signal, name="approval")``.

    Like a reply it has no service of its own: the saga whose step waits for it says where it goes.

    Raises:
        DefinitionError: the class has no name, or one that cannot be part of a task's name.
    """

    signal_name: ClassVar[str]

    def __init_subclass__(cls, *, name: str = "") -> None:
        super().__init_subclass__()  # for type checkers; the work is done once pydantic has made the class

    @classmethod
    def __pydantic_init_subclass__(cls, *, name: str = "", **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not name or len(name) > SIGNAL_NAME_LENGTH or not name.isprintable():
            raise DefinitionError(
                f"{cls.__name__} needs a name of up to {SIGNAL_NAME_LENGTH} characters: "
                f'class {cls.__name__}(Signal, name="..."). '
                "The name is written out so that renaming the class does not orphan signals that are kept."
            )
        cls.signal_name = name


SIGNAL_NAME_LENGTH: Final = 100


def signal_task(saga: str, signal: str) -> str:
    """Name of the Celery task with which another service signals a saga, on its reply queue."""
    return f"{saga}{SIGNAL_INFIX}{signal}"


SIGNAL_INFIX: Final = ".signal."

R = TypeVar("R", bound=Reply | None)
C = TypeVar("C", bound="Command[Any]")


@dataclass(frozen=True)
class Contract:
    """What a message class says of itself. `task` is the Celery task's name: ``<service>.<name>``."""

    service: Service
    name: str
    task: str = ""

    def __post_init__(self) -> None:
        if not self.task:
            object.__setattr__(self, "task", f"{self.service.name}.{self.name}")


class Command(Message, Generic[R]):
    """Asks one service for one thing, and is answered with an `R` or one of its `failures`.

    Raises:
        DefinitionError: the class names no service or no name, or a failure is not a `Failure`.
    """

    contract: ClassVar[Contract]
    failures: ClassVar[tuple[type[Failure], ...]]
    compensation: ClassVar[type[Compensation[Any]] | None]
    answers_anything: ClassVar[bool] = False
    """Whether its reply is taken as it comes: that of a plain task, which no contract describes."""
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


def readable(error: ValidationError) -> str:
    """A validation error in a line: each trouble with its JSON path."""
    return "; ".join(
        "$"
        + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in trouble["loc"])
        + f": {trouble['msg']}"
        for trouble in error.errors(include_url=False, include_input=False, include_context=False)
    )


# ---- plain tasks ----------------------------------------------------------------------------------

CELERY_QUEUE: Final = Queue("celery", QueueType.CLASSIC)
"""Where Celery sends tasks unless it is told otherwise."""


def plain_task(task: str, queue: Queue) -> type[Command[None]]:
    """The command that calls a plain Celery task: its fields are the task's keyword arguments.

    Raises:
        DefinitionError: the task has no name.
    """
    if not task:
        raise DefinitionError("A plain Celery task needs its name, like 'shop.tasks.reserve_stock'.")
    prefix, _, last = task.rpartition(".")
    its_service = Service(prefix or task, queue, WireProtocol.CELERY)

    class PlainTask(Command[None], service=its_service, name=last):
        model_config = ConfigDict(extra="allow")
        answers_anything = True

    return _renamed(PlainTask, task)


def plain_undo_task(task: str, command: type[Command[Any]]) -> type[Compensation[Any]]:
    """The compensation that calls a plain Celery task of the same worker.

    Raises:
        DefinitionError: the task has no name.
    """
    if not task:
        raise DefinitionError(f"What undoes {command.__name__} needs the name of a Celery task.")

    class PlainUndoTask(
        Compensation[command],  # type: ignore[valid-type]
        service=command.contract.service,
        name=task.rpartition(".")[2],
    ):
        model_config = ConfigDict(extra="allow")

    return _renamed(PlainUndoTask, task)


M = TypeVar("M", bound=Command[Any] | Compensation[Any])


def _renamed(made: type[M], task: str) -> type[M]:
    """Named like the task in messages for people; and sent to just this task, whatever its prefix."""
    made.__name__ = made.__qualname__ = task
    made.contract = replace(made.contract, task=task)
    return made


def task_name(task: object) -> str:
    """The name of a Celery task, given by its name or as the task itself."""
    name = task if isinstance(task, str) else getattr(task, "name", None)
    return name if isinstance(name, str) else ""
