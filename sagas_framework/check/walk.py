"""Every path of a saga, walked before it runs.

The saga's row is kept in memory and moved by the function that moves the real ones, `core.decide`; what
happens to it, and the time, is given as events. So what the walk finds is what would happen. Hooks that
shape commands are called, on an example of the state. Handlers and local steps are not: a local step's
result is an event, too.

A walk is short because what decides alike is walked once: a step that fails is walked with two attempts at
most, what was healed (an answer that came late, a pivot that had happened) is forgotten, and a situation
that was met before is not walked again. Compensations are answered; one that fails is tried without end,
wherever it stands.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from sagas_framework.check.paths import (
    ANSWERS,
    STRAIGHT,
    End,
    Fault,
    Happening,
    Hook,
    Move,
    Undone,
    Walk,
    What,
)
from sagas_framework.core.decide import decide
from sagas_framework.core.events import (
    Act,
    Confirmed,
    Decision,
    Event,
    LocalCall,
    LocalRan,
    OperatorActed,
    Policy,
    ReplyReceived,
    Result,
    SignalReceived,
    Started,
    TimerFired,
)
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.inbox import SettleAnswer
from sagas_framework.core.instance import Flight, Phase, SagaInstance, Status, StepRecord
from sagas_framework.core.waiting import moment
from sagas_framework.errors import Failure
from sagas_framework.examples import NoExample, example
from sagas_framework.messages import readable
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import (
    COMPENSATE,
    AnyStep,
    CommandStep,
    DelayStep,
    EndStep,
    LocalStep,
    NoDeadline,
    On,
    WaitStep,
)

_SAGA_ID: Final = "019ca91d-4200-7000-8000-000000000000"
_NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
# The walk asks where a path leads, not how long it takes; `check.timing` does that.
_POLICY: Final = Policy(inbox_retention=timedelta(days=36_500))
_LONGEST_TIMEOUT: Final = timedelta(days=1)
_NOT_BEGUN: Final = frozenset({Phase.PENDING, Phase.LEFT_OUT})
_OPEN: Final = frozenset({Phase.RUNNING, Phase.PAUSING, Phase.SETTLING})
"""Where a step may still be answered."""


def walk(definition: SagaDefinition) -> Walk:
    """Walk every path of the saga, from an example of its state."""
    try:
        given = example(definition.state)
        left = _left_in(given)
        _as_json(given)
    except NoExample as error:
        return Walk(definition, missing=(("", error),))
    return _Walker(definition, given, left).walk()


def _left_in(given: BaseModel) -> BaseModel:
    """The state with what local steps and plain tasks leave there: the examples of fields with a default."""
    model = type(given)
    examples = {
        name: field.examples[0]
        for name, field in model.model_fields.items()
        if field.examples and not field.is_required()
    }
    try:
        return model.model_validate({**dict(given), **examples})
    except ValidationError as error:
        raise NoExample(model, readable(error)) from None


def _as_json(model: BaseModel) -> dict[str, Any]:
    try:
        return model.model_dump(mode="json")
    except Exception as error:
        raise NoExample(type(model), str(error)) from None


@dataclass(frozen=True)
class _Situation:
    instance: SagaInstance
    now: datetime
    local: LocalCall | None = None
    story: tuple[Happening, ...] = ()
    moves: tuple[Move, ...] = ()


class _Walker:
    def __init__(self, definition: SagaDefinition, given: BaseModel, left: BaseModel) -> None:
        self._declared = definition
        self._given = given
        self._left = {
            name: getattr(left, name)
            for name in type(given).model_fields
            if getattr(left, name) != getattr(given, name)
        }
        self._left_json = {name: left.model_dump(mode="json")[name] for name in self._left}
        self._given_json = given.model_dump(mode="json")
        self._hooks: list[tuple[Exception, Hook]] = []
        self._script: tuple[bool, ...] = ()
        self._asked: list[bool] = []
        self._no: type[Failure] | None = None
        steps = tuple(map(self._walkable, definition.steps))
        # Its deadline is like a cancel, at any moment before the pivot: that is walked already.
        self._saga = replace(definition, steps=steps, deadline=None)
        self._names = {operation_id(_SAGA_ID, step.name): step.name for step in definition.steps}
        self._replies: dict[str, _Answer | None] = {}
        self._happened: set[Happening] = set()
        self._faults: dict[tuple[str, Hook, bool], Fault] = {}
        self._undone: dict[tuple[str, bool, str], Undone] = {}
        self._missing: dict[str, NoExample] = {}
        self._reached: set[str] = set()

    def _walkable(self, step: AnyStep) -> AnyStep:
        """The step, with what decides alike made short. `Retry` is meant, not how often."""
        made = copy.copy(step)
        made.retry = replace(step.retry, attempts=min(step.retry.attempts, 2))
        made.undo_retry = replace(step.undo_retry, attempts=1)
        made.timeout = min(step.timeout, _LONGEST_TIMEOUT)
        if made.when is not None:
            made.when = self._asking(made.when)
        if isinstance(made, WaitStep):
            made.signals = tuple(replace(one, hook=self._taking(one)) for one in made.signals)
            if not isinstance(made.deadline, NoDeadline):
                made.deadline = self._spanning(made.deadline)
            if callable(made.at_deadline):
                made.at_deadline = self._watched(made.at_deadline, Hook.SIGNAL)
        if isinstance(made, DelayStep):
            made.until = self._spanning(made.until)
        if isinstance(made, CommandStep) and made.command.answers_anything and made.on_success is not None:
            made.on_success = self._leave  # no contract describes a task's result, so there is no example
        return made

    def _watched(self, hook: Callable[..., Any], kind: Hook) -> Callable[..., Any]:
        """The hook; what it raises is known for its."""

        def call(*given: Any) -> Any:
            try:
                return hook(*given)
            except Failure:
                raise
            except Exception as error:
                self._hooks.append((error, kind))
                raise

        return call

    def _asking(self, when: Callable[[Any], bool]) -> Callable[[Any], bool]:
        """A condition that holds, or does not, as the script has it: the example is one of many states."""
        asked = self._watched(when, Hook.CONDITION)

        def holds(state: Any) -> bool:
            asked(state)
            place = len(self._asked)
            self._asked.append(self._script[place] if place < len(self._script) else True)
            return self._asked[-1]

        return holds

    def _taking(self, one: On[Any]) -> Callable[[Any, Any], None]:
        hook = None if one.hook is None else self._watched(one.hook, Hook.SIGNAL)

        def take(state: Any, signal: Any) -> None:
            if self._no is not None:
                raise self._no
            try:
                if hook is not None:
                    hook(state, signal)
            except one.failures:
                pass  # what it does otherwise is not to be had from this example

        return take

    def _spanning(self, given: Any) -> Callable[[Any], timedelta]:
        """Called, so that it is seen whether it raises; how long it takes is no matter."""

        def work_out(state: Any) -> timedelta:
            moment(given(state) if callable(given) else given, _NOON)
            return _LONGEST_TIMEOUT

        return self._watched(work_out, Hook.MOMENT)

    def _leave(self, state: BaseModel, _reply: object) -> None:
        for name, value in self._left.items():
            if getattr(state, name) == getattr(self._given, name):
                setattr(state, name, value)

    # ---- the walk ---------------------------------------------------------------------------------

    def walk(self) -> Walk:
        saga = self._declared
        instance = SagaInstance(
            id=_SAGA_ID,
            saga=saga.name,
            version=saga.version,
            shape=saga.shape,
            key="check",
            status=Status.RUNNING,
            state=self._given_json,
            created_at=_NOON,
            updated_at=_NOON,
        )
        ends: dict[End, None] = {}
        seen: set[object] = set()
        waiting = [_Situation(instance, _NOON)]
        while waiting:
            situation = waiting.pop()
            if (key := self._key(situation)) in seen:
                continue
            seen.add(key)
            following = list(self._following(situation))
            if all(by_a_person for by_a_person, _ in following):
                ends[self._end(situation)] = None
            waiting.extend(then for _, then in reversed(following))
        return Walk(
            saga,
            tuple(ends),
            frozenset(self._happened),
            tuple(self._faults.values()),
            tuple(self._undone.values()),
            tuple(self._missing.items()),
            frozenset(self._reached),
            len(seen),
        )

    @staticmethod
    def _key(situation: _Situation) -> object:
        """What decides how it goes on, and how the path is told; not when, nor at which attempt."""
        instance = situation.instance
        steps = tuple((record.phase, record.known, bool(record.parked)) for record in instance.steps.values())
        outcome = instance.outcome and instance.outcome.kind
        # Not the state: it follows from the steps that succeeded, unless a hook looks at a clock or throws
        # dice, and then no two situations would be alike.
        return instance.status, steps, outcome, situation.local, situation.story, situation.moves

    @staticmethod
    def _end(situation: _Situation) -> End:
        instance = situation.instance
        parked = tuple((r.name, r.parked) for r in instance.steps.values() if r.parked)
        return End(situation.story, situation.moves, instance.status, parked)

    def _following(self, situation: _Situation) -> Iterator[tuple[bool, _Situation]]:
        """`(by_a_person, situation)` of all that may come next."""
        for happening in self._choices(situation):
            by_a_person = happening.what in (What.SAID_DONE, What.SAID_WITHDRAWN)
            told = situation.story
            if happening.what in ANSWERS:
                told = tuple(before for before in told if before.step != happening.step)
            if happening.what not in STRAIGHT:
                told = (*told, happening)
            for then in self._then(replace(situation, story=told), happening):
                self._happened.add(happening)
                yield by_a_person, then

    # ---- what may happen --------------------------------------------------------------------------

    def _choices(self, situation: _Situation) -> Iterator[Happening]:
        instance = situation.instance
        if instance.status.ended:
            return
        if not instance.started:
            yield Happening(What.SUCCEEDED)
            yield Happening(What.CANCELLED)
        elif situation.local is not None:
            name = situation.local.step
            step = self._step(name)
            assert isinstance(step, LocalStep)
            undo = situation.local.kind is Kind.UNDO
            yield Happening(What.UNDONE if undo else What.SUCCEEDED, name)
            if not undo and step.action is not None:
                yield Happening(What.RAISED, name)
        else:
            for record in instance.steps.values():
                if record.flight is not None:
                    yield from self._answers(situation, record, record.flight)
                elif record.phase is Phase.WAITING:
                    yield from self._of_wait(situation, record)
                elif record.phase is Phase.DELAYED:
                    yield Happening(What.SUCCEEDED, record.name)
                    yield Happening(What.CANCELLED, record.name)
                elif record.phase is Phase.PAUSING:
                    yield Happening(What.SUCCEEDED, record.name)  # once it is tried again

    def _answers(self, situation: _Situation, record: StepRecord, flight: Flight) -> Iterator[Happening]:
        name = record.name
        step = self._step(name)
        assert isinstance(step, CommandStep)
        after = self._saga.index(name) > self._saga.pivot
        if flight.kind is Kind.UNDO:
            yield Happening(What.UNDONE, name)
        elif flight.kind is Kind.SETTLE:
            yield Happening(What.SETTLED_DONE, name)
            for failure in step.command.failures:
                yield Happening(What.SETTLED_REFUSED, name, failure.wire_name)
            yield Happening(What.SETTLED_WITHDRAWN, name)
        elif record.parked and not step.has_inbox:
            yield Happening(What.SAID_DONE, name)
            if not after:
                yield Happening(What.SAID_WITHDRAWN, name)
        else:
            yield Happening(What.SUCCEEDED, name)
            for failure in step.command.failures:
                yield Happening(What.REFUSED, name, failure.wire_name)
            if all(told.step != name for told in situation.story):
                yield Happening(What.FAILED, name)
                yield Happening(What.NO_ANSWER, name)
                yield Happening(What.CANCELLED, name)

    def _of_wait(self, situation: _Situation, record: StepRecord) -> Iterator[Happening]:
        step = self._step(record.name)
        assert isinstance(step, WaitStep)
        for number, one in enumerate(step.signals):
            # The first that is declared is the straight way.
            what = What.SUCCEEDED if number == 0 else What.SIGNALLED
            yield Happening(what, record.name, one.signal.signal_name)
        for failure in dict.fromkeys(failure for one in step.signals for failure in one.failures):
            yield Happening(What.TOLD_NO, record.name, failure.wire_name)
        if record.deadline is not None:
            yield Happening(What.EXPIRED if step.at_deadline is COMPENSATE else What.DEADLINE, record.name)
        yield Happening(What.CANCELLED, record.name)

    # ---- and what then ----------------------------------------------------------------------------

    def _then(self, situation: _Situation, happening: Happening) -> Iterator[_Situation]:
        """The situations after it; none if it cannot come."""
        now, name = situation.now, happening.step
        record = situation.instance.steps.get(name)
        if record is not None and record.phase in (Phase.WAITING, Phase.DELAYED):
            if happening.what is What.CANCELLED:
                yield from self._decided(situation, _act(Act.CANCEL, now))
            else:
                yield from self._waited(situation, record, happening)
            return
        match happening.what:
            case What.CANCELLED:
                yield from self._cancelled(situation, name)
            case What.SUCCEEDED if not situation.instance.started:
                yield from self._decided(situation, Started(_SAGA_ID, now))
            case What.SUCCEEDED | What.UNDONE | What.RAISED if situation.local is not None:
                yield from self._decided(situation, self._ran(situation, situation.local, happening.what))
            case What.SAID_DONE if (reply := self._reply(name)) is not None:
                yield from self._decided(situation, _act(Act.COMPLETE, now, name, reply.payload))
            case What.SAID_WITHDRAWN:
                yield from self._decided(situation, _act(Act.WITHDRAW, now, name))
            case What.NO_ANSWER:
                yield self._time_passes(situation, name)
            case What.FAILED:
                yield self._used_up(situation, name)
            case _:
                yield from self._answered(situation, happening)

    def _waited(
        self, situation: _Situation, record: StepRecord, happening: Happening
    ) -> Iterator[_Situation]:
        """After a signal, or once the moment has come."""
        step = self._step(record.name)
        if isinstance(step, DelayStep) or happening.what in (What.DEADLINE, What.EXPIRED):
            at = record.deadline or record.resume_at
            assert at is not None
            later = replace(situation, now=max(situation.now, at))
            yield from self._decided(later, TimerFired(_SAGA_ID, later.now))
            return
        assert isinstance(step, WaitStep)
        no = happening.name if happening.what is What.TOLD_NO else None
        for one in step.signals:
            failures = [failure for failure in one.failures if failure.wire_name == no]
            if not (failures or happening.name == one.signal.signal_name):
                continue
            try:
                payload = _as_json(example(one.signal))
            except NoExample as error:
                self._missing[record.name] = error
                return
            event = SignalReceived(_SAGA_ID, situation.now, 0, one.signal.signal_name, payload, situation.now)
            self._no = failures[0] if failures else None
            try:
                yield from list(self._decided(situation, event))
            finally:
                self._no = None
            return

    def _cancelled(self, situation: _Situation, name: str) -> Iterator[_Situation]:
        """While its answer is awaited; and in the pause after an attempt that failed, if there is one."""
        yield from self._decided(situation, _act(Act.CANCEL, situation.now))
        if name:
            (failed,) = self._answered(situation, Happening(What.FAILED, name))
            if failed.instance.steps[name].phase is Phase.PAUSING:
                yield from self._decided(failed, _act(Act.CANCEL, failed.now))

    def _ran(self, situation: _Situation, call: LocalCall, what: What) -> LocalRan:
        if what is What.RAISED:
            error = {"type": "Exception", "message": "", "module": "builtins"}
            return LocalRan(_SAGA_ID, situation.now, call.step, call.kind, error=error)
        state = dict(situation.instance.state)
        if call.kind is Kind.DO and self._runs(call):
            state |= {name: v for name, v in self._left_json.items() if state[name] == self._given_json[name]}
        return LocalRan(_SAGA_ID, situation.now, call.step, call.kind, state=state)

    def _time_passes(self, situation: _Situation, name: str) -> _Situation:
        """Until the step's next moment: its deadline, or the end of its pause."""
        record = situation.instance.steps[name]
        at = min(moment for moment in (record.deadline, record.resume_at) if moment is not None)
        situation = replace(situation, now=max(situation.now, at))
        (then,) = self._decided(situation, TimerFired(_SAGA_ID, situation.now))
        return then

    def _used_up(self, situation: _Situation, name: str) -> _Situation:
        """It fails until the saga gives it up, or shows it to a person and goes on trying."""
        while True:
            (situation,) = self._answered(situation, Happening(What.FAILED, name))
            record = situation.instance.steps[name]
            if record.phase is Phase.PAUSING and not record.parked:
                situation = self._time_passes(situation, name)
                record = situation.instance.steps[name]
            if record.phase is not Phase.RUNNING:
                return situation

    def _answered(self, situation: _Situation, happening: Happening) -> Iterator[_Situation]:
        name = happening.step
        if situation.instance.steps[name].flight is None:  # it pauses; the next attempt is answered
            situation = self._time_passes(situation, name)
        record = situation.instance.steps[name]
        step, flight = self._step(name), record.flight
        assert isinstance(step, CommandStep)
        assert flight is not None
        if flight.kind is Kind.UNDO and not step.undo_answers:
            yield from self._decided(situation, Confirmed(_SAGA_ID, situation.now, flight.message_id))
        elif (answer := self._answer(happening)) is not None:
            event = ReplyReceived(
                _SAGA_ID,
                situation.now,
                (flight.message_id,),
                flight.task,
                answer.result,
                answer.payload,
                answer.error,
            )
            yield from self._decided(situation, event)

    def _answer(self, happening: Happening) -> _Answer | None:
        """What the participant says; None where no example of its reply can be guessed."""
        error = {"type": happening.name, "message": "", "module": ""}
        match happening.what:
            case What.SUCCEEDED:
                return self._reply(happening.step)
            case What.REFUSED:
                return _Answer(Result.REFUSED, error=error)
            case What.FAILED:
                return _Answer(Result.FAILED, error={**error, "type": "Fault"})
            case What.SETTLED_DONE:
                reply = self._reply(happening.step)
                return reply and _settled(SettleAnswer.DONE, reply=reply.payload)
            case What.SETTLED_REFUSED:
                return _settled(SettleAnswer.REFUSED, error=error)
            case What.SETTLED_WITHDRAWN:
                return _settled(SettleAnswer.WITHDRAWN)
            case _:
                return _Answer(Result.SUCCESS)

    def _reply(self, name: str) -> _Answer | None:
        step = self._step(name)
        assert isinstance(step, CommandStep)
        wanted = step.command.reply_type()
        if not issubclass(wanted, BaseModel):
            return _Answer(Result.SUCCESS)
        if name not in self._replies:
            try:
                self._replies[name] = _Answer(Result.SUCCESS, _as_json(example(wanted)))
            except NoExample as error:
                self._missing[name] = error
                self._replies[name] = None
        return self._replies[name]

    # ---- deciding ---------------------------------------------------------------------------------

    def _decided(self, situation: _Situation, event: Event) -> Iterator[_Situation]:
        """The situation after the event; nothing if it is refused."""
        scripts: list[tuple[bool, ...]] = [()]
        while scripts:
            self._script, self._asked = scripts.pop(), []
            decision = decide(self._saga, situation.instance, event, _POLICY)
            asked = self._asked
            scripts += [(*asked[:at], False) for at in range(len(self._script), len(asked))]
            if not decision.refused:
                yield self._after(situation, decision)

    def _branches(self, before: SagaInstance, instance: SagaInstance) -> Iterator[Happening]:
        """Which conditions led another way than straight on."""
        for name, record in instance.steps.items():
            was = before.steps.get(name)
            if was is not None and was.phase is record.phase:
                continue
            ends = isinstance(self._step(name), EndStep)
            if ends and record.phase is Phase.SUCCEEDED:
                yield Happening(What.ENDED, name)
                return  # what comes behind is left out, too
            if not ends and record.phase is Phase.LEFT_OUT:
                yield Happening(What.LEFT_OUT, name)

    def _after(self, situation: _Situation, decision: Decision) -> _Situation:
        instance = decision.instance
        branches = tuple(self._branches(situation.instance, instance))
        self._happened.update(branches)
        begun = (name for name, r in instance.steps.items() if r.phase not in _NOT_BEGUN)
        self._reached.update(begun)
        moves = list(situation.moves)
        for sent in decision.commands:
            name = self._names[sent.operation_id]
            if sent.kind is Kind.UNDO:
                undone = Undone(name, sent.known, sent.payload or {})
                self._undone[name, sent.known, json.dumps(sent.payload, sort_keys=True)] = undone
            if sent.kind is not Kind.SETTLE and not sent.again:
                moves.append(Move(name, sent.kind))
        if decision.local is not None and self._runs(decision.local):
            moves.append(Move(decision.local.step, decision.local.kind))
        raised = tuple(
            Happening(What.RAISED, fault.step)
            for fault in self._noted(situation.instance, decision)
            if fault.hook is not Hook.COMPENSATION
        )
        return replace(
            situation,
            instance=instance,
            local=decision.local,
            story=(*situation.story, *branches, *raised),
            moves=tuple(dict.fromkeys(moves)),
        )

    def _noted(self, before: SagaInstance, decision: Decision) -> list[Fault]:
        """What of the saga's own code raised in this decision."""
        found: list[Fault] = []
        answered: set[str] = set()
        hooks = {id(error): hook for error, hook in self._hooks}
        for place, (name, error) in enumerate(decision.raised):
            record = decision.instance.steps[name]
            if name in answered:
                continue  # its reply could not be taken, so what undoes it lacks what the reply says
            # A reply is taken before anything follows from it, so what raised later is something else.
            if id(error) in hooks:
                hook = hooks[id(error)]
            elif place == 0 and record.known and before.steps[name].phase in _OPEN:
                hook = Hook.ON_SUCCESS
                answered.add(name)
            else:
                hook = Hook.COMPENSATION if record.tries else Hook.REQUEST
            found.append(Fault(name, hook, record.known, error))
        for fault in found:
            self._faults.setdefault((fault.step, fault.hook, fault.known), fault)
        return found

    def _step(self, name: str) -> AnyStep:
        return self._saga.steps[self._saga.index(name)]

    def _runs(self, call: LocalCall) -> bool:
        """Whether the local step has something to do."""
        step = self._step(call.step)
        assert isinstance(step, LocalStep)
        return call.kind is Kind.UNDO or step.action is not None


@dataclass(frozen=True)
class _Answer:
    result: Result
    payload: Any = None
    error: dict[str, str] = field(default_factory=dict)


def _settled(answer: SettleAnswer, **more: Any) -> _Answer:
    return _Answer(Result.SUCCESS, {"answer": answer.value, **more})


def _act(act: Act, at: datetime, step: str | None = None, reply: Any = None) -> OperatorActed:
    return OperatorActed(_SAGA_ID, at, act, "check", "to see what follows", None, step, reply)
