"""``saga doctor`` on real servers: it finds what is there, changes nothing, and keeps workers from work."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import amqp
import psycopg
import pytest
from kombu import Connection
from kombu import Queue as KombuQueue

from sagas_framework import (
    ConfigurationError,
    EmbeddedWorkers,
    Event,
    Participant,
    Queue,
    QueueType,
    Sagas,
    SagasError,
    Service,
    Subscriber,
    orchestrator_app,
    participant_app,
)
from sagas_framework.clock import utc_now
from sagas_framework.doctor.broker import examine_broker
from sagas_framework.doctor.databases import examine_database
from sagas_framework.doctor.examining import examine, refuse_unsound
from sagas_framework.doctor.findings import Examination, Finding, Report, Rule, Severity
from sagas_framework.doctor.installation import Installation, Started
from sagas_framework.doctor.results import examine_results
from sagas_framework.storage.ports import Beat
from sagas_framework.storage.redis_inbox import RedisInbox
from tests.integration.kitchen import Handlers, MealSaga, kitchen, make_kitchen
from tests.servers import Missing, OwnRabbitmq, OwnRedis, PostgresServer, skip_or_fail

ROOT: Final = Path(__file__).parents[2]
LOSES, WRONG, NOTE, UNKNOWN = Severity


class Opened(Event, service=Service("doctored_door"), name="opened"):
    """Something to subscribe to."""


SERVICES: Final = ("order_service", "consumer_service", "restaurant_service", "accounting_service")
STARTED: Final = Started(pool="solo", node="kitchen@box", processes=1, prefetch=1, time_limit=None)


def meals(broker: str, database: str, *, started: Started | None = None, **options: Any) -> Installation:
    """An orchestrator that sends to the kitchen, at this release's schema."""
    sagas = Sagas(
        "meal_service",
        database,
        sagas=[MealSaga],
        reply_queue=Queue(f"meals.replies.{uuid4().hex[:8]}"),
        **options,
    )
    sagas.upgrade()
    return Installation(
        "meals.worker", sagas=sagas, app=orchestrator_app(sagas, broker=broker), started=started
    )


def cook(broker: str, database: str, *, started: Started | None = None, **settings: Any) -> Installation:
    """The kitchen, at this release's schema."""
    participant = make_kitchen(database, Handlers())
    app = participant_app(participant, broker=broker)
    app.conf.update(settings)
    return Installation("kitchen.worker", participant=participant, app=app, started=started)


def found(examination: Examination | Report | None, *severities: Severity) -> list[tuple[Rule, Severity]]:
    assert examination is not None
    findings: list[Finding] = list(examination) if isinstance(examination, Report) else examination.findings
    return [(f.rule, f.severity) for f in findings if not severities or f.severity in severities]


@contextlib.contextmanager
def channel(url: str) -> Iterator[Any]:
    with Connection(url) as connection:
        connection.connect()
        yield connection.default_channel


def declare(url: str, name: str, arguments: dict[str, Any] | None = None, **options: Any) -> None:
    with channel(url) as one:
        one.queue_declare(name, **({"durable": True, "auto_delete": False} | options), arguments=arguments)


def exists(url: str, name: str) -> bool:
    try:
        with channel(url) as one:
            one.queue_declare(name, passive=True)
    except amqp.NotFound:
        return False
    return True


# ---- sound installations ----------------------------------------------------------------------------


def test_the_order_platforms_four_services_are_sound(
    rabbitmq_url: str, postgres_server: PostgresServer | Missing, redis_url: str
) -> None:
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    with postgres_server.not_made_yet(SERVICES) as template:
        environment = {
            **os.environ,
            "CELERY_BROKER": rabbitmq_url,
            "CELERY_RESULT_BACKEND": redis_url,
            "APP_SQLALCHEMY_DATABASE_URI": template,
        }

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )

        assert run("-m", "app_common.migrate").returncode == 0
        for service in SERVICES:
            said = run(
                "-c",
                "from sagas_framework.cli import main; main()",
                *("-A", f"{service}.worker", "doctor", "--strict", "--json"),
            )
            assert said.returncode == 0, said.stdout + said.stderr
            (told,) = json.loads(said.stdout)["services"]
            assert told["service"] == service
            counts = told["counts"]
            assert (counts["loses"], counts["wrong"], counts["note"]) == (0, 0, 0)
            assert {part["area"] for part in told["examined"]} >= {"broker", "database", "settings"}
            assert not exists(rabbitmq_url, f"{service}.commands")


