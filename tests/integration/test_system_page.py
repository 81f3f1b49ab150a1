"""``GET /system`` of the order service: the picture, and the same as a table and as JSON."""

from __future__ import annotations

import re
from html import unescape
from typing import Final

import pytest
from flask.testing import FlaskClient

from app_common.running import SERVICES
from app_common.settings import docs_ports
from app_common.specifications import specification
from order_service.system import described_at
from order_service.web import create_app

HTML: Final = {"Accept": "text/html"}
UNASKED: Final = {
    # A participant answers how any command of it stands; no saga here asks of what it need not undo.
    "consumer_service.verify_consumer_details.settle",
    "delivery_service.cancel_shipment",  # of the pivot: a parcel on its way is not called back
}
"""What no saga here asks for."""
SIGNALS: Final = {"process_order.signal.approval"}
"""What approvers say over HTTP, and what no service here says over the broker."""
EVENTS: Final = {
    "order_service.customer_told": ("order_service", "notification_service"),
    "accounting_service.payment_refunded": ("accounting_service", "notification_service"),
    "inventory_service.low_stock": ("inventory_service", "notification_service"),
}
"""Who tells, and who listens."""


@pytest.fixture
def client() -> FlaskClient:
    return create_app().test_client()


def test_json_tells_every_channel_with_both_its_sides(client: FlaskClient) -> None:
    told = client.get("/system", base_url="http://platform.example:5000").get_json()

    channels = {
        operation["channel"]["$ref"].removeprefix("#/channels/")
        for service in SERVICES
        for operation in specification(service).document["operations"].values()
    }
    assert [one["name"] for one in told["services"]] == list(SERVICES)
    assert {one["channel"] for one in told["channels"]} == channels
    assert {one["channel"] for one in told["channels"] if one["sender"] is None} == UNASKED | SIGNALS
    for one in told["channels"]:
        receiver = one["receiver"]["service"]
        port = docs_ports(SERVICES)[receiver]
        if one["channel"] in EVENTS:
            assert (one["sender"]["service"], receiver) == EVENTS[one["channel"]]
            assert (one["exchange"], one["address"]) == ("events", one["channel"])
            assert (one["reply_address"], one["replies"]) == (None, [])
            anchor = f"operation-receive-{one['receiver']['id']}"
        elif one["channel"] in SIGNALS:
            assert (one["address"], one["replies"]) == ("create_order_saga_responses", [])
            anchor = f"operation-receive-{one['receiver']['id']}"
        else:
            if one["channel"] not in UNASKED:
                assert one["sender"]["service"] == "order_service"
                assert one["reply_address"] == "create_order_saga_responses"
            assert (one["exchange"], one["address"]) == (None, f"{receiver}.commands")
            anchor = f"operation-reply-{one['receiver']['id']}"
        assert one["receiver"]["docs"] == f"http://platform.example:{port}/#{anchor}"
        assert one["receiver"]["id"] in specification(receiver).document["operations"]


def test_the_table_says_what_the_picture_shows(client: FlaskClient) -> None:
    page = client.get("/system", headers=HTML).text
    told = client.get("/system").get_json()

    picture, table = page.split("</figure>")
    for one in told["channels"]:
        for side in ("sender", "receiver"):
            if one[side] is None:
                assert one["channel"] in UNASKED | SIGNALS
                continue
            link = f'href="{one[side]["docs"]}"'
            assert link in unescape(picture), one
            assert link in unescape(table), one
        assert one["channel"] in table
    assert all(f">{specification(service).title}<" in table for service in SERVICES)


def test_the_page_is_whole_without_a_script_and_has_no_style_of_its_own(client: FlaskClient) -> None:
    page = client.get("/system", headers=HTML).text

    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert " style=" not in page
    assert "<table" in page
    assert "<svg" in page


def test_who_has_it_already_gets_304(client: FlaskClient) -> None:
    first = client.get("/system", headers=HTML)

    again = client.get("/system", headers=HTML | {"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 304
    assert "Accept" in first.headers["Vary"]


def test_it_is_found_from_every_page(client: FlaskClient) -> None:
    page = client.get("/system", headers=HTML).text
    launch = client.get("/run-success-saga", headers=HTML).text

    assert '<a href="/system" aria-current="page">System</a>' in page
    assert '<a href="/system">System</a>' in launch


@pytest.mark.parametrize(
    ("task", "where"),
    [
        ("restaurant_service.reject_ticket", "restaurant_service"),
        ("accounting_service.authorize_card.settle", "accounting_service"),
        ("nobody.knows_it", None),
    ],
)
def test_a_task_is_described_on_the_page_of_whoever_receives_it(task: str, where: str | None) -> None:
    app = create_app()

    with app.test_request_context("/sagas/1", base_url="http://platform.example:5000"):
        found = described_at(task)

    if where is None:
        assert found is None
        return
    operation = specification(where).document["operations"][f"receive_{task.replace('.settle', '_settle')}"]
    assert operation["channel"]["$ref"] == f"#/channels/{task}"
    assert found is not None
    assert found.startswith(f"http://platform.example:{docs_ports(SERVICES)[where]}/#operation-reply-")
    assert found.endswith(f"receive_{task.replace('.settle', '_settle')}")
