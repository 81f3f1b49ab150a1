"""An AsyncAPI document, read for what a stub must know: the commands that a service takes, and its answers.

It may come from our builder or be written by hand. What it must have is the wire format of
``docs/reference/wire.md``: messages are Celery's bodies ``[args, kwargs, embed]`` with the arguments
``[saga_id, payload]``, and replies are the tasks ``<task>.response.success`` and
``<task>.response.failure``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from sagas_framework.core.events import Result
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN
from sagas_framework.errors import SagasError
from sagas_framework.messages import Queue, QueueType
from sagas_framework.references import Json, follow, references
from sagas_framework.stub.schemas import Schema
from sagas_framework.transport.envelope import FAILURE_SUFFIX, KNOWN, RESULT, SUCCESS_SUFFIX

SETTLE_SUFFIX: Final = ".settle"
OURS: Final = frozenset({"InvalidPayload", "UnknownTask", WITHDRAWN, INBOX_ROW_MISSING, "OutcomeUnknown"})
"""Failures that the framework itself answers, if there is reason to; nobody declares them."""

_DEEPEST: Final = 20


class DocumentError(SagasError):
    """A document that no stub can be made from; the message says what is wrong where."""


@dataclass(frozen=True)
class Refusal:
    """A failure that the document declares for a command. `message`, `module`: of its example, if any."""

    name: str
    message: str = ""
    module: str = ""


@dataclass(frozen=True)
class Taken:
    """A command that the service takes, or a compensation.

    Args:
        task: the Celery task's name.
        payload: what it may carry.
        reply: what success may carry.
        examples: of such replies, as the document has them, whether they fit or not.
        refusals: by name.
        undoes: whether the document says that it is a compensation: its messages must have `KNOWN`.
    """

    task: str
    queue: Queue
    payload: Schema
    reply: Schema
    examples: tuple[Any, ...] = ()
    refusals: Mapping[str, Refusal] = field(default_factory=dict)
    undoes: bool = False

    @property
    def settling(self) -> str:
        """The task that settles it."""
        return self.task + SETTLE_SUFFIX

    @property
    def short(self) -> str:
        """The last part of its name, as it may be written in options."""
        return self.task.rpartition(".")[2]

    def answer(self) -> Any:
        """What success carries: the document's first example that fits, or a value made from the schema.

        Raises:
            NoValue: neither fits.
        """
        for example in self.examples:
            if not self.reply.troubles(example):
                return example
        return self.reply.value()


@dataclass(frozen=True)
class Document:
    """What a document says of a service's receiving side.

    Args:
        source: where it was read from, for messages to people.
        service: the name of the service.
        broker: address of the document's first AMQP server, without credentials; None if it has none.
    """

    source: str
    service: str
    title: str
    version: str
    queue: Queue
    taken: tuple[Taken, ...]
    broker: str | None = None


# ---- reading --------------------------------------------------------------------------------------


class _JsonLoader(yaml.SafeLoader):
    """YAML with the types of JSON alone: what looks like a date stays text, as it travels."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (yaml's own is none, either)
        letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_document(path: Path, queue: str | None = None) -> Document:
    """Read a document from a file, YAML or JSON; see `understand`.

    Raises:
        DocumentError: it cannot be read, or not understood.
    """
    try:
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=_JsonLoader)
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise DocumentError(f"{path} is not text in UTF-8, so it is no AsyncAPI document.") from None
    except (yaml.YAMLError, RecursionError) as error:
        told = " ".join(str(error).split())
        raise DocumentError(f"{path} is neither YAML nor JSON: {told}") from None
    return understand(document, str(path), queue)


def understand(document: Any, source: str, queue: str | None = None) -> Document:
    """What a document says of the service's receiving side.

    Args:
        document: as plain JSON types.
        queue: take the commands on this queue alone.

    Raises:
        DocumentError: it is not AsyncAPI 3, receives nothing, or leaves open what a stub must know.
    """
    if not isinstance(document, Mapping) or "asyncapi" not in document:
        raise DocumentError(f"{source} is no AsyncAPI document: at its top there is no `asyncapi: 3.1.0`.")
    version = document["asyncapi"]
    if not isinstance(version, str) or not re.fullmatch(r"3\.\d+\.\d+\S*", version):
        raise DocumentError(
            f"{source} is AsyncAPI {version}, and a stub is made from AsyncAPI 3. "
            "`asyncapi convert` makes one of an older document."
        )
    return _Reader(document, source).read(queue)


