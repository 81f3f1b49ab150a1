"""Each message as the code really writes it is exactly one message of the documents."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import setup_logging
from kombu import Connection

from sagas_framework.asyncapi import fitting
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.messages import WireProtocol
from sagas_framework.participant import Participant
from sagas_framework.sagas import new_saga_id
from sagas_framework.storage.memory import MemoryDatabase
from sagas_framework.telemetry import NOWHERE, TRACEPARENT, TRACESTATE, carried_by
from sagas_framework.transport.envelope import WireMessage, command, to_wire
from tests.integration.tracing import traced
from tests.unit.asyncapi.shop import (
    Dinner,
    Leftovers,
    Snack,
    make_kitchen,
    of_the_kitchen,
    of_the_shop,
)

SOUP = {"dishes": [{"name": "soup", "price": "4.50"}], "guest": None}


def costing(price: str) -> dict[str, Any]:
    """A command for one dish at this price, on which its outcome depends."""
    return {"dishes": [{"name": "soup", "price": price}], "guest": 3}


class Conversation:
    """One saga that talks to the kitchen; each message of either is looked for in both documents."""

    def __init__(self, participant: Participant) -> None:
        self.participant = participant
        self.documents = [of_the_kitchen(), of_the_shop(Dinner, Snack)]
        self.saga_id = new_saga_id(datetime.now(UTC))

    def asks(
        self,
        kind: Kind,
        task: str,
        payload: Any,
        *,
        attempt: int = 1,
        trace: Mapping[str, str] = NOWHERE,
        **more: Any,
    ) -> tuple[str, Any]:
        """`(key of the reply in the documents, its payload)`."""
        outgoing = Outgoing(
            saga_id=self.saga_id,
            message_id=message_id(self.saga_id, "cook", kind, attempt),
            operation_id=operation_id(self.saga_id, "cook"),
            kind=kind,
            task=task,
            queue="kitchen.commands",
            attempt=attempt,
            not_after=datetime.now(UTC) + timedelta(hours=1),
            payload=payload,
            **more,
        )
        message = to_wire(command(outgoing, "shop.replies", trace))
        assert self.found(message) == task
        reply = self.participant.receive(message)
        assert reply is not None
        assert carried_by(reply.headers).keys() == trace.keys()
        return self.found(reply), json.loads(reply.body)[0][1]

    def found(self, message: WireMessage) -> str:
        """The message's one key in both documents."""
        body = json.loads(message.body)
        keys = [fitting(document, message.headers, body) for document in self.documents]
        assert keys[0] == keys[1]
        (key,) = keys[0]
        return key


@pytest.fixture
def talk() -> Conversation:
    return Conversation(make_kitchen(MemoryDatabase()))


def test_success_has_the_reply(talk: Conversation) -> None:
    key, payload = talk.asks(Kind.DO, "kitchen.cook", SOUP)

    assert (key, payload) == ("kitchen.cook.response.success", {"table": 4})


def test_a_declared_failure_is_found_by_its_name(talk: Conversation) -> None:
    key, payload = talk.asks(Kind.DO, "kitchen.cook", costing("0"))

    assert key == "kitchen.cook.response.failure.Closed"
    assert payload["type"] == "Closed"


def test_a_declared_failure_is_found_by_its_name_on_the_wire(talk: Conversation) -> None:
    key, _ = talk.asks(Kind.DO, "kitchen.cook", costing("1001"))

    assert key == "kitchen.cook.response.failure.Gluttony"


def test_a_fault_is_the_standard_failure(talk: Conversation) -> None:
    key, payload = talk.asks(Kind.DO, "kitchen.cook", costing("-1"))

    assert key == "kitchen.cook.response.failure"
    assert payload["type"] == "OSError"


def test_a_fault_and_its_next_attempt(talk: Conversation) -> None:
    talk.asks(Kind.DO, "kitchen.cook", costing("-1"))

    key, _ = talk.asks(Kind.DO, "kitchen.cook", SOUP, attempt=2)

    assert key == "kitchen.cook.response.success"


def test_a_command_after_its_compensation_is_the_standard_failure(talk: Conversation) -> None:
    key, _ = talk.asks(Kind.UNDO, "kitchen.take_back", {"table": None})
    assert key == "kitchen.take_back.response.success"

    key, payload = talk.asks(Kind.DO, "kitchen.cook", SOUP)

    assert key == "kitchen.cook.response.failure"
    assert payload["type"] == "Withdrawn"


