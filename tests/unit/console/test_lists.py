"""The list of sagas, what is stuck, and one act on many: in a browser and as JSON."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from sqlalchemy import event

from sagas_framework.core.events import Act
from sagas_framework.core.why import QueueSeen
from tests.unit.cli.shop import Shop
from tests.unit.console.browser import Browser, field, fields, keys, site, words

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "Grüße, 世界 🍜",
    "k" * 200,
    "a.b/c?d=e&f#g",
]


def asking(browser: Browser, act: str, *sagas: str, **more: str) -> dict[str, object]:
    """The fields of the form under a list."""
    told: dict[str, object] = {"act": act, "saga": list(sagas), "by": "maria", "reason": "kitchen is back"}
    return told | {"csrf": browser.token()} | more


def confirming(page: str) -> dict[str, object]:
    """The fields of a page that asks."""
    hidden = {name: field(page, name) for name in ("csrf", "act", "confirmed")}
    return hidden | {"by": "maria", "reason": "kitchen is back", "saga": fields(page, "saga")}


# ---- what is listed -------------------------------------------------------------------------------


def test_without_any_saga_the_list_says_so(browser: Browser) -> None:
    assert "No saga yet. As soon as one is started it is listed here." in words(browser.page("/sagas/"))
    assert browser.json("/sagas/").json == {
        "sagas": [],
        "next": None,
        "counts": {"running": 0, "compensating": 0, "completed": 0, "compensated": 0, "parked": 0},
    }


def test_open_sagas_are_listed_with_those_first_that_need_a_person(shop: Shop, browser: Browser) -> None:
    shop.completed("done")
    shop.until("create_restaurant_ticket", "first")
    shop.sleeps(5)
    shop.until("create_restaurant_ticket", "second")
    shop.parked_after_pivot("needy")
    shop.sleeps(10)

    page = browser.page("/sagas/")

    assert keys(page) == ["needy", "first", "second"]
    told = words(page)
    assert "open 3 parked 1 compensating 0 running 2 completed 1 compensated 0 all 4" in told
    assert "start_delivery Needs a person: refused after the pivot (NoCourier: says NoCourier)" in told
    assert "create_restaurant_ticket Waiting 15 s for restaurant_service.create_ticket (try 1)" in told


@pytest.mark.parametrize(
    ("status", "found"),
    [
        ("all", ["needy", "moving", "done"]),
        ("completed", ["done"]),
        ("parked", ["needy"]),
        ("compensated", []),
    ],
)
def test_a_tab_shows_those_in_its_status(shop: Shop, browser: Browser, status: str, found: list[str]) -> None:
    shop.completed("done")
    shop.sleeps(1)
    shop.start("moving")
    shop.parked_after_pivot("needy")

    page = browser.page(f"/sagas/?status={status}")

    assert keys(page) == found
    (current,) = re.findall(
        r'<a href="[^"]*" aria-current="page">(?:<svg.*?</svg>)?(\w+) <span class="n">', page
    )
    assert current == status


def test_a_saga_is_found_by_its_key_its_id_and_the_beginning_of_its_id(shop: Shop, browser: Browser) -> None:
    saga_id = shop.completed("order-17")
    shop.sleeps(1000)
    shop.start("order-170")

    for named in ("order-17", saga_id, saga_id[:13]):
        assert keys(browser.page(f"/sagas/?key={named}")) == ["order-17"]
    assert keys(browser.page("/sagas/?key=order-17&saga=deliver_order&outcome=ok")) == ["order-17"]
    assert keys(browser.page("/sagas/?key=order-17&saga=create_order")) == []


def test_a_list_without_a_match_offers_to_show_all(shop: Shop, browser: Browser) -> None:
    shop.start("order-1")

    assert "No saga is like that. Show all" in words(browser.page("/sagas/?key=nonesuch"))
    assert "No saga is like that. Show all" in words(browser.page("/sagas/?saga=create_order"))
    assert "No saga is parked. Show all" in words(browser.page("/sagas/?status=parked"))


def test_when_all_have_ended_the_list_says_so(shop: Shop, browser: Browser) -> None:
    shop.completed("done")

    assert "No saga is open: each has ended. Show all" in words(browser.page("/sagas/"))


def test_filters_narrow_the_list(shop: Shop, browser: Browser) -> None:
    refused = shop.until("authorize_card", "refused")
    shop.refuses(refused)
    shop.sleeps(7200)
    shop.until("create_restaurant_ticket", "young")

    def found(query: str) -> list[str]:
        return keys(browser.page(f"/sagas/?{query}"))

    assert found("older=1h") == ["refused"]
    assert found("older=1d") == []
    assert found("outcome=refused") == ["refused"]
    assert found("waits=restaurant_service.create_ticket") == ["young"]
    assert found("saga=deliver_order&status=running") == ["young"]


@pytest.mark.parametrize(
    "query", ["status=nope", "saga=nope", "outcome=nope", "older=2h", "after=nope", "after=7.x"]
)
def test_an_unknown_value_is_refused_in_words(shop: Shop, browser: Browser, query: str) -> None:
    shop.start("order-1")

    answer = browser.get(f"/sagas/?{query}")
    told = browser.json(f"/sagas/?{query}")

    assert answer.status_code == told.status_code == 400
    assert told.json is not None
    assert set(told.json) == {"error", "do"}
    assert told.json["error"] in words(answer.text)
    assert told.json["do"] in words(answer.text)


@pytest.mark.parametrize("key", ["a%00", "k" * 256])
def test_what_no_key_can_be_is_refused_before_the_database_is_asked(browser: Browser, key: str) -> None:
    answer = browser.get(f"/sagas/?key={key}")

    assert answer.status_code == 400
    assert "Nothing can be looked for with this key" in words(answer.text)


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_is_shown_as_it_is_whatever_is_in_it(shop: Shop, browser: Browser, key: str) -> None:
    shop.start(key)

    page = browser.page("/sagas/")
    found = browser.client.get("/sagas/", query_string={"key": key}, headers={"Accept": "text/html"}).text

    assert keys(page) == keys(found) == [key]
    assert "<script>alert" not in page + found
    assert "<img" not in page + found
    listed = browser.json("/sagas/").json
    assert listed is not None
    assert listed["sagas"][0]["key"] == key


def test_a_long_list_goes_on_on_the_next_page_without_gaps(shop: Shop, browser: Browser) -> None:
    for number in range(60):
        shop.sleeps(1)
        shop.start(f"order-{number}", taken=False)

    first = browser.page("/sagas/")
    listed = browser.json("/sagas/").json
    assert listed is not None
    second = browser.page(listed["next"])

    assert keys(first) + keys(second) == [f"order-{number}" for number in range(60)]
    assert "First page" not in words(first)
    assert "First page" in words(second)
    assert "Newer" in words(first)
    assert keys(browser.page("/sagas/?status=all"))[0] == "order-59"
    assert "Older" in words(browser.page("/sagas/?status=all"))


# ---- known already --------------------------------------------------------------------------------


def test_a_list_in_which_nothing_changed_is_not_sent_again(shop: Shop, browser: Browser) -> None:
    saga_id = shop.start("order-1")
    browser.page("/sagas/")  # the first one sets the cookie

    tag = browser.get("/sagas/").headers["ETag"]
    again = browser.get("/sagas/", If_None_Match=tag)
    other = browser.get("/sagas/?status=all", If_None_Match=tag)
    shop.succeeds(saga_id)
    changed = browser.get("/sagas/", If_None_Match=tag)

    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == tag
    assert other.status_code == changed.status_code == 200


def test_ages_are_as_fresh_as_5_seconds(shop: Shop, browser: Browser) -> None:
    shop.start("order-1", taken=False)
    tag = browser.json("/sagas/").headers["ETag"]

    shop.sleeps(4)
    soon = browser.json("/sagas/", If_None_Match=tag)
    shop.sleeps(1)
    later = browser.json("/sagas/", If_None_Match=tag)

    assert (soon.status_code, later.status_code) == (304, 200)


def test_the_tag_of_one_form_is_not_that_of_the_other(shop: Shop, browser: Browser) -> None:
    browser.page("/sagas/")
    tag = browser.get("/sagas/").headers["ETag"]

    assert browser.json("/sagas/", If_None_Match=tag).status_code == 200


def test_head_is_answered_as_get_without_a_body(shop: Shop, browser: Browser) -> None:
    shop.start("order-1")

    for path in ("/sagas/", "/sagas/stuck", "/sagas/?status=nope"):
        head, get = browser.client.head(path), browser.client.get(path)
        assert head.status_code == get.status_code
        assert head.data == b""
        assert head.headers["Content-Type"] == get.headers["Content-Type"]


# ---- what is stuck --------------------------------------------------------------------------------


def test_what_is_stuck_is_grouped_by_its_cause_with_what_the_broker_says(
    shop: Shop, browser: Browser
) -> None:
    shop.parked_after_pivot("needy")
    shop.sleeps(60)
    ids = [shop.until("create_restaurant_ticket", key) for key in ("a", "b", "c")]
    shop.sleeps(120)
    _, flight = shop.flight(ids[0])
    shop.orchestrator.store.note_queues([QueueSeen(flight.queue, shop.now - timedelta(seconds=30), 3, 0)])

    told = words(browser.page("/sagas/stuck"))
    answer = browser.json("/sagas/stuck").json

    assert answer is not None
    person, waiting = answer["stuck"]
    assert (person["cause"], person["for"], person["count"]) == ("person", "start_delivery", 1)
    assert (waiting["cause"], waiting["for"]) == ("answer", "restaurant_service.create_ticket")
    assert waiting["count"] == 3
    assert waiting["queue"]["messages"] == 3
    assert waiting["why"] == (
        "3 sagas of deliver_order wait for restaurant_service.create_ticket since 12:01. "
        f"No worker has taken from {flight.queue} since 12:02. 3 messages wait in {flight.queue}."
    )
    assert "start_delivery needs a person 1 saga needs a person at deliver_order.start_delivery since" in told
    assert waiting["why"] in told
    assert sorted(keys(browser.page(waiting["sagas"]))) == ["a", "b", "c"]
    assert keys(browser.page(person["sagas"])) == ["needy"]


def test_page_json_and_command_line_tell_the_same_of_what_is_stuck(shop: Shop, browser: Browser) -> None:
    shop.parked_after_pivot("needy")
    shop.fails(shop.until("create_restaurant_ticket", "pausing"))
    shop.until("authorize_card", "silent")
    shop.sleeps(120)

    listed = browser.json("/sagas/stuck").json
    page = words(browser.page("/sagas/stuck"))
    groups = shop.json("stuck", exit_code=1)["stuck"]

    assert listed is not None
    assert [group["cause"] for group in groups] == ["person", "answer", "pause"]
    assert [{**group, "sagas": None} for group in listed["stuck"]] == [{**g, "sagas": None} for g in groups]
    assert all(group["why"] in page for group in groups)


def test_what_is_stuck_is_read_at_once_and_without_histories(shop: Shop, browser: Browser) -> None:
    def reads() -> list[str]:
        asked: list[str] = []
        listener = lambda *told: asked.append(told[2])  # noqa: E731
        event.listen(shop.sagas.engine, "before_cursor_execute", listener)
        shop.sagas.stuck_views()
        event.remove(shop.sagas.engine, "before_cursor_execute", listener)
        return asked

    shop.parked_after_pivot("needy")
    one = reads()
    shop.fails(shop.until("create_restaurant_ticket", "pausing"))
    shop.until("authorize_card", "silent")
    shop.sleeps(120)
    three = reads()

    assert len(one) == len(three)
    assert not [query for query in three if "saga_history" in query]


def test_when_nothing_is_stuck_the_page_says_so(browser: Browser) -> None:
    assert words(browser.page("/sagas/stuck")).count("Nothing is stuck") == 1
    assert browser.json("/sagas/stuck").json == {"stuck": [], "more": False}


# ---- one act on many ------------------------------------------------------------------------------


def test_before_anything_happens_a_page_says_what_would(shop: Shop, browser: Browser) -> None:
    undo, refused = shop.parked_undo("undo"), shop.parked_after_pivot("refused")

    page = browser.post("/sagas/bulk", asking(browser, "retry", f"{undo}.9.", f"{refused}.9.")).text

    told = words(page)
    assert "Retry this saga?" in told
    assert (
        "undo parked create_restaurant_ticket : tries to undo it once more now; nothing happens twice."
        in told
    )
    assert "This one would be refused, and is left alone" in told
    assert "refused parked start_delivery was refused, and its participant will say so again" in told
    assert fields(page, "saga") == [f"{undo}.{shop.sagas.get(undo).revision}.create_restaurant_ticket"]
    assert shop.sagas.acts(undo) == []


def test_confirmed_acts_are_stored_taken_and_told(shop: Shop, browser: Browser) -> None:
    ids = [shop.parked_after_pivot(key) for key in ("a", "b")]
    page = browser.post("/sagas/bulk", asking(browser, "skip", *(f"{i}.1." for i in ids))).text

    stored = browser.post("/sagas/bulk", confirming(page))
    before = browser.page(stored.location)
    shop.orchestrator.obey_acts()
    after = browser.page(stored.location)

    assert stored.status_code == 303
    assert "2 of 2 not taken yet" in words(before)
    assert 'name="live"' in before
    assert "All 2 done" in words(after)
    assert 'name="live"' not in after
    for saga_id in ids:
        (act,) = [line for line in shop.sagas.history(saga_id) if line.recorded.detail.get("by") == "maria"][
            :1
        ]
        assert act.recorded.detail["reason"] == "kitchen is back"


def test_a_saga_that_moved_on_is_refused_and_the_others_are_not(shop: Shop, browser: Browser) -> None:
    moved, stayed = shop.parked_after_pivot("moved"), shop.parked_after_pivot("stayed")
    page = browser.post("/sagas/bulk", asking(browser, "skip", f"{moved}.1.", f"{stayed}.1.")).text
    shop.sagas.act(moved, Act.SKIP, by="jo", reason="I was faster")
    shop.orchestrator.obey_acts()
    revision = shop.sagas.get(moved).revision

    stored = browser.post("/sagas/bulk", confirming(page))
    shop.orchestrator.obey_acts()
    told = words(browser.page(stored.location))

    assert "1 done, 1 refused" in told
    assert "What was refused changed nothing." in told
    assert shop.sagas.get(moved).revision == revision


def test_all_that_match_are_those_of_the_filter_and_only_open_ones(shop: Shop, browser: Browser) -> None:
    parked = [shop.parked_after_pivot(key) for key in ("a", "b")]
    shop.completed("done")
    shop.start("moving")

    page = browser.post("/sagas/bulk?status=parked", asking(browser, "skip", all="1")).text
    everything = browser.post("/sagas/bulk?status=all", asking(browser, "cancel", all="1")).text
    ended = browser.post("/sagas/bulk?status=completed", asking(browser, "skip", all="1"))

    assert sorted(saga.split(".")[0] for saga in fields(page, "saga")) == sorted(parked)
    assert "moving" in keys(everything)
    assert "done" not in keys(everything)
    assert ended.status_code == 400


def test_what_is_missing_is_said_beside_its_field_and_what_was_typed_is_kept(
    shop: Shop, browser: Browser
) -> None:
    saga_id = shop.parked_after_pivot("a")

    page = browser.post("/sagas/bulk", asking(browser, "skip", f"{saga_id}.1."))
    posted = confirming(page.text)
    without = browser.post("/sagas/bulk", posted | {"reason": " "})
    wrong = browser.post("/sagas/bulk", posted | {"by": "mallory"})
    long = browser.post("/sagas/bulk", posted | {"reason": "x" * 501})

    assert without.status_code == wrong.status_code == long.status_code == 400
    assert "Give a reason: it is kept in the saga's history." in words(without.text)
    assert 'id="by" name="by" type="text" required maxlength="100" autocomplete="username" value="maria"' in (
        without.text
    )
    assert "mallory is not one of the operators who may act here." in words(wrong.text)
    assert field(wrong.text, "csrf")
    assert 'value="kitchen is back"' in wrong.text
    assert "The reason has 501 characters; 500 at most are kept." in words(long.text)
    assert shop.sagas.acts(saga_id) == []


@pytest.mark.parametrize(
    "posted",
    [
        {"act": "complete", "saga": "x.1."},
        {"act": "retry"},
        {"act": "retry", "saga": "x.nope."},
        {"act": "retry", "saga": "x\0.1."},
        {"act": "retry", "saga": [f"{n}.1." for n in range(1001)]},
        {"act": "retry", "saga": "unknown.1."},
        {"act": "retry", "saga": "unknown.1.", "confirmed": "1"},
    ],
)
def test_what_cannot_be_acted_on_is_refused_in_words(
    shop: Shop, browser: Browser, posted: dict[str, object]
) -> None:
    shop.parked_after_pivot("a")

    answer = browser.post("/sagas/bulk", asking(browser, "retry") | {"saga": []} | posted)

    assert answer.status_code in (400, 404)
    assert "<h1>" in answer.text
    assert "All sagas" in words(answer.text)


def test_a_program_asks_confirms_and_reads_what_became_of_it(shop: Shop, browser: Browser) -> None:
    saga_id = shop.parked_after_pivot("a")
    asked = {"act": "skip", "by": "maria", "reason": "no courier today", "all": True}

    would = browser.json("/sagas/bulk?status=parked", asked).json
    assert would is not None
    (one,) = would["would"]
    chosen = [{"id": one["id"], "revision": one["revision"], "step": one["step"]}]
    stored = browser.json("/sagas/bulk", asked | {"all": False, "sagas": chosen, "confirmed": True})
    assert stored.json is not None
    shop.orchestrator.obey_acts()
    became = browser.json(stored.json["see"]).json

    assert one["consequence"] == "goes on without it"
    assert stored.status_code == 202
    assert became is not None
    assert became["count"] == {"done": 1, "refused": 0, "stored": 0}
    assert became["acts"][0]["saga_id"] == saga_id
    assert became["acts"][0]["reason"] == "no courier today"


@pytest.mark.parametrize(
    "sagas",
    [
        [{"revision": 1}],
        [7],
        "x.y",
        [{"id": "x", "revision": "1"}],
        [{"id": "x", "revision": 2**70}],
        [{"id": "x", "revision": -1}],
        [{"id": "x\0", "revision": 1}],
        [{"id": "x", "revision": 1, "step": "\ud800"}],
        [
            {"id": "x", "revision": 1, "step": "s" * 101}
        ],  # which PostgreSQL would refuse, and all others with it
        ["x.1." + "s" * 101],
        [{"id": "x"}],
    ],
)
def test_a_program_that_names_no_saga_is_told_so(browser: Browser, sagas: object) -> None:
    body = {"act": "skip", "by": "maria", "reason": "why not", "sagas": sagas, "confirmed": True}

    answer = browser.json("/sagas/bulk", body)

    assert answer.status_code == 400
    assert answer.json is not None
    assert set(answer.json) == {"error", "do"}


@pytest.mark.parametrize("numbers", ["", "x", "5-", "1-2000", "9" * 30, "1,,2"])
def test_acts_that_cannot_be_read_are_refused(browser: Browser, numbers: str) -> None:
    assert browser.get(f"/sagas/acts?numbers={numbers}").status_code == 400


def test_who_loads_the_question_again_from_its_address_is_back_at_the_list(browser: Browser) -> None:
    answer = browser.get("/sagas/bulk?status=parked&older=1h")

    assert (answer.status_code, answer.location) == (302, "/sagas/?status=parked&older=1h")


@pytest.mark.parametrize(("deep", "status"), [(5000, 400), (98, 200)])
def test_a_body_that_is_nested_without_end_is_told_so(
    shop: Shop, browser: Browser, deep: int, status: int
) -> None:
    saga_id = shop.parked_after_pivot()
    body = f'{{"act": "skip", "sagas": ["{saga_id}"], "more": {"[" * deep}{"]" * deep}}}'

    answer = browser.client.post("/sagas/bulk", data=body, content_type="application/json")

    assert answer.status_code == status
    assert ("nested too deeply" in answer.text) is (status == 400)


def test_what_became_of_the_sagas_since_is_news(shop: Shop, browser: Browser) -> None:
    saga_id = shop.parked_undo()
    number = shop.sagas.act(saga_id, Act.RETRY, by="maria", reason="x")
    shop.orchestrator.obey_acts()
    before = browser.json(f"/sagas/acts?numbers={number}")
    tag = before.headers["ETag"]
    same = browser.json(f"/sagas/acts?numbers={number}", If_None_Match=tag)
    shop.succeeds(saga_id)
    after = browser.json(f"/sagas/acts?numbers={number}", If_None_Match=tag)

    assert before.json is not None
    assert after.json is not None
    assert (same.status_code, after.status_code) == (304, 200)
    assert before.json["acts"][0]["status"] == "compensating"
    assert after.json["acts"][0]["status"] == "compensated"


@pytest.mark.parametrize("gone", ["-5", "x", "9" * 5000])
def test_what_no_number_of_sagas_can_be_is_not_told(shop: Shop, browser: Browser, gone: str) -> None:
    number = shop.sagas.act(shop.parked_after_pivot(), Act.SKIP, by="maria", reason="x")

    answer = browser.json(f"/sagas/acts?numbers={number}&gone={gone}").json

    assert answer is not None
    assert answer["gone"] == 0


def test_acts_that_are_not_there_are_not_found(browser: Browser) -> None:
    assert browser.get("/sagas/acts?numbers=4711").status_code == 404


def test_without_operators_there_is_nothing_to_post(shop: Shop) -> None:
    shop.parked_after_pivot("a")
    browser = Browser(site(shop.sagas, secret=None))

    page = browser.page("/sagas/")

    assert keys(page) == ["a"]
    assert 'type="checkbox"' not in page
    assert "Reason" not in page


def test_the_library_counts_no_further_than_it_must(
    shop: Shop, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas_framework.sagas.MOST", 2)
    monkeypatch.setattr("sagas_framework.console.lists.MOST", 2)
    for number in range(4):
        shop.start(f"order-{number}", taken=False)

    assert "open 2+" in words(browser.page("/sagas/"))
