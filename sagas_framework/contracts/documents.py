"""AsyncAPI documents as they are compared: read from files, with references followed and traits applied."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from sagas_framework import references
from sagas_framework.contracts.errors import CannotCompare, needed

SUFFIXES: Final = (".yaml", ".yml", ".json")

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Channel:
    """Where messages travel.

    Args:
        address: the queue; None if the sender of a command names it.
        servers: the names of its brokers; empty if it is at all of the document's.
    """

    pointer: str
    address: str | None
    declared: Mapping[str, Any]
    """How the queue is declared: the AMQP binding, and extensions."""
    servers: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Message:
    """A message with its traits applied.

    Args:
        key: its name in the channel.
        headers, payload: JSON schemas, whose references the document follows.
        form: what else its bytes depend on: content type, encoding.
        correlation: where the id is that a reply is matched by.
    """

    key: str
    pointer: str
    headers: Any
    payload: Any
    form: Mapping[str, Any]
    correlation: str | None

    @property
    def task(self) -> str:
        """The Celery task's name, if the headers fix it; else the key."""
        properties = self.headers.get("properties", {}) if isinstance(self.headers, Mapping) else {}
        task = properties.get("task")
        fixed = task.get("const") if isinstance(task, Mapping) else None
        return fixed if isinstance(fixed, str) else self.key


@dataclass(frozen=True)
class Reply:
    """How an operation is answered. `location`: where the command says the queue, if it does."""

    channel: Channel | None
    location: str | None
    messages: tuple[Message, ...]


