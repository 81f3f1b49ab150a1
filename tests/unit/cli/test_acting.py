"""``saga retry|skip|complete|cancel``: what is stored, who answers, and what is said of it."""

from __future__ import annotations

import getpass
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework.cli import acting
from sagas_framework.core.instance import Phase, Status
from tests.unit.cli.shop import Shop


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody will answer, so nobody is waited for."""
    monkeypatch.setattr(acting, "PATIENCE", timedelta(0))


def test_a_retry_is_taken_by_an_orchestrator_and_answered(shop: Shop) -> None:
    saga_id = shop.parked_undo()

    with shop.working():
        result = shop.say("retry", "order-1", "--reason", "the kitchen is back", "--by", "ann")

    assert result.exit_code == 0
    assert result.stdout.startswith(
        "done: compensation, try 6.\norder-1 is compensating\nUndoing create_restau"
    )
    line = next(line for line in shop.sagas.history(saga_id) if line.recorded.entry == "operator.retry")
    assert line.recorded.detail == {"by": "ann", "reason": "the kitchen is back"}


def test_the_login_name_acts_unless_another_is_given(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    monkeypatch.setattr(getpass, "getuser", lambda: "maria")

    with shop.working():
        shop.say("cancel", "order-1", "--reason", "the customer called")

    assert [act.by for act in shop.sagas.acts(saga_id)] == ["maria"]


def test_a_container_without_logins_is_asked_for_a_name(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise OSError("No username set in the environment")

    saga_id = shop.until("create_restaurant_ticket")
    monkeypatch.setattr(getpass, "getuser", nobody)

    result = shop.say("cancel", "order-1", "--reason", "x")

    assert result.exit_code == 1
    assert result.stderr == "Error: Nobody is logged in here: say who acts with --by NAME.\n"
    assert shop.sagas.acts(saga_id) == []


def test_an_act_as_json_tells_what_became_of_it_and_where_the_saga_is_now(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")

    with shop.working():
        told = shop.json("cancel", saga_id, "--reason", "the customer called", "--by", "ann")

    assert told["became"] == "done"
    assert told["answer"] == "cancelled: what was done is being undone"
    assert told["saga"]["status"] == "compensating"
    assert (told["act"], told["by"], told["reason"]) == ("cancel", "ann", "the customer called")
    assert told["history"] == []


def test_a_step_is_skipped_and_the_saga_goes_on(shop: Shop) -> None:
    saga_id = shop.parked_after_pivot()

    with shop.working():
        result = shop.say("skip", "order-1", "--reason", "picked up", "--step", "start_delivery")

    assert result.exit_code == 0
    assert shop.sagas.get(saga_id).steps["start_delivery"].phase is Phase.SKIPPED


def test_a_step_is_completed_with_the_reply_that_it_would_have_had(shop: Shop) -> None:
    saga_id = shop.parked_after_pivot()

    with shop.working():
        result = shop.say("complete", "order-1", "--reason", "by phone", "--reply", '{"courier": "Ben"}')

    assert result.exit_code == 0
    assert shop.sagas.get(saga_id).state["courier"] == "Ben"
    assert shop.sagas.get(saga_id).status is Status.RUNNING


def test_completing_without_the_reply_says_which_it_needs(shop: Shop) -> None:
    shop.parked_after_pivot()

    with shop.working():
        result = shop.say("complete", "order-1", "--reason", "by phone")

    assert result.exit_code == 1
    assert result.stdout.startswith(
        "refused: completing start_delivery needs the reply that it would have had"
    )
    assert "Give it with --reply. `saga -A worker show order-1` says what it looks like." in result.stdout


@pytest.mark.parametrize(
    ("reply", "told"),
    [("{courier}", "--reply is no JSON"), ("[1]", "must be a JSON object"), ("", "--reply is no JSON")],
)
def test_a_reply_that_is_no_json_object_is_not_stored(shop: Shop, reply: str, told: str) -> None:
    saga_id = shop.parked_after_pivot()

    result = shop.say("complete", "order-1", "--reason", "x", "--reply", reply)

    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
    assert shop.sagas.acts(saga_id) == []


def test_a_refused_act_exits_with_1_and_the_reason(shop: Shop) -> None:
    shop.until("start_delivery")

    with shop.working():
        result = shop.say("cancel", "order-1", "--reason", "x")

    assert result.exit_code == 1
    assert result.stdout == "refused: the saga is past its pivot: it can only go forward.\n"


def test_an_ended_saga_refuses_every_act(shop: Shop) -> None:
    shop.completed()

    with shop.working():
        told = shop.json("cancel", "order-1", "--reason", "x", exit_code=1)

    assert told["became"] == "refused"
    assert told["answer"] == "the saga has ended: completed"


# ---- the picture on which it was decided ------------------------------------------------------------


def test_an_act_carries_the_revision_that_was_read(shop: Shop, impatient: None) -> None:
    saga_id = shop.until("create_restaurant_ticket")

    shop.say("cancel", "order-1", "--reason", "x")

    (act,) = shop.sagas.acts(saga_id)
    assert act.revision == shop.sagas.get(saga_id).revision


def test_an_act_on_an_older_picture_is_refused_with_the_history_since(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    seen = shop.sagas.get(saga_id).revision
    shop.succeeds(saga_id)

    with shop.working():
        result = shop.say("cancel", "order-1", "--reason", "x", "--revision", str(seen))

    assert result.exit_code == 1
    assert result.stdout.startswith(
        f"refused: it was decided on revision {seen}, and the saga is at {seen + 1} by"
    )
    assert result.stdout.endswith(
        f"Since revision {seen}\n"
        "just now  +0 ms  create_restaurant_ticket.succeeded\n"
        '    reply: {"ticket_id": 7}\n'
        "just now  +0 ms  authorize_card.running\n"
    )


def test_what_happens_between_reading_and_taking_refuses_the_act_too(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    act = shop.sagas.act

    def late(*arguments: Any, **named: Any) -> int:
        shop.succeeds(saga_id)
        return act(*arguments, **named)

    monkeypatch.setattr(shop.sagas, "act", late)
    with shop.working():
        told = shop.json("cancel", "order-1", "--reason", "x", exit_code=1)

    assert told["became"] == "refused"
    assert [line["entry"] for line in told["history"]] == [
        "create_restaurant_ticket.succeeded",
        "authorize_card.running",
    ]


# ---- nobody takes it --------------------------------------------------------------------------------


def test_without_a_worker_an_act_is_stored_and_exits_with_2(shop: Shop, impatient: None) -> None:
    saga_id = shop.until("create_restaurant_ticket")

    result = shop.say("cancel", "order-1", "--reason", "x")

    assert result.exit_code == 2
    assert result.stdout.startswith(
        "stored as act 1: no orchestrator has taken it yet; is a worker running?\n"
    )
    assert shop.sagas.acts(saga_id)[0].handled_at is None


def test_who_does_not_wait_is_told_that_it_is_stored(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")

    result = shop.say("cancel", "order-1", "--reason", "x", "--no-wait")

    assert result.exit_code == 0
    assert result.stdout.startswith("stored as act 1.\n")


def test_a_stored_act_as_json_says_so(shop: Shop, impatient: None) -> None:
    shop.until("create_restaurant_ticket")

    told = shop.json("cancel", "order-1", "--reason", "x", exit_code=2)

    assert (told["became"], told["answer"]) == ("stored", None)


# ---- wrong calls ------------------------------------------------------------------------------------


def test_an_act_without_a_reason_is_a_wrong_call(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")

    missing = shop.say("cancel", "order-1")
    empty = shop.say("cancel", "order-1", "--reason", " ")

    assert missing.exit_code == empty.exit_code == 1
    assert "Missing option '--reason'" in missing.stderr
    assert "An act needs a name and a reason" in empty.stderr


def test_an_act_on_an_unknown_saga_stores_nothing(shop: Shop) -> None:
    result = shop.say("retry", "order-9", "--reason", "x")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: No saga has the id or the key 'order-9'")
