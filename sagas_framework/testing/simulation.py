"""A user's saga in a simulated world: seeded schedules of faults, checked after every event.

simulation = Simulation(CreateOrderSaga, CreateOrderState(...))
simulation.check(runs=200)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from sagas_framework.core.events import Act, Policy, Recorded
from sagas_framework.core.ids import operation_id
from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.core.instance import Phase, SagaInstance, Status, StepRecord
from sagas_framework.errors import DefinitionError
from sagas_framework.messages import Command, Reply
from sagas_framework.participant import Participant
from sagas_framework.saga import CommandStep, Saga, SagaDefinition
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.storage.ports import ActRow
from sagas_framework.testing.choices import Choices, Schedule, Scripted, Seeded, durations
from sagas_framework.testing.effects import Broken, BrokenPromise, Effects
from sagas_framework.testing.examples import example
from sagas_framework.testing.hooks import only, with_hooks_that_may_raise
from sagas_framework.testing.invariants import ALWAYS, AT_THE_END, View, it_ends
from sagas_framework.testing.network import Names, Network
from sagas_framework.testing.participants import Handlers, generated, simulated
from sagas_framework.testing.processes import REPLIES, OrchestratorProcess, ParticipantProcess
from sagas_framework.testing.storage import SimulatedInbox
from sagas_framework.testing.world import BEGINNING, World

S = TypeVar("S", bound=BaseModel)

POLICY: Final = Policy(
    message_lifetime=timedelta(seconds=1200),
    inbox_retention=timedelta(hours=4),
    clock_skew=timedelta(minutes=1),
)
"""The library's own numbers but for lifetimes, shorter so that a run comes to their end."""

_FIRST_ID: Final = 0x019CA91D_4200_7000_8000_000000000001
_LEASE: Final = timedelta(minutes=4)
_FAULTS_STOP: Final = 2400.0
_PATIENCE: Final = 6600.0
_AFTERMATH: Final = 12000.0
"""How long after the end what is late, and retention, may still do harm."""
_RETENTION_JOB: Final = 3600.0

_MOMENTS: Final = (0.005, 0.015, 0.025, 0.035, 0.045, 0.055, 0.075, 2.0, 11.0, 30.0, 61.0, 150.0)
_CANCELS: Final = ("never", *(f"after {moment:g} s" for moment in _MOMENTS))
_STOPS: Final = (
    "never",
    *(f"after {m:g} s for {f:g} s" for m in (0.0, 0.015, 0.035) for f in (5, 40, 130, 400)),
)
_FORGETS: Final = ("never", *(f"forgets after {moment:g} s" for moment in _MOMENTS))
_ACTS: Final = {
    "goes home": None,
    "retries": Act.RETRY,
    "skips": Act.SKIP,
    "completes": Act.COMPLETE,
    "cancels": Act.CANCEL,
    "skips by force": Act.SKIP,
    "completes by force": Act.COMPLETE,
    "cancels by force": Act.CANCEL,
}
_THINKS: Final = 3.0
_LOOKS: Final = 6
"""How often the operator of a run looks at a parked saga."""


