"""What a receiver would refuse of what is sent, by their schemas."""

from __future__ import annotations

from typing import Any

import pytest

from sagas_framework.contracts import document
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.fields import Break, Side, Why, breaks

INTEGER = {"type": "integer"}
STRING = {"type": "string"}
NULL = {"type": "null"}


def refused(
    containing: Containing,
    sent: Any,
    taken: Any,
    *,
    closed: bool = False,
    schemas: Any = None,
    others: Any = None,
) -> list[tuple[Why, tuple[str | int, ...]]]:
    """The breaks' reasons and paths. *schemas*: named ones of the sender; *others*: of the receiver."""
    found = _breaks(
        containing, sent, taken, closed, schemas or {}, others if others is not None else schemas or {}
    )
    return [(one.why, one.path) for one in found]


def _breaks(
    containing: Containing, sent: Any, taken: Any, closed: bool, schemas: Any, others: Any
) -> list[Break]:
    def side(schema: Any, named: Any) -> Side:
        info = {"title": "t", "version": "1.0.0"}
        return Side(
            schema, document({"asyncapi": "3.1.0", "info": info, "components": {"schemas": named}}, "d")
        )

    return breaks(side(sent, schemas), side(taken, others), containing, closed=closed)


def model(*required: str, **fields: Any) -> dict[str, Any]:
    """An object as pydantic describes it."""
    return {"type": "object", "properties": fields, "required": list(required)}


def either(*schemas: Any) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def tuple_of(*schemas: Any) -> dict[str, Any]:
    return {
        "type": "array",
        "items": list(schemas),
        "additionalItems": False,
        "minItems": len(schemas),
        "maxItems": len(schemas),
    }


