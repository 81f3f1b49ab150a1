"""The orchestrator's shell: lock, decide, write, commit, publish. It never thinks; the core does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import repeat
from typing import Final, TypeVar

from sagas_framework.clock import utc_now
from sagas_framework.core.decide import DEFAULT_POLICY, decide, error_payload, storable
from sagas_framework.core.events import (
    Confirmed,
    Decision,
    Event,
    LocalCall,
    LocalRan,
    OperatorActed,
    Outgoing,
    Policy,
    Recorded,
    ReplyReceived,
    SignalReceived,
    TimerFired,
    Unroutable,
)
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.lost import Horizons
from sagas_framework.core.records import copied, replace
from sagas_framework.core.waiting import listens, waits_overdue
from sagas_framework.errors import DefinitionError, UnknownSaga
from sagas_framework.points import Point, reach
from sagas_framework.saga import Definitions, SagaDefinition
from sagas_framework.spans import Turn, end_sending, local_step, sending, tell
from sagas_framework.steps import LocalStep
from sagas_framework.storage.ports import (
    ActRow,
    Became,
    Entangled,
    Quarantined,
    SignalAnswer,
    SignalRow,
    Store,
    StoreTransaction,
    StoreUnavailable,
    Wanted,
)
from sagas_framework.telemetry import NOWHERE, active
from sagas_framework.transport.envelope import command, to_wire
from sagas_framework.transport.publisher import Publisher, Receipt

logger = logging.getLogger(__name__)

R = TypeVar("R")

_APART: Final = timedelta(minutes=10)
"""How long a local step that did not get on with the others in their session is given one of its own."""
_STUMBLED: Final = timedelta(minutes=1)
"""How long an instance that our own code cannot decide is left alone."""


@dataclass
class _Batch:
    """What a transaction decided, to be written and then published.

    Args:
        apart: whether each local step has a savepoint of its own.
    """

    apart: bool = False
    changed: dict[str, SagaInstance] = field(default_factory=dict)
    history: list[tuple[str, int, Recorded]] = field(default_factory=list)
    commands: list[Outgoing] = field(default_factory=list)
    ended: list[SagaInstance] = field(default_factory=list)
    answered: list[tuple[str, datetime]] = field(default_factory=list)
    listening: dict[str, SagaInstance] = field(default_factory=dict)
    """Those that may take other signals now than before, as they are by now (rule 23)."""
    aside: list[Quarantined] = field(default_factory=list)
    raised: list[tuple[str, str, Exception]] = field(default_factory=list)
    foreseen: dict[str, tuple[SagaInstance, Event, Decision]] = field(default_factory=dict)
    """What was decided before its turn: on which instance, for which event."""
    turns: list[Turn] = field(default_factory=list)
    """What led to it, if that is traced."""

    def take(self, before: SagaInstance, decision: Decision) -> None:
        after = decision.instance
        if after is not before:
            self.changed[after.id] = after
        for line in decision.history:
            self.history.append((after.id, after.revision, line))
        self.commands.extend(decision.commands)
        if decision.answered is not None:
            self.answered.append(decision.answered)
        if after.status.ended and not before.status.ended:
            self.ended.append(after)
        for step, error in decision.raised:
            self.raised.append((after.id, step, error))


def _stumbled(at: datetime, error: Exception) -> Recorded:
    """The history's line for what our own code could not decide or commit."""
    return Recorded(at, "stumbled", None, error_payload(error))


def _have_replies(events: Sequence[Event]) -> bool:
    """What the broker said of a command is taken as replies are, and is no batch of them."""
    return any(isinstance(event, ReplyReceived) for event in events)


def _sharing(act: Callable[[_Batch], R]) -> R:
    """Have the local steps of a transaction share a session; if that fails, all again, each with its own."""
    try:
        return act(_Batch())
    except Entangled as why:
        logger.debug("local steps are run again, each in a savepoint: %s", why)
        return act(_Batch(apart=True))


