"""The examples of ``docs/how-to/test-your-saga.md`` run, and fail where the page says so."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "test-your-saga.md"
BLOCK: Final = re.compile(r"(?:<!-- fails: (?P<fails>.+?) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def examples() -> Iterator[Any]:
    """`(function, the words with which it fails or None)` of every test on the page."""
    names: dict[str, Any] = {"__name__": __name__}
    for block in BLOCK.finditer(PAGE.read_text()):
        before = set(names)
        exec(compile(block["code"], str(PAGE), "exec"), names)
        for name in sorted(set(names) - before):
            if name.startswith("test_"):
                yield pytest.param(names[name], block["fails"], id=name)


@pytest.mark.parametrize(("example", "fails"), list(examples()))
def test_the_pages_tests_do_what_the_page_says(example: Any, fails: str | None) -> None:
    if fails is None:
        example()
    else:
        with pytest.raises(AssertionError, match=re.escape(fails)):
            example()


def test_the_page_shows_both_tools() -> None:
    assert len(list(examples())) == 8
