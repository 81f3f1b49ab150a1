"""The page of one saga, and acting on it: what a person sees, and what is stored."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from werkzeug.test import TestResponse

from sagas_framework.console import one
from sagas_framework.console.shown import MOST_LINES, MOVING, WAITING
from sagas_framework.core.events import Act, ReplyReceived
from sagas_framework.core.events import Result as Answer
from sagas_framework.core.instance import Status
from sagas_framework.core.why import QueueSeen
from tests.unit.console.counter import Counter, Page, ParcelSaga, ParcelState
from tests.unit.core.stories import CreateOrderSaga, OrderState
from tests.unit.core.test_without_inbox import BakerySaga

TICKET = "create_restaurant_ticket"
WHO = {"by": "maria", "reason": "the kitchen is back"}


@pytest.fixture
def counter(tmp_path: Path) -> Iterator[Counter]:
    counter = Counter(tmp_path)
    yield counter
    counter.sagas.engine.dispose()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A POST does not wait for an orchestrator."""
    monkeypatch.setattr(one, "PATIENCE", timedelta(0))


def told(response: TestResponse) -> Any:
    """What a program is answered."""
    return response.json


# ---- what is seen ---------------------------------------------------------------------------------


def test_messages_lead_to_where_they_are_described(tmp_path: Path) -> None:
    docs = {"restaurant_service.create_ticket": "http://docs.example:8083/#create_ticket"}
    counter = Counter(tmp_path, described_at=docs.get)
    saga_id = counter.until("authorize_card")

    page = counter.page(saga_id)
    counter.sagas.engine.dispose()

    there = '<a href="http://docs.example:8083/#create_ticket">restaurant_service.create_ticket'
    assert f"{there}</a>" in page.html
    assert f"{there}.response.success</a>" in page.html
    assert "accounting_service.authorize_card</a>" not in page.html