class Orchestrator:
    """Runs the sagas of one service.

    Every method may be called from any thread and any number of processes at once: the rows' locks
    decide who goes first.

    Args:
        reply_to: the queue on which participants answer.
        on_ended: told of instances that have ended, after the commit. What it raises is logged.
    """

    def __init__(
        self,
        store: Store,
        definitions: Definitions,
        publisher: Publisher,
        *,
        reply_to: str,
        policy: Policy = DEFAULT_POLICY,
        clock: Callable[[], datetime] = utc_now,
        on_ended: Callable[[Sequence[SagaInstance]], None] | None = None,
    ) -> None:
        self.store = store
        self.definitions = definitions
        self.publisher = publisher
        self.reply_to = reply_to
        self.policy = policy
        self.clock = clock
        self.on_ended = on_ended
        self.horizons = Horizons()
        self._apart: dict[tuple[str, int, str, Kind], datetime] = {}

    # ---- the four ways in ------------------------------------------------------------------------

    def process(
        self, events: Sequence[Event], aside: Callable[[Event, str], Quarantined] | None = None
    ) -> list[Event]:
        """Decide a batch of events: one transaction, then publish. A batch of one is the simple case.

        One saga that fails never fails its neighbours: a batch that cannot be committed is decided
        again one by one.

        Args:
            aside: makes the quarantine's entry of an event that belongs to no saga known here.

        Returns:
            The events that could not be decided now, because the store failed for them alone.

        Raises:
            StoreUnavailable: the store failed for all of them; nothing was written.
        """
        try:
            self._process(events, aside)
            return []
        except StoreUnavailable:
            if len(events) == 1:
                raise
        except Exception:
            if len(events) == 1:
                logger.exception("cannot commit what was decided for saga %s", events[0].saga_id)
                return list(events)
        left: list[Event] = []
        for event in events:
            try:
                left.extend(self.process([event], aside))
            except StoreUnavailable:
                left.append(event)
                self._probe()
        return left

    def fire_timers(
        self,
        horizons: Mapping[str, datetime],
        limit: int = 200,
        *,
        unattended: frozenset[str] = frozenset(),
    ) -> int:
        """Decide for instances that are due; how many there were.

        Args:
            horizons, unattended: see `TimerFired`.

        Raises:
            StoreUnavailable: nothing was written.
        """
        try:
            return _sharing(lambda batch: self._fire(batch, horizons, unattended, limit))
        except Exception as error:
            if limit > 1:
                return self._one_by_one(lambda: self.fire_timers(horizons, 1, unattended=unattended), limit)
            self._probe()
            logger.exception("what is due first cannot be committed; it is left alone for a minute")
            return self._postpone(error)

    def obey_acts(self, limit: int = 100) -> int:
        """Carry out what operators asked for; how many acts there were.

        Raises:
            StoreUnavailable: nothing was written.
        """
        try:
            return _sharing(lambda batch: self._obey_all(batch, limit))
        except Exception as error:
            if limit > 1:
                return self._one_by_one(lambda: self.obey_acts(limit=1), limit)
            self._probe()
            logger.exception("the oldest act cannot be committed")
            return self._decline_oldest(error)

    def take_signals(self, limit: int = 100) -> int:
        """Look at signals that nobody has looked at yet; how many there were. Free if no saga here waits.

        Raises:
            StoreUnavailable: nothing was written.
        """
        if not any(definition.waits for definition in self.definitions):
            return 0
        try:
            return _sharing(lambda batch: self._look_at_signals(batch, limit))
        except Exception as error:
            if limit > 1:
                return self._one_by_one(lambda: self.take_signals(limit=1), limit)
            self._probe()
            logger.exception("what the oldest signal sets going cannot be committed; it is left for a minute")
            return self._leave_signal(error)

    # ---- one transaction --------------------------------------------------------------------------

    @staticmethod
    def _one_by_one(act: Callable[[], int], limit: int) -> int:
        """One bad saga must not hold up the others: after a batch that failed, a transaction for each."""
        for done in range(limit):
            if act() == 0:
                return done
        return limit

    def _fire(
        self, batch: _Batch, horizons: Mapping[str, datetime], unattended: frozenset[str], limit: int
    ) -> int:
        now = self.clock()
        with self.store.transaction() as tx:
            due = tx.lock_due(now, self.definitions.known(), limit)
            batch.listening = {
                instance.id: instance for instance in due if self._waits_overdue(instance, now)
            }
            self._apply_signals(tx, batch, now)
            for instance in due:
                event = TimerFired(instance.id, now, horizons, unattended)
                self._decide(tx, batch, batch.changed.get(instance.id, instance), event)
            self._apply_signals(tx, batch, now)
            tx.write(list(batch.changed.values()), batch.history)
            if due:
                reach(Point.TIMERS_DECIDED)
        if due:
            reach(Point.TIMERS_COMMITTED)
        self._after_commit(batch, Point.TIMERS_PUBLISHED)
        return len(due)

    def _probe(self) -> None:
        """Tell one bad saga from a store that is away.

        Raises:
            StoreUnavailable: it is away.
        """
        self.store.next_due(self.definitions.known())

    def _postpone(self, error: Exception) -> int:
        now = self.clock()
        with self.store.transaction() as tx:
            due = tx.lock_due(now, self.definitions.known(), 1)
            told = [(instance.id, instance.revision, _stumbled(now, error)) for instance in due]
            tx.write([replace(instance, due_at=now + _STUMBLED) for instance in due], told)
        return len(due)

    def _obey_all(self, batch: _Batch, limit: int) -> int:
        now = self.clock()
        with self.store.transaction() as tx:
            acts = tx.lock_acts(limit)
            instances = tx.lock({act.saga_id for act in acts}) if acts else {}
            for act in acts:
                self._obey(tx, batch, instances, act, now)
            self._apply_signals(tx, batch, now)
            tx.write(list(batch.changed.values()), batch.history)
            if acts:
                reach(Point.ACTS_DECIDED)
        if acts:
            reach(Point.ACTS_COMMITTED)
        self._after_commit(batch, Point.ACTS_PUBLISHED)
        return len(acts)

    def _decline_oldest(self, error: Exception) -> int:
        with self.store.transaction() as tx:
            acts = tx.lock_acts(1)
            for act in acts:
                told = f"it cannot be carried out: {type(error).__name__}: {error}"
                tx.answer_act(act.id, told, refused=True, at=self.clock())
        return len(acts)

    def _process(self, events: Sequence[Event], aside: Callable[[Event, str], Quarantined] | None) -> None:
        _sharing(lambda batch: self._take(batch, events, aside))

    def _take(
        self, batch: _Batch, events: Sequence[Event], aside: Callable[[Event, str], Quarantined] | None
    ) -> None:
        replies = _have_replies(events)
        if len(events) > 1 or not self._swap(batch, events[0]):
            self._take_locked(batch, events, aside)
        if replies:
            reach(Point.BATCH_COMMITTED)
        self._after_commit(batch, Point.BATCH_PUBLISHED if replies else None)

    def _take_locked(
        self, batch: _Batch, events: Sequence[Event], aside: Callable[[Event, str], Quarantined] | None
    ) -> None:
        with self.store.transaction() as tx:
            instances = tx.lock({event.saga_id for event in events})
            self._load(tx, batch, instances, events)
            for event in events:
                instance = instances.get(event.saga_id)
                if instance is None:
                    self._set_aside(batch, event, aside, f"no saga has the id {event.saga_id}")
                    continue
                decision = self._decide(tx, batch, instance, event, aside)
                instances[event.saga_id] = decision.instance
            if batch.listening:
                self._apply_signals(tx, batch, self.clock())
            tx.write(list(batch.changed.values()), batch.history)
            tx.quarantine(batch.aside)
            if _have_replies(events):
                reach(Point.BATCH_DECIDED)

    def _swap(self, batch: _Batch, event: Event) -> bool:
        """Decide on the instance as it was written last from here, and write it if it still is so.

        One way to the database in place of four. Only where nothing else belongs into the transaction: no
        local step and no signal. Whatever is unusual is left to those who have the lock: whether it was done.
        """
        instance = None if batch.apart else self.store.remembered(event.saga_id)
        if instance is None:
            return False
        definition = self.definitions.find(instance.saga, instance.version)
        if definition is None or definition.shape != instance.shape:
            return False
        try:
            decision = decide(definition, instance, event, self.policy)
        except Exception:
            return False
        after = decision.instance
        batch.foreseen[instance.id] = instance, event, decision  # it need not be decided again
        if decision.local is not None or after is instance:
            return False
        if definition.waits and listens(definition, after) != listens(definition, instance):
            return False
        if _have_replies([event]):
            reach(Point.BATCH_DECIDED)
        if not self.store.swap(
            instance, after, [(after.id, after.revision, line) for line in decision.history]
        ):
            return False
        batch.take(instance, decision)
        if active() is not None:
            batch.turns.append((event, instance, decision))
        return True

    def _load(
        self,
        tx: StoreTransaction,
        batch: _Batch,
        instances: Mapping[str, SagaInstance],
        events: Sequence[Event],
    ) -> None:
        """Read at once the rows that the local steps of a batch will get.

        Which those are, only the decisions say. They are kept, so that no hook is called twice.
        """
        if len(events) == 1 or batch.apart:
            return  # one alone is read as cheaply by the step, and so is what is not shared
        wanted: list[Wanted] = []
        for event in events:
            instance = instances.get(event.saga_id)
            if instance is None or instance.id in batch.foreseen:
                continue
            definition = self.definitions.find(instance.saga, instance.version)
            if definition is None or not definition.loads or definition.shape != instance.shape:
                continue
            try:
                decision = decide(definition, instance, event, self.policy)
            except Exception:  # told when it is its turn
                continue
            batch.foreseen[instance.id] = instance, event, decision
            if decision.local is not None:
                row = self._wanted(definition, decision.instance, decision.local)
                if row is not None:
                    wanted.append(row)
        tx.load(wanted)

    @staticmethod
    def _wanted(definition: SagaDefinition, instance: SagaInstance, call: LocalCall) -> Wanted | None:
        step = definition.steps[definition.index(call.step)]
        assert isinstance(step, LocalStep)
        if step.loads is None or not callable(step.action if call.kind is Kind.DO else step.compensation):
            return None
        try:
            row: Wanted | None = step.loads(definition.state.model_validate(copied(dict(instance.state))))
        except Exception:  # the step will find out, and it is the one to be asked
            return None
        return row

    def _decide(
        self,
        tx: StoreTransaction,
        batch: _Batch,
        instance: SagaInstance,
        event: Event,
        aside: Callable[[Event, str], Quarantined] | None = None,
    ) -> Decision:
        """Decide one event, and run the local steps that it leads to."""
        try:
            definition = self.definitions.get(instance.saga, instance.version)
        except UnknownSaga as error:
            self._set_aside(batch, event, aside, str(error))
            return Decision(instance, refused=True, answer=str(error))
        if definition.shape != instance.shape:
            changed = DefinitionError(
                f"{instance.saga} version {instance.version} was started with other steps than are "
                "declared here"
            )
            return self._stumble(batch, instance, event, aside, changed)
        taken: list[Turn] = []
        worked = False
        try:
            foreseen = batch.foreseen.pop(instance.id, None)
            if foreseen is not None and foreseen[0] is instance and foreseen[1] is event:
                decision = foreseen[2]
            else:
                decision = decide(definition, instance, event, self.policy)
            first = decision
            taken.append((event, instance, decision))
            while decision.local is not None:
                worked = True
                apart = batch.apart
                ran = self._run_local(tx, definition, decision.instance, decision.local, event.at, apart)
                before, decision = decision.instance, decide(definition, decision.instance, ran, self.policy)
                taken.append((ran, before, decision))
        except (StoreUnavailable, Entangled):
            raise
        except Exception as error:
            if worked:
                raise  # what the local step wrote must not be committed without the decision on it
            logger.exception("cannot decide %s for saga %s", type(event).__name__, instance.id)
            return self._stumble(batch, instance, event, aside, error)
        for _, before, each in taken:
            batch.take(before, each)
        if active() is not None:
            batch.turns.extend(taken)
        if definition.waits and listens(definition, decision.instance) != listens(definition, instance):
            batch.listening[instance.id] = decision.instance
        if decision is first:
            return decision
        return replace(
            decision,
            answer=first.answer,
            refused=first.refused,
            ignored=first.ignored,
            too_late=first.too_late,
        )

    def _stumble(
        self,
        batch: _Batch,
        instance: SagaInstance,
        event: Event,
        aside: Callable[[Event, str], Quarantined] | None,
        error: Exception,
    ) -> Decision:
        """Our own code failed on one saga: leave it as it was, keep the event, and go on with the others."""
        told = ": ".join((type(error).__name__, str(error)))
        self._set_aside(batch, event, aside, told)
        batch.history.append((instance.id, instance.revision, _stumbled(event.at, error)))
        if isinstance(event, TimerFired):
            instance = replace(instance, due_at=event.at + _STUMBLED)
            batch.changed[instance.id] = instance
        return Decision(instance, refused=True, answer=f"this release cannot decide it: {told}")

    def _set_aside(
        self, batch: _Batch, event: Event, aside: Callable[[Event, str], Quarantined] | None, why: str
    ) -> None:
        if aside is not None and isinstance(event, ReplyReceived):
            batch.aside.append(aside(event, why))

    def _run_local(
        self,
        tx: StoreTransaction,
        definition: SagaDefinition,
        instance: SagaInstance,
        call: LocalCall,
        at: datetime,
        apart: bool,
    ) -> LocalRan:
        step = definition.steps[definition.index(call.step)]
        assert isinstance(step, LocalStep)
        if not callable(step.action if call.kind is Kind.DO else step.compensation):
            return LocalRan(instance.id, at, call.step, call.kind)
        kind = (definition.name, definition.version, call.step, call.kind)
        known = self._apart.get(kind)
        apart = apart or (known is not None and at - known < _APART)
        try:
            with (
                tx.savepoint() if apart else tx.sharing() as session,
                local_step(instance, call),
            ):
                # A deep copy: what is decided again, or when this raises, begins with the state as it was.
                state = definition.state.model_validate(copied(dict(instance.state)))
                if call.kind is Kind.DO:
                    step.do(state, session)
                else:
                    step.undo(state, session, instance.outcome)
                changed = storable(state.model_dump(mode="json", warnings="error"))
        except StoreUnavailable:
            raise
        except Entangled:
            self._apart[kind] = at
            raise
        except Exception as error:
            self._apart[kind] = at
            logger.warning("saga %s: local step %s raised", instance.id, call.step, exc_info=True)
            return LocalRan(instance.id, at, call.step, call.kind, error=error_payload(error))
        return LocalRan(instance.id, at, call.step, call.kind, state=changed)

    def _obey(
        self,
        tx: StoreTransaction,
        batch: _Batch,
        instances: dict[str, SagaInstance],
        act: ActRow,
        now: datetime,
    ) -> None:
        instance = instances.get(act.saga_id)
        if instance is None:
            tx.answer_act(act.id, f"no saga has the id {act.saga_id}", refused=True, at=now)
            return
        event = OperatorActed(
            saga_id=act.saga_id,
            at=now,
            act=act.act,
            by=act.by,
            reason=act.reason,
            revision=act.revision,
            step=act.step,
            reply=act.reply,
            force=act.force,
            until=act.until,
        )
        decision = self._decide(tx, batch, instance, event)
        instances[act.saga_id] = decision.instance
        tx.answer_act(act.id, decision.answer or "done", refused=decision.refused, at=now)

    # ---- signals ----------------------------------------------------------------------------------

    def _look_at_signals(self, batch: _Batch, limit: int) -> int:
        now = self.clock()
        with self.store.transaction() as tx:
            new = tx.new_signals(now, self.definitions.known(), limit)
            holders = {saga_id for _, saga_id in new if saga_id is not None}
            batch.listening = tx.lock(holders) if holders else {}
            self._apply_signals(tx, batch, now)
            tx.write(list(batch.changed.values()), batch.history)
            # Whoever begins their saga meanwhile looks for them itself (rule 23), and may have taken them.
            tx.answer_signals([SignalAnswer(n, Became.KEPT) for n, saga_id in new if saga_id is None], now)
            if new:
                reach(Point.ACTS_DECIDED)
        if new:
            reach(Point.ACTS_COMMITTED)
        self._after_commit(batch, Point.ACTS_PUBLISHED)
        return len(new)

    def _leave_signal(self, error: Exception) -> int:
        now = self.clock()
        with self.store.transaction() as tx:
            new = tx.new_signals(now, self.definitions.known(), 1)
            told = f"it cannot be taken yet: {type(error).__name__}: {error}"
            left = [SignalAnswer(number, Became.STORED, told, now + _STUMBLED) for number, _ in new]
            tx.answer_signals(left, now)
        return len(new)

    def _waits_overdue(self, instance: SagaInstance, now: datetime) -> bool:
        definition = self.definitions.find(instance.saga, instance.version)
        return definition is not None and waits_overdue(definition, instance, now)

    def _apply_signals(self, tx: StoreTransaction, batch: _Batch, now: datetime) -> None:
        """Have the instances that listen take what was stored for them, in its order, while they do."""
        while batch.listening:
            listening, batch.listening = batch.listening, {}
            whose = {(one.saga, one.key): one for one in listening.values()}
            answers: dict[int, SignalAnswer] = {}
            for signal in tx.open_signals(whose):
                instance = whose[signal.saga, signal.key]
                if instance.id in batch.listening:
                    continue  # it has moved, and may listen for one that was stored earlier: once more
                instance = batch.changed.get(instance.id, instance)
                answers[signal.id] = self._apply(tx, batch, instance, signal, now)
            tx.answer_signals(list(answers.values()), now)

    def _apply(
        self, tx: StoreTransaction, batch: _Batch, instance: SagaInstance, signal: SignalRow, now: datetime
    ) -> SignalAnswer:
        event = SignalReceived(
            instance.id,
            now,
            signal.id,
            signal.signal,
            signal.payload,
            signal.said_at,
            signal.by,
            signal.reason,
            signal.trace,
        )
        decision = self._decide(tx, batch, instance, event)
        if decision.too_late:
            return SignalAnswer(signal.id, Became.TOO_LATE, decision.answer)
        if decision.refused:  # this release cannot decide it; the instance's history says why
            return SignalAnswer(signal.id, Became.STORED, decision.answer, now + _STUMBLED)
        if decision.ignored is not None:
            return SignalAnswer(signal.id, Became.KEPT)
        return SignalAnswer(signal.id, Became.TAKEN)

    # ---- after the commit -------------------------------------------------------------------------

    def _after_commit(self, batch: _Batch, published: Point | None) -> None:
        """Publish. What fails here is not lost: the rows name every command in flight."""
        for saga_id, step, error in batch.raised:
            logger.warning("saga %s: our own code for %s raised", saga_id, step, exc_info=error)
        for queue, sent_at in batch.answered:
            self.horizons.saw_answer(queue, sent_at)
        if batch.commands:
            self._publish(batch.commands, batch.turns)
            if published is not None:
                reach(published)
        if batch.ended and self.on_ended is not None:
            try:
                self.on_ended(batch.ended)
            except Exception:
                logger.warning("the outcome of %d sagas was not told on", len(batch.ended), exc_info=True)
        self._trace(batch.turns)

    def _trace(self, turns: Sequence[Turn]) -> None:
        telemetry = active()
        if telemetry is None:
            return
        try:
            tell(telemetry, turns, self.clock())
        except Exception:  # it is done, whoever sees it
            logger.warning("%d turns were not traced", len(turns), exc_info=True)

    def _publish(self, commands: Sequence[Outgoing], turns: Sequence[Turn]) -> None:
        telemetry = active()
        spans = None if telemetry is None else sending(telemetry, commands, turns)
        carried = repeat(NOWHERE) if spans is None else [carrier for _, carrier in spans]
        receipts = self.publisher.publish(
            [
                to_wire(command(outgoing, self.reply_to, trace))
                for outgoing, trace in zip(commands, carried, strict=False)
            ]
        )
        if telemetry is not None and spans is not None:
            end_sending(telemetry, spans, receipts, Receipt.CONFIRMED)
        unsent = sum(receipt is Receipt.UNSENT for receipt in receipts)
        if unsent:
            logger.warning(
                "%d commands were not confirmed by the broker; they are sent again later, except to services "
                "without an inbox",
                unsent,
            )
        with_receipts = list(zip(commands, receipts, strict=True))
        homeless = [outgoing for outgoing, receipt in with_receipts if receipt is Receipt.UNROUTABLE]
        if homeless:
            queues = ", ".join(sorted({outgoing.queue for outgoing in homeless}))
            logger.error("%d commands had no queue: %s. Is its worker deployed?", len(homeless), queues)
            self._note(Unroutable, homeless)
        unanswered = [c for c, receipt in with_receipts if c.unanswered and receipt is Receipt.CONFIRMED]
        if unanswered:
            self._note(Confirmed, unanswered)

    def _note(self, what: type[Unroutable | Confirmed], commands: Iterable[Outgoing]) -> None:
        """Tell the core what the broker said; what it decides is published in turn."""
        now = self.clock()
        try:
            # One by one if need be: what is not noted costs each of these sagas a person.
            missed = self.process([what(outgoing.saga_id, now, outgoing.message_id) for outgoing in commands])
            if missed:
                logger.warning("%d %s commands were not noted", len(missed), what.__name__.lower())
        except Exception:  # the commit that sent them is done: whoever misses this finds the row overdue
            logger.warning("%s commands were not noted", what.__name__.lower(), exc_info=True)

    def set_aside(self, message: Quarantined) -> None:
        """Quarantine a message that could not even be read.

        Raises:
            StoreUnavailable: it was not stored; do not acknowledge it.
        """
        self.store.quarantine(message)
