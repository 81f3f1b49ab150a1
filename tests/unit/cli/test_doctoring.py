"""``saga doctor``: what it prints, and what its exit code says."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sagas_framework.cli.doctoring import installations
from sagas_framework.cli.finding import find
from sagas_framework.doctor.findings import Severity
from tests.unit.cli.shop import PARTICIPANT, WORKER, say

IN_MEMORY = "memory://"
AWAY = "amqp://guest:guest@127.0.0.1:1//"


def worker(folder: Path, more: str = "", broker: str = IN_MEMORY) -> None:
    """order_service in that folder, upgraded; its clock is this machine's."""
    text = WORKER.replace(AWAY, broker).replace("    clock=lambda: time[0],\n", "")
    (folder / "worker.py").write_text(text + more)
    found = find("worker")
    assert found.sagas is not None
    found.sagas.upgrade()
    found.sagas.engine.dispose()


def kitchen(folder: Path, more: str = "") -> None:
    text = PARTICIPANT.replace(AWAY, IN_MEMORY).replace(", clock=lambda: time[0]", "")
    (folder / "kitchen.py").write_text(text + more)
    found = find("kitchen")
    assert found.participant is not None
    found.participant.upgrade()


def told(*arguments: str, exit_code: int, env: Mapping[str, str] | None = None) -> Any:
    import json

    result = say(*arguments, "--json", env=env)
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_a_sound_service_is_told_part_by_part(folder: Path) -> None:
    worker(folder)

    result = say("-A", "worker", "doctor")

    assert result.exit_code == 0
    assert result.stdout.startswith("order_service is sound (1 not examined)\n\nBroker: memory://\n")
    for heading in (
        "Database: sqlite:///orders.sqlite3",
        "Results: no result backend",
        "Settings: the Celery app",
    ):
        assert f"\n{heading}" in result.stdout
    assert "  in order: it answers, at this release's schema\n" in result.stdout


def test_a_finding_says_what_is_so_what_it_loses_and_what_to_write(folder: Path) -> None:
    kitchen(folder, "app.conf.task_acks_late = False\n")

    result = say("-A", "kitchen", "doctor")

    assert result.exit_code == 1
    assert "restaurant_service is not sound (1 wrong" in result.stdout
    assert (
        "  wrong: task_acks_late is off. A worker that dies takes the command with it, which waits until the "
        "saga sends it again. [acks]\n      task_acks_late: True\n"
    ) in result.stdout


def test_the_gravest_of_a_part_comes_first(folder: Path) -> None:
    kitchen(folder, "app.conf.update(task_acks_late=False, worker_pool='threads', accept_content=['yaml'])\n")

    shown = say("-A", "kitchen", "doctor").stdout

    assert "(2 that lose orders, 1 wrong" in shown
    assert shown.index("accept_content") < shown.index("task_acks_late")


@pytest.mark.parametrize(("options", "exit_code"), [((), 0), (("--strict",), 1)])
def test_a_note_fails_strictly_only(folder: Path, options: tuple[str, ...], exit_code: int) -> None:
    kitchen(folder, "app.conf.worker_prefetch_multiplier = 3\n")

    assert say("-A", "kitchen", "doctor", *options).exit_code == exit_code


def test_what_cannot_be_seen_fails_nothing_even_strictly(folder: Path) -> None:
    worker(folder)

    found = told("-A", "worker", "doctor", "--strict", exit_code=0)

    assert found["sound"] is True
    assert found["services"][0]["counts"]["not examined"] == 1


def test_as_json_it_has_one_shape(folder: Path) -> None:
    worker(folder, "app.conf.task_always_eager = True\n")

    found = told("-A", "worker", "doctor", exit_code=1)

    assert set(found) == {"sound", "services"}
    (service,) = found["services"]
    assert set(service) == {"service", "kind", "sound", "counts", "examined"}
    assert set(service["counts"]) == {severity.value for severity in Severity}
    assert [part["area"] for part in service["examined"]] == ["broker", "database", "results", "settings"]
    (finding,) = [f for part in service["examined"] for f in part["findings"] if f["severity"] == "wrong"]
    assert set(finding) == {"rule", "severity", "what", "why", "setting", "write"}
    assert finding["setting"] == "task_always_eager"


def test_servers_that_are_away_are_wrong_and_no_password_is_told(folder: Path) -> None:
    text = WORKER.replace("guest:guest@", "guest:secret@").replace(
        "sqlite:///orders.sqlite3", "postgresql://me:hidden@127.0.0.1:1/orders"
    )
    (folder / "worker.py").write_text(text)

    result = say("-A", "worker", "doctor")

    assert result.exit_code == 1
    assert "could not be asked" in result.stdout
    assert "postgresql://me:***@127.0.0.1:1/orders cannot be reached" in result.stdout
    assert "secret" not in result.output
    assert "hidden" not in result.output


def test_an_old_schema_loses_with_the_command_for_this_very_module(folder: Path) -> None:
    kitchen(folder)
    (folder / "restaurant.sqlite3").unlink()

    shown = say("-A", "kitchen", "doctor").stdout

    assert "the schema: saga -A kitchen db upgrade\n" in shown


def test_both_sides_of_one_module_are_examined_each_with_its_own_app(folder: Path) -> None:
    other = PARTICIPANT.replace("app = participant_app", "kitchen = participant_app")
    (folder / "both.py").write_text(WORKER + other)

    orders, restaurant = installations(find("both"))

    assert orders.app is not None
    assert restaurant.app is not None
    assert (orders.app.main, restaurant.app.main) == ("order_service", "restaurant_service")
    assert orders.beside is restaurant.participant


def test_an_attribute_that_is_no_app_still_finds_the_app_of_the_module(folder: Path) -> None:
    worker(folder)

    (orders,) = installations(find("worker:sagas"))

    assert orders.app is not None


def test_sagas_without_an_app_are_not_called_in_order(folder: Path) -> None:
    worker(folder, "del app\n")

    found = told("-A", "worker", "doctor", exit_code=0)

    (service,) = found["services"]
    assert [part["area"] for part in service["examined"]] == ["database", "settings"]
    assert service["examined"][-1]["findings"][0]["rule"] == "no-app"
    assert service["examined"][-1]["in_order"] == []


def test_settings_that_celery_cannot_read_are_told_in_a_line(folder: Path) -> None:
    worker(folder, "app.conf.task_queues = 7\n")

    result = say("-A", "worker", "doctor")

    assert result.exit_code == 1
    assert "Error: The settings of order_service's Celery app cannot be read: TypeError" in result.output
