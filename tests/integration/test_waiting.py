"""Sagas that wait, on real databases: signals in the sender's transaction, found by whoever waits."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from pydantic import BaseModel, field_validator
from sqlalchemy import event
from sqlalchemy.orm import Session

from sagas_framework import (
    Act,
    Became,
    InvalidSignal,
    OutcomeKind,
    Queue,
    Saga,
    Sagas,
    SagasError,
    Signal,
    SignalConflict,
    Status,
    Steps,
    UnknownRun,
    UnknownSaga,
    UnknownSignal,
    on,
)
from sagas_framework.clock import utc_now
from sagas_framework.core.instance import Cause
from sagas_framework.messages import signal_task
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Quarantined
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.storage.sql import SqlStore
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.connecting import kombu_queue
from sagas_framework.worker.batches import check_queue
from sagas_framework.worker.replies import ReplyConsumer
from tests.integration.nowhere import Nowhere
from tests.servers import wait_until


class Order(BaseModel):
    number: int = 1
    approver: str = ""


class Approval(Signal, name="approval"):
    approver: str
    approved: bool = True


class Remark(Signal, name="remark"):
    pass


class Weighed(Signal, name="weighed"):
    weights: list[float]

    @field_validator("weights")
    @classmethod
    def known(cls, weights: list[float]) -> list[float]:
        return [{-1.0: 0.0}[weight] if weight < 0 else weight for weight in weights]


def take(order: Order, approval: Approval) -> None:
    order.approver = approval.approver


def ship(order: Order, session: Session) -> None:
    pass


step = Steps(Order)


class Approved(Saga[Order], name="approved", version=1):
    approve = step.wait(on(Approval, take), deadline=timedelta(hours=24))
    remark = step.wait(on(Remark), on(Approval, take), deadline=timedelta(hours=1))
    ship = step.local(ship)


class Weighing(Saga[Order], name="weighing", version=1):
    weigh = step.wait(on(Weighed), deadline=timedelta(hours=1))


class Plain(Saga[Order], name="plain", version=1):
    ship = step.local(ship)


class Shop:
    def __init__(self, url: str, *sagas: type[Saga[Any]]) -> None:
        self.moved = timedelta(0)
        self.sagas = Sagas(
            "shop", url, sagas=sagas or (Approved, Plain, Weighing), reply_queue=Queue("r"), clock=self.now
        )
        self.sagas.upgrade()
        self.restart()

    def restart(self) -> None:
        """Another orchestrator, which remembers nothing."""
        orchestrator = Orchestrator(
            SqlStore(self.sagas.engine),
            self.sagas.definitions,
            Nowhere(),
            reply_to="r",
            clock=self.now,
        )
        self.orchestrator = orchestrator
        self.timekeeper = Timekeeper(orchestrator, [])

    def now(self) -> datetime:
        return utc_now() + self.moved

    def start(self, key: str = "order-1", saga: type[Saga[Order]] = Approved) -> str:
        with Session(self.sagas.engine) as session, session.begin():
            saga_id = self.sagas.start(saga, Order(), key=key, session=session).id
        self.timekeeper.turn()
        return saga_id

    def approve(self, key: str = "order-1", id: str | None = None) -> int:
        return self.sagas.signal(Approved, Approval(approver="ann"), key=key, id=id).id

    def became(self, number: int) -> Became:
        return self.sagas.signal_answer(number).became


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def shop(request: pytest.FixtureRequest) -> Iterator[Shop]:
    shop = Shop(request.getfixturevalue(request.param))
    yield shop
    shop.sagas.engine.dispose()


def test_a_signal_is_taken_by_the_saga_that_waits_for_it(shop: Shop) -> None:
    saga_id = shop.start()

    number = shop.approve()
    before = shop.became(number)
    shop.timekeeper.turn()

    assert (before, shop.became(number)) == (Became.STORED, Became.TAKEN)
    instance = shop.sagas.get(saga_id)
    assert instance.state["approver"] == "ann"
    assert instance.waiting is not None
    assert (instance.waiting.cause, instance.waiting.what) == (Cause.SIGNAL, "remark")


def test_a_signal_of_somebody_whose_clock_is_ahead_is_taken_at_once(shop: Shop) -> None:
    shop.start()

    shop.moved = timedelta(minutes=4)
    number = shop.approve()
    shop.moved = timedelta(0)
    shop.timekeeper.turn()

    assert shop.became(number) is Became.TAKEN


def test_a_signal_that_comes_before_its_saga_is_kept_and_taken_once(shop: Shop) -> None:
    number = shop.approve()
    shop.timekeeper.turn()
    kept = shop.became(number)

    saga_id = shop.start()

    assert (kept, shop.became(number)) == (Became.KEPT, Became.TAKEN)
    assert shop.sagas.get(saga_id).steps["remark"].phase.value == "waiting"


def test_one_that_is_rolled_back_was_never_said(shop: Shop) -> None:
    shop.start()

    with Session(shop.sagas.engine) as session:
        shop.sagas.signal(Approved, Approval(approver="ann"), key="order-1", session=session)
        session.rollback()

    assert shop.sagas.signals() == []


def test_a_repetition_under_its_id_is_the_same_signal_with_the_same_answer(shop: Shop) -> None:
    shop.start()
    number = shop.approve(id="click-1")
    shop.timekeeper.turn()

    again = shop.sagas.signal(Approved, Approval(approver="ann"), key="order-1", id="click-1")

    assert (again.id, again.became) == (number, Became.TAKEN)
    with pytest.raises(SignalConflict, match="something else"):
        shop.sagas.signal(Approved, Approval(approver="bob"), key="order-1", id="click-1")


@pytest.mark.parametrize("weight", [1e22, 1e23, 1.7976931348623157e308, -0.0, 0.1, 5e-324])
def test_a_number_is_the_same_however_the_database_gives_it_back(shop: Shop, weight: float) -> None:
    heavy = Weighed(weights=[weight])

    first, again = (shop.sagas.signal(Weighing, heavy, key="parcel-1", id="w") for _ in range(2))

    assert first.id == again.id
    with pytest.raises(SignalConflict):
        shop.sagas.signal(Weighing, Weighed(weights=[weight, 2]), key="parcel-1", id="w")


def test_those_that_are_too_old_go_with_the_next_turns_however_many_they_are(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas_framework.timekeeper._FORGET", 2)
    for number in range(3):
        shop.approve(key=f"order-{number}")
    shop.moved = timedelta(days=31)

    shop.timekeeper.turn()
    shop.timekeeper.turn()

    assert shop.sagas.signals() == []


def test_what_comes_after_the_wait_is_told_at_the_door_that_it_is_too_late(shop: Shop) -> None:
    saga_id = shop.start()
    for _ in range(2):
        shop.approve()
        shop.timekeeper.turn()

    late = shop.sagas.signal(saga_id, Approval(approver="eve"))

    assert shop.sagas.get(saga_id).status is Status.COMPLETED
    assert late.too_late
    assert late.answer == "the saga has ended: completed"


def test_of_two_that_nobody_has_looked_at_the_first_is_taken_and_the_other_answered(shop: Shop) -> None:
    shop.start()
    numbers = [shop.approve() for _ in range(3)]

    shop.timekeeper.turn()

    # The saga waits twice; the third comes too late.
    assert [shop.became(number) for number in numbers] == [Became.TAKEN, Became.TAKEN, Became.TOO_LATE]


def test_a_bad_signal_is_refused_at_the_door_and_nothing_is_stored(shop: Shop) -> None:
    saga_id = shop.start()
    wrong: list[tuple[type[SagasError], Any]] = [
        (InvalidSignal, lambda: shop.sagas.signal(Approved, ("approval", {"approver": 7}), key="order-1")),
        (InvalidSignal, lambda: shop.sagas.signal(Approved, ("approval", "yes"), key="order-1")),
        (InvalidSignal, lambda: shop.sagas.signal(Approved, Approval(approver="\0"), key="order-1")),
        (InvalidSignal, lambda: shop.sagas.signal(Approved, Approval(approver="a"), key="k" * 201)),
        (InvalidSignal, lambda: shop.sagas.signal(Approved, Approval(approver="a"), key="\0")),
        (InvalidSignal, lambda: shop.sagas.signal(Approved, Approval(approver="a"), key="\ud800")),
        (InvalidSignal, lambda: shop.sagas.signal(Weighing, ("weighed", {"weights": [-2]}), key="p")),
        (UnknownSaga, lambda: shop.sagas.signal("\0", ("approval", {}), key="order-1")),
        (UnknownSignal, lambda: shop.sagas.signal(saga_id, ("rejection", {}))),
        (UnknownSignal, lambda: shop.sagas.signal("plain", ("approval", {}), key="order-1")),
        (UnknownSaga, lambda: shop.sagas.signal("nobody", ("approval", {}), key="order-1")),
        (UnknownRun, lambda: shop.sagas.signal("no such id", Approval(approver="a"))),
        (SagasError, lambda: shop.sagas.signal(Approved, Approval(approver="a"))),
    ]

    for error, act in wrong:
        with pytest.raises(error):
            act()

    assert shop.sagas.signals() == []


def test_a_wait_survives_restarts_and_fires_once_at_its_deadline(shop: Shop) -> None:
    saga_id = shop.start()

    shop.restart()
    shop.moved = timedelta(hours=23)
    shop.timekeeper.turn()
    still = shop.sagas.get(saga_id).status
    shop.restart()
    shop.moved = timedelta(hours=25)
    shop.timekeeper.turn()

    assert still is Status.RUNNING
    outcome = shop.sagas.get(saga_id).outcome
    assert outcome is not None
    assert (shop.sagas.get(saga_id).status, outcome.kind) == (Status.COMPENSATED, OutcomeKind.EXPIRED)


def test_a_signal_in_time_wins_though_the_orchestrator_was_away_until_after_the_deadline(shop: Shop) -> None:
    saga_id = shop.start()
    shop.moved = timedelta(hours=23)
    number = shop.approve()

    shop.moved = timedelta(hours=25)
    shop.orchestrator.fire_timers({})  # before anybody looks for new signals

    assert shop.became(number) is Became.TAKEN
    assert shop.sagas.get(saga_id).steps["remark"].phase.value == "waiting"


def test_an_operator_moves_the_deadline_and_the_list_shows_it(shop: Shop) -> None:
    saga_id = shop.start()
    until = shop.now() + timedelta(hours=48)

    number = shop.sagas.act(
        saga_id, Act.RESCHEDULE, by="ann", reason="a holiday", step="approve", until=until
    )
    shop.timekeeper.turn()

    assert shop.sagas.act_answer(number).became == "done"
    told = shop.sagas.view(saga_id).to_json()
    assert told["waits"]["until"] == until.isoformat()
    assert told["signals"] == ["approval"]
    shop.moved = timedelta(hours=25)
    shop.timekeeper.turn()
    assert shop.sagas.get(saga_id).status is Status.RUNNING


def test_a_cancel_commits_with_the_callers_rows_or_not_at_all(shop: Shop) -> None:
    saga_id = shop.start()
    with Session(shop.sagas.engine) as session:
        shop.sagas.cancel(Approved, key="order-1", by="shop", reason="changed her mind", session=session)
        session.rollback()
    shop.timekeeper.turn()
    before = shop.sagas.get(saga_id).status

    number = shop.sagas.cancel(saga_id, by="shop", reason="changed her mind")
    shop.timekeeper.turn()

    assert before is Status.RUNNING
    outcome = shop.sagas.get(saga_id).outcome
    assert outcome is not None
    assert (outcome.kind, outcome.message) == (OutcomeKind.CANCELLED, "changed her mind")
    assert shop.sagas.act_answer(number).became == "done"


def test_what_is_kept_for_nobody_is_listed_and_goes_after_its_retention(shop: Shop) -> None:
    shop.approve("nobody")
    shop.timekeeper.turn()
    kept = shop.sagas.signals(kept_only=True)

    shop.moved = timedelta(days=31)
    shop.restart()
    shop.timekeeper.turn()

    assert [(row.key, row.became) for row in kept] == [("nobody", Became.KEPT)]
    assert shop.sagas.signals() == []


def statements(shop: Shop) -> list[str]:
    said: list[str] = []

    def note(_conn: Any, _cursor: Any, statement: str, *_: Any) -> None:
        said.append(statement)

    event.listen(shop.sagas.engine, "before_cursor_execute", note)
    return said


def test_a_saga_without_waits_costs_no_statement_for_signals(request: pytest.FixtureRequest) -> None:
    shop = Shop(request.getfixturevalue("sqlite_url"), Plain)
    said = statements(shop)

    shop.start(saga=Plain)
    shop.timekeeper.turn()

    # The timekeeper's glance, one statement as ever, also asks whether there are any.
    assert not [one for one in said if "saga_signal" in one and "EXISTS" not in one]


def test_many_that_begin_to_wait_look_for_signals_in_one_statement(shop: Shop) -> None:
    with Session(shop.sagas.engine) as session, session.begin():
        shop.sagas.start_many(Approved, [(f"order-{n}", Order()) for n in range(50)], session=session)
    said = statements(shop)

    shop.orchestrator.fire_timers({})

    assert len([statement for statement in said if "saga_signal" in statement]) == 1


def test_another_service_signals_over_the_broker_with_a_plain_celery_task(
    sqlite_url: str, rabbitmq_url: str
) -> None:
    shop = Shop(sqlite_url)
    shop.start()
    queue = Queue(f"replies.{uuid4().hex}")
    check_queue(rabbitmq_url, queue)
    consumer = ReplyConsumer(
        rabbitmq_url,
        queue,
        shop.orchestrator,
        say=lambda saga, key, name, said, id_: shop.sagas.signal(saga, (name, said), key=key, id=id_),
    )
    another_service = Celery(broker=rabbitmq_url)
    task = signal_task("approved", "approval")

    for payload, task_id in (
        ({"approver": "ann"}, "click-1"),
        ({"approver": "ann"}, "click-1"),  # its producer was not sure
        ({"approver": 7}, "click-2"),
    ):
        where: Any = kombu_queue(queue)  # Celery takes it, too
        another_service.send_task(task, args=["order-1", payload], task_id=task_id, queue=where)

    def all_came() -> bool:
        consumer.turn()
        return len(aside(shop)) == 1

    wait_until(all_came, "the signals to be taken")
    consumer.close()
    another_service.close()
    shop.timekeeper.turn()

    assert [(row.said_id, row.became) for row in shop.sagas.signals()] == [("click-1", Became.TAKEN)]
    assert "$.approver" in aside(shop)[0].reason
    shop.sagas.engine.dispose()


def aside(shop: Shop) -> list[Quarantined]:
    with reading(shop.sagas.engine) as connection:
        return read_quarantine(connection)
