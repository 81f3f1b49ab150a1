"""Orders of items from the stock over HTTP, on real databases: taken, looked at, approved, listed."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import text

from app_common.messaging.accounting_service_messaging import PaymentDeclined
from app_common.messaging.delivery_service_messaging import ShippingDeactivated
from app_common.messaging.inventory_service_messaging import OutOfStock
from order_service import processing
from order_service.orchestrator import sagas
from order_service.processing import Taken, new_order_id
from order_service.sagas.process_order import Approval
from sagas_framework import Act, SignalRow
from tests.integration.asking import ANN, BEN, TOKENS, bearer
from tests.integration.back_office import BackOffice, told
from tests.integration.shopfront import Client, archived, shopfront

ORDERS: Final = "/processing/orders"
CHEAP: Final[dict[str, Any]] = {"customer": "Casey", "items": ["milk", "bread", "milk"], "total": 10.00}
EXPENSIVE: Final[dict[str, Any]] = {
    "customer": "Riley",
    "items": ["milk", "bread", "iPhone"],
    "total": 1299.00,
}
YES: Final = {"approver": "ann", "approved": True}
NO: Final = {"approver": "ann", "approved": False}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The application with an empty database, and two people who may approve."""
    monkeypatch.setenv("APPROVER_TOKENS", TOKENS)
    with shopfront(request.getfixturevalue(request.param), monkeypatch) as client:
        yield client


@pytest.fixture
def office(client: Client) -> BackOffice:
    return BackOffice()


def taken(client: Client, order: dict[str, Any] = EXPENSIVE) -> str:
    """Post an order; its id."""
    answer = client.post(ORDERS, json=order)
    assert answer.status_code == 202, answer.text
    order_id: str = answer.json["order_id"]
    return order_id


def look(client: Client, order_id: str) -> Any:
    answer = client.get(f"{ORDERS}/{order_id}")
    assert answer.status_code == 200, answer.text
    return answer.json


def approve(
    client: Client, order_id: str, decision: Any = YES, token: str | None = ANN, key: str | None = None
) -> Any:
    headers = {} if token is None else bearer(token)
    if key is not None:
        headers["Idempotency-Key"] = key
    return client.post(f"{ORDERS}/{order_id}/approve", json=decision, headers=headers)


def signals() -> int:
    with sagas.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM saga_signal")).scalar_one())


def orders() -> int:
    with sagas.engine.connect() as connection:
        return int(connection.execute(text("SELECT count(*) FROM processing_orders")).scalar_one())


# ---- taking ---------------------------------------------------------------------------------------


def test_an_order_is_accepted_with_its_ids_and_the_places_to_look(client: Client) -> None:
    answer = client.post(ORDERS, json=EXPENSIVE, headers={"Accept": "text/html"})

    (saga,) = sagas.list()
    order_id = answer.json["order_id"]
    assert answer.status_code == 202
    assert answer.json == {
        "order_id": order_id,
        "saga_id": saga.id,
        "message": f"Order received. ID = '{order_id}'",
        "links": {
            "order": f"{ORDERS}/{order_id}",
            "approve": f"{ORDERS}/{order_id}/approve",
            "saga": f"/sagas/{saga.id}",
        },
    }
    assert answer.headers["Location"] == f"{ORDERS}/{order_id}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert (saga.saga, saga.key) == ("process_order", order_id)


