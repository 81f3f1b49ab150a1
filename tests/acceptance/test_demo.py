"""The demo, started as ``make demo`` starts it and used as a visitor would: browser, script, command line.

One demo runs the launches, all at once; while its slow ones end, others are stopped and killed.
"""

from __future__ import annotations

import json
import re
import signal
import socket
from collections.abc import Iterator
from datetime import datetime
from functools import partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest
from typing_extensions import override

from app_common.running import PAGED, SERVICES
from app_common.settings import docs_port_variable, port_variable
from app_common.specifications import specification
from tests.acceptance.application import Answer, Application, demo
from tests.acceptance.endings import (
    ENDINGS,
    OF_ITEMS,
    PARKS,
    PATHS,
    RANDOM,
    Ending,
    assert_ended_as_meant,
    assert_rows_agree,
    assert_rows_are_settled,
)
from tests.servers import wait_until

SILENT: Final = "/run-saga-where-restaurant-never-answers"
RECOVERS: Final = "/run-saga-where-compensation-fails-and-recovers"


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The demo that all tests share which do not stop it."""
    shared = demo(tmp_path_factory.mktemp("shared"))
    shared.start()
    yield shared
    shared.close()


@pytest.fixture(scope="module", autouse=True)
def launched(application: Application) -> dict[str, Answer]:
    """What each launch answered. They are made before the first test, and end while others run."""
    return {path: application.ask("POST", path) for path in PATHS}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Application]:
    """A demo of the test's own, not started yet."""
    own = demo(tmp_path)
    yield own
    own.close()


def launch(application: Application, path: str) -> str:
    """Press a button; the saga's id."""
    saga_id: str = application.ask("POST", path).json["saga_id"]
    return saga_id


# ---- killed and stopped ---------------------------------------------------------------------------


def test_after_kill_9_the_next_start_brings_every_saga_to_its_end(own: Application) -> None:
    own.start()
    in_its_pause = launch(own, RECOVERS)
    waiting = launch(own, SILENT)
    done = launch(own, "/run-success-saga")
    own.ended(done)
    tried = "create_restaurant_ticket.compensation_failed"
    wait_until(lambda: own.entries(in_its_pause).count(tried) == 2, "the pause before the third try", 20)
    wait_until(lambda: "create_restaurant_ticket.running" in own.entries(waiting), "the silence", 20)
    under_way = [launch(own, "/run-success-saga") for _ in range(5)]

    own.end(signal.SIGKILL, within=10)
    left = {row.id: row.status for row in own.query("order_service", "SELECT id, status FROM saga_instance")}
    own.start()

    assert left[done] == "completed"
    assert {left[in_its_pause], left[waiting]} <= {"running", "compensating"}
    assert own.ended(in_its_pause)["outcome"]["name"] == "InsufficientBalance"
    assert own.ended(waiting)["outcome"]["name"] == "NoAnswer"
    for saga_id in (done, in_its_pause, waiting, *under_way):
        assert_rows_are_settled(own, own.ended(saga_id))


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly_in_mid_flight_and_goes_on_at_the_next_start(
    own: Application, how: signal.Signals
) -> None:
    own.start()
    saga_id = launch(own, SILENT)
    wait_until(lambda: "create_restaurant_ticket.running" in own.entries(saga_id), "a saga in mid-flight", 20)

    code = own.end(how, within=10)
    printed = own.printed
    own.start()

    assert code == 0
    assert printed.splitlines()[-1].startswith("Stopping")
    assert "Traceback" not in printed
    assert_rows_are_settled(own, own.ended(saga_id))


@pytest.mark.parametrize(
    ("number", "variable"), list(enumerate([*map(port_variable, PAGED), *map(docs_port_variable, SERVICES)]))
)
def test_a_port_in_use_ends_it_with_one_line_that_says_what_to_do(
    own: Application, number: int, variable: str
) -> None:
    port = own.ports[number]
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", port))
        somebody.listen()
        own.begin()
        code = own.process.wait(30)

    assert code == 1
    (line,) = own.printed.splitlines()
    assert line.startswith(f"Port {port} cannot be used (Address already in use). Stop what listens there,")
    other = re.search(rf"or take another: {variable}=(\d+)$", line)
    assert other is not None
    assert int(other[1]) not in own.ports


def test_a_folder_that_cannot_be_used_ends_it_with_one_line_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "demo"
    own = Application("app_common.demo", "", {"DEMO_DATA": str(folder)}, tmp_path)

    own.begin()

    assert own.process.wait(30) == 1
    assert own.printed == (
        f"The folder {folder} cannot be used (Not a directory). "
        "Choose another folder: DEMO_DATA=var/another make demo\n"
    )


