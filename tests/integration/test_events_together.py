"""Every kind of worker publishes and subscribes: an orchestrator, a participant, one that only listens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import (
    NOTHING_TO_UNDO,
    Command,
    Context,
    EmbeddedWorkers,
    Event,
    EventContext,
    Participant,
    Queue,
    QueueType,
    Saga,
    Sagas,
    Service,
    Status,
    Steps,
    Subscriber,
    check_orchestrator,
    check_participant,
    check_subscriber,
    orchestrator_app,
    participant_app,
    publish,
    subscriber_app,
)
from tests.servers import wait_until

office = Service("together_office")
depot = Service("together_depot", Queue("together_depot.commands", QueueType.CLASSIC))
press = Service("together_press")


class Ordered(Event, service=office, name="ordered"):
    order_id: int


class Packed(Event, service=depot, name="packed"):
    order_id: int


class Pack(Command[None], service=depot, name="pack"):
    order_id: int


class Order(BaseModel):
    order_id: int


step = Steps(Order)


def tell(order: Order, session: Session) -> None:
    publish(Ordered(order_id=order.order_id), session)


class Shipping(Saga[Order], name="together_shipping", version=1):
    """Say that there is an order, then pack it."""

    announce = step.local(tell, compensation=NOTHING_TO_UNDO)
    pack = step.command(Pack, lambda order: Pack(order_id=order.order_id), pivot=True)


class Firm:
    """Who has heard what, as `(listener, event, order)`."""

    def __init__(self, urls: Callable[[], str], batch: int | None) -> None:
        self.heard: list[tuple[str, str, int]] = []
        replies = Queue("together_office.replies", QueueType.CLASSIC)
        self.sagas = Sagas(office.name, urls(), sagas=[Shipping], reply_queue=replies)
        self.participant = Participant(depot, database=urls())
        self.participant.handles(Pack)(self.pack)
        assert self.participant.database is not None
        self.at_office = self.listener(office, self.sagas.database, Packed)
        self.at_depot = self.listener(depot, self.participant.database, Ordered)
        self.at_press = self.listener(press, urls(), Ordered, Packed)
        self.sagas.upgrade()
        self.participant.upgrade()
        self.at_press.upgrade()
        broker = "memory://"
        self.apps = [
            orchestrator_app(self.sagas, broker=broker, subscriber=self.at_office),
            participant_app(self.participant, broker=broker, subscriber=self.at_depot, batch=batch),
            subscriber_app(self.at_press, broker=broker),
        ]

    def listener(self, service: Service, database: Any, *events: type[Event]) -> Subscriber:
        subscriber = Subscriber(service, database=database)
        for event in events:

            def hear(said: Any, context: EventContext) -> None:
                self.heard.append((service.name, type(said).__name__, said.order_id))

            subscriber.subscribes(event, name=f"hear_{event.__name__}")(hear)
        return subscriber

    def pack(self, command: Pack, context: Context) -> None:
        publish(Packed(order_id=command.order_id), context.session)

    def reasons(self) -> list[str]:
        """Why any of them is not healthy."""
        checkups = [
            check_orchestrator(self.sagas),
            check_participant(self.participant),
            *(check_subscriber(one) for one in (self.at_office, self.at_depot, self.at_press)),
        ]
        return [reason for checkup in checkups for reason in checkup.reasons]

    def close(self) -> None:
        for engine in (self.sagas.engine, self.participant.engine, self.at_press.engine):
            engine.dispose()


@pytest.fixture(params=[None, 50], ids=["one by one", "in batches"])
def firm(request: pytest.FixtureRequest, sqlite_urls: Callable[[], str]) -> Iterator[Firm]:
    firm = Firm(sqlite_urls, request.param)
    yield firm
    firm.close()


def test_each_hears_what_it_subscribes_to_once(firm: Firm) -> None:
    with EmbeddedWorkers(firm.apps):
        with firm.sagas.engine.begin() as connection:
            runs = [firm.sagas.start(Shipping, Order(order_id=n), session=connection) for n in (1, 2)]
        for run in runs:
            assert firm.sagas.wait(run, timeout=timedelta(seconds=30)).status is Status.COMPLETED
        expected = sorted(
            (who, what, order)
            for order in (1, 2)
            for who, what in (
                (office.name, "Packed"),
                (depot.name, "Ordered"),
                (press.name, "Ordered"),
                (press.name, "Packed"),
            )
        )
        wait_until(lambda: len(firm.heard) >= len(expected), "all is heard")
        wait_until(lambda: firm.reasons() == [], "all of them are healthy")

    assert sorted(firm.heard) == expected