def test_a_request_runs_no_step(client: Client) -> None:
    order_id = taken(client)
    look(client, order_id)
    approve(client, order_id)
    client.get(f"{ORDERS}?waiting=1")

    (saga,) = sagas.list()
    assert (saga.started, saga.revision) == (False, 0)
    assert told(order_id) == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("customer", ""),
        ("customer", "x" * 201),
        ("customer", "a\x00b"),
        ("customer", "  "),
        ("items.0", "\u00a0"),
        ("customer", 7),
        ("customer", None),
        ("items", []),
        ("items", ["milk"] * 101),
        ("items", "milk"),
        ("items.1", ""),
        ("items.1", 7),
        ("total", "much"),
        ("total", -0.01),
        ("total", 1299.001),
        ("total", True),
        ("total", None),
        ("total", 1e300),
        ("total", "NaN"),
        ("colour", "blue"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(client: Client, path: str, value: object) -> None:
    body = json.loads(json.dumps(EXPENSIVE))
    name, _, place = path.partition(".")
    if place:
        body[name][int(place)] = value
    else:
        body[name] = value

    answer = client.post(ORDERS, json=body)

    assert answer.status_code == 422
    assert answer.json["error"] == "The order cannot be taken"
    assert [wrong["field"] for wrong in answer.json["fields"]] == [path]
    assert orders() == len(sagas.list()) == 0


def test_every_missing_field_is_named_at_once(client: Client) -> None:
    answer = client.post(ORDERS, json={})

    assert [wrong["field"] for wrong in answer.json["fields"]] == ["customer", "items", "total"]


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("1299.00", "1299.00"),
        ("1299.0", "1299.00"),
        ("1299", "1299.00"),
        ('"1299.00"', "1299.00"),
        ("0.1", "0.10"),
        ("0", "0.00"),
        ("-0.0", "0.00"),
        ("9999999999.99", "9999999999.99"),
    ],
)
def test_a_total_is_kept_as_it_was_written_also_as_a_json_number(
    client: Client, written: str, kept: str
) -> None:
    body = f'{{"customer": "Riley", "items": ["milk"], "total": {written}}}'
    answer = client.post(ORDERS, data=body, content_type="application/json")

    assert look(client, answer.json["order_id"])["details"]["total"] == kept


@pytest.mark.parametrize(
    ("customer", "begins"),
    [
        ("Riley", "order_riley_"),
        ("Sören O'Neil", "order_sorenoneil_"),
        ("<script>alert(1)</script>", "order_scriptalert1script_"),
        ("../../etc/passwd?x=1#y", "order_etcpasswdx1y_"),
        ("李小龍", "order_customer_"),
        ("\u200fevil", "order_evil_"),
        ("x" * 200, f"order_{'x' * 20}_"),
    ],
)
def test_an_id_is_plain_whatever_the_customer_is_called(client: Client, customer: str, begins: str) -> None:
    order_id = taken(client, CHEAP | {"customer": customer})

    assert re.fullmatch(r"order_[a-z0-9]{1,20}_[a-z0-9]{12}", order_id)
    assert order_id.startswith(begins)
    assert look(client, order_id)["details"]["customer"] == customer


def test_no_two_ids_are_alike() -> None:
    assert len({new_order_id("Riley") for _ in range(1000)}) == 1000


def test_the_same_key_with_the_same_order_gets_the_first_answer_again(client: Client) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post(ORDERS, json=EXPENSIVE, headers=key)
    again = client.post(ORDERS, json=EXPENSIVE | {"total": "1299.0"}, headers=key)
    other = client.post(ORDERS, json=CHEAP, headers=key)

    assert (again.status_code, again.data) == (202, first.data)
    assert other.status_code == 409
    assert other.json["error"].endswith(f"another order, {first.json['order_id']}")
    assert orders() == len(sagas.list()) == 1


