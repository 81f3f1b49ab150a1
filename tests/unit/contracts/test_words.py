"""Names of fields, and schemas, as sentences have them."""

from __future__ import annotations

from typing import Any

import pytest

from sagas_framework.contracts.documents import Message
from sagas_framework.contracts.words import described, either, field_name

BODY = {"type": "array", "items": [{"type": "array"}, {"type": "object"}, {"type": "object"}]}


def message(payload: Any) -> Message:
    return Message("m", "/m", headers={}, payload=payload, form={}, correlation=None)


@pytest.mark.parametrize(
    ("payload", "part", "path", "name"),
    [
        (BODY, "payload", (0, 1), ""),
        (BODY, "payload", (0, 1, "items", "[]", "quantity"), "items[].quantity"),
        (BODY, "payload", (0, 1, "place", 0), "place[0]"),
        (BODY, "payload", (1, "order_id"), "order_id"),  # a plain task's keyword argument
        (BODY, "payload", (0, 0), "$[0][0]"),
        (BODY, "payload", (2, "chain"), "$[2].chain"),
        (BODY, "headers", ("saga_attempt",), "saga_attempt"),
        ({"type": "object"}, "payload", ("order", "id"), "order.id"),
        ({"type": "object"}, "payload", ("*",), "(any other)"),
        ({"type": "array", "items": {}}, "payload", (0, 1, "a"), "[0][1].a"),
    ],
)
def test_a_field_is_named_as_its_class_has_it(
    payload: Any, part: str, path: tuple[str | int, ...], name: str
) -> None:
    assert field_name(path, message(payload), part) == name


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "any JSON value"),
        (False, "nothing"),
        ({"type": "string", "format": "date"}, "string (date)"),
        ({"type": "integer", "exclusiveMinimum": 0, "maximum": 9}, "integer (at most 9, more than 0)"),
        ({"type": ["integer", "null"]}, "integer or null"),
        ({"anyOf": [{"type": "integer"}, {"$ref": "#/components/schemas/Size"}]}, "integer or Size"),
        ({"enum": ["a", None, True, 1]}, "'a', null, true or 1"),
        ({"const": "a"}, "'a'"),
        ({"type": "array", "maxItems": 2, "uniqueItems": True}, "array (at most 2 items, no item twice)"),
    ],
)
def test_a_schema_in_words(schema: Any, words: str) -> None:
    assert described(schema) == words


def test_alternatives() -> None:
    assert [either(words) for words in (["a"], ["a", "b"], ["a", "b", "c"])] == ["a", "a or b", "a, b or c"]
