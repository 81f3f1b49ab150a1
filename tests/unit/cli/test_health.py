"""``saga health``: true about workers that turn, that stand still, and that were killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagas_framework.cli.finding import find
from sagas_framework.storage.ports import Beat
from tests.unit.cli.shop import NOON, PARTICIPANT, WORKER, Shop, say
from tests.unit.cli.test_quarantine import WITHOUT_DATABASE


def test_an_orchestrator_is_healthy_when_a_consumer_and_a_timekeeper_turn(shop: Shop) -> None:
    shop.beat("consumer", 1)
    shop.beat("timekeeper", 14)

    result = shop.say("health")

    assert result.exit_code == 0
    assert result.stdout == (
        "order_service is healthy\n"
        "\n"
        "Database    sqlite:///orders.sqlite3 (schema current)\n"
        "Sagas       0 open, 0 parked, 0 overdue\n"
        "Quarantine  0 messages\n"
        "\n"
        "Loop        Last turn  Worker\n"
        "consumer    1 s ago    order_service@box-17\n"
        "timekeeper  14 s ago   order_service@box-17\n"
    )


def test_commands_that_nobody_takes_are_told_as_long_as_somebody_looks(shop: Shop) -> None:
    shop.after(60)
    shop.jams("restaurant_service.commands", 312)
    shop.jams("consumer_service.commands", 0)

    told = shop.say("health", env={"COLUMNS": "120"}).stdout
    shop.after(600)
    later = shop.say("health").stdout

    assert (
        "  - no worker has taken from restaurant_service.commands since 12:00, and 312 messages wait there\n"
    ) in told
    assert "consumer_service.commands" not in told
    assert "no worker has taken from" not in later


def test_the_loops_need_not_be_of_one_worker(shop: Shop) -> None:
    shop.beat("consumer", 1, "order_service@box-17")
    shop.beat("timekeeper", 90, "order_service@box-17")
    shop.beat("timekeeper", 1, "order_service@box-18")

    assert shop.say("health").exit_code == 0


@pytest.mark.parametrize(
    ("standing", "because"),
    [
        (
            "consumer",
            ", while a timekeeper does: the orchestrator does not reach the broker, or its consumer hangs",
        ),
        ("timekeeper", ": is a worker running?"),
    ],
)
def test_one_loop_that_stands_still_is_not_healthy(shop: Shop, standing: str, because: str) -> None:
    for role in ("consumer", "timekeeper"):
        shop.beat(role, 16 if role == standing else 1)

    result = shop.say("health")

    assert result.exit_code == 1
    assert result.stdout.startswith(
        f"order_service is not healthy\n  - no {standing} turns, the last one was seen 16 s ago{because}\n"
    )


def test_a_worker_that_was_killed_shows_when_it_was_last_seen(shop: Shop) -> None:
    shop.beat("consumer", 200)
    shop.beat("timekeeper", 200)

    text, told = shop.say("health").stdout, shop.json("health", exit_code=1)

    assert "timekeeper  last seen 3 min ago  order_service@box-17\n" in text
    assert [loop["alive"] for loop in told["services"][0]["loops"]] == [False, False]


def test_a_worker_of_yesterday_is_not_shown(shop: Shop) -> None:
    shop.beat("consumer", 90_000)
    shop.beat("timekeeper", 90_000)

    result = shop.say("health")

    assert result.exit_code == 1
    assert "no consumer has turned within a day" in result.stdout
    assert "box-17" not in result.stdout


def test_what_waits_is_counted(shop: Shop) -> None:
    shop.parked_after_pivot("order-1")
    shop.until("authorize_card", "order-2")
    shop.completed("order-3")
    shop.start("order-4", taken=False)
    shop.set_aside()
    shop.sleeps(31)
    shop.beat("consumer", 1)
    shop.beat("timekeeper", 1)

    result, told = shop.say("health"), shop.json("health")

    assert result.exit_code == 0
    assert "Sagas       3 open, 1 parked, 1 overdue\n" in result.stdout
    assert "1 saga needs a person: saga -A worker list --status parked\n" in result.stdout
    assert "1 saga should have been looked at more than 30 s ago: the timekeeper lags" in result.stdout
    assert told["services"][0]["sagas"] == {"open": 3, "parked": 1, "overdue": 1}
    assert told["services"][0]["quarantine"] == 1


def test_sagas_that_this_module_does_not_declare_are_told_from_late_ones(shop: Shop) -> None:
    shop.until("authorize_card", "order-2")
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_instance SET version = 7")
    shop.sleeps(60)

    text = shop.say("health").stdout

    assert "deliver_order version 7 has 1 saga due, and worker does not declare it" in text
    assert "lags" not in text


def test_health_as_json_has_one_shape(shop: Shop) -> None:
    told = shop.json("health", exit_code=1)

    assert set(told) == {"healthy", "services"}
    (service,) = told["services"]
    assert set(service) == {
        *(
            "service",
            "kind",
            "healthy",
            "reasons",
            "warnings",
            "database",
            "sagas",
            "quarantine",
            "outbox",
            "loops",
        )
    }
    assert service["database"] == {
        "address": "sqlite:///orders.sqlite3",
        "reachable": True,
        "current": True,
    }


# ---- the database -----------------------------------------------------------------------------------


def test_a_database_that_is_away_is_the_reason(folder: Path) -> None:
    address = "postgresql://me:secret@127.0.0.1:1/orders"
    (folder / "worker.py").write_text(WORKER.replace("sqlite:///orders.sqlite3", address))

    result = say("-A", "worker", "health")

    assert result.exit_code == 1
    assert "me:***@127.0.0.1:1/orders cannot be reached" in result.stdout
    assert "secret" not in result.output


def test_an_old_schema_is_the_reason_with_the_command_that_helps(shop: Shop) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM saga_alembic_version")

    result = shop.say("health")

    assert result.exit_code == 1
    assert "Run: saga -A worker db upgrade\n" in result.stdout
    assert "(old schema)" in result.stdout


def test_a_sqlite_file_that_is_not_there_is_not_called_an_old_schema(folder: Path) -> None:
    (folder / "worker.py").write_text(WORKER)

    result = say("-A", "worker", "health")

    assert result.exit_code == 1
    assert "does not exist. Run: saga -A worker db upgrade\n" in result.stdout
    assert "(not reached)" in result.stdout


# ---- participants -----------------------------------------------------------------------------------


def test_a_participant_is_healthy_when_its_worker_turns(folder: Path) -> None:
    (folder / "kitchen.py").write_text(PARTICIPANT)
    participant = find("kitchen").participant
    assert participant is not None
    participant.upgrade()

    before = say("-A", "kitchen", "health")
    participant.inbox.beat(Beat("restaurant_service@box-4", "participant", NOON, NOON))
    after = say("-A", "kitchen", "health")

    assert before.exit_code == 1
    assert "no participant has turned within a day" in before.stdout
    assert after.exit_code == 0
    assert "restaurant_service is healthy\n" in after.stdout
    assert "Sagas" not in after.stdout


def test_an_inbox_that_is_no_sql_database_tells_nothing_and_is_not_called_healthy(folder: Path) -> None:
    (folder / "kitchen.py").write_text(WITHOUT_DATABASE)

    result = say("-A", "kitchen", "health")

    assert result.exit_code == 1
    assert "its inbox is a MemoryInbox, not in an SQL database" in result.stdout


def test_both_sides_of_one_module_are_told_one_after_the_other(shop: Shop, folder: Path) -> None:
    kitchen = PARTICIPANT.replace("app = participant_app", "kitchen = participant_app")
    (folder / "both.py").write_text(WORKER + kitchen)
    shop.beat("consumer", 1)
    shop.beat("timekeeper", 1)

    result = say("-A", "both", "health")

    assert result.exit_code == 1
    assert "order_service is healthy" in result.stdout
    assert "restaurant_service is not healthy" in result.stdout