@dataclass(frozen=True)
class Operation:
    """What the service does with one channel."""

    key: str
    pointer: str
    action: str
    channel: Channel
    messages: tuple[Message, ...]
    reply: Reply | None

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks that it sends or receives."""
        return tuple(message.task for message in self.messages)

    @property
    def called(self) -> str:
        """What it is about, for people: ``restaurant_service.create_ticket``."""
        return " or ".join(self.tasks) or self.key


@dataclass(frozen=True)
class Document:
    """One service's AsyncAPI document.

    Args:
        content: the whole document, plain JSON types.
        source: where it was read, for people.
    """

    content: Node = field(repr=False)
    source: str

    @property
    def service(self) -> str:
        """Its name: the end of the document's id (``urn:saga:restaurant_service``), or else its title."""
        named = self.content.get("id")
        if isinstance(named, str) and named:
            return re.split(r"[:/#]", named.rstrip("/"))[-1] or named
        return str(self.content["info"]["title"])

    @property
    def version(self) -> str:
        """Of what the service says to others."""
        return str(self.content["info"]["version"])

    @property
    def major(self) -> int:
        """The first number of `version`.

        Raises:
            CannotCompare: it has none.
        """
        found = re.match(r"(\d+)\.\d+", self.version)
        if found is None:
            raise CannotCompare(
                f"{self.source}: info.version is {self.version!r}, which has no major version. "
                "Write three numbers, as in 1.4.0."
            )
        return int(found[1])

    @property
    def servers(self) -> Mapping[str, Any]:
        """The brokers, by name."""
        return {
            name: self.followed(server, f"/servers/{name}")[0]
            for name, server in self._section("servers").items()
        }

    def followed(self, node: Any, pointer: str = "") -> tuple[Any, str]:
        """What is meant by a reference, and its JSON pointer; anything else is meant itself.

        Raises:
            CannotCompare: it leads nowhere, out of the document, or round in a circle.
        """
        try:
            meant, reference = references.followed(self.content, node)
        except ValueError as wrong:
            raise CannotCompare(f"{self.source}: {pointer or '/'}: {wrong}.") from None
        return meant, reference[1:] if reference else pointer

    def _section(self, name: str) -> Mapping[str, Any]:
        section = self.content.get(name) or {}
        if not isinstance(section, Mapping):
            raise CannotCompare(f"{self.source}: {name} should be an object.")
        return section

    def checked(self, node: Any, pointer: str) -> Node:
        """The node, which is an object.

        Raises:
            CannotCompare: it is something else.
        """
        if not isinstance(node, Mapping):
            raise CannotCompare(f"{self.source}: {pointer} should be an object.")
        return node

    # ---- operations ---------------------------------------------------------------------------------

    @cached_property
    def operations(self) -> tuple[Operation, ...]:
        """All of them, in the order of the document.

        Raises:
            CannotCompare: something in them is not as AsyncAPI 3 has it.
        """
        try:
            return tuple(self._operations())
        except (AttributeError, TypeError, ValueError) as error:
            raise CannotCompare(
                f"{self.source} is not as AsyncAPI 3 has it ({error}). The official parser says where: "
                "npx @asyncapi/cli validate."
            ) from error

    def see_that_schemas_are_schemas(self) -> None:
        """See that headers and payloads can be compared at all.

        Raises:
            CannotCompare: one is no JSON schema.
        """
        draft = needed("jsonschema").Draft7Validator
        error_of = needed("jsonschema").SchemaError
        schemas = self.checked(self._section("components").get("schemas") or {}, "/components/schemas")
        every = {f"/components/schemas/{name}": schema for name, schema in schemas.items()}
        for operation in self.operations:
            for message in (*operation.messages, *(operation.reply.messages if operation.reply else ())):
                every[f"{message.pointer}/headers"] = message.headers
                if message.form["schema format"] is None:
                    every[f"{message.pointer}/payload"] = message.payload
        for pointer, schema in every.items():
            try:
                draft.check_schema(schema)
            except error_of as error:
                raise CannotCompare(f"{self.source}: {pointer} is no JSON schema: {error.message}") from None

    def _operations(self) -> Iterator[Operation]:
        for key, node in self._section("operations").items():
            operation, _ = self.followed(node)
            pointer = f"/operations/{_escaped(key)}"
            operation = self.checked(operation, pointer)
            action = operation.get("action")
            if action not in ("send", "receive"):
                raise CannotCompare(
                    f"{self.source}: the operation {key} has the action {action!r}; "
                    "it should be send or receive."
                )
            channel_node, channel_at = self._channel_of(operation, pointer)
            reply, _ = self.followed(operation.get("reply"))
            yield Operation(
                key=key,
                pointer=pointer,
                action=action,
                channel=_channel(channel_node, channel_at),
                messages=self._messages(operation, channel_node, channel_at),
                reply=None if reply is None else self._reply(self.checked(reply, f"{pointer}/reply")),
            )

    def _channel_of(self, node: Node, pointer: str) -> tuple[Node, str]:
        if node.get("channel") is None:
            raise CannotCompare(f"{self.source}: {pointer} names no channel.")
        channel, channel_at = self.followed(node["channel"], f"{pointer}/channel")
        return self.checked(channel, channel_at), channel_at

    def _reply(self, reply: Node) -> Reply:
        address, _ = self.followed(reply.get("address"))
        location = address.get("location") if isinstance(address, Mapping) else None
        if reply.get("channel") is None:
            return Reply(None, location, self._messages(reply, {}, ""))
        channel, channel_at = self._channel_of(reply, "reply")
        return Reply(_channel(channel, channel_at), location, self._messages(reply, channel, channel_at))

    def _messages(self, node: Node, channel: Node, channel_at: str) -> tuple[Message, ...]:
        """Those that an operation or its reply names; all of the channel, if it names none."""
        named = node.get("messages")
        if named is None:
            ofs = [
                (key, part, f"{channel_at}/messages/{_escaped(key)}")
                for key, part in (channel.get("messages") or {}).items()
            ]
        else:
            if not isinstance(named, list):
                raise CannotCompare(f"{self.source}: the messages of an operation should be a list.")
            # Named through the channel, so the reference ends with the message's key there.
            ofs = []
            for one in named:
                reference = str(one.get("$ref", "")) if isinstance(one, Mapping) else ""
                ofs.append((_last_of(one), one, reference.removeprefix("#")))
        return tuple(self._message(key, part, pointer) for key, part, pointer in ofs)

    def _message(self, key: str, node: Any, pointer: str) -> Message:
        message, pointer = self.followed(node, pointer)
        message = self.with_traits(self.checked(message, pointer))
        correlation, _ = self.followed(message.get("correlationId"))
        amqp = (message.get("bindings") or {}).get("amqp") or {}
        content_type = message.get("contentType", self.content.get("defaultContentType"))
        return Message(
            key=key,
            pointer=pointer,
            headers=_schema(message.get("headers", {})),
            payload=_schema(message.get("payload", {})),
            form={
                "content type": content_type,
                "content encoding": amqp.get("contentEncoding"),
                "schema format": _format(message.get("payload")),
            },
            correlation=correlation.get("location") if isinstance(correlation, Mapping) else None,
        )

    def with_traits(self, message: Node) -> Node:
        """The message with what its traits add to it; where both say something, the message is right."""
        merged: Node = {}
        for trait in message.get("traits") or ():
            found, pointer = self.followed(trait)
            merged = _merged(merged, self._flat(self.checked(found, pointer)))
        return _merged(merged, self._flat(message))

    def _flat(self, node: Node) -> Node:
        """The node with the references of its parts followed: what stands beside one would be lost."""
        return {key: self.followed(part)[0] for key, part in node.items() if key != "traits"}


