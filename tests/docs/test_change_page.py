"""``docs/how-to/change-a-running-saga.md``: its programs, and what is said of the sagas that they began."""

from __future__ import annotations

import importlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from sagas_framework import Sagas
from sagas_framework.core.events import ReplyReceived, Result, TimerFired
from sagas_framework.worker.orchestrating import check_declarations
from tests.docs.pages import ROOT, blocks
from tests.docs.terminals import Command, commands, fits
from tests.unit.cli.shop import orchestrator_of, say, standing_in

PAGE: Final = ROOT / "docs" / "how-to" / "change-a-running-saga.md"
PROGRAM, BESIDE, NEXT = [b.text for b in blocks(PAGE) if b.language == "python"]
PLAN, DRY_RUN, MIGRATE, HISTORY = [
    command for b in blocks(PAGE) if b.language == "console" for command in commands(b.text)
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with standing_in(tmp_path, monkeypatch):
        sys.modules.pop("shop", None)
        yield tmp_path
        sys.modules.pop("shop", None)


def deployed(folder: Path, program: str) -> ModuleType:
    """The program in the folder, imported anew."""
    (folder / "shop.py").write_text(program)
    sys.modules.pop("shop", None)
    importlib.invalidate_caches()
    return importlib.import_module("shop")


def begun(sagas: Sagas, module: Any, key: str, replies: list[dict[str, Any]]) -> None:
    """A saga whose first commands were answered so."""
    state = module.OrderState(sku="tea", amount="9.90")
    with sagas.engine.begin() as connection:
        run = sagas.start(module.OrderSaga, state, key=key, session=connection)
    orchestrator = orchestrator_of(sagas)
    assert orchestrator.process([TimerFired(run.id, sagas.clock())]) == []
    for payload in replies:
        ((_, flight),) = sagas.get(run.id).in_flight()
        reply = ReplyReceived(
            run.id, sagas.clock(), (flight.message_id,), flight.task, Result.SUCCESS, payload
        )
        assert orchestrator.process([reply]) == []


def yesterday(folder: Path) -> None:
    """Version 1 has begun three orders."""
    module = deployed(folder, PROGRAM)
    sagas: Sagas = module.sagas
    sagas.upgrade()
    check_declarations(sagas)
    begun(sagas, module, "order-1", [{"reservation": 7}])
    begun(sagas, module, "order-2", [])
    begun(sagas, module, "order-3", [])
    sagas.engine.dispose()


def fits_the_page(command: Command) -> int:
    """The exit code."""
    result = say(*shlex.split(command.typed)[1:], env={"COLUMNS": "80"})
    assert fits(normal(result.output), normal(command.shown)), result.output
    return result.exit_code


def normal(text: str) -> str:
    """The text without how its lines are broken, and as if no time passed between its lines."""
    import re

    text = re.sub(r"\d+ (ms|s) ago", "just now", text)
    text = re.sub(r"\+\d+ (ms|s)\b", "+0 ms", text)
    return " ".join(text.split())


def test_both_versions_can_be_declared_beside_each_other(folder: Path) -> None:
    module = deployed(folder, PROGRAM + BESIDE)

    assert module.sagas.definitions.known() == [("order", 1), ("order", 2)]


def test_open_sagas_are_planned_and_moved_as_the_page_shows(folder: Path) -> None:
    yesterday(folder)
    program = PROGRAM[: PROGRAM.index("class OrderState")] + NEXT
    deployed(folder, program).sagas.engine.dispose()

    assert fits_the_page(PLAN) == 1

    added = 'added=["check_fraud"],'
    assert added in program
    deployed(folder, program.replace(added, f'{added} done_without=["check_fraud"],'))
    assert fits_the_page(DRY_RUN) == 0
    assert fits_the_page(MIGRATE) == 0
    assert fits_the_page(HISTORY) == 0
    assert say("-A", "shop", "plan").exit_code == 0
