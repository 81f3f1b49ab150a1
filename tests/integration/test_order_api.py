"""Orders posted and read as JSON, on real databases. Nothing is stored unless it was answered with 202."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from markupsafe import escape
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from app_common.messaging.accounting_service_messaging import InsufficientBalance
from order_service import orders
from order_service.models import Base, Order, ProcessingOrder
from order_service.orchestrator import sagas
from order_service.orders import NewOrder, Placed, place
from sagas_framework import Failure, Filter, make_engine
from sagas_framework.storage.migrate import upgrade
from sagas_framework.storage.tables import saga_instance
from tests.integration.back_office import BackOffice
from tests.integration.shopfront import (
    MIGRATIONS,
    NOTHING,
    ORDER,
    Client,
    archived,
    post,
    shopfront,
    stored,
)

FROM_THE_STOCK = {"customer": "Casey", "items": ["milk"], "total": 10.00}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The application with an empty database."""
    with shopfront(request.getfixturevalue(request.param), monkeypatch) as client:
        yield client


# ---- taking ---------------------------------------------------------------------------------------


def test_an_order_is_accepted_with_its_ids_and_the_places_to_look(client: Client) -> None:
    answer = post(client)

    (saga,) = sagas.list()
    order_id = answer.json["order_id"]
    assert answer.status_code == 202
    assert answer.json == {
        "order_id": order_id,
        "saga_id": saga.id,
        "links": {"order": f"/orders/{order_id}", "saga": f"/sagas/{saga.id}"},
    }
    assert answer.headers["Location"] == f"/sagas/{saga.id}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


def test_a_browser_that_posts_an_order_gets_json_like_everybody(client: Client) -> None:
    answer = client.post("/orders", json=ORDER, headers={"Accept": "text/html"})

    assert answer.status_code == 202
    assert answer.mimetype == "application/json"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("consumer_id", 0),
        ("consumer_id", True),
        ("consumer_id", "70"),
        ("consumer_id", None),
        ("card_id", 2**31),
        ("price", 19.99),
        ("price", "-1"),
        ("price", "1.999"),
        ("price", "NaN"),
        ("items", []),
        ("items.0.quantity", 0),
        ("items.1.name", ""),
        ("items.1.name", "x" * 201),
        ("items.0.name", "a\x00b"),
        ("items.0.name", " "),
        ("items.1.colour", "blue"),
        ("nonsense", 1),
    ],
)
def test_a_wrong_field_is_named_by_its_path(client: Client, path: str, value: object) -> None:
    body = json.loads(json.dumps(ORDER))
    place_in, names = body, path.split(".")
    for name in names[:-1]:
        place_in = place_in[int(name) if name.isdecimal() else name]
    place_in[names[-1]] = value

    answer = post(client, body)

    assert answer.status_code == 422
    assert [wrong["field"] for wrong in answer.json["fields"]] == [path]
    assert answer.json["fields"][0]["problem"]
    assert answer.json["do"]
    assert stored() == NOTHING


def test_every_wrong_field_is_named_at_once_missing_ones_too(client: Client) -> None:
    answer = post(client, {"consumer_id": 0, "items": [{"name": "Dish 1"}], "nonsense": 1})

    assert answer.status_code == 422
    assert {wrong["field"] for wrong in answer.json["fields"]} == {
        *("consumer_id", "card_id", "price", "items.0.quantity", "nonsense")
    }


def test_json_that_is_no_object_is_named_as_a_whole(client: Client) -> None:
    answer = post(client, [ORDER])

    assert answer.status_code == 422
    assert answer.json["fields"] == [{"field": "$", "problem": "Input should be an object"}]


@pytest.mark.parametrize("body", [b"", b"{", b"consumer_id=70", b'{"price": "\xff"}', b"[" * 5000])
def test_a_body_that_is_no_json_is_told_so(client: Client, body: bytes) -> None:
    answer = client.post("/orders", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert answer.json["error"].startswith("The body is not JSON: ")
    assert answer.json["do"] == "Send one JSON object, in UTF-8"
    assert stored() == NOTHING


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", None]
)
def test_another_content_type_is_refused(client: Client, content_type: str | None) -> None:
    answer = client.post("/orders", data=json.dumps(ORDER), content_type=content_type)

    assert answer.status_code == 415
    assert (content_type or "no Content-Type") in answer.json["error"]
    assert "application/json" in answer.json["do"]
    assert stored() == NOTHING


