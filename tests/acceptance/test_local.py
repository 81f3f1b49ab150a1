"""The application as one process per service on RabbitMQ, PostgreSQL and Redis, as ``make local`` runs it."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from celery import Celery
from celery.result import AsyncResult

from app_common.running import SERVICES
from app_common.specifications import specification
from sagas_framework import SagaCompensated
from tests.acceptance.application import Answer, Application
from tests.acceptance.endings import (
    ENDINGS,
    PATHS,
    RANDOM,
    Ending,
    assert_ended_as_meant,
    assert_rows_agree,
    assert_rows_are_settled,
)
from tests.servers import Missing, RedisServer, free_ports, skip_or_fail, wait_until


@pytest.fixture(scope="module")
def result_backend(redis_server: RedisServer | Missing) -> Iterator[str]:
    """An empty Redis database for the tests of this module."""
    if isinstance(redis_server, Missing):
        skip_or_fail(redis_server)
    try:
        with redis_server.database() as url:
            yield url
    except Missing as missing:
        skip_or_fail(missing)


@pytest.fixture(scope="module")
def application(
    rabbitmq_module_url: str, databases: str, result_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Application]:
    """All processes, taking orders."""
    environment = {
        "CELERY_BROKER": rabbitmq_module_url,
        "CELERY_RESULT_BACKEND": result_backend,
        "APP_SQLALCHEMY_DATABASE_URI": databases,
        "CONSUMER_TIMEOUT": "60",  # the workers start as slowly as the machine is busy
        "RESTAURANT_TIMEOUT": "15",
        "ACCOUNTING_TIMEOUT": "60",
        "OTEL_METRICS_EXPORTER": "prometheus",
        "OTEL_EXPORTER_PROMETHEUS_PORT": str(free_ports(1)[0]),
    }
    folder = tmp_path_factory.mktemp("local")
    local = Application("app_common.local", databases, environment, folder)
    local.start()
    yield local
    local.close()


@pytest.fixture(scope="module")
def launched(application: Application) -> dict[str, Answer]:
    """What each launch answered, all made at once."""
    first = application.ask("POST", PATHS[0]).json["saga_id"]
    application.ended(first, within=90)  # from now on every worker is up, and silence is the restaurant's own
    return {path: application.ask("POST", path) for path in PATHS}


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
def test_a_launch_ends_as_its_name_says_and_the_rows_agree(
    application: Application, launched: dict[str, Answer], ending: Ending
) -> None:
    accepted = launched[ending.path]

    saga = application.ended(accepted.json["saga_id"], within=90)

    assert accepted.status == 202
    assert accepted.headers["location"] == f"/sagas/{saga['id']}"
    assert_ended_as_meant(saga, ending)
    assert_rows_agree(
        application, saga, order=ending.order, ticket=ending.ticket, authorization=ending.authorization
    )


def test_a_random_order_ends_one_way_or_the_other_and_the_rows_agree(
    application: Application, launched: dict[str, Answer]
) -> None:
    saga = application.ended(launched[RANDOM].json["saga_id"], within=90)

    assert_rows_are_settled(application, saga)


def test_an_outcome_is_also_a_celery_result(
    application: Application, launched: dict[str, Answer], result_backend: str
) -> None:
    completed = application.ended(launched["/run-success-saga"].json["saga_id"], within=90)
    refused = application.ended(
        launched["/run-saga-failing-on-card-authorization"].json["saga_id"], within=90
    )
    anybody: Any = Celery("anybody", backend=result_backend, set_as_current=False)

    outcome: Any = AsyncResult(completed["id"], app=anybody).get(timeout=20)

    with pytest.raises(SagaCompensated, match="refused: InsufficientBalance Card authorization failed"):
        AsyncResult(refused["id"], app=anybody).get(timeout=20)
    anybody.close()
    assert outcome["status"] == "completed"
    assert outcome["outcome"] == completed["outcome"]
    assert outcome["state"] == completed["state"]
    assert datetime.fromisoformat(outcome["ended_at"]) == datetime.fromisoformat(completed["ended_at"])


def test_the_command_line_sees_the_same_and_every_service_is_healthy(
    application: Application, launched: dict[str, Answer]
) -> None:
    saga = application.ended(launched["/run-success-saga"].json["saga_id"], within=90)

    program = Path(sys.executable).with_name("saga")
    shown = application.say(f"{program} -A order_service.worker --json show {saga['key']}")
    health = {
        service: application.say(f"{program} -A {service}.worker --json health") for service in SERVICES
    }

    assert (shown["id"], shown["status"], shown["history"]) == (saga["id"], "completed", saga["history"])
    assert {service: one["healthy"] for service, one in health.items()} == dict.fromkeys(SERVICES, True)


SCRAPED: Final = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
# Nothing has to be repeated when all goes well.
SELDOM: Final = {"saga_step_retries_total", "saga_command_resends_total", "saga_replies_late_total"}
WAITING: Final = json.dumps({"customer": "Riley", "items": ["milk"], "total": "1299.00"})
LABEL: Final = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
# In Prometheus' words: those of a histogram, and whose measurement it is.
ITS_OWN: Final = {"le", "otel_scope_name", "otel_scope_version", "otel_scope_schema_url"}
LABELS: Final = {
    "saga_open": {"saga", "status", "outcome"},
    "saga_oldest_age_seconds": {"saga", "status"},
    "saga_overdue_age_seconds": {"service"},
    "saga_quarantined": {"service"},
    "saga_queue_messages": {"queue"},
    "saga_ended_total": {"saga", "status", "outcome"},
    "saga_duration_seconds": {"saga", "status", "outcome"},
    "saga_step_duration_seconds": {"saga", "step", "kind", "result"},
    "saga_step_retries_total": {"saga", "task"},
    "saga_command_resends_total": {"saga", "task"},
    "saga_replies_late_total": {"saga"},
    "saga_reply_commit_duration_seconds": {"saga"},
    "saga_timekeeper_lag_seconds": {"saga"},
}
"""Of each metric of the orchestrator's worker. None is an id: with more orders there are no more of them."""


