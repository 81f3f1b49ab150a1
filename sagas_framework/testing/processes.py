"""The processes of a simulation: they consume, die, lose what they had in memory, and start again."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Final

from typing_extensions import override

from sagas_framework.core.events import Event, LocalCall, LocalRan, Policy, Result
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN, InboxRow, RowState, SettleAnswer, Stored
from sagas_framework.core.instance import SagaInstance
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.participant import Participant, quarantined
from sagas_framework.saga import Definitions, SagaDefinition
from sagas_framework.steps import LocalStep
from sagas_framework.storage.memory import MemoryDatabase
from sagas_framework.storage.ports import StoreTransaction, StoreUnavailable
from sagas_framework.testing.choices import duration
from sagas_framework.testing.databases import Backing
from sagas_framework.testing.effects import Broken, Effects
from sagas_framework.testing.network import Network, identity, kind_of
from sagas_framework.testing.storage import CommitRefused, SimulatedInbox, SimulatedStore
from sagas_framework.testing.world import Clock, Crashed, World
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import (
    ATTEMPT,
    OPERATION_ID,
    UnreadableError,
    WireMessage,
    from_wire,
    reply_received,
)

REPLIES: Final = "simulation.replies"
TICK: Final = "timekeeper"
"""The agenda's word for a turn of a timekeeper; its number tells the turn that counts from older ones."""

_ACKNOWLEDGING: Final = ("acknowledged", "dies before")
_RESTARTING: Final = ("3 s", "0 s", "40 s", "300 s")
_BATCH: Final = 200
_LOOKS: Final = (timedelta(seconds=9), timedelta(seconds=4.5))
"""How long before something is due a timekeeper looks, so that by then it knows what has left the queues.
Real ones look every two seconds; that, over hours of waiting, is most of what they do."""
_AT_LEAST: Final = timedelta(minutes=5)


class SimulatedOrchestrator(Orchestrator):
    """The real one, which also says whose local step it runs."""

    @override
    def _run_local(
        self,
        tx: StoreTransaction,
        definition: SagaDefinition,
        instance: SagaInstance,
        call: LocalCall,
        at: datetime,
        apart: bool,
    ) -> LocalRan:
        store = self.store
        assert isinstance(store, SimulatedStore)
        key = operation_id(instance.id, call.step)
        name = store.names.operations.get(key, call.step)
        step = definition.steps[definition.index(call.step)]
        if call.kind is Kind.UNDO or (isinstance(step, LocalStep) and step.action is not None):
            store.local = key, name if call.kind is Kind.DO else f"undo {name}", call.kind is Kind.UNDO
        try:
            return super()._run_local(tx, definition, instance, call, at, apart)
        finally:
            store.local = None

    @override
    def fire_timers(
        self,
        horizons: Mapping[str, datetime],
        limit: int = 200,
        *,
        unattended: frozenset[str] = frozenset(),
    ) -> int:
        store = self.store
        assert isinstance(store, SimulatedStore)
        due = store.next_due(self.definitions.known())
        if due is not None and due <= self.clock():
            store.stall_by_choice("looking at the clock")
        return super().fire_timers(horizons, limit, unattended=unattended)


