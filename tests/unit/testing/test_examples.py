"""`example`: a valid instance of a contract, guessed from its fields."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

import pytest
from annotated_types import Gt
from pydantic import BaseModel, Field, RootModel, field_validator

from sagas_framework import DefinitionError, Reply
from sagas_framework.testing import example


class Colour(StrEnum):
    RED = "red"


class Item(BaseModel):
    name: str


class Everything(Reply):
    number: int
    text: str
    money: Decimal
    flag: bool
    at: datetime
    day: date
    pause: timedelta
    id: UUID
    colour: Colour
    word: Literal["a", "b"]
    maybe: int | None
    items: list[Item]
    by_name: dict[str, int]
    pair: tuple[int, str]
    bounded: Annotated[int, Field(ge=10)]
    above: Annotated[Decimal, Gt(5)]
    given: str = Field(examples=["ABC-1"])
    kept: str = "default"


def test_every_plain_field_gets_a_value() -> None:
    made = example(Everything)

    assert made.items == [Item(name="text")]
    assert made.colour is Colour.RED
    assert made.word == "a"
    assert made.bounded == 10
    assert made.above == 6
    assert made.given == "ABC-1"
    assert made.kept == "default"


class Tags(RootModel[list[str]]):
    pass


class Named(RootModel[dict[str, int]]):
    root: dict[str, int] = {"one": 1}


def test_a_class_that_is_its_one_value() -> None:
    assert example(Tags).root == ["text"]
    assert example(Named).root == {"one": 1}


def test_it_is_the_same_each_time() -> None:
    assert example(Everything) == example(Everything)


class Coded(Reply):
    code: str = Field(pattern="^[0-9]{4}$")


def test_a_field_that_cannot_be_guessed_says_how_to_give_an_example() -> None:
    with pytest.raises(DefinitionError, match=r"No example of Coded .* Give one: examples=\[Coded\(...\)\]"):
        example(Coded)


class Tree(BaseModel):
    branches: list[Tree]


class Looked(BaseModel):
    currency: str

    @field_validator("currency")
    @classmethod
    def known(cls, value: str) -> str:
        return {"EUR": value}[value]


class Strange(BaseModel):
    what: complex


@pytest.mark.parametrize(
    ("model", "why"),
    [(Tree, "it contains itself"), (Looked, "'text'"), (Strange, "a value for <class 'complex'>")],
)
def test_whatever_keeps_it_from_being_guessed_is_told(model: type[BaseModel], why: str) -> None:
    with pytest.raises(DefinitionError, match=f"No example of {model.__name__} .*{why}"):
        example(model)
