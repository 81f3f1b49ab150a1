"""Takes the pictures of the documentation from a real browser: ``make pictures``.

It runs the demo in a folder of its own, launches a saga whose undoing fails twice before it works,
and photographs its page when it has ended, so that there is something to see in each colour.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import expect

from tools.browser import browser

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
LAUNCH: Final = "/run-saga-where-compensation-fails-and-recovers"
_WITHIN: Final = 30.0  # seconds, for the demo to begin and for the saga to end


def main() -> int:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as home, browser() as chromium:
        page = chromium.new_page(base_url=home, viewport={"width": 1280, "height": 1060})
        page.goto("/")
        page.locator(f'form[action="{LAUNCH}"] button').click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("compensated", timeout=_WITHIN * 1000)
        page.screenshot(path=IMAGES / "saga.png")
    print(f"Wrote {IMAGES / 'saga.png'}")
    return 0


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """The application as ``make demo`` runs it, on a free port; its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "DEMO_DATA": str(folder / "data"), "ORDER_SERVICE_PORT": str(port)}
    process = subprocess.Popen([sys.executable, "-m", "app_common.demo"], cwd=ROOT, env=environment)
    try:
        home = f"http://127.0.0.1:{port}"
        until = time.monotonic() + _WITHIN
        while not _answers(home):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("The demo did not start; what it printed says why.")
            time.sleep(0.1)
        yield home
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_WITHIN)


def _answers(home: str) -> bool:
    try:
        with urllib.request.urlopen(f"{home}/ping", timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
