"""The saga that `benchmarks.waiting` has wait: an order that somebody should approve before a moment."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final

from pydantic import AwareDatetime, BaseModel
from sqlalchemy.orm import Session

from sagas_framework import Queue, Saga, Sagas, Signal, Steps, on

REPLIES: Final = Queue("approvals.replies")


class Approval(Signal, name="approval"):
    """An approver says yes."""

    approver: str


class Order(BaseModel):
    """About as large as an order of a shop."""

    number: int
    decide_by: AwareDatetime
    customer: str = "Riley Example"
    items: list[str] = ["milk", "bread", "butter", "a rather expensive cheese"]
    total: Decimal = Decimal("1234.56")
    approver: str = ""
    told: list[str] = []


def _receive(order: Order, session: Session) -> None:
    order.told.append("received")


def _take_back(order: Order, session: Session) -> None:
    order.told.append("expired")


def _approve(order: Order, approval: Approval) -> None:
    order.approver = approval.approver


def _decide_by(order: Order) -> datetime:
    return order.decide_by


def _ship(order: Order, session: Session) -> None:
    order.told.append("shipped")


step = Steps(Order)


class Approvals(Saga[Order], name="approvals", version=1):
    """Received, then approved and shipped; or taken back when nobody has approved in time."""

    receive = step.local(_receive, compensation=_take_back)
    approve = step.wait(on(Approval, _approve), deadline=_decide_by)
    ship = step.local(_ship)


def sagas_of(database: str) -> Sagas:
    """The service whose sagas they are, on this database."""
    return Sagas("approvals", database, sagas=[Approvals], reply_queue=REPLIES)
