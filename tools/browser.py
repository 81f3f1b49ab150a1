"""A real browser, for the tests of the pages and the pictures in the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from playwright.sync_api import Browser, sync_playwright

# As Debian, Ubuntu and Google name it. We bring none: `make browser` installs Debian's.
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS: Final = (
    "--no-sandbox",  # a container's root has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--force-color-profile=srgb",
)


class NoBrowser(Exception):
    """There is no browser on this machine; the message says how to get one."""


@contextmanager
def browser() -> Iterator[Browser]:
    """A headless chromium.

    Raises:
        NoBrowser: there is none.
    """
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        raise NoBrowser(f"no {' or '.join(_NAMES)} on the PATH; on Debian `make browser` installs one")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=program, args=list(_ARGUMENTS))
        try:
            yield launched
        finally:
            launched.close()
