"""What the official parser leaves unchecked in a document of version 3, and what only several tell together.

Every function here takes documents as plain JSON types, whoever made them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from jsonschema import Draft7Validator, FormatChecker
from jsonschema.exceptions import SchemaError

from sagas_framework.asyncapi.pieces import class_name
from sagas_framework.asyncapi.schemas import NAMED, NEWER, VALUES
from sagas_framework.references import follow, references

Document = Mapping[str, Any]
Schema = dict[str, Any]

_INFO: Final[Mapping[str, Sequence[str]]] = {
    "title": (),
    "version": (),
    "description": (),
    "contact": ("name", "url", "email"),
    "license": ("name", "url"),
    "tags": (),
}
# Draft-07 has no uuid of its own.
_FORMATS: Final = FormatChecker()
# They say nothing of what is valid.
_FOR_PEOPLE: Final = ("title", "description", "examples", "default", "deprecated", "$comment")


def check_document(document: Document) -> list[str]:
    """What is wrong with one document; empty if nothing is.

    The information about the service, the dialect of its schemas, examples of payload and headers against
    them, replies, components that nobody uses, and what makes code generators go wrong without a word.
    """
    unreadable = list(_dangling(document)) or list(_invalid_schemas(document))
    if unreadable:  # nothing below could go on
        return unreadable
    return [
        *_info(document),
        *_servers(document),
        *_newer_words(document),
        *misfit_examples(document),
        *_replies(document),
        *_unused(document),
        *_classes(document),
    ]


def check_together(documents: Iterable[Document]) -> list[str]:
    """What does not fit between the documents of services that talk; empty if everything does.

    Each ``send`` has exactly one ``receive``, in another document or in its own, on the same queue, with
    the same messages and the same replies; an event may have none or several. What is only for people may
    differ.
    """
    all_of_them = list(documents)
    return [
        problem
        for document in all_of_them
        for name, operation in document["operations"].items()
        if operation["action"] == "send"
        for problem in _received_once(document, name, operation, all_of_them)
    ]


def fitting(document: Document, headers: Mapping[str, Any], body: Any) -> list[str]:
    """Keys of the messages in the document that a message, as it travels, is: one, if all is well.

    Args:
        headers: its application headers.
        body: ``[args, kwargs, embed]``.
    """
    return [
        key
        for key, message in document["components"]["messages"].items()
        if _const(message, "task") == headers.get("task")
        and not list(_validator(headers_schema(document, message), document).iter_errors(headers))
        and not list(_validator(message["payload"], document).iter_errors(body))
    ]


# ---- reading a document ---------------------------------------------------------------------------


def headers_schema(document: Document, message: Mapping[str, Any]) -> Schema:
    """The schema of a message's headers with those of its traits, over which the message's own win."""
    merged: Any = {}
    for trait in message.get("traits", ()):
        merged = _merged(merged, follow(document, trait).get("headers", {}))
    merged = _merged(merged, message.get("headers", {}))
    return dict(merged)


def _merged(target: Any, patch: Any) -> Any:
    """A JSON merge patch (RFC 7396), as AsyncAPI applies traits."""
    if not isinstance(patch, Mapping):
        return patch
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _const(message: Mapping[str, Any], header: str) -> Any:
    return message.get("headers", {}).get("properties", {}).get(header, {}).get("const")


def _validator(schema: Mapping[str, Any], document: Document) -> Draft7Validator:
    # References start at the root of what is given to the validator.
    return Draft7Validator({**schema, "components": document["components"]}, format_checker=_FORMATS)


# ---- one document ---------------------------------------------------------------------------------


def _dangling(document: Document) -> Iterator[str]:
    for where, node in references(document):
        try:
            follow(document, node)
        except ValueError as wrong:
            yield f"/{'/'.join(where)}: {wrong}"


def _info(document: Document) -> Iterator[str]:
    info = document.get("info", {})
    for name, parts in _INFO.items():
        if not info.get(name) and (name != "tags" or document.get("operations")):
            yield f"info.{name} is missing"
        for part in parts:
            if info.get(name) and not info[name].get(part):
                yield f"info.{name}.{part} is missing"
    known = {tag["name"] for tag in info.get("tags", ())}
    for name, operation in document.get("operations", {}).items():
        for tag in operation.get("tags", ()):
            if tag["name"] not in known:
                yield f"operations.{name}: the tag {tag['name']!r} is not in info.tags"


def _servers(document: Document) -> Iterator[str]:
    if not document.get("servers"):
        yield "servers: there are none"
    for name, server in document.get("servers", {}).items():
        if "@" in server.get("host", "") + server.get("pathname", ""):
            yield f"servers.{name}: credentials do not belong into a document"


def _schemas(document: Document) -> dict[str, Schema]:
    """All schemas, by their place."""
    components = document["components"]
    places = {f"schemas.{name}": schema for name, schema in components.get("schemas", {}).items()}
    for key, message in components.get("messages", {}).items():
        places[f"messages.{key}.payload"] = message.get("payload", {})
        places[f"messages.{key}.headers"] = headers_schema(document, message)
    return places


def _invalid_schemas(document: Document) -> Iterator[str]:
    for place, schema in _schemas(document).items():
        try:
            Draft7Validator.check_schema(schema)
        except SchemaError as error:
            yield f"{place}: {error.message}"


def _newer_words(document: Document) -> Iterator[str]:
    for place, schema in _schemas(document).items():
        for path, keywords in _subschemas(schema):
            for keyword in sorted(keywords & NEWER):
                yield f"{place}{path}: {keyword} is not of draft-07, whose validators ignore it"
            if "$ref" in keywords and len(keywords) > 1:
                yield f"{place}{path}: what stands beside $ref is ignored"


def _subschemas(schema: Any, path: str = "") -> Iterator[tuple[str, set[str]]]:
    """`(path, keywords)` of the schema and each one in it."""
    if isinstance(schema, list):
        for index, inner in enumerate(schema):
            yield from _subschemas(inner, f"{path}/{index}")
    if not isinstance(schema, Mapping):
        return
    yield path, set(schema)
    for key, part in schema.items():
        if key in VALUES:
            continue
        if key in NAMED and isinstance(part, Mapping):
            for name, inner in part.items():
                yield from _subschemas(inner, f"{path}/{key}/{name}")
        else:
            yield from _subschemas(part, f"{path}/{key}")


def misfit_examples(document: Document) -> Iterator[str]:
    """What examples are missing, or are not as their schemas say."""
    for key, message in document["components"].get("messages", {}).items():
        if not message.get("examples"):
            yield f"messages.{key} has no example"
        schemas = {"payload": message.get("payload", {}), "headers": headers_schema(document, message)}
        for number, example in enumerate(message.get("examples", ())):
            for part, schema in schemas.items():
                if part not in example:
                    yield f"messages.{key}: example {number} has no {part}"
                    continue
                for error in _validator(schema, document).iter_errors(example[part]):
                    path = "".join(f"/{step}" for step in error.absolute_path)
                    yield f"messages.{key}: example {number}, {part}{path}: {error.message}"


def _replies(document: Document) -> Iterator[str]:
    for name, operation in document.get("operations", {}).items():
        reply = operation.get("reply")
        if reply is None:
            continue
        channel = reply.get("channel", {}).get("$ref", "")
        if not reply.get("messages"):
            yield f"operations.{name}: no message is named as its reply"
        for message in reply.get("messages", ()):
            if not message["$ref"].startswith(f"{channel}/messages/"):
                yield f"operations.{name}: {message['$ref']} is not of its reply channel {channel}"
        unnamed = set(follow(document, reply["channel"]).get("messages", {})) - {
            message["$ref"].rpartition("/")[2] for message in reply.get("messages", ())
        }
        if unnamed:
            yield f"operations.{name}: its reply channel also has {', '.join(sorted(unnamed))}"
        fixed = follow(document, reply["channel"]).get("address") is not None
        if fixed == ("address" in reply):
            yield f"operations.{name}: the reply's address is said once, by its channel or by reply.address"


def _unused(document: Document) -> Iterator[str]:
    used = {node["$ref"] for _, node in references(document)}
    for section, components in document["components"].items():
        for name in components:
            if f"#/components/{section}/{name}" not in used:
                yield f"components.{section}.{name} is not used"


def _classes(document: Document) -> Iterator[str]:
    """Code generators name a class after a message's key, and find it by the payload's title."""
    messages = document["components"].get("messages", {})
    names = Counter(class_name(key) for key in messages)
    for key, message in messages.items():
        name = class_name(key)
        if names[name] > 1:
            yield f"messages.{key}: code generators call {names[name]} messages {name}"
        if name in document["components"].get("schemas", {}):
            yield f"messages.{key}: code generators would take components.schemas.{name} for it"
        if message.get("payload", {}).get("title") != name:
            yield f"messages.{key}: its payload's title is not {name}"


# ---- several documents ----------------------------------------------------------------------------


def _received_once(
    document: Document, name: str, operation: Mapping[str, Any], documents: Sequence[Document]
) -> Iterator[str]:
    channel = operation["channel"]["$ref"]
    found = [
        (other, candidate)
        for other in documents
        for candidate in other["operations"].values()
        if candidate["action"] == "receive" and candidate["channel"]["$ref"] == channel
    ]
    where = f"{document['info']['title']}: operations.{name}"
    topic = _is_topic(follow(document, operation["channel"]))
    if not found and not topic:
        yield f"{where}: nobody receives it"
    elif len(found) > 1 and not topic:
        titles = ", ".join(other["info"]["title"] for other, _ in found)
        yield f"{where}: {len(found)} services receive it: {titles}"
    else:
        ours = _seen(document, operation)
        for other, receiving in found:
            theirs = _seen(other, receiving)
            for part in sorted(ours.keys() | theirs.keys()):
                if ours.get(part) != theirs.get(part):
                    yield f"{where}: {part} is not as in the document of {other['info']['title']}"


def _is_topic(channel: Mapping[str, Any]) -> bool:
    """Whether events are published there: as many services take them as want to."""
    amqp = channel.get("bindings", {}).get("amqp", {})
    return bool(amqp.get("is") == "routingKey")


def _seen(document: Document, operation: Mapping[str, Any]) -> dict[str, Any]:
    """What sender and receiver must agree upon, by name."""
    channel = follow(document, operation["channel"])
    seen = {"queue": (channel.get("address"), channel.get("bindings")), "reply": "reply" in operation}
    messages = [*channel["messages"].values()]
    if "reply" in operation:
        messages += operation["reply"]["messages"]
    for reference in messages:
        message = follow(document, reference)
        for part, schema in (
            ("payload", message["payload"]),
            ("headers", headers_schema(document, message)),
        ):
            seen[f"{part} of {message['name']}"] = structure(document, schema)
        seen[f"content type of {message['name']}"] = message.get("contentType")
    return seen


def structure(document: Document, schema: Any, within: tuple[str, ...] = ()) -> Any:
    """A schema without what is only for people and without names of its parts, to compare it by ``==``.

    References are followed. One to a schema that the reference is in says how far up that is.
    """
    if isinstance(schema, list):
        return [structure(document, part, within) for part in schema]
    if not isinstance(schema, Mapping):
        return schema
    reference = schema.get("$ref")
    if isinstance(reference, str):
        if reference in within:
            return {"$ref": within[::-1].index(reference)}
        return structure(document, follow(document, schema), (*within, reference))
    result: dict[str, Any] = {}
    for key, part in schema.items():
        if key in _FOR_PEOPLE:
            continue
        if key in VALUES:
            result[key] = sorted(part) if key == "required" else part
        elif key in NAMED and isinstance(part, Mapping):
            result[key] = {name: structure(document, inner, within) for name, inner in part.items()}
        else:
            result[key] = structure(document, part, within)
    return result
