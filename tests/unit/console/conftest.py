"""A folder of its own for each test, with a shop in it and a console on its sagas."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.shop import Shop, forget_modules
from tests.unit.console.browser import Browser, site


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """order_service in a folder, at noon, without a saga."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    forget_modules()
    shop = Shop(tmp_path)
    yield shop
    shop.sagas.engine.dispose()
    forget_modules()


@pytest.fixture
def browser(shop: Shop) -> Browser:
    """Somebody who looks at its console, on which maria and jo may act."""
    return Browser(site(shop.sagas, operators=["maria", "jo"]))
