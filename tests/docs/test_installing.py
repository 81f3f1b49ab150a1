"""What the pages say of installing the library is what pyproject.toml has."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, pages

_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_EXTRAS: Final = set(_PROJECT["optional-dependencies"])
_INSTALLED: Final = re.compile(r"pip\s+install(?:\s+--\w+)*\s+'?(?P<what>[^\s'`]*)\[(?P<extras>[\w,]+)\]")
_CLONE: Final = "."
_WHEEL: Final = re.compile(rf"{_PROJECT['name'].replace('-', '_')}-[\d.]+-py3-none-any\.whl")
"""Whoever has made it himself names the file."""


def trouble_with(what: str, extras: str, page: Path) -> str | None:
    """Why nobody could install that, or why it is not written as everywhere else."""
    told = f"{what}[{extras}]"
    if unknown := set(extras.split(",")) - _EXTRAS:
        return f"{told}: there is no extra {', '.join(sorted(unknown))}"
    in_a_clone = what == _CLONE and page.name == "README.md"
    if what != _PROJECT["name"] and not in_a_clone and not _WHEEL.fullmatch(what):
        return f"{told}: write {_PROJECT['name']}[{extras}]"
    return None


@pytest.mark.parametrize(
    "page", [*pages(), ROOT / "CHANGELOG.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_every_page_installs_the_library_by_its_name_with_extras_that_there_are(page: Path) -> None:
    found = [(one["what"], one["extras"]) for one in _INSTALLED.finditer(page.read_text())]

    assert [told for what, extras in found if (told := trouble_with(what, extras, page))] == []


def test_the_readme_says_what_each_extra_is_for() -> None:
    _, _, table = (ROOT / "README.md").read_text().partition("| extra | for |\n|---|---|\n")
    rows = [row.split("|")[1] for row in table.partition("\n\n")[0].splitlines()]

    assert sorted(name for row in rows for name in re.findall(r"`(\w+)`", row)) == sorted(_EXTRAS)
