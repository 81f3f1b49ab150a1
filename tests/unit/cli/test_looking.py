"""``saga list``, ``show`` and ``history``, for people and as JSON."""

from __future__ import annotations

from datetime import datetime

import pytest

from sagas_framework.core.events import Act
from tests.unit.cli.shop import Shop

NARROW = {"COLUMNS": "80"}


# ---- list -------------------------------------------------------------------------------------------


def test_an_empty_database_has_no_saga_yet(shop: Shop) -> None:
    assert shop.say("list").stdout == "There is no saga yet.\n"
    assert shop.json("list") == {"sagas": [], "more": False}


def test_parked_sagas_come_first_each_with_the_reason_why_it_waits(shop: Shop) -> None:
    parked = shop.parked_after_pivot("order-1")
    shop.sleeps(60)
    shop.until("create_restaurant_ticket", "order-2")
    shop.sleeps(14)

    lines = shop.say("list").stdout.splitlines()

    assert lines[0].split() == ["Status", "Key", "Saga", "Age", "Id"]
    assert lines[1].split() == ["parked", "order-1", "deliver_order", "1", "min", "14", "s", parked[:13]]
    assert lines[2].startswith("    start_delivery needs a person: refused after the pivot (NoCourier")
    assert lines[3].startswith("running  order-2")
    assert lines[4] == (
        "    Waiting 14 s for restaurant_service.create_ticket (try 1); turns back in 4 min 46 s."
    )