def test_undoing_succeeds_and_refuses(talk: Conversation) -> None:
    talk.asks(Kind.DO, "kitchen.cook", SOUP)

    refused, payload = talk.asks(Kind.UNDO, "kitchen.take_back", {"table": 13}, known=True)
    assert refused == "kitchen.take_back.response.failure"
    assert payload["type"] == "Closed"

    undone, _ = talk.asks(Kind.UNDO, "kitchen.take_back", {"table": 4}, attempt=2, known=True)
    assert undone == "kitchen.take_back.response.success"


def test_a_row_that_is_missing_is_the_standard_failure(talk: Conversation) -> None:
    for kind, task in ((Kind.UNDO, "kitchen.take_back"), (Kind.SETTLE, "kitchen.cook.settle")):
        key, payload = talk.asks(kind, task, {"table": 4} if kind is Kind.UNDO else None, known=True)

        assert key == f"{task}.response.failure"
        assert payload["type"] == "InboxRowMissing"


@pytest.mark.parametrize(
    ("price", "answer"),
    [("4.50", "done"), ("0", "refused"), ("-1", "withdrawn"), (None, "withdrawn")],
)
def test_each_answer_to_settling(talk: Conversation, price: str | None, answer: str) -> None:
    if price is not None:
        talk.asks(Kind.DO, "kitchen.cook", costing(price))

    key, payload = talk.asks(Kind.SETTLE, "kitchen.cook.settle", None)

    assert key == "kitchen.cook.settle.response.success"
    assert payload["answer"] == answer


def test_an_operator_takes_the_undoing_over(talk: Conversation) -> None:
    talk.asks(Kind.DO, "kitchen.cook", SOUP)

    key, payload = talk.asks(Kind.SETTLE, "kitchen.cook.settle", {"table": 4}, known=True, hand_over=True)

    assert key == "kitchen.cook.settle.response.success"
    assert payload == {"answer": "yours_to_undo", "reply": {"table": 4}}


def test_a_command_without_fields_and_without_a_reply(talk: Conversation) -> None:
    assert talk.asks(Kind.DO, "kitchen.bill", {}) == ("kitchen.bill.response.success", None)


def test_traced_messages_are_documented_and_a_context_that_is_none_is_not(talk: Conversation) -> None:
    trace = {TRACEPARENT: f"00-{'a' * 32}-{'b' * 16}-01", TRACESTATE: "shop=1"}
    with traced():
        key, _ = talk.asks(Kind.DO, "kitchen.cook", SOUP, trace=trace)
        undone, _ = talk.asks(Kind.UNDO, "kitchen.take_back", {"table": 4}, known=True, trace=trace)

    assert (key, undone) == ("kitchen.cook.response.success", "kitchen.take_back.response.success")
    for name in (TRACEPARENT, TRACESTATE):
        with pytest.raises(ValueError, match="not enough values"):
            talk.asks(Kind.DO, "kitchen.cook", SOUP, trace=trace | {name: "?" * 600})


def test_a_payload_that_does_not_validate_is_undocumented_and_its_refusal_is_not(talk: Conversation) -> None:
    outgoing = Outgoing(
        saga_id=talk.saga_id,
        message_id=message_id(talk.saga_id, "cook", Kind.DO, 1),
        operation_id=operation_id(talk.saga_id, "cook"),
        kind=Kind.DO,
        task="kitchen.cook",
        queue="kitchen.commands",
        attempt=1,
        not_after=datetime.now(UTC) + timedelta(hours=1),
        payload={"dishes": "all"},
    )
    message = to_wire(command(outgoing, "shop.replies"))

    reply = talk.participant.receive(message)

    assert fitting(talk.documents[0], message.headers, json.loads(message.body)) == []
    assert reply is not None
    assert talk.found(reply) == "kitchen.cook.response.failure"


@pytest.mark.parametrize(
    "headers",
    [
        {"saga_attempt": "first"},
        {"saga_operation_id": None},
        {"task": "kitchen.boil"},
        {"retries": -1},
        {"saga_result": "maybe"},
    ],
)
def test_other_headers_are_undocumented(talk: Conversation, headers: Mapping[str, Any]) -> None:
    document = talk.documents[0]
    key = "kitchen.cook.response.success" if "saga_result" in headers else "kitchen.cook"
    (example,) = document["components"]["messages"][key]["examples"]
    assert fitting(document, example["headers"], example["payload"]) == [key]

    assert fitting(document, example["headers"] | headers, example["payload"]) == []


