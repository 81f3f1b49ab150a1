"""Participants of PyPI's saga-framework 0.1 serve our orchestrator, on an old Celery and a real RabbitMQ.

A service without an inbox: what it is sent it gets at most once, and a person decides where it is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from pydantic import BaseModel

from sagas_framework import (
    NOTHING_TO_UNDO,
    Act,
    Command,
    Compensation,
    Queue,
    QueueType,
    Reply,
    Saga,
    Service,
    Status,
    Steps,
)
from sagas_framework.core.instance import OutcomeKind, Phase
from tests.integration.without_inbox import Desk, celery_worker
from tests.servers import Missing, skip_or_fail, wait_until

CELERY: Final = Path(__file__).parents[2] / ".venv-old/bin/celery"
TIMEOUT: Final = timedelta(minutes=2)

# Classic, because the old participants declare both queues so.
restaurant = Service(
    "restaurant_service",
    Queue("restaurant_service.commands", QueueType.CLASSIC),
    protocol="demo-0.1",
)
RESPONSES: Final = Queue("create_order_saga_responses", QueueType.CLASSIC)


class TicketCreated(Reply):
    ticket_id: int


class CreateTicket(Command[TicketCreated], service=restaurant, name="create_ticket"):
    dish: str


class RejectTicket(Compensation[CreateTicket], service=restaurant, name="reject_ticket"):
    ticket_id: int | None


class PrintMenu(Command[None], service=restaurant, name="print_menu"):
    """One that is never answered: its handler was written without a response queue."""

    dish: str


class ApproveTicket(Command[None], service=restaurant, name="approve_ticket"):
    ticket_id: int
    busy_for: int


class Order(BaseModel):
    """`busy_for`: how often the kitchen says that it is busy."""

    dish: str = "soup"
    busy_for: int = 0
    ticket_id: int | None = None


def create_ticket(order: Order) -> CreateTicket:
    return CreateTicket(dish=order.dish)


def remember(order: Order, reply: TicketCreated) -> None:
    order.ticket_id = reply.ticket_id


def approve(order: Order) -> ApproveTicket:
    assert order.ticket_id is not None
    return ApproveTicket(ticket_id=order.ticket_id, busy_for=order.busy_for)


step = Steps(Order)


class OrderSaga(Saga[Order], name="old_order", version=1):
    ticket = step.command(
        CreateTicket,
        create_ticket,
        on_success=remember,
        compensation=lambda order: RejectTicket(ticket_id=order.ticket_id),
        timeout=TIMEOUT,
    )
    approval = step.command(ApproveTicket, approve, pivot=True, timeout=TIMEOUT)


class MenuSaga(Saga[Order], name="old_menu", version=1):
    ticket = step.command(
        CreateTicket,
        create_ticket,
        on_success=remember,
        compensation=lambda order: RejectTicket(ticket_id=order.ticket_id),
        timeout=TIMEOUT,
    )
    menu = step.command(
        PrintMenu, lambda order: PrintMenu(dish=order.dish), compensation=NOTHING_TO_UNDO, timeout=TIMEOUT
    )


class Restaurant:
    def __init__(self, desk: Desk, diary: Path) -> None:
        self.desk = desk
        self._diary = diary

    @property
    def diary(self) -> list[str]:
        """What the old tasks were called with, each call a line."""
        return self._diary.read_text().splitlines() if self._diary.exists() else []

    def waits_for(self, line: str) -> None:
        wait_until(lambda: line in self.diary, f"the old worker writes {line!r}")


@pytest.fixture
def old(rabbitmq_url: str, tmp_path: Path) -> Iterator[Restaurant]:
    """A worker of the old library's, in its own environment."""
    if not CELERY.exists():
        skip_or_fail(
            Missing(f"the old library's environment, {CELERY.parents[1]}: make .venv-old/.installed")
        )
    diary = tmp_path / "diary"
    desk = Desk(f"sqlite:///{tmp_path}/desk.sqlite", rabbitmq_url, [OrderSaga, MenuSaga], RESPONSES)
    environment = {"RESTAURANT_BROKER": rabbitmq_url, "RESTAURANT_DIARY": str(diary)}
    with celery_worker(CELERY, "tests.old_participants.participants", tmp_path / "log", **environment):
        yield Restaurant(desk, diary)
    desk.close()


def test_it_succeeds(old: Restaurant) -> None:
    ended = old.desk.ended(old.desk.start(OrderSaga, Order()))

    assert (ended.status, ended.state["ticket_id"]) == (Status.COMPLETED, 7)
    assert old.diary == ["create soup", "approve 7 retry 0"]


def test_its_failure_is_final(old: Restaurant) -> None:
    ended = old.desk.ended(old.desk.start(OrderSaga, Order(dish="unknown")))

    assert ended.status is Status.COMPENSATED
    assert ended.outcome is not None
    assert (ended.outcome.kind, ended.outcome.name) == (OutcomeKind.REFUSED, "ValueError")
    assert ended.outcome.message == "Nobody here can cook that"
    assert old.diary == ["create unknown"]


def test_it_retries_by_itself_and_answers_once(old: Restaurant) -> None:
    saga_id = old.desk.start(OrderSaga, Order(busy_for=2))

    ended = old.desk.ended(saga_id)

    assert ended.status is Status.COMPLETED
    assert old.diary == ["create soup", "approve 7 retry 0", "approve 7 retry 1", "approve 7 retry 2"]
    assert old.desk.words(saga_id).count("approval.running") == 1


def test_its_compensation_counts_as_done_once_the_broker_has_it(old: Restaurant) -> None:
    saga_id = old.desk.start(OrderSaga, Order(busy_for=9))

    ended = old.desk.ended(saga_id)

    assert ended.status is Status.COMPENSATED
    assert ended.steps["approval"].phase is Phase.REFUSED
    assert old.desk.told(saga_id, "ticket.compensated") == {"because": "sent, not acknowledged"}
    old.waits_for("reject 7")


def test_silence_is_an_unknown_outcome_that_a_person_knows_to_have_happened(old: Restaurant) -> None:
    saga_id = old.desk.start(MenuSaga, Order())
    old.desk.until(saga_id, lambda instance: instance.steps["menu"].phase is Phase.RUNNING)
    old.waits_for("print soup")

    assert old.desk.act(saga_id, Act.CANCEL).startswith("refused: menu was sent to restaurant_service")
    old.desk.later(TIMEOUT)
    assert old.desk.sagas.get(saga_id).status is Status.PARKED
    assert old.desk.can_do(saga_id) == ["complete", "withdraw"]
    assert old.desk.act(saga_id, Act.COMPLETE) == "menu: it happened"

    assert old.desk.sagas.get(saga_id).status is Status.COMPLETED
    assert old.diary == ["create soup", "print soup"]


def test_silence_is_an_unknown_outcome_that_a_person_knows_not_to_have_happened(old: Restaurant) -> None:
    saga_id = old.desk.start(MenuSaga, Order())
    old.desk.until(saga_id, lambda instance: instance.steps["menu"].phase is Phase.RUNNING)

    old.desk.later(TIMEOUT)
    assert old.desk.act(saga_id, Act.WITHDRAW) == "menu: it did not happen"

    ended = old.desk.sagas.get(saga_id)
    assert ended.status is Status.COMPENSATED
    assert ended.outcome is not None
    assert ended.outcome.kind is OutcomeKind.EXPIRED
    old.waits_for("reject 7")
