"""Every fenced block of every page is executed or checked, by its language; one that is not fails.

| language | |
|---|---|
| ``python`` | run, each page's blocks one after the other in one namespace |
| ``console``, ``shell``, ``text`` | every command is one that its program understands; see `programs` |
| ``json``, ``yaml``, ``toml`` | read |
| ``sql`` | prepared on a database of this release |

Whole pages are executed by tests of their own (`EXECUTED`).
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import yaml
from sqlalchemy import text

from sagas_framework import Participant, Queue, Sagas, Service, disable_telemetry
from tests.docs.pages import ROOT, Block, blocks, pages, prose
from tests.docs.programs import is_command, trouble_with
from tests.docs.terminals import commands
from tests.unit.core.stories import CreateOrderSaga

EXECUTED: Final = {
    "docs/tutorial/from-tasks-to-a-saga.md": "tests/docs/test_tutorial.py",
    "docs/tutorial/one-file.md": "tests/integration/test_packaging.py",
    "docs/how-to/mount-the-console.md": "tests/docs/test_mounting.py",
    "docs/reference/cli.md": "tests/docs/test_cli_page.py",
    "docs/how-to/test-your-saga.md": "tests/simulation/test_how_to.py",
    "docs/how-to/check-your-saga.md": "tests/docs/test_check_page.py",
    "docs/how-to/change-a-running-saga.md": "tests/docs/test_change_page.py",
    "docs/how-to/stub-a-service.md": "tests/integration/test_stub.py",
    "docs/how-to/document-your-service.md": "tests/docs/test_documenting.py",
    "docs/how-to/keep-contracts-compatible.md": "tests/docs/test_contracts_page.py",
    "docs/reference/http-api.md": "tests/integration/test_http_api_docs.py",
    "docs/reference/http-api-of-services.md": "tests/integration/test_http_api_of_services_docs.py",
}
"""Pages, and the tests that execute all their blocks."""

NOT_RUN: Final = {
    ("README.md", "class CreateOrderSaga"): "held equal to the source by tests/acceptance/test_readme.py",
    ("README.md", "flowchart LR"): "a picture; GitHub draws it",
    ("README.md", "flowchart TD"): "held equal to what is printed by tests/docs/test_generated.py",
    ("docs/reference/order-platform.md", "flowchart TD"): "held by the same test",
    ("CONTRIBUTING.md", "core: accept only"): "a commit's message",
    ("docs/explanation/how-it-works.md", "decide("): "a signature",
    ("docs/reference/wire.md", "[[saga_id, payload]"): "a form with names in it, no JSON",
    ("docs/reference/wire.md", "[[], payload"): "a form with names in it, no JSON",
}
"""Blocks that cannot be run, by page and beginning, and why."""

BEFORE: Final = {
    "docs/explanation/without-inbox.md": """
from sagas_framework import Queue, QueueType, Service, Steps, undo_task
from tests.unit.core.stories import OrderState
step, remember_reservation = Steps(OrderState), lambda state, result: None
""",
}
"""What a page leaves out, because its readers know."""


def _of(*languages: str) -> list[Any]:
    """The blocks of these languages that no other test executes."""
    return [
        pytest.param(block, id=str(block))
        for page in pages()
        for block in blocks(page)
        if block.language in languages and block.page not in EXECUTED and _why_not(block) is None
    ]


def _why_not(block: Block) -> str | None:
    return next(
        (
            why
            for (page, start), why in NOT_RUN.items()
            if block.page == page and block.text.startswith(start)
        ),
        None,
    )


# ---- nothing is left out --------------------------------------------------------------------------


def test_every_block_is_executed_or_checked() -> None:
    known = {"python", "console", "shell", "text", "json", "yaml", "toml", "sql"}
    every = [block for page in pages() for block in blocks(page)]

    missed = [b for b in every if b.page not in EXECUTED and b.language not in known and not _why_not(b)]

    assert [f"{block} is {block.language or 'of no language'}" for block in missed] == []


def test_what_is_not_run_is_there() -> None:
    every = [block for page in pages() for block in blocks(page)]

    gone = [
        (page, start)
        for page, start in NOT_RUN
        if not any(block.page == page and block.text.startswith(start) for block in every)
    ]

    assert gone == []


@pytest.mark.parametrize("page", EXECUTED)
def test_a_page_that_is_executed_elsewhere_is_named_there(page: str) -> None:
    parts = page.removeprefix("docs/").removesuffix(".md").split("/")

    named = (ROOT / EXECUTED[page]).read_text()

    assert all(part in named for part in parts)


# ---- programs -------------------------------------------------------------------------------------


@pytest.fixture
def names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What a page's blocks find there: one namespace for all of them, as a module of their own."""
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)  # pydantic looks there for annotations
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")  # nobody is there to take spans
    yield vars(module)
    disable_telemetry()


def _programs() -> list[Any]:
    """The pages that have Python blocks."""
    found = dict.fromkeys(param.values[0].page for param in _of("python"))
    return [pytest.param(ROOT / page, id=page) for page in found]


@pytest.mark.parametrize("page", _programs())
def test_a_pages_programs_run(page: Path, names: dict[str, Any]) -> None:
    exec(BEFORE.get(str(page.relative_to(ROOT)), ""), names)
    for block in blocks(page):
        if block.language == "python" and _why_not(block) is None:
            source = "\n" * (block.line - 1) + block.text
            exec(compile(source, block.page, "exec"), names)


# ---- commands -------------------------------------------------------------------------------------


def _commands(block: Block) -> list[str]:
    if block.language == "console":
        return [command.typed for command in commands(block.text)]
    return block.text.replace("\\\n", " ").splitlines()


@pytest.mark.parametrize("block", _of("console", "shell", "text"))
def test_a_command_is_one_that_its_program_understands(block: Block) -> None:
    typed = _commands(block)

    assert typed
    assert [f"{line}: {told}" for line in typed if (told := trouble_with(line))] == []


def test_a_command_in_the_text_is_one_that_its_program_understands() -> None:
    wrong = [
        f"{page.relative_to(ROOT)}: {line}: {told}"
        for page in pages()
        for line in re.findall(r"`([^`\n]+)`", prose(page))
        if is_command(line) and (told := trouble_with(line)) and not told.startswith("Missing ")
    ]

    assert wrong == []


# ---- data -----------------------------------------------------------------------------------------


def test_data_can_be_read() -> None:
    read: Mapping[str, Any] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}

    for block in (param.values[0] for param in _of(*read)):
        assert read[block.language](block.text), block


@pytest.mark.parametrize("block", _of("sql"))
def test_a_query_fits_the_schema(block: Block, sqlite_url: str) -> None:
    Participant(Service("restaurant_service"), database=sqlite_url).upgrade()
    sagas = Sagas("order_service", sqlite_url, sagas=[CreateOrderSaga], reply_queue=Queue("replies"))
    sagas.upgrade()

    with sagas.engine.connect() as connection:
        connection.execute(text(f"EXPLAIN {block.text}"))
