"""An event's form on the wire: a Celery task message, protocol 2, plain JSON, on a topic exchange.

Its task is its topic, ``<service>.<name>``, and its arguments are ``[event_id, payload]``: a plain Celery
worker whose queue is bound to the topic can take it as a task of that name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from sagas_framework.events import EXCHANGE
from sagas_framework.telemetry import NOWHERE, Carrier, carried_by
from sagas_framework.transport.envelope import UnreadableError, WireMessage

EVENT_AT: Final = "saga_event_at"
EVENT_NUMBER: Final = "saga_event_number"

_LARGEST_NUMBER: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class EventEnvelope:
    """An event as it travels.

    Args:
        body: its fields as JSON text.
        at: when it was published.
        number: in its outbox; grows from event to event of one database.
        trace: the context in which it was published, if that is traced.
    """

    event_id: str
    topic: str
    body: str
    at: datetime
    number: int
    trace: Carrier = field(default_factory=lambda: NOWHERE)


def event_to_wire(event: EventEnvelope) -> WireMessage:
    """The message, for the exchange of all events."""
    headers = {
        "lang": "py",
        "task": event.topic,
        "id": event.event_id,
        "root_id": event.event_id,
        "parent_id": None,
        "group": None,
        "shadow": None,
        "eta": None,
        "expires": None,
        "retries": 0,
        "timelimit": [None, None],
        "ignore_result": True,
        # Blank: they would leak payloads into headers and into workers' logs.
        "argsrepr": "[...]",
        "kwargsrepr": "{}",
        "origin": "saga",
        EVENT_AT: event.at.isoformat(),
        EVENT_NUMBER: event.number,
        **event.trace,
    }
    properties = {
        "correlation_id": event.event_id,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
    }
    embed = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
    # The payload is JSON already.
    body = f"[[{json.dumps(event.event_id)},{event.body}],{{}},{embed}]"
    return WireMessage(event.topic, headers, properties, body.encode(), exchange=EXCHANGE)


def event_from_wire(message: WireMessage) -> EventEnvelope:
    """The inverse of `event_to_wire`, for messages from anywhere.

    Raises:
        UnreadableError: it is not an event.
    """
    content = message.properties.get("content_type")
    if content != "application/json":
        raise UnreadableError(f"the content type is {content!r}, not application/json")
    topic = _text(message.headers.get("task"), "the task's name", 200)
    try:
        body = json.loads(message.body)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"the body is not JSON: {error}") from None
    arguments = body[0] if isinstance(body, list) and body else None
    if not isinstance(arguments, list) or len(arguments) != 2:
        raise UnreadableError("the task's arguments should be [event_id, payload]", "$[0]")
    event_id = _text(arguments[0], "the event's id", 64, "$[0][0]")
    number = message.headers.get(EVENT_NUMBER)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number <= _LARGEST_NUMBER:
        raise UnreadableError(f"the header {EVENT_NUMBER} is {repr(number)[:80]}, not a number")
    fields, trace = json.dumps(arguments[1]), carried_by(message.headers)
    return EventEnvelope(event_id, topic, fields, _moment(message.headers), number, trace)


def _moment(headers: Any) -> datetime:
    told = headers.get(EVENT_AT)
    try:
        moment = datetime.fromisoformat(told)
        if moment.tzinfo is not None:
            return moment.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        pass
    raise UnreadableError(
        f"the header {EVENT_AT} is {repr(told)[:80]}, not a moment with its offset from UTC"
    ) from None


def _text(value: object, what: str, limit: int, path: str = "$") -> str:
    if isinstance(value, str) and 0 < len(value) <= limit and value.isprintable():
        return value
    raise UnreadableError(f"{what} is {repr(value)[:80]}, not 1 to {limit} printable characters", path)
