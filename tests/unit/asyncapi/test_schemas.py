"""Schemas of message classes in the dialect of AsyncAPI."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import pytest
from jsonschema import Draft7Validator
from pydantic import BaseModel, Field

from sagas_framework import DefinitionError, Message, Reply
from sagas_framework.asyncapi.schemas import schemas_of, to_draft7
from tests.unit.asyncapi.shop import Cook, Dish


def described(model: type[BaseModel], reserved: tuple[str, ...] = ()) -> tuple[dict[str, Any], Any]:
    """`(its schema, named schemas)`."""
    found, named = schemas_of([model], reserved)
    return found[model], named


def test_classes_are_named_schemas() -> None:
    schema, named = described(Cook)

    assert schema == {"$ref": "#/components/schemas/Cook"}
    assert list(named) == ["Cook", "Dish"]
    assert named["Cook"]["properties"]["dishes"]["items"] == {"$ref": "#/components/schemas/Dish"}
    assert named["Cook"]["description"] == "Cook the dishes."


def test_fields_with_a_default_need_not_be_sent_and_unknown_ones_may_be() -> None:
    _, named = described(Cook)

    assert named["Cook"]["required"] == ["dishes"]
    assert "additionalProperties" not in named["Cook"]


def test_decimals_are_texts() -> None:
    _, named = described(Dish)

    price = named["Dish"]["properties"]["price"]
    assert price["type"] == "string"
    assert Draft7Validator(price).is_valid(str(Decimal("12.30")))
    assert not Draft7Validator(price).is_valid(12.3)


def test_a_decimals_bounds_keep_what_the_text_can_say_of_them() -> None:
    class Priced(Message):
        price: Annotated[Decimal, Field(ge=0, max_digits=4, decimal_places=2)]

    _, named = described(Priced)

    price = Draft7Validator(named["Priced"]["properties"]["price"])
    assert all(price.is_valid(str(Decimal(text))) for text in ("12.30", "0", "5.500", "1E+2"))
    assert not any(price.is_valid(text) for text in ("12.305", "-1", "twelve", "1.", "NaN"))


def test_tuples_are_those_of_draft_7() -> None:
    class Slot(Message):
        between: tuple[datetime, int]

    _, named = described(Slot)

    schema = Draft7Validator(named["Slot"])
    assert schema.is_valid({"between": ["2026-03-01T12:00:00Z", 1]})
    assert not schema.is_valid({"between": [1, "2026-03-01T12:00:00Z"]})
    assert not schema.is_valid({"between": ["2026-03-01T12:00:00Z", 1, 2]})


def test_an_open_tuple_keeps_the_schema_of_the_rest() -> None:
    schema = to_draft7({"prefixItems": [{"type": "string"}], "items": {"type": "integer"}})

    assert schema == {"items": [{"type": "string"}], "additionalItems": {"type": "integer"}}


class Card(Message):
    kind: Literal["card"]


class Cash(Message):
    kind: Literal["cash"]


def test_alternatives_are_told_apart_without_openapis_discriminator() -> None:
    class Paid(Message):
        by: Annotated[Card | Cash, Field(discriminator="kind", description="How.")]

    _, named = described(Paid)

    by = named["Paid"]["properties"]["by"]
    assert "discriminator" not in by
    assert by["description"] == "How."
    assert by["oneOf"] == [{"$ref": "#/components/schemas/Card"}, {"$ref": "#/components/schemas/Cash"}]


def test_what_stands_beside_a_reference_is_kept() -> None:
    class Served(Message):
        dish: Dish = Field(description="The first.")

    _, named = described(Served)

    assert named["Served"]["properties"]["dish"] == {
        "description": "The first.",
        "allOf": [{"$ref": "#/components/schemas/Dish"}],
    }


def test_a_field_named_like_a_keyword_is_no_keyword() -> None:
    class Odd(Message):
        prefixItems: int  # noqa: N815
        discriminator: dict[str, int] = Field(default={"a": 1}, examples=[{"prefixItems": [1]}])

    _, named = described(Odd)

    assert list(named["Odd"]["properties"]) == ["prefixItems", "discriminator"]
    assert named["Odd"]["properties"]["discriminator"]["examples"] == [{"prefixItems": [1]}]


def test_two_classes_of_one_name_have_names_and_titles_of_their_own() -> None:
    def other() -> type[BaseModel]:
        class Dish(Message):
            calories: int

        return Dish

    found, named = schemas_of([Dish, other()])

    assert len({schema["$ref"] for schema in found.values()}) == 2
    assert {schema["title"] for schema in named.values()} == set(named)


def test_a_reserved_name_is_given_to_no_class() -> None:
    schema, named = described(Cook, reserved=("Dish", "Cook"))

    assert schema == {"$ref": "#/components/schemas/CookPayload"}
    assert named["CookPayload"]["properties"]["dishes"]["items"] == {
        "$ref": "#/components/schemas/DishPayload"
    }
    assert named["DishPayload"]["title"] == "DishPayload"


def test_a_class_that_contains_itself() -> None:
    _, named = described(Tree)

    assert Draft7Validator({"$ref": "#/components/schemas/Tree", "components": {"schemas": named}}).is_valid(
        {"twigs": [{"twigs": []}]}
    )


class Tree(Message):
    twigs: list[Tree] = Field(default_factory=list)


def test_a_class_without_a_schema_is_told() -> None:
    class Callback(Reply):
        call: Callable[[], None]

    with pytest.raises(
        DefinitionError, match=r"test_schemas\.test_a_class_without.*Callback has no JSON schema"
    ):
        described(Callback)