# ---- participants without an inbox ----------------------------------------------------------------


def test_old_participants_get_the_same_message_and_answer_without_our_headers() -> None:
    document = of_the_shop(Leftovers)
    saga_id = new_saga_id(datetime.now(UTC))
    outgoing = Outgoing(
        saga_id=saga_id,
        message_id=str(uuid4()),
        operation_id=operation_id(saga_id, "warm"),
        kind=Kind.DO,
        task="old_kitchen.warm",
        queue="old.commands",
        attempt=1,
        not_after=datetime.now(UTC) + timedelta(hours=1),
        payload={},
        protocol=WireProtocol.DEMO,
    )
    undoing = replace(outgoing, kind=Kind.UNDO, task="old_kitchen.cool_down")

    for each in (outgoing, undoing):
        message = to_wire(command(each, "shop.replies"))
        assert fitting(document, message.headers, json.loads(message.body)) == [each.task]

    # As saga-framework 0.1 calls `send_task` from inside the task.
    app = Celery(broker="memory://")
    failure = {"type": "ValueError", "message": "cold", "module": "builtins", "traceback": "Traceback ..."}
    for suffix, payload, key in (
        ("success", {"table": 4}, "old_kitchen.warm.response.success"),
        ("failure", failure, "old_kitchen.warm.response.failure"),
        ("failure", failure | {"type": "Closed"}, "old_kitchen.warm.response.failure.Closed"),
    ):
        name = f"old_kitchen.warm.response.{suffix}"
        sent = app.amqp.as_task_v2(
            str(uuid4()),
            name,
            (saga_id, payload),
            {},
            root_id=outgoing.message_id,
            parent_id=outgoing.message_id,
        )
        assert fitting(document, sent.headers, json.loads(json.dumps(sent.body))) == [key]


@pytest.fixture
def logging_as_it_is() -> Iterator[None]:
    """Celery leaves the log alone if somebody else says that he sets it up."""
    setup_logging.connect(_leave_logging, weak=False)
    yield
    setup_logging.disconnect(_leave_logging)


def _leave_logging(**_: object) -> None:
    """There is nothing to set up."""


@pytest.mark.usefixtures("logging_as_it_is")
def test_a_plain_tasks_worker_sends_what_is_documented() -> None:
    document = of_the_shop(Dinner)
    replies = f"replies-{uuid4()}"
    queue = f"tasks-{uuid4()}"
    app = Celery("plain", broker="memory://", set_as_current=False)
    app.conf.task_default_queue = queue
    app.conf.broker_transport_options = {"polling_interval": 0.01}

    @app.task(name="shop.tasks.reserve_chair")
    def reserve_chair(chair: int) -> dict[str, int]:
        if chair > 9:
            raise ValueError("there are nine")
        return {"chair": chair}

    seen = {}
    with (
        start_worker(app, pool="solo", perform_ping_check=False, loglevel="CRITICAL"),
        Connection("memory://", transport_options={"polling_interval": 0.01}) as connection,
    ):
        for chair in (1, 10):
            saga_id = new_saga_id(datetime.now(UTC))
            outgoing = Outgoing(
                saga_id=saga_id,
                message_id=message_id(saga_id, "reserve", Kind.DO, 1),
                operation_id=operation_id(saga_id, "reserve"),
                kind=Kind.DO,
                task="shop.tasks.reserve_chair",
                queue=queue,
                attempt=1,
                not_after=datetime.now(UTC) + timedelta(hours=1),
                payload={"chair": chair},
                protocol=WireProtocol.CELERY,
            )
            message = to_wire(command(outgoing, replies))
            assert fitting(document, message.headers, json.loads(message.body)) == [outgoing.task]
            properties = {name: message.properties[name] for name in ("correlation_id", "content_type")}
            connection.Producer().publish(
                message.body,
                routing_key=queue,
                headers=dict(message.headers),
                content_encoding="utf-8",
                **properties,
            )
        answers = connection.SimpleQueue(replies)
        for _ in range(2):
            answer = answers.get(timeout=10)
            body = json.loads(answer.body or "")
            (key,) = fitting(document, answer.headers, body)
            seen[key] = body[0][0]
        answers.close()

    assert seen["shop.tasks.reserve_chair.linked.success"] == {"chair": 1}
    assert isinstance(seen["shop.tasks.reserve_chair.linked.failure"], str)
