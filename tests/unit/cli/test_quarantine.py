"""``saga quarantine``: what was set aside, in an orchestrator's or a participant's database."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import pytest

from sagas_framework.cli import acting
from sagas_framework.cli.finding import find
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Quarantined
from sagas_framework.storage.reads import read_quarantine
from tests.unit.cli.shop import NOON, PARTICIPANT, WORKER, Shop, say

WITHOUT_DATABASE = PARTICIPANT.replace(
    'database="sqlite:///restaurant.sqlite3"', "inbox=MemoryInbox(MemoryDatabase())"
).replace(
    "from sagas_framework import",
    "from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox\nfrom sagas_framework import",
)


def kept(shop: Shop) -> list[Quarantined]:
    with reading(shop.sagas.engine) as connection:
        return read_quarantine(connection)


def test_an_empty_quarantine_says_so(shop: Shop) -> None:
    assert shop.say("quarantine", "list").stdout == "The quarantine is empty.\n"
    assert shop.json("quarantine", "list") == {"messages": [], "more": False}


def test_messages_are_listed_with_the_reason_newest_first(shop: Shop) -> None:
    shop.set_aside("no saga has the id 4711")
    shop.set_aside("the body is no JSON", saga_id=None)

    assert shop.say("quarantine", "list").stdout == (
        "2  restaurant_service.create_ticket.response.success, 3 min ago\n"
        "    the body is no JSON\n"
        "1  restaurant_service.create_ticket.response.success, 3 min ago, saga 4711\n"
        "    no saga has the id 4711\n"
    )
    assert [message["id"] for message in shop.json("quarantine", "list", "--limit", "1")["messages"]] == [2]
    assert shop.json("quarantine", "list", "--limit", "1")["more"] is True


def test_a_message_is_shown_as_it_came(shop: Shop) -> None:
    shop.set_aside()

    text, message = shop.say("quarantine", "show", "1").stdout, shop.json("quarantine", "show", "1")

    assert text.startswith("Message 1: no saga has the id 4711\n")
    assert "Trouble at  $[0][0]\n" in text
    assert "root_id: r-1\n" in text
    assert '"ticket_id": 7' in text
    assert json.loads(message["body"]) == [["4711", {"ticket_id": 7}], {}, None]
    assert message["at"] == (NOON - timedelta(minutes=3)).isoformat()


def test_a_replay_is_asked_for_by_name_and_leaves_with_a_worker(shop: Shop) -> None:
    shop.set_aside()

    with shop.working():
        result = shop.say("quarantine", "replay", "1", "--by", "ann")

    assert result.exit_code == 0
    assert result.stdout == "done: a worker took message 1 and sent it to order_service.replies.\n"
    assert kept(shop) == []


def test_a_replay_that_nobody_takes_is_stored_and_exits_with_2(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(acting, "PATIENCE", timedelta(0))
    shop.set_aside()

    result = shop.say("quarantine", "replay", "1", "--by", "ann", "--reason", "the saga is back")
    listed = shop.say("quarantine", "list").stdout

    assert result.exit_code == 2
    assert result.stdout.startswith("stored: no worker has taken it yet; is one running?\n")
    assert "(to be sent again, asked by ann: the saga is back)" in listed


def test_a_replay_need_not_be_waited_for(shop: Shop) -> None:
    shop.set_aside()

    told = shop.json("quarantine", "replay", "1", "--by", "ann", "--no-wait")

    assert told == {"id": 1, "became": "stored", "by": "ann", "reason": None, "why": None}


def test_a_replay_that_the_broker_does_not_take_leaves_the_message_and_says_why(shop: Shop) -> None:
    shop.set_aside()

    with shop.working(trouble="unroutable"):
        result = shop.say("quarantine", "replay", "1", "--by", "ann")
        told = shop.json("quarantine", "replay", "1", "--by", "ann", exit_code=1)

    assert result.exit_code == 1
    assert result.stdout == (
        "refused: message 1 stays in the quarantine, under its number.\n"
        "no saga has the id 4711 (not sent again: unroutable)\n"
    )
    assert (told["became"], told["why"]) == (
        "refused",
        "no saga has the id 4711 (not sent again: unroutable)",
    )
    assert [(message.id, message.replay) for message in kept(shop)] == [(1, None)]


def test_a_dropped_message_is_gone_and_was_printed_a_last_time(shop: Shop) -> None:
    shop.set_aside()

    result = shop.say("quarantine", "drop", "1", "--reason", "a test of ours", "--by", "ann")

    assert result.exit_code == 0
    assert result.stdout.startswith("done: message 1 is dropped for good, by ann: a test of ours.\nIt was:\n")
    assert '"root_id": "r-1"' in result.stdout
    assert kept(shop) == []


def test_a_dropped_message_as_json_is_the_whole_message(shop: Shop) -> None:
    shop.set_aside()

    told = shop.json("quarantine", "drop", "1", "--reason", "a test", "--by", "ann")

    assert (told["by"], told["reason"], told["dropped"]["id"]) == ("ann", "a test", 1)


@pytest.mark.parametrize("command", [["show"], ["replay"], ["drop", "--reason", "x"]])
def test_an_unknown_message_says_where_to_look(shop: Shop, command: list[str]) -> None:
    result = shop.say("quarantine", command[0], "9", *command[1:])

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The quarantine has no message 9; `saga -A worker quarantine list` shows those there are.\n"
    )


def test_dropping_needs_a_reason_and_a_name(shop: Shop) -> None:
    shop.set_aside()

    assert shop.say("quarantine", "drop", "1").exit_code == 1
    assert shop.say("quarantine", "drop", "1", "--reason", " ").exit_code == 1
    assert shop.say("quarantine", "drop", "1", "--reason", "x", "--by", " ").exit_code == 1
    assert len(kept(shop)) == 1


# ---- participants -----------------------------------------------------------------------------------


def test_a_participants_quarantine_is_its_own_database(folder: Path) -> None:
    (folder / "kitchen.py").write_text(PARTICIPANT)
    participant = find("kitchen").participant
    assert participant is not None
    participant.upgrade()
    participant.inbox.quarantine(Quarantined("q", "t", {}, "?", "the body is no JSON", NOON))

    result = say("-A", "kitchen", "quarantine", "list")

    assert result.stdout == "1  t, just now\n    the body is no JSON\n"


def test_an_inbox_that_is_no_sql_database_cannot_be_read_from_here(folder: Path) -> None:
    (folder / "kitchen.py").write_text(WITHOUT_DATABASE)

    result = say("-A", "kitchen", "quarantine", "list")

    assert result.exit_code == 1
    assert "keeps its inbox in a MemoryInbox, not in an SQL database" in result.stderr


def test_two_databases_in_one_module_are_ambiguous(folder: Path) -> None:
    kitchen = PARTICIPANT.replace("app = participant_app", "kitchen = participant_app")
    (folder / "both.py").write_text(WORKER + kitchen)

    result = say("-A", "both", "quarantine", "list")

    assert result.exit_code == 1
    assert "both has sagas and a participant with a database each. Name one" in result.stderr
