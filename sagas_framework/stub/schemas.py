"""JSON schemas of an AsyncAPI document: what does not fit one, and a value that does.

Schemas of AsyncAPI 3 are those of JSON Schema draft-07 (its *Schema Object*).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from jsonschema import Draft7Validator, FormatChecker
from jsonschema.exceptions import SchemaError, ValidationError, best_match

from sagas_framework.references import Json, follow, references

_LONGEST: Final = 200
"""Letters of a complaint; it quotes what does not fit."""
_DEEPEST: Final = 40

_FORMATS: Final[Mapping[str, str]] = {
    "date-time": "2026-03-01T12:00:00Z",
    "date": "2026-03-01",
    "time": "12:00:00Z",
    "duration": "PT1M",
    "uuid": "00000000-0000-0000-0000-000000000001",
    "email": "ann@example.org",
    "uri": "https://example.org/",
    "hostname": "example.org",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
}


class Trouble(NamedTuple):
    """What does not fit. `path`: where, from the outside in (``("items", 0, "quantity")``)."""

    path: tuple[str | int, ...]
    message: str

    def __str__(self) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.path)
        return f"${''.join(steps)}: {self.message}"


class NoValue(Exception):
    """No value can be made up for a schema; the message says at which part of it."""


class Schema:
    """One schema of a document.

    Args:
        document: the whole of it, in which the schema's references are looked up.

    Raises:
        ValueError: it is no schema; the message says why.
    """

    def __init__(self, schema: Json, document: Json) -> None:
        for part in _reached(schema, document):
            try:
                Draft7Validator.check_schema(part)
            except SchemaError as error:
                raise ValueError(f"{error.json_path}: {error.message[:_LONGEST]}") from None
        self.schema = schema
        self._document = document
        # References point into the document, so its parts stand beside the schema's own keywords, of
        # which none has the name of one.
        self._validator = Draft7Validator({**document, **schema}, format_checker=FormatChecker())

    def troubles(self, value: Any) -> list[Trouble]:
        """What does not fit, from the top down; nothing for a value that does."""
        found = [_nearest(error) for error in self._validator.iter_errors(value)]
        return sorted(found, key=lambda trouble: [str(step) for step in trouble.path])

    def value(self) -> Any:
        """A value that fits: the schema's own examples, or the plainest one.

        Raises:
            NoValue: none was found.
        """
        value = _Maker(self._document).value(self.schema)
        if troubles := self.troubles(value):
            raise NoValue(f"{value!r} was tried: {'; '.join(map(str, troubles))}")
        return value


def _reached(schema: Any, document: Json) -> Iterator[Any]:
    """The schema and all that it refers to."""
    waiting, seen = [schema], set[str]()
    while waiting:
        part = waiting.pop()
        yield part
        for _, reference in references(part):
            if reference["$ref"] not in seen:
                seen.add(reference["$ref"])
                waiting.append(follow(document, reference))


def _nearest(error: ValidationError) -> Trouble:
    """Of "none of these fits" (anyOf) the one that nearly does."""
    nearest = best_match([error]) or error
    return Trouble(tuple(nearest.absolute_path), nearest.message[:_LONGEST])


class _Maker:
    """Makes up a value, the same one each time."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._depth = 0

    def value(self, schema: Any) -> Any:
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise NoValue("it contains itself")
            return self._of(schema)
        finally:
            self._depth -= 1

    def _of(self, schema: Any) -> Any:
        if schema is True:
            return None
        if schema is False:
            raise NoValue("nothing fits `false`")
        schema = follow(self._document, schema)
        for given in ("examples", "enum"):
            if schema.get(given):
                return schema[given][0]
        for given in ("default", "const"):
            if given in schema:
                return schema[given]
        if "allOf" in schema:
            return self._all_of(schema)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return self._first(schema[choice])
        return self._by_type(schema)

    def _all_of(self, schema: Json) -> Any:
        parts = [part for part in schema["allOf"] if part is not True]
        rest = {name: inner for name, inner in schema.items() if name != "allOf"}
        values = [self.value(part) for part in [*parts, *([rest] if "type" in rest else [])]]
        if values and all(isinstance(value, dict) for value in values):
            return {name: inner for value in values for name, inner in value.items()}
        return values[-1] if values else None

    def _first(self, choices: Iterable[Any]) -> Any:
        """Of the first choice that has a value; null only if there is nothing else."""
        told: list[str] = []
        for choice in sorted(choices, key=lambda each: isinstance(each, dict) and each.get("type") == "null"):
            try:
                return self.value(choice)
            except NoValue as error:
                told.append(str(error))
        raise NoValue("; ".join(told) or "it leaves no choice")

    def _by_type(self, schema: Json) -> Any:
        kind = schema.get("type")
        if isinstance(kind, list):
            return self._first([{**schema, "type": each} for each in kind])
        if kind is None:
            kind = "object" if "properties" in schema or "required" in schema else "null"
        match kind:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.value(properties.get(name, True)) for name in schema.get("required", ())}
            case "array":
                return self._array(schema)
            case "string":
                return self._string(schema)
            case "integer" | "number":
                return _number(schema, whole=kind == "integer")
            case "boolean":
                return True
            case _:
                return None

    def _array(self, schema: Json) -> list[Any]:
        items = schema.get("items", True)
        if isinstance(items, list):
            return [self.value(item) for item in items]
        return [self.value(items) for _ in range(schema.get("minItems", 1 if items is not True else 0))]

    @staticmethod
    def _string(schema: Json) -> str:
        if schema.get("format") in _FORMATS:
            return _FORMATS[schema["format"]]
        text: str = "text" * max(1, -(-schema.get("minLength", 0) // 4))
        return text[: schema.get("maxLength", len(text))]


def _number(schema: Json, *, whole: bool) -> int | float:
    step = schema.get("multipleOf", 1)
    low = schema.get("minimum")
    if (above := schema.get("exclusiveMinimum")) is not None:
        low = above + step if low is None else max(low, above + step)
    high = schema.get("maximum")
    if (below := schema.get("exclusiveMaximum")) is not None:
        high = below - step if high is None else min(high, below - step)
    value = 1 if low is None else low
    if high is not None and value > high:
        value = high
    if "multipleOf" in schema:
        value = -(-value // step) * step
    return int(value) if whole else value
