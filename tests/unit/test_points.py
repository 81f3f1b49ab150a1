"""Each point is reached where its name says: shown by dying there and looking at what is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import uuid4

import pytest
from kombu.message import Message

from sagas_framework import Queue, participant_app
from sagas_framework.core.events import Act, Result
from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.core.inbox import RowState, Stored
from sagas_framework.messages import QueueType
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.points import Point, listen, reach
from sagas_framework.saga import Definitions
from sagas_framework.sagas import Sagas
from sagas_framework.storage.memory import MemoryDatabase, MemoryStore
from sagas_framework.storage.ports import ActRow, Quarantined
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.envelope import WireMessage, from_wire, reply, to_wire
from sagas_framework.transport.generic import KombuPublisher
from sagas_framework.transport.publisher import Load, Receipt
from sagas_framework.worker.replaying import send_again
from sagas_framework.worker.replies import ReplyConsumer
from tests.integration.kitchen import Handlers, Meal, MealSaga, make_kitchen, sent
from tests.unit.core.stories import CREATE_ORDER, SAGA_ID, CreateOrderSaga, new_instance


class Died(BaseException):
    """As a kill: nobody catches it."""


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Iterator[None]:
    yield
    listen(None)


def die_at(wanted: Point) -> None:
    def die(point: Point) -> None:
        if point is wanted:
            raise Died(point)

    listen(die)


def noted() -> list[Point]:
    """The points that are reached from now on, in their order."""
    points: list[Point] = []
    listen(points.append)
    return points


@dataclass
class Broker:
    """Takes everything."""

    taken: list[WireMessage] = field(default_factory=list)

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.taken.extend(messages)
        return [Receipt.CONFIRMED for _ in messages]

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...


# ---- listening ------------------------------------------------------------------------------------


def test_a_point_that_nobody_listens_to_is_passed() -> None:
    reach(Point.BATCH_TAKEN)


def test_one_listener_is_told_of_every_point_until_there_is_none() -> None:
    points = noted()

    reach(Point.BATCH_TAKEN)
    reach(Point.COMMAND_TAKEN)
    listen(None)
    reach(Point.BATCH_TAKEN)

    assert points == [Point.BATCH_TAKEN, Point.COMMAND_TAKEN]


# ---- the orchestrator -----------------------------------------------------------------------------


class Office:
    """An orchestrator over a database and a broker in memory, with one saga that was started."""

    def __init__(self) -> None:
        self.database = MemoryDatabase(instances={SAGA_ID: new_instance(CREATE_ORDER)})
        self.broker = Broker()
        self.replies = Queue(f"replies.{uuid4().hex}", QueueType.CLASSIC)
        self.orchestrator = Orchestrator(
            MemoryStore(self.database),
            Definitions([CreateOrderSaga]),
            self.broker,
            reply_to=self.replies.name,
        )
        self.timekeeper = Timekeeper(self.orchestrator, [])
        self.consumer = ReplyConsumer("memory://points", self.replies, self.orchestrator)
        self.publisher = KombuPublisher("memory://points", [self.replies])

    @property
    def revision(self) -> int:
        return self.database.instances[SAGA_ID].revision

    def answer(self) -> None:
        """Put the answer to the command that was sent last on the reply queue."""
        to = from_wire(self.broker.taken[-1])
        self.publisher.publish([to_wire(reply(to, Stored(Result.SUCCESS, None)))])

    def close(self) -> None:
        self.consumer.close()
        self.publisher.close()


@pytest.fixture
def office() -> Iterator[Office]:
    office = Office()
    yield office
    listen(None)
    office.close()


TIMERS: Final = {  # what is left of a death there: is it committed, how many commands are out
    Point.TIMERS_DECIDED: (False, 0),
    Point.TIMERS_COMMITTED: (True, 0),
    Point.TIMERS_PUBLISHED: (True, 1),
}
BATCH: Final = {  # and is the reply acknowledged
    Point.BATCH_TAKEN: (False, 0, False),
    Point.BATCH_DECIDED: (False, 0, False),
    Point.BATCH_COMMITTED: (True, 0, False),
    Point.BATCH_PUBLISHED: (True, 1, False),
    Point.BATCH_ACKNOWLEDGED: (True, 1, True),
}
ACTS: Final = {  # and is the act answered
    Point.ACTS_DECIDED: (False, 0, False),
    Point.ACTS_COMMITTED: (True, 0, True),
    Point.ACTS_PUBLISHED: (True, 1, True),
}


@pytest.mark.parametrize("point", TIMERS)
def test_what_a_timekeeper_leaves_that_dies(office: Office, point: Point) -> None:
    die_at(point)

    with pytest.raises(Died):
        office.timekeeper.turn()

    assert (office.revision > 0, len(office.broker.taken)) == TIMERS[point]


@pytest.mark.parametrize("point", BATCH)
def test_what_a_reply_consumer_leaves_that_dies(
    office: Office, point: Point, monkeypatch: pytest.MonkeyPatch
) -> None:
    acknowledged: list[Message] = []
    monkeypatch.setattr(Message, "ack", lambda message, **_: acknowledged.append(message))
    office.timekeeper.turn()
    office.answer()
    before, out = office.revision, len(office.broker.taken)
    die_at(point)

    with pytest.raises(Died):
        office.consumer.turn()

    left = (office.revision > before, len(office.broker.taken) - out, acknowledged != [])
    assert left == BATCH[point]


@pytest.mark.parametrize("point", ACTS)
def test_what_a_timekeeper_leaves_that_dies_over_an_act(office: Office, point: Point) -> None:
    office.timekeeper.turn()
    office.answer()
    office.consumer.turn()  # a ticket is asked for, so cancelling has something to send
    act = ActRow(0, SAGA_ID, Act.CANCEL, "ann", "the customer has called", datetime.now(UTC))
    act = office.database.add_act(act)
    before, out = office.revision, len(office.broker.taken)
    die_at(point)

    with pytest.raises(Died):
        office.timekeeper.turn()

    answered = office.database.acts[act.id].handled_at is not None
    assert (office.revision > before, len(office.broker.taken) - out, answered) == ACTS[point]


def test_the_points_of_an_orchestrator_come_in_their_order_and_not_when_there_is_nothing_to_do(
    office: Office,
) -> None:
    points = noted()

    office.timekeeper.turn()
    office.answer()
    office.consumer.turn()
    office.timekeeper.turn()
    office.consumer.turn()

    assert points == [*TIMERS, *BATCH]


# ---- a participant --------------------------------------------------------------------------------

REPLIES: Final = "meal_replies"  # as in the messages that `sent` makes

COMMAND: Final = {  # what is left of a death there: has the handler worked, the row's state, is the reply out
    Point.COMMAND_TAKEN: (0, None, 0),
    Point.COMMAND_HANDLED: (1, None, 0),
    Point.COMMAND_COMMITTED: (1, RowState.DONE, 0),
    Point.COMMAND_ANSWERED: (1, RowState.DONE, 1),
}
COMMANDS: Final = {  # the same of two commands that are handled together
    Point.COMMANDS_TAKEN: (0, None, 0),
    Point.COMMANDS_HANDLED: (2, None, 0),
    Point.COMMANDS_COMMITTED: (2, RowState.DONE, 0),
    Point.COMMANDS_ANSWERED: (2, RowState.DONE, 2),
}
OUTSIDE: Final = {
    Point.COMMAND_CLAIMED: (0, RowState.CLAIMED, 0),
    Point.COMMAND_HANDLED: (1, RowState.CLAIMED, 0),
}


class Kitchen:
    """A participant's worker, as far as it serves one message."""

    def __init__(self, database: str, *, outside: bool, batch: int | None = None) -> None:
        self.handlers = Handlers()
        self.participant = make_kitchen(database, self.handlers, outside=outside)
        app: Any = participant_app(self.participant, broker="memory://points", batch=batch)
        self.server = app.participant_server
        self.saga = str(uuid4())
        self._replies = KombuPublisher("memory://points", [Queue(REPLIES, QueueType.CLASSIC)])
        self._replies.publish([WireMessage(REPLIES, {}, {}, b"the queue is declared with its first message")])
        self._before = self.replies()

    def serve(self, kind: Kind) -> None:
        self.server.serve(sent(self.saga, kind))

    def serve_two(self) -> None:
        self.server.serve_all([sent(saga, Kind.DO) for saga in (self.saga, str(uuid4()))])

    def row(self) -> RowState | None:
        with self.participant.inbox.turn(operation_id(self.saga, "open_ticket"), datetime.now(UTC)) as turn:
            return None if turn.row is None else turn.row.state

    def replies(self) -> int:
        load = self._replies.load(REPLIES)
        assert load is not None
        return load.messages

    def left(self) -> tuple[int, RowState | None, int]:
        return len(self.handlers.opened), self.row(), self.replies() - self._before

    def close(self) -> None:
        self.server.publisher.close()
        self._replies.close()
        self.participant.engine.dispose()