def test_a_body_that_is_too_large_is_refused(client: Client) -> None:
    answer = client.post("/orders", data=b" " * 65_537, content_type="application/json")

    assert answer.status_code == 413
    assert "65536 bytes" in answer.json["error"]
    assert stored() == NOTHING


@pytest.mark.parametrize("written", ["20", "20.0", "20.00", "2E+1", 20])
def test_an_amount_is_kept_in_cents_however_it_was_written(client: Client, written: str | int) -> None:
    order_id = post(client, ORDER | {"price": written}).json["order_id"]

    assert client.get(f"/orders/{order_id}").json["price"] == "20.00"


# ---- the idempotency key --------------------------------------------------------------------------


def test_the_same_key_with_the_same_order_gets_the_first_answer_again(client: Client) -> None:
    first, second = post(client, key="k-1"), post(client, key="k-1")

    assert second.status_code == first.status_code == 202
    assert second.data == first.data
    assert second.headers["Location"] == first.headers["Location"]
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


@pytest.mark.parametrize(
    "written",
    [
        json.dumps(dict(reversed(ORDER.items()))),
        json.dumps(ORDER, indent=4),
        json.dumps(ORDER | {"price": "1999e-2"}),
    ],
)
def test_the_same_order_in_other_words_is_the_same_order(client: Client, written: str) -> None:
    first = post(client, key="k-1")

    again = client.post(
        "/orders", data=written, content_type="application/json", headers={"Idempotency-Key": "k-1"}
    )

    assert (again.status_code, again.data) == (202, first.data)
    assert stored()["orders"] == 1


@pytest.mark.parametrize(
    "change",
    [{"price": "20.00"}, {"items": ORDER["items"][::-1]}],
    ids=["price", "items"],
)
def test_the_same_key_with_another_order_is_a_conflict(client: Client, change: dict[str, Any]) -> None:
    first = post(client, key="k-1")

    answer = post(client, ORDER | change, key="k-1")

    assert answer.status_code == 409
    assert "'k-1'" in answer.json["error"]
    assert answer.json["error"].endswith(f"number {first.json['order_id']}")
    assert "new key" in answer.json["do"]
    assert stored()["orders"] == 1


def test_another_key_is_another_order_and_so_is_none(client: Client) -> None:
    keys = ("k-1", "K-1", None, None)

    assert len({post(client, key=key).json["order_id"] for key in keys}) == len(keys)


def test_a_key_is_the_same_with_quotes_and_without(client: Client) -> None:
    first = post(client, key=r'"a \"b\" \\c"')
    second = post(client, key=r'a "b" \c')

    assert first.status_code == 202
    assert second.data == first.data


@pytest.mark.parametrize(
    "key", ["", " ", '""', "x" * 201, f'"{"x" * 201}"', "caf\xe9", "a\tb", '"a', '"a"b', '"a";p=1', '"\\x"']
)
def test_a_key_that_cannot_be_used_is_told_so(client: Client, key: str) -> None:
    answer = post(client, key=key)

    assert answer.status_code == 400
    assert answer.json["error"].startswith("The Idempotency-Key ")
    assert "UUID" in answer.json["do"]
    assert stored() == NOTHING


def test_a_key_of_200_characters_is_taken(client: Client) -> None:
    assert post(client, key="x" * 200).status_code == 202


def test_a_key_is_free_again_when_its_order_could_not_be_taken(client: Client) -> None:
    refused = post(client, ORDER | {"price": "-1"}, key="k-1")
    taken = post(client, key="k-1")

    assert (refused.status_code, taken.status_code) == (422, 202)


