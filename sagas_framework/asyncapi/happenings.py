"""The messages that say what has happened: domain events, of which nobody answers one."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, Final

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described, Schemas
from sagas_framework.asyncapi.pieces import class_name, said
from sagas_framework.asyncapi.samples import Example, read_back
from sagas_framework.events import EXCHANGE, Event, EventQueue
from sagas_framework.transport.connecting import queue_arguments
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire

EVENT_ID: Final = "3b6c1a52-6f0e-4b59-9d2c-000000000001"
_AT: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
TAG: Final = ("event", "Says what has happened, to whoever subscribes.")


def happening(event: type[Event], schemas: Schemas) -> Described:
    """An event as a message of the document."""
    summary, description = said(event)
    topic = event.contract.task
    return Described(
        key=topic,
        task=topic,
        title=event.__name__,
        summary=summary or event.__name__,
        description=description,
        tag=TAG[0],
        trait=celery.EVENT,
        payload=celery.body(class_name(topic), {"event_id": _event_id(), "payload": schemas[event]}),
        examples=[_example(event)],
    )


def _event_id() -> Schema:
    return {
        "title": "event_id",
        "type": "string",
        "format": "uuid",
        "description": "`event_id`: one per event; who has handled it leaves out what comes again.",
    }


def _example(event: type[Event]) -> Example:
    body = json.dumps(read_back(event))
    wire = event_to_wire(EventEnvelope(EVENT_ID, event.contract.task, body, _AT, 1))
    return Example("typical", event.__name__, wire.headers, json.loads(wire.body))


def topic_binding(virtual_host: str) -> dict[str, Any]:
    """The AMQP binding of a topic's channel."""
    return {
        "is": "routingKey",
        "exchange": {
            "name": EXCHANGE,
            "type": "topic",
            "durable": True,
            "autoDelete": False,
            "vhost": virtual_host,
        },
        "bindingVersion": "0.3.0",
    }


def told(action: str, described: Described, queue: EventQueue | None) -> str:
    """What an operation says of itself."""
    lines = [described.description] if described.description else []
    if action == "send":
        lines.append(
            "Published with what it tells of, in one transaction, and sent at least once, in no certain "
            "order. Nobody need subscribe."
        )
    else:
        assert queue is not None
        arguments = ", ".join(f"`{name}` `{value}`" for name, value in queue_arguments(queue).items())
        lines.append(
            f"Taken from the queue `{queue.name}`{f' ({arguments})' if arguments else ''}, which is bound to "
            "the topic. It may come more than once, and late; each subscriber handles it once."
        )
    return "\n\n".join(lines)
