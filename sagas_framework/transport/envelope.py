"""A message between services, and its form on the wire: a Celery task message, protocol 2, plain JSON.

Commands are Celery tasks ``restaurant_service.create_ticket`` with the arguments ``[saga_id,
payload]``; replies are tasks ``<command>.response.success`` or ``.response.failure`` with the same
arguments, on the queue that the command names as ``reply_to``.

A plain Celery task takes the payload as its keyword arguments and knows of no saga. Its message names
callbacks (Celery's `link` and `link_error`) with which its worker itself sends the result to the reply
queue: tasks ``<command>.linked.success``, with the arguments ``[result, saga_id]``, or ``.linked.failure``
with ``[id of the failed task, saga_id]``.

Reference:
    Celery's message protocol, version 2.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sagas_framework.core.decide import storable
from sagas_framework.core.events import Outgoing, ReplyReceived, Result
from sagas_framework.core.ids import Kind, answer_id
from sagas_framework.core.inbox import Stored
from sagas_framework.messages import SIGNAL_INFIX, WireProtocol
from sagas_framework.telemetry import NOWHERE, Carrier

SUCCESS_SUFFIX: Final = ".response.success"
FAILURE_SUFFIX: Final = ".response.failure"
# Names of their own, because Celery puts what it adds *before* the arguments that it was given.
LINKED_SUCCESS_SUFFIX: Final = ".linked.success"
LINKED_FAILURE_SUFFIX: Final = ".linked.failure"

TASK_FAILED: Final = "TaskFailed"
"""The failure of a plain task, of which Celery tells us no more than that."""

# Our headers, beside Celery's own.
OPERATION_ID: Final = "saga_operation_id"
ATTEMPT: Final = "saga_attempt"
NOT_AFTER: Final = "saga_not_after"
KNOWN: Final = "saga_known"
HAND_OVER: Final = "saga_hand_over"
RESULT: Final = "saga_result"


_LAST_ATTEMPT: Final = 2**31 - 1
"""What a database keeps as an INTEGER."""


class UnreadableError(Exception):
    """A message that cannot be understood. `path`: where in its body, as a JSON path."""

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(reason)
        self.reason = reason
        self.path = path


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message as the shell handles it.

    Args:
        queue: where it is published, or was taken from.
        message_id: the Celery task's id.
        root_id, parent_id: of a reply, the message that it answers.
        reply_to: where the answer goes.
        headers: ours (`OPERATION_ID`, ...), without Celery's. Of one that came, without its trace's.
        protocol: how its receiver wants it written.
        expires: of a plain task: no worker begins it later than this. Celery sees to that.
    """

    queue: str
    task: str
    message_id: str
    saga_id: str
    payload: Any = None
    root_id: str | None = None
    parent_id: str | None = None
    reply_to: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    protocol: WireProtocol = WireProtocol.INBOX
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class WireMessage:
    """A message as a broker carries it.

    Args:
        queue: of a message on an exchange, the topic.
        once: it is not published again when it is not known whether the broker has it: its receiver
            keeps no inbox. Not on the wire.
        exchange: a topic exchange; empty for a message to one queue.
    """

    queue: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    body: bytes
    once: bool = False
    exchange: str = ""


def command(outgoing: Outgoing, reply_to: str, trace: Carrier = NOWHERE) -> Envelope:
    """The envelope of a command, a compensation or a settling. `trace`: the context that it carries."""
    headers: dict[str, Any] = {
        OPERATION_ID: outgoing.operation_id,
        ATTEMPT: outgoing.attempt,
        NOT_AFTER: outgoing.not_after.isoformat(),
    }
    if outgoing.kind is not Kind.DO:
        headers[KNOWN] = "succeeded" if outgoing.known else "unknown"
    if outgoing.hand_over:
        headers[HAND_OVER] = True
    headers.update(trace)
    return Envelope(
        queue=outgoing.queue,
        task=outgoing.task,
        message_id=outgoing.message_id,
        saga_id=outgoing.saga_id,
        payload=outgoing.payload,
        root_id=outgoing.message_id,
        reply_to=reply_to,
        headers=headers,
        protocol=outgoing.protocol,
        # An inbox's participant keeps watch itself (rule 10). An old one's Celery may be older than 5.3,
        # which cannot retry a task that expires: its retry is lost, and with it the answer.
        expires=outgoing.not_after if outgoing.protocol is WireProtocol.CELERY else None,
    )


def reply(to: Envelope, stored: Stored, trace: Carrier = NOWHERE) -> Envelope:
    """The envelope that answers a command. Answering twice makes the same message twice.

    Args:
        trace: the context that it carries, which is of this one answering.
    """
    assert to.reply_to is not None
    success = stored.result is Result.SUCCESS
    return Envelope(
        queue=to.reply_to,
        task=to.task + (SUCCESS_SUFFIX if success else FAILURE_SUFFIX),
        message_id=answer_id(to.message_id, stored.result.value),
        saga_id=to.saga_id,
        payload=stored.payload,
        root_id=to.message_id,
        parent_id=to.message_id,
        headers={RESULT: stored.result.value, **trace},
    )


