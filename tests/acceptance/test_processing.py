"""Each ending of an order of items from the stock, by requests, against the demo and against real servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from tests.acceptance.application import Application, demo
from tests.servers import wait_until

CHRIS: Final = "chris-has-a-token-0123"
OPERATOR: Final = "an-operators-token-4567"
DEADLINE: Final = 30
"""Seconds that an order waits for an approval here: enough to give one, and not too long to wait for none."""
PATIENCE: Final = 90
"""Seconds within which an order ends, on a machine that does other things as well."""

RILEY: Final = '{"customer": "Riley", "items": ["milk", "bread", "iPhone"], "total": 1299.00}'
CASEY: Final = '{"customer": "Casey", "items": ["milk", "bread"], "total": 10.00}'
IN_VAIN: Final = '{"customer": "Sam", "items": ["oranges", "oranges"], "total": "1000.00"}'
DONE: Final = "Order processed successfully"


@pytest.fixture(scope="module", params=["demo", "local"])
def application(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    """The application, as ``make demo`` and as ``make local`` start it."""
    folder = tmp_path_factory.mktemp(request.param)
    own = {
        "APPROVER_TOKENS": f"Chris:{CHRIS}",
        "OPERATOR_TOKENS": f"ann:{OPERATOR}",
        "APPROVAL_DEADLINE": str(DEADLINE),
    }
    if request.param == "demo":
        made = demo(folder)
        application = replace(made, environment={**made.environment, **own})
    else:
        databases = request.getfixturevalue("databases")
        own |= {
            "CELERY_BROKER": request.getfixturevalue("rabbitmq_module_url"),
            "APP_SQLALCHEMY_DATABASE_URI": databases,
        }
        application = Application("app_common.local", databases, own, folder)
    application.start()
    yield application
    application.close()


@dataclass(frozen=True)
class Desk:
    """Where orders are posted and looked at."""

    application: Application

    def post(self, body: str) -> str:
        """Take an order; its id."""
        answer = self.application.ask("POST", "/processing/orders", body)
        assert answer.status == 202, answer.body
        assert answer.headers["location"] == f"/processing/orders/{answer.json['order_id']}"
        order_id: str = answer.json["order_id"]
        return order_id

    def look(self, order_id: str) -> Any:
        answer = self.application.ask("GET", f"/processing/orders/{order_id}")
        assert answer.status == 200, answer.body
        return answer.json

    def decide(self, order_id: str, approved: bool) -> int:
        """Say Chris's decision; the status of the answer."""
        body = json.dumps({"approver": "Chris", "approved": approved})
        path = f"/processing/orders/{order_id}/approve"
        return self.application.ask("POST", path, body, more={"Authorization": f"Bearer {CHRIS}"}).status

    def waits(self, order_id: str) -> None:
        """Return when it waits for an approval."""
        wait_until(lambda: self.look(order_id)["approval"]["waiting"], f"{order_id} to wait", PATIENCE)

    def ended(self, order_id: str) -> Any:
        """The order once it has ended."""
        wait_until(lambda: self.look(order_id)["status"] != "RUNNING", f"{order_id} to end", PATIENCE)
        return self.look(order_id)

    def told(self, order_id: str, last: str) -> list[str]:
        """What its customer was told, in order, when the last of it has come."""

        def messages() -> list[str]:
            port = self.application.pages["notification_service"]
            page = self.application.ask("GET", f"/notifications?order={order_id}", port=port).json
            return [one["message"] for one in reversed(page["notifications"])]

        wait_until(lambda: last in messages(), f"{last!r} to be told", PATIENCE)
        return messages()

    def stock(self) -> Mapping[str, int]:
        """What the items of these orders but that one are there."""
        port = self.application.pages["inventory_service"]
        there = self.application.ask("GET", "/inventory", port=port).json
        return {item: there[item] for item in ("milk", "bread", "iPhone")}

    def ship(self, what: str) -> None:
        """Switch the maintenance mode."""
        port = self.application.pages["delivery_service"]
        by_token = {"Authorization": f"Bearer {OPERATOR}"}
        assert self.application.ask("POST", f"/shipping/{what}", more=by_token, port=port).status == 200

    def kept(self, order_id: str) -> str | None:
        """What was charged for the order and not given back, None if nothing was."""
        rows = self.application.query(
            "accounting_service",
            "SELECT charges.amount FROM charges LEFT JOIN refunds ON refunds.charge_id = charges.id "
            "WHERE charges.order_id = :order_id AND refunds.charge_id IS NULL",
            order_id=order_id,
        )
        assert len(rows) < 2, rows
        return f"{rows[0].amount}" if rows else None

    def shipments(self, order_id: str) -> int:
        (row,) = self.application.query(
            "delivery_service",
            "SELECT count(*) AS number FROM shipments WHERE order_id = :order_id AND status = 'SHIPPED'",
            order_id=order_id,
        )
        return int(row.number)


