"""What an orchestrator sends to a participant that is stopped for hours, that is wiped, or that is slow."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Final

from pydantic import BaseModel

from sagas_framework import Command, Compensation, Saga, Service, Steps
from sagas_framework.core.events import ReplyReceived, Result
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.saga import Definitions
from sagas_framework.storage.memory import MemoryDatabase, MemoryStore
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage, from_wire
from sagas_framework.transport.publisher import Load, Receipt
from tests.unit.core.stories import NOON, new_instance, seconds

stopped = Service("stopped")
COMMANDS: Final = stopped.queue.name
REPLIES: Final = "replies"
IDS: Final = [f"0198aaaa-0000-7000-8000-00000000000{number}" for number in range(7)]


class Work(Command[None], service=stopped, name="work"):
    pass


class Rework(Compensation[Work], service=stopped, name="rework"):
    pass


class Order(BaseModel):
    pass


step = Steps(Order)


class PatientSaga(Saga[Order], name="patient", version=1):
    work = step.command(Work, lambda order: Work(), pivot=True, timeout=timedelta(days=9))


class HastySaga(Saga[Order], name="hasty", version=1):
    work = step.command(
        Work, lambda order: Work(), compensation=lambda order: Rework(), timeout=timedelta(seconds=100)
    )


class Broker:
    """One queue; replies never wait. Somebody takes from it, or hangs there, or nobody does."""

    def __init__(self, *, attended: bool) -> None:
        self.sent: Counter[str] = Counter()
        self.waiting: deque[WireMessage] = deque()
        self.attended = attended

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.sent.update(from_wire(message).saga_id for message in messages)
        self.waiting.extend(messages)
        return [Receipt.CONFIRMED for _ in messages]

    def load(self, queue: str) -> Load | None:
        return Load(len(self.waiting), int(self.attended)) if queue == COMMANDS else Load(0, 1)

    def close(self) -> None:
        pass


class Office:
    """An orchestrator whose orders all wait for the participant; its clock is moved by hand."""

    def __init__(self, saga: type[Saga[Order]] = PatientSaga, *, attended: bool = False) -> None:
        self.now = NOON
        self.broker = Broker(attended=attended)
        self.database = MemoryDatabase()
        self.orchestrator = Orchestrator(
            MemoryStore(self.database),
            Definitions([saga]),
            self.broker,
            reply_to=REPLIES,
            clock=lambda: self.now,
        )
        self._timekeeper = Timekeeper(self.orchestrator, [COMMANDS])
        for number, saga_id in enumerate(IDS):
            order = replace(new_instance(saga.definition), id=saga_id, key=str(number), state={})
            self.database.instances[saga_id] = order
            self.passes(seconds(1))

    def passes(self, span: timedelta) -> None:
        """The timekeeper turns for so long."""
        until = self.now + span
        while self.now < until:
            self._timekeeper.turn()
            self.now += seconds(2)

    def answers(self) -> None:
        """The participant does what waits first."""
        message = self.broker.waiting.popleft()
        told = from_wire(message)
        refs = (str(message.headers["id"]),)
        self.orchestrator.process([ReplyReceived(told.saga_id, self.now, refs, told.task, Result.SUCCESS)])

    def pauses(self, order: SagaInstance) -> int:
        """How often it was looked at and found to wait its turn."""
        flight = order.steps["work"].flight
        assert flight is not None
        return flight.pauses


def test_a_participant_that_is_stopped_for_hours_finds_every_command_once() -> None:
    office = Office()

    office.passes(timedelta(hours=4))

    assert office.broker.sent == dict.fromkeys(IDS, 1)
    # Once a minute, and a few times more in the beginning.
    assert all(200 < office.pauses(order) < 250 for order in office.database.instances.values())


def test_what_was_wiped_while_nobody_took_it_goes_again_once_for_each_time() -> None:
    office = Office()

    for wiped in range(1, 4):
        office.passes(timedelta(minutes=20))
        office.broker.waiting.clear()
        office.passes(timedelta(minutes=20))
        assert office.broker.sent == dict.fromkeys(IDS, 1 + wiped)


def test_into_a_queue_whose_consumer_hangs_a_copy_goes_after_every_cap() -> None:
    """It looks attended, and nobody can tell the hung worker from a queue that lost the message."""
    office = Office(attended=True)

    office.passes(timedelta(minutes=30))

    # After 490 s, then after ten looks more: 20, 40, 60, 60, ... s.
    assert office.broker.sent == dict.fromkeys(IDS, 1 + 3)


def test_a_backlog_of_orders_that_were_given_up_moves_on_while_their_commands_are_answered() -> None:
    """Nobody waits for these answers any more, and they come for longer than the cap lasts."""
    office = Office(HastySaga)
    office.passes(timedelta(minutes=5))
    assert office.broker.sent == dict.fromkeys(IDS, 2)  # the command and its compensation

    office.broker.attended = True
    while office.broker.waiting:
        office.passes(seconds(200))
        office.answers()

    assert office.broker.sent == dict.fromkeys(IDS, 2)
    assert {order.status for order in office.database.instances.values()} == {Status.COMPENSATED}
