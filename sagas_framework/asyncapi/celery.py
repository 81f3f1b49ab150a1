"""What Celery's message protocol 2 puts around a payload: the headers, and the body's three parts.

Each kind of message has one trait with all of its headers, Celery's and ours, so that a message only says
what is special about it: the task's name, and which result a reply tells.

Reference:
    Celery's message protocol, version 2; ``docs/reference/wire.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sagas_framework.core.events import Result
from sagas_framework.telemetry import LONGEST_STATE, TRACEPARENT, TRACESTATE
from sagas_framework.transport.envelope import ATTEMPT, HAND_OVER, KNOWN, NOT_AFTER, OPERATION_ID, RESULT
from sagas_framework.transport.event_wire import EVENT_AT, EVENT_NUMBER

Schema = dict[str, Any]

EMBED_NAME: Final = "CeleryEmbed"

# ---- headers --------------------------------------------------------------------------------------

_CELERYS: Final[Mapping[str, Schema]] = {
    "lang": {"type": "string", "description": "The sender's programming language."},
    "task": {"type": "string", "description": "The task's name, by which a worker finds its code."},
    "id": {
        "type": "string",
        "format": "uuid",
        "description": "The message's id. The AMQP property `correlation_id` has it, too.",
    },
    "root_id": {"type": "string", "format": "uuid"},
    "parent_id": {"type": ["string", "null"], "format": "uuid"},
    "group": {"type": ["string", "null"], "description": "Celery's own; it means nothing here."},
    "shadow": {"type": ["string", "null"], "description": "Not used."},
    "eta": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "Not used: timers are the orchestrator's.",
    },
    "expires": {
        "type": ["string", "null"],
        "format": "date-time",
        "description": "Only to plain Celery tasks: no worker begins the task later.",
    },
    "retries": {"type": "integer", "minimum": 0, "description": "Celery's own retries."},
    "timelimit": {
        "type": "array",
        "items": [{"type": ["number", "null"]}, {"type": ["number", "null"]}],
        "additionalItems": False,
        "minItems": 2,
        "description": "Not used.",
    },
    "ignore_result": {
        "type": ["boolean", "null"],
        "description": "`true`: answers are messages, not Celery results.",
    },
    "argsrepr": {"type": "string", "description": "Blanked: it would carry payloads into workers' logs."},
    "kwargsrepr": {"type": "string", "description": "Blanked, too."},
    "origin": {"type": ["string", "null"], "description": "`saga`, or Celery's `pid@host`."},
}
# Optional in the protocol: Celery writes them, releases differ in whether they write the first and the last,
# and ours say nothing that way.
_NOT_ALWAYS: Final = ("shadow", "eta", "expires", "retries", "timelimit", "ignore_result")

_OURS: Final[Mapping[str, Schema]] = {
    OPERATION_ID: {
        "type": "string",
        "format": "uuid",
        "description": "One per saga and step: for every attempt, for sending again, for undoing and for "
        "settling. The receiver remembers under it what it has done.",
    },
    ATTEMPT: {"type": "integer", "minimum": 1, "description": "Which attempt or try it is, from 1 on."},
    NOT_AFTER: {
        "type": "string",
        "format": "date-time",
        "description": "With a UTC offset. A later delivery is neither executed nor answered.",
    },
    KNOWN: {
        "type": "string",
        "enum": ["succeeded", "unknown"],
        "description": "What the saga knows of the step that is undone or settled.",
    },
    HAND_OVER: {
        "type": "boolean",
        "const": True,
        "description": "Only if an operator takes the undoing over.",
    },
    RESULT: {
        "type": "string",
        "enum": [result.value for result in Result],
        "description": "`success`; `refused`: a final no; `failed`: a fault that may pass.",
    },
}

_EVENTS: Final[Mapping[str, Schema]] = {
    EVENT_AT: {
        "type": "string",
        "format": "date-time",
        "description": "When it was published, with a UTC offset.",
    },
    EVENT_NUMBER: {
        "type": "integer",
        "minimum": 0,
        "description": "Grows from event to event of one publishing database. They come in any order.",
    },
}

_TRACED: Final[Mapping[str, Schema]] = {
    TRACEPARENT: {
        "type": "string",
        "description": "Only if its sender traces: W3C Trace Context. Nothing depends on it, and a message "
        "that is sent again has another.",
        "pattern": "^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}",
    },
    TRACESTATE: {
        "type": "string",
        "description": "Beside the former, if there is one.",
        "maxLength": LONGEST_STATE,
    },
}

_ASKING: Final = (OPERATION_ID, ATTEMPT, NOT_AFTER)


# What their ids refer to: ours alone has no parent.
_OF_WHAT_ASKS: Final = {"root_id": "The message's own id.", "parent_id": "`null`: no message's task sent it."}
_OF_WHAT_ANSWERS: Final = dict.fromkeys(("root_id", "parent_id"), "The id of the message that is answered.")


def _headers(
    title: str,
    ids: Mapping[str, str],
    ours: Sequence[str],
    optional: Sequence[str] = (),
    *,
    traced: Mapping[str, Schema] = _TRACED,
) -> Schema:
    properties = {**_CELERYS, **{name: {**_OURS, **_EVENTS}[name] for name in (*ours, *optional)}, **traced}
    return {
        "title": title,
        "type": "object",
        "required": [*(name for name in _CELERYS if name not in _NOT_ALWAYS), *ours],
        "properties": {
            name: {**schema, "description": ids[name]} if name in ids else schema
            for name, schema in properties.items()
        },
    }


def _of_a_signal() -> Schema:
    """Its id is its sender's own, who need not be a saga nor be in a task."""
    made = _headers("Headers of a signal", {}, ())
    its_id = "Under it, it is the same signal. The AMQP property `correlation_id` has it, too."
    made["properties"] |= {
        "id": {"type": "string", "minLength": 1, "maxLength": 100, "description": its_id},
        "root_id": {
            "type": ["string", "null"],
            "description": "Of the sender's task; it means nothing here.",
        },
        "parent_id": {
            "type": ["string", "null"],
            "description": "Of the sender's task; it means nothing here.",
        },
    }
    return made


