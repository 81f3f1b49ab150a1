"""The console's lists on PostgreSQL: found, paged, acted on, and answered while the server is away."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sagas_framework.core.events import Act
from sagas_framework.core.why import QueueSeen
from tests.servers import OwnPostgres
from tests.unit.cli import shop as shops
from tests.unit.cli.shop import Shop, forget_modules
from tests.unit.console.browser import Browser, field, fields, keys, site, words


@pytest.fixture
def make_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Shop]]:
    """Shops that are made go here, and are closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_modules()
    made: list[Shop] = []
    yield made
    for shop in made:
        shop.sagas.engine.dispose()
    forget_modules()


def open_shop(url: str, made: list[Shop], monkeypatch: pytest.MonkeyPatch) -> Shop:
    """order_service at noon, with its database there."""
    monkeypatch.setattr(shops, "WORKER", shops.WORKER.replace("sqlite:///orders.sqlite3", url))
    made.append(Shop(Path.cwd()))
    return made[-1]


@pytest.fixture
def shop(postgres_url: str, make_shop: list[Shop], monkeypatch: pytest.MonkeyPatch) -> Shop:
    return open_shop(postgres_url, make_shop, monkeypatch)


@pytest.fixture
def browser(shop: Shop) -> Browser:
    return Browser(site(shop.sagas, operators=["maria"]))


def test_sagas_are_listed_found_and_filtered(shop: Shop, browser: Browser) -> None:
    saga_id = shop.completed("order-17")
    shop.sleeps(1)
    refused = shop.until("authorize_card", "refused")
    shop.refuses(refused)
    shop.sleeps(7200)
    shop.parked_after_pivot("needy")
    shop.start('<b>"%_\\' + "ö世🍜")

    # Nobody undid the refused one for two hours, so it needs a person too.
    assert keys(browser.page("/sagas/")) == ["refused", "needy", '<b>"%_\\' + "ö世🍜"]
    assert keys(browser.page("/sagas/?key=order-17")) == ["order-17"]
    assert keys(browser.page(f"/sagas/?key={saga_id[:13]}")) == ["order-17"]
    assert keys(browser.page("/sagas/?outcome=refused")) == ["refused"]
    assert keys(browser.page("/sagas/?older=1h&status=all")) == ["refused", "order-17"]
    assert keys(browser.page("/sagas/?status=parked&waits=start_delivery")) == ["needy"]
    assert browser.get("/sagas/?key=a%00").status_code == 400
    assert "No saga is like that" in words(browser.page("/sagas/?key=%ED%A0%80"))


def test_pages_follow_each_other_and_nothing_new_is_304(shop: Shop, browser: Browser) -> None:
    for number in range(55):
        shop.sleeps(1)
        shop.start(f"order-{number}", taken=False)

    listed = browser.json("/sagas/")
    assert listed.json is not None
    second = browser.json(listed.json["next"])

    assert second.json is not None
    assert [saga["key"] for saga in second.json["sagas"]] == [f"order-{number}" for number in range(50, 55)]
    assert browser.json("/sagas/", If_None_Match=listed.headers["ETag"]).status_code == 304
    shop.sleeps(1)
    shop.start("one more", taken=False)
    assert browser.json("/sagas/", If_None_Match=listed.headers["ETag"]).status_code == 200


def test_many_are_acted_on_and_the_one_that_moved_on_is_left_alone(shop: Shop, browser: Browser) -> None:
    ids = [shop.parked_after_pivot(key) for key in ("a", "b", "c")]
    asked = {"act": "skip", "all": "1", "by": "maria", "reason": "no couriers", "csrf": browser.token()}
    page = browser.post("/sagas/bulk?status=parked", asked).text
    with shop.working():
        number = shop.sagas.act(ids[0], Act.SKIP, by="jo", reason="I was faster")
        assert not shop.sagas.act_answer(number, within=timedelta(seconds=10)).refused

    confirmed = asked | {"confirmed": "1", "saga": fields(page, "saga"), "csrf": field(page, "csrf")}
    stored = browser.post("/sagas/bulk", confirmed)
    shop.orchestrator.obey_acts()

    assert sorted(keys(page)) == ["a", "b", "c"]
    assert "2 done, 1 refused" in words(browser.page(stored.location))


def test_what_is_stuck_says_since_when_no_worker_takes_its_messages(shop: Shop, browser: Browser) -> None:
    saga_id = shop.until("create_restaurant_ticket", "a")
    shop.sleeps(120)
    _, flight = shop.flight(saga_id)
    shop.orchestrator.store.note_queues([QueueSeen(flight.queue, shop.now, 1, 0)])

    (group,) = browser.json("/sagas/stuck").get_json()["stuck"]

    assert group["why"] == (
        "1 saga of deliver_order waits for restaurant_service.create_ticket since 12:00. "
        f"No worker has taken from {flight.queue} since 12:02. 1 message waits in {flight.queue}."
    )


def test_while_the_server_is_away_pages_say_so_and_then_work_again(
    own_postgres: OwnPostgres, make_shop: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = open_shop(own_postgres.create(), make_shop, monkeypatch)
    shop.parked_after_pivot("a")
    browser = Browser(site(shop.sagas, operators=["maria"]))
    token = browser.token()

    own_postgres.kill()
    listed, told = browser.get("/sagas/"), browser.json("/sagas/stuck")
    act = browser.post("/sagas/bulk", {"act": "skip", "all": "1", "csrf": token})
    own_postgres.start()

    assert listed.status_code == told.status_code == act.status_code == 503
    assert "The database of order_service cannot be reached, or is busy" in words(listed.text)
    assert told.get_json()["error"] == "The database of order_service cannot be reached, or is busy"
    assert keys(browser.page("/sagas/")) == ["a"]
