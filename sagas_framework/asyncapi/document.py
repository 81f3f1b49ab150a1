"""The document itself: info, servers, channels, operations and components.

How it is laid out, and why:

- A channel for each command, compensation and settling, though those of a service share a queue, its
  ``address``: so an operation's message is one, not any of the queue's.
- A channel ``<task>.replies`` for what answers it. At the sender its address is the reply queue. A
  participant answers to whatever queue a message names, so there the address is null. A service that
  asks itself has both: what it answers is on ``<task>.replies_to_all``.
- A message for each declared failure, though all bear the task's name ``<task>.response.failure``: the
  payload's ``type`` tells them apart. What is not declared is ``<task>.response.failure`` itself.
- A channel for each event, whose ``address`` is its topic on the exchange of all events. A subscriber's
  queue is in the words of its operation, for publisher and subscribers describe one channel alike.
- A channel for each signal, on the reply queue of the orchestrator whose saga waits for it.
- Operations are named ``send_<task>`` and ``receive_<task>``, settlings ``..._settle``.
- AMQP's binding 0.3.0 has no place for a queue's arguments, so they are its extension
  ``x-queue-arguments``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi import signals as heard
from sagas_framework.asyncapi.answering import answers
from sagas_framework.asyncapi.asking import asking, models, named
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.asyncapi.happenings import TAG, happening, told, topic_binding
from sagas_framework.asyncapi.pieces import class_name
from sagas_framework.asyncapi.schemas import schemas_of
from sagas_framework.asyncapi.signals import Awaited
from sagas_framework.core.ids import Kind
from sagas_framework.errors import DefinitionError
from sagas_framework.events import EXCHANGE, Event, EventQueue
from sagas_framework.messages import Queue, WireProtocol
from sagas_framework.transport.connecting import queue_arguments

VERSION: Final = "3.1.0"
_KEY: Final = re.compile(r"[A-Za-z0-9._-]+")
BINDING: Final = {"bindingVersion": "0.3.0"}

TAGS: Final[Mapping[Kind, tuple[str, str]]] = {
    Kind.DO: ("command", "Asks a service for something."),
    Kind.UNDO: ("compensation", "Undoes what a command did or may have done."),
    Kind.SETTLE: ("settling", "Asks how a command went, and closes it."),
}


def document(
    info: Mapping[str, Any],
    *,
    identifier: str,
    servers: Mapping[str, Any],
    virtual_host: str,
    receives: Sequence[Exchange],
    sends: Sequence[Exchange],
    reply_queue: Queue | None,
    publishes: Sequence[type[Event]] = (),
    subscribes: Sequence[type[Event]] = (),
    event_queue: EventQueue | None = None,
    awaits: Sequence[Awaited] = (),
) -> dict[str, Any]:
    """The document, in plain JSON types.

    Args:
        info: the Info Object but for its tags.
        reply_queue: of the sender, where it wants its answers.
        event_queue: of the subscriber, from which it takes what it subscribes to.
        awaits: what the sender's sagas wait for, on the reply queue.
    """
    built = _Building(servers, virtual_host, [*sends, *receives], [*publishes, *subscribes], awaits)
    for exchange in sends:
        built.add("send", exchange, reply_queue)
    for exchange in receives:
        built.add("receive", exchange, None)
    for one in awaits:
        assert reply_queue is not None  # it has sagas
        built.add_signal(one, reply_queue)
    for event in publishes:
        built.add_event("send", event, None)
    for event in subscribes:
        built.add_event("receive", event, event_queue)
    made = {
        "asyncapi": VERSION,
        "id": identifier,
        "info": {**info, "tags": built.tags()},
        "defaultContentType": "application/json",
        "servers": servers,
        "channels": built.channels,
        "operations": built.operations,
        "components": built.components(),
    }
    plain: dict[str, Any] = json.loads(json.dumps(made))  # nothing in it is shared with anything
    return plain


class _Building:
    def __init__(
        self,
        servers: Mapping[str, Any],
        virtual_host: str,
        exchanges: Iterable[Exchange],
        events: Sequence[type[Event]],
        awaits: Sequence[Awaited],
    ) -> None:
        self.servers = [{"$ref": f"#/servers/{name}"} for name in servers]
        self.virtual_host = virtual_host
        self.channels: dict[str, Schema] = {}
        self.operations: dict[str, Schema] = {}
        self.messages: dict[str, Described] = {}
        self.kinds: set[Kind] = set()
        self.sagas: dict[str, None] = {}
        exchanges = list(exchanges)
        wanted: list[type[BaseModel]] = [model for exchange in exchanges for model in models(exchange)]
        wanted += [one.signal for one in awaits]
        tasks = [*(exchange.task for exchange in exchanges), *(event.contract.task for event in events)]
        tasks += [one.task for one in awaits]
        # A code generator would put one class in the place of the other, without a word.
        reserved = {celery.EMBED_NAME, *map(class_name, tasks)}
        self.schemas, self.named = schemas_of([*wanted, *events], reserved)
        self.has_events = bool(events)
        self.has_signals = bool(awaits)

    # ---- operations and channels --------------------------------------------------------------------

    def add(self, action: str, exchange: Exchange, reply_queue: Queue | None) -> None:
        """An exchange, seen by the one who sends or receives what asks.

        Raises:
            DefinitionError: its task has a name that AsyncAPI has no place for.
        """
        _see_that_it_has_a_place(exchange.task, "task")
        request = self._message(asking(exchange, self.schemas))
        replies = [self._message(reply) for reply in answers(exchange, self.schemas)]
        self.kinds.add(exchange.kind)
        key = exchange.task
        self.channels[key] = self._channel(
            named(exchange),
            f"The task `{key}`, on the queue `{exchange.queue.name}`.",
            exchange.queue,
            [request],
        )
        operation: Schema = {
            "action": action,
            "title": named(exchange),
            "summary": request.summary,
            "description": _told(action, exchange, request),
            "tags": [{"name": TAGS[exchange.kind][0]}, *self._saga_tags(exchange)],
            "channel": {"$ref": f"#/channels/{key}"},
            "bindings": {"amqp": {"deliveryMode": 2, "ack": True, **BINDING}},
        }
        if replies:
            operation["reply"] = self._reply(exchange, replies, reply_queue)
        self.operations[_operation_id(action, exchange)] = operation

    def add_event(self, action: str, event: type[Event], queue: EventQueue | None) -> None:
        """An event, seen by the one who publishes it or subscribes to it."""
        described = self._message(happening(event, self.schemas))
        key = event.contract.task
        if key in self.channels and "reply" in self.operations.get(f"{action}_{key}", {}):
            raise DefinitionError(f"{key} is a command and an event. Give one of them another name=.")
        self.channels[key] = {
            "address": key,
            "title": described.title,
            "description": f"The topic `{key}` of the exchange `{EXCHANGE}`.",
            "servers": self.servers,
            "messages": {key: {"$ref": f"#/components/messages/{key}"}},
            "bindings": {"amqp": topic_binding(self.virtual_host)},
        }
        self.operations[f"{action}_{key}"] = {
            "action": action,
            "title": described.title,
            "summary": described.summary,
            "description": told(action, described, queue),
            "tags": [{"name": TAG[0]}],
            "channel": {"$ref": f"#/channels/{key}"},
            "bindings": {"amqp": {"deliveryMode": 2, "ack": True, **BINDING}},
        }

    def add_signal(self, one: Awaited, queue: Queue) -> None:
        """A signal, seen by the orchestrator whose saga waits for it.

        Raises:
            DefinitionError: it has a name that AsyncAPI has no place for.
        """
        key = one.task
        _see_that_it_has_a_place(key, "signal")
        described = self._message(heard.signalling(one, self.schemas))
        self.channels[key] = self._channel(
            described.title, f"The task `{key}`, on the queue `{queue.name}`.", queue, [described]
        )
        self.sagas.setdefault(one.saga)
        self.operations[f"receive_{key}"] = {
            "action": "receive",
            "title": described.title,
            "summary": described.summary,
            "description": heard.told(one, described),
            "tags": [{"name": heard.TAG[0]}, {"name": one.saga}],
            "channel": {"$ref": f"#/channels/{key}"},
            "bindings": {"amqp": {"deliveryMode": 2, "ack": True, **BINDING}},
        }

    def _reply(self, exchange: Exchange, replies: Sequence[Described], queue: Queue | None) -> Schema:
        key = f"{exchange.task}.replies"
        if key in self.channels:  # a service that asks itself: it answers others, too
            key = f"{exchange.task}.replies_to_all"
        where = (
            f"on the queue `{queue.name}`" if queue else "on the queue that the message's `reply_to` names"
        )
        self.channels[key] = self._channel(
            f"Replies to {named(exchange)}", f"What answers `{exchange.task}`, {where}.", queue, replies
        )
        reply: Schema = {
            "channel": {"$ref": f"#/channels/{key}"},
            "messages": [{"$ref": f"#/channels/{key}/messages/{message.key}"} for message in replies],
        }
        if queue is None:
            reply["address"] = {
                "location": "$message.header#/reply_to",
                "description": "The AMQP property `reply_to`: each orchestrator has a queue of its own.",
            }
        return reply

    def _channel(
        self, title: str, description: str, queue: Queue | None, messages: Sequence[Described]
    ) -> Schema:
        return {
            "address": queue.name if queue else None,
            "title": title,
            "description": description,
            "servers": self.servers,
            "messages": {
                message.key: {"$ref": f"#/components/messages/{message.key}"} for message in messages
            },
            **({"bindings": {"amqp": self._queue_binding(queue)}} if queue else {}),
        }

    def _queue_binding(self, queue: Queue) -> Schema:
        return {
            "is": "queue",
            "queue": {
                "name": queue.name,
                "durable": True,
                "exclusive": False,
                "autoDelete": False,
                "vhost": self.virtual_host,
            },
            "x-queue-arguments": queue_arguments(queue) or {},
            **BINDING,
        }

    def _message(self, message: Described) -> Described:
        known = self.messages.setdefault(message.key, message)
        if known.task != message.task or known.payload != message.payload:
            raise DefinitionError(
                f"{known.title} and {message.title} would both be {message.key!r} in the document. "
                "Give one of them another name."
            )
        return message

    # ---- the rest -----------------------------------------------------------------------------------

    def _saga_tags(self, exchange: Exchange) -> list[Schema]:
        names = list(dict.fromkeys(use.saga for use in exchange.uses))
        self.sagas.update(dict.fromkeys(names))
        return [{"name": name} for name in names]

    def tags(self) -> list[Schema]:
        """What its operations are tagged with."""
        return [
            *(
                {"name": name, "description": text}
                for kind, (name, text) in TAGS.items()
                if kind in self.kinds
            ),
            *([{"name": TAG[0], "description": TAG[1]}] if self.has_events else []),
            *([{"name": heard.TAG[0], "description": heard.TAG[1]}] if self.has_signals else []),
            *({"name": saga, "description": f"Sent by the saga {saga}."} for saga in self.sagas),
        ]

    def components(self) -> Schema:
        """What is used, and nothing else."""
        traits = {message.trait for message in self.messages.values()}
        correlated = {celery.correlation(trait) for trait in traits}
        embed = {celery.EMBED_NAME: celery.EMBED} if self.messages else {}
        return {
            "messages": {key: message.to_json() for key, message in self.messages.items()},
            "messageTraits": {name: celery.trait(name) for name in sorted(traits)},
            "correlationIds": {name: celery.CORRELATION_IDS[name] for name in sorted(correlated)},
            "schemas": dict(sorted({**self.named, **embed}.items())),
        }


def _see_that_it_has_a_place(name: str, what: str) -> None:
    if not _KEY.fullmatch(name):
        raise DefinitionError(
            f"The {what} {name!r} cannot be described: in AsyncAPI a name has only letters from A "
            "to Z, digits, '.', '_' and '-'. Give it another name=."
        )


def _operation_id(action: str, exchange: Exchange) -> str:
    """``send_<task>`` or ``receive_<task>``.

    Of a settling with an underscore: code generators make a tree of the names with dots in them, in which
    ``create_ticket`` cannot be both a leaf and a branch.
    """
    task = f"{exchange.command.contract.task}_settle" if exchange.kind is Kind.SETTLE else exchange.task
    return f"{action}_{task}"


def _told(action: str, exchange: Exchange, request: Described) -> str:
    told = [request.description] if request.description else []
    if action == "send":
        uses = [f"- `{use.step}` of the saga `{use.saga}`, version {use.version}" for use in exchange.uses]
        told.append("Sent by these steps:\n\n" + "\n".join(uses))
        if exchange.protocol is not WireProtocol.INBOX:
            told.append("Its receiver keeps no inbox, so it is sent at most once.")
        else:
            told.append("Sent again, with the same id, until it is answered.")
    else:
        told.append("It may come more than once; it has one effect.")
    return "\n\n".join(told)
