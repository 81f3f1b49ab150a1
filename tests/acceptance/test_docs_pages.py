"""The docs sites and the picture of the system in a real browser, drawn by what npm installed.

The demo runs as ``make demo`` starts it. No page may log an error or ask another host for anything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, Response, expect

from app_common.docs_sites import INSTALL, RENDERER
from app_common.running import SERVICES
from app_common.specifications import specification
from tests.acceptance.application import Application
from tests.servers import Missing, skip_or_fail

DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 375, "height": 812}
FAR: Final = 20_000  # milliseconds for the renderer to draw a document: this machine may be busy


@pytest.fixture(scope="module", autouse=True)
def renderer() -> None:
    """What draws the pages, from npm; the tests are skipped without it, and fail in CI."""
    if not (RENDERER / "index.js").exists():
        skip_or_fail(Missing(f"no renderer in {RENDERER.name}; run: {INSTALL}"))


class Visitor:
    """Somebody who opens pages, and what went wrong on them."""

    def __init__(self, application: Application, chromium: Browser) -> None:
        self._application = application
        self._chromium = chromium
        self._contexts: list[Any] = []
        self.troubles: list[str] = []

    def home(self, path: str = "/", **options: Any) -> Page:
        return self._open(self._application.port, path, **options)

    def docs(self, service: str, path: str = "/", **options: Any) -> Page:
        page = self._open(self._application.docs[service], path, **options)
        if options.get("java_script_enabled", True):
            drawn(page, service)
        return page

    def close(self) -> None:
        for context in self._contexts:
            context.close()

    def _open(self, port: int, path: str, **options: Any) -> Page:
        context = self._chromium.new_context(**({"viewport": DESKTOP} | options))
        self._contexts.append(context)
        page: Page = context.new_page()
        page.on("console", lambda said: self._note(said.text, said.type in ("error", "warning")))
        page.on("pageerror", lambda error: self._note(str(error), True))
        page.on("request", lambda asked: self._note(asked.url, urlsplit(asked.url).hostname != "127.0.0.1"))
        page.on("response", lambda answer: self._note(_told(answer), answer.status >= 400))
        page.goto(f"http://127.0.0.1:{port}{path}")
        return page

    def _note(self, what: str, is_trouble: bool) -> None:
        if is_trouble:
            self.troubles.append(what)


def _told(answer: Response) -> str:
    return f"{answer.status} {answer.url}"


@pytest.fixture
def visitor(application: Application, chromium: Browser) -> Iterator[Visitor]:
    """Afterwards no page has logged anything bad or left this machine."""
    somebody = Visitor(application, chromium)
    yield somebody
    somebody.close()
    assert somebody.troubles == []


def drawn(page: Page, service: str) -> None:
    """Wait until the page shows the service's document."""
    expect(page.locator("#introduction")).to_contain_text(specification(service).title, timeout=FAR)


def at(page: Page, anchor: str) -> None:
    """See that the page shows what the anchor names, at its top."""
    place = page.locator(f'[id="{anchor}"]')
    expect(place).to_be_in_viewport(timeout=FAR)
    page.wait_for_function(
        "anchor => Math.abs(document.getElementById(anchor).getBoundingClientRect().top) < 100",
        arg=anchor,
        timeout=FAR,
    )


# ---- a service's page -----------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_page_shows_its_document_and_nothing_sticks_out(
    visitor: Visitor, service: str, size: dict[str, int]
) -> None:
    page = visitor.docs(service, viewport=size)

    text = page.locator("#asyncapi").inner_text()
    document = specification(service).document
    assert [name for name in document["components"]["messages"] if name not in text] == []
    for key in document["operations"]:
        assert page.locator(f'[id$="-{key}"]').count() == 1, key
    sticks_out = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert sticks_out <= 0


def test_a_page_names_fields_and_failures(visitor: Visitor) -> None:
    page = visitor.docs("restaurant_service")

    for name in ("ticket_id", "quantity", "RestaurantClosed", "TicketNotPending", "saga_operation_id"):
        assert page.get_by_text(name).count() > 0, name


def test_an_operation_shows_what_may_be_answered(visitor: Visitor) -> None:
    page = visitor.docs("accounting_service")

    operation = page.locator('[id="operation-reply-receive_accounting_service.authorize_card"]')
    expect(operation).to_contain_text("accounting_service.authorize_card.response.success")
    expect(operation).to_contain_text("InsufficientBalance")


def test_on_a_desktop_the_operations_are_listed_beside_the_document(visitor: Visitor) -> None:
    page = visitor.docs("restaurant_service")

    link = page.locator(".sidebar").get_by_text("receive_restaurant_service.approve_ticket", exact=True)
    expect(link).to_be_visible()
    link.click()
    at(page, "operation-reply-receive_restaurant_service.approve_ticket")


def test_neighbours_lead_to_each_other_and_the_system_to_all(
    visitor: Visitor, application: Application
) -> None:
    page = visitor.docs("order_service")
    neighbours = page.get_by_role("navigation", name="Services that it talks with")

    names = neighbours.get_by_role("link").all_inner_texts()
    neighbours.get_by_role("link", name="Accounting service").click()
    drawn(page, "accounting_service")
    back = neighbours.get_by_role("link").all_inner_texts()
    neighbours.get_by_role("link", name="Order service").click()
    drawn(page, "order_service")
    page.get_by_role("link", name="Whole system").click()

    assert names == [specification(service).title for service in SERVICES[1:]]
    assert back == ["Order service", "Notification service"]  # whom it tells of refunds
    expect(page).to_have_url(f"http://127.0.0.1:{application.port}/system")