@pytest.fixture
def make(sqlite_urls: Callable[[], str]) -> Iterator[Callable[..., Kitchen]]:
    kitchens: list[Kitchen] = []

    def make(*, outside: bool = False, batch: int | None = None) -> Kitchen:
        kitchens.append(Kitchen(sqlite_urls(), outside=outside, batch=batch))
        return kitchens[-1]

    yield make
    for kitchen in kitchens:
        kitchen.close()


@pytest.mark.parametrize("point", COMMAND)
def test_what_a_participant_leaves_that_dies(make: Callable[..., Kitchen], point: Point) -> None:
    kitchen = make()
    die_at(point)

    with pytest.raises(Died):
        kitchen.serve(Kind.DO)

    assert kitchen.left() == COMMAND[point]


@pytest.mark.parametrize("point", COMMANDS)
def test_what_a_participant_leaves_that_dies_over_a_batch(make: Callable[..., Kitchen], point: Point) -> None:
    kitchen = make()
    die_at(point)

    with pytest.raises(Died):
        kitchen.serve_two()

    assert kitchen.left() == COMMANDS[point]


def test_the_points_of_a_batch_come_once_whatever_its_size(make: Callable[..., Kitchen]) -> None:
    kitchen = make()
    points = noted()

    kitchen.serve_two()

    assert points == [*COMMANDS]


