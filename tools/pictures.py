"""Takes the pictures of the documentation from a real browser: ``make pictures``.

It runs the demo in a folder of its own, launches a saga whose undoing fails twice before it works,
and photographs its page when it has ended, so that there is something to see in each colour. Then it
photographs who talks to whom, and a command in the docs of a service.
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
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from app_common.docs_sites import INSTALL, RENDERER
from app_common.running import PAGED, SERVICES
from app_common.settings import docs_port_variable, port_variable
from tools.browser import browser

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
LAUNCH: Final = "/run-saga-where-compensation-fails-and-recovers"
ARROW: Final = "Restaurant service receives restaurant_service.create_ticket"
_WITHIN: Final = 30.0  # seconds, for the demo to begin and for the saga to end


def main() -> int:
    if not (RENDERER / "index.js").exists():
        print(f"A docs page cannot be drawn without its renderer. Run: {INSTALL}", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, demo(Path(folder)) as home, browser() as chromium:
        page = chromium.new_page(base_url=home, viewport={"width": 1280, "height": 1060})
        page.goto("/")
        page.locator(f'form[action="{LAUNCH}"] button').click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("compensated", timeout=_WITHIN * 1000)
        _take(page, "saga")
        page.set_viewport_size({"width": 960, "height": 1010})
        page.goto("/system")
        _take(page, "system")
        wide = chromium.new_page(
            base_url=home, viewport={"width": 1680, "height": 1200}, device_scale_factor=0.75
        )
        wide.goto("/system")
        wide.get_by_role("link", name=ARROW, exact=True).click()
        # As a reader would: what the command looks like on the wire.
        command = wide.locator(f'[id="{urlsplit(wide.url).fragment}"]')
        command.locator(".examples").first.get_by_role("button", name="Payload").click()
        _take(wide, "docs-page")
    return 0


def _take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # what moves has arrived
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"Wrote {IMAGES / f'{name}.png'}")


@contextmanager
def demo(folder: Path) -> Iterator[str]:
    """The application as ``make demo`` runs it, on free ports; its address."""
    variables = [*map(port_variable, PAGED), *map(docs_port_variable, SERVICES)]
    with ExitStack() as probes:
        ports = []
        for _ in variables:
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    port = ports[0]
    chosen = dict(zip(variables, map(str, ports), strict=True))
    environment = {**os.environ, "DEMO_DATA": str(folder / "data"), **chosen}
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
