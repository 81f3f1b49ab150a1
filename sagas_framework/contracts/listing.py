"""The fields of a schema as a list, and where two lists differ, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final

from sagas_framework.contracts.documents import Document, Message
from sagas_framework.contracts.fields import EACH, Path
from sagas_framework.contracts.schemas import OF_TYPE, bare
from sagas_framework.contracts.words import described, field_name

_ALTERNATIVES: Final = ("allOf", "anyOf", "oneOf")
_BELOW: Final = frozenset({"properties", "required", "items", "additionalItems", "additionalProperties"})
_MOST: Final = 5_000  # models that refer to each other have no end of fields
_REQUIRED: Final = "required"
_CLOSED: Final = "with nothing else in it"
_MARKS: Final = (_REQUIRED, _CLOSED)
_DESCRIBED: Final = frozenset({"type", "enum", "const", "format"}).union(*OF_TYPE.values())


def listed(schema: Any, document: Document, message: Message, part: str) -> dict[str, str]:
    """What each field may be, by its name; the whole is named ``""``.

    A model that has itself in it is told once.
    """
    found: dict[str, dict[str, None]] = {}
    for path, what in islice(_listed(schema, document, (), frozenset()), _MOST):
        found.setdefault(field_name(path, message, part), {})[what] = None
    return {name: _joined(list(told)) for name, told in found.items()}


def _joined(told: Sequence[str]) -> str:
    kinds = " or ".join(what for what in told if what not in _MARKS)
    return ", ".join([kinds, *(mark for mark in _MARKS if mark in told)])


def _listed(schema: Any, document: Document, path: Path, above: frozenset[str]) -> Iterator[tuple[Path, str]]:
    schema = bare(schema)
    while isinstance(reference := schema.get("$ref"), str):
        if reference in above:
            yield path, f"again {reference.rsplit('/', 1)[-1]}"
            return
        above |= {reference}
        schema = bare(document.followed(schema)[0])
    for keyword in _ALTERNATIVES:
        for alternative in schema.get(keyword, ()):
            yield from _listed(alternative, document, path, above)
    own = {key: value for key, value in schema.items() if key not in _BELOW.union(_ALTERNATIVES)}
    if own or not schema:
        others = "".join(f", {key} {own[key]!r}" for key in sorted(own.keys() - _DESCRIBED))
        yield path, described(own) + others
    for name, inner in schema.get("properties", {}).items():
        yield from _listed(inner, document, (*path, name), above)
        if name in schema.get("required", ()):
            yield (*path, name), _REQUIRED
    items = schema.get("items")
    for number, inner in enumerate(items if isinstance(items, list) else ()):
        yield from _listed(inner, document, (*path, number), above)
    if items is not None and not isinstance(items, list):
        yield from _listed(items, document, (*path, EACH), above)
    for keyword in ("additionalItems", "additionalProperties"):
        more = schema.get(keyword)
        if more is False:
            yield path, _CLOSED
        elif isinstance(more, Mapping):
            yield from _listed(more, document, (*path, EACH), above)


def differing(before: Mapping[str, str], after: Mapping[str, str], part: str) -> Iterator[tuple[str, str]]:
    """The names of fields that differ, and how: ``the field note is new (string)``."""
    kind = "header" if part == "headers" else "field"
    for name in dict.fromkeys([*before, *after]):
        place = f"the {kind} {name}" if name else f"the {part}"
        if name not in before:
            yield name, f"{place} is new ({after[name]})"
        elif name not in after:
            yield name, f"{place} is gone"
        elif before[name] != after[name]:
            yield name, f"{place} is {after[name]} instead of {before[name]}"
