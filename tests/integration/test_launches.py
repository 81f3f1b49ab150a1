"""The launches of the homepage: looked at they say what they would do, posted they do it."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from order_service.launches import ENDS, LAUNCHES, Launch
from tests.integration.shopfront import NOTHING, Client, post, shopfront, stored

SUCCESS = "/run-success-saga"
RANDOM = "/run-random-saga"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.fixture
def client(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The application with an empty database."""
    with shopfront(sqlite_url, monkeypatch) as client:
        yield client


@pytest.mark.parametrize("launch", LAUNCHES, ids=lambda launch: launch.path)
def test_looking_at_a_launch_tells_what_it_would_do_and_does_nothing(client: Client, launch: Launch) -> None:
    answer = client.get(launch.path)

    assert answer.status_code == 200
    assert answer.json["path"] == launch.path
    assert answer.json["title"] == launch.title
    assert answer.json["ends"] in ENDS
    assert answer.json["shows"] == launch.shows
    assert answer.json["drawn_anew"] is (launch.path == RANDOM)
    assert answer.json["do"] == "POST to launch"
    assert stored() == NOTHING


def test_the_order_that_a_launch_tells_can_be_posted_as_it_is(client: Client) -> None:
    order = client.get(SUCCESS).json["order"]

    by_hand, launched = post(client, order), client.post(SUCCESS)

    told = [client.get(answer.json["links"]["order"]).json for answer in (by_hand, launched)]
    for one in told:
        for name in ("id", "saga", "links"):
            one.pop(name)
    assert told[0] == told[1]


def test_a_program_that_launches_gets_the_ids(client: Client) -> None:
    answer = client.post(SUCCESS)

    assert answer.status_code == 202
    assert set(answer.json) == {"order_id", "saga_id", "links"}
    assert answer.headers["Location"] == answer.json["links"]["saga"]


def test_a_browser_that_launches_is_sent_to_the_saga(client: Client) -> None:
    answer = client.post(SUCCESS, headers={"Accept": BROWSER})

    assert answer.status_code == 303
    assert answer.headers["Location"].startswith("/sagas/")
    assert stored()["saga_instance"] == 1


def test_a_browser_that_looks_at_a_launch_sees_its_order_and_a_button(client: Client) -> None:
    answer = client.get(SUCCESS, headers={"Accept": BROWSER})

    assert answer.status_code == 200
    assert answer.mimetype == "text/html"
    assert "consumer_id" in answer.text
    assert f'<form method="post" action="{SUCCESS}">' in answer.text
    assert "form-action 'self'; frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert stored() == NOTHING


def test_the_homepage_is_json_for_programs_and_304_while_nothing_changes(client: Client) -> None:
    before = client.get("/")
    same = client.get("/", headers={"If-None-Match": before.headers["ETag"]})
    client.post(SUCCESS)
    answer = client.get("/", headers={"If-None-Match": before.headers["ETag"]})
    page = client.get("/", headers={"Accept": BROWSER})

    assert before.json["last"] == []
    assert (same.status_code, same.data) == (304, b"")
    assert {launch["path"] for launch in answer.json["launches"]} == {launch.path for launch in LAUNCHES}
    assert answer.json["count"]["running"] == 1
    assert [one["key"] for one in answer.json["last"]] == ["order-1"]
    assert client.get(answer.json["last"][0]["saga"]).json["key"] == "order-1"
    assert page.headers["Vary"] == "Accept, Cookie"
    assert page.headers["ETag"] != answer.headers["ETag"]


@pytest.mark.parametrize("path", [SUCCESS, RANDOM])
def test_a_launch_takes_no_idempotency_key_and_says_what_does(client: Client, path: str) -> None:
    answer = client.post(path, headers={"Idempotency-Key": "k-1"})

    assert answer.status_code == 400
    assert answer.json["error"] == "A launch takes no Idempotency-Key: each POST is another order"
    assert answer.json["do"].endswith(f"send the order that GET {path} tells to POST /orders with it")
    assert stored() == NOTHING


def test_behind_a_prefix_every_address_has_it(client: Client) -> None:
    behind = {"SCRIPT_NAME": "/shop"}

    home = client.get("/", headers={"Accept": BROWSER}, environ_overrides=behind).text
    launch = client.get(SUCCESS, headers={"Accept": BROWSER}, environ_overrides=behind).text
    told = client.get("/", environ_overrides=behind).json["launches"]
    preview = client.get(SUCCESS, environ_overrides=behind).json

    assert "curl -X POST http://localhost/shop/run-success-saga" in home
    assert '<a href="/shop/" aria-current="page">Home</a>' in home
    assert f'<form method="post" action="/shop{SUCCESS}">' in launch
    assert all(one["path"].startswith("/shop/run-") for one in told)
    assert preview["path"] == f"/shop{SUCCESS}"


def test_head_and_options_launch_nothing(client: Client) -> None:
    head, options = client.head(SUCCESS), client.options(SUCCESS)

    assert (head.status_code, head.data) == (200, b"")
    assert options.status_code == 200
    assert set(options.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert stored() == NOTHING


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_told_which_are_allowed(client: Client, method: str) -> None:
    answer = client.open(SUCCESS, method=method)

    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "OPTIONS", "POST"}
    assert answer.json["error"] == f"{method} is not allowed on {SUCCESS}"
    assert stored() == NOTHING


# ---- other sites ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:8081"},
        {"Origin": "https://evil.example"},
        {"Origin": "http://localhost:8081"},
        {"Origin": "null"},
        {"Origin": "http://["},
    ],
)
def test_a_page_of_another_origin_launches_nothing(client: Client, headers: dict[str, str]) -> None:
    answer = client.post(SUCCESS, headers={"Accept": BROWSER, **headers})

    assert (answer.status_code, answer.mimetype) == (403, "text/html")
    (told,) = re.findall("<h1[^>]*>(.*)</h1>", answer.text)
    (do,) = re.findall('<p class="lead">(.*)</p>', answer.text)
    assert (headers.get("Origin") or headers["Sec-Fetch-Site"]) in told
    assert "homepage" in do
    assert stored() == NOTHING


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "http://localhost"},
        # Behind a proxy that names another host only the browser knows better.
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://orders.example"},
    ],
)
def test_our_own_pages_launch(client: Client, headers: dict[str, str]) -> None:
    assert client.post(SUCCESS, headers={"Accept": BROWSER, **headers}).status_code == 303


def test_an_order_is_json_which_no_page_of_another_origin_may_send(client: Client) -> None:
    asked = client.options(
        "/orders",
        headers={
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type",
        },
    )

    assert [name for name, _ in asked.headers if name.lower().startswith("access-control-")] == []
