"""The pages in a real browser: launch, watch, free. Whatever a person does there is done here.

The demo runs as ``make demo`` starts it. Every page is also looked at by axe, at two widths and in
both colour schemes, and must ask no other host for anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, expect

from tests.acceptance.application import Application
from tests.servers import wait_until

NEEDS_A_PERSON: Final = "/run-saga-that-needs-a-person"
REFUSED: Final = "/run-saga-failing-on-card-authorization"
SILENT: Final = "/run-saga-where-restaurant-never-answers"
SUCCESS: Final = "/run-success-saga"

DESKTOP: Final = {"width": 1280, "height": 900}
PHONE: Final = {"width": 390, "height": 844}


Open = Callable[..., Page]


@pytest.fixture
def visit(application: Application, chromium: Browser) -> Iterator[Open]:
    """Opens pages, each for a visitor of its own; afterwards no page has logged an error or left the host."""
    home = f"http://127.0.0.1:{application.port}"
    contexts = []
    troubles: list[str] = []

    def open_page(path: str = "/", **options: Any) -> Page:
        context = chromium.new_context(base_url=home, **({"viewport": DESKTOP} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: troubles.extend([said.text] if _is_trouble(said) else []))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda asked: troubles.extend([] if asked.url.startswith(home) else [asked.url]))
        page.goto(path)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def _is_trouble(said: ConsoleMessage) -> bool:
    """An error, but for the browser's own line about a form that was answered with 400, as it should be."""
    return said.type == "error" and "status of 400" not in said.text


def launch(application: Application, path: str) -> str:
    """Launch as a script does; the saga's id."""
    saga_id: str = application.ask("POST", path).json["saga_id"]
    return saga_id


def parked(application: Application) -> str:
    """A saga that needs a person."""
    saga_id = launch(application, NEEDS_A_PERSON)
    wait_until(lambda: application.saga(saga_id)["status"] == "parked", "a parked saga", 30)
    return saga_id


# ---- launch and watch -----------------------------------------------------------------------------


def test_a_launch_is_watched_to_its_end_without_a_reload(visit: Open, application: Application) -> None:
    page = visit()

    page.locator(f'form[action="{REFUSED}"] button').click()

    expect(page).to_have_url(re.compile(r"/sagas/[0-9a-f-]{36}$"))
    loads: list[str] = []
    page.on("load", lambda loaded: loads.append(loaded.url))
    expect(page.get_by_role("heading", level=1)).to_contain_text("compensated", timeout=20_000)
    expect(page.locator("#timeline")).to_contain_text("turned back")
    expect(page.locator("#timeline svg.plot rect.undo").first).to_be_visible()
    expect(page.locator("#step-create_restaurant_ticket")).to_contain_text("undone")
    expect(page.locator("#history")).to_contain_text("create_restaurant_ticket.compensated")
    assert loads == []


def test_the_silence_of_a_restaurant_is_seen_while_it_lasts_and_its_end_as_well(
    visit: Open, application: Application
) -> None:
    page = visit()

    page.locator(f'form[action="{SILENT}"] button').click()

    why = page.locator("section.why")
    expect(why).to_contain_text("restaurant_service.create_ticket")
    expect(page.locator("#timeline rect.flight").first).to_be_visible()
    expect(page.get_by_role("heading", level=1)).to_contain_text("compensated", timeout=30_000)
    expect(why).to_contain_text("no answer in 5 s")


def test_the_last_sagas_of_the_homepage_are_live(visit: Open, application: Application) -> None:
    page = visit()
    saga_id = launch(application, SUCCESS)
    key = application.saga(saga_id)["key"]

    expect(page.locator("#recent")).to_contain_text(key, timeout=10_000)
    expect(page.locator("#recent li", has_text=key)).to_contain_text("completed", timeout=10_000)