COMMAND: Final = "command"
COMPENSATION: Final = "compensation"
SETTLING: Final = "settling"
REPLY: Final = "reply"
PLAIN_REPLY: Final = "plain_reply"
EVENT: Final = "event"
SIGNAL: Final = "signal"

_TRAITS: Final[Mapping[str, tuple[Schema, str]]] = {
    COMMAND: (_headers("Headers of a command", _OF_WHAT_ASKS, _ASKING), "taskId"),
    COMPENSATION: (_headers("Headers of a compensation", _OF_WHAT_ASKS, (*_ASKING, KNOWN)), "taskId"),
    SETTLING: (_headers("Headers of a settling", _OF_WHAT_ASKS, (*_ASKING, KNOWN), (HAND_OVER,)), "taskId"),
    REPLY: (_headers("Headers of a reply", _OF_WHAT_ANSWERS, (RESULT,)), "answeredId"),
    EVENT: (_headers("Headers of an event", _OF_WHAT_ASKS, (EVENT_AT, EVENT_NUMBER)), "eventId"),
    SIGNAL: (_of_a_signal(), "signalId"),
    PLAIN_REPLY: (
        _headers("Headers of a reply that Celery sends", _OF_WHAT_ANSWERS, (), traced={}),
        "answeredId",
    ),
}

CORRELATION_IDS: Final[Mapping[str, Schema]] = {
    "taskId": {
        "description": "The message's id, a UUIDv5 of saga, step, what is asked, and attempt: "
        "a message that is sent again keeps it. The AMQP property `correlation_id` has the same value.",
        "location": "$message.header#/id",
    },
    "eventId": {
        "description": "The event's id: an event that is sent again keeps it. The AMQP property "
        "`correlation_id` has the same value.",
        "location": "$message.header#/id",
    },
    "signalId": {
        "description": "The signal's id: sent again under it, it is the same signal. The AMQP property "
        "`correlation_id` has the same value.",
        "location": "$message.header#/id",
    },
    "answeredId": {
        "description": "The id of the message that is answered. `parent_id` has the same value.",
        "location": "$message.header#/root_id",
    },
}


def correlation(trait: str) -> str:
    """The name of the correlation id that messages with this trait bear."""
    return _TRAITS[trait][1]


def trait(name: str) -> Schema:
    """The message trait of this name: headers and encoding."""
    return {
        "headers": _TRAITS[name][0],
        "contentType": "application/json",
        "bindings": {"amqp": {"contentEncoding": "utf-8", "bindingVersion": "0.3.0"}},
    }


# ---- the body -------------------------------------------------------------------------------------

_SIGNATURES: Final[Schema] = {
    "type": ["array", "null"],
    "items": {"type": "object", "required": ["task", "args", "kwargs", "options"]},
}

EMBED: Final[Schema] = {
    "title": EMBED_NAME,
    "type": "object",
    "description": "What Celery's worker sends by itself when the task has run.",
    "required": ["callbacks", "errbacks", "chain", "chord"],
    "properties": {
        "callbacks": _SIGNATURES | {"description": "Signatures called with the result."},
        "errbacks": _SIGNATURES | {"description": "Signatures called with the id of the task, if it failed."},
        "chain": {"type": ["array", "null"], "description": "Not used."},
        "chord": {"type": ["object", "null"], "description": "Not used."},
    },
}

ANY_KEYWORDS: Final[Schema] = {
    "title": "kwargs",
    "type": "object",
    "description": "Keyword arguments: what the task takes.",
}
NO_KEYWORDS: Final[Schema] = {
    "title": "kwargs",
    "type": "object",
    "maxProperties": 0,
    "description": "Keyword arguments: none.",
}


def body(title: str, arguments: Mapping[str, Schema], keywords: Schema = NO_KEYWORDS) -> Schema:
    """The body ``[args, kwargs, embed]``.

    Args:
        title: for code generators, the class of the message.
        arguments: a schema for each positional argument, by its name.
        keywords: that of the keyword arguments.
    """
    positional: Schema = {
        "title": "args",
        "type": "array",
        "description": f"Positional arguments: {', '.join(f'`{name}`' for name in arguments) or 'none'}.",
        "items": list(arguments.values()),
        "additionalItems": False,
        "minItems": len(arguments),
        "maxItems": len(arguments),
    }
    if not arguments:  # draft-07 knows no tuple without places
        del positional["items"], positional["additionalItems"]
    return {
        "title": title,
        "type": "array",
        "description": "A Celery message of protocol 2: `[args, kwargs, embed]`.",
        "items": [positional, keywords, {"$ref": f"#/components/schemas/{EMBED_NAME}"}],
        "additionalItems": False,
        "minItems": 3,
        "maxItems": 3,
    }
