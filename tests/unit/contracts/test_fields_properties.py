"""Whatever the schemas: what is refused was told, and a schema takes what it allows itself."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from sagas_framework.contracts import document
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.fields import Side, breaks

NAMES = st.sampled_from(["a", "b", "c"])
LETTERS = st.sampled_from(["", "x", "yy", "zzz"])

Schema = dict[str, Any]


@st.composite
def numbers(draw: st.DrawFn) -> Schema:
    low = draw(st.none() | st.integers(-2, 2))
    high = draw(st.none() | st.integers(0, 4))
    limits = {
        draw(st.sampled_from(["minimum", "exclusiveMinimum"])): low,
        draw(st.sampled_from(["maximum", "exclusiveMaximum"])): high,
    }
    kind = draw(st.sampled_from(["integer", "number"]))
    return {"type": kind} | {key: limit for key, limit in limits.items() if limit is not None}


@st.composite
def texts(draw: st.DrawFn) -> Schema:
    limits = {
        "minLength": draw(st.none() | st.integers(1, 2)),
        "maxLength": draw(st.none() | st.integers(1, 3)),
    }
    return {"type": "string"} | {key: limit for key, limit in limits.items() if limit is not None}


@st.composite
def models(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    fields = draw(st.dictionaries(NAMES, inner, max_size=3))
    required = draw(st.lists(st.sampled_from(sorted(fields)), unique=True)) if fields else []
    closed = {"additionalProperties": False} if draw(st.booleans()) else {}
    return {"type": "object", "properties": fields, "required": required} | closed


@st.composite
def tuples(draw: st.DrawFn, inner: st.SearchStrategy[Schema]) -> Schema:
    items = draw(st.lists(inner, min_size=1, max_size=2))
    size = len(items)
    return {"type": "array", "items": items, "additionalItems": False, "minItems": size, "maxItems": size}


def compound(inner: st.SearchStrategy[Schema]) -> st.SearchStrategy[Schema]:
    return (
        models(inner)
        | tuples(inner)
        | inner.map(lambda one: {"type": "array", "items": one})
        | st.lists(inner, min_size=1, max_size=3).map(lambda several: {"anyOf": several})
    )


SIMPLE: list[Schema] = [{"type": "null"}, {"type": "boolean"}, {"type": ["integer", "null"]}]


def one_of(values: list[Any]) -> Schema:
    return {"enum": values}


PLAIN: st.SearchStrategy[Schema] = (
    numbers()
    | texts()
    | st.sampled_from(SIMPLE)
    | st.lists(st.integers(0, 3) | LETTERS | st.none(), min_size=1, max_size=3).map(one_of)
)
SCHEMAS: st.SearchStrategy[Schema] = st.recursive(PLAIN, compound, max_leaves=5)


def sent(draw: st.DrawFn, schema: Schema) -> Any:
    """A value that a sender with this schema may send: with no fields but those that it names."""
    if "anyOf" in schema:
        return sent(draw, draw(st.sampled_from(schema["anyOf"])))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    kinds = schema["type"]
    kind = draw(st.sampled_from(kinds)) if isinstance(kinds, list) else kinds
    if kind == "object":
        return {
            name: sent(draw, inner)
            for name, inner in schema["properties"].items()
            if name in schema["required"] or draw(st.booleans())
        }
    if kind == "array":
        items = schema["items"]
        several = items if isinstance(items, list) else [items] * draw(st.integers(0, 2))
        return [sent(draw, inner) for inner in several]
    return draw(
        {
            "null": st.none(),
            "boolean": st.booleans(),
            "string": st.text("xyz", max_size=4),
            "integer": st.integers(-3, 6),
            "number": st.integers(-3, 6) | st.sampled_from([-1.5, 0.5, 2.5]),
        }[kind]
    )


def changed(draw: st.DrawFn, schema: Schema) -> Schema:
    """The schema with another one in one place of it."""
    if draw(st.integers(0, 3)) == 0:
        return draw(SCHEMAS)
    if schema.get("properties"):
        name = draw(st.sampled_from(sorted(schema["properties"])))
        fields = schema["properties"] | {name: changed(draw, schema["properties"][name])}
        return schema | {"properties": fields}
    if isinstance(schema.get("items"), dict):
        return schema | {"items": changed(draw, schema["items"])}
    for keyword in ("items", "anyOf"):
        if keyword in schema:
            inner = list(schema[keyword])
            place = draw(st.integers(0, len(inner) - 1))
            inner[place] = changed(draw, inner[place])
            return schema | {keyword: inner}
    return draw(PLAIN)


def side(schema: Any) -> Side:
    return Side(schema, document({"asyncapi": "3.1.0", "info": {"title": "t", "version": "1.0.0"}}, "d"))


# The child is started once, by whoever asks first.
UNHURRIED = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


@UNHURRIED
@given(st.data(), SCHEMAS)
def test_a_value_that_is_refused_was_told(
    containing: Containing, data: st.DataObject, sender: Schema
) -> None:
    receiver = data.draw(st.composite(changed)(sender))
    value = data.draw(st.composite(sent)(sender))
    if not Draft7Validator(sender).is_valid(value) or Draft7Validator(receiver).is_valid(value):
        return  # a number out of the sender's own limits, or one that is taken

    assert breaks(side(sender), side(receiver), containing)


@UNHURRIED
@given(SCHEMAS)
def test_a_schema_takes_what_it_allows(containing: Containing, schema: Schema) -> None:
    assert breaks(side(schema), side(schema), containing) == []


@UNHURRIED
@given(SCHEMAS, SCHEMAS)
def test_a_schema_that_takes_something_more_takes_what_it_took(
    containing: Containing, schema: Schema, more: Schema
) -> None:
    assert breaks(side(schema), side({"anyOf": [more, schema]}), containing) == []