def test_of_two_at_the_same_time_one_takes_the_order_and_the_other_gets_its_answer(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked for the key, and found nothing, before either writes."""
    both_looked = threading.Barrier(2, timeout=30)
    take, tried = orders._take, []

    def take_together(new: NewOrder, key: str | None) -> Placed:
        both_looked.wait()
        tried.append(key)
        return take(new, key)

    monkeypatch.setattr(orders, "_take", take_together)
    app = client.application
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda _: post(app.test_client(), key="k-1"), range(2)))

    assert tried == ["k-1", "k-1"]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert answers[0].data == answers[1].data
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


def test_of_two_different_orders_at_the_same_time_one_is_told_of_the_conflict(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_looked = threading.Barrier(2, timeout=30)
    take = orders._take

    def take_together(new: NewOrder, key: str | None) -> Placed:
        both_looked.wait()
        return take(new, key)

    monkeypatch.setattr(orders, "_take", take_together)
    app = client.application
    bodies = [ORDER, ORDER | {"price": "20.00"}]
    with ThreadPoolExecutor(2) as threads:
        answers = list(threads.map(lambda body: post(app.test_client(), body, key="k-1"), bodies))

    assert sorted(answer.status_code for answer in answers) == [202, 409]
    assert stored()["orders"] == stored()["saga_instance"] == 1


def test_many_at_the_same_time_get_one_answer(client: Client) -> None:
    app, begin = client.application, threading.Barrier(6, timeout=30)

    def ask(_: int) -> Any:
        begin.wait()
        return post(app.test_client(), key="k-1")

    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(ask, range(6)))

    assert {(answer.status_code, answer.data) for answer in answers} == {(202, answers[0].data)}
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


def test_a_saga_that_cannot_be_started_leaves_no_order_and_no_key(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("no saga today")

    with monkeypatch.context() as patch:
        patch.setattr(sagas, "start_many", broken)
        with pytest.raises(RuntimeError):
            place(NewOrder.model_validate(ORDER), "k-1")
    left = stored()

    assert left == NOTHING
    assert post(client, key="k-1").status_code == 202


def test_who_waits_for_the_first_takes_the_order_when_the_first_fails(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, holding, asked = sagas.start_many, threading.Event(), threading.Event()

    def fails_once(*given: Any, **named: Any) -> Any:
        if not holding.is_set():
            holding.set()  # its row, with the key, is written and not committed
            assert asked.wait(30)
            raise OperationalError("INSERT", {}, Exception("the disk is full"))
        return start(*given, **named)

    monkeypatch.setattr(sagas, "start_many", fails_once)
    app = client.application

    def second() -> Any:
        assert holding.wait(30)
        asked.set()
        return post(app.test_client(), key="k-1")

    with ThreadPoolExecutor(2) as threads:
        failed, taken = threads.submit(lambda: post(app.test_client(), key="k-1")), threads.submit(second)

    assert (failed.result().status_code, taken.result().status_code) == (503, 202)
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


def test_who_got_no_answer_after_the_commit_gets_it_with_the_same_key(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = orders._take

    def commits_and_is_lost(new: NewOrder, key: str | None) -> Placed:
        take(new, key)
        raise OperationalError("COMMIT", {}, Exception("the connection is gone"))

    with monkeypatch.context() as patch:
        patch.setattr(orders, "_take", commits_and_is_lost)
        lost = post(client, key="k-1")
    again = post(client, key="k-1")

    assert (lost.status_code, again.status_code, again.json["order_id"]) == (503, 202, 1)
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 1}


# ---- when the saga has gone to the archive --------------------------------------------------------


def test_who_comes_with_the_key_when_the_saga_is_archived_gets_the_first_answer_again(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = post(client, key="k-1")
    BackOffice().turn()

    assert archived(tmp_path, monkeypatch) == 1
    again = post(client, key="k-1")
    other = post(client, ORDER | {"price": "20.00"}, key="k-1")

    assert (again.status_code, again.data) == (202, first.data)
    assert (other.status_code, other.json["error"]) == (
        409,
        "The Idempotency-Key 'k-1' was used for another order, number 1",
    )
    assert stored() == {"orders": 1, "order_items": 2, "saga_instance": 0}


@pytest.mark.parametrize("approved", [True, False])
@pytest.mark.parametrize("key", ["k-1", None])
def test_an_order_whose_saga_is_archived_is_told_as_before_without_it(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None, approved: bool
) -> None:
    taken = post(client, key=key).json
    no: dict[str, Failure] = {"accounting_service.authorize_card": InsufficientBalance("no")}
    BackOffice({} if approved else no).turn()
    before = client.get(taken["links"]["order"]).json

    archived(tmp_path, monkeypatch)
    after = client.get(taken["links"]["order"])

    assert (before["status"], before["ticket_id"]) == ("approved" if approved else "rejected", 7)
    assert before["saga"]["status"] == ("completed" if approved else "compensated")
    assert after.status_code == 200
    assert after.json == before | {"saga": None, "links": {"order": taken["links"]["order"]}}


def test_a_saga_that_no_release_has_noted_and_that_is_archived_is_told_where_to_look_for(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(client, key="k-1")
    with sagas.engine.begin() as connection:  # as a release left it that knows nothing of the column
        connection.execute(update(Order).values(saga_id=None))
    BackOffice().turn()
    before = post(client, key="k-1")

    archived(tmp_path, monkeypatch)
    after = post(client, key="k-1")

    assert before.status_code == 202
    assert after.status_code == 410
    assert after.json == {
        "error": "The order number 1 has ended long ago: its saga is in the archive",
        "do": "Ask who runs this; they look with: saga -A order_service.worker show order-1",
    }
    assert stored()["orders"] == 1


# ---- looking --------------------------------------------------------------------------------------


def test_an_order_is_told_with_its_saga_and_why_it_waits(client: Client) -> None:
    taken = post(client).json

    answer = client.get(taken["links"]["order"])

    told = answer.json
    why = told["saga"].pop("why")
    assert answer.status_code == 200
    assert told == {
        "id": taken["order_id"],
        "status": "pending_validation",
        **ORDER,
        "ticket_id": None,
        "transaction_id": None,
        "saga": {"id": taken["saga_id"], "status": "running", "outcome": None},
        "links": taken["links"],
    }
    assert "orchestrator" in why


def test_a_ticket_is_told_as_soon_as_its_saga_knows_it(client: Client) -> None:
    taken = post(client).json
    state = dict(sagas.get(taken["saga_id"]).state)
    with sagas.engine.begin() as connection:
        connection.execute(update(saga_instance).values(state=state | {"ticket_id": 7}))

    told = client.get(taken["links"]["order"]).json

    assert (told["status"], told["ticket_id"]) == ("pending_validation", 7)


@pytest.mark.parametrize(
    "order_id", ["2", "0", "-1", "1.0", "2147483648", "99999999999999999999", "1" * 5000, "abc", "%C2%B2"]
)
def test_an_unknown_order_is_not_found(client: Client, order_id: str) -> None:
    post(client)

    answer = client.get(f"/orders/{order_id}")

    assert answer.status_code == 404
    assert answer.json["error"].startswith("No order has the id ")
    assert answer.json["do"]


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/nowhere", "There is nothing at /nowhere"),
        ("/nowhere/at/all", "There is nothing at /nowhere/at/all"),
        ("/<b>", "There is nothing at /&lt;b&gt;"),
        ("/orders/17", "No order has the id &#39;17&#39;"),
        ("/processing/orders/order_x", "No order has the id &#39;order_x&#39;"),
        ("/orders", "GET is not allowed on /orders"),
    ],
)
def test_a_wrong_path_is_a_page_with_a_way_home_in_a_browser_and_json_elsewhere(
    client: Client, path: str, told: str
) -> None:
    page = client.get(path, headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    plain = [client.get(path), client.get(path, headers={"Accept": "application/json"})]

    assert (page.status_code, page.mimetype) == (plain[0].status_code, "text/html")
    assert f'<h1 class="any">{told}</h1>' in page.text
    assert '<a href="/">Home</a>' in page.text
    assert '<nav aria-label="Pages">' in page.text
    for answer in plain:
        assert escape(answer.json["error"]) == told
        assert answer.json["do"]


def test_who_has_the_order_as_it_is_gets_304_until_it_changes(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = post(client).json
    now = sagas.clock()
    monkeypatch.setattr(sagas, "clock", lambda: now)  # how long it has waited is told, too
    first = client.get(taken["links"]["order"])
    has = {"If-None-Match": first.headers["ETag"]}

    same = client.get(taken["links"]["order"], headers=has)
    with sagas.engine.begin() as connection:
        connection.execute(text("UPDATE orders SET status = 'approved'"))
    changed = client.get(taken["links"]["order"], headers=has)

    assert first.headers["Cache-Control"] == "no-cache"
    assert (same.status_code, same.data) == (304, b"")
    assert (changed.status_code, changed.json["status"]) == (200, "approved")


@pytest.mark.parametrize("path", ["/orders", "/orders/1"])
def test_options_and_wrong_methods_say_what_is_allowed(client: Client, path: str) -> None:
    allowed = {"OPTIONS", "POST"} if path == "/orders" else {"GET", "HEAD", "OPTIONS"}

    options, wrong = client.options(path), client.delete(path)

    assert (options.status_code, wrong.status_code) == (200, 405)
    assert set(options.headers["Allow"].split(", ")) == allowed
    assert set(wrong.headers["Allow"].split(", ")) == allowed
    assert wrong.json["error"] == f"DELETE is not allowed on {path}"


# ---- the schema -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fixture", ["sqlite_url", "postgres_url"])
def test_orders_of_the_former_schema_stay_and_its_release_can_still_take_some(
    request: pytest.FixtureRequest, tmp_path: Path, fixture: str
) -> None:
    engine = make_engine(request.getfixturevalue(fixture))
    first = tmp_path / "first" / "versions"
    first.mkdir(parents=True)
    (first / "0001_orders.py").write_text((MIGRATIONS / "versions/0001_orders.py").read_text())
    former = text(
        "INSERT INTO orders (status, consumer_id, card_id, price) VALUES ('approved', 70, 1, '1.00')"
    )

    upgrade(engine)
    upgrade(engine, first.parent, "order_service_alembic_version")
    with engine.begin() as connection:
        connection.execute(former)
    ran = upgrade(engine, MIGRATIONS, "order_service_alembic_version")
    with engine.begin() as connection:
        connection.execute(former)
        count = connection.execute(text("SELECT count(*) FROM orders WHERE idempotency_key IS NULL")).scalar()

    assert ran == [
        "0002 idempotency keys of orders",
        "0003 orders of items from the stock",
        "0004 the saga that an idempotency key started, for when it has gone to the archive",
    ]
    assert count == 2
    engine.dispose()


def test_the_sagas_of_keys_that_are_there_are_noted_by_the_migration(client: Client) -> None:
    def noted() -> set[tuple[str, str | None]]:
        with sagas.engine.connect() as connection:
            rows = [
                *connection.execute(select(Order.idempotency_key, Order.saga_id)),
                *connection.execute(select(ProcessingOrder.idempotency_key, ProcessingOrder.saga_id)),
            ]
        return {(key, saga_id) for key, saga_id in rows}

    for key in ("k-1", "k-2", None):
        headers = {} if key is None else {"Idempotency-Key": key}
        assert post(client, key=key).status_code == 202
        assert client.post("/processing/orders", json=FROM_THE_STOCK, headers=headers).status_code == 202
    before = noted()
    with sagas.engine.begin() as connection:
        for table in ("orders", "processing_orders"):
            connection.execute(text(f"ALTER TABLE {table} DROP COLUMN saga_id"))
        connection.execute(text("UPDATE order_service_alembic_version SET version_num = '0003'"))

    sagas.upgrade()

    assert noted() == before
    assert len(before) == 5  # two keys in each table, and all that have none


def test_the_migrations_make_the_tables_that_are_declared(client: Client) -> None:
    def ours(_object: object, name: str | None, type_: str, *_: object) -> bool:
        return type_ != "table" or name in Base.metadata.tables

    with sagas.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})

        assert compare_metadata(context, Base.metadata) == []


def test_the_saga_of_an_order_is_found_by_its_key(client: Client) -> None:
    taken = post(client).json

    (saga,) = sagas.list(Filter(key=f"order-{taken['order_id']}"))

    assert saga.id == taken["saga_id"]
