"""The page for approvers and that of an order: who looks, who decides, what became of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from order_service import processing
from order_service.approvals import LATELY
from order_service.orchestrator import sagas
from sagas_framework import SagaInstance
from sagas_framework.core.events import ReplyReceived, Result
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.sql import SqlStore
from tests.integration.shopfront import Client, shopfront
from tests.unit.cli.shop import NoBroker

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
MARIA, JONAS = "maria-0123456789abcdef", "jonas-0123456789abcdef"
HOSTILE = '<script>alert("1")</script>'


@pytest.fixture
def client(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setenv("APPROVER_TOKENS", f"maria:{MARIA},jonas:{JONAS}")
    monkeypatch.setenv("ORDER_SERVICE_OPERATORS", "ann")
    monkeypatch.setenv("ORDER_SERVICE_SECRET_KEY", "not for production")
    monkeypatch.setattr(processing, "ANSWERED_WITHIN", timedelta(0))
    with shopfront(sqlite_url, monkeypatch) as client:
        yield client


def order(client: Client, **more: Any) -> str:
    """Take an order that needs an approval; its saga does not move yet."""
    asked = {"customer": "Riley", "items": ["iPhone", "iPhone", "milk"], "total": "1299.00", **more}
    answer = client.post("/processing/orders", json=asked)
    assert answer.status_code == 202, answer.text
    order_id: str = answer.json["order_id"]
    return order_id


def orchestrator() -> Orchestrator:
    return Orchestrator(
        SqlStore(sagas.engine), sagas.definitions, NoBroker(), reply_to="replies", clock=sagas.clock
    )


def saga_of(order_id: str) -> SagaInstance:
    (found,) = sagas.find(order_id)
    return found


def comes_to_wait(order_id: str) -> str:
    """The order's items are reserved: its saga asks for the approval, and takes one that came early."""
    orchestrator().fire_timers({})
    saga = saga_of(order_id)
    flight = saga.steps["reserve_items"].flight
    assert flight is not None
    refs = (flight.message_id,)
    reply = ReplyReceived(saga.id, sagas.clock(), refs, flight.task, Result.SUCCESS, {"reservation_id": 7})
    orchestrator().process([reply])
    return order_id


def log_in(client: Client, token: str = MARIA) -> None:
    answer = client.post("/login", data={"token": token}, headers={"Accept": BROWSER})
    assert answer.status_code == 303, answer.text
    assert answer.headers["Location"] == "/approvals"


def see(client: Client, path: str) -> str:
    answer = client.get(path, headers={"Accept": BROWSER})
    assert answer.status_code == 200, answer.text
    page: str = answer.text
    return page


def click(client: Client, order_id: str, approved: str, page: str | None = None, **more: str) -> Any:
    """Press one of the buttons of the order."""
    found = re.search(
        r'name="csrf" value="([0-9a-f]+)"', page or see(client, f"/processing/orders/{order_id}")
    )
    token = {"csrf": found[1]} if found else {}
    return client.post(
        f"/processing/orders/{order_id}/approve",
        data={"approved": approved, **token, **more},
        headers={"Accept": BROWSER},
    )


def test_who_has_not_logged_in_looks_and_has_no_buttons(client: Client) -> None:
    order_id = order(client)

    page, approvals = see(client, f"/processing/orders/{order_id}"), see(client, "/approvals")

    assert "<button" not in page
    assert "Log in to decide" in approvals
    assert '<a href="/approvals" aria-current="page">Approvals</a>' in approvals


def test_orders_that_wait_are_there_with_what_an_approver_needs_to_know(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)

    page = see(client, "/approvals")

    assert order_id in page
    assert "Orders of 1000.00 or more wait here" in page
    assert '<div class="total">1299.00</div>' in page
    assert "Riley" in page
    assert "2 \u00d7 <bdi>iPhone</bdi>" in page
    assert "23 h 59 min left" in page
    assert re.search(r'<rect width="(99|100)%"', page)
    assert 'name="live" content="2000"' in page
    assert client.get("/approvals").json["waiting"][0]["id"] == order_id


