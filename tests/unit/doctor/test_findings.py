"""Reports: what makes one sound, and what somebody accepts."""

from __future__ import annotations

import pytest

from sagas_framework import ConfigurationError
from sagas_framework.doctor import databases, examining
from sagas_framework.doctor.examining import examine, refuse_unsound
from sagas_framework.doctor.findings import (
    ACCEPT_VARIABLE,
    Area,
    Examination,
    Finding,
    Report,
    Rule,
    Severity,
)
from tests.unit.doctor.installations import orchestrator, participant

LOSES, WRONG, NOTE, UNKNOWN = Severity


def finding(severity: Severity, rule: Rule = Rule.DURABILITY) -> Finding:
    return Finding(rule, severity, "PostgreSQL has fsync=off here.", "A crash takes commits.", "fsync", "on")


def report(*findings: Finding) -> Report:
    return Report("order_service", "orchestrator", [Examination(Area.DATABASE, "orders", [], list(findings))])


@pytest.mark.parametrize(
    ("severity", "sound", "strictly"),
    [(LOSES, False, False), (WRONG, False, False), (NOTE, True, False), (UNKNOWN, True, True)],
)
def test_what_loses_or_is_wrong_is_not_sound_and_strictly_no_note_is(
    severity: Severity, sound: bool, strictly: bool
) -> None:
    assert report(finding(severity)).sound() is sound
    assert report(finding(severity)).sound(strict=True) is strictly


def test_what_somebody_accepts_becomes_a_note_that_says_so() -> None:
    both = report(finding(LOSES), finding(WRONG, Rule.CLOCK), finding(UNKNOWN))

    both.accept({"durability"})

    assert [f.severity for f in both] == [NOTE, WRONG, UNKNOWN]
    assert next(iter(both)).what.endswith(f"({ACCEPT_VARIABLE} accepts it.)")


@pytest.mark.parametrize("severity", list(Severity))
def test_only_a_look_without_bad_findings_is_in_order(severity: Severity) -> None:
    examination = Examination(Area.DATABASE, "orders")

    examination.look([finding(severity)], "it keeps what it has committed")

    assert bool(examination.in_order) is (severity is NOTE)


# ---- at a start -------------------------------------------------------------------------------------


def test_a_worker_that_would_lose_an_order_does_not_start_and_says_all_of_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    installation = participant(
        "memory://", accept_content=["yaml"], worker_pool="threads", task_acks_late=False
    )

    with pytest.raises(ConfigurationError) as refused:
        refuse_unsound(installation)

    told = str(refused.value)
    assert told.startswith("restaurant_service does not start, because an order could be lost. ")
    assert "accept_content is ['yaml'], without json." in told
    assert "worker_pool is threads." in told
    assert "task_acks_late" not in told
    assert any("task_acks_late is off." in message for message in caplog.messages)


def test_what_is_accepted_does_not_keep_a_worker_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examining, "examine_database", lambda _installation: None)
    monkeypatch.setenv(ACCEPT_VARIABLE, "serializer, database")

    refuse_unsound(participant("memory://", accept_content=["yaml"]))


def test_what_no_worker_starts_without_cannot_be_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCEPT_VARIABLE, "pool,schema")

    found = examine(participant("memory://", worker_pool="threads"))

    assert {f.rule for f in found.of(LOSES)} == {Rule.POOL, Rule.SCHEMA}
    assert [f.what for f in found.of(WRONG)] == [f"{ACCEPT_VARIABLE} names 'pool', 'schema'."]


def test_a_name_that_is_no_rules_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ACCEPT_VARIABLE, "fsyncc")

    (told,) = [f for f in examine(orchestrator("memory://")) if f.rule is Rule.ACCEPTED]

    assert "'fsyncc'" in told.what
    assert "durability" in told.write


def test_an_examination_that_fails_itself_is_not_called_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(_installation: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(examining, "examine_database", stumble)
    found = examine(orchestrator("memory://"))

    (unknown,) = [f for f in found if f.rule is Rule.EXAMINATION]
    assert unknown.severity is UNKNOWN
    assert databases.examine_database is not stumble
