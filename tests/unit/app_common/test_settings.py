"""Who may act on the pages, where the pages are, and how commands are taken, as the environment says it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest

from app_common.settings import (
    ApprovalSettings,
    ArchiveSettings,
    PageSettings,
    SettingError,
    approval_settings,
    archive_settings,
    docs_ports,
    page_settings,
    service_settings,
    step_timeouts,
)

SERVICES_ASKED: Final = ("consumer", "restaurant", "accounting", "inventory", "delivery")
TIMEOUTS: Final = """
from order_service.sagas.create_order import CreateOrderSaga
from order_service.sagas.process_order import ProcessOrderSaga
for saga in (CreateOrderSaga, ProcessOrderSaga):
    for step in saga.definition.steps:
        if hasattr(step, "command"):
            print(step.name, step.timeout.total_seconds())
"""
"""Prints how long each step waits for its answer."""


@pytest.mark.parametrize("none", [{}, {"ORDER_SERVICE_OPERATORS": ""}, {"ORDER_SERVICE_OPERATORS": " , "}])
def test_nobody_acts_unless_somebody_is_named(none: dict[str, str]) -> None:
    assert page_settings(none) == PageSettings((), None)


def test_names_come_with_commas_between() -> None:
    environment = {"ORDER_SERVICE_OPERATORS": "ann, Ben Doe,", "ORDER_SERVICE_SECRET_KEY": "k"}

    assert page_settings(environment) == PageSettings(("ann", "Ben Doe"), "k")


def test_operators_without_a_key_are_told_what_to_write() -> None:
    with pytest.raises(SettingError, match=r"ORDER_SERVICE_SECRET_KEY is missing.*openssl rand -hex 32"):
        page_settings({"ORDER_SERVICE_OPERATORS": "ann"})


def test_docs_sites_have_ports_one_after_the_other() -> None:
    assert docs_ports(["order_service", "stock_service"], {}) == {
        "order_service": 8081,
        "stock_service": 8082,
    }


def test_a_docs_site_takes_the_port_that_its_variable_names() -> None:
    environment = {"STOCK_SERVICE_DOCS_PORT": "9000"}

    assert docs_ports(["order_service", "stock_service"], environment)["stock_service"] == 9000


@pytest.mark.parametrize("wrong", ["http", "0", "65536", "-1", "80 81", "\u0663"])
def test_what_is_no_port_is_told_by_its_variable(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"STOCK_SERVICE_DOCS_PORT is .*, not a port.*PORT=8081"):
        docs_ports(["stock_service"], {"STOCK_SERVICE_DOCS_PORT": wrong})


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        (
            {"STOCK_SERVICE_DOCS_PORT": "8081"},
            "STOCK_SERVICE_DOCS_PORT is 8081, which ORDER_SERVICE_DOCS_PORT is",
        ),
        ({"ORDER_SERVICE_PORT": "8081"}, "ORDER_SERVICE_DOCS_PORT is 8081, which ORDER_SERVICE_PORT is"),
    ],
)
def test_two_pages_cannot_have_one_port(environment: dict[str, str], told: str) -> None:
    with pytest.raises(SettingError, match=f"{told}, too.*=8082"):
        docs_ports(["order_service", "stock_service"], environment)


def test_each_service_has_five_minutes_to_answer_unless_told_otherwise() -> None:
    for service in SERVICES_ASKED:
        told = step_timeouts({f"{service.upper()}_TIMEOUT": "7.5"})
        others = set(SERVICES_ASKED) - {service}

        assert getattr(told, service) == timedelta(seconds=7.5)
        assert {getattr(told, other) for other in others} == {timedelta(minutes=5)}


def test_the_steps_wait_as_long_as_the_settings_say() -> None:
    """Asked of a process of its own: the sagas are declared once."""
    own = {f"{service.upper()}_TIMEOUT": str(10 + n) for n, service in enumerate(SERVICES_ASKED)}

    told = subprocess.run(
        [sys.executable, "-c", TIMEOUTS], env=os.environ | own, capture_output=True, text=True, check=True
    ).stdout

    assert [line.split() for line in told.splitlines()] == [
        ["verify_consumer_details", "10.0"],
        ["create_restaurant_ticket", "11.0"],
        ["authorize_card", "12.0"],
        ["approve_restaurant_ticket", "300.0"],  # the pivot: tried three times before it is asked
        ["reserve_items", "13.0"],
        ["charge", "12.0"],
        ["ship_order", "14.0"],
    ]


@pytest.mark.parametrize("wrong", ["0", "-1", "soon", "nan", "inf"])
@pytest.mark.parametrize("service", SERVICES_ASKED)
def test_a_timeout_that_is_no_time_is_told_by_its_variable(service: str, wrong: str) -> None:
    variable = f"{service.upper()}_TIMEOUT"

    with pytest.raises(SettingError, match=rf"^{variable} is .*, not a number of seconds.*=300"):
        step_timeouts({variable: wrong})


@pytest.mark.parametrize(("value", "batch"), [("", None), ("1", 1), ("200", 200)])
def test_commands_are_handled_one_by_one_unless_a_batch_is_named(value: str, batch: int | None) -> None:
    assert service_settings("restaurant_service", {"COMMAND_BATCH": value}).command_batch == batch


@pytest.mark.parametrize("wrong", ["0", "-1", "1001", "many", "2.5", "\u0662"])
def test_a_batch_of_a_size_that_cannot_be_is_told_by_its_variable(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"COMMAND_BATCH is .* Write it like this: COMMAND_BATCH=200"):
        service_settings("restaurant_service", {"COMMAND_BATCH": wrong})


def test_an_order_of_a_thousand_needs_an_approval_within_a_day_unless_told_otherwise() -> None:
    told = {"APPROVAL_THRESHOLD": "49.5", "APPROVAL_DEADLINE": "0.5"}

    assert approval_settings({}) == ApprovalSettings(Decimal("1000.00"), timedelta(hours=24))
    assert approval_settings(told) == ApprovalSettings(Decimal("49.50"), timedelta(seconds=0.5))


@pytest.mark.parametrize("wrong", ["much", "-1", "1.001", "1e3", "NaN", "\u0661", "12345678901"])
def test_a_threshold_that_is_no_amount_is_told_by_its_variable(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"APPROVAL_THRESHOLD is .*not an amount.*=1000\.00"):
        approval_settings({"APPROVAL_THRESHOLD": wrong})


@pytest.mark.parametrize("wrong", ["0", "-1", "a day", "nan", "inf"])
def test_a_deadline_that_is_no_time_is_told_by_its_variable(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"APPROVAL_DEADLINE is .*, not a number of seconds.*=86400"):
        approval_settings({"APPROVAL_DEADLINE": wrong})


def test_sagas_are_kept_for_90_days_and_go_to_the_folder_of_the_demo_unless_told_otherwise(
    tmp_path: Path,
) -> None:
    told = {"SAGA_RETENTION": "86400", "SAGA_ARCHIVE": str(tmp_path / "sagas")}

    assert archive_settings({"DEMO_DATA": str(tmp_path)}) == ArchiveSettings(
        timedelta(days=90), tmp_path / "archive"
    )
    assert archive_settings(told) == ArchiveSettings(timedelta(days=1), tmp_path / "sagas")


@pytest.mark.parametrize("wrong", ["0", "-1", "a month"])
def test_a_retention_that_is_no_time_is_told_by_its_variable(wrong: str) -> None:
    with pytest.raises(SettingError, match=r"SAGA_RETENTION is .*, not a number of seconds.*=7776000"):
        archive_settings({"SAGA_RETENTION": wrong})


def test_an_archive_that_is_no_folder_is_told_by_its_variable(tmp_path: Path) -> None:
    (tmp_path / "archive").write_text("a file")

    with pytest.raises(SettingError, match=r"SAGA_ARCHIVE names .*, which is not a folder"):
        archive_settings({"SAGA_ARCHIVE": str(tmp_path / "archive")})
