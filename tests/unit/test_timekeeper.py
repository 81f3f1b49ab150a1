"""What a timekeeper notes of the queues that it looks at."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from sagas_framework.core.events import Act
from sagas_framework.core.why import QueueSeen
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.saga import Definitions
from sagas_framework.storage.memory import MemoryDatabase, MemoryStore
from sagas_framework.storage.ports import ActRow
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt
from tests.unit.core.stories import CREATE_ORDER, NOON, CreateOrderSaga, new_instance, seconds

KITCHEN, BANK, REPLIES = "restaurant_service.commands", "accounting_service.commands", "order_service.replies"


class Broker:
    """Says of each queue what a test wants; of one that is not in `loads`, that it cannot be asked."""

    def __init__(self, **loads: Load) -> None:
        self.loads: dict[str, Load] = loads
        self.asked: list[str] = []
        self.takes = 0.0
        """Seconds for a batch."""
        self.passes: Callable[[float], None] = lambda seconds: None

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.passes(self.takes)
        self.asked += [f"publish {message.queue}" for message in messages]
        return [Receipt.CONFIRMED for _ in messages]

    def load(self, queue: str) -> Load | None:
        self.asked.append(queue)
        return self.loads.get(queue)

    def close(self) -> None:
        pass


class Clockwork:
    """A timekeeper over a database in memory, whose time is moved by hand."""

    def __init__(self) -> None:
        self.now = NOON
        self.database = MemoryDatabase()
        self.broker = Broker(**{KITCHEN: Load(3, 0), BANK: Load(0, 2), REPLIES: Load(0, 1)})
        self.orchestrator = Orchestrator(
            MemoryStore(self.database),
            Definitions([CreateOrderSaga]),
            self.broker,
            reply_to=REPLIES,
            clock=lambda: self.now,
        )
        self.timekeeper = Timekeeper(self.orchestrator, [KITCHEN, BANK])
        self.broker.passes = self.move

    def move(self, by: float) -> None:
        self.now += seconds(by)

    def turn(self, after: float = 0) -> dict[str, QueueSeen]:
        self.move(after)
        self.timekeeper.turn()
        return self.database.queues


def seen(queue: str, at: datetime, messages: int, consumers: int, since: datetime | None = None) -> QueueSeen:
    return QueueSeen(queue, at, messages, consumers, since)


def test_every_queue_is_noted_that_of_the_replies_too() -> None:
    assert Clockwork().turn() == {
        BANK: seen(BANK, NOON, 0, 2),
        KITCHEN: seen(KITCHEN, NOON, 3, 0, NOON),
        REPLIES: seen(REPLIES, NOON, 0, 1),
    }


def test_queues_are_looked_at_every_two_seconds_and_not_with_every_turn() -> None:
    clockwork = Clockwork()

    clockwork.turn()
    clockwork.turn(after=1.9)
    early = len(clockwork.broker.asked)
    later = clockwork.turn(after=0.1)

    assert early == 3
    assert later[KITCHEN] == seen(KITCHEN, NOON + seconds(2), 3, 0, NOON)


def test_while_the_broker_is_away_it_is_asked_once_and_what_was_noted_stays() -> None:
    clockwork = Clockwork()
    before = dict(clockwork.turn())
    clockwork.broker.loads, clockwork.broker.asked = {}, []

    after = clockwork.turn(after=2)

    assert len(clockwork.broker.asked) == 1
    assert after == before


def test_a_queue_is_unattended_until_somebody_takes_from_it_or_the_broker_cannot_say() -> None:
    clockwork = Clockwork()
    horizons = clockwork.orchestrator.horizons

    clockwork.turn()
    at_first = horizons.unattended
    clockwork.broker.loads[KITCHEN] = Load(3, 1)
    clockwork.broker.loads[BANK] = Load(3, 0)
    clockwork.turn(after=2)
    then = horizons.unattended
    clockwork.broker.loads[BANK] = Load(3)
    clockwork.turn(after=2)

    assert (at_first, then) == (frozenset({KITCHEN}), frozenset({BANK}))
    assert not horizons.unattended


def test_a_queue_that_cannot_be_looked_at_counts_as_attended() -> None:
    """Otherwise what was seen last would hold for ever, and the cap for nothing that is sent there."""
    clockwork = Clockwork()
    clockwork.turn()
    assert clockwork.orchestrator.horizons.unattended == {KITCHEN}

    del clockwork.broker.loads[BANK]  # those after it are not asked for
    clockwork.turn(after=2)

    assert clockwork.broker.asked[-1] == BANK
    assert not clockwork.orchestrator.horizons.unattended


# ---- in which order ----------------------------------------------------------------------------------


def test_a_saga_that_was_started_does_not_wait_until_the_queues_are_looked_at() -> None:
    clockwork = Clockwork()
    started = new_instance(CREATE_ORDER)
    clockwork.database.instances[started.id] = started

    clockwork.turn()

    first, *others = clockwork.broker.asked
    assert first.startswith("publish ")
    assert others == [BANK, KITCHEN, REPLIES]


def test_acts_do_not_wait_until_all_that_is_due_is_done() -> None:
    clockwork = Clockwork()
    for number in range(500):
        started = replace(new_instance(CREATE_ORDER), id=f"saga-{number:03}", key=str(number))
        clockwork.database.instances[started.id] = started
    last = clockwork.database.instances["saga-499"]
    clockwork.database.add_act(ActRow(0, last.id, Act.CANCEL, "ann", "too late", NOON))

    clockwork.turn()

    (act,) = clockwork.database.acts.values()
    assert (act.handled_at, act.refused) == (NOON, False)
    assert all(i.due_at is None or i.due_at > NOON for i in clockwork.database.instances.values())


# ---- for how long ------------------------------------------------------------------------------------


def test_a_backlog_does_not_keep_it_from_looking_at_the_queues_and_saying_that_it_lives() -> None:
    clockwork = Clockwork()
    for number in range(1000):
        started = replace(new_instance(CREATE_ORDER), id=str(UUID(int=number)), key=f"order-{number}")
        clockwork.database.instances[started.id] = started
    clockwork.broker.takes = 1.5

    left = []
    for _ in range(3):
        next_due = clockwork.timekeeper.turn()
        left.append(waiting_to_start(clockwork))
        if left[-1]:
            assert next_due is not None
            assert next_due <= clockwork.now
            assert clockwork.database.queues[KITCHEN].seen_at == clockwork.now

    assert left == [600, 200, 0]


def waiting_to_start(clockwork: Clockwork) -> int:
    return sum(not instance.started for instance in clockwork.database.instances.values())
