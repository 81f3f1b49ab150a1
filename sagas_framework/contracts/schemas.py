"""JSON schemas made ready to be compared: without what nobody validates by, and with references followed."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from sagas_framework.contracts.documents import Document

Schema = Mapping[str, Any]

ANYTHING: Final[Schema] = {}
NOTHING: Final[Schema] = {"not": {}}

TYPES: Final = ("null", "boolean", "integer", "number", "string", "array", "object")

_SAID_OF_IT: Final = frozenset(
    {
        "$comment",
        "$id",
        "$schema",
        "contentEncoding",
        "contentMediaType",
        "default",
        "definitions",
        "deprecated",
        "description",
        "discriminator",
        "example",
        "examples",
        "externalDocs",
        "readOnly",
        "title",
        "writeOnly",
    }
)
"""Keywords that no value is refused by."""

OF_TYPE: Final[Mapping[str, frozenset[str]]] = {
    "string": frozenset({"minLength", "maxLength", "pattern"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
    "array": frozenset({"items", "additionalItems", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
}
"""Keywords that are compared, by the type of value that they speak of. Integers are numbers here."""

_HANDY: Final = 20_000
"""Parts of a schema; a message of a few dozen fields has some hundred."""

COMPARED: Final = frozenset(
    {"type", "enum", "const", "allOf", "anyOf", "oneOf", "not", "format", "$ref"}
).union(*OF_TYPE.values())


def bare(schema: Any) -> Schema:
    """The schema as an object, without what is only said of it, and one way of writing for what has two."""
    if schema is False:
        return NOTHING
    if not isinstance(schema, Mapping):
        return ANYTHING
    if "$ref" in schema:
        return {"$ref": schema["$ref"]}  # draft-07 ignores what stands beside it
    kept = {key: part for key, part in schema.items() if key not in _SAID_OF_IT and not key.startswith("x-")}
    if "const" in kept:
        kept["enum"] = [kept.pop("const")]
    if kept.get("not") in ({}, True) and "not" in kept:
        return NOTHING
    if kept.keys() == {"allOf"} and len(kept["allOf"]) == 1:
        return bare(kept["allOf"][0])
    return kept


def key_of(name: str) -> str:
    """The type whose keywords a value of this type goes by."""
    return "number" if name == "integer" else name


def literal(value: Any) -> str:
    """A JSON value as people write it: ``'a'``, ``true``, ``null``."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return repr(value)


def together(parts: Sequence[Schema]) -> Schema | None:
    """One object that is all of these; None if it cannot be written as one."""
    if not parts or any(part.keys() - {"type", "properties", "required"} for part in parts):
        return None
    if any(part.get("type", "object") != "object" for part in parts):
        return None
    fields: dict[str, Any] = {}
    for part in parts:
        for name, schema in part.get("properties", {}).items():
            fields[name] = {"allOf": [fields[name], schema]} if name in fields else schema
    required = [name for part in parts for name in part.get("required", ())]
    return {"type": "object", "properties": fields, "required": list(dict.fromkeys(required))}


_HARD: Final = re.compile(r"[\^$]|\\[bBkpP\d]|\(\?(?!:)|\\$")
"""In the middle of a pattern `jsonsubschema` takes an anchor, also in brackets, for something else."""


def is_plain(pattern: str) -> bool:
    """Whether `jsonsubschema` can be believed of it: anchors only at its ends, and of the whole pattern."""
    inner = pattern.removeprefix("^").removesuffix("$")
    if not inner or _HARD.search(inner):
        return False
    outside = re.sub(r"\\.|\[[^\]]*\]", "", inner)
    while (shorter := re.sub(r"\([^()]*\)", "", outside)) != outside:
        outside = shorter
    return inner == pattern or "|" not in outside


def patterns(schema: Any) -> Iterator[str]:
    """All regular expressions in a schema."""
    if isinstance(schema, list):
        for part in schema:
            yield from patterns(part)
    elif isinstance(schema, Mapping):
        if isinstance(schema.get("pattern"), str):
            yield schema["pattern"]
        for part in schema.values():
            yield from patterns(part)


def definitions(schema: Any, document: Document) -> dict[str, Schema]:
    """Every schema that this one refers to, and those that they refer to, by reference."""
    found: dict[str, Schema] = {}
    left: list[Any] = [schema]
    while left:
        part = left.pop()
        if isinstance(part, list):
            left += part
        elif isinstance(part, Mapping):
            reference = part.get("$ref")
            if not isinstance(reference, str):
                left += part.values()
            elif reference not in found:
                found[reference] = bare(document.followed(part)[0])
                left.append(found[reference])
    return found


def can_be_written_out(schema: Any, document: Document) -> bool:
    """Whether the schema is of a handy size with all references replaced by what they mean."""
    sizes: dict[str, float] = {}

    def size(part: Any) -> float:
        if isinstance(part, list):
            return 1 + sum(map(size, part))
        if not isinstance(part, Mapping):
            return 1
        reference = part.get("$ref")
        if not isinstance(reference, str):
            return 1 + sum(map(size, part.values()))
        if reference not in sizes:
            sizes[reference] = math.inf  # met again before it is known: it has itself in it
            sizes[reference] = size(document.followed(part)[0])
        return sizes[reference]

    try:
        return size(schema) <= _HANDY
    except RecursionError:
        return False


def whole(schema: Any, document: Document, *, sent: bool) -> Any:
    """The schema in draft-04, without references and without what `jsonsubschema` does not know.

    Args:
        schema: one that `can_be_written_out`.
        sent: it describes what is sent. A sender sends no fields but those that it names, so an object is
            closed there unless it says otherwise; a receiver ignores fields that it does not know.
    """
    schema, _ = document.followed(schema)
    schema = bare(schema)
    if "$ref" in schema:
        return whole(schema, document, sent=sent)
    if sent and "allOf" in schema:
        rest = {key: part for key, part in schema.items() if key != "allOf"}
        parts = [bare(document.followed(bare(part))[0]) for part in (*schema["allOf"], rest)]
        one = together([part for part in parts if part != ANYTHING])
        if one is not None:
            return whole(one, document, sent=True)
    new: dict[str, Any] = {}
    in_draft_4 = COMPARED - {"const", "format", "exclusiveMinimum", "exclusiveMaximum"}
    for key in sorted(schema.keys() & in_draft_4):
        part = schema[key]
        if key == "properties":
            new[key] = {name: whole(inner, document, sent=sent) for name, inner in part.items()}
        elif key in ("allOf", "anyOf", "oneOf") or (key == "items" and isinstance(part, list)):
            # Closed one by one, no value would be of all of them.
            new[key] = [whole(inner, document, sent=sent and key != "allOf") for inner in part]
        elif key in ("items", "not") or (key.startswith("additional") and isinstance(part, Mapping)):
            new[key] = whole(part, document, sent=sent and key != "not")
        else:
            new[key] = part
    for plain, tighter in (("minimum", max), ("maximum", min)):
        exclusive = f"exclusive{plain.capitalize()}"
        limit = schema.get(exclusive)
        # Draft-04 has no second limit: it says of the one whether it is exclusive.
        if isinstance(limit, int | float) and tighter(limit, new.get(plain, limit)) == limit:
            new |= {plain: limit, exclusive: True}
    if new.get("required") == []:
        del new["required"]  # draft-04 wants one at least
    if sent and "properties" in new:
        new.setdefault("additionalProperties", False)
    return new
