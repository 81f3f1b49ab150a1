"""The orchestrator's shell: lock, decide, write, commit, publish. It never thinks; the core does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

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
    TimerFired,
    Unroutable,
)
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.lost import Horizons
from sagas_framework.core.records import replace
from sagas_framework.errors import DefinitionError, UnknownSaga
from sagas_framework.points import Point, reach
from sagas_framework.saga import Definitions, LocalStep, SagaDefinition
from sagas_framework.storage.ports import ActRow, Quarantined, Store, StoreTransaction, StoreUnavailable
from sagas_framework.transport.envelope import command, to_wire
from sagas_framework.transport.publisher import Publisher, Receipt

logger = logging.getLogger(__name__)

_STUMBLED: Final = timedelta(minutes=1)
"""How long an instance that our own code cannot decide is left alone."""


@dataclass
class _Batch:
    """What a transaction decided, to be written and then published."""

    changed: dict[str, SagaInstance] = field(default_factory=dict)
    history: list[tuple[str, int, Recorded]] = field(default_factory=list)
    commands: list[Outgoing] = field(default_factory=list)
    ended: list[SagaInstance] = field(default_factory=list)
    answered: list[tuple[str, datetime]] = field(default_factory=list)
    aside: list[Quarantined] = field(default_factory=list)

    def take(self, before: SagaInstance, decision: Decision) -> None:
        after = decision.instance
        if after is not before:
            self.changed[after.id] = after
        self.history.extend((after.id, after.revision, line) for line in decision.history)
        self.commands.extend(decision.commands)
        if decision.answered is not None:
            self.answered.append(decision.answered)
        if after.status.ended and not before.status.ended:
            self.ended.append(after)


def _stumbled(at: datetime, error: Exception) -> Recorded:
    """The history's line for what our own code could not decide or commit."""
    return Recorded(at, "stumbled", None, error_payload(error))


def _log_raised(decision: Decision) -> None:
    for step, error in decision.raised:
        logger.warning("saga %s: our own code for %s raised", decision.instance.id, step, exc_info=error)


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

    # ---- the three ways in ------------------------------------------------------------------------

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
            return self._fire(horizons, unattended, limit)
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
            return self._obey_all(limit)
        except Exception as error:
            if limit > 1:
                return self._one_by_one(lambda: self.obey_acts(limit=1), limit)
            self._probe()
            logger.exception("the oldest act cannot be committed")
            return self._decline_oldest(error)

    # ---- one transaction --------------------------------------------------------------------------

    @staticmethod
    def _one_by_one(act: Callable[[], int], limit: int) -> int:
        """One bad saga must not hold up the others: after a batch that failed, a transaction for each."""
        for done in range(limit):
            if act() == 0:
                return done
        return limit

    def _fire(self, horizons: Mapping[str, datetime], unattended: frozenset[str], limit: int) -> int:
        now = self.clock()
        batch = _Batch()
        with self.store.transaction() as tx:
            due = tx.lock_due(now, self.definitions.known(), limit)
            for instance in due:
                self._decide(tx, batch, instance, TimerFired(instance.id, now, horizons, unattended))
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

    def _obey_all(self, limit: int) -> int:
        now = self.clock()
        batch = _Batch()
        with self.store.transaction() as tx:
            acts = tx.lock_acts(limit)
            instances = tx.lock({act.saga_id for act in acts}) if acts else {}
            for act in acts:
                self._obey(tx, batch, instances, act, now)
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
        batch = _Batch()
        # What the broker said of a command comes through here as well, and is no batch of replies.
        replies = any(isinstance(event, ReplyReceived) for event in events)
        with self.store.transaction() as tx:
            instances = tx.lock({event.saga_id for event in events})
            for event in events:
                instance = instances.get(event.saga_id)
                if instance is None:
                    self._set_aside(batch, event, aside, f"no saga has the id {event.saga_id}")
                    continue
                decision = self._decide(tx, batch, instance, event, aside)
                instances[event.saga_id] = decision.instance
            tx.write(list(batch.changed.values()), batch.history)
            tx.quarantine(batch.aside)
            if replies:
                reach(Point.BATCH_DECIDED)
        if replies:
            reach(Point.BATCH_COMMITTED)
        self._after_commit(batch, Point.BATCH_PUBLISHED if replies else None)

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
        taken = _Batch()
        worked = False
        try:
            decision = first = decide(definition, instance, event, self.policy)
            taken.take(instance, decision)
            _log_raised(decision)
            while decision.local is not None:
                worked = True
                ran = self._run_local(tx, definition, decision.instance, decision.local, event.at)
                before, decision = decision.instance, decide(definition, decision.instance, ran, self.policy)
                taken.take(before, decision)
                _log_raised(decision)
        except StoreUnavailable:
            raise
        except Exception as error:
            if worked:
                raise  # what the local step wrote must not be committed without the decision on it
            logger.exception("cannot decide %s for saga %s", type(event).__name__, instance.id)
            return self._stumble(batch, instance, event, aside, error)
        self._merge(batch, taken)
        return replace(decision, answer=first.answer, refused=first.refused)

    @staticmethod
    def _merge(batch: _Batch, taken: _Batch) -> None:
        batch.changed.update(taken.changed)
        for name in ("history", "commands", "ended", "answered"):
            getattr(batch, name).extend(getattr(taken, name))

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
    ) -> LocalRan:
        step = definition.steps[definition.index(call.step)]
        assert isinstance(step, LocalStep)
        hook = step.action if call.kind is Kind.DO else step.compensation
        if not callable(hook):
            return LocalRan(instance.id, at, call.step, call.kind)
        try:
            with tx.savepoint() as session:
                state = definition.state.model_validate(instance.state)
                hook(state, session)
                changed = storable(state.model_dump(mode="json", warnings="error"))
        except StoreUnavailable:
            raise
        except Exception as error:
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
        )
        decision = self._decide(tx, batch, instance, event)
        instances[act.saga_id] = decision.instance
        tx.answer_act(act.id, decision.answer or "done", refused=decision.refused, at=now)

    # ---- after the commit -------------------------------------------------------------------------

    def _after_commit(self, batch: _Batch, published: Point | None) -> None:
        """Publish. What fails here is not lost: the rows name every command in flight."""
        for queue, sent_at in batch.answered:
            self.horizons.saw_answer(queue, sent_at)
        if batch.commands:
            self._publish(batch.commands)
            if published is not None:
                reach(published)
        if batch.ended and self.on_ended is not None:
            try:
                self.on_ended(batch.ended)
            except Exception:
                logger.warning("the outcome of %d sagas was not told on", len(batch.ended), exc_info=True)

    def _publish(self, commands: Sequence[Outgoing]) -> None:
        receipts = self.publisher.publish(
            [to_wire(command(outgoing, self.reply_to)) for outgoing in commands]
        )
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