# ---- the web --------------------------------------------------------------------------------------


def _is_well(application: Application, port: int) -> bool:
    return application.ask("GET", "/healthz", port=port).status == 200


def test_every_service_with_pages_is_well_and_links_to_the_others(application: Application) -> None:
    for service, port in application.pages.items():
        wait_until(partial(_is_well, application, port), service, 20)
        page = application.ask("GET", "/", accept="text/html", port=port).body
        for other, another in application.pages.items():
            assert other == service or f'href="http://127.0.0.1:{another}/"' in page, (service, other)


def test_the_printed_token_changes_stock_and_shipping_and_nothing_else_does(
    application: Application,
) -> None:
    found = re.search(r"as name:token: (\w+):(\w+)$", application.printed, re.MULTILINE)
    assert found is not None
    name, token = found.groups()
    stock, shipping = (application.pages[f"{one}_service"] for one in ("inventory", "delivery"))
    by_token = {"Authorization": f"Bearer {token}"}

    refused = application.ask("POST", "/shipping/deactivate", port=shipping)
    off = application.ask("POST", "/shipping/deactivate", more=by_token, port=shipping)
    on = application.ask("POST", "/shipping/activate", more=by_token, port=shipping)
    body = json.dumps({"name": "milk", "quantity": 5})
    restocked = application.ask("POST", "/inventory/restock", body, more=by_token, port=stock)

    assert refused.status == 401
    assert (off.json["shipping"], off.json["switched_by"], on.json["shipping"]) == (False, name, True)
    assert restocked.json["milk"] == application.ask("GET", "/inventory", port=stock).json["milk"] == 15


def test_ping_answers(application: Application) -> None:
    answer = application.ask("GET", "/ping")

    assert (answer.status, answer.body) == (200, "ping response")


@pytest.mark.parametrize("path", PATHS)
def test_a_launch_is_accepted_with_both_ids_and_the_place_to_look(
    launched: dict[str, Answer], path: str
) -> None:
    answer = launched[path]

    assert answer.status == 202
    assert set(answer.json) == {"saga_id", "order_id", "links"}
    assert answer.headers["location"] == f"/sagas/{answer.json['saga_id']}"


@pytest.mark.parametrize("path", PATHS)
def test_looking_at_a_launch_starts_nothing_and_says_how_to(application: Application, path: str) -> None:
    ((before,),) = application.query("order_service", "SELECT count(*) FROM orders")

    answer = application.ask("GET", path)

    assert answer.status == 200
    assert answer.json["path"] == path
    assert answer.json["do"] == "POST to launch"
    assert application.query("order_service", "SELECT count(*) FROM orders") == [(before,)]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_docs_site(application: Application, service: str) -> None:
    answer = application.ask("GET", "/asyncapi.json", port=application.docs[service])

    assert answer.status == 200
    assert answer.json["operations"] == specification(service).document["operations"]


def test_an_unknown_saga_is_not_found(application: Application) -> None:
    answer = application.ask("GET", "/sagas/no-such-saga")

    assert answer.status == 404
    assert "no-such-saga" in answer.json["error"]
    assert answer.json["do"]


def test_an_order_of_ones_own_ends_as_the_readme_says_of_its_dish(application: Application) -> None:
    order = {"consumer_id": 70, "card_id": 1, "price": "19.99"}
    items = [{"name": "Midnight Moussaka", "quantity": 1}]

    answer = application.ask("POST", "/orders", json.dumps(order | {"items": items}))

    assert answer.status == 202
    saga = application.ended(answer.json["saga_id"])
    assert (saga["outcome"]["kind"], saga["outcome"]["name"]) == ("refused", "RestaurantClosed")
    assert saga["state"]["amount"] == "19.99"
    assert_rows_are_settled(application, saga)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (
            '{"consumer_id": 70, "card_id": 1, "price": 19.99, "items": [{"name": "x", "quantity": 1}]}',
            "price",
        ),
        ('{"consumer_id": 70, "card_id": 1, "price": "1", "items": []}', "items"),
        ("[]", "$"),
    ],
)
def test_an_order_that_cannot_be_taken_is_refused_with_the_field(
    application: Application, body: str, field: str
) -> None:
    answer = application.ask("POST", "/orders", body)

    assert answer.status == 422
    assert [wrong["field"] for wrong in answer.json["fields"]] == [field]


