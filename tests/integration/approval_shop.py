"""A service whose orders wait a day for an approval; its worker is a process that can be killed.

``celery -A tests.integration.approval_shop worker --pool solo`` runs it on RabbitMQ and PostgreSQL,
``python -m tests.integration.approval_shop`` embedded, the way ``make demo`` does.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import EmbeddedWorkers, Queue, Saga, Sagas, Signal, Steps, on, orchestrator_app
from sagas_framework.clock import utc_now

DAY: Final = timedelta(hours=24)


class Order(BaseModel):
    approver: str = ""
    told: list[str] = []


class Approval(Signal, name="approval"):
    approver: str


def receive(order: Order, session: Session) -> None:
    order.told.append("received")


def take_back(order: Order, session: Session) -> None:
    order.told.append("expired")


def approve(order: Order, approval: Approval) -> None:
    order.approver = approval.approver


def ship(order: Order, session: Session) -> None:
    order.told.append("shipped")


step = Steps(Order)


class ApprovedOrder(Saga[Order], name="approved_order", version=1):
    receive = step.local(receive, compensation=take_back)
    approve = step.wait(on(Approval, approve), deadline=DAY)
    ship = step.local(ship)


def shop(database: str, clock: Callable[[], datetime] = utc_now) -> Sagas:
    return Sagas(
        "approval_shop",
        database,
        sagas=[ApprovedOrder],
        reply_queue=Queue("approval_shop.replies"),
        clock=clock,
    )


def __getattr__(name: str) -> Any:
    """`app`, for Celery; whoever only imports the declarations needs no servers."""
    if name != "app":
        raise AttributeError(name)
    return orchestrator_app(shop(os.environ["SHOP_DATABASE"]), broker=os.environ["SHOP_BROKER"])


if __name__ == "__main__":
    with EmbeddedWorkers([__getattr__("app")]):
        threading.Event().wait()
