"""Every link of every page leads somewhere, down to the heading."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, pages, prose

_LINK: Final = re.compile(r"\]\((?P<target>[^)\s]+)\)")
_HEADING: Final = re.compile(r"^#+ (?P<title>.+)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The headings as GitHub names them."""
    titles = (re.sub(r"[`*]", "", found["title"]) for found in _HEADING.finditer(prose(page)))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def trouble_with(link: str, page: Path) -> str | None:
    """Why the link of the page leads nowhere."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return f"{link}: there is no such file"
    if not target.is_relative_to(ROOT):
        return f"{link}: it leads out of the repository"
    if anchor and anchor not in anchors(target):
        return f"{link}: the page has no such heading"
    return None


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    links = [found["target"] for found in _LINK.finditer(prose(page)) if "://" not in found["target"]]

    assert [told for link in links if (told := trouble_with(link, page))] == []


def test_every_page_can_be_found_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    listed = {(index.parent / found["target"]).resolve() for found in _LINK.finditer(index.read_text())}
    decisions = set((ROOT / "docs" / "adr").glob("*.md"))  # they have an index of their own

    assert set(pages()) - decisions - listed == {index, ROOT / "README.md", ROOT / "CONTRIBUTING.md"}


def test_every_decision_is_in_the_index_of_decisions() -> None:
    index = ROOT / "docs" / "adr" / "README.md"

    assert [
        page.name for page in index.parent.glob("0*.md") if f"({page.name})" not in index.read_text()
    ] == []