def test_sqlite_and_a_broker_in_memory_are_sound_and_start_without_a_warning(
    sqlite_urls: Callable[[], str], caplog: pytest.LogCaptureFixture
) -> None:
    sides = [meals("memory://", sqlite_urls()), cook("memory://", sqlite_urls())]

    assert [found(examine(side), LOSES, WRONG, NOTE) for side in sides] == [[], []]
    with EmbeddedWorkers([side.app for side in sides if side.app is not None]):
        pass

    assert [r.message for r in caplog.records if r.name.startswith("sagas_framework.doctor")] == []


def test_a_participant_that_shares_a_classic_queue_with_an_old_one_is_sound(
    rabbitmq_module_url: str, sqlite_url: str
) -> None:
    name = f"old.commands.{uuid4().hex[:8]}"
    declare(rabbitmq_module_url, name)
    participant = Participant(Service("old_service", Queue(name, QueueType.CLASSIC)), database=sqlite_url)
    participant.upgrade()
    app = participant_app(participant, broker=rabbitmq_module_url)
    installation = Installation("old.worker", participant=participant, app=app, started=STARTED)

    refuse_unsound(installation)

    assert found(examine(installation), LOSES, WRONG) == []


def test_an_examination_at_a_start_takes_less_than_a_second(rabbitmq_url: str, postgres_url: str) -> None:
    installation = meals(rabbitmq_url, postgres_url, started=STARTED)
    examine(installation)  # what is imported and made once

    def took() -> float:
        begun = time.monotonic()
        examine(installation)
        return time.monotonic() - begun

    assert min(took() for _ in range(3)) < 1  # the machine may be busy with something else


# ---- queues -----------------------------------------------------------------------------------------


def test_a_queue_of_another_type_is_found_by_both_sides_and_stays_as_it_is(
    rabbitmq_url: str, sqlite_urls: Callable[[], str]
) -> None:
    declare(rabbitmq_url, kitchen.queue.name)

    for side in (meals(rabbitmq_url, sqlite_urls()), cook(rabbitmq_url, sqlite_urls())):
        findings = [f for f in examine_broker(side).findings if f.severity is LOSES]
        (finding,) = findings
        assert finding.rule is Rule.QUEUE
        assert finding.what == (
            f"On the broker the queue {kitchen.queue.name} has x-queue-type=classic (here quorum)."
        )
        assert f"Queue('{kitchen.queue.name}', QueueType.CLASSIC)" in finding.write

    declare(rabbitmq_url, kitchen.queue.name)  # refused, were it another now


def test_the_queue_of_events_is_examined_with_those_of_the_same_workers(
    rabbitmq_url: str, sqlite_url: str
) -> None:
    subscriber = Subscriber(Service("kitchen"), database=sqlite_url)
    subscriber.subscribes(Opened)(lambda event, context: None)
    participant = make_kitchen(sqlite_url, Handlers())
    participant.upgrade()
    app = participant_app(participant, broker=rabbitmq_url, subscriber=subscriber)
    declare(rabbitmq_url, "kitchen.events", {"x-queue-type": "classic"})

    examination = examine_broker(Installation("kitchen.worker", participant=participant, app=app))

    [finding] = examination.findings
    assert (finding.rule, finding.severity) == (Rule.QUEUE, LOSES)
    assert finding.setting == "Subscriber(queue_type=...)"
    assert "the queue kitchen.events has x-queue-type=classic" in finding.what


def test_all_arguments_that_differ_are_told_at_once(rabbitmq_url: str, sqlite_url: str) -> None:
    there = {"x-dead-letter-exchange": "dead", "x-max-priority": 5, "x-message-ttl": 60_000}
    declare(rabbitmq_url, kitchen.queue.name, there)

    (finding,) = [f for f in examine_broker(cook(rabbitmq_url, sqlite_url)).findings if f.severity is LOSES]

    for told in ("dead-letter-exchange=dead", "x-max-priority=5", "x-message-ttl=60000", "type=classic"):
        assert told in finding.what
    assert "set_policy" in finding.write
    declare(rabbitmq_url, kitchen.queue.name, there)


@pytest.mark.parametrize(
    ("arguments", "options", "told"),
    [
        ({"x-queue-type": "quorum", "x-delivery-limit": 5}, {}, "x-delivery-limit=5"),
        ({}, {"durable": False}, "durable=false"),
    ],
)
def test_a_delivery_limit_or_a_queue_that_does_not_last_is_found(
    rabbitmq_url: str, sqlite_url: str, arguments: dict[str, Any], options: dict[str, Any], told: str
) -> None:
    declare(rabbitmq_url, kitchen.queue.name, arguments, **options)

    (finding,) = [f for f in examine_broker(cook(rabbitmq_url, sqlite_url)).findings if f.severity is LOSES]

    assert told in finding.what


