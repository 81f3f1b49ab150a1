"""What the README and the page of the order platform say of the application is so."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Final

import pytest

from app_common.demo import _tell
from app_common.magic import (
    CARD_LIMIT,
    DECLINED_CUSTOMER,
    INCORRECT_QUANTITY,
    LOWEST_CORRECT_CONSUMER_ID,
    Dish,
)
from app_common.settings import page_ports
from order_service.sagas.create_order import CreateOrderSaga
from tests.acceptance.endings import ENDINGS, OF_ITEMS, PARKS, PATHS, RANDOM
from tests.docs.pages import blocks
from tests.docs.terminals import commands, fits

ROOT: Final = Path(__file__).parents[2]
README: Final = (ROOT / "README.md").read_text()
PLATFORM: Final = (ROOT / "docs/reference/order-platform.md").read_text()


def rows() -> dict[str, str]:
    """The tables' rows: first and second column."""
    cells = (line.strip("|").split(" | ") for line in PLATFORM.splitlines() if line.startswith("| "))
    return {row[0].strip(): row[1].strip() for row in cells if len(row) > 1}


def test_every_launch_is_listed_with_its_ending() -> None:
    listed = {path.strip("`"): ending for path, ending in rows().items() if path.startswith("`/run-")}

    assert set(listed) == {*PATHS, *OF_ITEMS}
    assert listed[RANDOM].startswith("either")
    assert listed[PARKS].startswith("parked")
    for ending in ENDINGS:
        assert listed[ending.path].startswith(ending.status), ending.path
    for path, told in OF_ITEMS.items():
        assert listed[path].startswith(told), path


def test_every_magic_number_and_every_dish_is_listed() -> None:
    listed = rows()

    assert f"consumer id below {LOWEST_CORRECT_CONSUMER_ID}" in listed
    assert f"price of {CARD_LIMIT} or more" in listed
    assert f"quantity {INCORRECT_QUANTITY}" in listed
    assert f"customer {DECLINED_CUSTOMER}" in listed
    assert {name.strip() for cell in listed for name in cell.split(",")} >= {dish.value for dish in Dish}


def test_the_saga_of_the_readme_is_the_one_that_runs() -> None:
    assert f"```python\n{inspect.getsource(CreateOrderSaga)}```" in README


def test_the_readme_shows_what_the_demo_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPERATOR_TOKENS", "ann:a token")
    monkeypatch.setenv("APPROVER_TOKENS", "Chris:a token")
    readme = next(block for block in blocks(ROOT / "README.md") if block.language == "console")
    (demo,) = commands(readme.text)

    _tell(ROOT / "var" / "demo", page_ports({}))

    assert demo.typed == "make demo"
    assert fits(capsys.readouterr().out, demo.shown)


def test_the_readme_leads_with_the_application() -> None:
    places = [
        README.index(part) for part in ("$ make demo", "docs/images/saga.png", "```python", "```mermaid")
    ]

    assert places == sorted(places)