def _merged(under: Node, over: Node) -> Node:
    """JSON Merge Patch: objects are merged, anything else is replaced.

    Reference:
        RFC 7396; the AsyncAPI specification, "Traits Merge Mechanism".
    """
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _channel(node: Node, pointer: str) -> Channel:
    amqp = dict((node.get("bindings") or {}).get("amqp") or {})
    amqp.pop("bindingVersion", None)
    queue = dict(amqp.pop("queue", None) or {})
    if queue.get("name") == node.get("address"):
        queue.pop("name", None)  # of the address more can be said
    declared = {**amqp, **queue, **{key: node[key] for key in node if key.startswith("x-")}}
    address = node.get("address")
    servers = frozenset(_last_of(one) for one in node.get("servers") or ())
    return Channel(pointer, address if isinstance(address, str) else None, declared, servers)


def _schema(node: Any) -> Any:
    """The schema of a payload, also where it stands in a Multi Format Schema Object."""
    if isinstance(node, Mapping) and "schemaFormat" in node and "schema" in node:
        return node["schema"]
    return node


def _format(payload: Any) -> str | None:
    """What language the payload's schema is written in; None for AsyncAPI's own and for JSON Schema."""
    named = payload.get("schemaFormat") if isinstance(payload, Mapping) and "schema" in payload else None
    if not isinstance(named, str) or "asyncapi" in named or "schema+json" in named or "schema+yaml" in named:
        return None
    return named


def _last_of(reference: Any) -> str:
    """The last name in a reference; nothing if it is none."""
    pointer = str(reference.get("$ref", "")) if isinstance(reference, Mapping) else ""
    return pointer.rsplit("/", 1)[-1].replace("~1", "/").replace("~0", "~")


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


# ---- reading ----------------------------------------------------------------------------------------


def document(content: Any, source: str) -> Document:
    """A document that can be compared.

    Raises:
        CannotCompare: it is no AsyncAPI 3 document.
    """
    if not isinstance(content, Mapping) or "asyncapi" not in content:
        raise CannotCompare(f"{source} is no AsyncAPI document: it does not begin with `asyncapi: 3...`.")
    version = str(content["asyncapi"])
    if not version.startswith("3."):
        raise CannotCompare(f"{source} is an AsyncAPI {version} document; only 3.x can be compared.")
    info = content.get("info")
    if not isinstance(info, Mapping) or not info.get("title") or not info.get("version"):
        raise CannotCompare(f"{source}: info needs a title and a version.")
    try:
        json.dumps(content)
    except (TypeError, ValueError) as error:
        raise CannotCompare(f"{source} has something that is not JSON: {error}.") from None
    return Document(content, source)


def read(path: Path) -> list[Document]:
    """The document in a file, or those in a folder, sorted by the names of their services.

    A folder may have one document both as YAML and as JSON.

    Raises:
        CannotCompare: it is not there, or what is there is no AsyncAPI 3 document.
    """
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix in SUFFIXES)
    elif path.is_file():
        files = [path]
    else:
        raise CannotCompare(f"There is no file or folder {path}.")
    found: dict[str, Document] = {}
    for file in files:
        one = _read_file(file)
        other = found.setdefault(one.service, one)
        if other.content != one.content:
            raise CannotCompare(
                f"{other.source} and {one.source} are both the service {one.service}, and are not alike. "
                "Give each document an id of its own, or take one of them away."
            )
    return [found[service] for service in sorted(found)]


def _read_file(file: Path) -> Document:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CannotCompare(f"{file} cannot be read: {error}") from None
    try:
        content = json.loads(text) if file.suffix == ".json" else _from_yaml(text)
    except ValueError as error:
        raise CannotCompare(
            f"{file} is no {file.suffix[1:].upper()}: {' '.join(str(error).split())}"
        ) from None
    return document(content, str(file))


def _from_yaml(text: str) -> Any:
    """YAML with JSON's types: what looks like a date stays text.

    Raises:
        ValueError: it is none.
    """
    yaml = needed("yaml")

    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # several times as fast, where it is there

    class Loader(base):  # type: ignore[misc, valid-type]
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in base.yaml_implicit_resolvers.items()
    }
    try:
        return yaml.load(text, Loader=Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
