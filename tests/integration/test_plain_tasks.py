"""Plain Celery tasks as steps: a worker that knows nothing of sagas, on a real RabbitMQ and in memory."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from pydantic import BaseModel
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from sagas_framework import (
    Act,
    EmbeddedWorkers,
    Queue,
    Saga,
    Sagas,
    Status,
    Steps,
    orchestrator_app,
    undo_task,
)
from sagas_framework.core.instance import OutcomeKind, Phase
from sagas_framework.storage.tables import saga_instance, saga_quarantine
from tests.integration import plain_shop
from tests.integration.plain_shop import RESULTS
from tests.integration.without_inbox import Desk, celery_worker
from tests.servers import wait_until

CELERY: Final = Path(sys.executable).with_name("celery")
TIMEOUT: Final = timedelta(minutes=2)


class Cart(BaseModel):
    sku: str
    card: str = "good"
    reserved: Any = "not yet"


def remember(cart: Cart, result: Any) -> None:
    cart.reserved = result


step = Steps(Cart)


class CheckoutSaga(Saga[Cart], name="checkout", version=1):
    reserve = step.task(
        "shop.tasks.reserve_stock",
        lambda cart: {"sku": cart.sku, "count": 2},
        on_success=remember,
        compensation=undo_task("shop.tasks.release_stock", lambda cart: {"reserved": cart.reserved}),
        timeout=TIMEOUT,
    )
    pay = step.task("shop.tasks.take_payment", lambda cart: {"card": cart.card}, pivot=True, timeout=TIMEOUT)


class Shop:
    def __init__(self, desk: Desk, diary: Path) -> None:
        self.desk = desk
        self._diary = diary

    def buy(self, sku: str, card: str = "good") -> str:
        return self.desk.start(CheckoutSaga, Cart(sku=sku, card=card))

    @property
    def diary(self) -> list[str]:
        """What the tasks were called with, each call a line."""
        return self._diary.read_text().splitlines() if self._diary.exists() else []

    def unknown(self, sku: str) -> str:
        """A checkout whose first step was begun and not answered in time."""
        saga_id = self.buy(sku)
        wait_until(lambda: f"reserve {sku} 2" in self.diary, "the task is called")
        self.desk.later(TIMEOUT)
        return saga_id


SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "none": {},
    "results by rpc": {"result_backend": "rpc://", "task_create_missing_queues": False},
    "pickle": {"task_serializer": "pickle", "accept_content": ["json", "pickle"]},
    "routes": {
        "task_default_exchange": "shop",
        "task_default_exchange_type": "topic",
        "task_routes": {"shop.*": {"queue": "celery"}},
    },
}


@pytest.fixture(params=list(SETTINGS.values()), ids=list(SETTINGS), scope="module")
def any_shop(
    request: pytest.FixtureRequest, rabbitmq_module_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """A worker with these settings. Our reply queue is a quorum queue, of which it knows nothing."""
    yield from _shop(rabbitmq_module_url, tmp_path_factory.mktemp("shop"), request.param)


@pytest.fixture
def shop(rabbitmq_url: str, tmp_path: Path) -> Iterator[Shop]:
    yield from _shop(rabbitmq_url, tmp_path, {})


def _shop(broker: str, folder: Path, settings: dict[str, Any]) -> Iterator[Shop]:
    desk = Desk(f"sqlite:///{folder}/desk.sqlite", broker, [CheckoutSaga], Queue("checkout_replies"))
    diary = folder / "diary"
    environment = {
        "SHOP_BROKER": broker,
        "SHOP_DIARY": str(diary),
        "SHOP_SETTINGS": json.dumps(settings),
    }
    with celery_worker(CELERY, "tests.integration.plain_shop", folder / "log", **environment):
        yield Shop(desk, diary)
    desk.close()


# ---- whatever settings the worker has --------------------------------------------------------------


@pytest.mark.parametrize(
    ("sku", "kept"), [(sku, RESULTS[sku]) for sku in ("nothing", "number", "text", "list")]
)
def test_a_result_reaches_the_saga_as_it_is(any_shop: Shop, sku: str, kept: Any) -> None:
    ended = any_shop.desk.ended(any_shop.buy(sku))

    assert (ended.status, ended.state["reserved"]) == (Status.COMPLETED, kept)


def test_what_celery_wraps_in_its_json_is_plain_again(any_shop: Shop) -> None:
    ended = any_shop.desk.ended(any_shop.buy("dates"))

    assert ended.state["reserved"] == {"day": "2026-03-01", "price": "12.30"}


@pytest.mark.parametrize("sku", ["broken", "no JSON"])
def test_a_failure_is_final_and_says_where_to_look(any_shop: Shop, sku: str) -> None:
    ended = any_shop.desk.ended(any_shop.buy(sku))

    assert ended.status is Status.COMPENSATED
    assert ended.outcome is not None
    assert (ended.outcome.kind, ended.outcome.name) == (OutcomeKind.REFUSED, "TaskFailed")
    assert ended.outcome.message.startswith("its worker's log says why, under the task id ")
    assert any_shop.diary.count(f"reserve {sku} 2") == 1


def test_what_was_done_before_is_undone_by_the_other_task(any_shop: Shop) -> None:
    saga_id = any_shop.buy("text", card="stolen")

    ended = any_shop.desk.ended(saga_id)

    assert ended.status is Status.COMPENSATED
    assert ended.steps["pay"].phase is Phase.REFUSED
    assert any_shop.diary[-2:] == ["pay stolen", 'release "shelf 3"']


# ---- what a person decides --------------------------------------------------------------------------


def test_silence_parks_it_and_the_person_says_that_it_did_not_happen(shop: Shop) -> None:
    saga_id = shop.unknown("silent")

    parked = shop.desk.sagas.view(saga_id)
    assert parked.instance.status is Status.PARKED
    assert "reserve needs a person: unknown outcome: shop.tasks.reserve_stock: no answer" in parked.why
    assert shop.desk.can_do(saga_id) == ["complete", "withdraw"]
    assert shop.desk.act(saga_id, Act.WITHDRAW) == "reserve: it did not happen"
    ended = shop.desk.sagas.get(saga_id)
    assert ended.status is Status.COMPENSATED
    assert ended.outcome is not None
    assert ended.outcome.kind is OutcomeKind.EXPIRED
    assert shop.diary == ["reserve silent 2"]


def test_silence_parks_it_and_the_person_says_that_it_happened(shop: Shop) -> None:
    saga_id = shop.unknown("silent")

    assert shop.desk.act(saga_id, Act.COMPLETE, reply="shelf 9") == "reserve: it happened"
    shop.desk.moved = timedelta(0)  # or the payment would be sent by a clock that is ahead of its worker's
    ended = shop.desk.ended(saga_id)

    assert (ended.status, ended.state["reserved"]) == (Status.COMPLETED, "shelf 9")


def test_a_compensation_that_fails_needs_a_person(shop: Shop) -> None:
    saga_id = shop.buy("number", card="stolen")

    parked = shop.desk.until(saga_id, lambda instance: instance.status is Status.PARKED)

    assert "TaskFailed" in (parked.steps["reserve"].parked or "")
    assert shop.desk.can_do(saga_id) == ["retry", "skip", "complete"]
    shop.desk.act(saga_id, Act.RETRY)
    shop.desk.until(saga_id, lambda instance: instance.steps["reserve"].phase is Phase.UNDO_PAUSING)
    assert shop.diary.count("release 7") == 2
    assert shop.desk.act(saga_id, Act.COMPLETE) == "reserve: done by hand"
    assert shop.desk.sagas.get(saga_id).status is Status.COMPENSATED


def test_no_worker_begins_a_task_after_its_timeout(shop: Shop) -> None:
    """So a person who has looked then is right for good."""
    shop.desk.moved = -2 * TIMEOUT
    late = shop.buy("text")
    shop.desk.moved = timedelta(0)

    shop.desk.ended(shop.buy("nothing"))  # from the same queue, one after the other

    assert shop.diary == ["reserve nothing 2", "pay good"]
    assert shop.desk.sagas.get(late).status is Status.PARKED


def test_a_result_of_an_unknown_saga_is_set_aside(shop: Shop) -> None:
    """As by a task that outlives the database that knew its saga."""
    saga_id = shop.buy("number")
    with shop.desk.sagas.engine.begin() as connection:
        connection.execute(delete(saga_instance))

    def aside() -> bool:
        shop.desk.consumer.turn()
        with shop.desk.sagas.engine.connect() as connection:
            return connection.execute(select(saga_quarantine.c.saga_id)).scalars().all() == [saga_id]

    wait_until(aside, "the result is set aside")


# ---- in memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("card", "ends"), [("good", Status.COMPLETED), ("stolen", Status.COMPENSATED)])
def test_in_one_process_with_a_broker_in_memory(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, card: str, ends: Status
) -> None:
    monkeypatch.setenv("SHOP_DIARY", str(tmp_path / "diary"))
    sagas = Sagas("desk", sqlite_url, sagas=[CheckoutSaga], reply_queue=Queue("checkout_replies"))
    sagas.upgrade()

    with EmbeddedWorkers([orchestrator_app(sagas, broker="memory://"), plain_shop.app]):
        with Session(sagas.engine) as session, session.begin():
            run = sagas.start(CheckoutSaga, Cart(sku="list", card=card), session=session)
        ended = sagas.wait(run)

    assert ended.status is ends
    assert ended.state["reserved"] == [1, [2, "three"]]
    sagas.engine.dispose()
