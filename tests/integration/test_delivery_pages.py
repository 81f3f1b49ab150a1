"""The shipping's page and its switch: whoever looks needs nothing, whoever switches a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from app_common.messaging.delivery_service_messaging import ShipOrder
from app_common.messaging.inventory_service_messaging import StockItem
from sagas_framework import Participant
from tests.integration.asking import ANN, BEN, BROWSER, Asking, bearer, beat, client_of, csrf_of, serving

OFF: Final = "The shipping service is currently deactivated for routine maintenance."


@pytest.fixture
def delivery(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    with serving("delivery_service", sqlite_url, monkeypatch) as participant:
        yield participant


@pytest.fixture
def client(delivery: Participant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with client_of("delivery_service", monkeypatch) as client:
        yield client


def ship(delivery: Participant, customer: str = "Casey", item: str = "milk") -> str:
    items = [StockItem(name=item, quantity=2)]
    return Asking(delivery)(ShipOrder(order_id="order_casey_1irq1", customer=customer, items=items))[0]


def test_an_operator_deactivates_and_activates(client: Any, delivery: Participant) -> None:
    off = client.post("/shipping/deactivate", headers=bearer(BEN))
    refused = ship(delivery)
    on = client.post("/shipping/activate", headers=bearer(ANN))

    assert (off.status_code, off.json["shipping"], off.json["message"]) == (200, False, OFF)
    assert off.json["switched_by"] == "ben"
    assert refused == "refused"
    assert (on.status_code, on.json["shipping"], on.json["switched_by"]) == (200, True, "ann")
    assert ship(delivery) == "success"


def test_switching_twice_is_as_good_as_once(client: Any) -> None:
    first = client.post("/shipping/deactivate", headers=bearer(BEN))
    again = client.post("/shipping/deactivate", headers=bearer(ANN))

    assert again.json == first.json  # it is still Ben who did it
    assert again.status_code == 200


@pytest.mark.parametrize("path", ["/shipping/deactivate", "/shipping/activate"])
@pytest.mark.parametrize(
    "headers", [{}, bearer("x" * 26), bearer(""), bearer(ANN[1:]), {"Authorization": "Bearer"}]
)
def test_without_ones_own_token_nothing_is_switched(client: Any, path: str, headers: dict[str, str]) -> None:
    before = client.get("/").json

    answer = client.post(path, headers=headers)

    assert answer.status_code == 401
    assert client.get("/").json == before


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_a_post_switches(client: Any, method: str) -> None:
    assert client.open("/shipping/deactivate", method=method, headers=bearer(ANN)).status_code == 405
    assert client.get("/").json["shipping"] is True


def test_the_page_has_the_switch_for_who_has_logged_in(client: Any) -> None:
    before = client.get("/", headers=BROWSER)
    client.post("/login", data={"token": ANN}, headers=BROWSER)
    page = client.get("/", headers=BROWSER)
    pressed = client.post("/shipping/deactivate", data={"csrf": csrf_of(page.text)}, headers=BROWSER)
    after = client.get("/", headers=BROWSER)

    assert "Log in to change something" in before.text
    assert "<form" not in before.text
    assert "Begin maintenance" in page.text
    assert "ann" in page.text
    assert (pressed.status_code, pressed.headers["Location"]) == (303, "/")
    assert "In maintenance" in after.text
    assert 'action="/shipping/activate"' in after.text


def test_a_form_of_another_origin_switches_nothing(client: Any) -> None:
    client.post("/login", data={"token": ANN}, headers=BROWSER)
    token = csrf_of(client.get("/", headers=BROWSER).text)

    answer = client.post(
        "/shipping/deactivate",
        data={"csrf": token},
        headers=BROWSER | {"Origin": "http://localhost:3002", "Sec-Fetch-Site": "same-site"},
    )

    assert answer.status_code == 403
    assert client.get("/").json["shipping"] is True


def test_what_left_is_shown_as_text(client: Any, delivery: Participant) -> None:
    ship(delivery, customer="<b>Riley</b>", item="<img src=x>")

    page = client.get("/", headers=BROWSER).text
    told = client.get("/").json["shipments"]

    assert "<b>Riley" not in page
    assert "<img" not in page
    assert "&lt;b&gt;Riley&lt;/b&gt;" in page
    assert "&lt;img src=x&gt;" in page
    assert told[0]["customer"] == "<b>Riley</b>"
    assert told[0]["status"] == "SHIPPED"


def test_who_has_the_page_already_gets_304_until_something_changes(
    client: Any, delivery: Participant
) -> None:
    for headers in (BROWSER, {}):
        known = {"If-None-Match": client.get("/", headers=headers).headers["ETag"]}
        same = client.get("/", headers=headers | known)
        ship(delivery)
        changed = client.get("/", headers=headers | known)

        assert (same.status_code, same.data, changed.status_code) == (304, b"", 200)


def test_it_is_healthy_while_its_worker_turns(client: Any, delivery: Participant) -> None:
    assert client.get("/healthz").status_code == 503
    beat(delivery)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json["service"]) == (200, "delivery_service")
