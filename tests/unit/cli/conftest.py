"""A folder of its own for each test, with a shop in it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.shop import Shop, forget_modules


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which ``saga`` is called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_modules()
    yield tmp_path
    forget_modules()


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    """order_service in that folder, at noon, without a saga."""
    shop = Shop(folder)
    yield shop
    shop.sagas.engine.dispose()
