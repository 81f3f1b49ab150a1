"""Declaring services without an inbox, and plain Celery tasks as steps."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from sagas_framework.errors import DefinitionError
from sagas_framework.messages import Queue, QueueType, Service, WireProtocol
from sagas_framework.saga import Definitions, Saga, Steps, undo_task
from sagas_framework.steps import NOTHING_TO_UNDO, CommandStep


class Order(BaseModel):
    sku: str = "a-1"
    price: Decimal = Decimal("12.30")
    at: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)


step = Steps(Order)


def only(made: CommandStep[Order]) -> CommandStep[Order]:
    """The step as the only one of a saga."""

    class OneSaga(Saga[Order], name="one", version=1):
        one = made

    (found,) = OneSaga.definition.steps
    assert isinstance(found, CommandStep)
    return found


# ---- services ---------------------------------------------------------------------------------------


def test_a_service_keeps_an_inbox_unless_it_says_otherwise() -> None:
    assert Service("kitchen").protocol is WireProtocol.INBOX
    assert Service("kitchen").has_inbox


@pytest.mark.parametrize("protocol", ["demo-0.1", "celery"])
def test_the_protocol_may_be_given_as_plain_text(protocol: str) -> None:
    service = Service("kitchen", protocol=protocol)

    assert service.protocol is WireProtocol(protocol)
    assert not service.has_inbox


def test_an_unknown_protocol_is_told_which_there_are() -> None:
    told = "speaks 'demo', which is no protocol here; there are: 'inbox', 'demo-0.1', 'celery'."

    with pytest.raises(DefinitionError, match=re.escape(told)):
        Service("kitchen", protocol="demo")


# ---- tasks ------------------------------------------------------------------------------------------


def test_a_task_is_called_with_plain_json() -> None:
    task = only(
        step.task(
            "shop.tasks.reserve",
            lambda order: {"sku": order.sku, "price": order.price, "at": order.at, "copy": 2},
            compensation=NOTHING_TO_UNDO,
        )
    )

    assert task.request(Order()).to_json() == {
        "sku": "a-1",
        "price": "12.30",
        "at": "2026-03-01T12:00:00Z",
        "copy": 2,
    }


def test_a_task_goes_to_celerys_own_queue_unless_another_is_given() -> None:
    mine = Queue("shop", QueueType.QUORUM)
    first = only(step.task("shop.reserve", lambda order: {}, compensation=NOTHING_TO_UNDO))
    second = only(step.task("shop.reserve", lambda order: {}, queue=mine, compensation=NOTHING_TO_UNDO))

    assert first.command.contract.service.queue == Queue("celery", QueueType.CLASSIC)
    assert second.command.contract.service.queue == mine


@pytest.mark.parametrize("name", ["shop.tasks.reserve", "reserve"])
def test_a_task_keeps_its_name(name: str) -> None:
    task = only(step.task(name, lambda order: {}, compensation=NOTHING_TO_UNDO))

    assert task.command.contract.task == name
    assert task.command.__name__ == name


def test_what_undoes_a_task_may_live_in_another_module() -> None:
    task = only(
        step.task(
            "shop.tasks.reserve",
            lambda order: {},
            compensation=undo_task("shop.undoing.release", lambda order: {"sku": order.sku}),
        )
    )

    assert task.command.compensation is not None
    assert task.command.compensation.contract.task == "shop.undoing.release"
    assert callable(task.compensation)
    assert task.compensation(Order()).to_json() == {"sku": "a-1"}
    assert task.undo_answers


def test_a_celery_task_may_stand_for_its_name() -> None:
    app = Celery("shop", set_as_current=False)

    @app.task(name="shop.reserve")
    def reserve() -> None: ...

    @app.task(name="shop.release")
    def release() -> None: ...

    task = only(step.task(reserve, lambda order: {}, compensation=undo_task(release, lambda order: {})))

    assert task.command.contract.task == "shop.reserve"
    assert task.command.compensation is not None
    assert task.command.compensation.contract.task == "shop.release"


@pytest.mark.parametrize("nameless", ["", None, SimpleNamespace(name=None)])
def test_a_task_without_a_name_is_a_mistake(nameless: Any) -> None:
    with pytest.raises(DefinitionError, match=re.escape("needs its name, like 'shop.tasks.reserve_stock'")):
        step.task(nameless, lambda order: {}, pivot=True)

    with pytest.raises(DefinitionError, match=r"What undoes shop\.reserve needs the name of a Celery task"):
        step.task("shop.reserve", lambda order: {}, compensation=undo_task(nameless, lambda order: {}))


def test_a_task_before_the_pivot_says_how_it_is_undone() -> None:
    with pytest.raises(DefinitionError, match="is before the pivot and has no compensation"):
        only(step.task("shop.reserve", lambda order: {}))


def test_the_orchestrator_declares_the_queues_of_tasks() -> None:
    class ShopSaga(Saga[Order], name="shop", version=1):
        reserve = step.task("shop.reserve", lambda order: {}, queue=Queue("b"), compensation=NOTHING_TO_UNDO)
        pay = step.task("till.pay", lambda order: {}, queue=Queue("a"), pivot=True)

    assert [queue.name for queue in Definitions([ShopSaga]).queues] == ["a", "b"]
