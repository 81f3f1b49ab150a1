"""What a document says, read from it by the words of the specification and by nothing of ours.

The library has readers of its own. These tests must not believe them.

Reference:
    AsyncAPI 3.1.0, "Operation Object", "Message Trait Object"; RFC 7386 on how a trait is merged.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from jsonschema import Draft7Validator, FormatChecker

from tests.asyncapi.tap import Delivered

Document = dict[str, Any]

FORMATS: Final = FormatChecker()


@FORMATS.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    """jsonschema checks this one only with a package of its own."""
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


@dataclass(frozen=True)
class Said:
    """A message that the document's service says or hears.

    Args:
        operation: its key in the document.
        says: whether the service sends it; else it receives it.
        address: the queue; None: whatever the message that it answers names.
        name: the message's key in its channel.
        message: the Message Object, its traits applied.
        headers, payload: validators of the two.
    """

    operation: str
    says: bool
    address: str | None
    name: str
    message: Document = field(repr=False)
    headers: Draft7Validator = field(repr=False)
    payload: Draft7Validator = field(repr=False)


def said(document: Document) -> Iterator[Said]:
    """All that the service says and hears: a reply goes the other way than what it answers."""
    for key, operation in document["operations"].items():
        sends = operation["action"] == "send"
        yield from _of(document, key, sends, operation)
        if "reply" in operation:
            yield from _of(document, key, not sends, operation["reply"])


def _of(document: Document, operation: str, says: bool, part: Document) -> Iterator[Said]:
    channel = resolved(document, part["channel"])
    for reference in part.get("messages") or [
        {"$ref": f"{part['channel']['$ref']}/messages/{name}"} for name in channel["messages"]
    ]:
        name = reference["$ref"].rpartition("/")[2]
        message = resolved(document, resolved(document, reference))
        for trait in message.get("traits", []):
            message = _merged(resolved(document, trait), message)
        validators = (
            Draft7Validator({**message[part], "components": document["components"]}, format_checker=FORMATS)
            for part in ("headers", "payload")
        )
        yield Said(operation, says, channel["address"], name, message, *validators)


def resolved(document: Document, value: Document) -> Document:
    """The value, or what its reference points to."""
    while "$ref" in value:
        found: Any = document
        for part in value["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        value = found
    return value


def _merged(base: Any, patch: Any) -> Any:
    """The trait with the message's own words over it, which win."""
    if not isinstance(base, dict) or not isinstance(patch, dict):
        return patch
    return {**base, **{key: _merged(base.get(key), value) for key, value in patch.items()}}


def misfits(document: Document, said: Said, delivered: Delivered) -> list[str]:
    """Why what was delivered is not this message; nothing if it is."""
    message, headers, properties = said.message, delivered.headers, delivered.properties
    wrong = []
    if said.address not in (None, delivered.queue):
        wrong.append(f"it came from the queue {delivered.queue}, not {said.address}")
    content_type = message.get("contentType", document.get("defaultContentType"))
    encoding = message["bindings"]["amqp"]["contentEncoding"]
    for name, told in (
        ("content_type", content_type),
        ("content_encoding", encoding),
        ("correlation_id", headers.get("id")),
    ):
        if properties.get(name) != told:
            wrong.append(f"its {name} is {properties.get(name)!r}, not {told!r}")
    wrong += [f"headers {found.json_path}: {found.message}" for found in said.headers.iter_errors(headers)]
    try:
        body = json.loads(delivered.body)
    except ValueError as error:
        return [*wrong, f"its body is not JSON: {error}"]
    wrong += [f"payload {found.json_path}: {found.message}" for found in said.payload.iter_errors(body)]
    return wrong


def correlation(document: Document, said: Said, delivered: Delivered) -> Any:
    """The value at the message's correlation id."""
    location = resolved(document, said.message["correlationId"])["location"]
    found: Any = delivered.headers
    for part in location.removeprefix("$message.header#/").split("/"):
        found = found[part]
    return found
