"""What the tests of the application share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from app_common.running import SERVICES
from tests.acceptance.application import Application, demo
from tests.servers import Missing, PostgresServer, skip_or_fail
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


@pytest.fixture(scope="module")
def databases(postgres_server: PostgresServer | Missing) -> Iterator[str]:
    """The address of databases that do not exist yet, with ``{service}`` in it; dropped afterwards."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    with postgres_server.not_made_yet(SERVICES) as template:
        yield template
