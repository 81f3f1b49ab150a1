"""What can be said of a broker without one: its version, and its words for what differs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sagas_framework import Queue, QueueType, Saga, Steps
from sagas_framework.doctor.broker import examine_broker, read_difference, version_rules
from sagas_framework.doctor.findings import Rule, Severity
from sagas_framework.doctor.installation import Started
from tests.unit.core.stories import OrderState
from tests.unit.doctor.installations import BROKER, orchestrator, participant, told

LOSES, WRONG, NOTE, UNKNOWN = Severity
step = Steps(OrderState)


class PlainSaga(Saga[OrderState], name="plain_for_broker", version=1):
    """One plain Celery task, which is sent once."""

    reserve = step.task(
        "shop.tasks.reserve", lambda state: {}, queue=Queue("shop", QueueType.CLASSIC), pivot=True
    )


@pytest.mark.parametrize(
    ("version", "finds"),
    [((3, 13, 7), []), ((4, 1, 0), [(Rule.DELIVERY_LIMIT, NOTE)]), ((), [(Rule.BROKER, UNKNOWN)])],
)
def test_a_delivery_limit_matters_to_what_is_sent_only_once(
    version: tuple[int, ...], finds: list[tuple[Rule, Severity]]
) -> None:
    assert told(version_rules(orchestrator(sagas=[PlainSaga]), version)) == finds


def test_a_delivery_limit_does_not_matter_to_what_is_sent_again() -> None:
    assert list(version_rules(orchestrator(), (4, 1, 0))) == []
    assert list(version_rules(participant(), (4, 1, 0))) == []


@pytest.mark.parametrize(
    ("version", "settings", "finds"),
    [
        ((4, 3, 0), {"control_queue_exclusive": False}, True),
        ((4, 3, 0), {"event_queue_exclusive": False}, True),
        ((4, 3, 0), {"control_queue_exclusive": False, "control_queue_durable": True}, False),
        ((4, 3, 0), {}, False),
        ((4, 2, 0), {"control_queue_exclusive": False}, False),
    ],
)
def test_queues_that_are_neither_durable_nor_exclusive_are_found_where_they_are_refused(
    version: tuple[int, ...], settings: dict[str, Any], finds: bool
) -> None:
    found = told(version_rules(participant(**settings), version))

    assert found == ([(Rule.TRANSIENT_QUEUES, WRONG)] if finds else [])


UNLIKE = (
    "Queue.declare: (406) PRECONDITION_FAILED - inequivalent arg '%s' for queue 'q' in vhost '/': received "
)


@pytest.mark.parametrize(
    ("name", "said", "ours", "theirs"),
    [
        ("x-queue-type", "the value 'quorum' of type 'longstr' but current is none", "quorum", "none"),
        ("x-message-ttl", "none but current is the value '1000' of type 'signedint'", "none", "1000"),
        ("durable", "'true' but current is 'false'", "true", "false"),
    ],
)
def test_what_rabbitmq_says_of_a_difference_is_understood(
    name: str, said: str, ours: str, theirs: str
) -> None:
    read = read_difference(UNLIKE % name + said)

    assert read is not None
    assert (read.name, read.ours, read.theirs) == (name, ours, theirs)


def test_another_refusal_is_no_difference() -> None:
    assert read_difference("(406) PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q'") is None


@pytest.mark.parametrize("address", [BROKER, "amqp://guest:secret@host:port/"])
def test_a_broker_that_cannot_be_asked_is_wrong_and_its_password_is_not_told(address: str) -> None:
    examination = examine_broker(orchestrator(address))

    assert told(examination.findings) == [(Rule.BROKER, WRONG)]
    assert examination.in_order == []
    assert "secret" not in examination.subject + examination.findings[0].told
    assert examination.findings[0].what.endswith(".")


def test_a_broker_in_memory_does_not_go_with_a_pool_of_processes() -> None:
    started = Started(pool="prefork", node="cook@box", processes=2, prefetch=1, time_limit=None)

    assert told(examine_broker(participant("memory://", started=started)).findings) == [(Rule.BROKER, WRONG)]
    assert examine_broker(participant("memory://", started=replace(started, pool="solo"))).findings == []


def test_a_broker_in_memory_is_in_order() -> None:
    examination = examine_broker(orchestrator("memory://"))

    assert examination.findings == []
    assert examination.in_order == ["it is reached; it has no types of queues"]