def test_all_is_well_while_the_demo_runs(application: Application) -> None:
    wait_until(lambda: application.ask("GET", "/healthz").status == 200, "health", 30)

    assert application.ask("GET", "/healthz").json["healthy"] is True


def test_a_browser_is_sent_to_the_saga(application: Application) -> None:
    answer = application.ask("POST", "/run-success-saga", accept="text/html,application/xml;q=0.9,*/*;q=0.8")

    assert answer.status == 303
    assert application.ask("GET", answer.headers["location"]).json["saga"] == "create_order"


class Page(HTMLParser):
    """What a browser without JavaScript can do on a page."""

    VOID: Final = frozenset({"meta", "link", "br", "hr", "img", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.launches: list[str] = []
        self._action: str | None = None
        self.feed(html)
        self.close()

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        given = dict(attrs)
        assert not any(name.startswith("on") for name in given), f"a script in <{tag}>"
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "form" and (given.get("method") or "").lower() == "post":
            self._action = given.get("action")
        if tag == "button" and self._action is not None:
            assert given.get("type", "submit") == "submit"
            self.launches.append(self._action)

    @override
    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag == "form":
            self._action = None


def test_the_homepage_has_a_button_for_each_launch_and_none_needs_a_script(application: Application) -> None:
    answer = application.ask("GET", "/", accept="text/html")

    page = Page(answer.body)

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.body.lower().startswith("<!doctype html>")
    assert sorted(page.launches) == sorted([*PATHS, *OF_ITEMS])
    assert page.open == []


def test_every_order_keeps_the_items_that_it_was_placed_with(
    application: Application, launched: dict[str, Answer]
) -> None:
    rows = application.query("order_service", "SELECT order_id, name FROM order_items ORDER BY id")

    for path in PATHS:
        order_id = launched[path].json["order_id"]
        names = [row.name for row in rows if row.order_id == order_id]
        assert len(names) == 2, path
        assert names[1] == "Dish 2"


# ---- the launches ---------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_a_launch_ends_as_its_name_says_and_everybody_tells_the_same_story(
    application: Application, launched: dict[str, Answer], ending: Ending
) -> None:
    accepted = launched[ending.path].json

    saga = application.ended(accepted["saga_id"])
    shown = application.command_line("show", accepted["saga_id"])
    told = application.command_line("history", accepted["saga_id"])

    assert_ended_as_meant(saga, ending)
    assert saga["key"] == f"order-{accepted['order_id']}"
    assert saga["state"]["order_id"] == accepted["order_id"]
    assert_rows_agree(
        application, saga, order=ending.order, ticket=ending.ticket, authorization=ending.authorization
    )
    steps, shown_steps = saga.pop("steps"), shown.pop("steps")
    assert {name: shown[name] for name in saga} == saga
    assert [(s["name"], s["phase"]) for s in shown_steps] == [
        (s["name"], s.get("phase", "pending")) for s in steps
    ]
    assert told["history"] == saga["history"]


def test_a_random_order_ends_one_way_or_the_other_and_the_rows_agree(
    application: Application, launched: dict[str, Answer]
) -> None:
    saga = application.ended(launched[RANDOM].json["saga_id"])
    listed: Any = application.command_line("list", "--limit", "100")["sagas"]

    assert_rows_are_settled(application, saga)
    assert saga["status"] in {one["status"] for one in listed if one["id"] == saga["id"]}


def test_a_saga_that_needs_a_person_waits_for_one_and_is_freed(
    application: Application, launched: dict[str, Answer]
) -> None:
    saga_id = launched[PARKS].json["saga_id"]
    wait_until(lambda: application.saga(saga_id)["status"] == "parked", "a parked saga", 30)

    why = application.command_line("why", saga_id)["why"]
    freed = application.command_line("retry", saga_id, "--by", "ann", "--reason", "the kitchen was called")

    assert "KitchenOffline: Call the kitchen about ticket" in why
    assert freed["became"] == "done"
    saga = application.ended(saga_id)
    assert saga["status"] == "compensated"
    assert_rows_are_settled(application, saga)


def test_a_restaurant_that_never_answers_is_given_up_within_ten_seconds(
    application: Application, launched: dict[str, Answer]
) -> None:
    saga = application.ended(launched[SILENT].json["saga_id"])

    begun, ended = (datetime.fromisoformat(saga[name]) for name in ("created_at", "ended_at"))
    assert (ended - begun).total_seconds() < 10
