"""The stock's page and API: whoever looks needs nothing, whoever restocks a token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import delete

from app_common.messaging.inventory_service_messaging import ReserveItems, StockItem
from inventory_service import stock
from inventory_service.models import StockRow
from sagas_framework import Participant
from tests.integration.asking import (
    ANN,
    BROWSER,
    Asking,
    bearer,
    beat,
    client_of,
    csrf_of,
    serving,
    session_of,
)

FULL = {"apples": 10, "bread": 10, "iPhone": 10, "milk": 10, "oranges": 10}
RESTOCK = "/inventory/restock"


@pytest.fixture
def inventory(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    with serving("inventory_service", sqlite_url, monkeypatch) as participant:
        yield participant


@pytest.fixture
def client(inventory: Participant, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with client_of("inventory_service", monkeypatch) as client:
        yield client


def reserve(inventory: Participant, name: str, number: int) -> None:
    asked = ReserveItems(order_id="o", items=[StockItem(name=name, quantity=number)])
    assert Asking(inventory)(asked)[0] == "success"


def test_the_inventory_is_what_can_be_ordered(client: Any, inventory: Participant) -> None:
    reserve(inventory, "milk", 3)

    answer = client.get("/inventory")

    assert answer.status_code == 200
    assert answer.json == FULL | {"milk": 7}


def test_the_page_shows_what_is_there_reserved_and_low(client: Any, inventory: Participant) -> None:
    reserve(inventory, "milk", 8)
    reserve(inventory, "bread", 10)

    page = client.get("/", headers=BROWSER)
    told = client.get("/").json["stock"]

    assert page.status_code == 200
    assert 'name="live"' in page.text
    low = '<td class="name"><bdi>milk</bdi> <span class="low">low</span></td>'
    assert f'{low}<td class="right num">2</td><td class="right num">8</td>' in page.text
    assert ">out of stock</span>" in page.text
    assert "<form" not in page.text  # nobody has logged in
    assert {"item": "milk", "available": 2, "reserved": 8, "low": True} in told


def test_names_are_text_and_never_markup(client: Any, inventory: Participant) -> None:
    with session_of(inventory) as session:
        session.add(StockRow(item="<script>alert(1)</script>", available=1, received=1))

    page = client.get("/", headers=BROWSER).text

    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_who_has_the_page_already_gets_304_until_stock_changes(client: Any, inventory: Participant) -> None:
    for headers in (BROWSER, {}):
        known = {"If-None-Match": client.get("/", headers=headers).headers["ETag"]}
        same = client.get("/", headers=headers | known)
        reserve(inventory, "milk", 1)
        changed = client.get("/", headers=headers | known)

        assert (same.status_code, same.data, changed.status_code) == (304, b"", 200)


# ---- restocking -----------------------------------------------------------------------------------


def test_an_operator_puts_in_more(client: Any) -> None:
    answer = client.post(RESTOCK, json={"name": "milk", "quantity": 5}, headers=bearer(ANN))

    assert answer.status_code == 200
    assert answer.json == FULL | {"milk": 15}


def test_without_a_body_every_item_is_filled_up(client: Any, inventory: Participant) -> None:
    reserve(inventory, "milk", 4)

    answer = client.post(RESTOCK, headers=bearer(ANN))

    assert (answer.status_code, answer.json) == (200, FULL)


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"name": "gold", "quantity": 1}, 404, "There is no item 'gold'; there are: "),
        ({"name": "milk", "quantity": 1_000_000}, 409, "There is no room for so many of 'milk'"),
        ({"name": "milk", "quantity": 0}, 422, "quantity"),
        ({"name": "milk", "quantity": -1}, 422, "quantity"),
        ({"name": "milk", "quantity": "5"}, 422, "quantity"),
        ({"name": "milk", "quantity": 1.5}, 422, "quantity"),
        ({"name": "milk", "quantity": True}, 422, "quantity"),
        ({"name": "milk", "quantity": 10**30}, 422, "quantity"),
        ({"name": "milk"}, 422, "quantity"),
        ({"quantity": 1}, 422, "name"),
        ({"name": "", "quantity": 1}, 422, "name"),
        ({"name": "mi\u0000lk", "quantity": 1}, 422, "name"),
        ({"name": " ", "quantity": 1}, 422, "name"),
        ({"name": ["milk"], "quantity": 1}, 422, "name"),
        ({"name": "milk", "quantity": 1, "price": 1}, 422, "price"),
        ({}, 422, "name"),
        ([], 422, "$"),
    ],
)
def test_what_cannot_be_put_in_is_told_and_changes_nothing(
    client: Any, body: Any, status: int, said: str
) -> None:
    answer = client.post(RESTOCK, json=body, headers=bearer(ANN))

    assert answer.status_code == status
    assert said in answer.text.replace("\\u0027", "'")
    assert answer.json["do"]
    assert client.get("/inventory").json == FULL


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [("{", "application/json", 400), ("milk", "text/plain", 415), ('{"name": "milk"}', None, 415)],
)
def test_a_body_that_is_not_json_is_told(client: Any, body: str, kind: str | None, status: int) -> None:
    answer = client.post(RESTOCK, data=body, content_type=kind, headers=bearer(ANN))

    assert answer.status_code == status
    assert client.get("/inventory").json == FULL


@pytest.mark.parametrize(
    "headers",
    [
        {},
        bearer("x" * 26),
        bearer(""),
        bearer(ANN[:-1]),
        bearer(ANN + "x"),
        {"Authorization": f"Basic {ANN}"},
    ],
)
def test_without_ones_own_token_nothing_is_put_in(client: Any, headers: dict[str, str]) -> None:
    answer = client.post(RESTOCK, json={"name": "milk", "quantity": 5}, headers=headers)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in answer.json["do"]
    assert client.get("/inventory").json == FULL


def test_without_operators_nobody_puts_in_anything(
    inventory: Participant, monkeypatch: pytest.MonkeyPatch
) -> None:
    with client_of("inventory_service", monkeypatch, tokens="") as client:
        answer = client.post(RESTOCK, headers=bearer(ANN))
        page = client.get("/", headers=BROWSER).text

    assert answer.status_code == 403
    assert "OPERATOR_TOKENS" in answer.json["do"]
    assert "These pages only show" in page


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_a_post_restocks(client: Any, method: str) -> None:
    answer = client.open(RESTOCK, method=method, headers=bearer(ANN))

    assert answer.status_code == 405
    assert answer.json["error"] == f"{method} is not allowed on {RESTOCK}"


def test_a_form_of_the_page_puts_in_and_fills_up(client: Any) -> None:
    client.post("/login", data={"token": ANN}, headers=BROWSER)
    token = csrf_of(client.get("/", headers=BROWSER).text)

    more = client.post(RESTOCK, data={"csrf": token, "name": "milk", "quantity": "5"}, headers=BROWSER)
    there = client.get("/inventory").json
    everything = client.post(RESTOCK, data={"csrf": token, "all": "1"}, headers=BROWSER)

    assert (more.status_code, more.headers["Location"], everything.status_code) == (303, "/", 303)
    assert there == FULL | {"milk": 15}
    assert client.get("/inventory").json == there  # it was full


@pytest.mark.parametrize("quantity", ["", "many", "-1", "1.5", "0", "\u0665", "9" * 40])
def test_a_form_with_a_wrong_number_is_told_on_a_page(client: Any, quantity: str) -> None:
    client.post("/login", data={"token": ANN}, headers=BROWSER)
    token = csrf_of(client.get("/", headers=BROWSER).text)

    answer = client.post(
        RESTOCK, data={"csrf": token, "name": "<i>milk</i>", "quantity": quantity}, headers=BROWSER
    )

    assert answer.status_code == 422
    assert answer.mimetype == "text/html"
    assert "<code>quantity</code>" in answer.text
    assert client.get("/inventory").json == FULL


def test_a_markup_name_in_a_form_is_shown_as_text(client: Any) -> None:
    client.post("/login", data={"token": ANN}, headers=BROWSER)
    token = csrf_of(client.get("/", headers=BROWSER).text)

    answer = client.post(
        RESTOCK, data={"csrf": token, "name": "<i>milk</i>", "quantity": "1"}, headers=BROWSER
    )

    assert answer.status_code == 404
    assert "<i>milk" not in answer.text
    assert "&lt;i&gt;milk" in answer.text


# ---- health ---------------------------------------------------------------------------------------


def test_it_is_healthy_while_its_worker_turns(client: Any, inventory: Participant) -> None:
    before = client.get("/healthz")
    beat(inventory)
    after = client.get("/healthz")

    assert (before.status_code, after.status_code) == (503, 200)
    assert after.json["service"] == "inventory_service"
    assert set(after.json["checks"]) == {"database", "participant"}


def test_a_database_that_is_away_is_told(client: Any, inventory: Participant) -> None:
    with session_of(inventory) as session:
        session.execute(delete(StockRow))
    assert client.get("/inventory").json == {}

    with inventory.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE reservation_lines")
        connection.exec_driver_sql("DROP TABLE stock")
    answer = client.get("/inventory")

    assert answer.status_code == 503
    assert "inventory_service" in answer.json["do"]
    assert stock.FULL == 10