def test_one_by_one_each_command_of_a_batch_comes_by_the_points_of_one(make: Callable[..., Kitchen]) -> None:
    kitchen = make(batch=1)
    points = noted()

    kitchen.serve_two()

    of_each = [Point.COMMAND_TAKEN, Point.COMMAND_HANDLED, Point.COMMAND_COMMITTED]
    assert points == [*of_each, *of_each, Point.COMMAND_ANSWERED]
    assert kitchen.left() == (2, RowState.DONE, 2)


@pytest.mark.parametrize("point", OUTSIDE)
def test_what_a_participant_leaves_that_dies_while_it_works_outside(
    make: Callable[..., Kitchen], point: Point
) -> None:
    kitchen = make(outside=True)
    die_at(point)

    with pytest.raises(Died):
        kitchen.serve(Kind.DO)

    assert kitchen.left() == OUTSIDE[point]


def test_the_points_of_a_participant_come_in_their_order(make: Callable[..., Kitchen]) -> None:
    inside, outside = make(), make(outside=True)
    points = noted()

    inside.serve(Kind.DO)
    doing, points[:] = list(points), []
    inside.serve(Kind.DO)
    again, points[:] = list(points), []
    inside.serve(Kind.UNDO)
    undoing, points[:] = list(points), []
    outside.serve(Kind.DO)

    assert doing == undoing == list(COMMAND)
    assert again == [Point.COMMAND_TAKEN, Point.COMMAND_COMMITTED, Point.COMMAND_ANSWERED]
    assert points == [Point.COMMAND_TAKEN, Point.COMMAND_CLAIMED, *list(COMMAND)[1:]]


# ---- the relay, and whoever starts a saga ---------------------------------------------------------

REPLAY: Final = {Point.REPLAY_TAKEN: 0, Point.REPLAY_PUBLISHED: 1}  # how many messages are out


@pytest.mark.parametrize("point", REPLAY)
def test_what_a_relay_leaves_that_dies(point: Point) -> None:
    broker, now = Broker(), datetime.now(UTC)
    message = Quarantined("kitchen.commands", "cook", {}, "[]", "no such task", now, id=1, replay="ann")
    database = MemoryDatabase(quarantined=[message])
    die_at(point)

    with pytest.raises(Died):
        MemoryStore(database).replay(lambda messages: send_again(broker, messages))

    assert len(broker.taken) == REPLAY[point]
    assert database.quarantined == [message]


def test_a_saga_is_written_before_its_callers_transaction_commits(sqlite_url: str) -> None:
    sagas = Sagas("meals", sqlite_url, sagas=[MealSaga], reply_queue=Queue(REPLIES))
    sagas.upgrade()
    die_at(Point.SAGA_WRITTEN)

    with pytest.raises(Died), sagas.engine.begin() as connection:
        sagas.start(MealSaga, Meal(order_id=1), key="meal-1", session=connection)
    of_the_dead = sagas.find("meal-1")
    points = noted()
    with sagas.engine.begin() as connection:
        sagas.start(MealSaga, Meal(order_id=1), key="meal-1", session=connection)
        sagas.start(MealSaga, Meal(order_id=1), key="meal-1", session=connection)

    assert of_the_dead == []
    assert len(sagas.find("meal-1")) == 1
    assert points == [Point.SAGA_WRITTEN]
    sagas.engine.dispose()


def test_no_point_is_left_out_here() -> None:
    assert {*TIMERS, *BATCH, *ACTS, *COMMAND, *COMMANDS, *OUTSIDE, *REPLAY, Point.SAGA_WRITTEN} == set(Point)
