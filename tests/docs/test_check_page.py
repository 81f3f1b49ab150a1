"""``docs/how-to/check-your-saga.md``: what `saga check` says of its program, before and after the repair."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Final

import pytest

from tests.docs.pages import ROOT, blocks, prose
from tests.docs.terminals import Command, commands, fits
from tests.unit.cli.shop import say, standing_in

PAGE: Final = ROOT / "docs" / "how-to" / "check-your-saga.md"
PROGRAM, RELEASE, SAGA, TEST, EXAMPLES = [b.text for b in blocks(PAGE) if b.language == "python"]
WRONG, REPAIRED, STRICT = [
    command for b in blocks(PAGE) if b.language == "console" for command in commands(b.text)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with standing_in(tmp_path, monkeypatch):
        sys.modules.pop("shop", None)
        yield tmp_path
        sys.modules.pop("shop", None)


def repaired(program: str, *repairs: str) -> str:
    """The program with these classes instead of its own of the same name, or before the saga."""
    for text in repairs:
        for made in re.findall(r"^class .*?(?=\n\n\n|\Z)", text.strip(), re.MULTILINE | re.DOTALL):
            head = made.partition("(")[0]
            own = re.search(rf"^{head}\(.*?(?=\n\n\n)", program, re.MULTILINE | re.DOTALL)
            place = own.span() if own else (program.index("class OrderState"),) * 2
            program = program[: place[0]] + made + ("" if own else "\n\n\n") + program[place[1] :]
    return program


def fits_the_page(command: Command) -> int:
    """The exit code."""
    result = say(*shlex.split(command.typed)[1:], env={"COLUMNS": "80"})
    assert fits(normal(result.output), normal(command.shown)), result.output
    return result.exit_code


def normal(text: str) -> str:
    return " ".join(text.split())


def imported(folder: Path, program: str) -> ModuleType:
    (folder / "shop.py").write_text(program)
    return importlib.import_module("shop")


def test_the_program_is_wrong_as_the_page_shows(folder: Path) -> None:
    imported(folder, PROGRAM)

    assert fits_the_page(WRONG) == 1


def test_repaired_it_is_right_and_so_says_its_own_test(folder: Path) -> None:
    module = imported(folder, repaired(PROGRAM, RELEASE, SAGA))
    exec(compile(TEST, str(PAGE), "exec"), vars(module))
    its_test: Callable[[], None] = vars(module)["test_the_declaration_is_sound"]

    its_test()
    assert fits_the_page(REPAIRED) == 0
    assert say(*shlex.split(STRICT.typed)[1:]).exit_code == 0


def test_each_repair_mends_one_of_the_findings(folder: Path) -> None:
    imported(folder, repaired(PROGRAM, RELEASE))

    told = say("-A", "shop", "check").output

    assert "refusal-after-pivot" in told
    assert "compensation-needs-reply" not in told


def test_the_example_can_be_declared(folder: Path) -> None:
    names = vars(imported(folder, PROGRAM))

    exec(compile(EXAMPLES, str(PAGE), "exec"), names)

    assert names["InvoiceState"].model_fields["invoice"].examples == ["I-2026-1"]


def test_every_code_is_listed_with_its_severity() -> None:
    severity = r"Severity\.(?P<severity>[A-Z]+)"
    code = r'"(?P<code>[a-z]+-[a-z-]+)"'
    found = set()
    for file in (ROOT / "sagas_framework" / "check").glob("*.py"):
        for pattern in (rf"{severity},\s+{code}", rf"{code},\s+{severity}"):
            found |= {(m["code"], m["severity"].lower()) for m in re.finditer(pattern, file.read_text())}

    listed = set(re.findall(r"^\| `([a-z-]+)` \| ([a-z]+) \|", prose(PAGE), re.MULTILINE))

    assert listed == found - {("same-task", "warning")}
    assert len(listed) == 23