class _Reader:
    """Reads one document. `_here`: the part that is being read, for messages."""

    def __init__(self, document: Json, source: str) -> None:
        self._document = document
        self._source = source
        self._here = ""

    def read(self, only: str | None) -> Document:
        self._see_that_references_lead_somewhere()
        taken = self._taken()
        queues = {each.queue.name: each.queue for each in taken}
        if only is not None:
            taken = [each for each in taken if each.queue.name == only]
        elif len(queues) > 1:
            raise DocumentError(
                f"{self._source} receives on {len(queues)} queues, and a stub takes from one: "
                f"{', '.join(queues)}. Run one for each, with --queue NAME."
            )
        if not taken:
            raise DocumentError(f"{self._source} receives nothing on {only}; it does on {', '.join(queues)}.")
        queue = taken[0].queue
        prefixes = {each.task.rpartition(".")[0] for each in taken}
        info = self._document.get("info")
        info = info if isinstance(info, Mapping) else {}
        return Document(
            source=self._source,
            service=prefixes.pop() if len(prefixes) == 1 and all(prefixes) else queue.name,
            title=str(info.get("title", self._source)),
            version=str(info.get("version", "")),
            queue=queue,
            taken=tuple(taken),
            broker=self._broker(),
        )

    def _wrong(self, what: str) -> DocumentError:
        return DocumentError(f"{self._source}: {self._here} {what}")

    # ---- finding one's way --------------------------------------------------------------------------

    def _see_that_references_lead_somewhere(self) -> None:
        for place, reference in references(self._document):
            try:
                follow(self._document, reference)
            except ValueError as error:
                raise DocumentError(f"{self._source}: {'/'.join(place)}: {error}") from None

    def _object(self, node: Any, what: str) -> Json:
        found = follow(self._document, node) if isinstance(node, Mapping) else node
        if not isinstance(found, Mapping):
            raise self._wrong(f"has no {what}, which should be an object")
        return found

    def _objects(self, node: Any, what: str) -> Json:
        """An object that may be missing."""
        return self._object({} if node is None else node, what)

    def _list(self, node: Any, what: str) -> list[Any]:
        """A list that may be missing."""
        if not isinstance(node, list | None):
            raise self._wrong(f"has {what} that are no list")
        return node or []

    # ---- operations ---------------------------------------------------------------------------------

    def _taken(self) -> list[Taken]:
        self._here = "it"
        operations = self._objects(self._document.get("operations"), "operations")
        taken: dict[str, Taken] = {}
        receiving = 0
        for key, node in operations.items():
            self._here = f"operations.{key}"
            operation = self._object(node, "content")
            # An event is answered by nobody, so there is nothing that a stub could say.
            if operation.get("action") != "receive" or self._is_event(operation):
                continue
            receiving += 1
            for each in self._of_operation(operation):
                if each.task in taken:
                    raise self._wrong(f"receives {each.task}, which another operation receives as well")
                taken[each.task] = each
        if not receiving:
            has = f"it only sends ({', '.join(operations)})" if operations else "it has no operations"
            raise DocumentError(
                f"{self._source} has no operation with `action: receive`: {has}. "
                "A stub answers what a service receives, so give it the document of that service."
            )
        # Settling is answered from the inbox, for whatever is taken.
        found = [each for each in taken.values() if not each.task.endswith(SETTLE_SUFFIX)]
        if not found:
            raise DocumentError(f"{self._source} receives nothing but settlings ({', '.join(taken)}).")
        return found

    def _is_event(self, operation: Json) -> bool:
        channel = self._objects(operation.get("channel"), "channel")
        bindings = self._objects(channel.get("bindings"), "bindings")
        return self._objects(bindings.get("amqp"), "bindings.amqp").get("is") == "routingKey"

    def _of_operation(self, operation: Json) -> Iterator[Taken]:
        channel = self._object(operation.get("channel"), "channel")
        address = channel.get("address")
        if not isinstance(address, str) or not address:
            raise self._wrong("is on a channel without an address: that is the name of the queue")
        queue = Queue(address, self._queue_type(channel))
        replies = self._replies(operation)
        place = self._here
        messages = self._messages(operation, channel)
        if not messages:
            raise self._wrong("has no message")
        for key, message in messages:
            task = self._task(key, message)
            self._here = f"{place}: the message {task}"
            yield self._answered(task, queue, message, replies)

    def _messages(self, side: Json, channel: Json) -> list[tuple[str, Json]]:
        """With their keys, the messages of an operation or a reply: those that it names, or its channel's."""
        nodes: Iterable[tuple[str, Any]] = self._objects(channel.get("messages"), "messages").items()
        if (named := self._list(side.get("messages"), "messages")) or "messages" in side:
            nodes = [(_last(node), node) for node in named]
        return [(str(key), self._object(node, "message")) for key, node in nodes]

    def _replies(self, operation: Json) -> list[tuple[str, str, Json]]:
        """Messages that answer: key, task and message."""
        reply = operation.get("reply")
        if reply is None:
            return []
        reply = self._object(reply, "reply")
        channel = self._objects(reply.get("channel"), "reply.channel")
        return [(key, self._task(key, message), message) for key, message in self._messages(reply, channel)]

    def _answered(self, task: str, queue: Queue, asking: Json, replies: list[tuple[str, str, Json]]) -> Taken:
        payload = self._schema(self._payload(asking))
        undoes = any(
            KNOWN in self._list(headers.get("required"), "required headers")
            for headers in self._headers(asking)
        )
        success = [message for _, its, message in replies if its == task + SUCCESS_SUFFIX]
        if len(success) != 1:
            there = ", ".join(its for _, its, _ in replies) or "none"
            raise self._wrong(
                f"should be answered by one message {task}{SUCCESS_SUFFIX} in the operation's "
                f"reply.messages; there are: {there}"
            )
        refusals: dict[str, Refusal] = {}
        place = self._here
        for key, its, message in replies:
            self._here = f"{place}: the reply {key}"
            if its.startswith(task + FAILURE_SUFFIX):
                for refusal in self._refusals(task, key, message):
                    refusals.setdefault(refusal.name, refusal)
        self._here = f"{place}: the reply {task}{SUCCESS_SUFFIX}"
        schema = self._schema(self._payload(success[0]))
        examples = tuple(payload for _, payload in self._examples(success[0]))
        return Taken(task, queue, payload, schema, examples, refusals, undoes)

    # ---- messages -----------------------------------------------------------------------------------

    def _task(self, key: str, message: Json) -> str:
        """The Celery task's name: the constant of the header; else the message's name, or its key."""
        constant = self._header(message, "task")
        task = constant or message.get("name") or key
        if not isinstance(task, str) or not task:
            raise self._wrong(f"has a message {key!r} without a name: it should be that of the Celery task")
        return task

    def _header(self, message: Json, name: str) -> Any:
        """The one value that a header may have, if the document says so. The message wins over its traits."""
        for headers in self._headers(message):
            for value in _constants(self._document, headers, name):
                return value
        return None

    def _headers(self, message: Json) -> Iterator[Json]:
        """The schemas of a message's headers: its own, then those of its traits, the last one first."""
        for part in (message, *reversed(self._list(message.get("traits"), "traits"))):
            headers = self._objects(self._object(part, "trait").get("headers"), "headers")
            yield self._object(headers.get("schema", headers), "headers")

    def _payload(self, message: Json) -> Any:
        """The schema of what the message says: of the second argument in Celery's body."""
        body = self._object(message.get("payload"), "payload")
        if "schemaFormat" in body and "schema" in body:
            told = str(body["schemaFormat"])
            if "asyncapi" not in told and "draft-07" not in told:
                raise self._wrong(f"has its payload in {told}; a stub reads JSON Schema draft-07")
            body = self._object(body["schema"], "payload")
        arguments = self._position(body, 0, 3)
        payload = None if arguments is None else self._position(arguments, 1, 2)
        if payload is None:
            raise self._wrong(
                "has another payload than Celery's body [[saga_id, payload], kwargs, embed], "
                "each a position of `items`"
            )
        return payload

    def _position(self, schema: Any, index: int, length: int) -> Any:
        """The schema of one position of a tuple; None if this is not one of that length."""
        schema = self._bare(schema)
        if not isinstance(schema, Mapping):
            return None
        items = schema.get("items", schema.get("prefixItems"))
        return items[index] if isinstance(items, list) and len(items) == length else None

    def _bare(self, schema: Any) -> Any:
        """The schema at the end of references, out of an `allOf` that only carries a description."""
        while isinstance(schema, Mapping):
            schema = follow(self._document, schema)
            inner = schema.get("allOf") if isinstance(schema, Mapping) else None
            if not (isinstance(inner, list) and len(inner) == 1 and "items" not in schema):
                break
            schema = inner[0]
        return schema

    def _schema(self, schema: Any) -> Schema:
        if schema is True:
            schema = {}
        if not isinstance(schema, Mapping):
            raise self._wrong("has a payload that is no schema")
        try:
            return Schema(schema, self._document)
        except ValueError as error:
            raise self._wrong(f"has a payload whose schema is none of draft-07: {error}") from None

    def _examples(self, message: Json) -> Iterator[tuple[Json, Any]]:
        """`(headers, payload)` of the examples of a message, those left out that are no bodies."""
        for example in self._list(message.get("examples"), "examples"):
            match example:
                case {"payload": [[_, payload], *_]}:
                    headers = example.get("headers")
                    yield headers if isinstance(headers, Mapping) else {}, payload

    # ---- failures -----------------------------------------------------------------------------------

    def _refusals(self, task: str, key: str, message: Json) -> Iterator[Refusal]:
        """The failures that a failure's message declares.

        A message may be for one failure (named ``<task>.response.failure.RestaurantClosed``, or with a
        constant `type` in its payload) or for several (an enumeration of types, or examples of them).
        """
        examples = {
            said["type"]: said
            for headers, said in self._examples(message)
            if isinstance(said, Mapping)
            and isinstance(said.get("type"), str)
            and headers.get(RESULT) != Result.FAILED.value  # any fault, and not a refusal
        }
        suffixes = (
            named.removeprefix(f"{task}{FAILURE_SUFFIX}.")
            for named in (str(message.get("name", "")), key)
            if named.startswith(f"{task}{FAILURE_SUFFIX}.")
        )
        types = [str(name) for name in _constants(self._document, self._payload(message), "type")]
        for name in dict.fromkeys(types or list(suffixes)[:1] or examples):
            if name not in OURS:
                said = examples.get(name, {})
                yield Refusal(name, str(said.get("message", "")), str(said.get("module", "")))

    # ---- the queue and the broker --------------------------------------------------------------------

    def _queue_type(self, channel: Json) -> QueueType:
        """What the channel's binding says in ``x-queue-arguments``; a quorum queue if it has none."""
        bindings = self._objects(channel.get("bindings"), "bindings")
        binding = self._objects(bindings.get("amqp"), "bindings.amqp")
        if "x-queue-arguments" not in binding:
            return QueueType.QUORUM
        arguments = self._objects(binding["x-queue-arguments"], "x-queue-arguments")
        named = arguments.get("x-queue-type", QueueType.CLASSIC.value)
        try:
            return QueueType(named)
        except ValueError:
            raise self._wrong(
                f"is on a queue of the type {named!r}; commands are on quorum or classic ones"
            ) from None

    def _broker(self) -> str | None:
        self._here = "it"
        for name, node in self._objects(self._document.get("servers"), "servers").items():
            self._here = f"servers.{name}"
            server = self._object(node, "content")
            host, protocol = str(server.get("host", "")), server.get("protocol")
            path = str(server.get("pathname", ""))
            if host and protocol in ("amqp", "amqps") and "{" not in host + path:
                # In the address a virtual host stands after a slash, and "/" is one like others.
                return f"{protocol}://{host}/{path.removeprefix('/') or '/'}"
        return None


def _last(reference: Any) -> str:
    """The last name in a reference; nothing if it is none."""
    pointer = reference.get("$ref") if isinstance(reference, Mapping) else None
    return str(pointer or "").rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def _constants(document: Json, schema: Any, name: str, depth: int = 0) -> Iterator[Any]:
    """The values that a schema allows for a property, if it names them (`const`, `enum`), in any branch."""
    schema = follow(document, schema)
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return
    properties = follow(document, schema.get("properties"))
    wanted = follow(document, properties.get(name)) if isinstance(properties, Mapping) else None
    if isinstance(wanted, Mapping) and "const" in wanted:
        yield wanted["const"]
    elif isinstance(wanted, Mapping) and isinstance(wanted.get("enum"), list):
        yield from wanted["enum"]
    for branches in ("allOf", "anyOf", "oneOf"):
        if isinstance(schema.get(branches), list):
            for branch in schema[branches]:
                yield from _constants(document, branch, name, depth + 1)
