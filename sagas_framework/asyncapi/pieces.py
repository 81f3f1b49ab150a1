"""What several messages have in common: parts of payloads, names, and what a class says of itself."""

from __future__ import annotations

import inspect
import re
from typing import Any, Final

from sagas_framework.asyncapi.celery import Schema


def class_name(key: str) -> str:
    """What code generators call the class of a message: PascalCase, by which its payload is titled."""
    return "".join(word[:1].upper() + word[1:].lower() for word in re.split(r"[-._]", key))


def said(documented: type[Any]) -> tuple[str, str]:
    """`(summary, description)`: the first line of the class's own docstring, and the rest."""
    first, _, rest = inspect.cleandoc(documented.__dict__.get("__doc__") or "").partition("\n\n")
    return " ".join(first.split()), rest.strip()


def saga_id() -> Schema:
    """The first argument."""
    return {
        "title": "saga_id",
        "type": "string",
        "format": "uuid",
        "description": "`saga_id`: the saga's id, a UUIDv7.",
    }


# Said twice: without the enumeration, a generator of Python classes takes a null in a tuple for "the whole
# tuple may be missing".
NULL: Final[Schema] = {"type": "null", "enum": [None]}


def nothing(description: str) -> Schema:
    """A payload that is null."""
    return {"title": "payload", **NULL, "description": f"`payload`: {description}"}


def failure_payload(what: Schema, description: str) -> Schema:
    """The standard payload of failures. `what`: the schema of its type."""
    return {
        "title": "failure",
        "type": "object",
        "description": f"`payload`: {description}",
        "required": ["type", "message", "module"],
        "properties": {
            "type": what,
            "message": {"type": "string", "description": "For people."},
            "module": {"type": "string", "description": "Where the class lives."},
        },
    }
