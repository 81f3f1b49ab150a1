"""Bad messages on a real broker: each is answered or set aside with its reason, and nobody falls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection, Producer
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from sagas_framework import EmbeddedWorkers, Queue, Sagas, Status, orchestrator_app, participant_app
from sagas_framework.core.ids import Kind
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Quarantined
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.storage.sql import ask_replay
from sagas_framework.storage.tables import saga_quarantine
from sagas_framework.transport.envelope import WireMessage
from tests.integration.kitchen import Handlers, Meal, MealSaga, make_kitchen, sent
from tests.servers import Missing, PostgresServer, skip_or_fail

T = TypeVar("T")
COMMANDS = "kitchen.commands"
REPLIES = "meal_replies"


@dataclass
class System:
    """A running orchestrator and participant, and a way to slip messages in."""

    broker: str
    sagas: Sagas
    participant: Any

    def put(self, queue: str, body: bytes, headers: dict[str, Any], **properties: Any) -> None:
        options = {"content_type": "application/json", "content_encoding": "utf-8"} | properties
        with Connection(self.broker) as connection, Producer(connection.default_channel) as producer:
            producer.publish(body, exchange="", routing_key=queue, headers=headers, **options)

    def put_wire(self, message: WireMessage) -> None:
        self.put(message.queue, message.body, dict(message.headers), **message.properties)

    def set_aside(self, engine: Any, within: float = 20) -> Quarantined:
        """The one message in a service's quarantine."""
        return self.until(lambda: next(iter(self._quarantine(engine)), None), within)

    def until(self, look: Callable[[], T | None], within: float = 20) -> T:
        end = time.monotonic() + within
        while (found := look()) is None:
            assert time.monotonic() < end, "it did not come"
            time.sleep(0.05)
        return found

    def still_works(self) -> None:
        with Session(self.sagas.engine) as session, session.begin():
            run = self.sagas.start(MealSaga, Meal(order_id=1), session=session)
        assert self.sagas.wait(run, timeout=timedelta(seconds=20)).status is Status.COMPLETED

    @staticmethod
    def _quarantine(engine: Any) -> list[Quarantined]:
        with reading(engine) as connection:
            return read_quarantine(connection)


@pytest.fixture(scope="module", params=[None, 50], ids=["one by one", "in batches"])
def running(
    rabbitmq_module_url: str, postgres_server: PostgresServer | Missing, request: pytest.FixtureRequest
) -> Iterator[System]:
    """Both workers running, on RabbitMQ and PostgreSQL, for all tests here: none may bring them down."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    databases = [postgres_server.create() for _ in range(2)]
    sagas = Sagas("orders", databases[0], sagas=[MealSaga], reply_queue=Queue(REPLIES))
    sagas.upgrade()
    participant = make_kitchen(databases[1], Handlers())
    apps: list[Celery] = [
        orchestrator_app(sagas, broker=rabbitmq_module_url),
        participant_app(participant, broker=rabbitmq_module_url, batch=request.param),
    ]
    with EmbeddedWorkers(apps):
        yield System(rabbitmq_module_url, sagas, participant)
    for engine in (sagas.engine, participant.engine):
        engine.dispose()
    for database in databases:
        postgres_server.drop(database)


@pytest.fixture
def system(running: System) -> System:
    """The running system with nothing set aside."""
    for engine in (running.sagas.engine, running.participant.engine):
        with engine.begin() as connection:
            connection.execute(delete(saga_quarantine))
    return running


def test_an_unknown_task_from_nowhere_is_set_aside_at_the_participant(system: System) -> None:
    system.put(COMMANDS, b"[[1, {}], {}, {}]", {"task": "kitchen.sing", "id": str(uuid4())})

    aside = system.set_aside(system.participant.engine)

    assert aside.task == "kitchen.sing"
    assert "there are: kitchen.close_ticket" in aside.reason
    system.still_works()


def test_an_unknown_task_from_a_saga_is_refused_for_good(system: System) -> None:
    message = sent(str(uuid4()), Kind.DO)
    message = replace(message, headers={**message.headers, "task": "kitchen.sing"})
    system.put_wire(replace(message, properties={**message.properties, "reply_to": REPLIES}))

    reply = system.set_aside(system.sagas.engine)  # its saga is unknown here, so the refusal ends there

    assert reply.task == "kitchen.sing.response.failure"
    assert json.loads(reply.body)[0][1]["type"] == "UnknownTask"
    system.still_works()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b"{nonsense", "$"),
        (b'{"an": "object"}', "$"),
        (b"[[], {}, {}]", "$[0]"),
        (b"[[null, {}], {}, {}]", "$[0][0]"),
    ],
)
def test_a_malformed_command_is_set_aside(system: System, body: bytes, path: str) -> None:
    system.put(COMMANDS, body, {"task": "kitchen.open_ticket", "id": str(uuid4())})

    aside = system.set_aside(system.participant.engine)

    assert aside.body.startswith(body.decode()[:-4])  # what a Celery task never sees may differ
    assert aside.queue == COMMANDS
    assert aside.reason
    system.still_works()


def test_a_command_without_headers_of_celery_is_set_aside(system: System) -> None:
    system.put(COMMANDS, b"hello", {}, content_type="text/plain")

    assert "cannot be read" in system.set_aside(system.participant.engine).reason
    system.still_works()


def test_a_reply_for_an_unknown_saga_is_set_aside_at_the_orchestrator(system: System) -> None:
    body = json.dumps([[str(uuid4()), None], {}, {}]).encode()
    system.put(REPLIES, body, {"task": "kitchen.cook.response.success", "id": str(uuid4())})

    aside = system.set_aside(system.sagas.engine)

    assert "no saga has the id" in aside.reason
    assert aside.path == "$[0][0]"
    system.still_works()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"task": "kitchen.cook", "id": "1"}, b'[["x", null], {}, {}]'),
        ({"task": "kitchen.cook.response.failure", "id": "1"}, b'[["x", "not an object"], {}, {}]'),
        ({"task": "kitchen.cook.response.success", "id": "1"}, b"\xff\xfe"),
        ({}, b"[]"),
    ],
)
def test_a_reply_that_cannot_be_read_is_set_aside(
    system: System, headers: dict[str, Any], body: bytes
) -> None:
    system.put(REPLIES, body, headers)

    assert system.set_aside(system.sagas.engine).reason
    system.still_works()


@pytest.mark.parametrize("side", ["participant", "sagas"])
@pytest.mark.parametrize("queue_is_there", [True, False])
def test_a_message_set_aside_is_sent_again_to_its_queue_when_somebody_asks(
    system: System, side: str, queue_is_there: bool
) -> None:
    engine = getattr(system, side).engine
    queue = COMMANDS if side == "participant" else REPLIES
    system.put(queue, b"[[1, {}], {}, {}]", {"task": "kitchen.sing", "id": "the one"})
    first = system.set_aside(engine)
    with engine.begin() as connection:
        if not queue_is_there:
            connection.execute(update(saga_quarantine).values(queue="nobody.declared"))
        assert ask_replay(connection, first.id, "ann")

    def ended() -> Quarantined | None:
        with reading(engine) as connection:
            there = read_quarantine(connection)  # for a moment both: it is back before it is gone
        return there[0] if len(there) == 1 and there[0].replay is None else None

    after = system.until(ended)
    assert after.headers["id"] == "the one"
    if queue_is_there:
        assert after.id > first.id  # it still cannot be handled, so it came back
        assert after.reason == first.reason
    else:
        assert after.id == first.id
        assert after.reason == f"{first.reason} (not sent again: unroutable)"
    system.still_works()
