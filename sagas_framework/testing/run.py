"""One run of a simulation: its world, its processes, its plan, and what must hold in it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar
from uuid import UUID

from pydantic import BaseModel

from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.ids import operation_id
from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.core.instance import Phase, SagaInstance, Status, StepRecord
from sagas_framework.errors import DefinitionError
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import CommandStep, LocalStep
from sagas_framework.storage.memory import MemoryDatabase
from sagas_framework.storage.ports import ActRow, SignalRow
from sagas_framework.testing.choices import COMMANDS, DATABASES, Choices, durations
from sagas_framework.testing.databases import Backing, InMemory, OnSqlite
from sagas_framework.testing.effects import Broken, Effects
from sagas_framework.testing.hooks import only, with_hooks_that_may_raise
from sagas_framework.testing.invariants import ALWAYS, AT_THE_END, View, excuses, it_ends
from sagas_framework.testing.network import LATENCY, Names, Network
from sagas_framework.testing.participants import Handlers, simulated
from sagas_framework.testing.processes import REPLIES, OrchestratorProcess, ParticipantProcess
from sagas_framework.testing.saying import Sayers
from sagas_framework.testing.storage import SimulatedInbox
from sagas_framework.testing.world import BEGINNING, Clock, World

if TYPE_CHECKING:
    from sagas_framework.testing.simulation import Simulation

S = TypeVar("S", bound=BaseModel)

_FIRST_ID: Final = 0x019CA91D_4200_7000_8000_000000000001
_RETENTION_EVERY: Final = 3600.0
_RETENTION_JOBS: Final = 200
"""Of a run, at most: of years of waiting, nobody wants every hour."""
_RETENTION: Final = ("retention runs",)
_FAULTS: Final = ("faults stop",)
_ENDED: Final = ("by now it has ended",)
_OVER: Final = ("it is over",)
ACTS: Final = "an operator acts"
"""The agenda's word for what somebody does who has looked at a saga; then come its id and revision."""
BOUNDS: Final = frozenset({_RETENTION, _FAULTS, _ENDED, _OVER})
"""What is on the agenda because of the simulation, not of the saga."""

_MOMENTS: Final = (2.0, 11.0, 30.0, 61.0, 150.0)
_SHORTEST: Final = 3
_STOPS: Final = (
    "never",
    *(f"after {m:g} s for {f:g} s" for m in (0.0, 0.015, 0.035) for f in (5, 40, 130, 400, 2400)),
)
_CLOCKS: Final = (
    "is right",
    "jumps ahead after 0.02 s by 50 s",
    "jumps back after 0.02 s by 50 s",
    "jumps ahead after 30 s by 50 s",
    "jumps back after 30 s by 50 s",
)
"""Within the policy's clock skew."""
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


def _moments(definition: SagaDefinition) -> tuple[float, ...]:
    """Seconds: one while each message of a saga without faults is on its way, one at its end, some later."""
    steps = max(_SHORTEST, sum(isinstance(step, CommandStep) for step in definition.steps))
    underway = [LATENCY * (number + 0.5) for number in range(2 * steps)]
    return *underway, LATENCY * (2 * steps + 1.5), *_MOMENTS


