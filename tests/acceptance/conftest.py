"""What the tests of the pages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.acceptance.application import Application, demo
from tests.servers import Missing, skip_or_fail
from tools.browser import NoBrowser, browser


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """The demo, as ``make demo`` starts it, that the tests of a module share."""
    shared = demo(tmp_path_factory.mktemp("demo"))
    shared.start()
    yield shared
    shared.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A real browser; the tests are skipped without one, and fail in CI."""
    try:
        with browser() as launched:
            yield launched
    except NoBrowser as missing:
        skip_or_fail(Missing(str(missing)))