class OrchestratorProcess:
    """One worker of the orchestrator: reply consumer and timekeeper."""

    def __init__(
        self,
        name: str,
        world: World,
        network: Network,
        backing: Backing,
        effects: Effects,
        definitions: Definitions,
        policy: Policy,
    ) -> None:
        self.name = name
        self.up = False
        self.clock = Clock(world)
        self._world = world
        self._network = network
        self._backing = backing
        self._effects = effects
        self._definitions = definitions
        self._policy = policy
        self._ticking = 0
        self._asleep = False
        self.start()

    def start(self) -> None:
        """Begin, or begin again with an empty memory."""
        self.up = True
        self._store = SimulatedStore(self._backing, self._world, self._effects, self._network.names)
        self._orchestrator = SimulatedOrchestrator(
            self._store,
            self._definitions,
            self._network,
            reply_to=REPLIES,
            policy=self._policy,
            clock=self.clock,
        )
        self._timekeeper = Timekeeper(self._orchestrator, [queue.name for queue in self._definitions.queues])
        self.wake()
        self.look()

    def look(self) -> None:
        """Let the timekeeper look now, and from then on."""
        self._ticking += 1
        self._asleep = False
        mine = self._ticking
        self._world.after(0, lambda: self._tick(mine), (TICK, self.name, mine))

    def stateful(self) -> Iterator[object]:
        """Whatever remembers something, for a `Memento`."""
        yield from (self, self.clock, self._store, self._orchestrator.horizons, self._timekeeper)

    def ticks(self, what: Hashable) -> bool:
        """Whether this is the turn of this timekeeper that counts."""
        return what == (TICK, self.name, self._ticking)

    def wake(self) -> None:
        """Take what waits in the reply queue."""
        if self.up and self._network.waiting(REPLIES):
            self._world.after(0, self._take, ("takes replies", self.name))

    # ---- the timekeeper ---------------------------------------------------------------------------

    def _tick(self, mine: int) -> None:
        if not self.up or mine != self._ticking:
            return
        world = self._world
        self._store.trigger = "a timer"
        try:
            due = self._turn()
        except StoreUnavailable:
            due = self.clock() + timedelta(seconds=1)
        except Crashed as crash:
            self._die(crash)
            return
        if mine != self._ticking:
            return
        self._asleep = due is None  # nothing waits for a moment: acts, starts and replies call `look`
        if due is None:
            return
        until = due - self.clock()
        looks = [until - before for before in _LOOKS if until > before]
        wait = max(min([*looks, until, _AT_LEAST]), timedelta(milliseconds=1))
        world.after(wait.total_seconds(), lambda: self._tick(mine), (TICK, self.name, mine))

    def _turn(self) -> datetime | None:
        """A turn of the timekeeper; of one that finds nothing to do, only its look at the queues.

        It looks at them first: what it sees later is seen in the turn after.
        """
        self._timekeeper.observe()
        due = self._store.next_due(self._definitions.known())
        seen = self._backing.seen
        acts = any(act.handled_at is None for act in seen.acts.values())
        replays = any(message.replay for message in seen.quarantined)
        now = self.clock()
        said = any(signal.look_at and signal.look_at <= now for signal in seen.signals.values())
        if acts or said or replays or (due is not None and due <= self.clock()):
            return self._timekeeper.turn()
        return due

    # ---- the reply consumer -----------------------------------------------------------------------

    def _take(self) -> None:
        if not self.up:
            return
        batch = self._network.take(REPLIES, _BATCH)
        if not batch:
            return
        world, name = self._world, " and ".join(self._network.names.of(message) for message in batch)
        store = self._store
        try:
            self._decide(name, batch, self.clock())
            if world.choices.at(f"acknowledging {name}", _ACKNOWLEDGING, weight=0.6) != _ACKNOWLEDGING[0]:
                raise Crashed(f"before acknowledging {name}")
        except StoreUnavailable:
            for message in batch:
                self._network.redeliver(message, 1)
        except Crashed as crash:
            for message in batch:
                self._network.redeliver(message, 0.2)
            if not store.closed:
                self._die(crash)

    def _decide(self, name: str, batch: list[WireMessage], at: datetime) -> None:
        events: list[Event] = []
        origins: dict[int, WireMessage] = {}
        for message in batch:
            try:
                event = reply_received(from_wire(message), at)
            except UnreadableError as error:
                self._orchestrator.set_aside(quarantined(message, error.reason, error.path, at))
                continue
            origins[id(event)] = message
            events.append(event)
        self._world.say(f"{self.name} takes {name}")
        self._store.trigger = name
        self._store.stall_by_choice(f"taking {name}")
        if events:
            self._orchestrator.process(
                events, lambda event, why: quarantined(origins[id(event)], why, "$[0][0]", at)
            )
        if self._asleep:
            self.look()

    def _die(self, crash: Crashed) -> None:
        pause = self._world.choices.at(f"restarting {self.name}", _RESTARTING)
        self._world.say(f"{self.name} dies {crash}; it starts again after {pause}")
        self.up = False
        self._store.closed = True
        self._world.after(duration(pause), self.start, ("starts", self.name))


