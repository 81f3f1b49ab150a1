"""``saga db``, errors of the database, and a machine without the extra."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagas_framework import cli
from tests.unit.cli.shop import WORKER, Shop, say

READERS = [
    ["list"],
    ["show", "order-1"],
    ["history", "order-1"],
    ["why", "order-1"],
    ["stuck"],
    ["retry", "order-1", "--reason", "x"],
    ["skip", "order-1", "--reason", "x"],
    ["complete", "order-1", "--reason", "x"],
    ["cancel", "order-1", "--reason", "x"],
    ["quarantine", "list"],
    ["quarantine", "show", "1"],
    ["quarantine", "replay", "1"],
    ["quarantine", "drop", "1", "--reason", "x"],
]


def with_database(folder: Path, address: str) -> None:
    (folder / "worker.py").write_text(WORKER.replace("sqlite:///orders.sqlite3", address))


# ---- db ---------------------------------------------------------------------------------------------


def test_upgrade_names_each_migration_that_ran_and_then_has_nothing_to_do(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER)

    first, second = say("-A", "worker", "db", "upgrade"), say("-A", "worker", "db", "upgrade")

    assert first.exit_code == second.exit_code == 0
    assert first.stdout.startswith("sqlite:///orders.sqlite3: ran\n    0001 the tables of sagas")
    assert second.stdout == "sqlite:///orders.sqlite3: nothing to do\n"


def test_upgrade_as_json_lists_what_ran(shop: Shop) -> None:
    assert shop.json("db", "upgrade") == {
        "databases": [{"service": "order_service", "address": "sqlite:///orders.sqlite3", "ran": []}]
    }


def test_check_is_content_with_the_schema_of_this_release(shop: Shop) -> None:
    assert shop.say("db", "check").stdout == "sqlite:///orders.sqlite3: at this release's schema\n"
    assert shop.json("db", "check")["databases"][0]["current"] is True


def test_check_fails_on_an_old_schema_with_the_command_to_run(shop: Shop) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_alembic_version")

    result = shop.say("db", "check")

    assert result.exit_code == 1
    assert result.stderr.endswith("Run: saga -A worker db upgrade\n")
    assert shop.json("db", "check", exit_code=1)["databases"][0]["current"] is False


@pytest.mark.parametrize("command", [["db", "check"], ["db", "upgrade"], ["list"]], ids=" ".join)
def test_a_schema_that_only_a_newer_release_knows_is_left_alone_and_asks_for_that_release(
    shop: Shop, command: list[str]
) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_alembic_version SET version_num = '9001'")

    result = shop.say(*command)

    assert result.exit_code == 1
    assert "is at schema 9001 (saga_alembic_version), and this release needs 0001" in result.stderr
    assert result.stderr.endswith("A newer release has upgraded it: deploy that one here, too.\n")
    assert result.stderr.count("\n") == 1
    with shop.sagas.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT version_num FROM saga_alembic_version").scalar() == "9001"


def test_looking_at_a_sqlite_file_that_is_not_there_makes_none(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER)

    result = say("-A", "worker", "list")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The database sqlite:///orders.sqlite3 does not exist. Run: saga -A worker db upgrade\n"
    )
    assert not (folder / "orders.sqlite3").exists()


def test_a_sqlite_file_in_no_folder_says_so(folder: Path) -> None:
    with_database(folder, "sqlite:///nowhere/orders.sqlite3")

    result = say("-A", "worker", "db", "upgrade")

    assert result.exit_code == 1
    assert "unable to open database file. Does its folder exist" in result.stderr


# ---- every command on a database that is not as it should be ----------------------------------------


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_an_unreachable_database_is_one_line_without_the_password(folder: Path, command: list[str]) -> None:
    with_database(folder, "postgresql://me:secret@127.0.0.1:1/orders")

    result = say("-A", "worker", *command, "--json")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(
        "Error: The database postgresql://me:***@127.0.0.1:1/orders cannot be reached"
    )
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_an_old_schema_is_one_line_with_the_command_to_run(shop: Shop, command: list[str]) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_alembic_version")

    result = shop.say(*command)

    assert result.exit_code == 1
    assert result.stderr.endswith("Run: saga -A worker db upgrade\n")
    assert result.stderr.count("\n") == 1


def test_an_address_that_cannot_be_read_masks_the_password(folder: Path) -> None:
    with_database(folder, "postgrsql://me:secret@127.0.0.1/orders")

    result = say("-A", "worker", "list")

    assert result.exit_code == 1
    assert "postgrsql://me:***@127.0.0.1/orders cannot be used" in result.stderr
    assert "secret" not in result.output


def test_a_table_that_was_lost_is_an_error_in_words(shop: Shop) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE saga_instance")

    result = shop.say("list")

    assert result.exit_code == 1
    assert result.stderr == (
        "Error: The database sqlite:///orders.sqlite3 does not do what we ask: OperationalError: "
        "no such table: saga_instance\n"
    )


# ---- the entry point --------------------------------------------------------------------------------


def importing_without(library: str) -> Callable[..., Any]:
    real = builtins.__import__

    def fake(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] == library:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **named)

    return fake


@pytest.mark.parametrize("library", ["click", "rich"])
def test_without_the_extra_the_entry_point_says_which_one_to_install(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("sagas_framework.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", importing_without(library))

    with pytest.raises(SystemExit) as exited:
        cli.main()

    assert exited.value.code == (
        f"`saga` needs {library}, which comes with an extra. Run: pip install 'sagas-framework[cli]'"
    )


def test_another_missing_module_is_not_blamed_on_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("sagas_framework.cli.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", importing_without("celery"))

    with pytest.raises(ModuleNotFoundError, match="celery"):
        cli.main()


def test_the_entry_point_runs_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["saga", "--help"])

    with pytest.raises(SystemExit) as exited:
        cli.main()

    assert exited.value.code == 0
    assert "Usage: saga" in capsys.readouterr().out
