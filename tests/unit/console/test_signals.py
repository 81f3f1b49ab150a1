"""Sagas that wait: what the page says of it, telling them, moving their deadlines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from sagas_framework import NOTHING_TO_UNDO, Failure, Saga, Signal, Steps, on
from sagas_framework.console import one
from sagas_framework.console.shown import WAITING
from sagas_framework.core.events import Act
from sagas_framework.core.instance import OutcomeKind, SagaInstance, Status
from tests.unit.console.counter import HTML, Counter, Page
from tests.unit.core.stories import OrderState


class Approval(Signal, name="approval"):
    """An approver's yes or no."""

    approver: str
    approved: bool
    note: str = ""


class Pickup(Signal, name="pickup"):
    door_code: SecretStr


class Rejected(Failure):
    """No."""


class BigOrderState(OrderState):
    approver: str = ""
    small: bool = False


def take(state: BigOrderState, approval: Approval) -> None:
    if not approval.approved:
        raise Rejected(f"rejected by {approval.approver}")
    state.approver = approval.approver


def begin(state: BigOrderState, session: Session) -> None: ...


step = Steps(BigOrderState)


class BigOrderSaga(Saga[BigOrderState], name="big_order", version=1, deadline=timedelta(days=7)):
    begin = step.local(begin, compensation=NOTHING_TO_UNDO)
    approval = step.wait(
        on(Approval, take, failures=[Rejected]),
        deadline=timedelta(hours=24),
        when=lambda state: not state.small,
    )
    cool_down = step.delay(until=timedelta(hours=1))
    collected = step.wait(on(Pickup), deadline=timedelta(days=3))


@pytest.fixture
def counter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    monkeypatch.setattr(one, "PATIENCE", timedelta(0))
    counter = Counter(tmp_path, sagas=[BigOrderSaga])
    yield counter
    counter.sagas.engine.dispose()


WHO = {"by": "maria", "reason": "the customer called"}


def waiting(counter: Counter, key: str = "order-1", **state: Any) -> str:
    saga_id = counter.begin(BigOrderSaga, BigOrderState(**state), key)
    while counter.orchestrator.fire_timers({}):
        pass
    return saga_id


def turn(counter: Counter, saga_id: str) -> SagaInstance:
    """An orchestrator looks at signals, acts and clocks."""
    counter.orchestrator.take_signals()
    counter.orchestrator.obey_acts()
    counter.orchestrator.fire_timers({})
    return counter.sagas.get(saga_id)


def say(counter: Counter, saga_id: str, **asked: Any) -> TestResponse:
    """Say something as a program does."""
    return counter.client.post(
        f"/sagas/{saga_id}/signals", json=asked, headers={"Accept": "application/json"}
    )


def as_program(response: TestResponse) -> Any:
    """What a program is answered."""
    return response.json


def send(counter: Counter, page: Page, signal: str, **typed: str) -> TestResponse:
    """Fill in the fields of a signal on the page, and press its button."""
    form = next(form for form in page.forms if signal in form.buttons)
    where = re.search(rf'<button formaction="([^"]+)" name="signal" value="{signal}"', page.html)
    assert where is not None
    fields = {f"signal:{signal}:{name}": value for name, value in typed.items() if name not in WHO}
    signed = {name: typed.get(name, value) for name, value in WHO.items()}
    return counter.client.post(
        where[1], data={**form.filled, **fields, **signed, "signal": signal}, headers=HTML
    )


def untaken(counter: Counter, key: str) -> None:
    """One that no orchestrator has seen yet."""
    with counter.sagas.engine.begin() as connection:
        counter.sagas.start(BigOrderSaga, BigOrderState(), key=key, session=connection)


def listed(counter: Counter, **asked: str) -> Page:
    return Page.of(counter.client.get("/sagas/", query_string=asked, headers=HTML))


@pytest.mark.parametrize(
    ("cause", "found"),
    [
        ("signal", ["asked"]),
        ("time", ["cooling"]),
        ("start", ["new"]),
        ("person", []),
        ("", ["asked", "cooling", "new"]),
    ],
)
@pytest.mark.parametrize("how", [{}, {"status": "running"}, {"status": "all"}])
def test_the_list_can_be_narrowed_to_what_waits_for_the_like(
    counter: Counter, cause: str, found: list[str], how: dict[str, str]
) -> None:
    waiting(counter, "asked")
    waiting(counter, "cooling", small=True)
    untaken(counter, "new")

    page = listed(counter, cause=cause, **how)
    told = as_program(counter.client.get("/sagas/", query_string={"cause": cause} | how))

    assert sorted({"asked", "cooling", "new"} & set(page.links)) == found
    assert sorted(saga["key"] for saga in told["sagas"]) == found
    assert (f'<option value="{cause}" selected>' in page.html) == bool(cause)