class Run(Generic[S]):
    """One run: what was in it, and what came of it."""

    def __init__(self, simulation: Simulation[S], choices: Choices) -> None:
        self.world = World(choices)
        self.names = Names()
        self.network = Network(self.world, self.names)
        self.effects = Effects()
        self.definition: SagaDefinition = with_hooks_that_may_raise(simulation.saga.definition, self.world)
        self.backing: Backing = InMemory()
        self.participants: dict[str, ParticipantProcess] = {}
        self.orchestrators: list[OrchestratorProcess] = []
        self.ids: list[str] = []
        self._state = simulation.saga.definition.state
        self._simulation = simulation
        self.looked: set[tuple[str, int]] = set()
        """Which sagas the operator has looked at, at which revision."""
        self.effects.databases.append(self.database)
        self._retention_every = max(_RETENTION_EVERY, simulation.over_by / _RETENTION_JOBS)
        self.sayers = Sayers(self.world, self.definition, simulation.signal_of, self._said)
        self._set_up()

    @property
    def database(self) -> MemoryDatabase:
        """What is in the orchestrators' database."""
        return self.backing.seen

    @property
    def choices(self) -> Choices:
        """What decides what goes wrong."""
        return self.world.choices

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

    def say(self, signal: str, *, said_id: str = "said by a test", **payload: Any) -> None:
        """Somebody signals the (first) saga, with the example's payload or this one."""
        self.sayers.say(self.instance.key, signal, said_id, payload or None)

    def forget(self, step: str) -> None:
        """The step's inbox row is deleted, as by a retention that is too short."""
        self.world.say(f"the inbox forgets {step}")
        self._participant(step).backing.forget(self.key(step))

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
        for number, (moment, act) in enumerate(meanwhile.items()):
            self.world.after(moment, self._doing(act), ("meanwhile", number))
        try:
            self.world.run(self._simulation.over_by)
        finally:
            self.backing.close()
            for process in self.participants.values():
                process.backing.close()

    @property
    def waits_for_nothing(self) -> bool:
        """Whether nothing more will happen but what happens in every run."""
        return all(planned.what in BOUNDS for planned in self.world.planned())

    @property
    def excuses(self) -> frozenset[Hashable]:
        """Whatever lets an invariant look away (`sagas_framework.testing.invariants.excuses`)."""
        return frozenset().union(*map(excuses, self._views()))

    def stateful(self) -> Iterator[object]:
        """Whatever remembers something, for a `Memento`."""
        yield from (self, self.world, self.choices, self.network, self.effects, self.effects.provider)
        yield from (self.database, self.sayers)
        for orchestrator in self.orchestrators:
            yield from orchestrator.stateful()
        for participant in self.participants.values():
            yield from participant.stateful()

    def _doing(self, act: Callable[[Run[S]], object]) -> Callable[[], object]:
        return lambda: act(self)

    def _set_up(self) -> None:
        """Everything that is there before anything may go wrong."""
        simulation, world = self._simulation, self.world
        handlers = Handlers(world, self.effects, self.names, simulation.time_limit)
        for participant in simulation.participants():
            backing, clock = InMemory(), Clock(world)
            self.effects.databases.append(backing.seen)
            inbox = SimulatedInbox(backing, world, self.effects)
            served = simulated(participant, inbox, handlers, clock)
            process = ParticipantProcess(served, inbox, backing, clock, world, self.network, self.effects)
            self.participants[participant.service.name] = process
        for number in range(simulation.sagas):
            self._start(number)
        self.network.consume(REPLIES, self._replies_wait)
        world.watch = self._watch
        world.after(0, self._begin, ("it begins",))

    def _begin(self) -> None:
        """The orchestrators start, and what happens to the world as a whole is planned."""
        if self.choices.at(*DATABASES) != DATABASES[1][0]:
            self.backing = OnSqlite(self.database)
            for process in self.participants.values():
                process.keep_in(OnSqlite(process.database))
        able = [process for process in self.participants.values() if process.participant.batches]
        if able and self.choices.at(*COMMANDS) != COMMANDS[1][0]:
            for process in able:
                process.in_batches = True
        many = 2 if self.choices.at("orchestrators", ("one", "two")) == "two" else 1
        definitions = only(self.definition)
        for number in range(1, many + 1):
            self.orchestrators.append(
                OrchestratorProcess(
                    f"orchestrator {number}",
                    self.world,
                    self.network,
                    self.backing,
                    self.effects,
                    definitions,
                    self._simulation.policy,
                )
            )
        self._plan()

    def _start(self, number: int) -> None:
        saga_id = str(UUID(int=_FIRST_ID + number))
        definition = self.definition
        prefix = f"{number + 1}: " if self._simulation.sagas > 1 else ""
        self.names.introduce(saga_id, definition, prefix)
        self.ids.append(saga_id)
        self.backing.begin(
            SagaInstance(
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
        )
        self._note_what_the_caller_did(saga_id)

    def _note_what_the_caller_did(self, saga_id: str) -> None:
        """First steps without an action stand for what was committed together with the saga."""
        for step in self.definition.steps:
            if not isinstance(step, LocalStep) or step.action is not None:
                return
            if step.when is not None and not self._simulation.holds(step.name, self.ids.index(saga_id)):
                continue
            self.effects.done(self.database.rows, operation_id(saga_id, step.name))

    def _plan(self) -> None:
        simulation, world, choices = self._simulation, self.world, self.choices
        moments = [f"after {moment:g} s" for moment in _moments(self.definition)]
        cancels = ("never", *moments)
        forgets = ("never", *(f"forgets {moment}" for moment in moments))
        for number, saga_id in enumerate(self.ids):
            who = "an operator" if number == 0 else f"operator {number + 1}"
            for moment in durations(choices.at(f"{who} cancels", cancels))[:1]:
                world.after(moment, self._cancelling(saga_id), (f"{who} cancels",))
        for number, saga_id in enumerate(self.ids):
            prefix = f"{number + 1}: " if len(self.ids) > 1 else ""
            self.sayers.plan(self.database.instances[saga_id].key, prefix)
        for name, process in self.participants.items():
            match durations(choices.at(f"{name} is stopped", _STOPS, weight=0.6)):
                case [moment, pause]:
                    world.after(moment, self._stopping(process, pause), ("is stopped", name, pause))
            for moment in durations(choices.at(f"{name}'s inbox", forgets, weight=0.4))[:1]:
                world.after(moment, self._forgetting(process), ("forgets", name))
        for orchestrator in self.orchestrators:
            self._plan_clock(orchestrator.name, orchestrator.clock)
        for name, process in self.participants.items():
            self._plan_clock(name, process.clock)
        world.after(self._retention_every, self._clean_inboxes, _RETENTION)
        world.after(simulation.faults_stop, self._stop_faults, _FAULTS)
        world.after(simulation.ended_by, self._see_that_it_ended, _ENDED)
        world.after(simulation.over_by, self._see_to_the_end, _OVER)

    def _plan_clock(self, name: str, clock: Clock) -> None:
        choice = self.choices.at(f"the clock of {name}", _CLOCKS, weight=0.4)
        for moment, jump in [durations(choice)] if choice != _CLOCKS[0] else []:
            ahead = timedelta(seconds=-jump if "back" in choice else jump)
            self.world.after(moment, self._jumping(name, clock, ahead), ("jumps", name, ahead))

    def _jumping(self, name: str, clock: Clock, ahead: timedelta) -> Callable[[], None]:
        def jump() -> None:
            self.world.say(f"the clock of {name} jumps by {ahead.total_seconds():g} s")
            clock.ahead = ahead

        return jump

    def _see_that_it_ended(self) -> None:
        for view in self._views():
            self._see_to(view, [it_ends])

    def _see_to_the_end(self) -> None:
        for view in self._views():
            self._see_to(view, [*ALWAYS, it_ends, *AT_THE_END])
        for promise in self._simulation.promises:
            try:
                broken = next(iter(promise(self) or ()), None)
            except (
                Exception
            ) as error:  # an assertion in it, or its own mistake: in which run is to be told, too
                name = getattr(promise, "__name__", "a promise")
                raise Broken(f"{name} raised {type(error).__name__}: {error}") from error
            if broken is not None:
                raise Broken(broken)

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
                        process.backing.forget(key)

        return forget

    def _clean_inboxes(self) -> None:
        for process in self.participants.values():
            if gone := process.participant.forget_old():
                self.world.say(f"retention deletes {gone} inbox rows of {process.participant.service.name}")
        self.world.after(self._retention_every, self._clean_inboxes, _RETENTION)

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
        number = self.backing.ask(row)
        for process in self.orchestrators:
            process.look()
        return number

    def _said(self, signal: SignalRow) -> None:
        self.backing.say(signal)
        self.world.changed = True
        for process in self.orchestrators:
            process.look()

    # ---- what must hold ---------------------------------------------------------------------------

    def _views(self) -> Iterator[View]:
        for saga_id in self.ids:
            instance = self.database.instances[saga_id]
            signals = [s for s in self.database.signals.values() if s.key == instance.key]
            yield View(
                instance,
                self.definition,
                self.history(saga_id),
                self.effects,
                self.choices.taken,
                signals,
            )

    def _watch(self) -> None:
        for view in self._views():
            self._see_to(view, ALWAYS)
            if self.definition.waits:
                prefix = f"{self.ids.index(view.instance.id) + 1}: " if len(self.ids) > 1 else ""
                self.sayers.think_about(view.instance, prefix)
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
        if seen in self.looked or len(self.looked) >= _LOOKS:
            return
        self.looked.add(seen)
        record = next(record for record in instance.steps.values() if record.parked)
        if record.phase is Phase.HANDED_OVER:
            what: tuple[Hashable, ...] = (ACTS, instance.id, None, Act.COMPLETE, record.name)
            self.world.after(_THINKS, lambda: self._act(instance.id, Act.COMPLETE, step=record.name), what)
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
        self.world.after(
            _THINKS,
            lambda: self._act(instance.id, act, **how),
            (ACTS, instance.id, instance.revision, record.name, choice),
        )

    def _reply_by_hand(self, name: str) -> dict[str, Any] | None:
        step = self.definition.steps[self.definition.index(name)]
        try:
            reply = self._simulation.answer_of(step.command) if isinstance(step, CommandStep) else None
        except DefinitionError:  # of a participant that was given: the act is refused
            return None
        return reply.to_json() if reply is not None else None
