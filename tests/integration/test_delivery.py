"""The delivery on real databases: what is shipped, called back, and held by the maintenance mode."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Event
from typing import Any, Final

import pytest
from sqlalchemy import select

from app_common.messaging.delivery_service_messaging import CancelShipment, ShipOrder
from app_common.messaging.inventory_service_messaging import StockItem
from delivery_service import shipping
from delivery_service.models import Shipment, ShipmentStatus
from sagas_framework import Participant
from sagas_framework.storage.database import Database
from tests.integration.asking import Asking, answer, serving, session_of
from tests.servers import wait_until

NOON: Final = datetime(2026, 3, 17, 12, tzinfo=UTC)
ORDER: Final = ShipOrder(
    order_id="order_casey_1irq1", customer="Casey", items=[StockItem(name="milk", quantity=2)]
)


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def delivery(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    with serving("delivery_service", request.getfixturevalue(request.param), monkeypatch) as participant:
        yield participant


def shipments(delivery: Participant) -> list[str]:
    with session_of(delivery) as session:
        return [status.value for status in session.scalars(select(Shipment.status).order_by(Shipment.id))]


def switch(delivery: Participant, *, active: bool) -> bool:
    with session_of(delivery) as session:
        return shipping.switch(session, active=active, by="ann", at=NOON)


def test_an_order_is_shipped_once(delivery: Participant) -> None:
    asking = Asking(delivery)

    results = [asking(ORDER), asking(ORDER), asking(ORDER, attempt=2)]

    assert results[0][0] == "success"
    assert results == [results[0]] * 3
    with session_of(delivery) as session:
        (shipment,) = shipping.latest(session, 5)
        assert (shipment.id, shipment.customer) == (results[0][1]["shipment_id"], "Casey")
        assert shipment.items == [{"name": "milk", "quantity": 2}]
        assert shipment.at.tzinfo is UTC


def test_in_maintenance_nothing_is_shipped_and_the_reason_is_told(delivery: Participant) -> None:
    switch(delivery, active=True)

    result, said = Asking(delivery)(ORDER)

    assert result == "refused"
    assert said["type"] == "ShippingDeactivated"
    assert said["message"] == "The shipping service is currently deactivated for routine maintenance."
    assert shipments(delivery) == []


def test_after_maintenance_new_orders_are_shipped_and_refused_ones_stay_refused(
    delivery: Participant,
) -> None:
    refused = Asking(delivery)
    switch(delivery, active=True)
    first = refused(ORDER)
    switch(delivery, active=False)

    assert refused(ORDER) == first
    assert Asking(delivery)(ORDER)[0] == "success"
    assert shipments(delivery) == ["SHIPPED"]


def test_the_mode_is_a_row_that_outlives_the_process(delivery: Participant) -> None:
    assert switch(delivery, active=True)
    assert not switch(delivery, active=True)  # it was on already

    assert delivery.database is not None
    another = Database("delivery_service", delivery.database.url)
    with another.engine.connect() as connection:
        row = connection.exec_driver_sql("SELECT active, by FROM maintenance").one()
    another.engine.dispose()

    assert (bool(row.active), row.by) == (True, "ann")


def test_a_shipment_is_called_back_once_also_in_maintenance(delivery: Participant) -> None:
    asking = Asking(delivery)
    _, reply = asking(ORDER)
    switch(delivery, active=True)
    cancel = CancelShipment(shipment_id=reply["shipment_id"])

    assert [asking(cancel, known=True), asking(cancel, known=True, attempt=2)] == [("success", None)] * 2
    assert shipments(delivery) == [ShipmentStatus.CANCELLED.value]


def test_calling_back_first_withdraws_the_shipment_that_comes_later(delivery: Participant) -> None:
    asking = Asking(delivery)

    assert asking(CancelShipment(shipment_id=None)) == ("success", None)
    assert asking(ORDER)[1]["type"] == "Withdrawn"
    assert shipments(delivery) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"customer": ""},
        {"customer": "C\nasey"},
        {"customer": "x" * 201},
        {"items": []},
        {"items": [{"name": "milk", "quantity": -1}]},
        {"order_id": ""},
        {"order_id": 5},
        {"customer": None},
    ],
)
def test_an_order_that_cannot_be_is_refused(delivery: Participant, changes: dict[str, Any]) -> None:
    message = Asking(delivery).message(ShipOrder, payload=ORDER.to_json() | changes)

    result, said = answer(delivery.receive(message))

    assert (result, said["type"]) == ("refused", "InvalidPayload")
    assert shipments(delivery) == []


def waiting(delivery: Participant) -> bool:
    """Whether a transaction of the database waits for another."""
    query = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    with delivery.engine.connect() as connection:
        return bool(connection.exec_driver_sql(query).scalar_one())


def test_once_the_switch_is_turned_nothing_leaves_any_more(delivery: Participant) -> None:
    """A shipment that is under way commits before the switch does, or is refused."""
    begun, finish = Event(), Event()

    def ship() -> None:
        with session_of(delivery) as session:
            shipping.ship(session, "k", "o", "Casey", ORDER.items, NOON)
            session.flush()
            begun.set()
            assert finish.wait(20)

    with ThreadPoolExecutor(2) as pool:
        shipped = pool.submit(ship)
        assert begun.wait(20)
        switched = pool.submit(switch, delivery, active=True)
        if delivery.engine.dialect.name == "postgresql":  # SQLite does not tell who waits
            wait_until(lambda: waiting(delivery), "the switch to wait for the shipment")
        finish.set()
        shipped.result(20)
        assert switched.result(20)

    assert Asking(delivery)(ORDER)[0] == "refused"
    assert shipments(delivery) == ["SHIPPED"]


def test_in_a_batch_orders_are_shipped_as_they_are_alone(delivery: Participant) -> None:
    messages = [Asking(delivery).message(ORDER) for _ in range(3)]

    assert [answer(reply)[0] for reply in delivery.receive_all(messages)] == ["success"] * 3
    switch(delivery, active=True)
    messages = [Asking(delivery).message(ORDER) for _ in range(3)]
    assert [answer(reply)[0] for reply in delivery.receive_all(messages)] == ["refused"] * 3
