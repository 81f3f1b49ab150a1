"""Orders placed by hand, and the ways in which the application says no."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app_common.magic import Dish
from app_common.settings import SettingError, order_service_port, service_settings, step_timeouts
from tests.acceptance.application import Answer, Application, demo


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A demo that these tests share."""
    shared = demo(tmp_path_factory.mktemp("orders"))
    shared.start()
    yield shared
    shared.close()


def order(application: Application, **changes: Any) -> Answer:
    """Place an order that is approved, unless changed."""
    body = {
        "consumer_id": 70,
        "card_id": 1,
        "price": "19.99",
        "items": [{"name": Dish.PLAIN, "quantity": 1}],
    }
    return application.ask("POST", "/orders", json.dumps(body | changes))


def test_every_cent_of_an_order_reaches_the_card(application: Application) -> None:
    answer = order(application)
    saga = application.ended(answer.json["saga_id"])

    assert answer.status == 202
    assert saga["state"]["amount"] == "19.99"
    for service, column, table in (
        ("order_service", "price", "orders"),
        ("accounting_service", "amount", "authorizations"),
    ):
        assert [tuple(row) for row in application.query(service, f"SELECT {column} FROM {table}")] == [
            ("19.99",)
        ]


def test_a_closed_restaurant_refuses(application: Application) -> None:
    answer = order(application, items=[{"name": Dish.OFF_HOURS, "quantity": 1}])

    saga = application.ended(answer.json["saga_id"])

    assert saga["status"] == "compensated"
    assert saga["outcome"]["name"] == "RestaurantClosed"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("price", 19.99),
        ("price", "-1"),
        ("price", "1.999"),
        ("consumer_id", 0),
        ("card_id", 2**40),
        ("items", []),
        ("nonsense", 1),
    ],
)
def test_an_order_that_cannot_be_taken_is_told_by_its_field(
    application: Application, field: str, value: object
) -> None:
    answer = order(application, **{field: value})

    assert answer.status == 422
    assert [wrong["field"] for wrong in answer.json["fields"]] == [field]


def test_a_body_that_is_no_json_is_told_so(application: Application) -> None:
    answer = application.ask("POST", "/orders", "{")

    assert answer.status == 400
    assert answer.json["error"].startswith("The body is not JSON: ")


def test_a_body_that_is_too_large_is_refused_by_the_server_that_is_shipped(application: Application) -> None:
    answer = application.ask("POST", "/orders", " " * 65_537)

    assert answer.status == 413


def test_an_order_that_is_sent_again_with_its_key_is_one_order(application: Application) -> None:
    body = json.dumps(
        {"consumer_id": 70, "card_id": 1, "price": "5", "items": [{"name": Dish.PLAIN, "quantity": 1}]}
    )
    key = {"Idempotency-Key": '"5f1c"'}

    first = application.ask("POST", "/orders", body, more=key)
    application.ended(first.json["saga_id"])
    again = application.ask("POST", "/orders", body, more=key)
    other = application.ask("POST", "/orders", body.replace("70", "71"), more=key)

    assert (again.status, again.body) == (first.status, first.body) == (202, first.body)
    assert other.status == 409


def test_an_order_is_told_from_its_acceptance_to_its_end(application: Application) -> None:
    accepted = order(application).json

    early = application.ask("GET", accepted["links"]["order"]).json
    application.ended(accepted["saga_id"])
    late = application.ask("GET", accepted["links"]["order"])
    same = application.ask("GET", accepted["links"]["order"], more={"If-None-Match": late.headers["etag"]})

    assert early["saga"]["id"] == accepted["saga_id"]
    assert (late.json["status"], late.json["saga"]["status"]) == ("approved", "completed")
    assert late.json["saga"]["outcome"]["kind"] == "ok"
    assert late.json["saga"]["why"] is None
    assert late.json["price"] == "19.99"
    assert isinstance(late.json["ticket_id"], int)
    assert isinstance(late.json["transaction_id"], int)
    assert same.status == 304


def test_a_second_demo_on_the_same_folder_is_kept_out(application: Application, tmp_path: Path) -> None:
    second = Application(application.module, application.databases, application.environment, tmp_path)
    second.begin()

    assert second.process.wait(30) == 1
    assert second.printed.startswith("Another demo is running on ")
    assert "DEMO_DATA=" in second.printed


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CELERY_BROKER", "localhost"),
        ("CELERY_RESULT_BACKEND", "localhost"),
        ("APP_SQLALCHEMY_DATABASE_URI", "user:secret@localhost"),
        ("RESTAURANT_TIMEOUT", "soon"),
        ("RESTAURANT_TIMEOUT", "nan"),
        ("RESTAURANT_TIMEOUT", "-1"),
        ("ORDER_SERVICE_PORT", "99999"),
        ("DEMO_DATA", "README.md"),
    ],
)
def test_a_wrong_setting_is_told_by_its_variable_and_what_to_write(variable: str, value: str) -> None:
    environ = {variable: value}

    with pytest.raises(SettingError, match=rf"^{variable} .*Write it like this: {variable}=") as raised:
        (service_settings("order_service", environ), step_timeouts(environ), order_service_port(environ))

    assert "secret" not in str(raised.value)