def test_a_page_that_answers_with_another_one_is_not_live_and_has_not_ended(
    visit: Open, application: Application
) -> None:
    page = visit(f"/sagas/{parked(application)}")
    login = f"http://127.0.0.1:{application.port}/ping"  # to which who was logged out is sent
    page.route("**/sagas/*", lambda route: route.fulfill(status=302, headers={"Location": login}))

    expect(page.locator("#live")).to_contain_text("Not live since", timeout=15_000)
    page.unroute("**/sagas/*")
    expect(page.locator("#live")).to_have_text("Live", timeout=30_000)


# ---- free a parked saga ---------------------------------------------------------------------------


@pytest.mark.parametrize("javascript", [True, False], ids=["javascript", "no javascript"])
def test_a_parked_saga_is_found_and_freed(visit: Open, application: Application, javascript: bool) -> None:
    saga_id = parked(application)
    key = application.saga(saga_id)["key"]
    page = visit("/sagas/?status=parked", java_script_enabled=javascript)

    page.get_by_role("link", name=key).click()
    expect(page.locator("section.why")).to_contain_text("Call the kitchen")
    page.get_by_label("Reason").fill("the kitchen was called")
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Retry").click()

    wait_until(lambda: application.saga(saga_id)["status"] == "compensated", "the end of the freed saga", 20)
    if not javascript:
        page.goto(f"/sagas/{saga_id}")
    expect(page.get_by_role("heading", level=1)).to_contain_text("compensated")
    expect(page.locator("#history")).to_contain_text("the kitchen was called")
    assert application.saga(saga_id)["history"][-1]["entry"] == "compensated"


def test_a_parked_saga_is_freed_by_keyboard_alone(visit: Open, application: Application) -> None:
    saga_id = parked(application)
    page = visit(f"/sagas/{saga_id}", java_script_enabled=False)

    def tab_to(control: Locator) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if control.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"the tab key does not lead to {control}")

    tab_to(page.get_by_label("Reason"))
    page.keyboard.type("the kitchen was called")
    tab_to(page.get_by_role("button", name="Retry"))
    page.keyboard.press("Space")

    wait_until(lambda: application.saga(saga_id)["status"] == "compensated", "the end of the freed saga", 20)
    (act,) = [line for line in application.saga(saga_id)["history"] if line["entry"] == "operator.retry"]
    assert act["detail"] == {"by": "ann", "reason": "the kitchen was called"}


def test_enter_in_a_field_acts_on_nothing(visit: Open, application: Application) -> None:
    saga_id = parked(application)
    page = visit(f"/sagas/{saga_id}")

    page.get_by_label("Reason").fill("too quick")
    page.get_by_label("Your name").fill("ann")
    page.get_by_label("Your name").press("Enter")
    page.wait_for_timeout(300)

    saga = application.saga(saga_id)
    assert saga["status"] == "parked"
    assert saga["acts"] == []


def test_an_act_without_a_reason_is_not_done_and_says_so(visit: Open, application: Application) -> None:
    saga_id = parked(application)
    page = visit(f"/sagas/{saga_id}", java_script_enabled=False)

    page.get_by_label("Reason").fill("   ")
    page.get_by_label("Your name").fill("ann")
    page.get_by_role("button", name="Retry").click()

    expect(page.locator("#reason-wrong, .wrong").first).to_contain_text("reason")
    expect(page.get_by_label("Your name")).to_have_value("ann")
    assert application.saga(saga_id)["status"] == "parked"


# ---- approve and reject ---------------------------------------------------------------------------


def wait_for_approval(application: Application, path: str = "/run-order-to-approve") -> tuple[str, str]:
    """Launch an order; its id and that of its saga once it waits for an approver."""
    answer = application.ask("POST", path)
    assert answer.status == 202, answer.body
    saga_id, order_id = answer.json["saga_id"], str(answer.json["order_id"])
    wait_until(lambda: application.saga(saga_id)["signals"] == ["approval"], "an order that waits", 20)
    return order_id, saga_id


def log_in(page: Page, application: Application) -> None:
    """As the approver whose token the demo prints."""
    (line,) = [line for line in application.printed.splitlines() if line.startswith("Tokens for approving")]
    page.goto("/login")
    page.get_by_label("Token").fill(line.rpartition(":")[2])
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Approvals")


