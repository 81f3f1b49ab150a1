"""A folder of its own for each test, with a shop in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.shop import Shop, standing_in


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, in which ``saga`` is called."""
    with standing_in(tmp_path, monkeypatch):
        yield tmp_path


@pytest.fixture
def shop(folder: Path) -> Iterator[Shop]:
    """order_service in that folder, at noon, without a saga."""
    shop = Shop(folder)
    yield shop
    shop.sagas.engine.dispose()
