"""``docs/how-to/keep-contracts-compatible.md``: what `saga contracts diff` says of its changes."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from sagas_framework import Context, Participant
from sagas_framework.asyncapi import Contact, License, Specification
from sagas_framework.contracts.fields import Why
from sagas_framework.contracts.structure import MODULES_VARIABLE, PACKAGE
from tests.docs.pages import ROOT, blocks, prose
from tests.docs.programs import trouble_with
from tests.docs.terminals import commands, fits
from tests.servers import Missing, skip_or_fail
from tests.unit.cli.shop import say
from tools.contracts import MODULES

PAGE: Final = ROOT / "docs" / "how-to" / "keep-contracts-compatible.md"
RELEASED, WRONG, REPAIRED = [block.text for block in blocks(PAGE) if block.language == "python"]
PIP, NPM, BREAKS, SAFE, NEW_SERVICE, MAJOR = [
    command for block in blocks(PAGE) if block.language == "console" for command in commands(block.text)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    if not (MODULES / "@asyncapi" / "diff").exists():
        skip_or_fail(Missing("the official tools of AsyncAPI. Run: make asyncapi"))
    monkeypatch.setenv(MODULES_VARIABLE, str(MODULES))
    monkeypatch.chdir(tmp_path)
    for name in ("released", "built"):
        (tmp_path / name).mkdir()
    yield tmp_path
    sys.modules.pop("page", None)


def documented(*programs: str, version: str = "1.0.0") -> str:
    """The warehouse's document with these contracts."""
    page = sys.modules["page"] = ModuleType("page")  # pydantic looks there for annotations
    for program in programs:
        exec(compile(program, str(PAGE), "exec"), vars(page))
    participant = Participant(page.warehouse, database="sqlite://")

    def reserve(command: Any, context: Context) -> Any: ...

    participant.handles(page.Reserve)(reserve)
    return Specification(
        "warehouse",
        title="Warehouse",
        version=version,
        description="Knows what is on which shelf.",
        contact=Contact("Warehouse team", url="https://example.com", email="warehouse@example.com"),
        license=License("MIT", url="https://opensource.org/license/mit"),
        broker="memory://",
        receives=participant,
    ).yaml()


def write(folder: Path, released: str, built: str) -> None:
    (folder / "released" / "warehouse.yaml").write_text(released)
    (folder / "built" / "warehouse.yaml").write_text(built)


def normal(text: str) -> str:
    return " ".join(text.split())


def test_what_breaks_is_told_as_the_page_shows(folder: Path) -> None:
    write(folder, documented(RELEASED), documented(RELEASED, WRONG))

    said = say(*shlex.split(BREAKS.typed)[1:])

    assert fits(normal(said.output), normal(BREAKS.shown)), said.output
    assert said.exit_code == 1


def test_repaired_it_breaks_nobody(folder: Path) -> None:
    write(folder, documented(RELEASED), documented(RELEASED, REPAIRED))

    said = say(*shlex.split(SAFE.typed)[1:])

    assert fits(normal(said.output), normal(SAFE.shown)), said.output
    assert said.exit_code == 0


def test_what_is_new_and_what_is_meant_can_be_said(folder: Path) -> None:
    write(folder, documented(RELEASED), documented(RELEASED, WRONG, version="2.0.0"))
    assert say(*shlex.split(MAJOR.typed)[1:]).exit_code == 0
    assert say(*shlex.split(BREAKS.typed)[1:]).exit_code == 1

    (folder / "released" / "warehouse.yaml").unlink()
    assert say(*shlex.split(BREAKS.typed)[1:]).exit_code == 2
    assert say(*shlex.split(NEW_SERVICE.typed)[1:]).exit_code == 0


def test_what_is_installed_is_what_is_used() -> None:
    assert trouble_with(PIP.typed) is None
    assert NPM.typed == f"npm install --ignore-scripts {PACKAGE}"


FIELD: Final = "class Reserve(Command[Reserved], service=warehouse, name='reserve'):\n    sku: str\n    {}\n"
NARROW, DEFAULT, WIDE, ABSENT = (
    FIELD.format(field) for field in ("size: int", "size: int = 1", "size: int | None", "")
)
TABLE: Final = {
    "a new field with a default": (ABSENT, DEFAULT),
    "a new field without a default": (ABSENT, NARROW),
    "a field is taken away": (NARROW, ABSENT),
    "a field gets a default": (NARROW, DEFAULT),
    "a type is wider: `int \\| None` for `int`, one more value": (NARROW, WIDE),
    "a type is narrower: a limit, a format, fewer values": (WIDE, NARROW),
    "a field is renamed, or has another type": (NARROW, FIELD.format("size: str")),
}


def test_the_table_is_right(folder: Path) -> None:
    rows = [
        re.split(r"(?<!\\)\|", line)[1:-1] for line in prose(PAGE).splitlines() if line.startswith("| a ")
    ]
    table = {change.strip(): ["breaks" in cell for cell in cells] for change, *cells in rows}

    assert set(table) == set(TABLE)
    for change, (before, after) in TABLE.items():
        receiver, sender = documented(RELEASED, before), documented(RELEASED, after)
        told = []
        for action in ("receive", "send"):
            # Seen from the sender, the same messages are sent; its replies are not looked at here.
            old, new = (text.replace("action: receive", f"action: {action}") for text in (receiver, sender))
            write(folder, old, new)
            told.append(say("contracts", "diff", "released", "built").exit_code == 1)
        assert told == table[change], change


def test_the_reference_lists_every_code() -> None:
    source = "".join(file.read_text() for file in (ROOT / "sagas_framework" / "contracts").glob("*.py"))
    told = set(re.findall(r'(?:_breaking|safe|Change)\(\s*"([a-z-]+)"', source))
    told |= set(re.findall(r'"([a-z]+-(?:added|removed))" if', source)) | {why.value for why in Why}
    told |= {"message-added", "reply-removed", "headers-changed", "payload-changed"}

    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    rows = re.findall(r"^\| (`[a-z`, -]+`) \| (?:breaking|safe) \|", page, re.MULTILINE)
    listed = {code for row in rows for code in re.findall(r"`([a-z-]+)`", row)}

    assert listed == told
