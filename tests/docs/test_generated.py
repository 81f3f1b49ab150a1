"""What is generated on the pages is what the program prints now; `make docs` writes it anew."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import generated
from tools.generated import ROOT, pages, regenerated

COMMAND = "saga -A order_service.worker check create_order --diagram"


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_shows_what_is_printed_now(page: Path) -> None:
    text = page.read_text()

    assert regenerated(text) == text, "run: make docs"


def test_the_readme_and_the_order_platforms_page_have_generated_parts() -> None:
    assert {ROOT / "README.md", ROOT / "docs" / "reference" / "order-platform.md"} <= set(pages())


def test_a_stale_part_is_written_anew_and_the_rest_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "printed", lambda command: f"flowchart of {command}\n")

    new = regenerated(f"before\n<!-- generated: {COMMAND} -->\nstale\n<!-- end -->\nafter\n")

    assert new == (
        f"before\n<!-- generated: {COMMAND} -->\n"
        f"```mermaid\nflowchart of {COMMAND}\n```\n<!-- end -->\nafter\n"
    )
    assert regenerated(new) == new


@pytest.mark.parametrize(
    "text", [f"<!-- generated: {COMMAND} -->\nno end\n", "<!-- generated: rm -r / -->\n<!-- end -->\n"]
)
def test_a_part_without_end_or_with_another_program_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="saga"):
        regenerated(text)
