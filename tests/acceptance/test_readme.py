"""What the README says of the application is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from app_common.magic import CARD_LIMIT, INCORRECT_QUANTITY, LOWEST_CORRECT_CONSUMER_ID, Dish
from tests.acceptance.endings import ENDINGS, PATHS, RANDOM

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()


def rows() -> dict[str, str]:
    """The tables' rows: first and second column."""
    cells = (line.strip("|").split(" | ") for line in README.splitlines() if line.startswith("| "))
    return {row[0].strip(): row[1].strip() for row in cells if len(row) > 1}


def test_every_launch_is_listed_with_its_ending() -> None:
    listed = {path.strip("`"): ending for path, ending in rows().items() if path.startswith("`/run-")}

    assert set(listed) == set(PATHS)
    assert listed[RANDOM].startswith("either")
    for ending in ENDINGS:
        assert listed[ending.path].startswith(ending.status), ending.path


def test_every_magic_number_and_every_dish_is_listed() -> None:
    listed = rows()

    assert f"consumer id below {LOWEST_CORRECT_CONSUMER_ID}" in listed
    assert f"price of {CARD_LIMIT} or more" in listed
    assert f"quantity {INCORRECT_QUANTITY}" in listed
    assert {name.strip() for cell in listed for name in cell.split(",")} >= {dish.value for dish in Dish}


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)

    assert links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
