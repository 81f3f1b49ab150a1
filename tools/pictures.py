"""Takes the pictures of the documentation from a real browser: ``make pictures``.

It runs the demo in a folder of its own, launches a saga whose undoing fails twice before it works,
and photographs its page when it has ended, so that there is something to see in each colour. Orders are
processed, of which some wait for an approver: these are photographed as the approver sees them, and so is
what all the customers were told. Then come who talks to whom, and a command in the docs of a service.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from playwright.sync_api import Page, expect

from app_common.docs_sites import INSTALL, RENDERER
from app_common.magic import DECLINED_CUSTOMER
from app_common.running import ORCHESTRATOR, PAGED, SERVICES
from app_common.settings import docs_port_variable, port_variable
from tools.browser import browser

ROOT: Final = Path(__file__).parents[1]
IMAGES: Final = ROOT / "docs" / "images"
LAUNCH: Final = "/run-saga-where-compensation-fails-and-recovers"
ARROW: Final = "Restaurant service receives restaurant_service.create_ticket"
APPROVER: Final = "Chris"
TOKEN: Final = "the-token-of-the-pictures"
_WITHIN: Final = 30.0  # seconds, for the demo to begin and for the saga to end


def main() -> int:
    if not (RENDERER / "index.js").exists():
        print(f"A docs page cannot be drawn without its renderer. Run: {INSTALL}", file=sys.stderr)
        return 1
    IMAGES.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        demo(Path(folder)) as ports,
        browser() as chromium,
    ):
        home = address(ports, ORCHESTRATOR)
        page = chromium.new_page(base_url=home, viewport={"width": 1280, "height": 1060})
        page.goto("/")
        page.locator(f'form[action="{LAUNCH}"] button').click()
        expect(page.get_by_role("heading", level=1)).to_contain_text("compensated", timeout=_WITHIN * 1000)
        _take(page, "saga")
        _process_orders(ports)
        page.set_viewport_size({"width": 1120, "height": 720})
        page.goto("/login")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Log in").click()
        page.goto("/approvals")
        _take(page, "approvals")
        page.set_viewport_size({"width": 1120, "height": 730})
        page.goto(address(ports, "notification_service"))
        _take(page, "notifications")
        tall = chromium.new_page(
            base_url=home, viewport={"width": 960, "height": 1200}, device_scale_factor=0.75
        )
        tall.goto("/system")
        # All of the drawing: it is as tall as there are messages.
        below = tall.locator("figure").evaluate("drawing => drawing.getBoundingClientRect().bottom")
        tall.set_viewport_size({"width": 960, "height": int(below) + 16})
        _take(tall, "system")
        wide = chromium.new_page(
            base_url=home, viewport={"width": 1680, "height": 1140}, device_scale_factor=0.75
        )
        wide.goto("/system")
        wide.get_by_role("link", name=ARROW, exact=True).click()
        # As a reader would: what the command looks like on the wire.
        command = wide.locator(f'[id="{urlsplit(wide.url).fragment}"]')
        command.locator(".examples").first.get_by_role("button", name="Payload").click()
        _take(wide, "docs-page")
    return 0


def _process_orders(ports: Mapping[str, int]) -> None:
    """Orders that end in several ways, and some that wait for an approver; returns when each is there."""
    _order(ports, "Casey", ["bread", "milk", "milk"], "11.40")
    approved = _order(ports, "Riley", ["iPhone", "milk"], "1299.00")
    rejected = _order(ports, "Sam", ["iPhone"] * 3, "2990.00")
    _order(ports, DECLINED_CUSTOMER, ["oranges"] * 2, "3.20")
    _order(ports, "Alex", ["apples"] * 11, "8.80")
    for order_id, approves in ((approved, True), (rejected, False)):
        decision = {"approver": APPROVER, "approved": approves}
        _post(ports, ORCHESTRATOR, f"/processing/orders/{order_id}/approve", decision)
    _post(ports, "delivery_service", "/shipping/deactivate")
    in_vain = _order(ports, "Jordan", ["bread"], "2.10")
    _until_told(ports, in_vain, "Payment of 2.10 was refunded")
    _post(ports, "delivery_service", "/shipping/activate")
    _order(ports, "Robin", ["milk"] * 5, "7.50")
    _order(ports, "Noor", ["iPhone", "apples"], "1180.00")
    waiting = _order(ports, "Kim", ["iPhone"] * 2 + ["oranges"] * 3, "2405.00")
    _until_told(ports, waiting, "Waiting for approval")


def _order(ports: Mapping[str, int], customer: str, items: list[str], total: str) -> str:
    """Order items and wait until the saga has begun, so that messages come in the order of the orders."""
    order = {"customer": customer, "items": items, "total": total}
    order_id = str(_post(ports, ORCHESTRATOR, "/processing/orders", order)["order_id"])
    _until_told(ports, order_id, "Received order")
    return order_id


def _until_told(ports: Mapping[str, int], order_id: str, message: str) -> None:
    until = time.monotonic() + _WITHIN
    found = f"{address(ports, 'notification_service')}notifications?order={order_id}"
    while True:
        with urllib.request.urlopen(found, timeout=10) as answer:
            if any(one["message"].startswith(message) for one in json.load(answer)["notifications"]):
                return
        if time.monotonic() > until:
            raise SystemExit(f"The customer of {order_id} was not told: {message}")
        time.sleep(0.1)


def _post(ports: Mapping[str, int], service: str, path: str, body: Any = None) -> Any:
    request = urllib.request.Request(
        address(ports, service) + path.removeprefix("/"),
        data=b"" if body is None else json.dumps(body).encode(),
        headers={"Authorization": f"Bearer {TOKEN}"}
        | ({} if body is None else {"Content-Type": "application/json"}),
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def address(ports: Mapping[str, int], service: str) -> str:
    """Where the pages of a service are."""
    return f"http://127.0.0.1:{ports[service]}/"


def _take(page: Page, name: str) -> None:
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)  # what moves has arrived
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"Wrote {IMAGES / f'{name}.png'}")


@contextmanager
def demo(folder: Path) -> Iterator[Mapping[str, int]]:
    """The application as ``make demo`` runs it; the ports of its pages, which were free, by service."""
    variables = [*map(port_variable, PAGED), *map(docs_port_variable, SERVICES)]
    with ExitStack() as probes:
        ports = []
        for _ in variables:
            probe = probes.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    chosen = dict(zip(variables, map(str, ports), strict=True))
    environment = {
        **os.environ,
        "DEMO_DATA": str(folder / "data"),
        "APPROVER_TOKENS": f"{APPROVER}:{TOKEN}",
        "OPERATOR_TOKENS": f"ann:{TOKEN}",
        **chosen,
    }
    process = subprocess.Popen([sys.executable, "-m", "app_common.demo"], cwd=ROOT, env=environment)
    try:
        pages = dict(zip(PAGED, ports, strict=False))
        home = address(pages, ORCHESTRATOR)
        until = time.monotonic() + _WITHIN
        while not _answers(home):
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit("The demo did not start; what it printed says why.")
            time.sleep(0.1)
        yield pages
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(_WITHIN)


def _answers(home: str) -> bool:
    try:
        with urllib.request.urlopen(f"{home}ping", timeout=1):
            return True
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