def test_an_approval_is_by_whom_the_token_says_and_the_page_tells_what_became_of_it(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)

    answer = click(client, order_id, "true")
    orchestrator().take_signals()

    assert answer.status_code == 303
    page = see(client, answer.headers["Location"])
    assert "Approved by you." in page
    assert saga_of(order_id).state["approver"] == "maria"
    assert re.search(rf"{order_id}</a></td><td>approved</td><td[^>]*>maria<", page)
    assert f'id="o-{order_id}"' not in page


def test_a_rejection_undoes_the_order_and_its_page_says_who_said_no(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)

    click(client, order_id, "false")
    orchestrator().take_signals()

    saga = saga_of(order_id)
    assert saga.outcome is not None
    assert (saga.outcome.kind, saga.outcome.name) == ("refused", "Rejected")
    page = see(client, f"/processing/orders/{order_id}")
    assert "refused: somebody said no" in page
    assert 'class="deciding"' not in page


def test_the_second_one_is_told_who_was_quicker(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)
    click(client, order_id, "true")
    orchestrator().take_signals()
    log_in(client, JONAS)

    # The page on which jonas still saw the buttons.
    other = see(client, f"/processing/orders/{comes_to_wait(order(client))}")
    answer = click(client, order_id, "false", other)

    assert answer.status_code == 303
    assert "Too late: maria has approved it." in see(client, answer.headers["Location"])
    assert saga_of(order_id).state["approver"] == "maria"


def test_a_second_click_is_the_same_decision(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)
    page = see(client, "/approvals")

    click(client, order_id, "true", page)
    answer = click(client, order_id, "true", page)

    assert "Approved by you." in see(client, answer.headers["Location"])
    assert len(sagas.signals("process_order", key=order_id)) == 1


def test_a_decision_before_the_order_asks_counts_then(client: Client) -> None:
    order_id = order(client)
    log_in(client)

    answer = click(
        client, order_id, "true", see(client, f"/processing/orders/{comes_to_wait(order(client))}")
    )
    orchestrator().take_signals()
    early = see(client, answer.headers["Location"])
    comes_to_wait(order_id)

    assert "Approved by you. It counts as soon as the order asks for it." in early
    assert saga_of(order_id).state["approver"] == "maria"


def test_after_the_deadline_it_is_too_late(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)
    page = see(client, "/approvals")
    now = sagas.clock()
    monkeypatch.setattr(sagas, "clock", lambda: now + timedelta(hours=25))
    orchestrator().fire_timers({})

    answer = click(client, order_id, "true", page)

    assert answer.status_code == 303
    assert "Too late:" in see(client, answer.headers["Location"])
    assert saga_of(order_id).state["approver"] is None


def test_clicks_that_came_too_late_do_not_hide_what_was_decided(client: Client) -> None:
    rejected = comes_to_wait(order(client))
    log_in(client)
    page = see(client, "/approvals")
    click(client, rejected, "false", page)
    orchestrator().take_signals()
    cancelled = order(client)
    sagas.cancel("process_order", key=cancelled, by="ann", reason="the customer called")
    orchestrator().obey_acts()
    for _ in range(LATELY):
        click(client, cancelled, "true", page)

    lately = see(client, "/approvals").partition("Decided lately")[2]

    assert rejected in lately


@pytest.mark.parametrize("approved", ["", "maybe", "True"])
def test_neither_yes_nor_no_is_refused(client: Client, approved: str) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)

    answer = click(client, order_id, approved)

    assert answer.status_code == 422
    assert "Press one of the two buttons" in answer.text
    assert sagas.signals("process_order", key=order_id) == []


def test_without_a_login_a_click_leads_to_it(client: Client) -> None:
    order_id = comes_to_wait(order(client))

    answer = click(client, order_id, "true")

    assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
    assert sagas.signals("process_order", key=order_id) == []


