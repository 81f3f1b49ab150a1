"""What the orchestrator makes of the broker's word on a compensation that nobody answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from sagas_framework.core.events import Confirmed, Event, ReplyReceived, Result
from sagas_framework.core.instance import Phase, SagaInstance, Status
from sagas_framework.core.lost import Horizons
from sagas_framework.messages import Command, Compensation, Service
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.saga import Definitions, Saga, Steps
from sagas_framework.storage.memory import MemoryDatabase, MemoryStore
from sagas_framework.storage.ports import Quarantined, StoreUnavailable
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt
from tests.unit.core.stories import NOON, SAGA_ID, OrderState, new_instance

bakery = Service("bakery", protocol="demo-0.1")


class Knead(Command[None], service=bakery, name="knead"):
    pass


class ThrowAway(Compensation[Knead], service=bakery, name="throw_away"):
    pass


class Bake(Command[None], service=bakery, name="bake"):
    pass


class Cool(Compensation[Bake], service=bakery, name="cool"):
    pass


class Sell(Command[None], service=bakery, name="sell"):
    pass


step = Steps(OrderState)


class BreadSaga(Saga[OrderState], name="bread", version=1):
    knead = step.command(Knead, lambda state: Knead(), compensation=lambda state: ThrowAway())
    bake = step.command(Bake, lambda state: Bake(), compensation=lambda state: Cool())
    sell = step.command(Sell, lambda state: Sell(), pivot=True)


class Broker:
    """Says of the next message of each task what the test wants; of others that it has it."""

    def __init__(self) -> None:
        self.says: dict[str, Receipt] = {}
        self.sent: list[str] = []

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        tasks = [message.headers["task"] for message in messages]
        self.sent += tasks
        return [self.says.get(task, Receipt.CONFIRMED) for task in tasks]

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...


class Bakery:
    """A saga whose last step was refused, so that two steps are to be undone."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.now = NOON
        self.broker = Broker()
        self.database = database or MemoryDatabase()
        self.orchestrator = Orchestrator(
            MemoryStore(self.database),
            Definitions([BreadSaga]),
            self.broker,
            reply_to="replies",
            clock=lambda: self.now,
        )
        self.database.instances[SAGA_ID] = new_instance(BreadSaga.definition)
        self.orchestrator.fire_timers(Horizons().ripe())

    @property
    def saga(self) -> SagaInstance:
        return self.database.instances[SAGA_ID]

    def answers(self, result: Result = Result.SUCCESS) -> None:
        ((_, flight),) = self.saga.in_flight()
        reply = ReplyReceived(SAGA_ID, self.now, (flight.message_id,), flight.task, result)
        assert self.orchestrator.process([reply]) == []

    def refused(self) -> None:
        self.answers()
        self.answers()
        self.answers(Result.FAILED)

    def words(self) -> list[str]:
        return [line.recorded.entry for line in self.database.history]


def test_each_confirmed_compensation_leads_to_the_next() -> None:
    bakery = Bakery()

    bakery.refused()

    assert bakery.broker.sent == [
        "bakery.knead",
        "bakery.bake",
        "bakery.sell",
        "bakery.cool",
        "bakery.throw_away",
    ]
    assert bakery.saga.status is Status.COMPENSATED
    assert bakery.words()[-3:] == ["knead.compensating", "knead.compensated", "compensated"]


@pytest.mark.parametrize("receipt", [Receipt.UNSENT, Receipt.UNROUTABLE])
def test_what_the_broker_did_not_take_waits_for_its_deadline_and_then_for_a_person(receipt: Receipt) -> None:
    bakery = Bakery()
    bakery.broker.says["bakery.cool"] = receipt

    bakery.refused()
    assert bakery.saga.steps["bake"].phase is Phase.COMPENSATING
    bakery.now += timedelta(minutes=5)
    bakery.orchestrator.fire_timers(Horizons().ripe())

    assert bakery.saga.status is Status.PARKED
    assert "not confirmed by the broker" in (bakery.saga.steps["bake"].parked or "")
    assert bakery.saga.steps["knead"].phase is Phase.COMPENSATED
    assert ("bake.unroutable" in bakery.words()) is (receipt is Receipt.UNROUTABLE)


def test_a_store_that_is_away_just_then_costs_the_confirmation_and_no_more(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    bakery = Bakery()
    bakery.answers()
    bakery.answers()
    process, calls = bakery.orchestrator._process, iter(range(10))

    def away_the_second_time(*arguments: object) -> None:
        if next(calls) == 1:
            raise StoreUnavailable("just now")
        process(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(bakery.orchestrator, "_process", away_the_second_time)
    with caplog.at_level(logging.WARNING):
        bakery.answers(Result.FAILED)

    assert bakery.saga.steps["bake"].phase is Phase.COMPENSATING
    assert "confirmed commands were not noted" in caplog.text
    assert bakery.saga == replace(bakery.saga, due_at=NOON + timedelta(minutes=5))


def test_one_saga_that_fails_does_not_cost_its_neighbours_their_confirmation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each confirmation that is not noted costs its saga a person's time."""
    bakery = Bakery()
    bakery.answers()
    bakery.answers()
    other = "01890a5d-ac96-774b-bcce-b302099a8058"
    flight = bakery.saga.steps["sell"].flight
    assert flight is not None
    step = replace(bakery.saga.steps["sell"], flight=replace(flight, message_id="another"))
    bakery.database.instances[other] = replace(
        bakery.saga, id=other, key="order-2", steps={**bakery.saga.steps, "sell": step}
    )
    process = bakery.orchestrator._process

    def spoilt(events: Sequence[Event], aside: Callable[[Event, str], Quarantined] | None) -> None:
        if any(isinstance(event, Confirmed) and event.saga_id == other for event in events):
            raise RuntimeError("it cannot be committed")
        process(events, aside)

    monkeypatch.setattr(bakery.orchestrator, "_process", spoilt)
    left = bakery.orchestrator.process(
        [
            ReplyReceived(saga_id, bakery.now, (its_id,), flight.task, Result.FAILED)
            for saga_id, its_id in ((SAGA_ID, flight.message_id), (other, "another"))
        ]
    )

    assert left == []
    assert bakery.database.instances[other].steps["bake"].phase is Phase.COMPENSATING
    assert bakery.saga.status is Status.COMPENSATED
