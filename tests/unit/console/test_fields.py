"""From a reply's schema to form fields, and back from what was typed."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr, model_validator

from sagas_framework.console.fields import Input, Kind, check, inputs_of, parse, read


class Size(StrEnum):
    SMALL = "small"
    LARGE = "large"


class Inner(BaseModel):
    x: int


class All(BaseModel):
    text: str
    whole: int
    part: float
    yes: bool
    money: Decimal
    size: Size = Size.SMALL
    maybe: int | None = None
    unsure: bool | None = None
    inner: Inner | None = None
    many: list[int] = []
    told: str = Field(default="", description="what was said")
    pin: SecretStr = SecretStr("")
    renamed: int = Field(default=1, alias="theNumber")


def inputs() -> dict[str, Input]:
    return {its.name: its for its in inputs_of(All.model_json_schema())}


def test_each_field_of_the_reply_is_one_of_the_form() -> None:
    assert {name: its.kind for name, its in inputs().items()} == {
        "text": Kind.TEXT,
        "whole": Kind.INTEGER,
        "part": Kind.NUMBER,
        "yes": Kind.CHECKBOX,
        "money": Kind.TEXT,
        "size": Kind.JSON,  # by reference
        "maybe": Kind.INTEGER,
        "unsure": Kind.JSON,
        "inner": Kind.JSON,
        "many": Kind.JSON,
        "told": Kind.TEXT,
        "pin": Kind.TEXT,
        "theNumber": Kind.INTEGER,
    }


def test_what_is_required_and_what_it_is_for() -> None:
    its = inputs()

    assert its["text"].required
    assert not its["maybe"].required
    assert its["told"].hint == "what was said"
    assert its["pin"].secret
    assert not its["text"].secret


def test_what_is_typed_gets_its_type() -> None:
    typed = {
        "text": " a ",
        "whole": " 7 ",
        "part": "1e3",
        "yes": "true",
        "money": "12.30",
        "size": '"large"',
        "inner": '{"x": 1}',
        "theNumber": "2",
    }

    found = read(list(inputs().values()), typed, All)

    assert found.ok
    assert found.reply == {
        "text": " a ",
        "whole": 7,
        "part": 1000.0,
        "yes": True,
        "money": "12.30",
        "size": "large",
        "inner": {"x": 1},
        "theNumber": 2,
    }


def test_a_box_that_is_not_ticked_says_no() -> None:
    typed = {"text": "a", "whole": "1", "part": "1", "money": "1"}

    assert read(list(inputs().values()), typed, All).reply["yes"] is False


@pytest.mark.parametrize(
    ("name", "typed", "told"),
    [
        ("text", "", "Fill this in."),
        ("text", "   ", "Fill this in."),
        ("whole", "1.5", "This must be a whole number, like 7."),
        ("part", "inf", "This must be a number, like 7.5."),
        ("part", "x", "This must be a number, like 7.5."),
        ("many", "[1,", "This is no JSON: Expecting value in line 1, column 4."),
        ("many", "[NaN]", "This is no JSON: NaN is no number."),
        ("many", "[" * 100_000, "This is nested too deeply: 100 levels at most are taken."),
        ("many", "[" * 101 + "]" * 101, "This is nested too deeply: 100 levels at most are taken."),
        ("many", "[1e999]", "The number 1e999 is too large to be kept."),
        ("many", "[" + "9" * 5000 + "]", "A number of 5,000 digits is too large to be kept."),
        ("many", '["x"]', "0: Input should be a valid integer, unable to parse string as an integer."),
        ("size", '"huge"', "Input should be 'small' or 'large'."),
    ],
)
def test_what_is_wrong_is_told_at_its_field_with_what_was_typed(name: str, typed: str, told: str) -> None:
    given = {"text": "a", "whole": "1", "part": "1", "money": "1", name: typed}

    found = read(list(inputs().values()), given, All)

    assert not found.ok
    wrong = {its.name: (its.typed, its.error) for its in found.inputs if its.error}
    assert wrong == {name: (typed, told)}


class Pair(BaseModel):
    low: int
    high: int

    @model_validator(mode="after")
    def in_order(self) -> Pair:
        if self.low > self.high:
            raise ValueError("low is above high")
        return self


def test_what_is_wrong_with_the_whole_is_told_of_the_whole() -> None:
    found = read(inputs_of(Pair.model_json_schema()), {"low": "2", "high": "1"}, Pair)

    assert not found.ok
    assert found.trouble == "Value error, low is above high."


@pytest.mark.parametrize("reply", [None, [], "x", 7])
def test_a_reply_in_json_must_be_an_object(reply: Any) -> None:
    found = check(reply, inputs_of(Pair.model_json_schema()), Pair)

    assert found.trouble == 'The reply must be a JSON object, like {"ticket_id": 7}.'


def test_a_result_of_which_nothing_is_known_is_any_json() -> None:
    (only,) = inputs_of({"description": "what shop.tasks.pay returned"})

    assert (only.name, only.kind, only.required) == ("", Kind.JSON, True)
    assert only.hint == "what shop.tasks.pay returned"
    assert read([only], {"": "null"}, None).reply is None
    assert read([only], {"": "[1]"}, None).reply == [1]
    assert not read([only], {"": ""}, None).ok


def test_a_reply_without_fields_needs_no_typing() -> None:
    class Nothing(BaseModel):
        pass

    found = read(inputs_of(Nothing.model_json_schema()), {}, Nothing)

    assert (found.ok, found.reply) == (True, {})


def test_json_is_read_strictly() -> None:
    assert parse('{"a": [1.5, null, true]}') == {"a": [1.5, None, True]}
    with pytest.raises(ValueError, match="in line 2, column 1"):
        parse('{"a":\n}')
    assert parse('["é"]'.encode()) == ["é"]
    with pytest.raises(ValueError, match="not in UTF-8"):
        parse('["é"]'.encode("latin-1"))


def test_json_may_be_nested_but_not_without_end() -> None:
    assert parse('{"a":' * 99 + "[]" + "}" * 99) is not None
    with pytest.raises(ValueError, match="nested too deeply"):
        parse('{"a":' * 100 + "[]" + "}" * 100)
