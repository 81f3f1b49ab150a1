"""Notifications: kept once by their event, found newest first, and text whatever is in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from threading import Barrier
from typing import Any, Final

import pytest
from sqlalchemy.orm import Session

from app_common.messaging.accounting_service_messaging import PaymentRefunded
from app_common.messaging.inventory_service_messaging import LowStock
from app_common.messaging.order_service_messaging import CustomerTold
from notification_service import notifications
from notification_service.notifications import keep
from sagas_framework import Subscriber
from tests.integration.asking import BROWSER, beat, client_of, hear, listening, session_of

NOON: Final = datetime(2026, 3, 17, 12, tzinfo=UTC)
TEXT: Final = {"Accept": "text/plain"}
RILEY, CASEY = "order_riley_o066i", "order_casey_1irq1"


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subscriber]:
    with listening("notification_service", request.getfixturevalue(request.param), monkeypatch) as subscriber:
        yield subscriber


@pytest.fixture
def client(kept: Subscriber, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with client_of("notification_service", monkeypatch) as client:
        yield client


def tell(
    kept: Subscriber, event: str, message: str = "hello", order: str | None = RILEY, seconds: float = 0
) -> None:
    with session_of(kept) as session:
        keep(session, event, message, NOON + timedelta(seconds=seconds), order_id=order)


def messages(client: Any, query: str = "") -> list[str]:
    return [one["message"] for one in client.get(f"/{query}").json["notifications"]]


# ---- keeping --------------------------------------------------------------------------------------


def test_what_a_customer_was_told_is_kept_with_the_moment_at_which_it_was_published(
    kept: Subscriber, client: Any
) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    told = CustomerTold(order_id=RILEY, message="Order was approved by Chris.")

    for _ in range(2):  # it comes again
        hear(kept, told, event_id="event-1", at=at)

    (one,) = client.get("/").json["notifications"]
    assert (one["order_id"], one["message"], one["at"]) == (RILEY, told.message, at.isoformat())


def test_a_customer_is_told_once_that_a_payment_was_refunded(kept: Subscriber, client: Any) -> None:
    refunded = PaymentRefunded(order_id=RILEY, amount=Decimal("1299.00"))

    for _ in range(2):  # it comes again
        hear(kept, refunded, event_id="event-1")

    (one,) = client.get("/").json["notifications"]
    assert (one["audience"], one["order_id"]) == ("customers", RILEY)
    assert one["message"] == "Payment of 1299.00 was refunded"


@pytest.mark.parametrize(("available", "left"), [(2, "2 left"), (0, "none left"), (1200, "1,200 left")])
def test_that_an_item_is_low_is_kept_for_the_operators(
    kept: Subscriber, client: Any, available: int, left: str
) -> None:
    hear(kept, LowStock(item="milk", available=available))

    (one,) = client.get("/").json["notifications"]
    assert (one["audience"], one["order_id"]) == ("operators", None)
    assert one["message"] == f"milk is low: {left}"
    assert one["line"].endswith(f" | operators | milk is low: {left}")


def test_an_item_that_is_written_from_the_right_stays_apart(kept: Subscriber, client: Any) -> None:
    hear(kept, LowStock(item="חלב", available=2))

    assert messages(client) == ["\u2068חלב\u2069 is low: 2 left"]


def test_an_event_that_comes_again_is_kept_once(kept: Subscriber, client: Any) -> None:
    for _ in range(3):
        tell(kept, "event-1")
    tell(kept, "event-2")

    assert messages(client) == ["hello", "hello"]


def test_an_event_that_comes_twice_at_once_is_kept_once_and_fails_nobody(
    kept: Subscriber, client: Any
) -> None:
    together = Barrier(4)

    def come(_: int) -> bool:
        with session_of(kept) as session:
            together.wait(20) if kept.engine.dialect.name == "postgresql" else None
            new = keep(session, "event-1", "hello", NOON, order_id=RILEY)
            keep(session, f"beside-{_}", "beside", NOON, order_id=RILEY)  # the transaction goes on
            return new

    with ThreadPoolExecutor(4) as pool:
        new = list(pool.map(come, range(4)))

    assert sorted(new) == [False] * 3 + [True]
    assert sorted(messages(client)) == ["beside"] * 4 + ["hello"]


def test_what_is_not_committed_was_not_told(kept: Subscriber, client: Any) -> None:
    with Session(kept.engine) as session:
        keep(session, "event-1", "hello", NOON, order_id=RILEY)
        session.rollback()

    assert messages(client) == []
    tell(kept, "event-1")
    assert messages(client) == ["hello"]


def test_a_moment_comes_back_in_utc_whatever_zone_it_had(kept: Subscriber, client: Any) -> None:
    with session_of(kept) as session:
        keep(session, "e", "hello", NOON.astimezone(timezone(timedelta(hours=-7))), order_id=RILEY)

    assert client.get("/").json["notifications"][0]["at"] == "2026-03-17T12:00:00+00:00"
    with session_of(kept) as session, pytest.raises(Exception, match="no time zone"):
        keep(session, "f", "hello", NOON.replace(tzinfo=None), order_id=RILEY)


# ---- finding --------------------------------------------------------------------------------------


def test_the_newest_come_first_whenever_they_were_kept(kept: Subscriber, client: Any) -> None:
    for event, seconds in (("b", 2), ("d", 4), ("a", 1), ("c", 3), ("d2", 4)):
        tell(kept, event, event, seconds=seconds)

    assert messages(client) == ["d2", "d", "c", "b", "a"]


def test_those_of_one_order_are_found_by_it(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "for Riley")
    tell(kept, "2", "for Casey", order=CASEY)

    assert messages(client, f"?order={CASEY}") == ["for Casey"]
    assert messages(client, f"?order=%20{RILEY}%20") == ["for Riley"]
    assert messages(client, "?order=order_nobody") == []
    assert messages(client, "?order=") == ["for Casey", "for Riley"]


def test_those_for_customers_and_those_for_operators_are_found_apart(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "for Riley")
    tell(kept, "2", "for operators", order=None)

    assert messages(client) == ["for operators", "for Riley"]
    assert messages(client, "?audience=operators") == ["for operators"]
    assert messages(client, "?audience=customers") == ["for Riley"]
    assert messages(client, f"?audience=operators&order={RILEY}") == []
    refused = client.get("/?audience=kings")
    assert (refused.status_code, refused.json["do"]) == (400, "Write customers or operators, or leave it out")


def test_the_page_leads_operators_to_the_stock(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "milk is low: 2 left", order=None)

    page = client.get("/?audience=operators", headers=BROWSER).text

    assert '<a href="http://localhost:3002/">stock</a>' in page
    assert "<option selected>operators</option>" in page
    assert "The customers were told nothing yet." in client.get("/?audience=customers", headers=BROWSER).text


@pytest.mark.parametrize("query", ["", f"order={RILEY}&", "audience=customers&"])
def test_older_ones_are_pages_away_each_shown_once(
    kept: Subscriber, client: Any, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        notifications.page, "__kwdefaults__", {**(notifications.page.__kwdefaults__ or {}), "limit": 3}
    )
    for number in range(8):
        tell(kept, str(number), str(number), seconds=number // 3)  # several at the same moment

    address, seen = f"/?{query}", []
    while address:
        answer = client.get(address).json
        seen += [one["message"] for one in answer["notifications"]]
        tell(kept, f"later {len(seen)}", "later", seconds=60)  # what comes meanwhile moves nothing
        address = answer["older"]

    assert seen == [str(number) for number in reversed(range(8))]


@pytest.mark.parametrize(
    "before", ["x", "1", "1.", ".1", "-1", "1.1.1", "9" * 30 + ".1", "9" * 18 + ".1", "1.\u0661"]
)
@pytest.mark.parametrize("headers", [{}, BROWSER, TEXT])
def test_a_page_that_is_none_is_told(client: Any, before: str, headers: dict[str, str]) -> None:
    answer = client.get("/", query_string={"before": before}, headers=headers)

    assert answer.status_code == 400


@pytest.mark.parametrize("order", ["x" * 101, "a\0b"])
def test_an_order_that_cannot_be_is_told(client: Any, order: str) -> None:
    assert client.get("/", query_string={"order": order}).status_code == 400


# ---- how it is told -------------------------------------------------------------------------------


def test_programs_get_lines_as_the_operators_know_them(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "Received order for Riley: ['milk']. Total = 1299.00")
    tell(kept, "2", "Reserved inventory\nfor | order\u2028x\x1b[31m", seconds=1)

    text = client.get("/notifications", headers=TEXT)
    told = client.get("/notifications").json["notifications"]

    assert text.mimetype == "text/plain"
    assert text.text.splitlines() == [
        f"2026-03-17T12:00:00+00:00 | {RILEY} | Received order for Riley: ['milk']. Total = 1299.00",
        f"2026-03-17T12:00:01+00:00 | {RILEY} | Reserved inventory for | order x [31m",
    ]
    assert [one["line"] for one in reversed(told)] == text.text.splitlines()
    assert told[0]["message"] == "Reserved inventory\nfor | order\u2028x\x1b[31m"


def test_what_users_wrote_is_text_and_never_markup(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "600 <b>green</b> bars <script>alert(1)</script>", order="<i>\"order'")

    page = client.get("/", headers=BROWSER).text
    filtered = client.get("/", query_string={"order": "<i>\"order'"}, headers=BROWSER).text

    for text in (page, filtered):
        assert "<b>green" not in text
        assert "<script>alert" not in text
        assert "<i>" not in text
        assert "&lt;b&gt;green&lt;/b&gt;" in text
    assert 'value="&lt;i&gt;&#34;order&#39;"' in filtered


def test_the_page_is_by_day_newest_first_and_live(kept: Subscriber, client: Any) -> None:
    tell(kept, "1", "yesterday", seconds=-86400)
    tell(kept, "2", "today")

    page = client.get("/", headers=BROWSER)

    assert page.status_code == 200
    assert re.findall(r'<li class="day">([^<]+)</li>', page.text) == [
        "Tuesday 17 March 2026",
        "Monday 16 March 2026",
    ]
    assert page.text.index("today") < page.text.index("yesterday")
    assert '<meta name="live"' in page.text
    assert 'id="feed" data-live' in page.text
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert f'href="/?order={RILEY}"' in page.text


def test_without_any_the_page_says_so(client: Any) -> None:
    assert "Nobody was told anything yet." in client.get("/", headers=BROWSER).text
    assert "Nothing was told about this order." in client.get("/?order=x", headers=BROWSER).text


@pytest.mark.parametrize("headers", [{}, BROWSER, TEXT])
def test_who_has_the_page_already_gets_304_until_more_is_told(
    kept: Subscriber, client: Any, headers: dict[str, str]
) -> None:
    tell(kept, "1")
    known = {"If-None-Match": client.get("/", headers=headers).headers["ETag"]}

    same = client.get("/", headers=headers | known)
    elsewhere = client.get("/?order=x", headers=headers | known)
    tell(kept, "0", seconds=-60)  # late, and older than what is there
    changed = client.get("/", headers=headers | known)

    assert (same.status_code, same.data) == (304, b"")
    assert elsewhere.status_code == changed.status_code == 200
    assert "Accept" in changed.headers["Vary"]


# SQLite writes one at a time, so there the numbers are given in the order of the commits.
@pytest.mark.parametrize("kept", ["postgres_url"], indirect=True)
def test_what_is_committed_after_one_with_a_higher_number_is_shown(kept: Subscriber, client: Any) -> None:
    with session_of(kept) as slow:
        keep(slow, "event-1", "slow", NOON, order_id=RILEY)
        slow.flush()  # it has its number
        tell(kept, "event-2", "quick")
        known = {"If-None-Match": client.get("/").headers["ETag"]}

    assert client.get("/", headers=known).status_code == 200


def test_forms_of_the_page_change_nothing(client: Any) -> None:
    assert client.post("/", data={"message": "x"}).status_code == 405
    assert client.post("/notifications", json={"message": "x"}).status_code == 405


def test_it_is_healthy_while_its_worker_turns(client: Any, kept: Subscriber) -> None:
    assert client.get("/healthz").status_code == 503
    beat(kept)
    answer = client.get("/healthz")
    assert (answer.status_code, answer.json["service"]) == (200, "notification_service")
