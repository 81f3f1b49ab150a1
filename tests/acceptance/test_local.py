"""The application as one process per service on RabbitMQ, PostgreSQL and Redis, as ``make local`` runs it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
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
from tests.servers import Missing, RedisServer, skip_or_fail, wait_until


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