def test_of_two_at_the_same_time_one_takes_the_order_and_the_other_gets_its_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked for the key, and found nothing, before either writes."""
    both_looked = threading.Barrier(2, timeout=30)
    take = processing._take

    def take_together(*given: Any) -> Taken:
        both_looked.wait()
        return take(*given)

    monkeypatch.setattr(processing, "_take", take_together)
    app, key = client.application, {"Idempotency-Key": "k-1"}
    with ThreadPoolExecutor(2) as threads:
        answers = list(
            threads.map(lambda _: app.test_client().post(ORDERS, json=CHEAP, headers=key), range(2))
        )

    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].data == answers[1].data
    assert orders() == len(sagas.list()) == 1


# ---- when the saga has gone to the archive --------------------------------------------------------


def test_who_comes_with_the_key_when_the_saga_is_archived_gets_the_first_answer_again(
    client: Client, office: BackOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = {"Idempotency-Key": "k-1"}
    first = client.post(ORDERS, json=CHEAP, headers=key)
    office.turn()

    assert archived(tmp_path, monkeypatch) == 1
    again = client.post(ORDERS, json=CHEAP, headers=key)
    other = client.post(ORDERS, json=EXPENSIVE, headers=key)

    assert (again.status_code, again.data) == (202, first.data)
    assert other.status_code == 409
    assert (orders(), sagas.list()) == (1, [])


def test_an_order_whose_saga_is_archived_is_neither_unknown_nor_decided_any_more(
    client: Client, office: BackOffice, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = taken(client)
    office.turn()
    with office.at_work():
        assert approve(client, order_id).status_code == 200
    archived(tmp_path, monkeypatch)

    answers = [client.get(f"{ORDERS}/{order_id}"), approve(client, order_id), approve(client, order_id, NO)]
    page = client.get("/approvals", query_string={"order": order_id, "approved": "true"})

    for answer in answers:
        assert answer.status_code == 410
        assert answer.json == {
            "error": f"The order {order_id} has ended long ago: its saga is in the archive",
            "do": f"Ask who runs this; they look with: saga -A order_service.worker show {order_id}",
        }
    assert page.status_code == 200
    assert signals() == 1


# ---- looking --------------------------------------------------------------------------------------


def test_an_order_that_waits_is_told_with_its_deadline(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()

    order = look(client, order_id)

    (saga,) = sagas.list()
    made = datetime.fromisoformat(order["created_time"])
    why = order["saga"].pop("why")
    assert order == {
        "id": order_id,
        "status": "RUNNING",
        "created_time": made.isoformat(),
        "last_updated_time": saga.updated_at.isoformat(),
        "details": {
            "id": order_id,
            "customer": "Riley",
            "items": ["milk", "bread", "iPhone"],
            "total": "1299.00",
        },
        "approval": {
            "deadline": (made + timedelta(hours=24)).isoformat(),
            "waiting": True,
            "approver": None,
        },
        "saga": {"id": saga.id, "status": "running", "outcome": None},
        "links": {
            "order": f"{ORDERS}/{order_id}",
            "approve": f"{ORDERS}/{order_id}/approve",
            "saga": f"/sagas/{saga.id}",
        },
    }
    assert why.startswith("approval waits for approval")


@pytest.mark.parametrize(
    ("task", "refusal", "status", "says"),
    [
        ("", None, "COMPLETED", (True, "Order processed successfully")),
        (
            "inventory_service.reserve_items",
            OutOfStock("Out of stock: milk"),
            "COMPLETED",
            (False, "Inventory failed for order: Out of stock: milk"),
        ),
        (
            "accounting_service.charge",
            PaymentDeclined("declined"),
            "COMPLETED",
            (False, "Payment failed for order: declined"),
        ),
    ],
)
def test_an_order_that_is_decided_has_a_result(
    client: Client, office: BackOffice, task: str, refusal: Any, status: str, says: tuple[bool, str]
) -> None:
    if refusal is not None:
        office.refusals[task] = refusal
    order_id = taken(client, CHEAP)
    office.turn()

    order = look(client, order_id)

    assert order["status"] == status
    assert order["order_result"] == {"id": order_id, "success": says[0], "message": says[1]}
    assert (order["approval"], order["saga"]["why"]) == (None, None)
    assert "failure_details" not in order
    assert told(order_id)[-1] == ("Order submitted for shipping" if says[0] else says[1])


def test_an_order_that_cannot_be_shipped_has_failed(client: Client, office: BackOffice) -> None:
    office.refusals["delivery_service.ship_order"] = ShippingDeactivated("deactivated for maintenance")
    order_id = taken(client, CHEAP)
    office.turn()

    order = look(client, order_id)

    assert order["status"] == "FAILED"
    assert order["failure_details"] == {
        "error_type": "ShippingDeactivated",
        "message": f"{order_id}: Error submitting order for shipping: deactivated for maintenance",
        "step": "ship_order",
    }
    assert "order_result" not in order
    assert told(order_id)[-1] == "Payment is being refunded"


def test_a_refund_that_needs_a_person_is_not_told_to_be_done(client: Client, office: BackOffice) -> None:
    office.refusals["delivery_service.ship_order"] = ShippingDeactivated("deactivated for maintenance")
    office.refusals["accounting_service.refund"] = PaymentDeclined("the provider is closed")
    order_id = taken(client, CHEAP)
    office.turn()

    order = look(client, order_id)

    assert order["status"] == "SUSPENDED"
    assert told(order_id)[-1] == "Payment is being refunded"


def test_an_order_that_was_called_off_is_terminated(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()
    sagas.cancel("process_order", key=order_id, by="ann", reason="the customer called")
    office.turn()

    order = look(client, order_id)

    assert order["status"] == "TERMINATED"
    assert order["order_result"] == {"id": order_id, "success": False, "message": "Order was cancelled."}


def test_an_order_that_needs_a_person_is_suspended(client: Client, office: BackOffice) -> None:
    office.refusals["inventory_service.release_items"] = OutOfStock("no room")
    order_id = taken(client)
    office.turn()
    sagas.cancel("process_order", key=order_id, by="ann", reason="the customer called")
    office.turn()

    order = look(client, order_id)

    assert (order["status"], order["saga"]["status"]) == ("SUSPENDED", "parked")
    assert told(order_id)[-1] == "Order was cancelled."


@pytest.mark.parametrize("order_id", ["order_riley_o066i", "1", "x" * 500, "%00", "a%00b", "%F0%9F%8D%9E"])
def test_an_unknown_order_is_not_found(client: Client, order_id: str) -> None:
    taken(client)
    unknown = [client.get(f"{ORDERS}/{order_id}"), approve(client, order_id)]

    assert [answer.status_code for answer in unknown] == [404, 404]
    assert all(answer.json["do"] for answer in unknown)


def test_who_has_the_order_as_it_is_gets_304_until_it_changes(
    client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id = taken(client)
    office.turn()
    now = sagas.clock()
    monkeypatch.setattr(sagas, "clock", lambda: now)  # how long it has waited is told, too
    first = client.get(f"{ORDERS}/{order_id}")
    has = {"If-None-Match": first.headers["ETag"]}

    same = client.get(f"{ORDERS}/{order_id}", headers=has)
    with office.at_work():
        approve(client, order_id)
    changed = client.get(f"{ORDERS}/{order_id}", headers=has)

    assert first.headers["Cache-Control"] == "no-cache"
    assert (same.status_code, same.data) == (304, b"")
    assert (changed.status_code, changed.json["status"]) == (200, "COMPLETED")


# ---- approving ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "name"), [(ANN, "ann"), (BEN, "ben")])
def test_an_approver_approves_what_waits(client: Client, office: BackOffice, token: str, name: str) -> None:
    order_id = taken(client)
    office.turn()

    with office.at_work():
        answer = approve(client, order_id, {"approver": name, "approved": True}, token)

    office.turn()
    assert answer.status_code == 200
    assert answer.json == {
        "order_id": order_id,
        "approver": name,
        "approved": True,
        "became": "taken",
        "message": f"Approval sent for order: {order_id}",
        "links": {"order": f"{ORDERS}/{order_id}"},
    }
    assert answer.headers["Cache-Control"] == "no-store"
    order = look(client, order_id)
    assert (order["status"], order["order_result"]["success"]) == ("COMPLETED", True)
    assert order["approval"]["approver"] == name
    assert told(order_id)[3] == f"Order was approved by {name}."


def test_an_approver_rejects_what_waits(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()

    with office.at_work():
        answer = approve(client, order_id, NO)

    office.turn()
    order = look(client, order_id)
    assert (answer.status_code, answer.json["became"]) == (200, "taken")
    assert order["status"] == "COMPLETED"
    assert order["order_result"] == {
        "id": order_id,
        "success": False,
        "message": "Order was rejected by ann.",
    }
    assert order["saga"]["outcome"]["kind"] == "refused"
    assert told(order_id)[-1] == "Order was rejected by ann."


def test_an_early_approval_is_kept_and_taken_when_the_saga_asks_for_it(
    client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "ANSWERED_WITHIN", timedelta(0))
    order_id = taken(client)

    early = approve(client, order_id)
    before = look(client, order_id)
    office.turn()

    assert (early.status_code, early.json["became"]) == (202, "stored")
    assert before["status"] == "RUNNING"
    assert look(client, order_id)["order_result"]["success"] is True


def test_an_approval_while_the_stock_is_asked_is_kept(client: Client, office: BackOffice) -> None:
    office.silent.add("inventory_service.reserve_items")
    order_id = taken(client)
    office.turn()

    with office.at_work():
        answer = approve(client, order_id)

    assert (answer.status_code, answer.json["became"]) == (202, "kept")


def test_nobody_approves_without_a_token(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()

    none = approve(client, order_id, token=None)
    wrong = approve(client, order_id, token="chris-has-no-token-here")

    for answer in (none, wrong):
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert signals() == 0


def test_nobody_approves_in_another_ones_name(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()

    answer = approve(client, order_id, YES, BEN)

    assert answer.status_code == 403
    assert answer.json["do"] == "Decide in the name that the token proves: 'ben'"
    assert signals() == 0


def test_nobody_approves_where_nobody_may(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("APPROVER_TOKENS")
    from order_service.web import create_app

    answer = approve(create_app().test_client(), taken(client))

    assert answer.status_code == 403
    assert "APPROVER_TOKENS" in answer.json["do"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"approved": "true"}, "approved"),
        ({"approved": 1}, "approved"),
        ({"approved": None}, "approved"),
        ({"approver": ""}, "approver"),
        ({"approver": 7}, "approver"),
        ({"because": "I like it"}, "because"),
    ],
)
def test_what_is_no_decision_is_told_so(client: Client, change: dict[str, Any], field: str) -> None:
    answer = approve(client, taken(client), YES | change)

    assert answer.status_code == 422
    assert answer.json["error"] == "The decision cannot be taken"
    assert [wrong["field"] for wrong in answer.json["fields"]] == [field]
    assert signals() == 0


def test_a_decision_that_is_no_json_is_told_so(client: Client) -> None:
    path, headers = f"{ORDERS}/{taken(client)}/approve", bearer(ANN)

    assert client.post(path, data="yes", headers=headers).status_code == 415
    assert client.post(path, data="{", content_type="application/json", headers=headers).status_code == 400


def test_an_order_that_needs_no_approval_is_not_decided(client: Client, office: BackOffice) -> None:
    order_id = taken(client, CHEAP)

    before = approve(client, order_id)
    office.turn()
    after = approve(client, order_id)

    for answer in (before, after):
        assert answer.status_code == 409
        assert "needs no approval: its total of 10.00 is below 1000.00" in answer.json["error"]
    assert signals() == 0


def test_a_second_decision_is_told_who_was_quicker(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()
    with office.at_work():
        approve(client, order_id, NO)

        second = approve(client, order_id, {"approver": "ben", "approved": True}, BEN)
        same = approve(client, order_id, NO)

    for answer in (second, same):
        assert answer.status_code == 409
        assert answer.json["error"].endswith("cannot be decided any more: ann has rejected it")
    assert signals() == 1


def test_of_two_early_decisions_at_the_same_time_one_counts_and_the_other_is_told(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processing, "ANSWERED_WITHIN", timedelta(0))
    order_id, app = taken(client), client.application
    begin = threading.Barrier(2, timeout=30)

    def say(who: tuple[str, str, bool]) -> Any:
        name, token, approved = who
        begin.wait()
        return approve(app.test_client(), order_id, {"approver": name, "approved": approved}, token)

    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(say, [("ann", ANN, True), ("ben", BEN, False)]))

    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert signals() == 1


def test_a_decision_after_the_end_is_too_late(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()
    sagas.cancel("process_order", key=order_id, by="ann", reason="the customer called")
    office.turn()

    answer = approve(client, order_id)

    assert answer.status_code == 409
    assert "the saga has ended" in answer.json["error"]


def test_a_decision_after_the_deadline_is_too_late(
    client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    order_id, clock = taken(client), sagas.clock
    office.turn()
    monkeypatch.setattr(sagas, "clock", lambda: clock() + timedelta(hours=24))

    with office.at_work():
        answer = approve(client, order_id)

    office.turn()
    order = look(client, order_id)
    assert answer.status_code == 409
    assert order["order_result"]["message"] == "Approval deadline expired."
    assert (order["status"], order["saga"]["outcome"]["kind"]) == ("COMPLETED", "expired")
    assert told(order_id)[-1] == "Approval deadline expired."


@pytest.mark.parametrize("asks", [False, True])
def test_a_decision_after_the_deadline_is_too_late_also_while_no_orchestrator_is_there(
    client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch, asks: bool
) -> None:
    monkeypatch.setattr(processing, "ANSWERED_WITHIN", timedelta(0))
    in_time, late = taken(client), taken(client)
    if asks:
        office.turn()
    first = approve(client, in_time, key="k")
    now = sagas.clock()
    monkeypatch.setattr(sagas, "clock", lambda: now + timedelta(hours=25))

    again, refused = approve(client, in_time, key="k"), approve(client, late)

    assert (first.status_code, again.status_code, again.json) == (202, 202, first.json)
    assert refused.status_code == 409
    assert "its deadline has passed" in refused.json["error"]


def test_a_decision_that_is_repeated_with_its_key_has_the_same_answer(
    client: Client, office: BackOffice
) -> None:
    order_id, key = taken(client), "k" * 200
    office.turn()

    with office.at_work():
        first = approve(client, order_id, key=key)
        again = approve(client, order_id, key=key)
        other = approve(client, order_id, NO, key=key)

    assert (first.status_code, again.status_code, again.data) == (200, 200, first.data)
    assert other.status_code == 409
    assert other.json == {
        "error": f"The Idempotency-Key {key!r} was used for another decision about the order {order_id}",
        "do": "Take a new Idempotency-Key for a new decision",
    }
    assert signals() == 1


def test_threshold_and_deadline_are_those_of_the_moment_at_which_the_order_was_taken(
    client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = taken(client)
    monkeypatch.setenv("APPROVAL_THRESHOLD", "5.00")
    monkeypatch.setenv("APPROVAL_DEADLINE", "60")
    after = taken(client, CHEAP)
    office.turn()

    spans = {}
    for order_id in (before, after):
        order = look(client, order_id)
        spans[order_id] = datetime.fromisoformat(order["approval"]["deadline"]) - datetime.fromisoformat(
            order["created_time"]
        )

    assert spans == {before: timedelta(hours=24), after: timedelta(seconds=60)}
    assert any(message.startswith("Waiting for approval since order >= 5.00.") for message in told(after))


# ---- what waits -----------------------------------------------------------------------------------


def listed(client: Client, address: str = f"{ORDERS}?waiting=1") -> Any:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    return answer.json


def test_only_what_waits_is_listed_the_next_deadline_first(client: Client, office: BackOffice) -> None:
    first, second, cheap, decided = (
        taken(client, order) for order in (EXPENSIVE, EXPENSIVE, CHEAP, EXPENSIVE)
    )
    empty = listed(client)
    office.turn()
    with office.at_work():
        approve(client, decided)

    found = listed(client)

    assert empty == {"orders": [], "next": None}
    assert [order["id"] for order in found["orders"]] == [first, second]
    assert found["next"] is None
    made = look(client, first)
    assert found["orders"][0] == {
        **made["details"],
        "created_time": made["created_time"],
        "deadline": made["approval"]["deadline"],
        "links": {"order": f"{ORDERS}/{first}", "approve": f"{ORDERS}/{first}/approve"},
    }
    assert cheap not in str(found)


def test_a_deadline_that_was_moved_is_listed_where_it_is_now(client: Client, office: BackOffice) -> None:
    first, second = taken(client), taken(client)
    office.turn()
    later = sagas.clock() + timedelta(days=3)
    (saga,) = [saga for saga in sagas.list() if saga.key == first]
    sagas.act(saga.id, Act.RESCHEDULE, by="ann", reason="on holiday", step="approval", until=later)
    office.turn()

    found = listed(client)

    assert [order["id"] for order in found["orders"]] == [second, first]
    assert datetime.fromisoformat(found["orders"][1]["deadline"]) == later
    assert datetime.fromisoformat(look(client, first)["approval"]["deadline"]) == later


def test_the_list_comes_in_pages(client: Client, office: BackOffice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processing, "PAGE", 2)
    ids = [taken(client) for _ in range(5)]
    office.turn()

    pages, address = [], f"{ORDERS}?waiting=1"
    while address:
        page = listed(client, address)
        pages.append([order["id"] for order in page["orders"]])
        address = page["next"]

    assert pages == [ids[:2], ids[2:4], ids[4:]]


@pytest.mark.parametrize("asked", ["", "?waiting=0", "?waiting=1&after=nonsense", "?waiting=1&after=%00"])
def test_what_is_no_list_is_told_so(client: Client, asked: str) -> None:
    answer = client.get(f"{ORDERS}{asked}")

    assert answer.status_code == 400
    assert answer.json["do"]


def test_who_has_the_list_gets_304_while_nothing_changes(client: Client, office: BackOffice) -> None:
    taken(client)
    office.turn()
    first = client.get(f"{ORDERS}?waiting=1")

    same = client.get(f"{ORDERS}?waiting=1", headers={"If-None-Match": first.headers["ETag"]})

    assert same.status_code == 304


def test_a_decision_by_python_is_the_same(client: Client, office: BackOffice) -> None:
    order_id = taken(client)
    office.turn()

    with office.at_work():
        said: SignalRow = processing.decide(order_id, Approval(approver="ann", approved=True))

    assert (said.became, said.by) == ("taken", "ann")