def test_the_document_that_the_page_links_to_is_the_one_that_it_shows(
    visitor: Visitor, application: Application
) -> None:
    page = visitor.docs("consumer_service")

    href = page.get_by_role("link", name="JSON", exact=True).get_attribute("href")
    answer = application.ask("GET", f"/{href}", port=application.docs["consumer_service"])

    shown = json.loads(answer.body)
    assert shown["operations"] == specification("consumer_service").document["operations"]


def test_without_javascript_the_page_leads_to_the_document(visitor: Visitor) -> None:
    page = visitor.docs("restaurant_service", java_script_enabled=False)

    expect(page.get_by_text("That needs JavaScript")).to_be_visible()
    assert page.get_by_role("link", name="YAML", exact=True).count() == 2


def test_a_document_that_cannot_be_read_is_told(visitor: Visitor, application: Application) -> None:
    page = visitor.docs("restaurant_service")
    page.route("**/asyncapi.json", lambda route: route.fulfill(status=502, body="away"))

    page.reload()

    expect(page.get_by_role("alert")).to_contain_text("the site answered 502")
    assert len(visitor.troubles) == 2  # the answer, and the browser's own line about it
    visitor.troubles.clear()


# ---- the picture of all ---------------------------------------------------------------------------


def _says_something(service: str) -> bool:
    return bool(specification(service).document["operations"])


def test_every_arrow_leads_to_its_operation(visitor: Visitor, application: Application) -> None:
    page = visitor.home("/system")
    addresses = set(page.locator("svg.system a").evaluate_all("all => all.map(a => a.getAttribute('href'))"))
    table = set(page.locator("table.channels a").evaluate_all("all => all.map(a => a.getAttribute('href'))"))

    assert addresses == table
    pages: dict[str, set[str]] = {}
    for address in addresses:
        site, _, anchor = address.partition("#")
        pages.setdefault(site, set()).add(anchor)
    talking = {service: port for service, port in application.docs.items() if _says_something(service)}
    assert set(pages) == {f"http://127.0.0.1:{port}/" for port in talking.values()}
    for service, port in talking.items():
        opened = visitor.docs(service)
        wanted = sorted(pages[f"http://127.0.0.1:{port}/"])
        assert [anchor for anchor in wanted if opened.locator(f'[id="{anchor}"]').count() != 1] == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize(
    ("arrow", "service", "anchor"),
    [
        (
            "Order service sends accounting_service.reverse_authorization",
            "order_service",
            "operation-request-send_accounting_service.reverse_authorization",
        ),
        (
            "Restaurant service receives restaurant_service.approve_ticket",
            "restaurant_service",
            "operation-reply-receive_restaurant_service.approve_ticket",
        ),
        (
            "Restaurant service: answers to restaurant_service.reject_ticket: success, failure",
            "restaurant_service",
            "operation-reply-receive_restaurant_service.reject_ticket",
        ),
    ],
)
def test_an_arrow_is_clicked_and_the_page_shows_what_it_said(
    visitor: Visitor, application: Application, arrow: str, service: str, anchor: str, size: dict[str, int]
) -> None:
    page = visitor.home("/system", viewport=size)

    page.get_by_role("link", name=arrow, exact=True).click()

    expect(page).to_have_url(f"http://127.0.0.1:{application.docs[service]}/#{anchor}")
    drawn(page, service)
    at(page, anchor)


def test_the_homepage_leads_to_the_picture(visitor: Visitor) -> None:
    page = visitor.home()

    page.get_by_role("link", name="Who talks to whom").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("Who talks to whom")
    talking = [service for service in SERVICES if specification(service).document["operations"]]
    for service in talking:
        expect(page.locator("svg.system[role=group]")).to_contain_text(specification(service).title)


@pytest.mark.parametrize("width", [1280, 860, 375, 320])
def test_no_words_of_the_picture_overlap_or_stick_out(visitor: Visitor, width: int) -> None:
    page = visitor.home("/system", viewport={"width": width, "height": 812})

    words = page.locator("svg.system[role=group] text").evaluate_all(
        "all => all.map(text => {const b = text.getBoundingClientRect();"
        " return {text: text.textContent, l: b.left, r: b.right, t: b.top, b: b.bottom}})"
    )
    plain = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    assert plain <= 0
    assert [word["text"] for word in words if word["l"] < 0 or word["r"] > width] == []
    overlaps = [
        (one["text"], other["text"])
        for number, one in enumerate(words)
        for other in words[number + 1 :]
        if one["l"] < other["r"] - 1
        and other["l"] < one["r"] - 1
        and one["t"] < other["b"] - 3
        and other["t"] < one["b"] - 3
    ]
    assert overlaps == []


@pytest.mark.parametrize("javascript", [True, False], ids=["javascript", "no javascript"])
def test_the_picture_is_there_without_javascript_and_by_keyboard(visitor: Visitor, javascript: bool) -> None:
    page = visitor.home("/system", java_script_enabled=javascript)
    first = page.locator("svg.system a").first

    first.focus()

    expect(first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/#operation-request-send_consumer_service.verify_consumer_details")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_on_the_page_of_the_system(visitor: Visitor, size: Any, scheme: Any) -> None:
    page = visitor.home("/system", viewport=size, color_scheme=scheme)

    found = Axe().run(page)

    violations = found.response["violations"]
    assert [(one["help"], [node["html"] for node in one["nodes"]]) for one in violations] == []


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_axe_finds_nothing_in_the_frame_around_a_document(visitor: Visitor, size: Any) -> None:
    page = visitor.docs("restaurant_service", viewport=size)

    # What the renderer draws is its own affair.
    found = Axe().run(page, context={"exclude": [["#asyncapi"]]})

    violations = found.response["violations"]
    assert [(one["help"], [node["html"] for node in one["nodes"]]) for one in violations] == []