def test_the_list_as_json_has_the_same_reason(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket", "order-2")
    shop.sleeps(14)

    (listed,) = shop.json("list")["sagas"]

    assert listed["id"] == saga_id
    assert listed["status"] == "running"
    assert listed["key"] == "order-2"
    assert listed["why"].startswith("Waiting 14 s for restaurant_service.create_ticket")
    assert datetime.fromisoformat(listed["created_at"]).tzinfo is not None


def test_a_completed_saga_needs_no_sentence(shop: Shop) -> None:
    shop.completed()

    assert len(shop.say("list").stdout.splitlines()) == 2


def test_the_list_can_be_narrowed(shop: Shop) -> None:
    shop.completed("old")
    shop.sleeps(7200)
    shop.start("young")

    def keys(*arguments: str) -> list[str]:
        return [listed["key"] for listed in shop.json("list", *arguments)["sagas"]]

    assert keys() == ["young", "old"]
    assert keys("--status", "completed") == ["old"]
    assert keys("--open") == ["young"]
    assert keys("--key", "old") == ["old"]
    assert keys("--older-than", "1h30m") == ["old"]
    assert keys("--saga", "create_order") == []
    assert keys("--outcome", "ok") == ["old"]
    assert keys("--outcome", "refused") == []
    assert keys("--waits-for", "consumer_service.verify_consumer_details") == ["young"]
    assert keys("--waits-for", "restaurant_service.create_ticket") == []
    assert keys("--limit", "1") == ["young"]


def test_a_list_that_was_cut_says_so(shop: Shop) -> None:
    for key in ("a", "b", "c"):
        shop.start(key)

    assert shop.json("list", "--limit", "2")["more"] is True
    assert shop.say("list", "--limit", "2").stdout.endswith("There are more: raise --limit to see them.\n")


def test_a_filter_that_nothing_fits_does_not_say_that_there_is_no_saga(shop: Shop) -> None:
    shop.start()

    assert shop.say("list", "--status", "parked").stdout == "No saga is like that.\n"


def test_open_sagas_are_listed_with_the_oldest_first(shop: Shop) -> None:
    for key in ("a", "b"):
        shop.start(key)
        shop.sleeps(60)
    shop.parked_after_pivot("parked")

    assert [listed["key"] for listed in shop.json("list", "--open")["sagas"]] == ["parked", "a", "b"]


def test_an_outcome_that_does_not_exist_is_a_wrong_call(shop: Shop) -> None:
    result = shop.say("list", "--outcome", "sad")

    assert result.exit_code == 1
    assert "'sad' is not one of 'ok', 'refused', 'failed', 'cancelled', 'expired'" in result.stderr


def test_a_span_of_more_than_a_hundred_years_is_a_wrong_call(shop: Shop) -> None:
    for call in (["list", "--older-than"], ["stuck", "--waiting"]):
        for span in ("36501d", "999999999999d"):
            result = shop.say(*call, span)

            assert result.exit_code == 1
            assert f"'{span}' is too long: at most 36500d." in result.stderr
        assert shop.say(*call, "36500d").exit_code == 0


@pytest.mark.parametrize("span", ["soon", "10", "10m later", "-5m"])
def test_a_span_that_cannot_be_read_is_a_wrong_call(shop: Shop, span: str) -> None:
    result = shop.say("list", f"--older-than={span}")

    assert result.exit_code == 1
    assert "is no span of time: write 90s, 10m, 2h, 1d or 1h30m" in result.stderr


def test_json_may_be_asked_for_before_the_command(shop: Shop) -> None:
    from tests.unit.cli.shop import say

    assert say("--json", "-A", "worker", "list").stdout == shop.say("list", "--json").stdout


# ---- show -------------------------------------------------------------------------------------------


def test_show_answers_first_why_the_saga_waits_and_then_tells_its_steps(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    shop.sleeps(14)

    text = shop.say("show", "order-1", env=NARROW).stdout

    assert text.startswith(
        f"""\
order-1 is running

Saga      deliver_order version 1
Id        {saga_id}
Started   14 s ago
Changed   14 s ago
Revision  3

Waiting 14 s for restaurant_service.create_ticket (try 1); turns back in 4 min
46 s.

Step                               Phase        Tries  Undo tries
reject_order                       done         -      -
    its effect now: there
verify_consumer_details            done         1      -
    its effect now: no effect
create_restaurant_ticket           sent         1      -
    its effect now: unknown
authorize_card                     not reached  -      -
approve_restaurant_ticket (pivot)  not reached  -      -
"""
    )
    assert '"address": "Main Street 1"' in text


def test_where_there_is_room_the_effect_of_each_step_has_a_column(shop: Shop) -> None:
    shop.parked_undo()

    text = shop.say("show", "order-1", env={"COLUMNS": "100"}).stdout

    assert (
        """\
Step                               Phase                 Tries  Undo tries  Its effect now
reject_order                       undone                -      1           undone
verify_consumer_details            nothing to undo       1      -           no effect
create_restaurant_ticket           undo pausing, parked  1      5           still there
    KitchenOffline: says KitchenOffline
authorize_card                     refused               1      -           never happened
    CardRefused: says CardRefused
approve_restaurant_ticket (pivot)  not reached           -      -           never happened
"""
    ) in text
    assert "its effect now" not in text


def test_show_tells_what_an_operator_can_do_with_the_line_to_type(shop: Shop) -> None:
    shop.parked_after_pivot()

    text = shop.say("show", "order-1").stdout

    assert text.partition("What you can do\n")[2] == (
        "saga -A worker skip order-1 --reason '...'\n"
        "    start_delivery: goes on without it.\n"
        "saga -A worker complete order-1 --reason '...' --reply '{\"courier\": <string>}'\n"
        "    start_delivery: counts it as done: you did it by hand.\n"
    )


def test_show_of_a_parked_undo_offers_what_would_be_obeyed(shop: Shop) -> None:
    shop.parked_undo()

    shown = shop.json("show", "order-1")

    assert [(can["act"], can["step"], can["force"]) for can in shown["can_do"]] == [
        ("retry", "create_restaurant_ticket", False),
        ("skip", "create_restaurant_ticket", False),
        ("complete", "create_restaurant_ticket", False),
    ]
    assert shown["can_do"][2]["reply"] is None


def test_a_saga_before_its_pivot_can_be_cancelled_and_one_past_it_cannot(shop: Shop) -> None:
    shop.until("create_restaurant_ticket", "early")
    shop.until("start_delivery", "late")

    assert [can["act"] for can in shop.json("show", "early")["can_do"]] == ["cancel"]
    assert shop.json("show", "late")["can_do"] == []


def test_asking_what_could_be_done_changes_nothing(shop: Shop) -> None:
    saga_id = shop.parked_undo()
    before = shop.sagas.get(saga_id)

    shop.say("show", "order-1")

    assert shop.sagas.get(saga_id) == before


def test_a_step_that_left_nothing_behind_says_so(shop: Shop) -> None:
    saga_id = shop.until("authorize_card")
    shop.refuses(saga_id)
    shop.succeeds(saga_id)

    text = shop.say("show", "order-1").stdout

    assert "order-1 is compensated\n" in text
    assert "Outcome   refused at authorize_card\n" in text
    assert "verify_consumer_details            nothing to undo  1" in text
    assert "    CardRefused: says CardRefused\n" in text
    assert "What you can do" not in text


def test_show_as_json_has_everything_and_every_step_its_counts(shop: Shop) -> None:
    saga_id = shop.parked_after_pivot()

    shown = shop.json("show", "order-1")

    assert set(shown) == {
        *("id", "saga", "version", "key", "status", "outcome", "waits", "revision"),
        *("created_at", "updated_at", "ended_at", "deadline", "late"),
        *("why", "queue", "same", "state", "steps", "history", "declared", "signals", "said"),
        *("can_do", "acts"),
    }
    assert shown["id"] == saga_id
    assert shown["state"]["ticket_id"] == 7
    assert all({"name", "phase", "effect", "attempts", "tries"} <= set(step) for step in shown["steps"])
    assert [step["phase"] for step in shown["steps"]][-3:] == ["refused", "pending", "pending"]
    assert shown["history"][0]["entry"] == "started"


def test_a_saga_that_nobody_has_taken_up_shows_its_steps_as_not_reached(shop: Shop) -> None:
    shop.start(taken=False)

    text = shop.say("show", "order-1").stdout

    assert "Waiting 0 ms for an orchestrator to take it up." in text
    assert "approve_order                      not reached" in text
    assert [step["phase"] for step in shop.json("show", "order-1")["steps"]] == 8 * ["pending"]


def test_a_version_that_the_module_does_not_declare_is_shown_and_said_to_stand_still(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET version = 7")

    text, shown = shop.say("show", "order-1").stdout, shop.json("show", "order-1")

    assert "worker does not declare deliver_order version 7, so its workers do not move this saga." in text
    assert "It declares: create_order version 1, deliver_order version 1." in text
    assert shown["declared"] is False
    assert shown["can_do"] == []


def test_a_saga_that_was_started_with_other_steps_is_shown_and_said_to_stand_still(shop: Shop) -> None:
    shop.until("create_restaurant_ticket")
    shop.sleeps(1)
    shop.completed("order-2")
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET shape = 'another'")

    text, ended = shop.say("show", "order-1").stdout, shop.say("show", "order-2").stdout

    assert (
        "worker declares deliver_order version 1 with other steps than this saga was started with, so its "
        "workers do not move it."
    ) in text
    assert "Completed: every effect is kept." in ended
    assert "declares" not in ended
    assert shop.json("show", "order-1")["declared"] is False
    assert [listed["key"] for listed in shop.json("list")["sagas"]] == ["order-2", "order-1"]


def test_an_act_that_nobody_has_taken_and_one_that_was_refused_are_shown(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    shop.sagas.act(saga_id, Act.RETRY, by="ann", reason="now")
    shop.orchestrator.obey_acts()
    shop.sleeps(180)
    shop.sagas.act(saga_id, Act.CANCEL, by="ben", reason="the customer called")

    text, shown = shop.say("show", "order-1").stdout, shop.json("show", "order-1")

    assert (
        'cancel by ben, just now ("the customer called"): no orchestrator has taken it yet.\n'
        'retry by ann, 3 min ago ("now"): refused: no step is parked or pausing: nothing to retry.\n'
    ) in text
    assert [(act["by"], act["became"]) for act in shown["acts"]] == [("ben", "stored"), ("ann", "refused")]


# ---- which saga is meant ----------------------------------------------------------------------------


def test_a_saga_is_found_by_id_by_the_beginning_of_it_and_by_key(shop: Shop) -> None:
    saga_id = shop.start("order-1")
    shop.sleeps(100_000)
    shop.start("order-2")

    for named in (saga_id, saga_id.upper(), saga_id[:12], saga_id[:13].replace("-", ""), "order-1"):
        assert shop.json("show", named)["id"] == saga_id


def test_a_key_wins_over_the_beginning_of_an_id(shop: Shop) -> None:
    first = shop.start("order-1")
    second = shop.start(first[:6])

    assert shop.json("show", first[:6])["id"] == second


def test_a_beginning_that_fits_several_lists_them(shop: Shop) -> None:
    ids = [shop.start("order-1"), shop.start("order-2")]

    result = shop.say("show", ids[0][:8])

    assert result.exit_code == 1
    assert "fits more than one saga. Write the id of one of them:" in result.stderr
    assert all(saga_id in result.stderr for saga_id in ids)


@pytest.mark.parametrize("named", ["nobody", "019", "%", "019ca944-ffff"])
def test_an_id_that_nobody_has_says_where_to_look(shop: Shop, named: str) -> None:
    shop.start()

    for command in ("show", "history"):
        result = shop.say(command, named)

        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr == (
            f"Error: No saga has the id or the key {named!r} in this database; `saga -A worker list` "
            "shows those there are.\n"
        )


# ---- history ----------------------------------------------------------------------------------------


def test_the_history_tells_ages_times_since_the_start_and_what_belongs_to_each_line(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    shop.after(12, lost=True)
    shop.fails(saga_id, "KitchenBusy")
    shop.sleeps(180)

    text = shop.say("history", "order-1").stdout

    assert text.startswith("order-1 is running\ncreate_restaurant_ticket: try 1 failed (KitchenBusy: ")
    assert "3 min ago  +0 ms  create_restaurant_ticket.running\n" in text
    assert "3 min ago  +12 s  create_restaurant_ticket.sent_again\n    once; presumed lost\n" in text
    assert text.endswith(
        "3 min ago  +12 s  create_restaurant_ticket.attempt_failed\n"
        "    try 1; KitchenBusy: says KitchenBusy; again in 1 s\n"
    )


def test_what_an_operator_did_stands_in_the_history_with_name_and_reason(shop: Shop) -> None:
    saga_id = shop.until("create_restaurant_ticket")
    shop.sagas.act(saga_id, Act.CANCEL, by="ann", reason="the customer called")
    shop.orchestrator.obey_acts()

    text = shop.say("history", saga_id).stdout

    assert 'operator.cancel\n    by ann: "the customer called"\n' in text
    assert "compensating\n    cancelled; Cancelled: the customer called\n" in text


def test_the_history_as_json_is_as_everywhere(shop: Shop) -> None:
    saga_id = shop.completed()

    told = shop.json("history", "order-1")

    assert told["history"] == shop.sagas.view(saga_id).to_json()["history"]
    assert told["status"] == "completed"


def test_a_saga_to_which_nothing_happened_has_an_empty_history(shop: Shop) -> None:
    shop.start(taken=False)

    assert shop.say("history", "order-1").stdout.endswith("\nNothing has happened yet.\n")


# ---- how it looks -----------------------------------------------------------------------------------


def test_nothing_is_wider_than_80_columns_but_what_is_to_be_copied(shop: Shop) -> None:
    shop.parked_undo("order-1")
    shop.parked_after_pivot("order-2")

    shows = [["show", "order-1"], ["show", "order-2"], ["why", "order-1"], ["why", "order-2"]]
    for call in (["list"], *shows, ["stuck"], ["history", "order-1"], ["health"]):
        for line in shop.say(*call, env=NARROW).stdout.splitlines():
            assert len(line) <= 80 or line.startswith("saga -A worker"), line


def test_in_a_pipe_there_are_no_colours_and_no_broken_sentences(shop: Shop) -> None:
    shop.parked_undo()

    text = shop.say("list").stdout

    assert "\x1b" not in text
    assert len(text.splitlines()) == 3


def test_what_others_wrote_cannot_command_the_terminal(shop: Shop) -> None:
    shop.start("\x1b[2Jorder", address="\x9b31m")

    text = shop.say("list").stdout + shop.say("show", "\x1b[2Jorder").stdout

    assert "\\x1b[2Jorder" in text
    assert not {"\x1b", "\x9b"} & set(text)
