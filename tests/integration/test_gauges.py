"""What the rows of an orchestrator's database say as gauges, on real databases."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import event

from sagas_framework import Outcome, OutcomeKind, Queue, Saga, SagaInstance, Sagas, Status, Steps
from sagas_framework.core.why import QueueSeen
from sagas_framework.gauges import KEPT_FOR, RowGauges
from sagas_framework.sagas import new_saga_id
from sagas_framework.storage.sql import SqlStore
from sagas_framework.telemetry import OLDEST, OPEN, OVERDUE, QUARANTINED, WAITING, Figures, active
from tests.contract.looking import (
    NOON,
    InSql,
    after,
    an_instance,
    messages,
    postgres_database,
    sqlite_database,
)
from tests.integration.tracing import Traces, traced
from tests.servers import OwnPostgres

REFUSED = Outcome(OutcomeKind.REFUSED, "CardRefused")
FAILED = Outcome(OutcomeKind.FAILED, "RuntimeError")


class Order(BaseModel):
    order_id: int


def note(order: Order, session: Any) -> None: ...


step = Steps(Order)


class CreateOrder(Saga[Order], name="create_order", version=1):
    note = step.local(note)


class Clocks:
    """The clock of the rows, and that by which figures are kept; both are moved by hand."""

    def __init__(self) -> None:
        self.now = NOON
        self.monotonic = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.monotonic += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    clocks = Clocks()
    monkeypatch.setattr("sagas_framework.gauges.time", SimpleNamespace(monotonic=lambda: clocks.monotonic))
    return clocks


@pytest.fixture(params=["sqlite_url", "postgres_module_url"])
def there(request: pytest.FixtureRequest) -> Iterator[InSql]:
    """An empty database."""
    url: str = request.getfixturevalue(request.param)
    with sqlite_database(url) if url.startswith("sqlite") else postgres_database(url) as there:
        yield there


def sagas_of(url: str, clocks: Clocks) -> Sagas:
    replies = Queue("orders.replies")
    return Sagas("orders", url, sagas=[CreateOrder], reply_queue=replies, clock=lambda: clocks.now)


@pytest.fixture
def sagas(there: InSql, clocks: Clocks) -> Iterator[Sagas]:
    sagas = sagas_of(there.engine.url.render_as_string(hide_password=False), clocks)
    yield sagas
    sagas.engine.dispose()


def started(moment: datetime, status: Status = Status.RUNNING, **changes: Any) -> SagaInstance:
    """An instance that was started then; its id says so."""
    saga_id = new_saga_id(moment)
    values: dict[str, Any] = {"id": saga_id, "key": saga_id, "created_at": moment, "status": status}
    return an_instance("any", **(values | changes))


def said(figures: Figures, name: str) -> dict[tuple[str, ...], float]:
    """The values of a gauge, by those of its labels."""
    return {tuple(whose.values()): value for value, whose in figures.get(name, ())}


def test_open_sagas_are_counted_by_status_and_outcome_and_each_status_has_its_oldest(
    there: InSql, sagas: Sagas, clocks: Clocks
) -> None:
    there.seed(
        started(after(0)),
        started(after(10)),
        started(after(5), saga="process_order"),
        started(after(20), Status.COMPENSATING, outcome=REFUSED),
        started(after(15), Status.COMPENSATING, outcome=FAILED),
        started(after(25), Status.COMPENSATING, outcome=FAILED),
        started(after(30), Status.PARKED),
        started(after(40), Status.PARKED, outcome=FAILED),
        # Those that have ended are told of nowhere.
        started(after(-100), Status.COMPLETED, outcome=Outcome(OutcomeKind.OK)),
        started(after(-100), Status.COMPENSATED, outcome=REFUSED),
    )
    clocks.pass_by(60)

    figures = RowGauges(sagas)()

    assert said(figures, OPEN) == {
        ("create_order", "running", ""): 2,
        ("process_order", "running", ""): 1,
        ("create_order", "compensating", "refused"): 1,
        ("create_order", "compensating", "failed"): 2,
        ("create_order", "parked", ""): 1,
        ("create_order", "parked", "failed"): 1,
    }
    assert said(figures, OLDEST) == {
        ("create_order", "running"): 60,
        ("process_order", "running"): 55,
        ("create_order", "compensating"): 45,
        ("create_order", "parked"): 30,
    }


def test_what_is_overdue_in_quarantine_and_in_queues_is_told(
    there: InSql, sagas: Sagas, clocks: Clocks
) -> None:
    there.seed(
        started(after(0), due_at=after(50)),
        started(after(0), due_at=after(500)),
        # Nobody here comes to sagas that are not declared here.
        started(after(0), due_at=after(1), saga="process_order"),
    )
    store = SqlStore(there.engine)
    with store.transaction() as tx:
        tx.quarantine(messages(3))
    store.note_queues(
        [QueueSeen("kitchen.commands", after(1), 17, 1), QueueSeen("bar.commands", after(1), 0, 1)]
    )
    clocks.pass_by(60)

    figures = RowGauges(sagas)()

    assert said(figures, OVERDUE) == {("orders",): 10}
    assert said(figures, QUARANTINED) == {("orders",): 3}
    assert said(figures, WAITING) == {("kitchen.commands",): 17, ("bar.commands",): 0}


def test_of_nothing_the_gauges_say_nought(sagas: Sagas) -> None:
    figures = RowGauges(sagas)()

    assert figures == {
        OPEN: [],
        OLDEST: [],
        OVERDUE: [(0.0, {"service": "orders"})],
        QUARANTINED: [(0, {"service": "orders"})],
        WAITING: [],
    }


def test_what_is_due_later_is_not_late(there: InSql, sagas: Sagas) -> None:
    there.seed(started(after(0), due_at=after(500)))

    assert said(RowGauges(sagas)(), OVERDUE) == {("orders",): 0}


def test_the_rows_are_read_once_in_a_while_however_many_look(
    there: InSql, sagas: Sagas, clocks: Clocks
) -> None:
    gauges = RowGauges(sagas)
    read: list[str] = []
    event.listen(sagas.database.impatient.engine, "before_cursor_execute", lambda *said: read.append(said[2]))

    before = [gauges() for _ in range(5)]
    once = len(read)
    there.seed(started(after(0)))
    clocks.pass_by(KEPT_FOR - 0.1)
    kept = gauges()
    assert (len(read), once > 0) == (once, True)
    clocks.pass_by(0.1)
    anew = gauges()

    assert all(figures == kept for figures in before)
    assert said(kept, OPEN) == {}
    assert said(anew, OPEN) == {("create_order", "running", ""): 1}
    assert len(read) == 2 * once


def test_while_the_database_is_away_there_are_no_figures_rather_than_old_ones(
    own_postgres: OwnPostgres, clocks: Clocks, caplog: pytest.LogCaptureFixture
) -> None:
    sagas = sagas_of(own_postgres.url, clocks)
    sagas.upgrade()
    gauges = RowGauges(sagas)
    assert said(gauges(), OVERDUE) == {("orders",): 0}

    own_postgres.kill()
    clocks.pass_by(KEPT_FOR)
    with caplog.at_level(logging.WARNING, "sagas_framework"):
        assert gauges() == {}
        assert gauges() == {}  # nor is it asked again at once

    (warned,) = caplog.records
    assert "the gauges cannot be read" in warned.getMessage()
    assert warned.exc_info is None
    own_postgres.start()
    clocks.pass_by(KEPT_FOR)
    assert said(gauges(), OVERDUE) == {("orders",): 0}
    sagas.engine.dispose()


@pytest.fixture
def traces() -> Iterator[Traces]:
    with traced() as traces:
        yield traces


def test_an_exporter_sees_them_for_as_long_as_they_are_watched(traces: Traces) -> None:
    rows: Mapping[str, Any] = {OPEN: [(3, {"saga": "create_order", "status": "parked", "outcome": ""})]}
    telemetry = active()
    assert telemetry is not None
    unwatch = telemetry.watch(lambda: rows)

    assert traces.metrics()[OPEN] == [({"saga": "create_order", "status": "parked", "outcome": ""}, 3)]
    unwatch()
    assert OPEN not in traces.metrics()
