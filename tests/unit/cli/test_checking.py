"""``saga check``: what it prints, and with what it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import Result

from tests.unit.cli.shop import PARTICIPANT, WORKER, say

KITCHEN = '''
"""The worker of order_service; `Tell` may be refused after the pivot, and `Print` keeps no inbox."""

from sagas_framework import NOTHING_TO_UNDO, Queue, Saga, Sagas, orchestrator_app
from tests.unit.check.orders import Deliver, State, charge, printed, step, ticket
from tests.unit.check.test_queues import Plain


class Good(Saga[State], name="good", version=1):
    ticket = ticket()
    charge = charge()


class Noted(Saga[State], name="noted", version=1):
    print = printed()
    charge = charge()


class Lame(Saga[State], name="lame", version=1):
    ticket = step.command(Deliver, lambda s: Deliver(order_id=s.ticket_id), compensation=NOTHING_TO_UNDO)
    charge = charge()


class Bad(Saga[State], name="bad", version=3):
    ticket = ticket()
    charge = charge()
    deliver = step.command(Deliver, lambda s: Deliver(order_id=s.order_id))


sagas = Sagas(
    "order_service", "postgresql://nobody@127.0.0.1:1/none", sagas=[SAGAS], reply_queue=Queue("replies")
)
app = orchestrator_app(sagas, broker="amqp://guest:guest@127.0.0.1:1//")
'''


def check(folder: Path, sagas: str, *arguments: str, after: str = "") -> Result:
    """Call it on a worker with these sagas, none of whose servers is there."""
    (folder / "worker.py").write_text(KITCHEN.replace("SAGAS", sagas) + after)
    return say("-A", "worker", "check", *arguments)


def test_a_saga_that_is_right_exits_with_0(folder: Path) -> None:
    result = check(folder, "Good")

    assert result.output.splitlines() == [
        "good version 1: 5 outcomes, nothing wrong",
        "",
        "Nothing is wrong.",
    ]
    assert result.exit_code == 0


def test_findings_are_grouped_by_saga_and_an_error_exits_with_1(folder: Path) -> None:
    result = check(folder, "Good, Noted, Bad")

    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert lines[0] == "good version 1: 5 outcomes, nothing wrong"
    assert lines[2] == "noted version 1: 5 outcomes, 2 notes"
    assert lines[3] == "  note at-most-once at print"
    assert lines[lines.index("  error refusal-after-pivot at deliver") + 2].startswith(
        "    Do deliver before"
    )
    assert lines[-1] == "1 error, 2 notes"


def test_notes_alone_exit_with_0(folder: Path) -> None:
    assert check(folder, "Noted", "--strict").exit_code == 0


def test_warnings_exit_with_1_only_when_strict(folder: Path) -> None:
    routes = '\napp.conf.task_routes = {"shop.*": "stock"}\n'

    loose = check(folder, "Plain", after=routes)
    strict = check(folder, "Plain", "--strict", after=routes)

    assert "warning task-routed-elsewhere at reserve" in loose.output
    assert (loose.exit_code, strict.exit_code) == (0, 1)


@pytest.mark.parametrize("what", ["--diagram", "--outcomes"])
def test_what_is_missing_from_a_diagram_or_a_table_is_told_beside_it(folder: Path, what: str) -> None:
    result = check(folder, "Good, Lame", what)

    assert result.stderr.startswith("warning hook-raises at lame.ticket: What makes its command raised")
    assert "warning" not in result.stdout
    assert say("-A", "worker", "check", "good", what).stderr == ""


def test_only_the_named_sagas_are_walked(folder: Path) -> None:
    result = check(folder, "Good, Bad", "good")

    assert result.exit_code == 0
    assert "bad" not in result.output


def test_a_name_that_no_saga_has(folder: Path) -> None:
    result = check(folder, "Good, Bad", "ugly")

    assert result.exit_code == 1
    assert "No saga named 'ugly'; known: bad, good." in result.output


def test_as_json(folder: Path) -> None:
    result = check(folder, "Good, Bad", "--json")

    told = json.loads(result.stdout)
    assert result.exit_code == 1
    assert [(saga["saga"], saga["version"], saga["outcomes"]) for saga in told["sagas"]] == [
        ("good", 1, 5),
        ("bad", 3, 6),
    ]
    (finding,) = told["sagas"][1]["findings"]
    assert (finding["code"], finding["severity"], finding["step"]) == (
        "refusal-after-pivot",
        "error",
        "deliver",
    )
    assert (told["program"], told["errors"], told["warnings"], told["notes"]) == ([], 1, 0, 0)


def test_what_the_program_declares_beside_its_sagas(folder: Path) -> None:
    queues = "\nfrom kombu import Queue as K\napp.conf.task_queues = [K('replies', queue_arguments={})]\n"

    result = check(folder, "Good", after=queues)

    assert result.exit_code == 1
    assert "The program: 2 errors" in result.output
    assert "error queue-declared-otherwise" in result.output
    assert "error queue-taken-by-celery" in result.output


def test_the_programs_policy_is_the_one_that_counts(folder: Path) -> None:
    policy = "\nfrom datetime import timedelta\nfrom sagas_framework import Policy\n"
    policy += "sagas.policy = Policy(inbox_retention=timedelta(days=1, minutes=15))\n"

    result = check(folder, "Good", after=policy)

    assert "error timeout-too-long at ticket" in result.output


def test_a_participant_has_nothing_to_check(folder: Path) -> None:
    (folder / "kitchen.py").write_text(PARTICIPANT)

    result, as_json = say("-A", "kitchen", "check"), say("-A", "kitchen", "check", "--json")

    assert result.output == "kitchen is the participant restaurant_service: it has no sagas to check.\n"
    assert result.exit_code == as_json.exit_code == 0
    assert json.loads(as_json.stdout)["sagas"] == []


# ---- diagram and outcomes -------------------------------------------------------------------------


def test_the_diagram_alone_can_be_pasted(folder: Path) -> None:
    result = check(folder, "Bad, Good", "good", "--diagram")

    assert result.output.startswith('flowchart TD\n    started(["good"])\n')
    assert result.exit_code == 0


def test_several_diagrams_are_told_apart(folder: Path) -> None:
    result = check(folder, "Good, Bad", "--diagram")

    assert [line for line in result.output.splitlines() if line.startswith("%%")] == [
        "%% good version 1",
        "%% bad version 3",
    ]
    assert result.exit_code == 0  # it is shown, not judged


def test_the_table_of_outcomes(folder: Path) -> None:
    result = check(folder, "Good, Bad", "bad", "--outcomes")

    assert result.output.startswith("| what happens |")
    assert (
        "| `deliver` is refused (Closed) | `ticket`, `charge`, `deliver` | nothing | **parked**:"
        in result.output
    )


@pytest.mark.parametrize("width", ["40", ""])
def test_what_is_to_be_pasted_is_never_wrapped(folder: Path, width: str) -> None:
    (folder / "worker.py").write_text(KITCHEN.replace("SAGAS", "Good"))

    result = say("-A", "worker", "check", "--outcomes", env={"COLUMNS": width})

    rows = [line for line in result.output.splitlines() if line.startswith("|")]
    assert all(row.endswith("|") for row in rows)


def test_both_as_json(folder: Path) -> None:
    told = json.loads(check(folder, "Good", "--diagram", "--outcomes", "--json").stdout)

    (saga,) = told["sagas"]
    assert saga["diagram"].startswith("flowchart TD")
    assert saga["outcomes"][0] == {
        "happens": ["every step succeeds"],
        "does": ["ticket", "charge"],
        "undoes": [],
        "status": "completed",
        "why": None,
    }


def test_the_shop_of_the_other_tests_is_clean(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER)

    assert say("-A", "worker", "check", "--strict").exit_code == 0
