"""The rules on Celery's settings: each as a team breaks it, and as it is right."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from kombu import Exchange
from kombu import Queue as KombuQueue

from sagas_framework import Queue, QueueType, Saga, Steps
from sagas_framework.doctor.findings import Rule, Severity
from sagas_framework.doctor.installation import Installation, Started
from sagas_framework.doctor.settings import examine_settings
from tests.unit.core.stories import OrderState
from tests.unit.doctor.installations import BROKER, orchestrator, participant, told

LOSES, WRONG, NOTE, UNKNOWN = Severity
QUEUE = "restaurant_service.commands"


def found(installation: Installation) -> list[tuple[Rule, Severity]]:
    """What is not in order; notes and what cannot be seen included."""
    return told(examine_settings(installation).findings)


def bad(installation: Installation) -> list[tuple[Rule, Severity]]:
    return told(examine_settings(installation).findings, LOSES, WRONG)


@pytest.mark.parametrize("broker", [BROKER, "memory://"])
def test_the_librarys_own_settings_are_in_order(broker: str) -> None:
    assert bad(orchestrator(broker)) == []
    assert bad(participant(broker)) == []
    assert bad(participant(broker, outside=True)) == []


@pytest.mark.parametrize(
    ("setting", "value", "finding"),
    [
        ("broker_connection_retry_on_startup", False, (Rule.RECONNECT, WRONG)),
        ("broker_connection_retry", False, (Rule.RECONNECT, WRONG)),
        ("broker_connection_max_retries", 100, (Rule.RECONNECT, WRONG)),
        ("broker_channel_error_retry", True, (Rule.RECONNECT, WRONG)),
        ("broker_pool_acquire_timeout", None, (Rule.TIMEOUTS, WRONG)),
        ("broker_heartbeat", 0, (Rule.HEARTBEAT, WRONG)),
        ("broker_heartbeat", None, (Rule.HEARTBEAT, WRONG)),
        ("task_create_missing_queues", True, (Rule.MISSING_QUEUES, WRONG)),
        ("task_always_eager", True, (Rule.EAGER, WRONG)),
        ("worker_send_task_events", True, (Rule.EVENTS, WRONG)),
        ("task_send_sent_event", True, (Rule.EVENTS, NOTE)),
        ("worker_detect_quorum_queues", False, (Rule.GLOBAL_QOS, WRONG)),
        ("worker_enable_prefetch_count_reduction", True, (Rule.CONNECTION_LOST, WRONG)),
        ("worker_cancel_long_running_tasks_on_connection_loss", False, (Rule.CONNECTION_LOST, WRONG)),
        ("worker_prefetch_multiplier", 0, (Rule.PREFETCH, WRONG)),
        ("worker_prefetch_multiplier", 3, (Rule.PREFETCH, NOTE)),
        ("worker_consumer", "celery.worker.consumer:Consumer", (Rule.CONSUMER, WRONG)),
        ("worker_consumer", "sagas_framework.worker.settings:PlainConsumer", (Rule.CONSUMER, WRONG)),
        ("task_serializer", "pickle", (Rule.SERIALIZER, WRONG)),
        ("accept_content", ["json", "pickle"], (Rule.SERIALIZER, WRONG)),
        ("accept_content", ["yaml"], (Rule.SERIALIZER, LOSES)),
        ("task_acks_late", False, (Rule.ACKS, WRONG)),
        ("task_acks_on_failure", False, (Rule.ACKS, WRONG)),
        ("task_acks_on_timeout", False, (Rule.ACKS, WRONG)),
        ("task_reject_on_worker_lost", True, (Rule.WORKER_LOST, WRONG)),
        ("task_retry_on_worker_lost", True, (Rule.WORKER_LOST, WRONG)),
        ("worker_pool", "threads", (Rule.POOL, LOSES)),
        ("worker_pool", "celery.concurrency.thread:TaskPool", (Rule.POOL, LOSES)),
    ],
)
def test_a_setting_of_the_teams_own_is_found_by_name(
    setting: str, value: Any, finding: tuple[Rule, Severity]
) -> None:
    before = found(participant())
    installation = participant(**{setting: value})
    findings = [f for f in examine_settings(installation).findings if f.severity is not UNKNOWN]

    assert told(findings) == [finding]
    assert setting == findings[0].setting
    assert findings[0].what.endswith(".")
    assert findings[0].why.endswith(".")
    assert finding not in before


def test_a_setting_that_is_left_to_another_is_judged_by_that_one() -> None:
    left: dict[str, Any] = {"broker_connection_retry_on_startup": None}

    assert bad(participant(**left)) == []
    assert bad(participant(**left, broker_connection_retry=False)) == [(Rule.RECONNECT, WRONG)]


def test_settings_that_only_matter_with_rabbitmq_are_let_be_on_another_broker() -> None:
    installation = participant(
        "memory://", broker_heartbeat=0, broker_channel_error_retry=True, broker_transport_options={}
    )

    assert bad(installation) == []


@pytest.mark.parametrize("missing", ["confirm_publish", "read_timeout", "write_timeout"])
def test_each_transport_option_is_missed(missing: str) -> None:
    options = {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10}
    del options[missing]

    (finding,) = [
        f
        for f in examine_settings(orchestrator(broker_transport_options=options)).findings
        if f.severity is WRONG
    ]

    assert finding.setting == "broker_transport_options"
    assert missing in finding.write


@pytest.mark.parametrize(("beat", "severity"), [(0, WRONG), (20, NOTE)])
def test_a_heartbeat_in_the_address_wins_over_the_setting(beat: int, severity: Severity) -> None:
    installation = orchestrator(f"{BROKER}?heartbeat={beat}")

    assert (Rule.HEARTBEAT, severity) in found(installation)


def test_a_participant_that_takes_batches_needs_the_solo_pool_and_no_queue_of_celerys() -> None:
    assert bad(participant(batch=200)) == []
    assert bad(participant(batch=200, worker_pool="prefork")) == [(Rule.POOL, LOSES)]
    assert bad(participant(batch=200, worker_prefetch_multiplier=0)) == []


def test_the_orchestrator_needs_the_solo_pool_and_a_worker_is_judged_by_its_command_line() -> None:
    started = Started(pool="prefork", node="order@box", processes=2, prefetch=1, time_limit=None)

    assert bad(orchestrator(worker_pool="prefork")) == [(Rule.POOL, LOSES)]
    assert bad(orchestrator(started=started)) == [(Rule.POOL, LOSES)]
    assert bad(orchestrator(started=replace(started, pool="solo"), worker_pool="prefork")) == []


def test_an_annotation_on_one_task_is_seen() -> None:
    installation = participant(task_annotations={"restaurant_service.create_ticket": {"acks_late": False}})

    (finding,) = [f for f in examine_settings(installation).findings if f.severity is WRONG]

    assert finding.what == "task_acks_late is off for restaurant_service.create_ticket."


# ---- two brokers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("consumed", "severities"),
    [
        ("amqp://guest:other@127.0.0.1:1/shop", [LOSES]),
        ("amqp://guest:secret@elsewhere:1//", [WRONG]),
        ("amqp://guest:other@127.0.0.1:1//?heartbeat=5", []),
        ("pyamqp://guest:secret@127.0.0.1:1/", []),
        ("amqps://guest:secret@127.0.0.1:1/", []),
        ("amqps://guest:secret@127.0.0.1/", [WRONG]),
    ],
)
def test_commands_and_replies_on_two_brokers_are_found_and_no_password_is_told(
    consumed: str, severities: list[Severity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", consumed)
    findings = examine_settings(participant()).findings

    assert [f.severity for f in findings if f.rule is Rule.TWO_BROKERS] == severities
    assert not any(secret in f.told for f in findings for secret in ("secret", "other"))


# ---- queues -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "queue",
    [
        KombuQueue(QUEUE),
        KombuQueue(QUEUE, queue_arguments={"x-queue-type": "quorum", "x-delivery-limit": 5}),
        KombuQueue(QUEUE, max_priority=9, queue_arguments={"x-queue-type": "quorum"}),
        KombuQueue(QUEUE, durable=False, queue_arguments={"x-queue-type": "quorum"}),
        KombuQueue("another", queue_arguments={"x-queue-type": "quorum"}),
    ],
    ids=["classic", "delivery limit", "priority", "not durable", "missing"],
)
def test_a_queue_that_celery_declares_otherwise_than_the_contract_is_found(queue: KombuQueue) -> None:
    assert bad(participant(task_queues=[queue])) == [(Rule.TASK_QUEUES, LOSES)]


def test_a_queue_that_celery_declares_alike_is_in_order() -> None:
    alike = KombuQueue(QUEUE, queue_arguments={"x-queue-type": "quorum"})

    assert bad(participant(task_queues=[alike, KombuQueue("reports")])) == []


def test_priorities_for_all_queues_name_their_setting() -> None:
    installation = participant(task_queue_max_priority=10)

    (finding,) = [f for f in examine_settings(installation).findings if f.severity is LOSES]

    assert "x-max-priority=10" in finding.what
    assert finding.setting == "task_queue_max_priority"


def test_a_worker_that_takes_from_other_queues_is_told_so() -> None:
    started = Started(pool="prefork", node="reports@box", processes=2, prefetch=1, time_limit=500)
    own = KombuQueue(QUEUE, queue_arguments={"x-queue-type": "quorum"})
    installation = participant(started=started, task_queues=[own, KombuQueue("reports")])
    assert installation.app is not None
    assert (Rule.TASK_QUEUES, NOTE) not in found(installation)

    installation.app.amqp.queues.select(["reports"])

    assert (Rule.TASK_QUEUES, NOTE) in found(installation)


@pytest.mark.parametrize(
    ("kind", "key", "finds"),
    [
        ("fanout", QUEUE, True),
        ("topic", "restaurant.#", True),
        ("topic", QUEUE, False),
        ("direct", "*", False),
    ],
)
def test_a_binding_by_which_others_messages_come_is_found(kind: str, key: str, finds: bool) -> None:
    queue = KombuQueue(
        QUEUE, Exchange("shop", kind), routing_key=key, queue_arguments={"x-queue-type": "quorum"}
    )

    assert bad(participant(task_queues=[queue])) == ([(Rule.QUEUE_BINDING, WRONG)] if finds else [])


def test_a_default_exchange_that_sends_to_everybody_is_found() -> None:
    installation = participant(task_default_exchange="shop", task_default_exchange_type="fanout")

    assert bad(installation) == [(Rule.QUEUE_BINDING, WRONG)]


# ---- routes -----------------------------------------------------------------------------------------

step = Steps(OrderState)


class PlainSaga(Saga[OrderState], name="plain", version=1):
    """One plain Celery task."""

    reserve = step.task(
        "shop.tasks.reserve", lambda state: {}, queue=Queue("shop", QueueType.CLASSIC), pivot=True
    )


@pytest.mark.parametrize(("routed", "finds"), [("shop", False), ("warehouse", True)])
def test_a_plain_task_that_the_team_routes_elsewhere_is_found(routed: str, finds: bool) -> None:
    installation = orchestrator(sagas=[PlainSaga], task_routes={"shop.tasks.*": {"queue": routed}})

    assert bad(installation) == ([(Rule.ROUTES, WRONG)] if finds else [])


def test_a_route_of_a_command_is_only_a_note_because_sagas_do_not_go_by_it() -> None:
    installation = orchestrator(task_routes={"restaurant_service.*": {"queue": "elsewhere"}})

    assert bad(installation) == []
    assert (Rule.ROUTES, NOTE) in found(installation)


def test_a_router_that_wants_more_than_a_name_is_let_be() -> None:
    def router(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **more: Any) -> Any:
        return {"queue": options["tenant"]}

    assert bad(orchestrator(task_routes=[router])) == []


# ---- without an app ---------------------------------------------------------------------------------


def test_without_an_app_nothing_is_called_in_order() -> None:
    examination = examine_settings(replace(orchestrator(), app=None))

    assert told(examination.findings) == [(Rule.NO_APP, UNKNOWN)]
    assert examination.in_order == []