def reply_received(envelope: Envelope, at: datetime) -> ReplyReceived:
    """What a reply says, as an event for the core.

    Raises:
        UnreadableError: it is no reply, or its failure payload is not one.
    """
    refs = tuple(ref for ref in (envelope.root_id, envelope.parent_id) if ref)
    # A message that nobody's task sent is its own root: that says nothing about what it answers.
    refs = tuple(dict.fromkeys(ref for ref in refs if ref != envelope.message_id))
    if RESULT not in envelope.headers:  # none of our participants', which see to it themselves
        try:
            storable(envelope.payload)
        except ValueError as why:
            raise UnreadableError(f"no database keeps this answer: {why}", "$[0]") from None
    for suffix in (SUCCESS_SUFFIX, LINKED_SUCCESS_SUFFIX):
        if envelope.task.endswith(suffix):
            task = envelope.task.removesuffix(suffix)
            return ReplyReceived(envelope.saga_id, at, refs, task, Result.SUCCESS, envelope.payload)
    if envelope.task.endswith(LINKED_FAILURE_SUFFIX):
        task = envelope.task.removesuffix(LINKED_FAILURE_SUFFIX)
        error = {
            "type": TASK_FAILED,
            "message": f"its worker's log says why, under the task id {envelope.payload}",
            "module": "celery",
        }
        return ReplyReceived(envelope.saga_id, at, refs, task, Result.FAILED, error=error)
    if not envelope.task.endswith(FAILURE_SUFFIX):
        raise UnreadableError(
            f"the task {envelope.task!r} is no reply: "
            f"its name should end in {SUCCESS_SUFFIX} or {FAILURE_SUFFIX}"
        )
    if not isinstance(envelope.payload, Mapping):
        raise UnreadableError("a failure's payload is an object with type, message and module", "$[0][1]")
    error = {name: str(envelope.payload.get(name, "")) for name in ("type", "message", "module")}
    try:
        result = Result(envelope.headers.get(RESULT, Result.FAILED))
    except ValueError:
        raise UnreadableError(f"the header {RESULT} is {envelope.headers[RESULT]!r}") from None
    if result is Result.SUCCESS:
        raise UnreadableError(f"a failure's header {RESULT} says success")
    task = envelope.task.removesuffix(FAILURE_SUFFIX)
    return ReplyReceived(envelope.saga_id, at, refs, task, result, error=error)


def signal_said(envelope: Envelope) -> tuple[str, str] | None:
    """Saga and name of the signal that a message from another service is; None if it is none."""
    saga, found, signal = envelope.task.rpartition(SIGNAL_INFIX)
    return (saga, signal) if found and saga and signal else None


# ---- the wire -------------------------------------------------------------------------------------

_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))
_EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

_NOTHING_MORE: Final = f",{{}},{_ENCODER.encode(_EMBED)}]"


def _callback(name: str, saga_id: str, queue: str) -> dict[str, Any]:
    """A signature that its worker, which does not know the task, sends to our queue.

    Not as the option ``queue``: the worker would look that name up among its own queues and, finding
    none, declare a classic queue of that name, which RabbitMQ refuses where ours is a quorum queue. The
    default exchange delivers to any queue by its name; Celery leaves both options alone only if the
    type of the exchange is not "direct".
    """
    options = {
        "exchange": "",
        "exchange_type": "topic",
        "routing_key": queue,
        "serializer": "json",
        "delivery_mode": 2,
        "ignore_result": True,
        "argsrepr": "[...]",
        "kwargsrepr": "{}",
    }
    return {
        "task": name,
        "args": [saga_id],
        "kwargs": {},
        "options": options,
        "subtask_type": None,
        "immutable": False,
    }


def _body(envelope: Envelope) -> str:
    """The task's arguments, keyword arguments, and what its worker sends when it has run."""
    if envelope.protocol is not WireProtocol.CELERY:
        return f"[{_ENCODER.encode([envelope.saga_id, envelope.payload])}{_NOTHING_MORE}"
    assert envelope.reply_to is not None
    done, failed = (
        _callback(envelope.task + suffix, envelope.saga_id, envelope.reply_to)
        for suffix in (LINKED_SUCCESS_SUFFIX, LINKED_FAILURE_SUFFIX)
    )
    embed = _EMBED | {"callbacks": [done], "errbacks": [failed]}
    return _ENCODER.encode([[], envelope.payload or {}, embed])