@pytest.mark.parametrize("javascript", [True, False], ids=["javascript", "no javascript"])
def test_an_approver_approves_one_order_and_rejects_another(
    visit: Open, application: Application, javascript: bool
) -> None:
    yes, approved = wait_for_approval(application)
    no, rejected = wait_for_approval(application, "/run-order-to-reject")
    page = visit("/approvals", java_script_enabled=javascript)
    expect(page.locator(".approval", has_text=yes)).to_contain_text("23 h 59 min left")
    expect(page.get_by_role("button", name="Approve")).to_have_count(0)

    log_in(page, application)
    page.get_by_role("button", name=f"Approve {yes}").click()
    expect(page.locator("#told")).to_contain_text(f"{yes}: Approved by you.")
    page.get_by_role("button", name=f"Reject {no}").click()
    expect(page.locator("#told")).to_contain_text(f"{no}: Rejected by you.")

    expect(page.locator(".approval", has_text=yes)).to_have_count(0)
    expect(page.locator("#lately tr", has_text=yes)).to_contain_text("approved")
    page.get_by_role("link", name=no).first.click()
    wait_until(
        lambda: application.saga(rejected)["status"] == "compensated", "the end of the rejected order", 20
    )
    if not javascript:
        page.reload()
    expect(page.locator("section.why")).to_contain_text("Order was rejected by")
    expect(page.locator("#head")).to_contain_text("refused: somebody said no")
    wait_until(
        lambda: application.saga(approved)["status"] == "completed", "the end of the approved order", 20
    )


def test_who_was_too_late_is_told_so_and_the_list_is_live(visit: Open, application: Application) -> None:
    page, other = visit(), visit()
    log_in(page, application)
    order_id, saga_id = wait_for_approval(application)
    expect(page.locator(".approval", has_text=order_id)).to_be_visible(timeout=10_000)  # by itself
    log_in(other, application)
    page.route("**/approvals", lambda route: route.fulfill(status=304))  # it does not hear of it

    other.get_by_role("button", name=f"Reject {order_id}").click()
    expect(other.locator("#told")).to_contain_text("Rejected by you.")
    page.unroute("**/approvals")
    page.get_by_role("button", name=f"Approve {order_id}").click()

    expect(page.locator("#told")).to_contain_text(f"{order_id}: Too late:")
    assert application.saga(saga_id)["state"]["approver"] is None


# ---- every page -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sights(application: Application) -> dict[str, str]:
    """A path for each kind of page, with something to see on each."""
    done = launch(application, SUCCESS)
    undone = launch(application, REFUSED)
    stuck = parked(application)
    order_id, waits = wait_for_approval(application)
    for saga_id in (done, undone):
        application.ended(saga_id)
    return {
        "home": "/",
        "list": "/sagas/",
        "list of all": "/sagas/?status=all",
        "empty list": "/sagas/?key=nobody-has-this-key",
        "stuck": "/sagas/stuck",
        "completed": f"/sagas/{done}",
        "compensated": f"/sagas/{undone}",
        "parked": f"/sagas/{stuck}",
        "approvals": "/approvals",
        "order that waits": f"/processing/orders/{order_id}",
        "waiting": f"/sagas/{waits}",
        "login": "/login",
        "launch": "/run-order-while-shipping-is-in-maintenance",
        "not found": "/sagas/no-such-saga",
        "wrong path": "/nowhere",
    }


KINDS: Final = (
    "home",
    "list",
    "list of all",
    "empty list",
    "stuck",
    "completed",
    "compensated",
    "parked",
    "approvals",
    "order that waits",
    "waiting",
    "login",
    "launch",
    "not found",
    "wrong path",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("kind", KINDS)
def test_axe_finds_nothing_and_nothing_sticks_out(
    chromium: Browser, application: Application, sights: dict[str, str], kind: str, size: Any, scheme: Any
) -> None:
    context = chromium.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{application.port}{sights[kind]}")

    found = Axe().run(page)
    sticks_out = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    context.close()

    violations = found.response["violations"]
    assert [(one["help"], [node["html"] for node in one["nodes"]]) for one in violations] == []
    assert sticks_out <= 0
