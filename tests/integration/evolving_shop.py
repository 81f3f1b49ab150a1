"""A saga in three versions, its participant, and a road between them that is walked message by message.

`Road` takes one order to any point of its life: the orchestrator, the inbox and their databases are real,
only the broker is a list. So an order can be left just where a message is on its way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, func, insert, select

from sagas_framework import (
    NOTHING_TO_UNDO,
    Act,
    Command,
    Compensation,
    Context,
    Failure,
    Migration,
    Participant,
    Queue,
    Reply,
    Retry,
    Saga,
    SagaInstance,
    Sagas,
    Service,
    Status,
    Steps,
    Undo,
)
from sagas_framework.core.events import OperatorActed, TimerFired
from sagas_framework.core.instance import Phase
from sagas_framework.errors import Unavailable
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.steps import CommandStep
from sagas_framework.storage.sql import SqlStore
from sagas_framework.transport.envelope import WireMessage, from_wire, reply_received
from sagas_framework.transport.publisher import Load, Receipt

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
REPLIES: Final = Queue("shop.replies")

# ---- contracts ------------------------------------------------------------------------------------

counter = Service("counter")


class Refused(Failure):
    """The counter says no."""


class Done(Reply):
    number: int


class Verify(Command[None], service=counter, name="verify"):
    order_id: int


class Reserve(Command[Done], service=counter, name="reserve", failures=[Refused]):
    order_id: int


class Release(Compensation[Reserve], service=counter, name="release"):
    order_id: int
    number: int | None


class Charge(Command[Done], service=counter, name="charge", failures=[Refused]):
    order_id: int


class Refund(Compensation[Charge], service=counter, name="refund"):
    order_id: int


class Approve(Command[Done], service=counter, name="approve", failures=[Refused]):
    order_id: int


class Ship(Command[None], service=counter, name="ship", failures=[Refused]):
    order_id: int


class Survey(Command[None], service=counter, name="survey"):
    order_id: int


class CheckFraud(Command[None], service=counter, name="check_fraud"):
    order_id: int
    currency: str


class PrintLabel(Command[None], service=counter, name="print_label"):
    order_id: int


# ---- version 1 ------------------------------------------------------------------------------------


class OrderV1(BaseModel):
    order_id: int
    amount: str = "9.90"
    reservation: int | None = None
    approval: int | None = None
    clumsy: bool = False


at_first = Steps(OrderV1)


def remember_v1(order: OrderV1, reply: Done) -> None:
    order.reservation = reply.number


def approved_v1(order: OrderV1, reply: Done) -> None:
    if order.clumsy:
        raise KeyError("approval")
    order.approval = reply.number


PATIENCE: Final = timedelta(seconds=45)
TWICE: Final = Retry(2, pause=timedelta(seconds=2))


class OrderSagaV1(Saga[OrderV1], name="order", version=1):
    rejected = at_first.local(compensation=lambda order, session: None)
    verify = at_first.command(
        Verify, lambda order: Verify(order_id=order.order_id), compensation=NOTHING_TO_UNDO
    )
    reserve = at_first.command(
        Reserve,
        lambda order: Reserve(order_id=order.order_id),
        on_success=remember_v1,
        compensation=lambda order: Release(order_id=order.order_id, number=order.reservation),
        undo_retry=TWICE,
    )
    charge = at_first.command(
        Charge,
        lambda order: Charge(order_id=order.order_id),
        compensation=lambda order: Refund(order_id=order.order_id),
        retry=TWICE,
        undo_retry=TWICE,
        timeout=PATIENCE,
    )
    approve = at_first.command(
        Approve,
        lambda order: Approve(order_id=order.order_id),
        on_success=approved_v1,
        pivot=True,
        retry=TWICE,
        timeout=PATIENCE,
    )
    ship = at_first.command(Ship, lambda order: Ship(order_id=order.order_id), retry=TWICE, timeout=PATIENCE)
    survey = at_first.command(Survey, lambda order: Survey(order_id=order.order_id))
    closed = at_first.local(lambda order, session: None)


# ---- version 2: renamed, added, removed, with another state ---------------------------------------


class Money(BaseModel):
    value: str
    currency: str


class OrderV2(BaseModel):
    order_id: int
    money: Money
    reservation: int | None = None
    approval: int | None = None


now = Steps(OrderV2)


def with_currency(state: dict[str, Any]) -> Mapping[str, Any]:
    """The amount had no currency, because there was one only."""
    return {**state, "money": {"value": state.pop("amount"), "currency": "EUR"}}


def remember_v2(order: OrderV2, reply: Done) -> None:
    order.reservation = reply.number


def approved_v2(order: OrderV2, reply: Done) -> None:
    order.approval = reply.number


TO_2: Final = Migration(
    from_version=1,
    renamed={"reserve": "hold_stock", "charge": "take_money", "ship": "hand_over"},
    added=["check_fraud", "print_label"],
    removed=["survey"],
    done_without=["check_fraud", "print_label"],
    state=with_currency,
)


class OrderSagaV2(Saga[OrderV2], name="order", version=2, migrations=[TO_2]):
    rejected = now.local(compensation=lambda order, session: None)
    verify = now.command(Verify, lambda order: Verify(order_id=order.order_id), compensation=NOTHING_TO_UNDO)
    hold_stock = now.command(
        Reserve,
        lambda order: Reserve(order_id=order.order_id),
        on_success=remember_v2,
        compensation=lambda order: Release(order_id=order.order_id, number=order.reservation),
        undo_retry=TWICE,
    )
    check_fraud = now.command(
        CheckFraud,
        lambda order: CheckFraud(order_id=order.order_id, currency=order.money.currency),
        compensation=NOTHING_TO_UNDO,
    )
    take_money = now.command(
        Charge,
        lambda order: Charge(order_id=order.order_id),
        compensation=lambda order: Refund(order_id=order.order_id),
        retry=TWICE,
        undo_retry=TWICE,
        timeout=PATIENCE,
    )
    approve = now.command(
        Approve,
        lambda order: Approve(order_id=order.order_id),
        on_success=approved_v2,
        pivot=True,
        retry=TWICE,
        timeout=PATIENCE,
    )
    print_label = now.command(PrintLabel, lambda order: PrintLabel(order_id=order.order_id))
    hand_over = now.command(Ship, lambda order: Ship(order_id=order.order_id), retry=TWICE, timeout=PATIENCE)
    closed = now.local(lambda order, session: None)


# ---- version 3: one name goes back to what it was, and that name of version 1 is another step -----


class OrderSagaV3(
    Saga[OrderV2],
    name="order",
    version=3,
    migrations=[
        Migration(
            from_version=2,
            renamed={"take_money": "charge", "hold_stock": "charge_stock"},
            added=["reserve"],
            done_without=["reserve"],
        )
    ],
):
    rejected = now.local(compensation=lambda order, session: None)
    verify = now.command(Verify, lambda order: Verify(order_id=order.order_id), compensation=NOTHING_TO_UNDO)
    charge_stock = now.command(
        Reserve,
        lambda order: Reserve(order_id=order.order_id),
        on_success=remember_v2,
        compensation=lambda order: Release(order_id=order.order_id, number=order.reservation),
        undo_retry=TWICE,
    )
    check_fraud = now.command(
        CheckFraud,
        lambda order: CheckFraud(order_id=order.order_id, currency=order.money.currency),
        compensation=NOTHING_TO_UNDO,
    )
    charge = now.command(
        Charge,
        lambda order: Charge(order_id=order.order_id),
        compensation=lambda order: Refund(order_id=order.order_id),
        retry=TWICE,
        undo_retry=TWICE,
        timeout=PATIENCE,
    )
    approve = now.command(
        Approve,
        lambda order: Approve(order_id=order.order_id),
        on_success=approved_v2,
        pivot=True,
        retry=TWICE,
        timeout=PATIENCE,
    )
    print_label = now.command(PrintLabel, lambda order: PrintLabel(order_id=order.order_id))
    hand_over = now.command(Ship, lambda order: Ship(order_id=order.order_id), retry=TWICE, timeout=PATIENCE)
    reserve = now.command(PrintLabel, lambda order: PrintLabel(order_id=order.order_id))
    closed = now.local(lambda order, session: None)


# ---- the participant ------------------------------------------------------------------------------

_metadata = MetaData()
effects = Table(
    "counter_effects",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("order_id", Integer, nullable=False),
    Column("task", String(40), nullable=False),
    Column("key", String(40), nullable=False),
)


class Desk:
    """Does what it is asked, and writes down each time that it did; unless an order has a trouble.

    Args:
        troubles: by order: tasks with what comes of them, ``refused``, ``busy`` (a fault) or ``silent``.
    """

    def __init__(self, database: str, clock: Callable[[], datetime]) -> None:
        self.participant = Participant(counter, database=database, clock=clock)
        self.participant.upgrade()
        _metadata.create_all(self.participant.engine)
        self.troubles: dict[int, Mapping[str, str]] = {}
        for command in (Verify, Reserve, Charge, Approve, Ship, Survey, CheckFraud, PrintLabel):
            self._handle(command)
        for undo in (Release, Refund):
            self._undo(undo)

    def _handle(self, command: Any) -> None:
        name = command.contract.name

        @self.participant.handles(command)
        def handle(asked: Any, context: Context) -> Any:
            self._does(name, asked.order_id, context.key, context.session)
            return Done(number=asked.order_id) if command.reply_type() is Done else None

    def _undo(self, undo: Any) -> None:
        name = undo.contract.name

        @self.participant.undoes(undo)
        def handle(asked: Any, context: Undo[Any]) -> None:
            self._does(name, asked.order_id, context.key, context.session)

    def _does(self, name: str, order_id: int, key: str, session: Any) -> None:
        match self.troubles.get(order_id, {}).get(name):
            case "refused":
                raise Refused("no")
            case "busy":
                raise RuntimeError("try later")
            case "silent":
                raise Unavailable("nobody is there")
        session.execute(insert(effects).values(order_id=order_id, task=name, key=key))

    @property
    def engine(self) -> Engine:
        return self.participant.engine

    def did(self, order_id: int) -> dict[str, int]:
        """How often each task was done for the order."""
        query = (
            select(effects.c.task, func.count())
            .where(effects.c.order_id == order_id)
            .group_by(effects.c.task)
        )
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(query)}


# ---- the road -------------------------------------------------------------------------------------


class Post:
    """A broker that is a list: what is published waits until somebody takes it."""

    def __init__(self) -> None:
        self.waiting: list[WireMessage] = []

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.waiting += messages
        return [Receipt.CONFIRMED for _ in messages]

    def load(self, queue: str) -> Load | None:
        return Load(0)

    def close(self) -> None: ...


# No power fails here, so no commit waits for the disk.
_HURRIED: Final = "?options=-csynchronous_commit%3Doff"


class Shop:
    """Orders in one database, their counter in another, and a clock that is moved by hand."""

    def __init__(self, orders: str, meals: str) -> None:
        self.now = NOON
        self.url = orders + _HURRIED
        self.counter = Desk(meals + _HURRIED, lambda: self.now)
        self._number = 0
        self._opened: list[Sagas] = []
        self.by_version(OrderSagaV1).upgrade()

    def by_version(self, *versions: type[Saga[Any]]) -> Sagas:
        """The front door of a release that declares these."""
        sagas = Sagas("shop", self.url, sagas=versions, reply_queue=REPLIES, clock=lambda: self.now)
        self._opened.append(sagas)
        return sagas

    def close(self) -> None:
        for sagas in self._opened:
            sagas.engine.dispose()
        self.counter.engine.dispose()

    def number(self) -> int:
        self._number += 1
        return self._number


@dataclass(frozen=True)
class Story:
    """What goes wrong in an order's life, until it is mended.

    Args:
        troubles: see `Desk`.
        clumsy: the hook of version 1 that takes the pivot's reply raises.
    """

    name: str
    troubles: Mapping[str, str]
    clumsy: bool = False


STORIES: Final = (
    Story("all goes well", {}),
    Story("the card is refused", {"charge": "refused"}),
    Story("the bank is busy", {"charge": "busy"}),
    Story("the bank is silent", {"charge": "silent"}),
    Story("the pivot is refused", {"approve": "refused"}),
    Story("the pivot is busy", {"approve": "busy"}),
    Story("the pivot is silent", {"approve": "silent"}),
    Story("shipping is busy", {"ship": "busy"}),
    Story("shipping is refused", {"ship": "refused"}),
    Story("the money cannot be given back", {"approve": "refused", "refund": "busy"}),
    Story("the stock cannot be released", {"charge": "refused", "release": "busy"}),
    Story("our own code is clumsy", {}, clumsy=True),
)


class Road:
    """One order on its way. Each `step` is one message taken, or one look at the clock."""

    def __init__(self, shop: Shop, sagas: Sagas, story: Story) -> None:
        self.shop, self.story = shop, story
        self.order_id = shop.number()
        shop.counter.troubles[self.order_id] = story.troubles
        self.now = NOON
        self.post = Post()
        self.turn_to(sagas)
        with sagas.engine.begin() as connection:
            state = OrderV1(order_id=self.order_id, clumsy=story.clumsy)
            self.id = sagas.start(OrderSagaV1, state, key=f"order-{self.order_id}", session=connection).id

    def turn_to(self, sagas: Sagas) -> None:
        """From now on this release orchestrates."""
        self.sagas = sagas
        self.orchestrator = Orchestrator(
            SqlStore(sagas.engine),
            sagas.definitions,
            self.post,
            reply_to=REPLIES.name,
            clock=lambda: self.now,
        )

    @property
    def instance(self) -> SagaInstance:
        return self.sagas.get(self.id)

    def step(self) -> bool:
        """Whether there was anything to do."""
        self.shop.now = self.now
        if self.post.waiting:
            self._deliver(self.post.waiting.pop(0))
            return True
        instance = self.instance
        if instance.due_at is None or instance.status.ended:
            return False
        self.now = max(self.now, instance.due_at)
        self.shop.now = self.now
        horizons = {counter.queue.name: self.now}  # it was seen empty: what is not answered is lost
        assert self.orchestrator.process([TimerFired(self.id, self.now, horizons)]) == []
        return True

    def _deliver(self, message: WireMessage) -> None:
        if message.queue == REPLIES.name:
            assert self.orchestrator.process([reply_received(from_wire(message), self.now)]) == []
        elif (answer := self.shop.counter.participant.receive(message)) is not None:
            self.post.waiting.append(answer)

    def acts(self, act: Act, step: str | None = None) -> None:
        event = OperatorActed(self.id, self.now, act, "ann", "it is mended", step=step)
        assert self.orchestrator.process([event]) == []

    def mended(self) -> None:
        """Everybody does what is asked of them now."""
        self.shop.counter.troubles[self.order_id] = {}

    def to_the_end(self) -> SagaInstance:
        """Nothing goes wrong any more, and a person presses the buttons that are left."""
        self.mended()
        for _ in range(200):
            instance = self.instance
            if instance.status.ended:
                while self.post.waiting:  # what is late must change nothing
                    self.step()
                return self.instance
            stuck = [r for r in instance.steps.values() if r.parked and not r.flight and not r.resume_at]
            if stuck and not self.post.waiting:
                refused = stuck[0].phase is Phase.REFUSED
                self.acts(Act.SKIP if refused else Act.RETRY, stuck[0].name)
            else:
                self.step()
        raise AssertionError(f"{self.story.name}: it does not end: {self.instance.steps}")


def wrong_with(road: Road) -> Iterable[str]:
    """What is wrong with the effects of an order that has ended: each is kept, or undone, exactly once."""
    return wrong_effects(road.shop.counter.did(road.order_id), road.instance, road.sagas)


def wrong_effects(did: Mapping[str, int], ended: SagaInstance, sagas: Sagas) -> Iterable[str]:
    """The same of an ended instance, given how often each task was done for it."""
    saga = sagas.definitions.get(ended.saga, ended.version)
    undone = {"reserve": "release", "charge": "refund"}
    wanted: Counter[str] = Counter()
    for step in saga.steps:
        if isinstance(step, CommandStep) and ended.steps[step.name].phase is Phase.SUCCEEDED:
            wanted[step.command.contract.name] += 1
    for task, count in did.items():
        if task not in undone.values() and count > max(wanted[task], 1):
            yield f"{task} was done {count} times"
    for task, undo in undone.items():
        gone = did.get(task, 0) if ended.status is Status.COMPENSATED else 0
        if did.get(undo, 0) != gone:
            yield f"{task} was done {did.get(task, 0)} times, and undone {did.get(undo, 0)} times"
    if ended.status is Status.COMPLETED:
        yield from (f"{task} counts as done, and was not" for task in wanted if did.get(task) != wanted[task])
    elif did.get("approve"):
        yield "it was undone from behind its pivot"