class Run(Generic[S]):
    """One run: what was in it, and what came of it."""

    def __init__(self, simulation: Simulation[S], choices: Choices) -> None:
        self.choices = choices
        self.world = World(choices)
        self.names = Names()
        self.network = Network(self.world, self.names)
        self.effects = Effects()
        self.definition: SagaDefinition = with_hooks_that_may_raise(simulation.saga.definition, self.world)
        self.database = MemoryDatabase()
        self.participants: dict[str, ParticipantProcess] = {}
        self.orchestrators: list[OrchestratorProcess] = []
        self.ids: list[str] = []
        self._state = simulation.saga.definition.state
        self._simulation = simulation
        self._looked: set[tuple[str, int]] = set()
        self.effects.databases.append(self.database)
        self._set_up()

    # ---- what came of it --------------------------------------------------------------------------

    @property
    def instance(self) -> SagaInstance:
        """The (first) saga."""
        return self.database.instances[self.ids[0]]

    @property
    def status(self) -> Status:
        """Where the (first) saga stands."""
        return self.instance.status

    @property
    def state(self) -> S:
        """The state of the (first) saga."""
        state: S = self._state.model_validate(dict(self.instance.state))  # type: ignore[assignment]
        return state

    @property
    def schedule(self) -> dict[str, str]:
        """The faults that were taken."""
        return dict(self.choices.taken)

    @property
    def sent(self) -> list[str]:
        """Name of every message that was published, in order."""
        return self.network.sent

    @property
    def words(self) -> list[str]:
        """The entries of the (first) saga's history."""
        return [line.entry for line in self.history(self.ids[0])]

    def history(self, saga_id: str) -> list[Recorded]:
        """The history of one of its sagas, oldest first."""
        return [line.recorded for line in self.database.history if line.saga_id == saga_id]

    def step(self, name: str) -> StepRecord:
        """What the (first) saga knows of the step."""
        return self.instance.steps[name]

    def count(self, step: str) -> int:
        """How often the step's effect is there."""
        return self.effects.count(self.key(step))

    def executions(self, step: str) -> int:
        """How often a handler of the step was started."""
        key = self.key(step)
        return sum(times for (its, _), times in self.effects.executions.items() if its == key)

    def key(self, step: str) -> str:
        """The operation id of the (first) saga's step."""
        return operation_id(self.ids[0], step)

    def row(self, step: str) -> InboxRow | None:
        """The step's inbox row at its participant, if it is there."""
        found = self._participant(step).database.inbox.get(self.key(step))
        return found[0] if found else None

    def last_row(self, step: str) -> InboxRow:
        """The step's inbox row, or what it was before retention deleted it."""
        return self.effects.rows[self.key(step)]

    def trace(self) -> str:
        """What happened when, a line each."""
        return "\n".join(self.world.trace)

    # ---- what a test may do to it -----------------------------------------------------------------

    def operator(self, act: Act, step: str | None = None, **how: Any) -> int:
        """An operator acts on the (first) saga; the act's number."""
        return self._act(self.ids[0], act, step=step, **how)

    def answer(self, act: int) -> ActRow:
        """What became of an act."""
        return self.database.acts[act]

    def forget(self, step: str) -> None:
        """The step's inbox row is deleted, as by a retention that is too short."""
        self.world.say(f"the inbox forgets {step}")
        self._participant(step).database.inbox.pop(self.key(step), None)

    def stop(self, service: str, seconds: float) -> None:
        """A service takes nothing from its queue for a while."""
        self.participants[service].stop(seconds)

    def _participant(self, step: str) -> ParticipantProcess:
        declared = self.definition.steps[self.definition.index(step)]
        assert isinstance(declared, CommandStep)
        return self.participants[declared.command.contract.service.name]

    # ---- how it goes ------------------------------------------------------------------------------

    def go(self, meanwhile: Mapping[float, Callable[[Run[S]], object]]) -> None:
        """Run to the end.

        Raises:
            Broken: an invariant does not hold.
        """
        for moment, act in meanwhile.items():
            self.world.after(moment, self._doing(act))
        self.world.run(self._simulation.ended_by)
        for view in self._views():
            self._see_to(view, [it_ends])
        self.world.run(self._simulation.ended_by + _AFTERMATH)
        for view in self._views():
            self._see_to(view, [*ALWAYS, it_ends, *AT_THE_END])
        for promise in self._simulation.promises:
            for broken in promise(self):
                raise Broken(broken)

    def _doing(self, act: Callable[[Run[S]], object]) -> Callable[[], object]:
        return lambda: act(self)

    def _set_up(self) -> None:
        simulation, world, choices = self._simulation, self.world, self.choices
        definitions = only(self.definition)
        handlers = Handlers(world, self.effects, self.names)
        for participant in simulation.participants():
            database = MemoryDatabase()
            self.effects.databases.append(database)
            inbox = SimulatedInbox(MemoryInbox(database), world, self.effects)
            served = simulated(participant, inbox, handlers, world.clock)
            process = ParticipantProcess(served, inbox, database, world, self.network, self.effects)
            self.participants[participant.service.name] = process
        for number in range(simulation.sagas):
            self._start(number)
        many = 2 if choices.at("orchestrators", ("one", "two")) == "two" else 1
        for number in range(many):
            self.orchestrators.append(
                OrchestratorProcess(
                    f"orchestrator {number + 1}",
                    world,
                    self.network,
                    self.database,
                    self.effects,
                    definitions,
                    simulation.policy,
                )
            )
        self.network.consume(REPLIES, self._replies_wait)
        world.watch = self._watch
        self._plan()

    def _start(self, number: int) -> None:
        saga_id = str(UUID(int=_FIRST_ID + number))
        definition = self.definition
        prefix = f"{number + 1}: " if self._simulation.sagas > 1 else ""
        self.names.introduce(saga_id, definition, prefix)
        self.ids.append(saga_id)
        self.database.instances[saga_id] = SagaInstance(
            id=saga_id,
            saga=definition.name,
            version=definition.version,
            shape=definition.shape,
            key=f"simulated-{number + 1}",
            status=Status.RUNNING,
            state=self._simulation.state(number).model_dump(mode="json"),
            created_at=BEGINNING,
            updated_at=BEGINNING,
            due_at=BEGINNING,
        )

    def _plan(self) -> None:
        """What happens to the world as a whole, and when."""
        simulation, world, choices = self._simulation, self.world, self.choices
        for number, saga_id in enumerate(self.ids):
            who = "an operator" if number == 0 else f"operator {number + 1}"
            for moment in durations(choices.at(f"{who} cancels", _CANCELS))[:1]:
                world.after(moment, self._cancelling(saga_id))
        for name, process in self.participants.items():
            match durations(choices.at(f"{name} is stopped", _STOPS, weight=0.6)):
                case [moment, pause]:
                    world.after(moment, self._stopping(process, pause))
            for moment in durations(choices.at(f"{name}'s inbox", _FORGETS, weight=0.4))[:1]:
                world.after(moment, self._forgetting(process))
        for number in range(1, int((simulation.ended_by + _AFTERMATH) / _RETENTION_JOB) + 1):
            world.after(number * _RETENTION_JOB, self._clean_inboxes)
        world.after(_FAULTS_STOP, self._stop_faults)

    def _cancelling(self, saga_id: str) -> Callable[[], object]:
        return lambda: self._act(saga_id, Act.CANCEL)

    @staticmethod
    def _stopping(process: ParticipantProcess, pause: float) -> Callable[[], None]:
        return lambda: process.stop(pause)

    def _forgetting(self, process: ParticipantProcess) -> Callable[[], None]:
        """A retention that is too short, at a moment when no message of the step is under way (rule 9)."""

        def forget() -> None:
            for saga_id in self.ids:
                for record in self.database.instances[saga_id].steps.values():
                    key = operation_id(saga_id, record.name)
                    found = process.database.inbox.get(key)
                    known = record.phase is Phase.SUCCEEDED and not self.network.may_come(key)
                    if found and known and found[0].state is RowState.DONE:
                        self.world.say(f"the inbox forgets {record.name}")
                        del process.database.inbox[key]

        return forget

    def _clean_inboxes(self) -> None:
        for process in self.participants.values():
            if gone := process.participant.forget_old():
                self.world.say(f"retention deletes {gone} inbox rows of {process.participant.service.name}")

    def _stop_faults(self) -> None:
        self.world.say("faults stop")
        self.choices.closed = True

    def _replies_wait(self) -> None:
        up = [process for process in self.orchestrators if process.up]
        if not up:
            return  # whoever starts looks into the queue
        if len(up) == 1:
            up[0].wake()
        else:
            chosen = self.choices.at("the next reply goes to", [process.name for process in up])
            next(process for process in up if process.name == chosen).wake()

    def _act(self, saga_id: str, act: Act, **how: Any) -> int:
        self.world.say(f"an operator wants to {act.value} {how.get('step') or 'the saga'}")
        row = ActRow(0, saga_id, act, "ann", "she knows why", self.world.now, **how)
        number = self.database.add_act(row).id
        for process in self.orchestrators:
            process.look()
        return number

    # ---- what must hold ---------------------------------------------------------------------------

    def _views(self) -> Iterator[View]:
        for saga_id in self.ids:
            instance = self.database.instances[saga_id]
            yield View(instance, self.definition, self.history(saga_id), self.effects, self.choices.taken)

    def _watch(self) -> None:
        for view in self._views():
            self._see_to(view, ALWAYS)
            if view.instance.status is Status.PARKED:
                self._look_at(view.instance)

    @staticmethod
    def _see_to(view: View, invariants: Iterable[Callable[[View], Iterator[str]]]) -> None:
        for invariant in invariants:
            for broken in invariant(view):
                raise Broken(broken)

    # ---- the operator -----------------------------------------------------------------------------

    def _look_at(self, instance: SagaInstance) -> None:
        """A person sees the parked saga, thinks, and acts on what she has seen."""
        seen = instance.id, instance.revision
        if seen in self._looked or len(self._looked) >= _LOOKS:
            return
        self._looked.add(seen)
        record = next(record for record in instance.steps.values() if record.parked)
        if record.phase is Phase.HANDED_OVER:
            self.world.after(_THINKS, lambda: self._act(instance.id, Act.COMPLETE, step=record.name))
            return
        choice = self.choices.at(f"the operator finds {record.name} parked and", tuple(_ACTS), weight=6)
        act = _ACTS[choice]
        if act is None:
            return
        how: dict[str, Any] = {"revision": instance.revision, "force": choice.endswith("force")}
        if act is not Act.CANCEL:
            how["step"] = record.name
        if act is Act.COMPLETE:
            how["reply"] = self._reply_by_hand(record.name)
        self.world.after(_THINKS, lambda: self._act(instance.id, act, **how))

    def _reply_by_hand(self, name: str) -> dict[str, Any] | None:
        step = self.definition.steps[self.definition.index(name)]
        try:
            reply = self._simulation.answer_of(step.command) if isinstance(step, CommandStep) else None
        except DefinitionError:  # of a participant that was given: the act is refused
            return None
        return reply.to_json() if reply is not None else None