def to_wire(envelope: Envelope) -> WireMessage:
    """The message as Celery's protocol 2 has it, so that plain Celery tasks can be at either end."""
    # What the protocol demands, and of the rest what says something: each costs both ends time.
    headers = {
        "lang": "py",
        "task": envelope.task,
        "id": envelope.message_id,
        "root_id": envelope.root_id or envelope.message_id,
        "parent_id": envelope.parent_id,
        "group": None,
        "ignore_result": True,
        # Blank: they would leak payloads into headers and into workers' logs.
        "argsrepr": "[...]",
        "kwargsrepr": "{}",
        "origin": "saga",
        **envelope.headers,
    }
    if envelope.expires is not None:
        headers["expires"] = envelope.expires.isoformat()
    properties: dict[str, Any] = {
        "correlation_id": envelope.message_id,
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
    }
    # A plain task's worker would take it for where the result backend rpc:// wants results.
    if envelope.reply_to and envelope.protocol is not WireProtocol.CELERY:
        properties["reply_to"] = envelope.reply_to
    once = envelope.protocol is not WireProtocol.INBOX
    return WireMessage(envelope.queue, headers, properties, _body(envelope).encode(), once)


def from_wire(message: WireMessage) -> Envelope:
    """The inverse of `to_wire`, for messages from anywhere.

    Raises:
        UnreadableError: it is not a Celery task message with the arguments ``[saga_id, payload]``.
    """
    task, task_id = message.headers.get("task"), message.headers.get("id")
    if not isinstance(task, str) or not isinstance(task_id, str):
        raise UnreadableError("the headers name no task and id: not a Celery message of protocol 2")
    try:
        # Celery's own JSON for dates, decimals and ids: plain again, as we write them ourselves.
        hook = _unwrapped if b'"__type__"' in message.body else None
        body = json.loads(message.body, object_hook=hook)
    except ValueError as error:
        raise UnreadableError(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise UnreadableError("the body is nested too deeply") from None
    arguments = body[0] if isinstance(body, list) and body else None
    return envelope_of(message.queue, task, task_id, arguments, message.headers, message.properties)


def _unwrapped(value: dict[str, Any]) -> Any:
    """What kombu wrapped as ``{"__type__": "date", "__value__": "2026-03-01"}``, without its wrapper."""
    if value.keys() != {"__type__", "__value__"}:
        return value
    inner = value["__value__"]
    if value["__type__"] != "uuid":
        return inner
    try:
        return str(UUID(inner["hex"]))
    except (TypeError, KeyError, AttributeError):
        raise ValueError(f"{repr(inner)[:80]} is no UUID") from None


def envelope_of(
    queue: str,
    task: str,
    task_id: str,
    arguments: Any,
    headers: Mapping[str, Any],
    properties: Mapping[str, Any],
) -> Envelope:
    """An envelope from the parts of a task message.

    Raises:
        UnreadableError: the arguments are not ``[saga_id, payload]``.
    """
    if not isinstance(arguments, list | tuple) or len(arguments) != 2:
        raise UnreadableError("the task's arguments should be [saga_id, payload]", "$[0]")
    saga_id, payload = arguments
    where = "$[0][0]"
    if task.endswith((LINKED_SUCCESS_SUFFIX, LINKED_FAILURE_SUFFIX)):
        (payload, saga_id), where = arguments, "$[0][1]"
    if not isinstance(saga_id, str | int) or isinstance(saga_id, bool):
        raise UnreadableError(f"the saga's id is {saga_id!r}", where)
    ours = {name: value for name, value in headers.items() if name.startswith("saga_")}
    if OPERATION_ID in ours:
        _name(ours[OPERATION_ID], f"the header {OPERATION_ID}", 64)
    attempt = ours.get(ATTEMPT, 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool) or not 0 < attempt <= _LAST_ATTEMPT:
        told = repr(attempt)[:80]
        raise UnreadableError(f"the header {ATTEMPT} is {told}, not a number from 1 to {_LAST_ATTEMPT}")
    # A signal names its saga's key, which may be longer than an id.
    longest = 200 if SIGNAL_INFIX in task else 64
    return Envelope(
        queue=queue,
        task=_name(task, "the task's name", 200),
        message_id=_name(task_id, "the task's id", 64),
        saga_id=_name(str(saga_id), "the saga's id", longest, where),
        payload=payload,
        root_id=_name(headers.get("root_id") or None, "the header root_id", 255),
        parent_id=_name(headers.get("parent_id") or None, "the header parent_id", 255),
        reply_to=_name(properties.get("reply_to") or None, "reply_to", 255),
        headers=ours,
    )


def _name(value: Any, what: str, limit: int, path: str = "$") -> Any:
    """The value if it can be a name in a database and on a broker, or is None.

    Raises:
        UnreadableError: it cannot.
    """
    if value is None or (isinstance(value, str) and 0 < len(value) <= limit and value.isprintable()):
        return value
    raise UnreadableError(f"{what} is {repr(value)[:80]}, not 1 to {limit} printable characters", path)
