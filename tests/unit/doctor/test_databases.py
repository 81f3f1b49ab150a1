"""What a PostgreSQL says of itself, and what the clocks say."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sagas_framework.doctor.databases import (
    PostgresFacts,
    clock_rules,
    connection_rules,
    connections_needed,
    durability_rules,
    examine_database,
    transaction_rules,
    worker_rules,
)
from sagas_framework.doctor.findings import Rule, Severity
from sagas_framework.doctor.installation import Started
from sagas_framework.storage.ports import Beat
from tests.unit.doctor.installations import orchestrator, participant, told

LOSES, WRONG, NOTE, UNKNOWN = Severity
SOUND = PostgresFacts()


def test_a_server_as_it_is_installed_is_in_order() -> None:
    assert [*durability_rules(SOUND), *transaction_rules(SOUND), *clock_rules(SOUND.ahead)] == []


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_a_server_that_confirms_before_it_has_written_loses(setting: str) -> None:
    findings = list(durability_rules(replace(SOUND, **{setting: "off"})))  # type: ignore[arg-type]

    assert told(findings) == [(Rule.DURABILITY, LOSES)]
    assert f"{setting}=off" in findings[0].what


def test_a_commit_that_waits_for_its_own_disk_only_is_in_order() -> None:
    assert list(durability_rules(replace(SOUND, synchronous_commit="local"))) == []


@pytest.mark.parametrize(
    ("facts", "rule"),
    [
        (replace(SOUND, read_only="on"), Rule.READ_ONLY),
        (replace(SOUND, standby=True), Rule.READ_ONLY),
        (replace(SOUND, isolation="serializable"), Rule.ISOLATION),
        (replace(SOUND, isolation="repeatable read"), Rule.ISOLATION),
    ],
)
def test_a_server_that_hinders_is_wrong(facts: PostgresFacts, rule: Rule) -> None:
    assert told(transaction_rules(facts)) == [(rule, WRONG)]


def test_the_connections_of_one_worker_are_counted_where_that_can_be_known() -> None:
    started = Started(pool="prefork", node="r@box", processes=8, prefetch=1, time_limit=None)

    assert connections_needed(participant()) is None
    assert connections_needed(participant(worker_concurrency="auto")) is None
    assert connections_needed(participant(worker_concurrency=3)) is not None
    needed, told_whose = connections_needed(participant(started=started)) or (0, "")
    assert needed == 9
    assert told(connection_rules(replace(SOUND, connections=8), needed, told_whose)) == [
        (Rule.CONNECTIONS, WRONG)
    ]
    assert list(connection_rules(replace(SOUND, connections=9), needed, told_whose)) == []


@pytest.mark.parametrize(
    ("minutes", "severities", "way"),
    [(0.1, [], ""), (2, [NOTE], "ahead of"), (-2, [NOTE], "behind"), (7, [WRONG], "ahead of")],
)
def test_a_database_whose_clock_differs_is_told_with_by_how_much(
    minutes: float, severities: list[Severity], way: str
) -> None:
    findings = list(clock_rules(timedelta(minutes=minutes)))

    assert [f.severity for f in findings] == severities
    assert all(way in f.what for f in findings)


# ---- beats ------------------------------------------------------------------------------------------


def beat(worker: str, role: str, ahead: timedelta, installation: object) -> Beat:
    now = installation.clock() + ahead  # type: ignore[attr-defined]
    return Beat(worker, role, now - timedelta(hours=1), now)


@pytest.mark.parametrize(("minutes", "severities"), [(-1, []), (0, []), (2, [NOTE]), (7, [WRONG])])
def test_a_worker_that_writes_from_the_future_tells_of_a_clock(
    minutes: int, severities: list[Severity]
) -> None:
    installation = orchestrator()
    beats = [beat("order_service@box-1", "consumer", timedelta(minutes=minutes), installation)]

    assert [f.severity for f in worker_rules(installation, beats)] == severities


@pytest.mark.parametrize(
    ("worker", "role", "minutes", "finds"),
    [
        ("order_service@box-1", "consumer", 0, False),
        ("billing_service@box-1", "consumer", 0, True),
        ("billing_service@box-1", "consumer", -10, False),
        ("restaurant_service@box-1", "participant", 0, False),
    ],
)
def test_another_orchestrators_worker_in_the_same_database_is_found_while_it_turns(
    worker: str, role: str, minutes: int, finds: bool
) -> None:
    installation = orchestrator()
    beats = [beat(worker, role, timedelta(minutes=minutes), installation)]

    assert told(worker_rules(installation, beats)) == ([(Rule.SHARED, WRONG)] if finds else [])


# ---- SQLite -----------------------------------------------------------------------------------------


def test_a_sqlite_file_at_this_schema_is_in_order(tmp_path: Path) -> None:
    installation = orchestrator(database=f"sqlite:///{tmp_path}/orders.sqlite3")
    assert installation.sagas is not None
    installation.sagas.upgrade()

    examination = examine_database(installation)

    assert examination is not None
    assert examination.findings == []
    assert "its journal is a WAL" in examination.in_order


def test_an_old_schema_loses_with_the_command_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "orders.sqlite3").touch()

    examination = examine_database(orchestrator(database=f"sqlite:///{tmp_path}/orders.sqlite3"))

    assert examination is not None
    (finding,) = examination.findings
    assert (finding.rule, finding.severity) == (Rule.SCHEMA, LOSES)
    assert finding.write == "saga -A order_service.worker db upgrade"


def test_a_schema_of_a_newer_release_loses_and_asks_for_that_release(tmp_path: Path) -> None:
    installation = orchestrator(database=f"sqlite:///{tmp_path}/orders.sqlite3")
    assert installation.sagas is not None
    installation.sagas.upgrade()
    with installation.sagas.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE saga_alembic_version SET version_num = '9001'")

    examination = examine_database(installation)

    assert examination is not None
    (finding,) = examination.findings
    assert (finding.rule, finding.severity) == (Rule.SCHEMA, LOSES)
    assert finding.write == "A newer release has upgraded it: deploy that one here, too."


def test_a_database_that_is_away_is_wrong_and_its_password_is_not_told() -> None:
    examination = examine_database(orchestrator(database="postgresql://ann:secret@127.0.0.1:1/orders"))

    assert examination is not None
    assert told(examination.findings) == [(Rule.DATABASE, WRONG)]
    assert "secret" not in examination.subject + examination.findings[0].told
    assert examination.in_order == []