@pytest.fixture(scope="module")
def in_vain(application: Application) -> str:
    """An order that nobody approves, posted before all others."""
    return Desk(application).post(IN_VAIN)


@pytest.fixture
def desk(application: Application, in_vain: str) -> Desk:
    return Desk(application)


def less(stock: Mapping[str, int], *items: str) -> dict[str, int]:
    return {item: number - items.count(item) for item, number in stock.items()}


def test_a_cheap_order_is_approved_by_itself(desk: Desk) -> None:
    before = desk.stock()
    order_id = desk.post(CASEY)

    order = desk.ended(order_id)

    assert order["status"] == "COMPLETED"
    assert order["order_result"] == {"id": order_id, "success": True, "message": DONE}
    assert desk.told(order_id, "Order submitted for shipping") == [
        "Received order for Casey: milk, bread. Total = 10.00",
        "Reserved inventory for order: milk, bread",
        "Payment was processed successfully",
        "Order submitted for shipping",
    ]
    assert desk.stock() == less(before, "milk", "bread")
    assert (desk.kept(order_id), desk.shipments(order_id)) == ("10.00", 1)
    assert desk.decide(order_id, True) == 409


def test_an_expensive_order_is_approved(desk: Desk) -> None:
    before = desk.stock()
    order_id = desk.post(RILEY)
    desk.waits(order_id)

    said = desk.decide(order_id, True)
    order = desk.ended(order_id)

    assert said == 200
    assert (order["status"], order["order_result"]["success"]) == ("COMPLETED", True)
    told = desk.told(order_id, "Order submitted for shipping")
    assert told.pop(2).startswith("Waiting for approval since order >= 1000.00. Deadline = ")
    assert told == [
        "Received order for Riley: milk, bread, iPhone. Total = 1299.00",
        "Reserved inventory for order: milk, bread, iPhone",
        "Order was approved by Chris.",
        "Payment was processed successfully",
        "Order submitted for shipping",
    ]
    assert desk.stock() == less(before, "milk", "bread", "iPhone")
    assert (desk.kept(order_id), desk.shipments(order_id)) == ("1299.00", 1)
    assert desk.decide(order_id, False) == 409


def test_an_expensive_order_is_rejected(desk: Desk) -> None:
    before = desk.stock()
    order_id = desk.post(RILEY)
    desk.waits(order_id)
    assert desk.stock() == less(before, "milk", "bread", "iPhone")

    said = desk.decide(order_id, False)
    order = desk.ended(order_id)

    assert said == 200
    assert order["status"] == "COMPLETED"
    assert order["order_result"] == {
        "id": order_id,
        "success": False,
        "message": "Order was rejected by Chris.",
    }
    assert desk.told(order_id, "Order was rejected by Chris.")[3:] == ["Order was rejected by Chris."]
    assert desk.stock() == before
    assert (desk.kept(order_id), desk.shipments(order_id)) == (None, 0)


def test_an_early_approval_counts(desk: Desk) -> None:
    order_id = desk.post(RILEY)

    said = desk.decide(order_id, True)  # nobody looks whether it waits by now
    order = desk.ended(order_id)

    assert said in (200, 202)
    assert (order["order_result"]["success"], order["approval"]["approver"]) == (True, "Chris")
    assert "Order was approved by Chris." in desk.told(order_id, "Order submitted for shipping")