@pytest.mark.parametrize(("cause", "found"), [("signal", True), ("time", False)])
def test_what_is_looked_for_by_its_key_is_narrowed_as_well(counter: Counter, cause: str, found: bool) -> None:
    waiting(counter, "asked")

    assert ("asked" in listed(counter, key="asked", cause=cause).links) == found


def test_a_cause_that_nothing_has_is_refused_in_words(counter: Counter) -> None:
    answer = counter.client.get("/sagas/?cause=nope")

    assert answer.status_code == 400
    assert answer.json == {
        "error": "There is no cause 'nope'",
        "do": "Use one of these: signal, time, answer, pause, person, start, turn",
    }


def test_the_list_says_what_each_waits_for_and_how_long_at_most(counter: Counter) -> None:
    waiting(counter)
    counter.sleeps(3600)

    row = listed(counter).text

    assert "approval Waits for approval; turns back in 23 h. 23 h left 1 h" in row
    assert 'title="2026-03-02 12:00:00.000 UTC">23 h</time>' in listed(counter).html


def test_the_sagas_own_deadline_counts_if_it_comes_first(counter: Counter) -> None:
    saga_id = waiting(counter)
    sooner = counter.now + timedelta(hours=2)
    counter.sagas.act(saga_id, Act.RESCHEDULE, by="maria", reason="a hurry", until=sooner)
    turn(counter, saga_id)

    assert "2 h left" in listed(counter).text


def test_time_that_is_over_while_nobody_looks_is_told_as_over(counter: Counter) -> None:
    waiting(counter)
    counter.sleeps(25 * 3600)

    assert " over 1 d 1 h" in listed(counter).text


def test_what_has_ended_or_waits_for_no_moment_has_no_time_left(counter: Counter) -> None:
    ended = waiting(counter, "ended")
    counter.sagas.act(ended, Act.CANCEL, by="maria", reason="changed her mind")
    turn(counter, ended)
    untaken(counter, "new")

    page = listed(counter, status="all")

    assert {"ended", "new"} <= set(page.links)
    assert " left " not in page.text.partition("Age")[2]


def test_a_saga_that_waits_says_for_what_until_when_and_how_long_that_is(counter: Counter) -> None:
    saga_id = waiting(counter)
    counter.sleeps(3600)

    page = counter.page(saga_id)

    head = page.region("head")
    assert "approval waits for approval; turns back in 23 h." in head
    assert "Waits until 2026-03-02 12:00, 23 h left" in head
    assert '<section class="why wait"' in page.html
    assert "<b>approval</b> An approver&#39;s yes or no." in page.html
    assert f'content="{WAITING}"' in page.html  # nothing moves
    assert "waits for a signal, 59 min" in page.region("timeline")
    assert "23 h left" in page.region("timeline")


def test_who_may_not_act_is_told_what_could_be_done(tmp_path: Path) -> None:
    counter = Counter(tmp_path, sagas=[BigOrderSaga], operators=None)
    page = counter.page(waiting(counter))
    counter.sagas.engine.dispose()

    assert "What can be done: send approval, send pickup, move the saga's deadline, " in page.text
    assert page.forms == []


def test_the_form_sends_a_signal_with_name_and_reason_in_the_history(counter: Counter) -> None:
    saga_id = waiting(counter)

    answer = send(counter, counter.page(saga_id), "approval", approver="ann", approved="true")
    told = turn(counter, saga_id)

    assert answer.status_code == 303
    assert told.state["approver"] == "ann"
    page = counter.page(answer.headers["Location"].removeprefix("/sagas/"))
    assert "approval was taken." in page.region("became")
    assert 'by maria: "the customer called"' in page.region("history")
    assert "took the signal approval, by maria" in page.html


