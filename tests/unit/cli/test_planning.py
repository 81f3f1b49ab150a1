"""``saga plan`` and ``saga migrate``: what a new release makes of the open sagas, and moving them."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sagas_framework.core.instance import Phase
from sagas_framework.worker.orchestrating import check_declarations
from tests.unit.cli.shop import Shop, say

# The shop's saga with one step renamed and one that is new, and a migration to it.
NEXT = '''
"""The worker of order_service in its next release."""

from sagas_framework import NOTHING_TO_UNDO, Migration, Queue, Saga, Sagas, orchestrator_app
from tests.unit.core import stories
from tests.unit.core.stories import NOON, DeliverOrderSaga, step

time = [NOON]


class DeliverOrderSaga2(Saga[stories.OrderState], name="deliver_order", version=2, migrations=[{migration}]):
    reject_order = step.local(compensation=stories.mark_order_rejected)
    verify_consumer_details = step.command(
        stories.VerifyConsumer, stories.verify, compensation=NOTHING_TO_UNDO
    )
    create_restaurant_ticket = step.command(
        stories.CreateTicket,
        stories.open_ticket,
        on_success=stories.remember_ticket,
        compensation=stories.reject_ticket,
    )
    send_note = step.command(stories.SendReceipt, stories.send_receipt, compensation=NOTHING_TO_UNDO)
    take_money = step.command(
        stories.AuthorizeCard,
        stories.authorize,
        on_success=stories.remember_authorization,
        compensation=stories.reverse_authorization,
    )
    approve_restaurant_ticket = step.command(stories.ApproveTicket, stories.approve_ticket, pivot=True)
    start_delivery = step.command(
        stories.StartDelivery, stories.start_delivery, on_success=stories.remember_courier
    )
    send_receipt = step.command(stories.SendReceipt, stories.send_receipt)
    approve_order = step.local(stories.mark_order_approved)


sagas = Sagas(
    "order_service",
    "sqlite:///orders.sqlite3",
    sagas=[{declared}],
    reply_queue=Queue("order_service.replies"),
    clock=lambda: time[0],
)
app = orchestrator_app(sagas, broker="amqp://guest:guest@127.0.0.1:1//")
'''
PAST = (
    "send_note comes before take_money, which is sent: the instance is past its place. If it may be done "
    "without, say done_without=['send_note'] in Migration(from_version=1, to_version=2)"
)
FORGOTTEN = (
    "version 1 is not declared here: keep its class beside version 2, or declare Migration(from_version=1) "
    "there"
)
MIGRATION = 'Migration(from_version=1, renamed={"authorize_card": "take_money"}, added=["send_note"])'


def deploy(
    shop: Shop, folder: Path, *, migration: str = MIGRATION, declared: str = "DeliverOrderSaga2"
) -> None:
    """The next release is in the folder; the workers of this one have noted what they declare."""
    check_declarations(shop.sagas)
    shop.sagas.engine.dispose()
    (folder / "worker.py").write_text(NEXT.replace("{migration}", migration).replace("{declared}", declared))
    del sys.modules["worker"]
    importlib.invalidate_caches()


def told(*arguments: str, exit_code: int = 0) -> Any:
    result = say("-A", "worker", *arguments, "--json")
    assert result.exit_code == exit_code, result.output
    return json.loads(result.stdout)


def test_without_an_open_saga_there_is_nothing_to_carry_on(shop: Shop) -> None:
    shop.completed()

    result = shop.say("plan")

    assert (result.exit_code, result.stdout) == (0, "No saga is open: nothing has to be carried on.\n")
    assert shop.json("plan") == {"whole": True, "sagas": []}


def test_the_release_that_began_them_carries_all_on(shop: Shop) -> None:
    shop.until("create_restaurant_ticket", "order-1")
    shop.until("create_restaurant_ticket", "order-2")
    shop.parked_undo("order-3")
    shop.start("order-4", taken=False)

    result = shop.say("plan")

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "deliver_order version 1: 4 in flight.",
        "    2  create_restaurant_ticket  sent",
        "    1  not begun",
        "    1  create_restaurant_ticket  undo pausing, parked",
        "4 go on as they are.",
    ]


def test_what_a_new_release_can_carry_on_and_what_the_rest_lacks(shop: Shop, folder: Path) -> None:
    shop.until("create_restaurant_ticket", "order-1")
    shop.until("authorize_card", "order-2")
    shop.sleeps(1)
    shop.until("authorize_card", "order-3")
    deploy(shop, folder)

    result = say("-A", "worker", "plan")

    assert result.exit_code == 1
    assert result.stdout.splitlines() == [
        "deliver_order version 1: 3 in flight.",
        "    2  authorize_card            sent",
        "    1  create_restaurant_ticket  sent",
        "1 goes on in version 2, once moved there:",
        "saga -A worker migrate deliver_order --to 2 --from 1 --leave-rest --reason '...'",
        "2 cannot be carried on:",
        f"    2: {PAST} (order-2, order-3).",
    ]


def test_a_plan_as_json_has_one_shape(shop: Shop, folder: Path) -> None:
    shop.until("create_restaurant_ticket", "order-1")
    shop.until("authorize_card", "order-2")
    deploy(shop, folder)

    plan = told("plan", exit_code=1)

    (group,) = plan["sagas"]
    assert plan["whole"] is False
    assert {
        name: value for name, value in group.items() if name not in ("shape", "missing", "not_movable")
    } == {
        "saga": "deliver_order",
        "version": 1,
        "declared": False,
        "count": 2,
        "at": [
            {"step": "authorize_card", "phase": "running", "parked": False, "count": 1},
            {"step": "create_restaurant_ticket", "phase": "running", "parked": False, "count": 1},
        ],
        "as_they_are": 0,
        "to": 2,
        "movable": 1,
        "by_moving": 1,
        "stay": 1,
    }
    assert [(m["count"], m["examples"]) for m in group["missing"]] == [(1, ["order-2"])]
    assert group["missing"] == group["not_movable"]


def test_a_release_that_keeps_the_old_class_carries_all_on(shop: Shop, folder: Path) -> None:
    shop.until("create_restaurant_ticket", "order-1")
    shop.until("authorize_card", "order-2")
    deploy(shop, folder, declared="DeliverOrderSaga, DeliverOrderSaga2")

    result = say("-A", "worker", "plan")

    assert result.exit_code == 0
    assert result.stdout.endswith("2 go on as they are. 1 can be moved to version 2.\n")


@pytest.mark.parametrize(
    ("declared", "migration", "missing"),
    [
        ("DeliverOrderSaga2", "", f"{FORGOTTEN} (order-1)."),
        (
            "",
            MIGRATION,
            "no saga named 'deliver_order' is declared here: give its class to Sagas(...) (order-1).",
        ),
    ],
)
def test_a_release_that_forgets_the_open_sagas_is_told(
    shop: Shop, folder: Path, declared: str, migration: str, missing: str
) -> None:
    shop.until("authorize_card", "order-1")
    deploy(shop, folder, declared=declared, migration=migration)

    result = say("-A", "worker", "plan")

    assert result.exit_code == 1
    assert result.stdout.splitlines()[-2:] == ["1 cannot be carried on:", f"    1: {missing}"]


def test_an_older_release_is_told_that_a_newer_one_began_them(shop: Shop, folder: Path) -> None:
    shop.until("authorize_card", "order-1")
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET version = 7")

    result = shop.say("plan")

    assert result.exit_code == 1
    assert (
        "version 7 is not declared here, only up to 1: a newer release started it (order-1)." in result.stdout
    )


def test_only_one_saga_is_asked_for(shop: Shop) -> None:
    shop.until("authorize_card")

    assert shop.json("plan", "--saga", "create_order")["sagas"] == []
    assert len(shop.json("plan", "--saga", "deliver_order")["sagas"]) == 1


def test_a_saga_that_is_neither_declared_nor_open_is_no_plan_that_holds(shop: Shop) -> None:
    result = shop.say("plan", "--saga", "deliver_ordre")

    assert result.exit_code == 1
    assert "No saga named 'deliver_ordre'; known: create_order, deliver_order." in result.stderr


def test_reasons_without_end_are_told_in_part(shop: Shop, folder: Path) -> None:
    for number in range(23):
        shop.start(f"order-{number}", taken=False)
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET state = json_set(state, '$.address', key)")
    # A KeyError names what each of them has of its own.
    deploy(shop, folder, migration=MIGRATION[:-1] + ', state=lambda state: {}[state["address"]])')

    plan = say("-A", "worker", "plan").stdout.splitlines()
    refused = say("-A", "worker", "migrate", "deliver_order", "--to", "2", "--reason", "x", "--by", "ann")

    assert plan[-1] == "    and 3 more reasons; --json has them all."
    assert len([line for line in plan if "fails on its state" in line]) == 20
    assert refused.stderr.splitlines()[-2] == "  and 3 more reasons; --json has them all"
    assert len(told("plan", exit_code=1)["sagas"][0]["missing"]) == 23


# ---- moving ---------------------------------------------------------------------------------------


def test_sagas_are_moved_and_go_on_in_the_new_version(shop: Shop, folder: Path) -> None:
    ids = [shop.until("create_restaurant_ticket", f"order-{n}") for n in (1, 2)]
    deploy(shop, folder)

    result = say(
        "-A", "worker", "migrate", "deliver_order", "--to", "2", "--by", "ann", "--reason", "new note"
    )

    assert (result.exit_code, result.stdout) == (0, "done: 2 sagas of deliver_order moved to version 2.\n")
    assert [shop.sagas.get(saga_id).version for saga_id in ids] == [2, 2]
    shown = say("-A", "worker", "history", "order-1").stdout
    assert 'by ann: "new note"; from: 1; to: 2; renamed: {"authorize_card": "take_money"}' in shown


def test_nothing_is_moved_if_one_cannot_be_and_the_rest_can_be_left(shop: Shop, folder: Path) -> None:
    early = shop.until("create_restaurant_ticket", "order-1")
    late = shop.until("authorize_card", "order-2")
    deploy(shop, folder)
    call = ["-A", "worker", "migrate", "deliver_order", "--to", "2", "--reason", "x", "--by", "ann"]

    refused = say(*call)
    as_json = json.loads(say(*call, "--json").stdout)

    assert refused.exit_code == 1
    assert refused.stdout == ""
    assert "Error: Nothing was moved: 1 of 2 open sagas 'deliver_order' cannot be moved" in refused.stderr
    assert "move the others alone with --leave-rest." in refused.stderr
    assert (as_json["moved"], as_json["cannot"], as_json["missing"][0]["examples"]) == ([], 1, ["order-2"])
    assert shop.sagas.get(early).version == 1

    dry = say(*call, "--leave-rest", "--dry-run")
    assert dry.stdout.splitlines()[:2] == [
        "1 saga of deliver_order would be moved to version 2. Nothing was changed.",
        "1 saga keeps its version:",
    ]
    assert shop.sagas.get(early).version == 1

    moved = told(*call[2:], "--leave-rest")
    assert (moved["moved"], moved["left_count"], moved["dry_run"]) == ([early], 1, False)
    assert (shop.sagas.get(early).version, shop.sagas.get(late).version) == (2, 1)


def test_the_login_name_moves_unless_another_is_given(
    shop: Shop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saga_id = shop.start()
    deploy(shop, folder)
    monkeypatch.setattr("getpass.getuser", lambda: "maria")

    say("-A", "worker", "migrate", "deliver_order", "--to", "2", "--reason", "x")

    assert shop.sagas.history(saga_id)[-1].recorded.detail["by"] == "maria"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ["deliver_order", "--to", "3"],
            "No saga named 'deliver_order' version 3; known: deliver_order version 2",
        ),
        (["create_order", "--to", "2"], "No saga named 'create_order' version 2"),
        (["deliver_order", "--to", "1"], "1 is not in the range x>=2"),
        (["deliver_order", "--to", "2", "--from", "2"], "Version 2 of 'deliver_order' is not before 2"),
        (["deliver_order", "--to", "2", "--by", " "], "A migration needs a name and a reason"),
    ],
)
def test_a_wrong_call_is_told(shop: Shop, folder: Path, arguments: list[str], told: str) -> None:
    shop.start()
    deploy(shop, folder)

    result = say("-A", "worker", "migrate", *arguments, "--reason", "x")

    assert result.exit_code == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr


def test_a_moved_step_is_shown_under_its_new_name(shop: Shop, folder: Path) -> None:
    saga_id = shop.until("authorize_card")
    late = MIGRATION.replace("added=[", 'done_without=["send_note"], added=[')
    deploy(shop, folder, migration=late)

    say("-A", "worker", "migrate", "deliver_order", "--to", "2", "--reason", "x", "--by", "ann")

    shown = told("show", "order-1")
    assert [step["name"] for step in shown["steps"]][3:5] == ["send_note", "take_money"]
    assert shop.sagas.get(saga_id).steps["send_note"].phase is Phase.SKIPPED
    assert shown["declared"]
    assert "take_money was authorize_card" not in shown["why"]
    assert "authorize_card.running" in [line["entry"] for line in shown["history"]]