def test_queues_of_the_teams_own_may_be_as_they_like(rabbitmq_url: str, sqlite_url: str) -> None:
    own = [
        KombuQueue("reports", durable=False, auto_delete=True),
        KombuQueue("mine", exclusive=True),
        KombuQueue("theirs", no_declare=True),
    ]
    declare(rabbitmq_url, "reports", durable=False, auto_delete=True)
    declare(rabbitmq_url, "theirs", {"x-max-priority": 3})
    installation = cook(rabbitmq_url, sqlite_url)
    installation.conf.task_queues = [*installation.conf.task_queues, *own]

    examination = examine_broker(installation)

    assert examination.findings == []
    assert "the queue reports is there as it is declared" in examination.in_order


def test_a_queue_of_the_teams_own_that_is_there_otherwise_keeps_no_worker_from_starting(
    rabbitmq_url: str, sqlite_url: str
) -> None:
    declare(rabbitmq_url, "reports", {"x-max-priority": 3})
    installation = cook(rabbitmq_url, sqlite_url)
    installation.conf.task_queues = [*installation.conf.task_queues, KombuQueue("reports")]

    examination = examine_broker(installation)

    assert found(examination) == [(Rule.QUEUE, WRONG)]
    assert "tasks of your own" in examination.findings[0].why


def test_a_queue_that_somebody_has_alone_is_found(rabbitmq_url: str, sqlite_url: str) -> None:
    installation = cook(rabbitmq_url, sqlite_url)
    with channel(rabbitmq_url) as other:
        other.queue_declare(kitchen.queue.name, exclusive=True, auto_delete=True)

        assert found(examine_broker(installation)) == [(Rule.QUEUE, WRONG)]


def test_queues_that_are_not_there_are_no_finding_and_are_not_made(
    rabbitmq_url: str, sqlite_url: str
) -> None:
    installation = meals(rabbitmq_url, sqlite_url)
    assert installation.sagas is not None

    examination = examine_broker(installation)

    assert examination.findings == []
    assert any("made by the first worker" in phrase for phrase in examination.in_order)
    assert not exists(rabbitmq_url, kitchen.queue.name)
    assert not exists(rabbitmq_url, installation.sagas.reply_queue.name)


def test_messages_that_wait_are_left_alone(rabbitmq_url: str, sqlite_url: str) -> None:
    declare(rabbitmq_url, kitchen.queue.name, {"x-queue-type": "quorum"})
    with channel(rabbitmq_url) as one:
        one.basic_publish(amqp.Message("one"), exchange="", routing_key=kitchen.queue.name)

    examination = examine_broker(cook(rabbitmq_url, sqlite_url))

    assert examination.findings == []
    assert f"the queue {kitchen.queue.name} is there as it is declared" in examination.in_order
    with channel(rabbitmq_url) as one:
        there = one.queue_declare(kitchen.queue.name, passive=True)
        assert (there.message_count, there.consumer_count) == (1, 0)
        message = one.basic_get(kitchen.queue.name)
        assert message is not None
        assert message.delivery_info["redelivered"] is False
        assert message.headers.get("x-delivery-count", 0) == 0


# ---- what a worker refuses --------------------------------------------------------------------------

WORKER = """
import os
from sagas_framework import participant_app
from tests.integration.kitchen import Handlers, make_kitchen

app = participant_app(make_kitchen(os.environ["KITCHEN"], Handlers()), broker=os.environ["BROKER"])
"""


def test_a_worker_on_a_queue_of_another_type_ends_with_the_reason_and_takes_nothing(
    rabbitmq_url: str, sqlite_url: str, tmp_path: Path
) -> None:
    declare(rabbitmq_url, kitchen.queue.name)
    (tmp_path / "kitchen_worker.py").write_text(WORKER)

    ended = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "kitchen_worker", "worker", "--pool", "solo", "-n", "k@%h"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "KITCHEN": sqlite_url, "BROKER": rabbitmq_url},
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ended.returncode == os.EX_CONFIG
    assert "kitchen does not start, because an order could be lost." in ended.stderr
    assert "has x-queue-type=classic (here quorum)" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_embedded_worker_that_refuses_is_not_taken_for_one_that_runs(sqlite_url: str) -> None:
    side = cook("memory://", sqlite_url, accept_content=["yaml"])
    assert side.app is not None

    with pytest.raises(SagasError, match="did not start: something in its settings is refused"):
        EmbeddedWorkers([side.app]).start()


