"""``-A module[:attribute]``: what it finds, and what it says when it finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagas_framework.cli.finding import NotFound, find
from tests.unit.cli.shop import PARTICIPANT, WORKER, Shop, say

BOTH = WORKER + PARTICIPANT.replace("app = participant_app", "kitchen = participant_app").replace(
    "time = [NOON]\n", ""
)


def test_the_sagas_are_found_where_the_celery_app_keeps_them(shop: Shop) -> None:
    found = find("worker")

    assert found.sagas is shop.sagas
    assert found.participant is None


@pytest.mark.parametrize("name", ["worker:sagas", "worker:app", "worker:app.sagas"])
def test_an_attribute_may_be_the_object_or_the_app_that_has_it(shop: Shop, name: str) -> None:
    assert find(name).sagas is shop.sagas


def test_a_module_without_a_celery_app_is_searched_for_the_objects_themselves(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER.partition("# Nobody listens")[0])

    assert find("worker").sagas is not None


def test_a_participant_is_found_alike(folder: Path) -> None:
    (folder / "kitchen.py").write_text(PARTICIPANT)

    found = find("kitchen")

    assert found.sagas is None
    assert found.participant is not None


def test_a_module_may_have_an_orchestrator_and_a_participant(folder: Path) -> None:
    (folder / "both.py").write_text(BOTH)

    found = find("both")

    assert found.sagas is not None
    assert found.participant is not None
    assert [str(database) for database in found.databases] == [
        "sqlite:///orders.sqlite3",
        "sqlite:///restaurant.sqlite3",
    ]


def test_a_database_that_both_share_counts_once(folder: Path) -> None:
    (folder / "both.py").write_text(BOTH.replace("restaurant.sqlite3", "orders.sqlite3"))

    assert len(find("both").databases) == 1


def test_a_module_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(NotFound, match=r"no module 'nowhere.worker' .*Run `saga` in the folder"):
        find("nowhere.worker")


@pytest.mark.parametrize("name", ["", ".worker", ":app"])
def test_what_cannot_be_a_module_is_said_to_be_none(folder: Path, name: str) -> None:
    with pytest.raises(NotFound, match="is no module"):
        find(name)


def test_a_module_that_cannot_be_imported_says_where_it_broke(folder: Path) -> None:
    (folder / "broken.py").write_text("import os\n\nbroker = os.environ['NO_SUCH_SETTING']\n")

    with pytest.raises(NotFound, match=r"KeyError: 'NO_SUCH_SETTING' \(broken.py, line 3\)"):
        find("broken")


def test_a_module_that_lacks_another_one_is_broken_and_not_missing(folder: Path) -> None:
    (folder / "broken.py").write_text("import no_such_library\n")

    with pytest.raises(
        NotFound, match=r"broken cannot be imported: .*no_such_library.* \(broken.py, line 1\)"
    ):
        find("broken")


def test_a_missing_attribute_is_named(shop: Shop) -> None:
    with pytest.raises(NotFound, match="worker has no attribute 'saga'"):
        find("worker:saga")


def test_an_attribute_of_another_kind_is_refused(shop: Shop) -> None:
    with pytest.raises(NotFound, match=r"worker:time is neither Sagas nor a Participant.* it is a list"):
        find("worker:time")


def test_a_module_with_nothing_in_it_says_what_to_name(folder: Path) -> None:
    (folder / "empty.py").write_text("number = 1\n")

    with pytest.raises(NotFound, match=r"empty has no Sagas, no Participant.*Name the module of a worker"):
        find("empty")


def test_more_than_one_of_a_kind_is_ambiguous(folder: Path) -> None:
    other = WORKER.partition("sagas = ")[2].replace("sagas=sagas", "").replace("app = ", "second = ")
    (folder / "two.py").write_text(WORKER + "\nothers = " + other.replace("(sagas,", "(others,"))

    with pytest.raises(NotFound, match=r"more than one Sagas. Name one of them: -A two:app or -A two:second"):
        find("two")


def test_what_a_module_prints_is_not_our_output(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER + "\nprint('settings loaded')\n")

    result = say("-A", "worker", "db", "upgrade", "--json")

    assert result.stdout.startswith("{")
    assert "settings loaded" in result.stderr


def test_the_environment_may_name_the_module(shop: Shop) -> None:
    result = say("list", env={"SAGA_APP": "worker"})

    assert result.exit_code == 0
    assert result.stdout == "There is no saga yet.\n"


def test_without_a_module_it_is_asked_for(folder: Path) -> None:
    result = say("list")

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: Which service? Give its worker's module as to Celery")
    assert result.stderr.count("\n") == 1


def test_a_participant_has_no_sagas_to_list(folder: Path) -> None:
    (folder / "kitchen.py").write_text(PARTICIPANT)

    result = say("-A", "kitchen", "list")

    assert result.exit_code == 1
    assert "kitchen is the participant restaurant_service" in result.stderr