class ParticipantProcess:
    """The workers of one participant: any number of messages at once, as in a prefork pool.

    Attributes:
        in_batches: each of them takes everything that has come.
        up: nothing is taken from the queue while it is not.
    """

    def __init__(
        self,
        participant: Participant,
        inbox: SimulatedInbox,
        backing: Backing,
        clock: Clock,
        world: World,
        network: Network,
        effects: Effects,
    ) -> None:
        self.participant = participant
        self.backing = backing
        self.clock = clock
        self.up = True
        self.in_batches = False
        self._inbox = inbox
        self._world = world
        self._network = network
        self._effects = effects
        self.queue = participant.service.queue.name
        network.consume(self.queue, self.wake)

    @property
    def database(self) -> MemoryDatabase:
        """What is in its database."""
        return self.backing.seen

    def keep_in(self, backing: Backing) -> None:
        """Have its rows there from now on."""
        self.backing = backing
        self._inbox.keep_in(backing)

    def stateful(self) -> Iterator[object]:
        """Whatever remembers something, for a `Memento`."""
        yield from (self, self.clock, self.database, self._inbox, self.participant)

    def wake(self) -> None:
        """Take what waits in the queue, each message by a worker of its own, or all by one."""
        if self.in_batches:
            if self.up and self._network.waiting(self.queue):
                self._world.after(0, self._take, ("takes commands", self.queue))
            return
        while self.up and (taken := self._network.take(self.queue)):
            (message,) = taken
            self._world.after(0, self._handling(message), ("is handled", *identity(message)))

    def stop(self, seconds: float) -> None:
        """Take nothing for a while; what is being handled goes on."""
        self._world.say(f"{self.participant.service.name} is stopped for {seconds:g} s")
        self.up = False
        self._world.after(seconds, self._go_on, ("goes on", self.queue))

    def _go_on(self) -> None:
        self.up = True
        self._world.say(f"{self.participant.service.name} is back")
        self.wake()

    def _handling(self, message: WireMessage) -> Callable[[], None]:
        return lambda: self._handle(message)

    def _handle(self, message: WireMessage) -> None:
        name = self._network.names.of(message)
        with self._handled(name, [message]):
            self._answer([message], [self.participant.receive(message)], {})
            self._acknowledge(name)

    def _take(self) -> None:
        if not self.up or not (batch := self._network.take(self.queue, _BATCH)):
            return
        name = " and ".join(self._network.names.of(message) for message in batch)
        with self._handled(name, batch):
            replies = self.participant.receive_all(batch)
            self._answer(batch, replies, self._inbox.kept)
            self._acknowledge(name)

    @contextmanager
    def _handled(self, name: str, messages: Sequence[WireMessage]) -> Iterator[None]:
        """What becomes of the messages when handling them ends in any way."""
        inbox = self._inbox
        before = inbox.trigger, inbox.kept
        inbox.trigger, inbox.kept = name, {}
        keys = [str(message.headers.get(OPERATION_ID)) for message in messages]
        self._network.under_way.update(keys)
        try:
            yield
        except StoreUnavailable:
            self._redeliver(messages)
        except CommitRefused:  # the task fails, and its message is gone
            self._world.say(f"{name} is not answered: nothing could be committed for it")
        except Crashed as crash:
            self._world.say(f"the worker that handles {name} dies {crash}")
            if crash.redelivered:
                self._redeliver(messages)
        finally:
            self._network.under_way.subtract(keys)
            inbox.trigger, inbox.kept = before

    def _redeliver(self, messages: Sequence[WireMessage]) -> None:
        for message in messages:
            self._network.redeliver(message, 1)

    def _answer(
        self,
        messages: Sequence[WireMessage],
        replies: Sequence[WireMessage | None],
        kept: Mapping[str, Sequence[InboxRow | None]],
    ) -> None:
        """Send the replies.

        Args:
            kept: rows that operations have had meanwhile, beside those that they have now.
        """
        for message, reply in zip(messages, replies, strict=True):
            name = self._network.names.of(message)
            if reply is None:
                self._world.say(f"{name} is not answered")
            else:
                self._see(name, message, reply, kept.get(str(message.headers.get(OPERATION_ID)), ()))
        self._network.publish([reply for reply in replies if reply is not None])

    def _acknowledge(self, name: str) -> None:
        fate = self._world.choices.at(f"acknowledging {name}", _ACKNOWLEDGING, weight=0.6)
        if fate != _ACKNOWLEDGING[0]:
            raise Crashed(f"before acknowledging {name}")

    def _see(
        self, name: str, message: WireMessage, reply: WireMessage, kept: Sequence[InboxRow | None]
    ) -> None:
        """No reply is sent that is not in the row first (rule 4)."""
        key = str(message.headers.get(OPERATION_ID))
        event = reply_received(from_wire(reply), self._world.now)
        stored = Stored(event.result, dict(event.error) if event.error else event.payload)
        found = self.database.inbox.get(key)
        row = found[0] if found else None
        kind = kind_of(message)
        if not any(_is_in(one, kind, stored) for one in (row, *kept)):
            said = row.state.value if row else "nothing"
            raise Broken(f"{name} is answered with {stored.to_json()}, but its row says {said}")
        if kind is Kind.DO and event.result is Result.FAILED:
            self._effects.failures_answered[key].add(int(message.headers.get(ATTEMPT, 1)))


_OVER: Final = frozenset({RowState.WITHDRAWN, RowState.UNDONE, RowState.HANDED_OVER})
_SETTLED: Final = {
    SettleAnswer.DONE.value: {RowState.DONE},
    SettleAnswer.REFUSED.value: {RowState.REFUSED},
    SettleAnswer.WITHDRAWN.value: {RowState.WITHDRAWN, RowState.UNDONE},
    SettleAnswer.YOURS_TO_UNDO.value: {RowState.HANDED_OVER},
}


def _is_in(row: InboxRow | None, kind: Kind, stored: Stored) -> bool:
    """Whether a reply is what the row says."""
    type_ = stored.payload.get("type") if isinstance(stored.payload, dict) else None
    if row is None:
        return type_ == INBOX_ROW_MISSING
    if kind is Kind.SETTLE:
        answer = stored.payload.get("answer") if isinstance(stored.payload, dict) else None
        if answer is None:  # nothing can undo it: that is not in the row, and the next answer is the same
            return stored.result is Result.REFUSED or type_ == "OutcomeUnknown"
        return row.state in _SETTLED[str(answer)]
    if kind is Kind.UNDO:
        if stored.result is Result.SUCCESS:
            return row.state in _OVER | {RowState.REFUSED}
        return row.undo_reply == stored or type_ == "OutcomeUnknown"
    if type_ == WITHDRAWN:
        return row.state in _OVER
    return row.reply == stored