def test_a_worker_with_wrong_settings_starts_and_says_so(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    side = cook("memory://", sqlite_url, task_acks_late=False)
    assert side.app is not None

    with caplog.at_level(logging.WARNING), EmbeddedWorkers([side.app]):
        pass

    assert any("task_acks_late is off." in message for message in caplog.messages)


def test_a_broker_that_goes_away_meanwhile_keeps_no_worker_from_starting(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    refuse_unsound(cook("amqp://guest:secret@127.0.0.1:1//", sqlite_url, started=STARTED))

    assert any("could not be asked" in message for message in caplog.messages)
    assert "secret" not in caplog.text


# ---- names, delays, permissions, alarms -------------------------------------------------------------


def test_a_worker_whose_name_another_has_is_warned(rabbitmq_module_url: str, sqlite_url: str) -> None:
    node = f"kitchen{uuid4().hex[:6]}@box"
    installation = cook(rabbitmq_module_url, sqlite_url, started=replace(STARTED, node=node))

    assert found(examine_broker(installation)) == []
    with channel(rabbitmq_module_url) as other:
        other.queue_declare(f"{node}.celery.pidbox", exclusive=True, auto_delete=True)

        assert found(examine_broker(installation)) == [(Rule.NODE_NAME, WRONG)]


def test_native_delayed_delivery_is_told_and_names_that_end_each_other_are_wrong(
    rabbitmq_url: str, sqlite_urls: Callable[[], str]
) -> None:
    with channel(rabbitmq_url) as one:
        one.exchange_declare("celery_delayed_delivery", "topic", durable=True, auto_delete=False)
    shop = Participant(Service("shop", Queue("payments")), database=sqlite_urls())
    shop.upgrade()
    app = participant_app(shop, broker=rabbitmq_url)
    installation = Installation("shop.worker", participant=shop, app=app)

    assert found(examine_broker(installation)) == [(Rule.DELAYED_DELIVERY, NOTE)]
    app = participant_app(shop, broker=rabbitmq_url)
    app.conf.task_queues = [*app.conf.task_queues, KombuQueue("saga.payments")]
    assert found(examine_broker(replace(installation, app=app))) == [(Rule.DELAYED_DELIVERY, WRONG)]


def test_a_user_without_permissions_is_found(own_rabbitmq: OwnRabbitmq, sqlite_url: str) -> None:
    installation = cook(own_rabbitmq.url, sqlite_url)
    declare(own_rabbitmq.url, kitchen.queue.name, {"x-queue-type": "quorum"})
    assert found(examine_broker(installation)) == []

    try:
        for configure, write, read, named in (
            ("^$", ".*", ".*", kitchen.queue.name),
            (".*", "^$", ".*", "publish"),
            (".*", ".*", "^$", kitchen.queue.name),
        ):
            own_rabbitmq.ctl("set_permissions", "-p", "/", "guest", configure, write, read)
            examination = examine_broker(installation)

            assert found(examination) == [(Rule.PERMISSIONS, LOSES)]
            assert named in examination.findings[0].what
    finally:
        own_rabbitmq.ctl("set_permissions", "-p", "/", "guest", ".*", ".*", ".*")


def test_a_user_that_the_broker_does_not_know_is_refused_without_telling_the_password(
    rabbitmq_module_url: str, sqlite_url: str
) -> None:
    stranger = rabbitmq_module_url.replace("//guest:guest@", "//ann:secret@")

    examination = examine_broker(cook(stranger, sqlite_url))

    assert found(examination) == [(Rule.PERMISSIONS, LOSES)]
    assert "secret" not in examination.findings[0].told + examination.subject
    assert examination.findings[0].what.endswith(".")


def test_a_broker_without_memory_is_told_and_the_examination_ends(
    own_rabbitmq: OwnRabbitmq, sqlite_url: str
) -> None:
    installation = cook(own_rabbitmq.url, sqlite_url)
    own_rabbitmq.ctl("set_vm_memory_high_watermark", "0")
    try:
        begun = time.monotonic()
        examination = examine_broker(installation)

        assert found(examination) == [(Rule.ALARM, WRONG)]
        assert "no memory or disk left" in examination.findings[0].what
        assert time.monotonic() - begun < 10
    finally:
        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


# ---- PostgreSQL -------------------------------------------------------------------------------------


def alter(url: str, setting: str) -> None:
    """Of this database alone, as a team's administrator does."""
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET {setting}".encode())


@pytest.mark.parametrize(
    ("setting", "finding"),
    [
        ("synchronous_commit = off", (Rule.DURABILITY, LOSES)),
        ("default_transaction_read_only = on", (Rule.READ_ONLY, WRONG)),
        ("default_transaction_isolation = 'serializable'", (Rule.ISOLATION, WRONG)),
    ],
)
def test_a_setting_of_one_database_is_found(
    postgres_url: str, setting: str, finding: tuple[Rule, Severity]
) -> None:
    installation = cook("memory://", postgres_url)
    before = examine_database(installation)
    assert found(before) == []

    alter(postgres_url, setting)

    assert found(examine_database(installation)) == [finding]


def test_a_worker_does_not_start_on_a_database_that_forgets_unless_somebody_accepts_it(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    installation = cook("memory://", postgres_url)
    alter(postgres_url, "synchronous_commit = off")

    with pytest.raises(ConfigurationError, match="synchronous_commit=off"):
        refuse_unsound(installation)
    monkeypatch.setenv("SAGA_DOCTOR_ACCEPT", "durability")
    refuse_unsound(installation)


def test_of_a_database_that_refuses_us_it_is_not_said_that_workers_wait_for_it(postgres_url: str) -> None:
    installation = cook("memory://", postgres_url)
    told = []
    for url in (f"{postgres_url}_not_there", "postgresql://ann@127.0.0.1:1/orders"):
        elsewhere = Participant(kitchen, database=url)
        examination = examine_database(replace(installation, participant=elsewhere))
        assert found(examination) == [(Rule.DATABASE, WRONG)]
        assert examination is not None
        told.append(examination.findings[0].told)

    assert "refuses us" in told[0]
    assert "workers end at their start" in told[0]
    assert "workers wait until it is back" in told[1]


@pytest.mark.parametrize(("minutes", "severities"), [(0, []), (2, [NOTE]), (-12, [WRONG])])
def test_a_machine_whose_clock_differs_from_the_databases_is_found(
    postgres_url: str, minutes: int, severities: list[Severity]
) -> None:
    skew = timedelta(minutes=minutes)
    installation = meals("memory://", postgres_url, clock=lambda: utc_now() + skew)

    examination = examine_database(installation)

    assert found(examination) == [(Rule.CLOCK, severity) for severity in severities]


def test_an_old_schema_and_a_worker_from_the_future_are_found_in_the_database(postgres_url: str) -> None:
    installation = cook("memory://", postgres_url)
    participant = installation.participant
    assert participant is not None
    future = utc_now() + timedelta(minutes=20)
    participant.inbox.beat(Beat("kitchen@box-1", "participant", future, future))
    assert found(examine_database(installation)) == [(Rule.CLOCK, WRONG)]

    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute("DELETE FROM saga_alembic_version")

    assert found(examine_database(installation)) == [(Rule.SCHEMA, LOSES)]


# ---- Redis ------------------------------------------------------------------------------------------


def test_a_redis_that_evicts_loses_and_one_that_keeps_nothing_is_wrong(own_redis: OwnRedis) -> None:
    participant = Participant(Service("bank"), inbox=RedisInbox(own_redis.url))
    app = participant_app(participant, broker="memory://")
    installation = Installation("bank.worker", participant=participant, app=app)

    (kept,) = examine_results(installation)
    own_redis.configure("maxmemory", "50mb")
    own_redis.configure("maxmemory-policy", "volatile-ttl")
    (evicts,) = examine_results(installation)

    assert found(kept) == [(Rule.PERSISTENCE, WRONG)]
    assert found(evicts, LOSES) == [(Rule.EVICTION, LOSES)]
    with pytest.raises(ConfigurationError, match="maxmemory-policy is volatile-ttl"):
        refuse_unsound(installation)


def test_two_services_under_one_prefix_are_found(redis_url: str) -> None:
    participant = Participant(Service("bank"), inbox=RedisInbox(redis_url))
    installation = Installation("bank.worker", participant=participant)
    now = utc_now()
    participant.inbox.beat(Beat("bank@box-1", "participant", now, now))
    (alone,) = examine_results(installation)
    participant.inbox.beat(Beat("insurance@box-1", "participant", now, now))

    (shared,) = examine_results(installation)

    assert (Rule.SHARED, WRONG) not in found(alone)
    assert (Rule.SHARED, WRONG) in found(shared)


def test_a_result_backend_that_answers_is_in_order(redis_url: str, sqlite_url: str) -> None:
    side = meals("memory://", sqlite_url)
    assert side.sagas is not None
    app = orchestrator_app(side.sagas, broker="memory://", result_backend=redis_url)

    (examination,) = examine_results(replace(side, app=app))

    assert examination.findings == []
    assert examination.in_order == ["it answers, and takes outcomes"]
