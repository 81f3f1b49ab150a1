"""Names that people give: kept as they are written, but for what would spoil the line around them."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from app_common.texts import LONGEST_NAME, Name, isolated

names: TypeAdapter[str] = TypeAdapter(Name)


@pytest.mark.parametrize(
    "name",
    [
        "Riley",
        "<script>alert(1)</script>",
        "رايلي",
        "ריילי",
        "莱利",
        "👩‍🚒",
        " Riley ",
        "?",
        "x" * LONGEST_NAME,
    ],
)
def test_a_name_is_kept_as_it_is_written(name: str) -> None:
    assert names.validate_python(name) == name


@pytest.mark.parametrize("character", ["\0", "\n", "\r", "\t", "\x1b", "\x85"])
def test_a_control_character_is_no_part_of_a_name(character: str) -> None:
    with pytest.raises(ValidationError, match="a control character"):
        names.validate_python(f"Ri{character}ley")


@pytest.mark.parametrize("character", [*"\u202a\u202b\u202c\u202d\u202e", *"\u2066\u2067\u2068\u2069"])
def test_nor_is_one_that_turns_what_stands_behind_the_name(character: str) -> None:
    with pytest.raises(ValidationError, match="turns the direction"):
        names.validate_python(f"Ri{character}ley")


@pytest.mark.parametrize(
    "name", [" ", " " * LONGEST_NAME, "\u00a0\u3000", "\u200b\u200f\ufeff", "\u2800", "\u3164 \uffa0"]
)
def test_a_name_in_which_nothing_can_be_seen_is_none(name: str) -> None:
    with pytest.raises(ValidationError, match="nothing can be seen in it"):
        names.validate_python(name)


@pytest.mark.parametrize("name", ["رايلي", "ריילי", "iPhone \u05d0", "\u200fevil"])
def test_what_is_written_from_the_right_is_kept_apart_in_a_line(name: str) -> None:
    assert isolated(name) == f"\u2068{name}\u2069"


@pytest.mark.parametrize("name", ["Riley", "Sören O'Neil", "莱利", "12", ""])
def test_other_names_stand_in_a_line_as_they_are(name: str) -> None:
    assert isolated(name) == name