class Simulation(Generic[S]):
    """A saga to be run under faults.

    Its participants are those given, over inboxes in memory, and for the other services ones made
    from the contracts. Hooks and handlers get a session whose ``rows`` (a dict) are kept with the
    transaction; whatever else they ask of it is taken and forgotten.

    Args:
        state: of each run; a function makes one for each saga of a run from its number.
        participants: real ones, with their handlers.
        outside: commands whose generated handler works outside its transaction.
        examples: replies for generated handlers, where a plain value for each field does not do.
        promises: what else must hold when a run is over; each yields a sentence for what does not.
        sagas: how many run side by side in each run.
        policy: `POLICY`, with a retention that fits the saga's timeouts, unless given.

    Raises:
        DefinitionError: no example of a reply can be guessed, or a step has no inbox: what it promises
            under faults is that a person decides, which `scenario` tells better.
    """

    def __init__(
        self,
        saga: type[Saga[S]],
        state: S | Callable[[int], S],
        *,
        participants: Sequence[Participant] = (),
        outside: Collection[type[Command[Any]]] = (),
        examples: Iterable[Reply] = (),
        promises: Sequence[Callable[[Run[S]], Iterable[str]]] = (),
        sagas: int = 1,
        policy: Policy | None = None,
        lease: timedelta = _LEASE,
    ) -> None:
        self.saga = saga
        self.sagas = sagas
        self.ended_by = _FAULTS_STOP + max(_PATIENCE, 2 * _longest(saga.definition))
        """Seconds since the beginning after which every saga must have ended, or need a person."""
        kept = max(POLICY.inbox_retention, timedelta(seconds=2 * self.ended_by - _PATIENCE))
        self.policy = policy or replace(POLICY, inbox_retention=kept)
        self.promises = promises
        self._state = state
        self._given = list(participants)
        self._outside = outside
        self._examples = {type(reply): reply for reply in examples}
        self._lease = lease
        there = {participant.service.name for participant in self._given}
        for step in saga.definition.steps:
            if isinstance(step, CommandStep) and not step.has_inbox:
                raise DefinitionError(
                    f"{saga.__name__}.{step.name} is done by {step.command.contract.service.name}, which "
                    "keeps no inbox: a message that is lost or comes twice is a person's to judge there, and "
                    "not what a simulation can check. Tell its story with scenario(...)."
                )
        for step in saga.definition.steps:  # found here, not taken for a fault of a handler
            if isinstance(step, CommandStep) and step.command.contract.service.name not in there:
                self.answer_of(step.command)

    # ---- running it -------------------------------------------------------------------------------

    def run(self, seed: int) -> Run[S]:
        """One run with random faults, the same for the same seed.

        Raises:
            BrokenPromise: with the shortest schedule found, ready to be pasted into a test.
        """
        try:
            return self._run(Seeded(seed), {})
        except _Found as found:
            schedule = self.shrunk(found.run.schedule)
            raise BrokenPromise(self._told(schedule, seed)) from None

    def replay(
        self, schedule: Schedule, *, meanwhile: Mapping[float, Callable[[Run[S]], object]] | None = None
    ) -> Run[S]:
        """The run with these faults and no others.

        Args:
            meanwhile: what else is done to the run, by seconds since its beginning.

        Raises:
            BrokenPromise: an invariant does not hold.
            ValueError: the run never came by one of the schedule's points.
        """
        choices = Scripted(schedule)
        try:
            run = self._run(choices, meanwhile or {})
        except _Found as found:
            raise BrokenPromise(self._told(schedule, None, found)) from None
        if choices.unused():
            raise ValueError(
                f"The run never came to {', '.join(map(repr, choices.unused()))}. It came by:\n  "
                + "\n  ".join(choices.seen)
                + f"\n\n{run.trace()}"
            )
        return run

    def check(self, runs: int = 100, *, first_seed: int = 0) -> None:
        """Run so many seeds.

        Raises:
            BrokenPromise: at the first seed that finds one, with the shortest schedule found.
        """
        for seed in range(first_seed, first_seed + runs):
            self.run(seed)

    def shrunk(self, schedule: Schedule) -> dict[str, str]:
        """A part of a failing schedule that still fails, but no longer does without any one of its faults."""
        left = dict(schedule)
        removed = True
        while removed:
            removed = False
            for point in list(left):
                fewer = {name: choice for name, choice in left.items() if name != point}
                try:
                    self._run(Scripted(fewer), {})
                except _Found as found:
                    left, removed = found.run.schedule, True
                    break
        return left

    # ---- what is in it ----------------------------------------------------------------------------

    def state(self, number: int) -> S:
        """The state that the saga of this number starts with."""
        return self._state if isinstance(self._state, BaseModel) else self._state(number)

    def answer_of(self, command: type[Command[Any]]) -> Reply | None:
        """What a generated participant answers to the command."""
        wanted = command.reply_type()
        return self.example_of(wanted) if issubclass(wanted, Reply) else None

    def example_of(self, reply: type[Reply]) -> Reply:
        """The example given for this reply, or a guess."""
        return self._examples.get(reply) or example(reply)

    def participants(self) -> list[Participant]:
        """Those given, and generated ones for the other services."""
        return self._given + generated(
            self.saga.definition,
            given=self._given,
            outside=self._outside,
            example_of=self.example_of,
            lease=self._lease,
            retention=self.policy.inbox_retention,
        )

    def _run(self, choices: Choices, meanwhile: Mapping[float, Callable[[Run[S]], object]]) -> Run[S]:
        with _silence():
            run: Run[S] = Run(self, choices)
            try:
                run.go(meanwhile)
            except Broken as broken:
                raise _Found(run, str(broken)) from broken
            return run

    def _told(self, schedule: Schedule, seed: int | None, found: _Found[S] | None = None) -> str:
        if found is None:
            try:
                self._run(Scripted(schedule), {})
            except _Found as again:
                found = again
        assert found is not None, "the same schedule gives the same run"
        where = "" if seed is None else f" (seed {seed})"
        faults = "".join(f"            {point!r}: {choice!r},\n" for point, choice in schedule.items())
        name = "a_schedule" if seed is None else f"the_schedule_of_seed_{seed}"
        return (
            f"{found.broken}{where}\n\n"
            f"    def test_{name}() -> None:\n"
            f"        # {found.broken}\n"
            "        simulation.replay({\n"
            f"{faults}"
            "        })\n\n"
            f"{found.run.trace()}\n"
        )


def _longest(definition: SagaDefinition) -> float:
    """How many seconds a run may take when every step times out, and every retry is used up."""
    longest = timedelta()
    for step in definition.steps:
        longest += 2 * step.timeout
        for retry in (step.retry, step.undo_retry):
            longest += retry.ceiling
            for attempt in range(1, min(retry.attempts, 100) + 1):
                longest += retry.pause_after(attempt)
    return longest.total_seconds()


class _Found(Exception, Generic[S]):
    """A run in which a promise was broken."""

    def __init__(self, run: Run[S], broken: str) -> None:
        super().__init__(broken)
        self.run = run
        self.broken = broken


@contextmanager
def _silence() -> Iterator[None]:
    """Faults are what a simulation is made of: nobody wants a log line for each."""
    logger = logging.getLogger("sagas_framework")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
