"""The sagas of the order platform: nothing is wrong with them, or with what is around them."""

from __future__ import annotations

from order_service.orchestrator import sagas
from order_service.sagas.create_order import CreateOrderSaga
from order_service.sagas.process_order import ProcessOrderSaga
from sagas_framework.check import check
from tests.unit.cli.shop import say


def test_every_saga_is_sound() -> None:
    declared = (CreateOrderSaga, ProcessOrderSaga)

    assert [saga.name for saga in sagas.definitions] == [saga.definition.name for saga in declared]
    assert check(*declared, notes=True) == []


def test_so_is_the_program() -> None:
    result = say("-A", "order_service.worker", "check", "--strict")

    assert result.exit_code == 0, result.output
    assert result.output.endswith("Nothing is wrong.\n")