def test_a_saga_that_waits_for_an_answer_says_for_what_and_offers_to_cancel(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    counter.sleeps(21)

    page = counter.page(saga_id)

    assert "order-1 running" in page.text
    why = "Waiting 21 s for accounting_service.authorize_card (try 1); turns back in 4 min 39 s."
    assert why in page.region("head")
    assert page.buttons == {"cancel": "Cancel saga"}
    assert "Undoes what was done." in page.text
    assert "accounting_service.authorize_card sent 21 s ago" in page.region("steps")
    assert "unknown nobody has said yet" in page.region("steps")


def test_a_saga_that_was_not_taken_up_says_so(counter: Counter) -> None:
    saga_id = counter.start(taken=False)
    counter.sleeps(3)

    page = counter.page(saga_id)

    assert "Waiting 3 s for an orchestrator to take it up." in page.region("head")
    assert "Nothing has happened yet." in page.text
    assert page.region("steps").count("not reached") == 8


def test_a_parked_undo_shows_its_buttons_each_with_its_consequence(counter: Counter) -> None:
    page = counter.page(counter.parked_undo())

    assert f"{TICKET} needs a person: its compensation failed 5 times" in page.text
    assert "It turned back because authorize_card was refused (CardRefused: says CardRefused)." in page.text
    assert page.buttons == {
        f"retry:{TICKET}": f"Retry {TICKET}",
        f"skip:{TICKET}": f"Skip {TICKET}",
        f"complete:{TICKET}": f"Complete by hand {TICKET}",
    }
    assert "Tries to undo it once more now; nothing happens twice." in page.text
    assert "It cannot be cancelled: the saga is being undone already." in page.text
    assert "still there ticket_id 7" in page.region("steps")
    assert "failed 5 times" in page.region("steps")


def test_past_the_pivot_there_is_no_cancel_and_the_page_says_so(counter: Counter) -> None:
    page = counter.page(counter.parked_after_pivot())

    assert "cancel" not in page.buttons
    assert "It cannot be cancelled: the saga is past its pivot: it can only go forward." in page.text


def test_two_parked_steps_have_their_buttons_apart(counter: Counter) -> None:
    page = counter.page(counter.two_parked())

    assert {"retry:authorize_card", f"retry:{TICKET}"} <= set(page.buttons)
    legends = re.findall(r"<legend><code>(.*?)</code></legend>", page.html)
    assert legends == [TICKET, "authorize_card"]


def test_a_pausing_step_says_when_the_next_try_comes(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    counter.fails(saga_id, "BankBusy")

    page = counter.page(saga_id)

    assert "try 1 failed BankBusy: says BankBusy try 2 in 1 s" in page.region("steps")
    assert {"retry:authorize_card", "cancel"} <= set(page.buttons)


def test_a_completed_saga_is_quiet(counter: Counter) -> None:
    page = counter.page(counter.completed())

    assert "Completed: every effect is kept." in page.text
    assert page.forms == []
    assert "kept transaction_id t-9" in page.region("steps")
    assert 'name="live"' not in page.html


def test_a_compensated_saga_says_what_became_of_every_effect(counter: Counter) -> None:
    page = counter.page(counter.compensated())

    steps = page.region("steps")
    assert "Undone because authorize_card was refused" in page.text
    assert f"{TICKET} restaurant_service.create_ticket done undone undone" in steps
    assert "refused CardRefused: says CardRefused nothing to undo never happened" in steps
    assert page.forms == []


def test_a_cancelled_saga_says_who_cancelled_it(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    counter.sagas.act(saga_id, Act.CANCEL, by="jo", reason="ordered twice")
    counter.orchestrator.obey_acts()

    page = counter.page(saga_id)

    assert "It turned back because it was cancelled (ordered twice)." in page.text
    assert 'operator.cancel by jo: "ordered twice"' in page.region("history")


def test_a_saga_that_is_not_declared_here_is_shown_and_nobody_can_act_on_it(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    elsewhere = counter.declaring([CreateOrderSaga])
    counter.client = counter.mounted(elsewhere, operators=["maria"])

    page = counter.page(saga_id)
    answer = counter.act(saga_id, act="retry", step=TICKET, revision=15, **WHO)

    assert "deliver_order version 1 is not declared here" in page.text
    assert page.forms == []
    assert f"{TICKET} needs a person" in page.text
    assert answer.status_code == 409
    assert "is not declared here" in told(answer)["error"]
    assert counter.sagas.acts(saga_id) == []
    elsewhere.engine.dispose()


def test_a_late_success_is_told_at_its_step(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    _, flight = counter.flight(saga_id)
    counter.after(301)
    counter.replies(saga_id, "authorize_card", Answer.SUCCESS)
    counter.sleeps(2)
    late = ReplyReceived(
        saga_id, counter.now, (flight.message_id,), flight.task, Answer.SUCCESS, {"transaction_id": "t-1"}
    )
    counter.orchestrator.process([late])

    steps = counter.page(saga_id).region("steps")

    assert "no answer in 300 s late success at +5 min 03 s: changed nothing" in steps


def test_the_others_that_wait_for_the_same_are_one_link_away(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    counter.parked_undo("order-2")

    page = counter.page(saga_id)

    assert "1 more saga is parked at the same step." in page.text
    assert page.links["1 more saga"] == f"/sagas/?waits={TICKET}"


def test_a_queue_that_nobody_takes_from_is_told(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    queue = "accounting_service.commands"
    counter.orchestrator.store.note_queues([QueueSeen(queue, counter.now, 12, 0)])

    assert f"No worker has taken from {queue} since 12:00. 12 messages wait in {queue}." in (
        counter.page(saga_id).text
    )


def test_every_step_of_the_picture_leads_to_its_row(counter: Counter) -> None:
    page = counter.page(counter.parked_undo())

    assert page.links[TICKET] == f"#step-{TICKET}"
    assert f"step-{TICKET}" in page.ids
    assert len(page.ids) == len(set(page.ids))
    assert "3 steps done, then authorize_card was refused" in page.region("timeline")


def test_messages_are_at_hand(counter: Counter) -> None:
    saga_id = counter.parked_undo()

    steps = counter.page(saga_id).region("steps")

    assert "Command 12:00:00 restaurant_service.create_ticket" in steps
    assert '{ "order_id": 1, "quantity": 3 }' in steps
    assert 'restaurant_service.create_ticket.response.success { "ticket_id": 7 }' in steps
    assert "Undo, try 5 (as the state makes it now) restaurant_service.reject_ticket" in steps
    assert '"type": "KitchenOffline"' in steps


def test_the_history_is_newest_first_with_its_words(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    counter.sleeps(0.031)
    counter.refuses(saga_id)

    history = counter.page(saga_id).region("history")

    assert history.index("authorize_card.failed") < history.index("authorize_card.running")
    assert "12:00:00.031 +31 ms authorize_card.failed CardRefused: says CardRefused" in history
    assert history.endswith("12:00:00.000 0 started")


def test_a_long_history_is_cut_and_all_of_it_is_one_link_away(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    counter.after(60)
    while len(counter.sagas.history(saga_id)) <= MOST_LINES:
        counter.replies(saga_id, TICKET, Answer.FAILED, error="KitchenOffline")
        counter.after(400)
    hidden = len(counter.sagas.history(saga_id)) - MOST_LINES

    page = counter.page(saga_id)
    whole = counter.page(f"{saga_id}?history=all")

    assert page.links[f"{hidden} earlier lines"] == f"/sagas/{saga_id}?history=all#history"
    assert "0 started" not in page.region("history")
    assert "12:00:00.000 0 started" in whole.region("history")
    assert "earlier lines" not in whole.text


# ---- secrets and hostile texts --------------------------------------------------------------------


def test_a_history_without_end_is_all_in_json(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sagas_framework.console.shown.MOST_OF_ALL", 3)
    saga_id = counter.until("authorize_card")
    lines = counter.as_json(saga_id)["history"]

    page = counter.page(f"{saga_id}?history=all")

    earlier = f"{len(lines) - 3} earlier lines, as JSON"
    table = page.html.partition('id="history"')[2].partition("</table>")[0]
    assert table.count("<tr><td") == 3
    assert page.links[earlier] == f"/sagas/{saga_id}?format=json"


def test_secrets_are_masked_in_state_messages_history_and_json(counter: Counter) -> None:
    saga_id = counter.goes_to(counter.begin(ParcelSaga, ParcelState()), "book")
    reply = {"number": 7, "name": "Ann", "boxes": [{"label": "x", "pin": "0815"}], "access_token": "abc"}
    counter.replies(saga_id, "book", Answer.SUCCESS, reply)

    page = counter.page(saga_id)
    found = counter.as_json(saga_id)

    for secret in ("hunter2", "4111", "0815", '"abc"'):
        assert secret not in page.html
        assert secret not in str(found)
    assert '"password": "***"' in page.region("state")
    assert '"company": "Acme"' in page.region("state")
    assert found["state"]["box"] == {"label": "b-1", "pin": "***"}
    book = found["steps"][-1]
    assert book["request"] == {"address": "Main Street 1", "card_pan": "***", "door": "***"}
    assert book["reply"]["boxes"] == [{"label": "x", "pin": "***"}]


def test_which_names_are_secret_is_the_consoles_to_say(counter: Counter) -> None:
    saga_id = counter.goes_to(counter.begin(ParcelSaga, ParcelState()), "book")
    counter.client = counter.mounted(counter.sagas, secrets=["address"])

    found = counter.as_json(saga_id)

    assert found["state"]["address"] == "***"
    assert found["state"]["password"] == "hunter2"
    assert found["state"]["box"]["pin"] == "***"


def test_hostile_texts_are_texts(counter: Counter) -> None:
    evil = '"><script>alert(1)</script>'
    saga_id = counter.until("authorize_card", key=evil, address=evil)
    counter.refuses(saga_id, evil)
    counter.sagas.act(saga_id, Act.CANCEL, by=evil, reason=evil, revision=0)

    page = counter.page(f"{saga_id}?act=1")

    assert "<script>alert" not in page.html
    for region in ("head", "became", "steps", "asked", "history", "state"):
        assert "<script>alert(1)</script>" in page.region(region)
    assert page.html.count("<script") == 1


# ---- finding --------------------------------------------------------------------------------------


def test_a_key_and_the_beginning_of_an_id_lead_to_the_page(counter: Counter) -> None:
    saga_id = counter.start("tenant/42")

    for named in ("tenant/42", saga_id[:9], saga_id.upper(), f"{saga_id}/"):
        response = counter.get(named)
        assert (response.status_code, response.location) == (302, f"/sagas/{saga_id}"), named


def test_a_key_that_ends_with_a_slash_is_found_and_one_slash_too_many_is_forgiven(counter: Counter) -> None:
    first, second = counter.until("authorize_card", "a/"), counter.until("authorize_card", "b")

    assert counter.get("a/").location == f"/sagas/{first}"
    assert counter.get("b/").location == f"/sagas/{second}"


def test_several_sagas_that_may_be_meant_are_listed(counter: Counter) -> None:
    first = counter.begin(CreateOrderSaga, OrderState(), "order-9")
    second = counter.start("order-9")

    page = counter.page("order-9", status=300)

    assert page.html.count(f'href="/sagas/{first}"') == 1
    assert page.html.count(f'href="/sagas/{second}"') == 1
    answer = counter.client.get("/sagas/order-9", headers={"Accept": "application/json"})
    assert {its["id"] for its in told(answer)["sagas"]} == {first, second}


@pytest.mark.parametrize("named", ["order-4711", "01", "%00", "a/b/c", "%ED%A0%80"])
def test_what_nobody_knows_is_not_found_in_words(counter: Counter, named: str) -> None:
    counter.start()

    page = counter.page(named, status=404)

    assert "No saga has the id or the key" in page.text
    assert "All sagas" in page.links


# ---- JSON -----------------------------------------------------------------------------------------


def test_the_same_page_is_json(counter: Counter) -> None:
    saga_id = counter.parked_undo()

    found = counter.as_json(saga_id)

    assert found["status"] == "parked"
    assert found["why"] == counter.sagas.view(saga_id).why
    assert [can["act"] for can in found["can_do"]] == ["retry", "skip", "complete"]
    assert {its["name"]: its["effect"] for its in found["steps"]}[TICKET] == "still there"


def test_the_json_link_gives_json_to_a_browser(counter: Counter) -> None:
    saga_id = counter.start()

    response = counter.client.get(counter.page(saga_id).links["JSON"], headers={"Accept": "text/html"})

    assert response.mimetype == "application/json"
    assert told(response)["id"] == saga_id


# ---- live -----------------------------------------------------------------------------------------


def pace(page: Page) -> int | None:
    found = re.search(r'<meta name="live" content="(\d+)">', page.html)
    return int(found[1]) if found else None


def test_how_often_a_page_asks_again_depends_on_what_can_happen(counter: Counter) -> None:
    waiting = counter.until("authorize_card", "a")
    untaken = counter.start("b", taken=False)
    parked = counter.parked_after_pivot("c")
    ended = counter.completed("d")

    assert pace(counter.page(waiting)) == MOVING
    assert pace(counter.page(untaken)) == MOVING
    assert pace(counter.page(parked)) == WAITING
    assert pace(counter.page(ended)) is None
    assert MOVING < 1000
    counter.sagas.act(parked, Act.SKIP, by="jo", reason="x")
    assert pace(counter.page(parked)) == MOVING


def test_a_pause_is_looked_at_often_once_its_end_is_near(counter: Counter) -> None:
    saga_id = counter.parked_undo()

    assert pace(counter.page(saga_id)) == WAITING
    counter.sleeps(10)
    assert pace(counter.page(saga_id)) == MOVING


def test_an_unchanged_page_is_not_sent_again(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    first = counter.get(saga_id)

    again = counter.get(saga_id, **{"If-None-Match": first.headers["ETag"]})
    counter.sleeps(5)
    older = counter.get(saga_id, **{"If-None-Match": first.headers["ETag"]})

    assert again.status_code == 304
    assert again.data == b""
    assert older.status_code == 200


def changed(counter: Counter, saga_id: str, happens: Any) -> bool:
    tag = counter.get(saga_id).headers["ETag"]
    happens()
    return counter.get(saga_id, **{"If-None-Match": tag}).status_code == 200


def test_whatever_a_page_shows_changes_its_tag(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    seen = QueueSeen("accounting_service.commands", counter.now, 1, 1)

    assert not changed(counter, saga_id, lambda: None)
    assert changed(counter, saga_id, lambda: counter.orchestrator.store.note_queues([seen]))
    assert changed(
        counter, saga_id, lambda: counter.sagas.act(saga_id, Act.CANCEL, by="jo", reason="x", revision=0)
    )
    assert changed(counter, saga_id, counter.orchestrator.obey_acts)
    assert changed(counter, saga_id, lambda: counter.succeeds(saga_id))


def test_the_page_of_an_ended_saga_does_not_grow_old(counter: Counter) -> None:
    saga_id = counter.completed()
    tag = counter.get(saga_id).headers["ETag"]

    counter.sleeps(900)

    assert counter.get(saga_id, **{"If-None-Match": tag}).status_code == 304


def test_the_end_changes_the_tag_at_once(counter: Counter) -> None:
    saga_id = counter.until("send_receipt")

    assert changed(counter, saga_id, lambda: counter.succeeds(saga_id))
    assert counter.sagas.get(saga_id).status is Status.COMPLETED


def test_what_is_kept_live_has_a_name_of_its_own(counter: Counter) -> None:
    page = counter.page(counter.parked_undo())

    regions = re.findall(r"<[a-z]+[^>]*\bdata-live\b[^>]*>", page.html)
    assert len(regions) == 8
    assert all('id="' in region for region in regions)


# ---- acting ---------------------------------------------------------------------------------------


def test_a_button_acts_and_the_page_says_what_became_of_it(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    page = counter.page(saga_id)

    with counter.working():
        response = counter.press(page, f"retry:{TICKET}", **WHO)
    after = counter.client.get(response.location, headers={"Accept": "text/html"})

    assert response.status_code == 303
    assert response.location == f"/sagas/{saga_id}?act=1"
    (act,) = counter.sagas.acts(saga_id)
    assert (act.act, act.step, act.by, act.reason) == (Act.RETRY, TICKET, *WHO.values())
    assert act.revision == 15
    assert f"retry {TICKET} was taken" in Page.of(after).region("became")
    assert f'operator.retry by maria: "{WHO["reason"]}"' in Page.of(after).text


def test_without_an_orchestrator_the_page_says_that_nobody_has_taken_it(
    counter: Counter, impatient: None
) -> None:
    saga_id = counter.until("authorize_card")

    response = counter.press(counter.page(saga_id), "cancel", **WHO)
    page = Page.of(counter.client.get(response.location, headers={"Accept": "text/html"}))

    assert "cancel, asked for by maria: no orchestrator has taken it yet." in page.region("became")
    assert "cancel by maria, 12:00:00.000 : the kitchen is back" in page.region("asked")
    assert pace(page) == MOVING


def test_an_act_that_was_refused_meanwhile_shows_what_happened_since(
    counter: Counter, impatient: None
) -> None:
    saga_id = counter.until("authorize_card")
    response = counter.press(counter.page(saga_id), "cancel", **WHO)
    counter.succeeds(saga_id)
    counter.orchestrator.obey_acts()

    became = Page.of(counter.client.get(response.location, headers={"Accept": "text/html"})).region("became")

    assert "cancel was refused: it was decided on revision 4, and the saga is at 5 by now" in became
    assert "authorize_card.succeeded" in became
    assert "create_restaurant_ticket.succeeded" not in became


def test_an_act_of_another_saga_is_not_shown(counter: Counter) -> None:
    one_id, other_id = counter.until("authorize_card", "a"), counter.until("authorize_card", "b")
    number = counter.sagas.act(other_id, Act.CANCEL, by="jo", reason="x")

    for asked in (str(number), "99", "x", "-1", "9" * 30):
        assert counter.page(f"{one_id}?act={asked}").region("became") == ""


def test_as_json_an_act_tells_what_became_of_it(counter: Counter, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, stored = counter.until("authorize_card", "a"), counter.until("authorize_card", "b")

    with monkeypatch.context() as patch:
        patch.setattr(one, "PATIENCE", timedelta(0))
        later = counter.act(stored, act="cancel", **WHO)
    with counter.working():
        done = counter.act(taken, act="cancel", **WHO, revision=counter.sagas.get(taken).revision)

    assert (later.status_code, told(later)["became"]) == (202, "stored")
    assert (done.status_code, told(done)["became"]) == (200, "done")
    assert told(done)["saga"]["status"] == "compensating"


def test_a_program_that_decided_on_an_older_revision_gets_the_history_since(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    seen = counter.sagas.get(saga_id).revision
    counter.succeeds(saga_id)

    answer = counter.act(saga_id, act="cancel", revision=seen, **WHO)

    assert answer.status_code == 409
    assert f"you decided on revision {seen}, and it is at {seen + 1} by now" in told(answer)["error"]
    assert [line["entry"] for line in told(answer)["history"]] == [
        "authorize_card.succeeded",
        "approve_restaurant_ticket.running",
    ]
    assert counter.sagas.acts(saga_id) == []


def test_a_person_who_decided_on_an_older_picture_sees_what_happened_and_keeps_the_text(
    counter: Counter,
) -> None:
    saga_id = counter.until("authorize_card")
    before = counter.page(saga_id)
    counter.succeeds(saga_id)

    response = counter.press(before, "cancel", **WHO)
    page = Page.of(response)

    assert response.status_code == 409
    assert "The saga has moved on since" in page.region("became")
    assert "approve_restaurant_ticket.running" in page.region("became")
    assert page.forms[0].fields["reason"] == WHO["reason"]
    assert page.forms[0].fields["revision"] == str(counter.sagas.get(saga_id).revision)
    assert counter.sagas.acts(saga_id) == []
    assert pace(page) is None


def test_reason_and_name_are_required_and_what_was_typed_is_kept(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")

    response = counter.press(counter.page(saga_id), "cancel", by="eve", reason="  ")
    page = Page.of(response)

    assert response.status_code == 400
    assert "eve is not one of the operators" in page.text
    assert "Give a reason" in page.text
    assert page.forms[0].fields["by"] == "eve"
    assert page.html.count('aria-invalid="true"') == 2
    assert counter.sagas.acts(saga_id) == []


@pytest.mark.parametrize(
    ("asked", "status", "words"),
    [
        ({"act": "explode"}, 400, "There is no act 'explode'"),
        ({"act": None}, 400, "No act is named"),
        ({"act": ["retry"]}, 400, "There is no act ['retry']"),
        ({"act": "retry", "step": "fly"}, 400, "The saga has no step 'fly'"),
        ({"act": "retry", "step": ["x"]}, 400, "The saga has no step ['x']"),
        ({"act": "cancel", "revision": "x"}, 400, "'x' is no revision"),
        ({"act": "cancel", "revision": True}, 400, "True is no revision"),
        ({"act": "cancel"}, 409, "This cannot be done now: the saga is being undone already"),
        ({"act": "retry", "step": "authorize_card"}, 409, "This cannot be done now: authorize_card is"),
        ({"act": "withdraw", "step": TICKET}, 409, "This cannot be done now"),
    ],
)
def test_what_makes_no_sense_is_told_and_nothing_is_stored(
    counter: Counter, asked: dict[str, Any], status: int, words: str
) -> None:
    saga_id = counter.parked_undo()

    answer = counter.act(saga_id, **WHO, **asked)

    assert answer.status_code == status
    assert words in told(answer)["error"]
    assert told(answer)["do"]
    assert counter.sagas.acts(saga_id) == []


def test_more_than_one_step_must_be_named(counter: Counter) -> None:
    saga_id = counter.two_parked()

    answer = counter.act(saga_id, act="retry", **WHO)

    assert answer.status_code == 400
    assert told(answer)["do"] == f"Name one: {TICKET}, authorize_card"


def test_an_ended_saga_takes_no_act(counter: Counter) -> None:
    saga_id = counter.completed()

    answer = counter.act(saga_id, act="cancel", **WHO)

    assert answer.status_code == 409
    assert "The saga has ended: completed" in told(answer)["error"]
    assert counter.sagas.acts(saga_id) == []


def test_an_act_on_an_unknown_saga_is_not_found(counter: Counter) -> None:
    for named in ("01890a5d-ac96-774b-bcce-b302099a8057", "%00"):
        answer = counter.act(named, act="cancel", **WHO)

        assert answer.status_code == 404
        assert "No saga has the id" in told(answer)["error"]


@pytest.mark.parametrize("body", ["[]", "nonsense", '{"act": NaN}', "[" * 100_000])
def test_a_body_that_is_no_json_object_is_told(counter: Counter, body: str) -> None:
    saga_id = counter.until("authorize_card")

    answer = counter.client.post(f"/sagas/{saga_id}/acts", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert told(answer)["error"].startswith("The body")


def test_a_form_without_its_revision_is_not_obeyed(counter: Counter) -> None:
    saga_id = counter.until("authorize_card")
    page = counter.page(saga_id)
    form = {**page.forms[0].filled, **WHO, "act": "cancel"}
    del form["revision"]

    response = counter.client.post(f"/sagas/{saga_id}/acts", data=form, headers={"Accept": "text/html"})

    assert response.status_code == 400
    assert "The revision is missing" in response.text
    assert counter.sagas.acts(saga_id) == []


def test_the_answer_to_a_form_can_be_loaded_again(counter: Counter) -> None:
    saga_id = counter.start()

    response = counter.get(f"{saga_id}/acts")

    assert response.location == f"/sagas/{saga_id}"


# ---- replies and force ------------------------------------------------------------------------------


def fields(page: Page) -> dict[str, str]:
    (form,) = page.forms
    mine = "reply:book:"
    return {name.removeprefix(mine): value for name, value in form.fields.items() if name.startswith(mine)}


def test_completing_by_hand_has_a_field_for_each_of_the_replys(counter: Counter) -> None:
    page = counter.page(counter.parcel_refused())

    assert set(fields(page)) == {"number", "name", "price", "insured", "boxes", "access_token"}
    assert "It needs the reply that the participant would have given" in page.text
    assert '<textarea id="reply-book-boxes"' in page.html
    assert 'type="checkbox" id="reply-book-insured"' in page.html
    number = re.search(r'<input[^>]*id="reply-book-number"[^>]*>', page.html)
    assert number is not None
    assert 'type="text"' in number[0]
    assert 'inputmode="numeric"' in number[0]


def test_a_reply_that_is_typed_is_stored_with_its_types(counter: Counter, impatient: None) -> None:
    saga_id = counter.parcel_refused()

    response = counter.press(
        counter.page(saga_id),
        "complete:book",
        **WHO,
        reply__book__number="7",
        reply__book__name=" Ann ",
        reply__book__price="7.5",
        reply__book__insured="true",
        reply__book__boxes='[{"label": "x"}]',
    )

    assert response.status_code == 303
    (act,) = counter.sagas.acts(saga_id)
    assert act.reply == {
        "number": 7,
        "name": " Ann ",
        "price": 7.5,
        "insured": True,
        "boxes": [{"label": "x"}],
    }
    counter.orchestrator.obey_acts()
    assert counter.sagas.acts(saga_id)[0].refused is False


def test_what_is_wrong_with_a_reply_stands_beside_its_field(counter: Counter) -> None:
    saga_id = counter.parcel_refused()
    typed = {
        "reply__book__number": "seven",
        "reply__book__price": "nan",
        "reply__book__boxes": "[",
        "reply__book__insured": "true",
    }

    response = counter.press(counter.page(saga_id), "complete:book", **WHO, **typed)
    page = Page.of(response)

    assert response.status_code == 400
    assert "This must be a whole number, like 7." in page.text
    assert "This must be a number, like 7.5." in page.text
    assert "This is no JSON: Expecting value in line 1, column 2." in page.text
    assert "Fill this in." in page.text
    assert fields(page)["number"] == "seven"
    assert fields(page)["boxes"] == "["
    assert page.forms[0].ticked == {"reply:book:insured"}
    assert counter.sagas.acts(saga_id) == []


def test_the_replys_own_model_has_the_last_word(counter: Counter) -> None:
    saga_id = counter.parcel_refused()

    response = counter.press(
        counter.page(saga_id),
        "complete:book",
        **WHO,
        reply__book__number="7",
        reply__book__name="Ann",
        reply__book__boxes='[{"label": 1}]',
    )

    assert response.status_code == 400
    assert "0.label: Input should be a valid string." in Page.of(response).text
    assert counter.sagas.acts(saga_id) == []


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        ({}, "number: Field required."),
        (7, "The reply must be a JSON object"),
        ({"number": 7, "name": "a\0b"}, "characters that cannot be kept"),
        ({"number": 7, "name": "a", "boxes": [{"label": [None]}]}, "0.label: Input should be a valid string"),
    ],
)
def test_a_reply_in_json_is_checked_alike(counter: Counter, reply: Any, words: str) -> None:
    saga_id = counter.parcel_refused()

    answer = counter.act(saga_id, act="complete", step="book", reply=reply, **WHO)

    assert answer.status_code == 400
    assert words in told(answer)["fields"]["reply"]
    assert counter.sagas.acts(saga_id) == []


@pytest.mark.parametrize("reply", ["1e999", '{"price": -1e400}', "[" * 600 + "]" * 600])
def test_json_that_no_database_or_program_could_read_again_is_not_stored(
    counter: Counter, reply: str
) -> None:
    saga_id = bakery(counter, "pay")
    body = '{"act": "complete", "step": "pay", "by": "maria", "reason": "x", "reply": ' + reply + "}"

    answer = counter.client.post(f"/sagas/{saga_id}/acts", data=body, content_type="application/json")

    assert answer.status_code == 400
    assert told(answer)["error"].startswith("The body cannot be read. ")
    assert counter.sagas.acts(saga_id) == []


def test_a_participants_reply_that_is_nested_without_end_is_shown_in_part(counter: Counter) -> None:
    saga_id = bakery(counter, "pay")
    reply: Any = "inside"
    for _ in range(600):
        reply = [reply]
    counter.replies(saga_id, "pay", Answer.SUCCESS, reply)

    assert '"…"' in counter.page(saga_id).text
    assert counter.as_json(saga_id)["id"] == saga_id


def test_completing_without_the_reply_that_it_needs_is_told(counter: Counter) -> None:
    answer = counter.act(counter.parcel_refused(), act="complete", **WHO)

    assert answer.status_code == 400
    assert "needs the reply" in told(answer)["fields"]["reply"]


def test_a_reply_where_none_is_needed_is_told(counter: Counter) -> None:
    answer = counter.act(counter.parcel_refused(), act="skip", reply={"x": 1}, **WHO)

    assert answer.status_code == 400
    assert told(answer)["fields"]["reply"] == "skip takes no reply here."


def bakery(counter: Counter, step: str) -> str:
    """A step without an inbox was not answered in time: its outcome is unknown."""
    saga_id = counter.goes_to(counter.begin(BakerySaga, OrderState()), step)
    counter.after(301)
    return saga_id


def test_a_step_without_an_inbox_offers_to_say_what_happened(counter: Counter, impatient: None) -> None:
    saga_id = bakery(counter, "bake")
    page = counter.page(saga_id)

    assert page.buttons["withdraw:bake"] == "It never happened bake"
    assert "Counts it as never happened, and undoes what was done before it." in page.text

    response = counter.press(page, "withdraw:bake", **WHO)
    counter.orchestrator.obey_acts()

    assert response.status_code == 303
    assert counter.sagas.get(saga_id).status is Status.COMPENSATING


def test_a_plain_tasks_result_may_be_any_json(counter: Counter, impatient: None) -> None:
    saga_id = bakery(counter, "pay")
    page = counter.page(saga_id)
    assert "what till.take_payment returned" in page.text

    empty = counter.press(page, "complete:pay", **WHO)
    full = counter.press(page, "complete:pay", **WHO, reply__pay__='"p-7"')
    counter.orchestrator.obey_acts()

    assert empty.status_code == 400
    assert full.status_code == 303
    assert counter.sagas.get(saga_id).state["transaction_id"] == "p-7"


def being_settled(counter: Counter) -> str:
    """The pivot was not answered, and neither was the question how it stands."""
    saga_id = counter.until("approve_restaurant_ticket")
    counter.after(301)
    return saga_id


def test_what_needs_force_says_so_and_must_be_confirmed(counter: Counter, impatient: None) -> None:
    saga_id = being_settled(counter)
    page = counter.page(saga_id)
    assert "without asking" in page.text

    unsure = counter.press(page, "cancel", **WHO)
    sure = counter.client.post(
        f"/sagas/{saga_id}/acts",
        data={**page.forms[0].filled, **WHO, "act": "cancel", "force": "cancel"},
        headers={"Accept": "text/html"},
    )
    counter.orchestrator.obey_acts()

    assert unsure.status_code == 400
    assert "Confirm this: the participant is not asked." in Page.of(unsure).text
    assert sure.status_code == 303
    (act,) = counter.sagas.acts(saga_id)
    assert act.force is True
    assert counter.sagas.get(saga_id).status is Status.COMPENSATING


def test_a_confirmation_of_one_act_is_none_of_another(counter: Counter) -> None:
    saga_id = being_settled(counter)
    page = counter.page(saga_id)

    response = counter.client.post(
        f"/sagas/{saga_id}/acts",
        data={**page.forms[0].filled, **WHO, "act": "cancel", "force": "skip:approve_restaurant_ticket"},
        headers={"Accept": "text/html"},
    )

    assert response.status_code == 400
    assert counter.sagas.acts(saga_id) == []


def test_force_in_json_is_true_or_false(counter: Counter) -> None:
    saga_id = being_settled(counter)

    without = counter.act(saga_id, act="cancel", **WHO)
    unclear = counter.act(saga_id, act="cancel", force="yes", **WHO)

    assert "Confirm this" in told(without)["fields"]["force"]
    assert told(unclear)["fields"]["force"] == "force is true or false."
    assert counter.sagas.acts(saga_id) == []


# ---- who may act ------------------------------------------------------------------------------------


def test_without_operators_there_is_no_form_and_nobody_acts(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    counter.client = counter.mounted(counter.sagas)

    page = counter.page(saga_id)
    answer = counter.act(saga_id, act="retry", **WHO)

    assert page.forms == []
    assert "Nobody may act on this page" in page.text
    assert answer.status_code == 403
    assert "operators" in told(answer)["do"]
    assert counter.sagas.acts(saga_id) == []


def test_every_form_has_the_token_and_is_not_obeyed_without_it(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    page = counter.page(saga_id)
    assert all(form.fields["csrf"] for form in page.forms)
    form = {**page.forms[0].filled, **WHO, "act": f"retry:{TICKET}"}
    del form["csrf"]

    response = counter.client.post(f"/sagas/{saga_id}/acts", data=form, headers={"Accept": "text/html"})

    assert response.status_code == 403
    assert counter.sagas.acts(saga_id) == []


def test_enter_in_a_field_never_acts(counter: Counter) -> None:
    page = counter.page(counter.parked_undo())

    first = re.search(r"<form[^>]*>\s*(<button[^>]*>)", page.html)
    assert first is not None
    assert first[1] == "<button disabled hidden>"


def test_who_is_logged_in_types_no_name(counter: Counter, impatient: None) -> None:
    saga_id = counter.until("authorize_card")
    counter.client = counter.mounted(counter.sagas, operators=lambda: "ann")

    page = counter.page(saga_id)
    counter.press(page, "cancel", reason="x")

    assert "by" not in page.forms[0].fields
    assert counter.sagas.acts(saga_id)[0].by == "ann"


def test_an_unchanged_page_costs_one_read(counter: Counter) -> None:
    saga_id = counter.parked_undo()
    tag = counter.get(saga_id).headers["ETag"]
    statements: list[str] = []

    def note(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        statements.append(statement)

    event.listen(counter.sagas.engine, "before_cursor_execute", note)
    known = counter.get(saga_id, **{"If-None-Match": tag})

    assert known.status_code == 304
    assert len([its for its in statements if its.startswith("SELECT")]) == 1
    plan = plan_of(counter, statements[-1], saga_id)
    assert not [line for line in plan if "SCAN" in line and "saga_queue" not in line and "ROW" not in line]


def plan_of(counter: Counter, statement: str, saga_id: str) -> list[str]:
    """How SQLite would read it: ``SCAN`` for what no index serves."""
    with counter.sagas.engine.connect() as connection:
        count = statement.count("?")
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (saga_id,) * count)
        return [row[3] for row in rows]