def test_a_no_turns_the_saga_back_as_a_business_no(counter: Counter) -> None:
    saga_id = waiting(counter)

    send(counter, counter.page(saga_id), "approval", approver="ann", approved="false")
    told = turn(counter, saga_id)

    assert told.status is Status.COMPENSATED
    assert told.outcome is not None
    assert told.outcome.kind is OutcomeKind.REFUSED
    page = counter.page(saga_id)
    assert "Undone because approval was refused (Rejected: rejected by ann)." in page.text
    assert "turned back: approval was refused" in page.region("timeline")


def test_neither_yes_nor_no_is_said_by_forgetting(counter: Counter) -> None:
    saga_id = waiting(counter)

    answer = send(counter, counter.page(saga_id), "approval", approver="ann")

    page = Page.of(answer)
    assert answer.status_code == 400
    assert "Fill this in." in page.text
    assert 'value="ann"' in page.html
    assert counter.sagas.signals() == []


def test_a_second_click_says_nothing_new(counter: Counter) -> None:
    saga_id = waiting(counter)
    page = counter.page(saga_id)

    first = send(counter, page, "approval", approver="ann", approved="true")
    second = send(counter, page, "approval", approver="ann", approved="true")
    other = send(counter, page, "approval", approver="ann", approved="false")

    assert first.headers["Location"] == second.headers["Location"]
    assert other.status_code == 409
    assert len(counter.sagas.signals()) == 1


def test_what_comes_early_is_kept_and_shown_without_its_secrets(counter: Counter) -> None:
    saga_id = waiting(counter)
    before = counter.page(saga_id)
    assert "No step waits for it yet: it would be kept." in before.text

    answer = send(counter, before, "pickup", door_code="1234")
    turn(counter, saga_id)

    page = counter.page(answer.headers["Location"].removeprefix("/sagas/"))
    assert "pickup is kept. It is taken when the saga waits for it." in page.region("became")
    assert "kept until the saga waits for it" in page.region("heard")
    assert "the customer called" in page.region("heard")
    assert "1234" not in page.html
    (kept,) = counter.as_json(saga_id)["said"]
    assert (kept["signal"], kept["became"], kept["payload"]) == ("pickup", "kept", {"door_code": "***"})


def test_secrets_of_a_signal_that_was_taken_are_hidden(counter: Counter) -> None:
    saga_id = waiting(counter, small=True)
    counter.sleeps(3601)
    turn(counter, saga_id)
    say(counter, saga_id, signal="pickup", payload={"door_code": "1234"}, **WHO)
    assert turn(counter, saga_id).status is Status.COMPLETED

    page = counter.page(saga_id)
    told = counter.as_json(saga_id)

    assert "1234" not in page.html
    assert "1234" not in str(told)
    assert "big_order.signal.pickup" in page.region("steps")
    assert "3 of 4 steps done" in page.region("timeline")
    assert "1 left out" in page.region("timeline")


def test_a_program_is_told_what_became_of_it(counter: Counter) -> None:
    saga_id = waiting(counter)

    stored = say(
        counter, saga_id, signal="approval", payload={"approver": "ann", "approved": True}, id="1", **WHO
    )
    turn(counter, saga_id)
    taken = say(
        counter, saga_id, signal="approval", payload={"approver": "ann", "approved": True}, id="1", **WHO
    )
    late = say(counter, saga_id, signal="approval", payload={"approver": "bo", "approved": True}, **WHO)

    assert (stored.status_code, as_program(stored)["became"]) == (202, "stored")
    assert (taken.status_code, as_program(taken)["became"]) == (200, "taken")
    assert (as_program(taken)["by"], as_program(taken)["reason"]) == ("maria", "the customer called")
    assert (late.status_code, as_program(late)["answer"]) == (409, "approval has taken approval")


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        ({}, 400, "No signal is named"),
        ({"signal": "refund"}, 400, "No step waits for a signal 'refund'"),
        ({"signal": "approval", "payload": {"approver": "ann"}}, 400, "approved: Field required"),
        ({"signal": "approval", "payload": ["ann"]}, 400, "JSON object"),
        ({"signal": "approval", "payload": {"approver": "a\0", "approved": True}}, 400, "NUL"),
        ({"signal": "approval", "payload": {"approver": "a", "approved": True}, "id": 7}, 400, "id is text"),
        ({"signal": "approval", "payload": {"approver": "a", "approved": True}, "reason": ""}, 400, "reason"),
        ({"signal": "approval", "payload": {"approver": "a", "approved": True}, "by": "eve"}, 400, "eve"),
    ],
)
def test_what_makes_no_sense_is_not_stored(
    counter: Counter, asked: dict[str, Any], status: int, told: str
) -> None:
    saga_id = waiting(counter)

    answer = say(counter, saga_id, **{**WHO, **asked})

    assert answer.status_code == status
    assert told in answer.text
    assert counter.sagas.signals() == []


