"""Declaring a saga: its state, its steps in order, what undoes them.

A saga is data. Nothing here runs a step; `sagas_framework.core` decides and the orchestrator acts::

    step = Steps(CreateOrderState)

    class CreateOrderSaga(Saga[CreateOrderState], name="create_order", version=1):
        reject_order = step.local(compensation=mark_order_rejected)
        create_ticket = step.command(
            CreateTicket, open_ticket, on_success=remember_ticket,
            compensation=lambda state: RejectTicket(ticket_id=state.ticket_id))
        approve_order = step.local(mark_order_approved)

A step may also be a plain Celery task (``docs/explanation/without-inbox.md``)::

    reserve = step.task(
        "shop.tasks.reserve_stock", lambda state: {"sku": state.sku, "count": state.count},
        on_success=remember_reservation,
        compensation=undo_task("shop.tasks.release_stock", lambda state: {"id": state.reservation}))

A step may wait, for somebody or for a moment, and any step may depend on the state
(``docs/how-to/wait-for-a-person.md``)::

    approval = step.wait(
        on(Approval, take_approval), deadline=timedelta(hours=24), when=lambda state: state.total >= 1000)
    cool_down = step.delay(until=lambda state: state.ship_on)
    nothing_left = step.end(when=lambda state: not state.items, because="nothing is left to ship")
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from pydantic import BaseModel

from sagas_framework.errors import DefinitionError, UnknownSaga
from sagas_framework.messages import (
    CELERY_QUEUE,
    Command,
    Compensation,
    Queue,
    Reply,
    Signal,
    plain_task,
    plain_undo_task,
    task_name,
)
from sagas_framework.migration import Migration, declared, path
from sagas_framework.retention import Retention
from sagas_framework.steps import (
    COMPENSATE,
    DEFAULT_TIMEOUT,
    UNDO_RETRY,
    AnyStep,
    AtDeadline,
    CommandStep,
    DelayStep,
    EndStep,
    LocalStep,
    LocalUndo,
    Moment,
    NoDeadline,
    NothingToUndo,
    On,
    Retry,
    Step,
    WaitStep,
)

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from sagas_framework.storage.ports import Wanted

S = TypeVar("S", bound=BaseModel)
C = TypeVar("C", bound=Command[Any])
R = TypeVar("R", bound=Reply | None)
C_co = TypeVar("C_co", bound=Command[Any], covariant=True)
R_co = TypeVar("R_co", bound=Reply | None, covariant=True)


class CommandType(Protocol[C_co, R_co]):
    """A command class, seen so that a type checker knows both the command and its reply."""

    def itself(self) -> type[C_co]: ...
    def reply_type(self) -> type[R_co]: ...


class CeleryTask(Protocol):
    """A task of a Celery app; only its name is asked for."""

    @property
    def name(self) -> str: ...


@dataclass(frozen=True)
class UndoTask(Generic[S]):
    """The plain Celery task that undoes one; see `undo_task`."""

    task: str
    arguments: Callable[[S], Mapping[str, Any]]


def undo_task(task: str | CeleryTask, arguments: Callable[[S], Mapping[str, Any]]) -> UndoTask[S]:
    """What undoes a `Steps.task`: another plain Celery task, on the same queue.

    Args:
        task: its name, or the task itself.
        arguments: makes its keyword arguments from (a copy of) the state.
    """
    return UndoTask(task_name(task), arguments)


class Steps(Generic[S]):
    """Makes the steps of sagas with the state `S`, so that a type checker sees what their hooks take."""

    def __init__(self, state: type[S]) -> None:
        self.state = state

    def local(
        self,
        action: Callable[[S, Session], None] | None = None,
        *,
        compensation: LocalUndo[S] | NothingToUndo | None = None,
        loads: Callable[[S], Wanted | None] | None = None,
        when: Callable[[S], bool] | None = None,
        pivot: bool = False,
        undo_retry: Retry = UNDO_RETRY,
    ) -> LocalStep[S]:
        """A step in the orchestrator's own database, committed together with the saga's row.

        Args:
            action: gets a private copy of the state, which it may change, and the session. None for
                a step that only has something to undo.
            compensation: likewise, when the saga turns back; one that takes a third argument is given
                the `Outcome`, which says why.
            loads: says, from a copy of the state, which row either of them will `get` from its session, as
                its class and primary key. Of sagas that are decided together the rows are then read at once.
                The step does not notice.
            when: asked once, when the step is next; if not, the step is left out.
            pivot: after this step the saga only goes forward.
            undo_retry: how a failing compensation is repeated.
        """
        return LocalStep(
            self.state, action, compensation, loads=loads, when=when, pivot=pivot, undo_retry=undo_retry
        )

    def command(
        self,
        command: CommandType[C, R],
        request: Callable[[S], C],
        *,
        on_success: Callable[[S, R], None] | None = None,
        compensation: Callable[[S], Compensation[C]] | NothingToUndo | None = None,
        when: Callable[[S], bool] | None = None,
        pivot: bool = False,
        retry: Retry = Retry(),
        undo_retry: Retry = UNDO_RETRY,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> CommandStep[S]:
        """A step that another service does.

        Args:
            command: the class of the command.
            request: makes the command from (a copy of) the state.
            on_success: takes what the state should keep of the reply.
            compensation: makes the command that undoes it. It is called also when the outcome is
                unknown, so fields known only from the reply may still be None.
            when: asked once, when the step is next; if not, the step is left out.
            pivot: after this step the saga only goes forward.
            retry: what follows transient faults.
            undo_retry: how a failing compensation is repeated.
            timeout: from the first send, over all attempts. After the pivot: when it counts as late.
        """
        return CommandStep(
            self.state,
            command.itself(),
            request,
            on_success,
            compensation,
            when=when,
            pivot=pivot,
            retry=retry,
            undo_retry=undo_retry,
            timeout=timeout,
        )

    def task(
        self,
        task: str | CeleryTask,
        arguments: Callable[[S], Mapping[str, Any]],
        *,
        queue: Queue = CELERY_QUEUE,
        on_success: Callable[[S, Any], None] | None = None,
        compensation: UndoTask[S] | NothingToUndo | None = None,
        when: Callable[[S], bool] | None = None,
        pivot: bool = False,
        timeout: timedelta = DEFAULT_TIMEOUT,
    ) -> CommandStep[S]:
        """A step that is a plain Celery task, as it is: its worker needs no library of ours.

        Without an inbox it is at most once: never sent again, a failure is final, and when no result
        comes in time a person says what happened; see ``docs/explanation/without-inbox.md``.

        Args:
            task: its name, or the task itself.
            arguments: makes its keyword arguments from (a copy of) the state; they travel as plain JSON.
            queue: which its workers consume, declared as they declare it.
            on_success: takes what the state should keep of the task's result, which is any JSON value.
            compensation: `undo_task`, or `NOTHING_TO_UNDO`.
            when: asked once, when the step is next; if not, the step is left out.
            pivot: after this step the saga only goes forward.
            timeout: no worker begins the task later than this; then a person is asked.

        Raises:
            DefinitionError: a task has no name.
        """
        command = plain_task(task_name(task), queue)
        return CommandStep(
            self.state,
            command,
            _calling(command, arguments),
            on_success,
            _undoing(compensation, command) if isinstance(compensation, UndoTask) else compensation,
            when=when,
            pivot=pivot,
            retry=Retry(attempts=1),
            undo_retry=UNDO_RETRY,
            timeout=timeout,
        )

    def wait(
        self,
        *signals: On[S],
        deadline: Moment[S] | NoDeadline,
        at_deadline: AtDeadline | Callable[[S], None] = COMPENSATE,
        when: Callable[[S], bool] | None = None,
    ) -> WaitStep[S]:
        """A step that waits for the first of some signals. A saga that waits is a row, and nothing else.

        Args:
            signals: `on(Approval, take_approval)`, ...; the first that comes ends the wait.
            deadline: from the beginning of the wait; `NO_DEADLINE` if it may last for ever.
            at_deadline: `COMPENSATE` (outcome ``expired``), `GO_ON`, or a hook that changes the state
                before the saga goes on; a `Failure` that it raises turns the saga back, ``expired``.
            when: asked once, when the step is next; if not, the step is left out.
        """
        return WaitStep(self.state, signals, deadline, at_deadline, when=when)

    def delay(self, *, until: Moment[S], when: Callable[[S], bool] | None = None) -> DelayStep[S]:
        """A step that waits for a moment; one that has passed is no delay.

        Args:
            until: from the beginning of the step if it is a span.
            when: asked once, when the step is next; if not, the step is left out.
        """
        return DelayStep(self.state, until, when=when)

    def end(self, *, when: Callable[[S], bool], because: str) -> EndStep[S]:
        """An early end: if the condition holds the saga completes here, and every effect is kept.

        Args:
            because: for people; the outcome's message.
        """
        return EndStep(self.state, when, because)


def _calling(
    command: type[Command[Any]], arguments: Callable[[S], Mapping[str, Any]]
) -> Callable[[S], Command[Any]]:
    return lambda state: command.model_validate(dict(arguments(state)))


def _undoing(undo: UndoTask[S], command: type[Command[Any]]) -> Callable[[S], Compensation[Any]]:
    made = plain_undo_task(undo.task, command)
    return lambda state: made.model_validate(dict(undo.arguments(state)))


@dataclass(frozen=True)
class SagaDefinition:
    """A checked declaration, as the core reads it.

    Args:
        pivot: index of the pivot in `steps`; `len(steps)` when there is none, so that every step is
            before it.
        shape: hash over steps, their commands and compensations; see `Step.shape`.
        migrations: how instances of former versions are moved to this one.
        retention: of its ended instances, of any version; None for that of the service.
        deadline: of the whole saga, from its start.
        waits: the steps that wait for signals.
        loads: whether a local step says which row it will get.
    """

    name: str
    version: int
    doc: str
    state: type[BaseModel]
    steps: tuple[AnyStep, ...]
    pivot: int
    shape: str
    migrations: tuple[Migration, ...] = ()
    retention: Retention | None = None
    deadline: Moment[Any] | None = None
    waits: tuple[str, ...] = field(init=False)
    loads: bool = field(init=False)

    def __post_init__(self) -> None:
        loads = any(isinstance(step, LocalStep) and step.loads is not None for step in self.steps)
        object.__setattr__(self, "loads", loads)
        waits = tuple(step.name for step in self.steps if isinstance(step, WaitStep))
        object.__setattr__(self, "waits", waits)

    def index(self, step: str) -> int:
        """Position of the step with this name.

        Raises:
            KeyError: there is none.
        """
        return self._places[step]

    @cached_property
    def _places(self) -> Mapping[str, int]:
        return {step.name: index for index, step in enumerate(self.steps)}

    def signal(self, name: str) -> type[Signal] | None:
        """The class of the signal of this name; None if no step waits for it."""
        for step in self.steps:
            if isinstance(step, WaitStep) and (reaction := step.reaction(name)) is not None:
                return reaction.signal
        return None

    @property
    def signals(self) -> list[str]:
        """The names of all signals that its steps wait for, by name."""
        return sorted({name for step in self.steps if isinstance(step, WaitStep) for name in step.names})


class Saga(Generic[S]):
    """Base of every saga: ``class CreateOrderSaga(Saga[State], name="create_order", version=1)``.

    Name and version are written out, so that renaming the class does not orphan running instances.
    An instance keeps the version that it was started with, until somebody moves it by one of the
    `migrations`: ``docs/how-to/change-a-running-saga.md``. How long it stays in the database once it has
    ended, `retention` says: ``docs/how-to/keep-the-database-small.md``. A `deadline` of the whole saga counts
    from its start: before the pivot the saga is undone then (``expired``), after it it is only late.

    Raises:
        DefinitionError: when the class is made, for a saga that could not keep its promise.
    """

    definition: ClassVar[SagaDefinition]

    def __init_subclass__(
        cls,
        *,
        name: str = "",
        version: int = 0,
        migrations: Iterable[Migration] = (),
        retention: Retention | None = None,
        deadline: Moment[Any] | None = None,
    ) -> None:
        super().__init_subclass__()
        if not name or version < 1:
            raise DefinitionError(
                f"{cls.__name__} needs a name and a version from 1 on: "
                f'class {cls.__name__}(Saga[State], name="...", version=1).'
            )
        if isinstance(deadline, timedelta) and deadline <= timedelta(0):
            raise DefinitionError(f"{cls.__name__} has a deadline of {deadline}: give it more than nothing.")
        kinds = (LocalStep, CommandStep, WaitStep, DelayStep, EndStep)
        steps = tuple(value for value in vars(cls).values() if isinstance(value, kinds))
        cls.definition = SagaDefinition(
            name=name,
            version=version,
            doc=(cls.__doc__ or "").strip(),
            state=_checked_state(cls, steps),
            steps=steps,
            pivot=_checked_pivot(cls, steps),
            shape=_shape(steps),
            migrations=declared(cls.__name__, version, [step.name for step in steps], migrations),
            retention=retention,
            deadline=deadline,
        )
        _check_waits(cls, steps, cls.definition.pivot)


def _checked_state(cls: type[Saga[Any]], steps: tuple[Step[Any], ...]) -> type[BaseModel]:
    if not steps:
        raise DefinitionError(
            f"{cls.__name__} has no steps: assign step.command(...) or step.local(...) in its body."
        )
    state = _declared_state(cls)
    for step in steps:
        if len(step.bound_to) > 1:
            first, *_, second = step.bound_to
            raise DefinitionError(
                f"{second} is the same step as {first}: call step.command(...) or step.local(...) once for "
                "each step."
            )
        if step.state is not state:
            raise DefinitionError(
                f"{cls.__name__}.{step.name} was made for the state {step.state.__name__}, but the saga's is "
                f"{state.__name__}: make it with Steps({state.__name__})."
            )
    return state


def _declared_state(cls: type[Saga[Any]]) -> type[BaseModel]:
    for base in getattr(cls, "__orig_bases__", ()):
        if getattr(base, "__origin__", None) is Saga:
            (state,) = base.__args__
            if isinstance(state, type) and issubclass(state, BaseModel):
                return state
    raise DefinitionError(
        f"{cls.__name__} names no state: write class {cls.__name__}(Saga[SomePydanticModel], ...)."
    )


def _checked_pivot(cls: type[Saga[Any]], steps: tuple[AnyStep, ...]) -> int:
    pivots = [index for index, step in enumerate(steps) if step.pivot]
    if len(pivots) > 1:
        names = ", ".join(steps[index].name for index in pivots)
        raise DefinitionError(
            f"{cls.__name__} has more than one pivot ({names}); keep pivot=True on one of them."
        )
    # A final local step needs no compensation either: nothing can fail after it, it is kept or it never was.
    pivot = pivots[0] if pivots else _last_word(steps)
    for index, step in enumerate(steps):
        where = f"{cls.__name__}.{step.name}"
        if step.timeout <= timedelta(0):
            raise DefinitionError(f"{where} has a timeout of {step.timeout}: give it more than nothing.")
        if not isinstance(step, (LocalStep, CommandStep)):
            continue  # there is nothing to undo, whatever their place
        if isinstance(step, CommandStep) and step.undoable and step.command.compensation is None:
            raise DefinitionError(
                f"{where} has a compensation, but no Compensation[{step.command.__name__}] is declared."
            )
        if index < pivot and step.compensation is None:
            raise DefinitionError(
                f"{where} is before the pivot and has no compensation. Say how it is undone "
                f"(compensation=...), or that it leaves nothing behind: compensation=NOTHING_TO_UNDO."
            )
        if index >= pivot and step.compensation is not None:
            raise DefinitionError(
                f"{where} is the pivot or after it, where nothing is undone: its compensation could never "
                "run. Remove compensation=, or move the pivot."
            )
    return pivot


def _check_waits(cls: type[Saga[Any]], steps: tuple[AnyStep, ...], pivot: int) -> None:
    known: dict[str, type[Signal]] = {}
    for index, step in enumerate(steps):
        where = f"{cls.__name__}.{step.name}"
        if isinstance(step, DelayStep):
            _check_span(where, "until", step.until)
        if not isinstance(step, WaitStep):
            continue
        if not step.signals:
            raise DefinitionError(
                f"{where} waits for no signal: give it step.wait(on(SomeSignal, ...), ...), or make it a "
                "step.delay(until=...)."
            )
        if not isinstance(step.deadline, NoDeadline):
            _check_span(where, "deadline", step.deadline)
            if index > pivot and step.at_deadline is COMPENSATE:
                raise DefinitionError(
                    f"{where} is after the pivot, where nothing turns back: say at_deadline=GO_ON, give a "
                    "hook, or deadline=NO_DEADLINE."
                )
        for one in step.signals:
            if step.names.count(one.signal.signal_name) > 1:
                raise DefinitionError(
                    f"{where} waits for the signal {one.signal.signal_name!r} twice: keep one on(...)."
                )
            if known.setdefault(one.signal.signal_name, one.signal) is not one.signal:
                raise DefinitionError(
                    f"{cls.__name__} waits for two signals of the name {one.signal.signal_name!r}: "
                    f"{known[one.signal.signal_name].__name__} and {one.signal.__name__}. "
                    "Give one of them another name."
                )


def _check_span(where: str, what: str, span: object) -> None:
    if isinstance(span, timedelta) and span <= timedelta(0):
        raise DefinitionError(f"{where} has {what}={span}: give it more than nothing.")


def _last_word(steps: tuple[AnyStep, ...]) -> int:
    last = len(steps) - 1
    step = steps[last]
    return last if isinstance(step, LocalStep) and step.compensation is None else len(steps)


def _shape(steps: Iterable[Step[Any]]) -> str:
    return hashlib.sha256(json.dumps([step.shape() for step in steps]).encode()).hexdigest()[:16]


class Definitions:
    """The sagas that a process knows, by name and version."""

    def __init__(self, sagas: Iterable[type[Saga[Any]]]) -> None:
        self._by_name: dict[tuple[str, int], SagaDefinition] = {}
        for saga in sagas:
            definition = saga.definition
            known = self._by_name.setdefault((definition.name, definition.version), definition)
            if known is not definition:
                raise DefinitionError(
                    f"Two sagas are named {definition.name!r} in version {definition.version}; "
                    "give one another name or the next version."
                )

    def __iter__(self) -> Iterator[SagaDefinition]:
        return iter(self._by_name.values())

    def get(self, name: str, version: int) -> SagaDefinition:
        """The declaration of this name and version.

        Raises:
            UnknownSaga: this process has none.
        """
        try:
            return self._by_name[name, version]
        except KeyError:
            raise UnknownSaga(name, version, [f"{n} version {v}" for n, v in self._by_name]) from None

    def find(self, name: str, version: int) -> SagaDefinition | None:
        """The declaration of this name and version, or None if this process has none."""
        return self._by_name.get((name, version))

    def newest(self, name: str) -> SagaDefinition | None:
        """The last version of the saga, or None if this process has none."""
        versions = [definition for definition in self if definition.name == name]
        return max(versions, key=lambda definition: definition.version, default=None)

    def migration(self, name: str, start: int, end: int) -> Migration | None:
        """How instances of one version of the saga are moved to another; None if nobody declares it.

        Its hops may be declared by several versions.
        """
        of_it = (definition for definition in self if definition.name == name)
        return path((hop for definition in of_it for hop in definition.migrations), start, end)

    @property
    def queues(self) -> list[Queue]:
        """The queues of every command that these sagas may send, by name."""
        queues = {
            step.command.contract.service.queue
            for definition in self
            for step in definition.steps
            if isinstance(step, CommandStep)
        }
        return sorted(queues, key=lambda queue: queue.name)

    def known(self) -> list[tuple[str, int]]:
        """`(name, version)` of every declaration."""
        return list(self._by_name)
