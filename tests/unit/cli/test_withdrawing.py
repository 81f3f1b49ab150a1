"""``saga withdraw`` and ``saga complete`` for a step whose participant keeps no inbox."""

from __future__ import annotations

import pytest

from sagas_framework.core.instance import Phase, Status
from sagas_framework.saga import Definitions, Saga, Steps, undo_task
from tests.unit.cli.shop import Shop
from tests.unit.core.stories import OrderState

step = Steps(OrderState)


def remember_payment(state: OrderState, result: str) -> None:
    state.transaction_id = result


class PaySaga(Saga[OrderState], name="pay", version=1):
    pay = step.task(
        "till.pay",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", lambda state: {}),
    )
    thank = step.task("post.thank", lambda state: {}, pivot=True)


@pytest.fixture
def unknown(shop: Shop) -> str:
    """A saga whose first step was not answered in time."""
    shop.sagas.definitions = shop.orchestrator.definitions = Definitions([PaySaga])
    with shop.sagas.engine.begin() as connection:
        run = shop.sagas.start(PaySaga, OrderState(), key="order-1", session=connection)
    shop.orchestrator.fire_timers({})
    shop.after(300)
    return run.id


def test_it_did_not_happen(shop: Shop, unknown: str) -> None:
    with shop.working():
        result = shop.say("withdraw", "order-1", "--reason", "the till has no such payment")

    assert result.exit_code == 0
    assert result.stdout.startswith("done: pay: it did not happen.")
    assert shop.sagas.get(unknown).status is Status.COMPENSATED
    assert shop.sagas.get(unknown).steps["pay"].phase is Phase.WITHDRAWN


def test_it_happened_with_this_result(shop: Shop, unknown: str) -> None:
    """A plain task's result is no contract's reply: it may be any JSON."""
    with shop.working():
        result = shop.say("complete", "order-1", "--reason", "the till has it", "--reply", '"p-7"')

    assert result.exit_code == 0
    assert shop.sagas.get(unknown).state["transaction_id"] == "p-7"


def test_the_page_offers_both(shop: Shop, unknown: str) -> None:
    result = shop.say("show", "order-1")

    assert "saga -A worker withdraw order-1" in result.stdout
    assert "complete order-1" in result.stdout
    assert "--reply '<JSON>'" in result.stdout


def test_what_can_be_done_is_in_the_json(shop: Shop, unknown: str) -> None:
    told = shop.json("show", "order-1")

    assert [act["act"] for act in told["can_do"]] == ["complete", "withdraw"]


def test_it_is_refused_where_the_participant_can_be_asked(shop: Shop) -> None:
    shop.parked_undo()

    with shop.working():
        result = shop.say("withdraw", "order-1", "--reason", "x")

    assert result.exit_code == 1
    assert "only a step whose participant keeps no inbox" in result.stdout