SAFE: list[tuple[Any, Any]] = [
    (INTEGER, INTEGER),
    (INTEGER, {"type": "number"}),
    (INTEGER, {}),
    (INTEGER, True),
    (INTEGER, either(INTEGER, NULL)),
    (either(INTEGER, NULL), {"type": ["null", "integer"]}),
    ({"type": ["null", "integer"]}, either(INTEGER, NULL)),
    ({"type": ["null", "string"], "format": "uuid"}, either({"type": "string", "format": "uuid"}, NULL)),
    ({"const": "a"}, STRING),
    ({"enum": ["a", "b"]}, {"type": "string", "enum": ["c", "b", "a"]}),
    ({"const": 3}, {"type": "integer", "minimum": 3}),
    ({"type": "boolean"}, {"enum": [True, False]}),
    ({"type": "string", "format": "uuid4"}, {"type": "string", "format": "uuid"}),
    ({"type": "string", "format": "date"}, STRING),
    ({"type": "string", "maxLength": 5}, {"type": "string", "maxLength": 6}),
    ({"type": "integer", "minimum": 1}, {"type": "integer", "exclusiveMinimum": 0}),
    ({"type": "integer", "exclusiveMinimum": 4, "minimum": 2}, {"type": "integer", "minimum": 3}),
    ({"type": "integer"}, either({"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 5})),
    (model("a", a=INTEGER), model(a=INTEGER)),
    (model("a", a=INTEGER, b=STRING), model("a", a=INTEGER)),
    (model("a", a=INTEGER), model("a", a=INTEGER, b=STRING)),  # it sends no b, of whatever type
    (model("a", a=INTEGER), {"type": "object", "additionalProperties": INTEGER}),
    ({"type": "object", "additionalProperties": INTEGER}, {"type": "object"}),
    ({"type": "array", "items": INTEGER}, {"type": "array", "items": {"type": "number"}}),
    (tuple_of(INTEGER, STRING), tuple_of(either(INTEGER, NULL), STRING)),
    (tuple_of(INTEGER, INTEGER), {"type": "array", "items": INTEGER}),
    ({"type": "array", "items": [INTEGER], "additionalItems": False}, {"type": "array", "maxItems": 1}),
    ({"allOf": [model("a", a=INTEGER), model("b", b=STRING)]}, model("a", "b", a=INTEGER, b=STRING)),
    (model("a", "b", a=INTEGER, b=STRING), {"allOf": [model("a", a=INTEGER), model("b", b=STRING)]}),
    (
        either(model("k", k={"const": "cat"}), model("k", k={"const": "dog"})),
        {"oneOf": [model("k", k={"const": "cat"}), model("k", k={"const": "dog"})]},
    ),
    (
        {"type": "array", "items": INTEGER, "contains": {"const": 1}},
        {"type": "array", "contains": {"const": 1}},
    ),
    (
        {"type": "object", "propertyNames": {"enum": ["a"]}},
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}},
    ),
    (model(a=INTEGER), {"type": "object", "propertyNames": {"enum": ["a", "b"]}}),
    ({"const": "2026-01-01"}, {"type": "string", "format": "date"}),
    (
        {"type": "string", "not": {"enum": ["SoldOut", "Full"]}},
        {"type": "string", "not": {"enum": ["SoldOut"]}},
    ),
    (
        {"type": "string", "pattern": "^[^a]$", "maxLength": 3},
        {"type": "string", "pattern": "^[^a]$", "maxLength": 4},
    ),
    ({"type": "string", "title": "A", "default": "x", "x-own": 1}, {"type": "string", "title": "B"}),
    (False, INTEGER),
]


@pytest.mark.parametrize(("sent", "taken"), SAFE)
def test_all_that_is_sent_is_taken(containing: Containing, sent: Any, taken: Any) -> None:
    assert refused(containing, sent, taken) == []


REFUSED: list[tuple[Any, Any, Why, tuple[str | int, ...]]] = [
    (STRING, INTEGER, Why.TYPE, ()),
    ({"type": "number"}, INTEGER, Why.TYPE, ()),
    ({}, INTEGER, Why.TYPE, ()),
    (INTEGER, False, Why.UNKNOWN, ()),
    (either(INTEGER, NULL), INTEGER, Why.TYPE, ()),
    ({"type": ["integer", "null"]}, {"type": ["integer", "string"]}, Why.TYPE, ()),
    (STRING, {"const": "a"}, Why.VALUES, ()),
    ({"enum": ["a", "b"]}, {"enum": ["a"]}, Why.VALUES, ()),
    ({"enum": ["a", None]}, STRING, Why.VALUES, ()),
    ({"type": "boolean"}, {"const": True}, Why.VALUES, ()),
    ({"const": 3}, {"type": "integer", "minimum": 4}, Why.VALUES, ()),
    (STRING, {"type": "string", "format": "date"}, Why.FORMAT, ()),
    ({"const": "no date"}, {"type": "string", "format": "date"}, Why.VALUES, ()),
    *(
        ({"const": "red"}, {"type": "string", "format": format}, Why.VALUES, ())
        for format in ("date-time", "time", "duration", "uuid", "uri", "of-our-own")
    ),
    (
        STRING,
        either({"type": "string", "format": "date"}, {"type": "string", "maxLength": 3}),
        Why.FORMAT,
        (),
    ),
    (STRING, either(*({"type": "string", "format": one} for one in ("date", "uuid"))), Why.FORMAT, ()),
    (
        {"type": "string", "pattern": "^a|b$"},
        {"type": "string", "pattern": "^(a|b)$"},
        Why.UNDECIDED,
        (),
    ),
    ({"type": "string", "pattern": "^[^a]$"}, {"type": "string", "pattern": "^a$"}, Why.UNDECIDED, ()),
    (STRING, {"type": "string", "pattern": "^$"}, Why.UNDECIDED, ()),
    ({"const": "a"}, {"type": "string", "pattern": r"^\p{L}$"}, Why.UNDECIDED, ()),
    (
        {"type": "object", "propertyNames": {"enum": ["a", "b"]}},
        {"type": "object", "propertyNames": {"enum": ["a"]}},
        Why.VALUES,
        (),
    ),
    (model(b=INTEGER), {"type": "object", "propertyNames": {"enum": ["a"]}}, Why.VALUES, ()),
    (model() | {"patternProperties": {"^x": STRING}}, model(x=INTEGER), Why.TYPE, ("x",)),
    (
        model() | {"patternProperties": {"^x": STRING}},
        {"type": "object", "additionalProperties": INTEGER},
        Why.TYPE,
        ("*",),
    ),
    ({"type": "string", "format": "date-time"}, {"type": "string", "format": "date"}, Why.FORMAT, ()),
    ({"type": "string", "maxLength": 6}, {"type": "string", "maxLength": 5}, Why.LIMITS, ()),
    (STRING, {"type": "string", "pattern": "^[a-z]+$"}, Why.LIMITS, ()),
    ({"type": "integer", "minimum": 0}, {"type": "integer", "exclusiveMinimum": 0}, Why.LIMITS, ()),
    (INTEGER, either({"type": "integer", "minimum": 5}, {"type": "integer", "maximum": 3}), Why.LIMITS, ()),
    (model(a=INTEGER), model("a", a=INTEGER), Why.MAY_BE_MISSING, ("a",)),
    (model(b=INTEGER), model("a", a=INTEGER), Why.MISSING, ("a",)),
    (
        {"type": "object", "additionalProperties": INTEGER},
        model("a", a=INTEGER),
        Why.MAY_BE_MISSING,
        ("a",),
    ),
    (model(a=INTEGER), model() | {"additionalProperties": False}, Why.UNKNOWN, ("a",)),
    (model(a=INTEGER), {"type": "object", "additionalProperties": STRING}, Why.TYPE, ("a",)),
    ({"type": "object", "additionalProperties": STRING}, model(a=INTEGER), Why.TYPE, ("a",)),
    (model(a=INTEGER) | {"additionalProperties": True}, model(b=INTEGER), Why.TYPE, ("b",)),
    (model(a=model(b=STRING)), model(a=model(b=INTEGER)), Why.TYPE, ("a", "b")),
    (model(a=INTEGER), {"type": "object", "maxProperties": 0}, Why.LIMITS, ()),
    ({"type": "array", "items": STRING}, {"type": "array", "items": INTEGER}, Why.TYPE, ("[]",)),
    ({"type": "array"}, {"type": "array", "maxItems": 2}, Why.LIMITS, ()),
    ({"type": "array"}, {"type": "array", "minItems": 1}, Why.LIMITS, ()),
    ({"type": "array"}, {"type": "array", "uniqueItems": True}, Why.LIMITS, ()),
    (tuple_of(INTEGER, STRING), tuple_of(INTEGER, INTEGER), Why.TYPE, (1,)),
    (tuple_of(INTEGER, STRING), tuple_of(INTEGER), Why.LIMITS, ()),
    ({"type": "array", "items": INTEGER}, {"type": "array", "contains": INTEGER}, Why.UNDECIDED, ()),
    (STRING, {"type": "string", "not": {"const": "x"}}, Why.UNDECIDED, ()),
    (
        {"type": "string", "not": {"enum": ["SoldOut"]}},
        {"type": "string", "not": {"enum": ["SoldOut", "Full"]}},
        Why.UNDECIDED,
        (),
    ),
    (
        either(model("k", k={"const": "cat"}), model("k", k={"const": "cow"})),
        {"oneOf": [model("k", k={"const": "cat"}), model("k", k={"const": "dog"})]},
        Why.VALUES,
        ("k",),
    ),
    (
        model("k", k={"const": "dog"}, a=STRING),
        either(
            *(model("k", k={"const": kind}, a=INTEGER) for kind in ("cat", "dog")), model(k={"const": "cow"})
        ),
        Why.TYPE,
        ("a",),
    ),
    ({"allOf": [model("a", a=STRING), model("b", b=STRING)]}, model("a", a=INTEGER), Why.TYPE, ("a",)),
    (STRING, {"allOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}, Why.LIMITS, ()),
]


@pytest.mark.parametrize(("sent", "taken", "why", "path"), REFUSED)
def test_some_of_what_is_sent_is_refused(
    containing: Containing, sent: Any, taken: Any, why: Why, path: tuple[str | int, ...]
) -> None:
    assert refused(containing, sent, taken) == [(why, path)]


@pytest.mark.parametrize("keyword", ["propertyNames", "dependencies"])
def test_what_a_keyword_refers_to_may_have_changed(containing: Containing, keyword: str) -> None:
    names = {"$ref": "#/components/schemas/Names"}
    schema = {"type": "object", keyword: {"a": names} if keyword == "dependencies" else names}
    old, new = {"Names": {"enum": ["a", "b"]}}, {"Names": {"enum": ["a"]}}

    assert refused(containing, schema, schema, schemas=old) == []
    assert refused(containing, schema, schema, schemas=old, others=new) != []


def test_headers_that_others_add_are_not_the_senders(containing: Containing) -> None:
    sent = model(a=INTEGER) | {"additionalProperties": True}

    assert refused(containing, sent, model(b=INTEGER), closed=True) == []
    assert refused(containing, sent, model("b", b=INTEGER), closed=True) == [(Why.MISSING, ("b",))]


def test_a_pattern_that_cannot_be_read_is_not_taken_for_harmless(containing: Containing) -> None:
    money = {"type": "string", "pattern": r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$"}

    assert refused(containing, money, money) == []
    assert refused(containing, money, STRING) == []
    assert refused(containing, STRING, money) == [(Why.UNDECIDED, ())]


# ---- models that have themselves in them ----------------------------------------------------------

PART = {"$ref": "#/components/schemas/Part"}


def _part(**more: Any) -> dict[str, Any]:
    """A part that has parts."""
    return {"Part": model("name", name=STRING, parts={"type": "array", "items": PART}, **more)}


def test_a_model_in_itself_is_compared_once(containing: Containing) -> None:
    assert refused(containing, PART, PART, schemas=_part()) == []
    assert refused(containing, either(PART, NULL), either(NULL, PART), schemas=_part()) == []


def test_a_model_in_itself_breaks_where_it_differs(containing: Containing) -> None:
    old, new = _part(weight=INTEGER), _part(weight=STRING)

    assert refused(containing, PART, PART, schemas=old, others=new) == [
        (Why.TYPE, ("weight",)),
    ]


def test_a_model_in_itself_may_be_written_out_on_the_other_side(containing: Containing) -> None:
    written_out = model("name", name=STRING, parts={"type": "array", "items": PART})

    assert refused(containing, PART, written_out, schemas=_part()) == []
    assert refused(containing, written_out, PART, schemas=_part()) == []


def test_models_in_each_other_end(containing: Containing) -> None:
    two = {
        "A": model(b={"$ref": "#/components/schemas/B"}),
        "B": model(a=either({"$ref": "#/components/schemas/A"}, NULL)),
    }

    assert (
        refused(
            containing, {"$ref": "#/components/schemas/A"}, {"$ref": "#/components/schemas/A"}, schemas=two
        )
        == []
    )


def _tangle(how_many: int, **of_the_last: Any) -> dict[str, Any]:
    """Models that all refer to all the others."""
    names = [f"M{number}" for number in range(how_many)]
    fields = {name.lower(): {"$ref": f"#/components/schemas/{name}"} for name in names}
    tangle = {name: model(**fields) for name in names}
    return tangle | {names[-1]: model(**fields, **of_the_last)}


def test_a_tangle_of_models_ends(containing: Containing) -> None:
    first = {"$ref": "#/components/schemas/M0"}
    old, new = _tangle(12, weight=INTEGER), _tangle(12, weight=STRING)

    assert refused(containing, first, first, schemas=old) == []
    assert refused(containing, first, first, schemas=old, others=new) == [(Why.UNDECIDED, ())]
    small = refused(
        containing, first, first, schemas=_tangle(3, weight=INTEGER), others=_tangle(3, weight=STRING)
    )
    assert (Why.TYPE, ("m2", "weight")) in small
