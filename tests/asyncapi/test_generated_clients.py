"""Others can work from our documents alone: clients that a generator makes of them talk to our real workers.

The generator is ``asyncapi-python``. A document says what the service does, so the client is made of its
mirror image: what the service receives, the client sends.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any, Final

import amqp
import pytest
from kombu import Connection

from app_common.magic import CARD_LIMIT, LOWEST_CORRECT_CONSUMER_ID, Dish
from app_common.running import SERVICES
from sagas_framework.asyncapi import Specification
from tests.asyncapi.generating import Client, class_of, undocumented
from tests.asyncapi.reading import said
from tests.asyncapi.tools import ROOT
from tests.servers import free_ports, wait_until
from tests.unit.asyncapi.mill import described

pytestmark = pytest.mark.timeout(300)

SAGA: Final = "01998d1f-5c00-7000-8000-000000000001"
EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}


@pytest.fixture(scope="module")
def clients(
    published: dict[str, Specification], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Client]:
    """A client for each service. Generating one takes seconds, so it is done side by side."""
    folder = tmp_path_factory.mktemp("clients")

    def generate(service: str) -> Client:
        return Client.generate(service, published[service].document, folder)

    with ThreadPoolExecutor() as pool:
        return dict(zip(SERVICES, pool.map(generate, SERVICES), strict=True))


EVERY_EXAMPLE: Final = """
import importlib, json, sys
package, examples = json.load(sys.stdin)
generated = importlib.import_module(package)
messages = importlib.import_module(f"{package}.messages.json")
assert isinstance(generated.Application, type)
made = [getattr(messages, name).model_validate(body).model_dump(mode="json") for name, body in examples]
print(json.dumps(made))
"""


@pytest.mark.parametrize("service", SERVICES)
def test_a_generated_client_imports_and_takes_every_example_for_what_it_is(
    clients: dict[str, Client], service: str
) -> None:
    client = clients[service]
    examples = [
        (class_of(message.name), example["payload"])
        for message in said(client.document)
        for example in message.message["examples"]
    ]

    made = client.run(EVERY_EXAMPLE, [client.package, examples])

    assert made == [body for _, body in examples]


def test_a_client_of_events_imports_and_takes_every_example_for_what_it_is(tmp_path: Path) -> None:
    for specification in described()[:2]:  # who publishes, and one who subscribes
        client = Client.generate(specification.service, specification.document, tmp_path)
        examples = [
            (class_of(message.name), example["payload"])
            for message in said(client.document)
            for example in message.message["examples"]
        ]

        made = client.run(EVERY_EXAMPLE, [client.package, examples])

        assert made == [body for _, body in examples]


# ---- clients that ask a participant ---------------------------------------------------------------


def _order(dish: str) -> dict[str, Any]:
    return {"order_id": 1, "customer_id": 70, "items": [{"name": dish, "quantity": 2}]}


ASKED: Final[dict[str, tuple[str, dict[str, Any], dict[str, Any], str]]] = {
    "consumer_service": (
        "verify_consumer_details",
        {"consumer_id": LOWEST_CORRECT_CONSUMER_ID},
        {"consumer_id": LOWEST_CORRECT_CONSUMER_ID - 1},
        "IncorrectConsumerId",
    ),
    "restaurant_service": (
        "create_ticket",
        _order(Dish.PLAIN),
        _order(Dish.OFF_HOURS),
        "RestaurantClosed",
    ),
    "accounting_service": (
        "authorize_card",
        {"card_id": 1, "amount": "19.99"},
        {"card_id": 1, "amount": str(CARD_LIMIT)},
        "InsufficientBalance",
    ),
    "inventory_service": (
        "reserve_items",
        {"order_id": "order_riley_o066i", "items": [{"name": "milk", "quantity": 2}]},
        {"order_id": "order_riley_o066i", "items": [{"name": "milk", "quantity": 11}]},
        "OutOfStock",
    ),
}
"""Of participants a command, a payload that succeeds, one that is refused, and with which failure."""

SUCCESS: Final[dict[str, Any]] = {
    "consumer_service": None,
    "restaurant_service": {"ticket_id": 1},
    "accounting_service": {"transaction_id": 1},
    "inventory_service": {"reservation_id": 1},
}
"""What the first command on an empty database is answered with."""


@pytest.mark.parametrize("service", ASKED)
def test_a_generated_client_asks_a_real_worker_and_is_answered(
    clients: dict[str, Client], service: str, rabbitmq_module_url: str, tmp_path: Path
) -> None:
    name, good, bad, failure = ASKED[service]
    task = f"{service}.{name}"
    ask = {"operation": f"send_{task}", "message": class_of(task)}
    questions = [{**ask, "body": [[SAGA, payload], {}, EMBED]} for payload in (good, bad)]

    with worker(service, rabbitmq_module_url, tmp_path):
        told = clients[service].ask(rabbitmq_module_url, questions)

    succeeded, refused = told["answers"]
    assert succeeded == {
        "message": class_of(f"{task}.response.success"),
        "body": [[SAGA, SUCCESS[service]], {}, EMBED],
    }
    assert refused["message"] == class_of(f"{task}.response.failure.{failure}")
    assert refused["body"][0][1]["type"] == failure
    assert [one["headers"]["saga_result"] for one in told["arrived"]] == ["success", "refused"]
    assert undocumented(clients[service].document, told) == []


# ---- a client that answers the orchestrator -------------------------------------------------------


def _answers(client: Client) -> list[dict[str, Any]]:
    """For each operation: a success, as its example has it; and one consumer is refused."""
    rules = []
    for message in said(client.document):
        if message.says and message.name.endswith(".response.success"):
            example = message.message["examples"][0]
            rules.append(
                {
                    "operation": message.operation,
                    "payload": {},
                    "name": message.name,
                    "message": class_of(message.name),
                    "headers": {"saga_result": "success"},
                    "answer": example["payload"][0][1],
                }
            )
    task = "consumer_service.verify_consumer_details"
    refusal = f"{task}.response.failure.IncorrectConsumerId"
    return [
        {
            "operation": f"receive_{task}",
            "payload": {"consumer_id": 13},
            "name": refusal,
            "message": class_of(refusal),
            "headers": {"saga_result": "refused"},
            "answer": {"type": "IncorrectConsumerId", "message": "not this one", "module": "elsewhere"},
        },
        *rules,
    ]


def test_a_generated_application_answers_the_real_orchestrator(
    clients: dict[str, Client], rabbitmq_module_url: str, tmp_path: Path
) -> None:
    client = clients["order_service"]

    with (
        orchestrator(rabbitmq_module_url, tmp_path) as port,
        client.answering(rabbitmq_module_url, _answers(client)) as answering,
    ):
        approved, rejected = (_placed(port, consumer_id) for consumer_id in (70, 13))
        endings = [_ended(port, saga_id) for saga_id in (approved, rejected)]

    assert [one["status"] for one in endings] == ["completed", "compensated"]
    assert endings[1]["outcome"]["name"] == "IncorrectConsumerId"
    assert endings[1]["outcome"]["message"] == "not this one"
    # Four commands of the one, the refused one of the other.
    assert len(answering.told["arrived"]) == len(answering.told["sent"]) == 5
    assert undocumented(client.document, answering.told) == []


def _ask(port: int, method: str, path: str, body: str | None = None) -> Any:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


def _placed(port: int, consumer_id: int) -> str:
    order = {
        "consumer_id": consumer_id,
        "card_id": 1,
        "price": "19.99",
        "items": [{"name": Dish.PLAIN, "quantity": 1}],
    }
    return str(_ask(port, "POST", "/orders", json.dumps(order))["saga_id"])


def _ended(port: int, saga_id: str) -> Any:
    wait_until(
        lambda: _ask(port, "GET", f"/sagas/{saga_id}")["ended_at"] is not None, f"the end of {saga_id}"
    )
    return _ask(port, "GET", f"/sagas/{saga_id}")


# ---- our processes --------------------------------------------------------------------------------


@contextlib.contextmanager
def _process(
    command: list[str], environment: dict[str, str], output: Path
) -> Iterator[subprocess.Popen[bytes]]:
    with output.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def worker(service: str, broker: str, folder: Path) -> Iterator[None]:
    """The service's worker with an empty database; returns when it takes messages."""
    environment = _environment(broker, folder)
    subprocess.run(
        [Path(sys.executable).with_name("saga"), "-A", f"{service}.worker", "db", "upgrade"],
        cwd=ROOT,
        env=environment,
        check=True,
        capture_output=True,
    )
    command = ["-m", "celery", "-A", f"{service}.worker", "worker", "--pool", "solo", "--loglevel", "INFO"]
    with _process(command, environment, folder / f"{service}.log") as process:
        queue = "create_order_saga_responses" if service == "order_service" else f"{service}.commands"
        wait_until(
            lambda: _has_consumers(broker, queue) or process.poll() is not None, f"the worker of {service}"
        )
        assert process.poll() is None, (folder / f"{service}.log").read_text()
        yield


@contextlib.contextmanager
def orchestrator(broker: str, folder: Path) -> Iterator[int]:
    """The order service's worker and its web; the web's port."""
    (port,) = free_ports(1)
    web = [
        "-m",
        "waitress",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--call",
        "order_service.web:create_app",
    ]
    with (
        worker("order_service", broker, folder),
        _process(web, _environment(broker, folder), folder / "web.log") as process,
    ):
        wait_until(lambda: _answers_at(port) or process.poll() is not None, "the web of the order service")
        assert process.poll() is None, (folder / "web.log").read_text()
        yield port


def _environment(broker: str, folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CELERY_BROKER": broker,
        "CELERY_RESULT_BACKEND": "",
        "APP_SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder}/{{service}}.sqlite3",
    }


def _has_consumers(broker: str, queue: str) -> bool:
    with Connection(broker) as connection:
        channel: Any = connection.channel()
        try:
            return bool(channel.queue_declare(queue, passive=True).consumer_count)
        except amqp.NotFound:
            return False


def _answers_at(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
