"""What sagas cost, on a real PostgreSQL: bytes of rows, and what the server did meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from sagas_framework import Outcome, OutcomeKind, Queue, Sagas, Status
from sagas_framework.clock import utc_now
from sagas_framework.core.events import Recorded
from sagas_framework.cost.counting import count
from sagas_framework.cost.metering import Watch
from sagas_framework.sagas import new_saga_id
from sagas_framework.storage.sql import SqlStore
from tests.contract.looking import InSql, an_instance, postgres_database
from tests.unit.core.stories import CreateOrderSaga


@pytest.fixture
def there(postgres_module_url: str) -> Iterator[InSql]:
    with postgres_database(postgres_module_url) as there:
        yield there


@pytest.fixture
def sagas(postgres_module_url: str) -> Iterator[Sagas]:
    sagas = Sagas(
        "order_service",
        postgres_module_url,
        sagas=[CreateOrderSaga],
        reply_queue=Queue("order_service.replies"),
    )
    yield sagas
    sagas.engine.dispose()


def ends(there: InSql, name: str, ago: timedelta = timedelta(0)) -> None:
    """A saga that began a second before it ended, with a line of history."""
    at = utc_now() - ago
    begun = at - timedelta(seconds=1)
    instance = an_instance(name, id=new_saga_id(begun), created_at=begun, updated_at=at)
    there.seed(replace(instance, status=Status.COMPLETED, outcome=Outcome(OutcomeKind.OK), ended_at=at))
    with SqlStore(there.engine).transaction() as tx:
        tx.write([], [(instance.id, 1, Recorded(at, "completed", None, {"note": "x" * 500}))])


def test_the_bytes_of_instance_and_history_are_those_of_their_rows(there: InSql, sagas: Sagas) -> None:
    ends(there, "1", ago=timedelta(seconds=10))
    ends(there, "2")

    counted = count(sagas, "create_order", 10)

    assert (counted.sagas, counted.history, counted.p50) == (2, 1.0, 1.0)
    assert counted.row_bytes is not None
    assert counted.row_bytes > 500
    assert counted.per_second == pytest.approx(0.1, rel=0.2)


def test_what_was_used_is_shared_out_among_those_that_ended_meanwhile(there: InSql, sagas: Sagas) -> None:
    ends(there, "before", ago=timedelta(minutes=1))
    watch = Watch(sagas.database, [sagas.database], utc_now())
    for number in range(4):
        ends(there, str(number))

    used = watch.used(utc_now())

    assert used is not None
    assert used.sagas == 4
    assert used.writes is not None
    assert used.writes >= 2  # the row and the line, each in a transaction of its own
    assert used.wal_bytes is not None
    assert used.wal_bytes > 500
    assert "postgres" in used.cpu_ms or not used.cpu_ms


def test_nothing_is_shared_out_among_nobody(sagas: Sagas, there: InSql) -> None:
    watch = Watch(sagas.database, [sagas.database], utc_now())

    assert watch.used(utc_now()) is None