def test_a_signal_without_the_forms_token_is_not_obeyed(counter: Counter) -> None:
    saga_id = waiting(counter)

    answer = counter.client.post(
        f"/sagas/{saga_id}/signals",
        data={"signal": "approval", "signal:approval:approver": "eve", "signal:approval:approved": "true"},
    )

    assert answer.status_code == 403
    assert counter.sagas.signals() == []


# ---- moving moments -------------------------------------------------------------------------------


def test_a_deadline_is_moved_from_the_page(counter: Counter) -> None:
    saga_id = waiting(counter)
    page = counter.page(saga_id)
    assert 'value="2026-03-02T12:00:00"' in page.html

    answer = counter.press(
        page, "reschedule:approval", until__approval="2026-03-20T18:00", by="jo", reason="ann is away"
    )
    told = turn(counter, saga_id)

    assert answer.status_code == 303
    assert told.steps["approval"].deadline == datetime(2026, 3, 20, 18, tzinfo=UTC)
    (line,) = [line for line in counter.as_json(saga_id)["history"] if "reschedule" in line["entry"]]
    assert (line["detail"]["by"], line["detail"]["reason"]) == ("jo", "ann is away")


def test_the_sagas_own_deadline_is_another_one(counter: Counter) -> None:
    saga_id = waiting(counter)

    answer = counter.press(
        counter.page(saga_id), "reschedule", until__="2026-04-01T00:00", by="jo", reason="r"
    )
    told = turn(counter, saga_id)

    assert answer.status_code == 303
    assert told.deadline == datetime(2026, 4, 1, tzinfo=UTC)
    assert told.steps["approval"].deadline == datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("until", "told"),
    [
        (None, "Say until when."),
        ("tomorrow", "This is no moment. Write it like 2026-03-02T18:00+01:00."),
        ("0001-01-01T00:00+14:00", "This is no moment"),
        (7, "This is no moment"),
    ],
)
def test_what_is_no_moment_is_not_stored(counter: Counter, until: object, told: str) -> None:
    saga_id = waiting(counter)

    answer = counter.act(saga_id, act="reschedule", step="approval", until=until, **WHO)

    assert answer.status_code == 400
    assert as_program(answer)["fields"]["until"].startswith(told)
    assert counter.sagas.acts(saga_id) == []


def test_a_program_moves_a_deadline_with_any_time_zone(counter: Counter) -> None:
    saga_id = waiting(counter)

    answer = counter.act(
        saga_id, act="reschedule", step="approval", until="2026-03-20T18:00+02:00", revision=None, **WHO
    )
    told = turn(counter, saga_id)

    assert answer.status_code == 202
    assert told.steps["approval"].deadline == datetime(2026, 3, 20, 16, tzinfo=UTC)


def test_a_deadline_that_passed_is_told_as_such(counter: Counter) -> None:
    saga_id = waiting(counter)
    counter.sleeps(24 * 3600 + 1)
    assert turn(counter, saga_id).status is Status.COMPENSATED

    page = counter.page(saga_id)

    assert "Undone because approval: no approval by 2026-03-02 12:00:00 UTC." in page.text
    assert "turned back: approval: no approval by 2026-03-02 12:00:00 UTC" in page.region("timeline")
    assert "gave no answer" not in page.region("timeline")


def test_a_signal_that_the_application_asks_proof_for_is_not_said_here(tmp_path: Path) -> None:
    counter = Counter(tmp_path, sagas=[BigOrderSaga], said_at={"approval": lambda: "/decide"})
    saga_id = waiting(counter)

    page = counter.page(saga_id)
    answer = say(counter, saga_id, signal="approval", payload={"approver": "eve", "approved": True}, **WHO)
    told = counter.sagas.signals()
    counter.sagas.engine.dispose()

    assert "approval" not in page.buttons
    assert "pickup" in page.buttons
    assert page.links["It is said there"] == "/decide"
    assert answer.status_code == 403
    assert told == []
