"""The services' own pages in a real browser: what customers were told, the stock, the shipping, the login."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.application import Application
from tests.acceptance.test_pages import DESKTOP, PHONE
from tests.servers import wait_until

NOTIFICATIONS, STOCK, SHIPPING = "notification_service", "inventory_service", "delivery_service"
CUSTOMERS: Final = ("Riley", "<script>document.title = 'taken'</script><b>Riley</b>", "رايلي", "W" * 200)
"""Each orders an apple, and pays."""


def order(application: Application, customer: str, *items: str, total: str = "9.99") -> str:
    """Order items; the order's id."""
    body = json.dumps({"customer": customer, "items": items, "total": total})
    answer = application.ask("POST", "/processing/orders", body)
    assert answer.status == 202, answer.body
    return str(answer.json["order_id"])


def told(application: Application, query: str = "") -> list[Any]:
    """What the notification service says was told, newest first."""
    port = application.pages[NOTIFICATIONS]
    notifications: list[Any] = application.ask("GET", f"/notifications{query}", port=port).json[
        "notifications"
    ]
    return notifications


@pytest.fixture(scope="module")
def orders(application: Application) -> list[str]:
    """What the pages show: an order of each customer that was shipped, and milk that is low."""
    shipped = [order(application, customer, "apples") for customer in CUSTOMERS]
    order(application, "Riley", *["milk"] * 8)

    def all_told() -> bool:
        done = {one["order_id"] for one in told(application) if "submitted for shipping" in one["message"]}
        return done >= set(shipped) and bool(told(application, "?audience=operators"))

    wait_until(all_told, "orders that are shipped, and an item that is low", 30)
    return shipped


def token(application: Application) -> str:
    """The operator's, as the demo prints it."""
    (line,) = [line for line in application.printed.splitlines() if line.startswith("Tokens for changing")]
    return line.rpartition(":")[2].strip()


def address(application: Application, service: str, path: str = "/") -> str:
    return f"http://127.0.0.1:{application.pages[service]}{path}"


def log_in(page: Page, application: Application, service: str) -> None:
    page.goto(address(application, service, "/login"))
    page.get_by_label("Token").fill(token(application))
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("button", name="Log out")).to_be_visible()


Prepare = Callable[[Page, Application], None]


def wrong_token(page: Page, application: Application) -> None:
    page.goto(address(application, STOCK, "/login"))
    page.get_by_label("Token").fill("a token of nobody's")
    page.get_by_role("button", name="Log in").click()
    expect(page.locator("#token-wrong")).to_be_visible()


def restocking(page: Page, application: Application) -> None:
    log_in(page, application, STOCK)


def switching(page: Page, application: Application) -> None:
    log_in(page, application, SHIPPING)


def at(service: str, path: str) -> Prepare:
    def go(page: Page, application: Application) -> None:
        page.goto(address(application, service, path))

    return go


SIGHTS: Final[dict[str, Prepare]] = {
    "notifications": at(NOTIFICATIONS, "/"),
    "notifications for operators": at(NOTIFICATIONS, "/?audience=operators"),
    "no notifications": at(NOTIFICATIONS, "/?order=nobody"),
    "stock": at(STOCK, "/"),
    "restocking": restocking,
    "shipping": at(SHIPPING, "/"),
    "switching": switching,
    "login": at(STOCK, "/login"),
    "wrong token": wrong_token,
    "not found": at(SHIPPING, "/nowhere"),
}


@pytest.mark.usefixtures("orders")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("sight", SIGHTS)
def test_axe_finds_nothing_and_nothing_sticks_out(
    chromium: Browser, application: Application, sight: str, size: Any, scheme: Any
) -> None:
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    SIGHTS[sight](page, application)

    found = Axe().run(page)
    sticks_out = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()

    violations = found.response["violations"]
    assert [(one["help"], [node["html"] for node in one["nodes"]]) for one in violations] == []
    assert sticks_out <= 0


@pytest.fixture
def visitor(chromium: Browser) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield context.new_page()
    context.close()


def test_what_a_customer_is_told_is_seen_without_a_reload(
    visitor: Page, application: Application, orders: list[str]
) -> None:
    visitor.goto(address(application, NOTIFICATIONS))
    loads: list[str] = []
    visitor.on("load", lambda loaded: loads.append(loaded.url))

    bread = order(application, "Riley", "bread")

    line = visitor.locator("#feed li", has_text=bread)
    expect(line.filter(has_text="Received order for Riley: bread. Total = 9.99")).to_be_visible(
        timeout=15_000
    )
    expect(line.filter(has_text="Order submitted for shipping")).to_be_visible(timeout=15_000)
    assert loads == []


def test_what_customers_write_is_shown_as_text(
    visitor: Page, application: Application, orders: list[str]
) -> None:
    for service in (NOTIFICATIONS, SHIPPING):
        visitor.goto(address(application, service))

        expect(visitor.locator("main")).to_contain_text(CUSTOMERS[1])
        assert visitor.title() != "taken"


def test_a_name_from_the_right_moves_no_number(visitor: Page, application: Application) -> None:
    order_id = order(application, "ريلي", "oranges", "oranges")
    visitor.goto(address(application, NOTIFICATIONS, f"/?order={order_id}"))
    message = visitor.locator("#feed .message", has_text="Received order for")
    expect(message).to_be_visible(timeout=15_000)

    left, number = message.evaluate(LEFT_OF, ["ريلي", "2 oranges"])

    assert left < number


LEFT_OF: Final = """
(element, parts) => parts.map(part => {
  const text = element.firstChild, range = document.createRange(), at = text.data.indexOf(part);
  range.setStart(text, at);
  range.setEnd(text, at + 1);
  return range.getBoundingClientRect().left;
})"""
"""Where the first characters of these parts of a text stand, in pixels from the left."""


def test_the_messages_of_an_order_are_a_click_away(
    visitor: Page, application: Application, orders: list[str]
) -> None:
    visitor.goto(address(application, NOTIFICATIONS))

    visitor.get_by_role("link", name=orders[0]).first.click()

    lines = visitor.locator("#feed li:not(.day)")
    expect(lines).to_have_count(4)
    expect(lines.first).to_contain_text("Order submitted for shipping")
    expect(visitor.get_by_label("Order")).to_have_value(orders[0])


def test_an_operator_who_reads_that_an_item_is_low_puts_more_in(
    visitor: Page, application: Application, orders: list[str]
) -> None:
    visitor.goto(address(application, NOTIFICATIONS))
    visitor.get_by_label("For").select_option("operators")
    visitor.get_by_role("button", name="Filter").click()
    expect(visitor.locator("#feed")).to_contain_text("milk is low: 2 left")
    visitor.locator("#feed").get_by_role("link", name="stock").first.click()
    log_in(visitor, application, STOCK)
    row = visitor.locator("#stock tr", has_text="milk")
    expect(row).to_contain_text("low")

    visitor.get_by_label("Item").select_option("milk")
    visitor.get_by_label("How many more").fill("8")
    visitor.get_by_role("button", name="Put in").click()

    expect(row).to_have_text("milk108")  # available, reserved
    expect(row.locator(".low")).to_have_count(0)
