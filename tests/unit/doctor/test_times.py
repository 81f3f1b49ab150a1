"""Leases, limits and retention: what must be longer than what."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework import Policy, Retention, Saga, Steps
from sagas_framework.doctor.findings import Rule, Severity
from sagas_framework.doctor.installation import Started
from sagas_framework.doctor.times import hard_limits, time_rules
from sagas_framework.storage.redis_inbox import RedisInbox
from tests.unit.core.stories import CreateTicket, OrderState
from tests.unit.doctor.installations import orchestrator, participant, restaurant, told

LOSES, WRONG, NOTE, UNKNOWN = Severity
MINUTES_15 = timedelta(minutes=15)
DAYS_7 = timedelta(days=7)


def found(installation: Any, *rules: Rule) -> list[tuple[Rule, Severity]]:
    return [(rule, severity) for rule, severity in told(time_rules(installation)) if rule in rules]


# ---- the lease (rule 8) -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "severities"),
    [(None, [LOSES]), (900, [LOSES]), (2000, [LOSES]), (700, [NOTE]), (600, []), (570, [])],
)
def test_an_outside_handler_must_be_killed_before_its_lease_ends(
    limit: int | None, severities: list[Severity]
) -> None:
    installation = participant(outside=True, lease=MINUTES_15, task_time_limit=limit)

    assert found(installation, Rule.LEASE) == [(Rule.LEASE, severity) for severity in severities]


def test_a_handler_inside_its_transaction_has_no_lease() -> None:
    assert found(participant(task_time_limit=None), Rule.LEASE) == []


def test_the_librarys_own_limit_for_a_short_lease_is_not_refused() -> None:
    installation = participant(outside=True, lease=timedelta(minutes=1))

    assert found(installation, Rule.LEASE) == [(Rule.LEASE, NOTE)]


def test_what_the_solo_pool_does_not_kill_cannot_be_judged() -> None:
    assert found(participant(outside=True, worker_pool="solo"), Rule.LEASE) == [(Rule.LEASE, UNKNOWN)]
    assert found(participant(worker_pool="solo"), Rule.LEASE) == []


def test_the_limit_is_that_of_the_task_then_of_the_command_line() -> None:
    started = Started(pool="prefork", node="r@box", processes=2, prefetch=1, time_limit=100.0)
    annotated = {"restaurant_service.create_ticket": {"time_limit": 50}}

    by_line = participant(outside=True, task_time_limit=None, started=started)
    by_task = participant(outside=True, task_time_limit=None, task_annotations=annotated)

    assert hard_limits(by_line)["restaurant_service.create_ticket"] == timedelta(seconds=100)
    assert found(by_line, Rule.LEASE) == []
    assert hard_limits(by_task)["restaurant_service.create_ticket"] == timedelta(seconds=50)
    assert found(by_task, Rule.LEASE) == []


# ---- the broker's patience --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "prefetch", "severity"),
    [(570, 1, UNKNOWN), (None, 1, UNKNOWN), (3600, 1, WRONG), (570, 4, NOTE)],
)
def test_a_limit_beyond_the_brokers_patience_is_found_and_no_other_called_in_order(
    limit: int | None, prefetch: int, severity: Severity
) -> None:
    installation = participant(prefetch=prefetch, task_time_limit=limit)

    (finding,) = [f for f in time_rules(installation) if f.rule is Rule.CONSUMER_TIMEOUT]

    assert finding.severity is severity
    assert "rabbitmqctl eval" in finding.told


def test_a_broker_without_that_patience_is_not_asked_for_it() -> None:
    assert found(participant("memory://", task_time_limit=3600), Rule.CONSUMER_TIMEOUT) == []


step = Steps(OrderState)


class SlowSaga(Saga[OrderState], name="slow", version=1):
    """A step that may take two hours."""

    cook = step.command(
        CreateTicket,
        lambda state: CreateTicket(order_id=1, quantity=1),
        pivot=True,
        timeout=timedelta(hours=2),
    )


def test_a_step_that_may_outlast_the_brokers_patience_is_told_to_the_orchestrator() -> None:
    assert found(orchestrator(sagas=[SlowSaga]), Rule.CONSUMER_TIMEOUT) == [(Rule.CONSUMER_TIMEOUT, UNKNOWN)]
    assert found(orchestrator(), Rule.CONSUMER_TIMEOUT) == []


# ---- retention (rule 10) ----------------------------------------------------------------------------


def test_a_participants_shorter_retention_is_a_note_because_its_orchestrators_may_know() -> None:
    assert found(participant(retention=DAYS_7), Rule.RETENTION) == [(Rule.RETENTION, NOTE)]
    assert found(participant(), Rule.RETENTION) == []


def test_a_shorter_retention_beside_the_sagas_that_believe_otherwise_loses() -> None:
    beside = restaurant(retention=DAYS_7)

    assert (Rule.RETENTION, LOSES) in found(orchestrator(beside=beside), Rule.RETENTION)
    known = orchestrator(beside=beside, policy=Policy(inbox_retention=DAYS_7))
    assert (Rule.RETENTION, LOSES) not in found(known, Rule.RETENTION)


def test_other_services_retention_is_not_called_in_order() -> None:
    findings = list(time_rules(orchestrator(beside=restaurant())))

    (unseen,) = [f for f in findings if f.severity is UNKNOWN]
    assert "accounting_service.commands" in unseen.what
    assert "restaurant_service.commands" not in unseen.what


def test_an_inbox_that_forgets_sooner_than_its_participant_says_is_found() -> None:
    inbox = RedisInbox("redis://127.0.0.1:1/0", retention=DAYS_7)

    assert found(participant(inbox=inbox), Rule.RETENTION) == [
        (Rule.RETENTION, WRONG),
        (Rule.RETENTION, NOTE),
    ]
    alike = RedisInbox("redis://127.0.0.1:1/0")
    assert found(participant(inbox=alike), Rule.RETENTION) == []


def test_a_policy_by_which_nothing_may_be_sent_loses() -> None:
    policy = Policy(inbox_retention=timedelta(days=1))

    assert (Rule.RETENTION, LOSES) in found(orchestrator(policy=policy), Rule.RETENTION)


def test_a_step_that_may_take_longer_than_it_is_sent_for_is_found() -> None:
    policy = Policy(inbox_retention=timedelta(days=1, hours=2))

    assert (Rule.RETENTION, WRONG) in found(orchestrator(sagas=[SlowSaga], policy=policy), Rule.RETENTION)
    longer = replace(policy, inbox_retention=timedelta(days=1, hours=3))
    assert (Rule.RETENTION, WRONG) not in found(orchestrator(sagas=[SlowSaga], policy=longer), Rule.RETENTION)


def test_sagas_that_go_while_their_messages_live_are_a_note() -> None:
    short = orchestrator(retention=Retention(timedelta(hours=1), archive=False))
    long = orchestrator(retention=Retention(timedelta(days=2), archive=False))

    (note,) = [f for f in time_rules(short) if f.severity is NOTE]
    assert "create_order" in note.what
    assert [f for f in time_rules(long) if f.severity is NOTE] == []
    assert [f for f in time_rules(orchestrator()) if f.severity is NOTE] == []
