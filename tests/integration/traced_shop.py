"""A shop whose orders wait for an approval, and are undone when the card has no money; to see its traces.

`Shop` is all of it, to be run in one process. As processes of their own, ``celery -A
tests.integration.traced_shop:orders worker --pool solo``, and ``stockroom`` likewise, they write each span at
once, to a file in the folder `SPANS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import Celery
from kombu import Connection
from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import (
    NOTHING_TO_UNDO,
    Command,
    Compensation,
    Context,
    Event,
    EventContext,
    Failure,
    Participant,
    Policy,
    Queue,
    Reply,
    Retry,
    Saga,
    SagaRun,
    Sagas,
    Service,
    Signal,
    Steps,
    Subscriber,
    Undo,
    enable_telemetry,
    on,
    orchestrator_app,
    participant_app,
    publish,
)
from sagas_framework.transport.connecting import kombu_queue
from tests.integration.tracing import ToFile, Traces

stock = Service("stock")


class Reserved(Reply):
    shelf: int


class NoMoney(Failure):
    """The card has none."""


class Reserve(Command[Reserved], service=stock, name="reserve"):
    order: int


class Release(Compensation[Reserve], service=stock, name="release"):
    order: int


class Charge(Command[None], service=stock, name="charge", failures=[NoMoney]):
    order: int


class StockTaken(Event, service=stock, name="stock_taken"):
    order: int


class Approval(Signal, name="approval"):
    approver: str


class Order(BaseModel):
    number: int
    approver: str = ""


def take(order: Order, approval: Approval) -> None:
    order.approver = approval.approver


def note(order: Order, session: Session) -> None:
    pass


step = Steps(Order)


class Ordering(Saga[Order], name="ordering", version=1):
    note = step.local(note, compensation=note)
    reserve = step.command(
        Reserve,
        lambda order: Reserve(order=order.number),
        compensation=lambda order: Release(order=order.number),
        retry=Retry(3, pause=timedelta(milliseconds=300)),
    )
    approve = step.wait(on(Approval, take), deadline=timedelta(hours=24))
    charge = step.command(Charge, lambda order: Charge(order=order.number), compensation=NOTHING_TO_UNDO)


@dataclass
class Shop:
    """The whole of it, in this process, on real servers."""

    broker: str
    urls: Callable[[], str]
    batch: int | None = None
    failures: int = 0
    heard: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        rarely = Policy(resend_first=timedelta(minutes=5), resend_ceiling=timedelta(minutes=5))
        self.sagas = Sagas(
            "orders",
            self.urls(),
            sagas=[Ordering],
            reply_queue=Queue("orders.replies"),
            policy=rarely,  # nothing is sent again because the machine is slow
        )
        self.sagas.upgrade()
        database = self.urls()
        self.participant = participant = Participant(stock, database=database)
        participant.upgrade()
        assert participant.database is not None
        self.subscriber = Subscriber(stock, database=participant.database)

        @participant.handles(Reserve)
        def reserve(command: Reserve, context: Context) -> Reserved:
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the shelf is stuck")
            publish(StockTaken(order=command.order), context.session)
            return Reserved(shelf=1)

        @participant.undoes(Release)
        def release(command: Release, undo: Undo[Reserve]) -> None: ...

        @participant.handles(Charge)
        def charge(command: Charge, context: Context) -> None:
            raise NoMoney("none is left")

        @self.subscriber.subscribes(StockTaken)
        def hear(event: StockTaken, context: EventContext) -> None:
            self.heard.append(event.order)

    def orchestrator(self) -> Celery:
        return orchestrator_app(self.sagas, broker=self.broker)

    def stockroom(self) -> Celery:
        return participant_app(
            self.participant, broker=self.broker, batch=self.batch, subscriber=self.subscriber
        )

    def start(self, number: int = 1) -> SagaRun:
        with Session(self.sagas.engine) as session, session.begin():
            return self.sagas.start(Ordering, Order(number=number), session=session)

    def waits(self, run: SagaRun) -> bool:
        waiting = self.sagas.get(run.id).waiting
        return waiting is not None and waiting.what == "approve"

    def purge(self) -> int:
        with Connection(self.broker) as connection:
            bound = kombu_queue(stock.queue)(connection.default_channel)
            return int(bound.purge() or 0)

    def queued(self) -> int:
        with Connection(self.broker) as connection:
            bound = kombu_queue(stock.queue)(connection.default_channel)
            declared: Any = bound.queue_declare(passive=True)
            return int(declared.message_count)

    def close(self) -> None:
        self.sagas.engine.dispose()
        self.participant.engine.dispose()


def __getattr__(name: str) -> Any:
    """`orders` and `stockroom`, for Celery; whoever only imports the declarations needs no servers."""
    if name not in ("orders", "stockroom"):
        raise AttributeError(name)
    urls = iter((os.environ["ORDERS"], os.environ["STOCK"]))
    shop = Shop(os.environ["BROKER"], lambda: next(urls))
    traces = Traces(ToFile(Path(os.environ["SPANS"]) / f"{name}-{os.getpid()}"))
    enable_telemetry(traces.provider, traces.meters)
    return shop.orchestrator() if name == "orders" else shop.stockroom()
