"""Values that are made for schemas fit them."""

from __future__ import annotations

from typing import Any

import pytest

from sagas_framework.stub.schemas import NoValue, Schema

COMPONENTS: dict[str, Any] = {
    "components": {
        "schemas": {
            "Item": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "Endless": {
                "type": "object",
                "required": ["inner"],
                "properties": {"inner": {"$ref": "#/components/schemas/Endless"}},
            },
            "Tree": {
                "type": "object",
                "properties": {"inner": {"$ref": "#/components/schemas/Tree"}},
            },
        }
    }
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"type": "integer"}, 1),
        ({"type": "integer", "exclusiveMinimum": 5}, 6),
        ({"type": "integer", "maximum": -3}, -3),
        ({"type": "number", "minimum": 0.5, "multipleOf": 0.25}, 0.5),
        ({"type": "string"}, "text"),
        ({"type": "string", "minLength": 6}, "texttext"),
        ({"type": "string", "maxLength": 2}, "te"),
        ({"type": "string", "format": "date-time"}, "2026-03-01T12:00:00Z"),
        ({"type": "string", "enum": ["EUR", "USD"]}, "EUR"),
        ({"type": "string", "pattern": "^I-", "examples": ["I-1"]}, "I-1"),
        ({"const": "open"}, "open"),
        ({"type": "integer", "default": 0}, 0),
        ({"type": "boolean"}, True),
        ({"type": "null"}, None),
        ({"type": ["null", "integer"]}, 1),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}]}, 1),
        ({"allOf": [{"$ref": "#/components/schemas/Item"}], "description": "x"}, {"name": "text"}),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Item"}}, [{"name": "text"}]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2}, [1, 1]),
        ({"type": "array", "items": [{"type": "integer"}, {"type": "string"}], "minItems": 2}, [1, "text"]),
        ({"type": "object", "properties": {"optional": {"type": "integer"}}}, {}),
        ({"$ref": "#/components/schemas/Tree"}, {}),
        ({}, None),
    ],
)
def test_the_plainest_value_that_fits_is_made(schema: dict[str, Any], value: Any) -> None:
    made = Schema(schema, COMPONENTS)

    assert made.value() == value
    assert made.troubles(value) == []


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"type": "string", "pattern": "^I-"}, "'text' was tried"),
        ({"$ref": "#/components/schemas/Endless"}, "contains itself"),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "uniqueItems": True}, "was tried"),
    ],
)
def test_where_no_value_is_found_it_says_so(schema: dict[str, Any], told: str) -> None:
    with pytest.raises(NoValue, match=told):
        Schema(schema, COMPONENTS).value()


def test_what_does_not_fit_is_told_with_its_place() -> None:
    schema = Schema({"type": "array", "items": {"$ref": "#/components/schemas/Item"}}, COMPONENTS)

    troubles = [str(trouble) for trouble in schema.troubles([{"name": "a"}, {"name": 3}, {}])]

    assert troubles == ["$[1].name: 3 is not of type 'string'", "$[2]: 'name' is a required property"]


def test_of_several_alternatives_the_nearest_is_told() -> None:
    schema = Schema({"anyOf": [{"type": "null"}, {"$ref": "#/components/schemas/Item"}]}, COMPONENTS)

    assert [str(trouble) for trouble in schema.troubles({"name": 3})] == ["$.name: 3 is not of type 'string'"]


def test_a_schema_that_is_none_is_told_also_behind_a_reference() -> None:
    document = {"components": {"schemas": {"Item": {"properties": {"name": {"type": "text"}}}}}}

    with pytest.raises(ValueError, match=r"\$\.properties\.name\.type: 'text' is not valid"):
        Schema({"items": {"$ref": "#/components/schemas/Item"}}, document)