def test_a_form_that_is_not_ours_decides_nothing(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    log_in(client)

    answer = client.post(
        f"/processing/orders/{order_id}/approve", data={"approved": "true"}, headers={"Accept": BROWSER}
    )
    other = client.post(
        f"/processing/orders/{order_id}/approve",
        data={"approved": "true"},
        headers={"Accept": BROWSER, "Origin": "https://evil.example"},
    )

    assert (answer.status_code, other.status_code) == (403, 403)
    assert sagas.signals("process_order", key=order_id) == []


def test_the_console_approves_nothing_in_anybodys_name(client: Client) -> None:
    order_id = comes_to_wait(order(client))
    saga = saga_of(order_id)

    asked = {
        "signal": "approval",
        "payload": {"approver": "maria", "approved": True},
        "by": "ann",
        "reason": "r",
    }
    answer = client.post(f"/sagas/{saga.id}/signals", json=asked)
    page = see(client, f"/sagas/{saga.id}")

    assert answer.status_code == 403
    assert '<a href="/approvals">It is said there</a>' in page
    assert 'value="ann"' in page  # who may do other things
    assert answer.json["error"] == "approval is not said here"
    assert sagas.signals("process_order", key=order_id) == []


def test_what_a_customer_writes_is_text(client: Client) -> None:
    order_id = comes_to_wait(order(client, customer=HOSTILE, items=[HOSTILE, "\u05d7\u05dc\u05d1"]))

    for path in ("/approvals", f"/processing/orders/{order_id}"):
        page = see(client, path)
        assert HOSTILE not in page
        assert "&lt;script&gt;" in page


def test_an_order_is_a_page_for_people_and_json_for_programs(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = order(client)
    now = sagas.clock()
    monkeypatch.setattr(sagas, "clock", lambda: now)  # its age is told, too

    page = see(client, f"/processing/orders/{order_id}")
    told = client.get(f"/processing/orders/{order_id}")
    again = client.get(f"/processing/orders/{order_id}", headers={"If-None-Match": told.headers["ETag"]})

    assert told.json["details"]["items"] == ["iPhone", "iPhone", "milk"]
    assert again.status_code == 304
    assert f"?order={order_id}" in page
    assert f'href="/sagas/{told.json["saga"]["id"]}"' in page
    assert told.headers["Vary"] == "Accept, Cookie"


def test_a_page_that_is_none_is_refused(client: Client) -> None:
    assert client.get("/approvals?after=nonsense").status_code == 400
    assert client.get("/approvals?order=nobody&approved=true").status_code == 200


# ---- launches -------------------------------------------------------------------------------------


def test_an_order_that_is_approved_early_is_so_in_the_name_of_who_launches_it(client: Client) -> None:
    launch = "/run-order-that-is-approved-early"
    unknown = client.post(launch)
    sent = client.post(launch, headers={"Accept": BROWSER})
    log_in(client)
    token = re.search(r'name="csrf" value="([0-9a-f]+)"', see(client, "/"))
    assert token is not None

    answer = client.post(launch, data={"csrf": token[1]}, headers={"Accept": BROWSER})

    order_id = answer.headers["Location"].rpartition("/")[2]
    assert unknown.status_code == 401
    assert (sent.status_code, sent.headers["Location"]) == (303, "/login")
    (kept,) = sagas.signals("process_order")
    assert (kept.key, kept.by) == (order_id, "maria")
    comes_to_wait(order_id)
    assert saga_of(order_id).state["approver"] == "maria"


def test_who_launches_with_a_token_approves_early_too(client: Client) -> None:
    answer = client.post("/run-order-that-is-approved-early", headers={"Authorization": f"Bearer {JONAS}"})

    assert answer.status_code == 202
    (kept,) = sagas.signals("process_order")
    assert (kept.key, kept.by) == (answer.json["order_id"], "jonas")


def test_an_order_that_nobody_approves_has_a_deadline_of_its_own(client: Client) -> None:
    answer = client.post("/run-order-that-nobody-approves")

    comes_to_wait(answer.json["order_id"])

    deadline = saga_of(answer.json["order_id"]).steps["approval"].deadline
    assert deadline is not None
    assert timedelta(0) < deadline - sagas.clock() <= timedelta(seconds=20)
