"""``saga archive`` and ``saga show --archive``: what is kept, what goes, and that it can still be seen."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import insert

from sagas_framework.core.ids import operation_id
from sagas_framework.storage.tables import saga_inbox
from tests.unit.cli.shop import NOON, PARTICIPANT, WORKER, Shop, forget_modules, say, standing_in

MONTH = timedelta(days=30).total_seconds()
KEEPING = WORKER.replace(
    "    clock=", '    retention=Retention(timedelta(days=30)),\n    archive=Path("archive"),\n    clock='
).replace(
    "from sagas_framework import Queue,",
    "from datetime import timedelta\nfrom pathlib import Path\nfrom sagas_framework import Queue, Retention,",
)


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """Two orders completed; a month later a third; one is open all the time."""
    monkeypatch.setattr("tests.unit.cli.shop.WORKER", KEEPING)
    with standing_in(tmp_path, monkeypatch):
        shop = Shop(tmp_path)
        shop.completed("order-1")
        shop.completed("order-2")
        shop.until("create_restaurant_ticket", "order-3")
        shop.sleeps(MONTH + 1)
        shop.completed("order-4")
        yield shop
        shop.sagas.engine.dispose()


def test_the_status_says_how_long_what_is_kept_and_how_much_is_past_it(shop: Shop) -> None:
    told = shop.json("archive", "status")["kept"]

    assert told == [
        {"what": "create_order", "seconds": MONTH, "then": "archived", "ended": 0, "past": 0},
        {"what": "deliver_order", "seconds": MONTH, "then": "archived", "ended": 3, "past": 2},
        {"what": "all others", "seconds": MONTH, "then": "archived", "ended": 0, "past": 0},
    ]
    assert "deliver_order  30 d      archived  3      2" in shop.say("archive", "status").output


def test_what_is_past_its_time_goes_and_can_still_be_shown(shop: Shop) -> None:
    (before,) = shop.sagas.find("order-1")
    shown = shop.json("show", "order-1")

    assert shop.json("archive", "run") == {"archived": 2, "dropped": 0}

    assert shop.sagas.find("order-1") == []
    assert shop.json("show", before.id) == shown
    assert shop.json("show", "order-1", "--archive", "archive")["id"] == before.id
    assert "order-1 is completed" in shop.say("history", "order-1").output
    assert "order-4 is completed" in shop.say("show", "order-4").output
    assert shop.json("show", "order-3")["ended_at"] is None


def test_a_run_stops_where_it_is_told(shop: Shop) -> None:
    assert shop.json("archive", "run", "--at-most", "1")["archived"] >= 1


def test_what_is_nowhere_is_told_so(shop: Shop) -> None:
    shop.say("archive", "run")

    assert "in this database, nor in archive" in shop.say("show", "order-9").output


def test_the_archive_is_checked(shop: Shop) -> None:
    assert "There is no archive at archive" in shop.say("archive", "check").output
    shop.say("archive", "run")

    assert "2 rows" in shop.say("archive", "check").output
    (file,) = Path("archive").glob("*.gz")
    file.write_bytes(file.read_bytes()[:-5])
    told = shop.json("archive", "check", exit_code=1)

    assert not told["sound"]
    assert told["files"][0]["trouble"] == "it is not as it was closed: 0 rows of 2 can be read"


def test_an_archive_that_cannot_be_written_is_told_and_nothing_goes(shop: Shop) -> None:
    Path("archive").write_text("a file")

    result = shop.say("archive", "run")

    assert result.exit_code == 1
    assert "The archive cannot be written, and what was to go there stays" in result.output
    assert shop.sagas.find("order-1") != []


@pytest.mark.parametrize("folder", [(), ("--archive", "archive")])
@pytest.mark.parametrize("command", ["show", "history"])
def test_an_operation_in_the_same_folder_is_told_as_one_of_its_saga(
    shop: Shop, tmp_path: Path, command: str, folder: tuple[str, ...]
) -> None:
    (before,) = shop.sagas.find("order-1")
    operation = operation_id(before.id, "create_restaurant_ticket")
    keeping = PARTICIPANT.replace(
        "clock=", 'archive=Path("archive"), retention=timedelta(days=2), clock='
    ).replace(
        "from sagas_framework",
        "from datetime import timedelta\nfrom pathlib import Path\nfrom sagas_framework",
        1,
    )
    (tmp_path / "kitchen.py").write_text(keeping)
    assert say("-A", "kitchen", "db", "upgrade").exit_code == 0
    kitchen = importlib.import_module("kitchen")
    with kitchen.participant.engine.begin() as connection:
        handled = {
            "key": operation,
            "saga_id": before.id,
            "task": "restaurant_service.create_ticket",
            "state": "done",
            "attempt": 1,
            "undo_attempt": 0,
            "reply": {"ticket_id": 7},
            "updated_at": NOON - timedelta(days=30),
        }
        connection.execute(insert(saga_inbox), handled)
    kitchen.participant.engine.dispose()

    assert say("-A", "kitchen", "archive", "run").output == "1 archived, 0 dropped\n"
    assert shop.json("archive", "run") == {"archived": 2, "dropped": 0}
    told = shop.say(command, operation, *folder)

    assert told.exit_code == 1
    assert told.output == (
        f"Error: {operation!r} is no saga but one of its operations: restaurant_service.create_ticket "
        f"(done), in the inbox rows of archive. Show the saga that it belongs to: "
        f"saga -A worker show {before.id}\n"
    )
    assert "order-1 is completed" in shop.say(command, before.id, *folder).output


def test_a_participant_has_an_inbox_to_keep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with standing_in(tmp_path, monkeypatch):
        (tmp_path / "kitchen.py").write_text(PARTICIPANT)
        assert say("-A", "kitchen", "db", "upgrade").exit_code == 0

        told = say("-A", "kitchen", "archive", "status").output
        ran = say("-A", "kitchen", "archive", "run").output
        forget_modules()

    assert "inbox of restaurant_service  30 d      dropped  0      0" in told
    assert ran == "0 archived, 0 dropped\n"