def scraped(application: Application) -> dict[str, list[tuple[dict[str, str], float]]]:
    """What Prometheus would get: of each metric of ours the values, by their labels."""
    port = int(application.environment["OTEL_EXPORTER_PROMETHEUS_PORT"])
    answer = application.ask("GET", "/metrics", accept="text/plain", port=port)
    assert answer.status == 200
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for line in answer.body.splitlines():
        told = SCRAPED.fullmatch(line)
        if told is None or not told["name"].startswith("saga_"):
            continue
        name = re.sub(r"_(bucket|count|sum)$", "", told["name"])
        labels = dict(LABEL.findall(told["labels"] or ""))
        found.setdefault(name, []).append((labels, float(told["value"])))
    return found


def test_prometheus_gets_what_the_rows_say_and_what_the_worker_did(
    application: Application, launched: dict[str, Answer]
) -> None:
    for path in ("/run-success-saga", "/run-saga-failing-on-card-authorization"):
        application.ended(launched[path].json["saga_id"], within=90)
    waiting = application.ask("POST", "/processing/orders", WAITING)
    assert waiting.status == 202, waiting.body

    def is_told() -> bool:  # figures of rows are kept for 5 s
        opened = scraped(application).get("saga_open", ())
        return any(labels["saga"] == "process_order" for labels, _ in opened)

    wait_until(is_told, "the order that waits is told of")

    found = scraped(application)
    assert found.keys() <= LABELS.keys()
    assert found.keys() >= LABELS.keys() - SELDOM
    for name, points in found.items():
        for labels, _ in points:
            assert labels.keys() - ITS_OWN == LABELS[name], name
    (service,) = found["saga_quarantined"]
    assert (service[0]["service"], service[1]) == ("order_service", 0)
    ended = {
        (labels["status"], labels["outcome"])
        for labels, count in found["saga_ended_total"]
        if labels["saga"] == "create_order" and count
    }
    assert ended >= {("completed", "ok"), ("compensated", "refused")}
    # Not one label more for each order.
    values = {value for points in found.values() for labels, _ in points for value in labels.values()}
    assert not [value for value in values if re.search(r"[0-9a-f]{8}-|order-\d", value)]


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_has_its_docs_site_which_tells_the_brokers_host_and_no_password(
    application: Application, service: str
) -> None:
    answer = application.ask("GET", "/asyncapi.json", port=application.docs[service])

    broker = urlsplit(application.environment["CELERY_BROKER"])
    assert answer.status == 200
    assert answer.json["servers"]["rabbitmq"]["host"] == f"{broker.hostname}:{broker.port or 5672}"
    assert f":{broker.password}@" not in answer.body
    assert answer.json["operations"] == specification(service).document["operations"]


def test_operators_without_a_key_end_it_with_one_line_before_anything_is_made(tmp_path: Path) -> None:
    nowhere = "postgresql://ann:secret@127.0.0.1:1/{service}"
    local = Application("app_common.local", nowhere, {"ORDER_SERVICE_OPERATORS": "ann"}, tmp_path)

    local.begin()

    assert local.process.wait(60) == 1
    (line,) = local.printed.splitlines()
    assert line.startswith("ORDER_SERVICE_SECRET_KEY is missing, and with ORDER_SERVICE_OPERATORS ")


def test_when_a_service_is_killed_it_ends_with_its_name_and_leaves_no_process(
    application: Application,
) -> None:
    """The last test here: afterwards there is no application."""
    children = application.children()
    (victim,) = [pid for pid, line in children.items() if "restaurant_service.worker" in line]

    os.kill(victim, signal.SIGKILL)
    code = application.process.wait(60)

    assert code == 1
    (told,) = [line for line in application.printed.splitlines() if "ended with code -9" in line]
    assert told.startswith("restaurant")
    wait_until(lambda: not any(_lives(pid) for pid in children), "the end of every process", 20)


def _lives(pid: int) -> bool:
    """Whether any process of the group that the child led is still there."""
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True
