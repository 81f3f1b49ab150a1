"""A document as a person writes it: the layout of ours, with no more in it than a stub needs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from sagas_framework.stub.document import Document, understand

TASK: Final = "shop.reserve"
UNDO: Final = "shop.release"


def body(payload: Any) -> dict[str, Any]:
    """The schema of a Celery body that carries this."""
    arguments = {"type": "array", "items": [{"type": "string"}, payload], "minItems": 2, "maxItems": 2}
    return {"type": "array", "items": [arguments, {"type": "object"}, {"type": "object"}]}


def message(payload: Any, *examples: Any, **more: Any) -> dict[str, Any]:
    """A message with this payload, and bodies around its examples."""
    bodies = [{"payload": [["saga-1", example], {}, {}]} for example in examples]
    return {"payload": body(payload), **({"examples": bodies} if examples else {}), **more}


def failure(*types: str) -> dict[str, Any]:
    """A failure message for these types; for any, if there are none."""
    kind = {"type": "string", "enum": list(types)} if types else {"type": "string"}
    return message({"type": "object", "required": ["type", "message"], "properties": {"type": kind}})


RESERVATION: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["number"],
    "properties": {
        "number": {"type": "integer", "minimum": 5},
        "until": {"type": "string", "format": "date"},
    },
}
ORDER: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["sku", "lines"],
    "properties": {
        "sku": {"type": "string"},
        "lines": {
            "type": "array",
            "items": {"type": "object", "properties": {"quantity": {"type": "integer"}}},
        },
    },
}
NOTHING: Final[dict[str, Any]] = {"type": "null"}


def operation(task: str, *replies: str) -> dict[str, Any]:
    """A receive operation on the channel of its task."""
    return {
        "action": "receive",
        "channel": {"$ref": f"#/channels/{task}"},
        "reply": {
            "channel": {"$ref": f"#/channels/{task}.replies"},
            "messages": [{"$ref": f"#/channels/{task}.replies/messages/{reply}"} for reply in replies],
        },
    }


def channel(address: str | None, **messages: Any) -> dict[str, Any]:
    return {"address": address, "messages": messages}


def shop() -> dict[str, Any]:
    """A shop that reserves, or is sold out, and releases; nothing says which of the two undoes the other."""
    success, refused = f"{TASK}.response.success", f"{TASK}.response.failure"
    released = f"{UNDO}.response.success"
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "Shop", "version": "2.1.0"},
        "servers": {"broker": {"host": "broker.example:5672", "protocol": "amqp", "pathname": "/shop"}},
        "channels": {
            TASK: channel("shop.commands", **{TASK: message(ORDER)}),
            f"{TASK}.replies": channel(
                None,
                **{success: message(RESERVATION, {"number": 17}), refused: failure("SoldOut", "NoSuchSku")},
            ),
            UNDO: channel("shop.commands", **{UNDO: message({"type": "object"})}),
            f"{UNDO}.replies": channel(None, **{released: message(NOTHING)}),
        },
        "operations": {
            "reserve": operation(TASK, success, refused),
            "release": operation(UNDO, released),
        },
    }


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The document with the value at this path (``operations/reserve/action``); None takes it away."""
    *above, last = path.split("/")
    node: Any = document
    for part in above:
        node = node[part]
    if value is None:
        del node[last]
    else:
        node[last] = value
    return document


def read(document: Mapping[str, Any], queue: str | None = None) -> Document:
    return understand(document, "shop.yaml", queue)


def written(folder: Path, document: Mapping[str, Any]) -> Path:
    """The document as a file."""
    file = folder / "shop.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return file