def test_what_is_out_of_stock_is_not_ordered(desk: Desk) -> None:
    before = desk.stock()
    order_id = desk.post(json.dumps({"customer": "Casey", "items": ["milk"] * 11, "total": 10}))

    order = desk.ended(order_id)

    assert order["status"] == "COMPLETED"
    assert order["order_result"]["success"] is False
    assert order["order_result"]["message"].startswith("Inventory failed for order: Out of stock: milk (11")
    assert len(desk.told(order_id, order["order_result"]["message"])) == 2
    assert desk.stock() == before


def test_a_payment_that_is_declined_gives_the_items_back(desk: Desk) -> None:
    before = desk.stock()
    order_id = desk.post('{"customer": "Penniless Pat", "items": ["milk"], "total": "10.00"}')

    order = desk.ended(order_id)

    message = "Payment failed for order: The payment of 10.00 by Penniless Pat was declined"
    assert order["order_result"] == {"id": order_id, "success": False, "message": message}
    assert desk.told(order_id, message)[2:] == [message]
    assert desk.stock() == before
    assert (desk.kept(order_id), desk.shipments(order_id)) == (None, 0)


def test_shipping_in_maintenance_gives_the_money_back(desk: Desk) -> None:
    before = desk.stock()
    desk.ship("deactivate")
    try:
        order_id = desk.post(CASEY)
        order = desk.ended(order_id)
    finally:
        desk.ship("activate")

    why = (
        "Error submitting order for shipping: "
        "The shipping service is currently deactivated for routine maintenance."
    )
    assert order["status"] == "FAILED"
    assert order["failure_details"] == {
        "error_type": "ShippingDeactivated",
        "message": f"{order_id}: {why}",
        "step": "ship_order",
    }
    refunded = "Payment of 10.00 was refunded"
    assert desk.told(order_id, refunded)[2:] == [
        "Payment was processed successfully",
        why,
        "Payment is being refunded",
        refunded,
    ]
    assert desk.stock() == before
    assert (desk.kept(order_id), desk.shipments(order_id)) == (None, 0)


def test_by_curl_as_people_do(desk: Desk) -> None:
    """A terminal says the same: an order is posted, looked at, and approved with a token."""
    application = desk.application
    orders = f"http://127.0.0.1:{application.port}/processing/orders"
    json_type = ("-H", "Content-Type: application/json")

    def curl(*arguments: str) -> str:
        done = subprocess.run(
            ["curl", "-sS", "-i", *arguments], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    posted = curl("-X", "POST", orders, *json_type, "-d", RILEY)
    order_id = json.loads(posted.splitlines()[-1])["order_id"]
    desk.waits(order_id)
    waiting = curl(f"{orders}?waiting=1")
    nobody = curl(
        *("-X", "POST", f"{orders}/{order_id}/approve", *json_type),
        *("-d", '{"approver": "Chris", "approved": true}'),
    )
    approved = curl(
        *("-X", "POST", f"{orders}/{order_id}/approve", *json_type),
        *("-H", f"Authorization: Bearer {CHRIS}", "-d", '{"approver": "Chris", "approved": true}'),
    )
    desk.ended(order_id)
    seen = curl(f"{orders}/{order_id}")

    assert posted.startswith("HTTP/1.1 202 ACCEPTED")
    assert f"Location: /processing/orders/{order_id}" in posted
    assert order_id in waiting
    assert nobody.startswith("HTTP/1.1 401 UNAUTHORIZED")
    assert approved.startswith("HTTP/1.1 200 OK")
    assert f"Approval sent for order: {order_id}" in approved
    assert '"COMPLETED"' in seen


def test_an_order_that_nobody_approves_in_time_expires(desk: Desk, in_vain: str) -> None:
    order = desk.ended(in_vain)

    assert order["status"] == "COMPLETED"
    assert order["order_result"] == {
        "id": in_vain,
        "success": False,
        "message": "Approval deadline expired.",
    }
    assert order["saga"]["outcome"]["kind"] == "expired"
    assert desk.told(in_vain, "Approval deadline expired.")[3:] == ["Approval deadline expired."]
    assert desk.decide(in_vain, True) == 409
    assert (desk.kept(in_vain), desk.shipments(in_vain)) == (None, 0)
    port = desk.application.pages["inventory_service"]
    assert desk.application.ask("GET", "/inventory", port=port).json["oranges"] == 10
