"""A folder of its own for each test, with a shop in it and a console on its sagas."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.cli.shop import Shop, standing_in
from tests.unit.console.browser import Browser, site


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    """order_service in a folder, at noon, without a saga."""
    with standing_in(tmp_path, monkeypatch):
        shop = Shop(tmp_path)
        yield shop
        shop.sagas.engine.dispose()


@pytest.fixture
def browser(shop: Shop) -> Browser:
    """Somebody who looks at its console, on which maria and jo may act."""
    return Browser(site(shop.sagas, operators=["maria", "jo"]))
