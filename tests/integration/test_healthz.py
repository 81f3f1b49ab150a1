"""``GET /healthz``: true about databases and orchestrators that work, stopped, or hang, and soon told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Final

import pytest
from flask import Flask
from sqlalchemy import text

from app_common.web.health import Healthz, Look
from order_service.orchestrator import sagas
from sagas_framework import Checkup, EmbeddedWorkers, health, orchestrator_app
from tests.integration.shopfront import Client, beat, post, shopfront
from tests.servers import OwnPostgres, OwnRabbitmq, wait_until

PARTS: Final = ("database", "orchestrator", "broker")


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """The application with an empty database."""
    with shopfront(request.getfixturevalue(request.param), monkeypatch) as client:
        yield client


def well(answer: Any) -> dict[str, bool | None]:
    return {part: answer.json["checks"][part]["healthy"] for part in PARTS}


def reasons(answer: Any) -> list[str]:
    return [reason for part in PARTS for reason in answer.json["checks"][part]["reasons"]]


# ---- what is told ---------------------------------------------------------------------------------


def test_all_is_well_when_the_orchestrators_loops_turn(client: Client) -> None:
    beat("consumer", "timekeeper")

    answer = client.get("/healthz")

    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json == {
        "service": "order_service",
        "healthy": True,
        "checks": {part: {"healthy": True, "reasons": []} for part in PARTS},
        "warnings": [],
    }


def test_without_an_orchestrator_nothing_is_known_of_the_broker(client: Client) -> None:
    beat("consumer", "timekeeper", seconds_ago=16)

    answer = client.get("/healthz")

    assert answer.status_code == 503
    assert answer.json["healthy"] is False
    assert well(answer) == {"database": True, "orchestrator": False, "broker": None}
    assert len(reasons(answer)) == 2
    assert all(reason.endswith("is a worker running?") for reason in reasons(answer))


def test_an_orchestrator_that_turns_without_its_consumer_does_not_reach_the_broker(
    client: Client,
) -> None:
    beat("consumer", seconds_ago=40)
    beat("timekeeper")

    answer = client.get("/healthz")

    assert answer.status_code == 503
    assert well(answer) == {"database": True, "orchestrator": True, "broker": False}
    (reason,) = reasons(answer)
    assert reason.startswith("no consumer turns, the last one was seen 40 s ago, ")
    assert "does not reach the broker" in reason


def test_a_consumer_that_turns_says_that_the_broker_is_there(client: Client) -> None:
    beat("consumer")

    assert well(client.get("/healthz")) == {"database": True, "orchestrator": False, "broker": True}


def test_what_no_restart_would_mend_is_a_warning_and_changes_nothing(client: Client) -> None:
    post(client)
    with sagas.engine.begin() as connection:
        connection.execute(text("UPDATE saga_instance SET status = 'parked', due_at = NULL"))
    beat("consumer", "timekeeper")

    answer = client.get("/healthz")

    assert answer.status_code == 200
    assert answer.json["warnings"] == [
        "1 saga needs a person: saga -A order_service.worker list --status parked"
    ]


@pytest.mark.parametrize("versions", ["saga_alembic_version", "order_service_alembic_version"])
def test_an_old_schema_is_told_with_the_command_that_helps(client: Client, versions: str) -> None:
    beat("consumer", "timekeeper")
    with sagas.engine.begin() as connection:
        connection.execute(text(f"DELETE FROM {versions}"))

    answer = client.get("/healthz")

    assert answer.status_code == 503
    assert well(answer) == {"database": False, "orchestrator": None, "broker": None}
    assert "Run: saga -A order_service.worker db upgrade" in reasons(answer)[0]


def test_a_file_that_is_not_there_is_told_and_not_made(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shopfront(sqlite_url, monkeypatch, upgrade=False) as client:
        answers = [client.get("/healthz") for _ in range(2)]

    for answer in answers:
        assert answer.status_code == 503
        assert "does not exist. Run: saga -A order_service.worker db upgrade" in reasons(answer)[0]


def test_a_broker_that_stopped_is_seen_through_the_eyes_of_the_orchestrator(
    sqlite_url: str, own_rabbitmq: OwnRabbitmq, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "ALIVE_WITHIN", timedelta(seconds=6))  # beats come every 2 s
    with (
        shopfront(sqlite_url, monkeypatch) as client,
        EmbeddedWorkers([orchestrator_app(sagas, broker=own_rabbitmq.url)]),
    ):

        def becomes(wanted: dict[str, bool | None]) -> None:
            wait_until(lambda: well(client.get("/healthz")) == wanted, f"{wanted}")

        becomes({"database": True, "orchestrator": True, "broker": True})
        own_rabbitmq.stop()
        becomes({"database": True, "orchestrator": True, "broker": False})
        own_rabbitmq.start()
        becomes({"database": True, "orchestrator": True, "broker": True})


# ---- databases that do not answer -----------------------------------------------------------------


def test_a_database_that_stopped_is_told_and_so_is_its_return(
    own_postgres: OwnPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shopfront(own_postgres.create(), monkeypatch) as client:
        beat("consumer", "timekeeper")
        before = client.get("/healthz")
        own_postgres.kill()
        away = client.get("/healthz")
        own_postgres.start()
        beat("consumer", "timekeeper")
        back = client.get("/healthz")

    assert (before.status_code, away.status_code, back.status_code) == (200, 503, 200)
    assert well(away) == {"database": False, "orchestrator": None, "broker": None}
    assert "cannot be reached" in reasons(away)[0]


@pytest.mark.parametrize("password", ["secret", "se:cr@et", "secret@"])
def test_a_server_that_takes_connections_and_says_nothing_is_given_up_and_no_password_is_told(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}/orders"
        url = f"postgresql+psycopg://ann:{password}@{address}"
        with shopfront(url, monkeypatch, upgrade=False) as client:
            answer = client.get("/healthz")

    assert answer.status_code == 503
    assert well(answer) == {"database": False, "orchestrator": None, "broker": None}
    assert address in reasons(answer)[0]
    for part in ("secret", "se:cr", "cr@", "et@"):
        assert part not in answer.text


def test_a_database_that_takes_the_question_and_never_answers_hangs_one_thread_and_no_request(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shopfront(postgres_url, monkeypatch):
        beat("consumer", "timekeeper")
        app = Flask(__name__)
        app.add_url_rule("/healthz", "healthz", view_func=Healthz.of_sagas(sagas, within=0.3))
        client = app.test_client()
        with sagas.engine.begin() as connection:
            connection.execute(text("LOCK TABLE saga_worker IN ACCESS EXCLUSIVE MODE"))
            answers = [client.get("/healthz") for _ in range(3)]
            hanging = [thread for thread in threading.enumerate() if thread.name == "healthz"]
        for thread in hanging:
            thread.join(30)
        app.view_functions["healthz"] = Healthz.of_sagas(sagas)
        after = client.get("/healthz")

    assert [answer.status_code for answer in answers] == [503, 503, 503]
    assert reasons(answers[0])[0].endswith(" has not answered for 0.3 s")
    assert len(hanging) == 1
    assert not hanging[0].is_alive()
    assert after.status_code == 200


def test_a_look_that_hangs_for_long_is_left_alone_and_another_one_begins() -> None:
    over = threading.Event()
    found = Checkup("order_service", "orchestrator", "sqlite://")
    begun: list[int] = []

    def look_at_it() -> Checkup:
        mine = len(begun)
        begun.append(mine)
        if mine == 0:
            over.wait(60)
        return found

    look = Look(look_at_it, within=30, give_up_after=0)
    with ThreadPoolExecutor(1) as first_asks:
        first = first_asks.submit(look)
        wait_until(lambda: begun == [0], "the first look has begun")
        second = look()
        still_hangs = not first.done()
        over.set()

    assert second is found
    assert still_hangs


def test_a_bug_in_looking_is_no_health(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(sagas, "clock", broken)

    answer = client.get("/healthz")

    assert answer.status_code == 503
    assert reasons(answer) == ["The look itself failed (ZeroDivisionError): see the log"]


def test_ping_needs_nothing(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with shopfront(sqlite_url, monkeypatch, upgrade=False) as client:
        answer = client.get("/ping")

    assert (answer.status_code, answer.text) == (200, "ping response")
