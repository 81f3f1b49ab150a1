"""Who may act, and which requests: tokens, cookies, other sites, names."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from sagas_framework import ConfigurationError
from sagas_framework.console import console
from tests.unit.cli.shop import Shop
from tests.unit.console.browser import Browser, field, site, words


@pytest.fixture
def parked(shop: Shop) -> str:
    """The id of a saga that can be acted on."""
    return shop.parked_after_pivot("needy")


def asked(saga_id: str, **more: str) -> dict[str, str]:
    """What a form says, but for its token."""
    return {"act": "skip", "saga": f"{saga_id}.1.", "by": "maria", "reason": "no courier"} | more


# ---- configuration --------------------------------------------------------------------------------


def test_without_operators_an_act_is_refused_and_says_how_to_configure_them(shop: Shop, parked: str) -> None:
    browser = Browser(site(shop.sagas, secret=None))

    answer = browser.json("/sagas/bulk", {"act": "skip"})

    assert answer.status_code == 403
    assert answer.json == {
        "error": "Nobody may act here: no operators are configured",
        "do": "Give them to the console: console(sagas, operators=[...]), or act with the program `saga`",
    }


def test_an_empty_list_of_operators_is_nobody(shop: Shop, parked: str) -> None:
    browser = Browser(site(shop.sagas, secret=None, operators=[]))

    assert "csrf" not in browser.page("/sagas/")
    assert browser.post("/sagas/bulk", asked(parked)).status_code == 403


def test_operators_without_a_secret_key_are_a_mistake_that_is_named_at_the_start(shop: Shop) -> None:
    with pytest.raises(ConfigurationError, match=r"secret key, and it has none.*set app.secret_key"):
        site(shop.sagas, secret=None, operators=["maria"])


@pytest.mark.parametrize("operators", ["maria", [""], [7], ["x" * 101]])
def test_operators_that_are_no_names_are_refused_at_the_start(shop: Shop, operators: Any) -> None:
    with pytest.raises(ConfigurationError):
        console(shop.sagas, operators=operators)


# ---- the token ------------------------------------------------------------------------------------


def test_the_cookie_goes_nowhere_else_and_no_script_reads_it(shop: Shop, browser: Browser) -> None:
    cookie = browser.get("/sagas/").headers["Set-Cookie"]

    assert re.fullmatch(r"saga_console_sagas=[\w-]{32}; HttpOnly; Path=/sagas/; SameSite=Strict", cookie), (
        cookie
    )
    assert "Set-Cookie" not in browser.get("/sagas/").headers
    secure = Browser(browser.app).client.get("/sagas/", base_url="https://x", headers={"Accept": "text/html"})
    assert "; Secure;" in secure.headers["Set-Cookie"]


def test_a_form_with_its_token_is_obeyed(browser: Browser, parked: str) -> None:
    assert browser.post("/sagas/bulk", asked(parked, csrf=browser.token())).status_code == 200


def test_a_form_without_its_token_or_with_another_one_is_not_obeyed(browser: Browser, parked: str) -> None:
    token = browser.token()

    for wrong in ({}, {"csrf": ""}, {"csrf": "x"}, {"csrf": token[:-1] + "~"}, {"csrf": "é\x00"}):
        answer = browser.post("/sagas/bulk", asked(parked) | wrong)
        assert answer.status_code == 403
        assert "and is not obeyed" in answer.text or "it is not obeyed" in answer.text
        assert "Open the page again" in words(answer.text)


def test_a_form_without_the_cookie_is_not_obeyed(browser: Browser, parked: str) -> None:
    token = browser.token()
    browser.client.delete_cookie("saga_console_sagas", path="/sagas/")

    answer = browser.post("/sagas/bulk", asked(parked, csrf=token))

    assert answer.status_code == 403
    assert "The form came without its cookie" in words(answer.text)


def test_the_token_of_another_visitor_is_not_obeyed(browser: Browser, parked: str) -> None:
    other = Browser(browser.app)
    other.page("/sagas/")

    answer = other.post("/sagas/bulk", asked(parked, csrf=browser.token()))

    assert answer.status_code == 403
    assert "The form was made for another visitor" in words(answer.text)


def test_a_token_signed_with_another_key_is_not_obeyed(shop: Shop, browser: Browser, parked: str) -> None:
    token = browser.token()
    browser.app.secret_key = "another"

    assert browser.post("/sagas/bulk", asked(parked, csrf=token)).status_code == 403


def test_a_token_outlives_a_change_of_the_key_if_the_former_one_is_kept(
    browser: Browser, parked: str
) -> None:
    token = browser.token()
    browser.app.config.update(SECRET_KEY="another", SECRET_KEY_FALLBACKS=["a secret"])

    assert browser.post("/sagas/bulk", asked(parked, csrf=token)).status_code == 200


def test_a_form_of_yesterday_is_not_obeyed(shop: Shop, browser: Browser, parked: str) -> None:
    token = browser.token()
    shop.sleeps(11 * 3600)
    young = browser.post("/sagas/bulk", asked(parked, csrf=token))
    shop.sleeps(2 * 3600)
    old = browser.post("/sagas/bulk", asked(parked, csrf=token))

    assert (young.status_code, old.status_code) == (200, 403)
    assert "The form is more than 12 h old" in words(old.text)


# ---- other sites ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://["},
        {"Origin": ""},
        {"Sec_Fetch_Site": "cross-site", "Origin": "http://localhost"},
    ],
)
def test_what_another_sites_page_posts_is_not_obeyed(
    browser: Browser, parked: str, headers: dict[str, str]
) -> None:
    form = browser.post("/sagas/bulk", asked(parked, csrf=browser.token()), **headers)
    told = browser.json("/sagas/bulk", asked(parked), **headers)

    assert form.status_code == told.status_code == 403
    assert told.json is not None
    assert told.json["error"].startswith("This POST comes from a page of another origin (")


@pytest.mark.parametrize(
    "headers",
    [{}, {"Sec_Fetch_Site": "same-origin"}, {"Origin": "http://localhost"}],
)
def test_what_its_own_page_or_a_program_posts_is_obeyed(
    browser: Browser, parked: str, headers: dict[str, str]
) -> None:
    assert browser.json("/sagas/bulk", {**asked(parked), "sagas": parked}, **headers).status_code == 200


def test_a_body_that_is_too_large_is_not_read(browser: Browser) -> None:
    answer = browser.post("/sagas/bulk", {"reason": "x" * 400_001})

    assert answer.status_code == 413


def test_a_post_that_does_not_say_how_long_it_is_is_told_so(browser: Browser) -> None:
    answer = browser.client.post("/sagas/bulk")  # as curl -X POST does

    assert answer.status_code == 411
    assert answer.json is not None
    assert answer.json["error"] == "The request has no body, or does not say how long it is"


# ---- who is logged in -----------------------------------------------------------------------------


def test_who_is_logged_in_acts_under_that_name_whatever_is_sent(shop: Shop, parked: str) -> None:
    browser = Browser(site(shop.sagas, operators=lambda: "jo"))
    page = browser.post("/sagas/bulk", asked(parked, csrf=browser.token())).text

    confirmed = asked(parked, csrf=field(page, "csrf"), confirmed="1", saga=field(page, "saga"))
    browser.post("/sagas/bulk", confirmed | {"by": "mallory"})

    assert 'id="by" type="text" value="jo" readonly' in page
    assert [act.by for act in shop.sagas.acts(parked)] == ["jo"]


def test_who_is_not_logged_in_sees_no_form_and_cannot_act(shop: Shop, parked: str) -> None:
    browser = Browser(site(shop.sagas, operators=lambda: None))

    answer = browser.json("/sagas/bulk", asked(parked))

    assert "csrf" not in browser.page("/sagas/")
    assert answer.status_code == 403
    assert answer.json is not None
    assert answer.json["do"] == "Log in and open the page again"


def test_a_form_made_while_somebody_else_was_logged_in_is_not_obeyed(shop: Shop, parked: str) -> None:
    names = ["jo"]
    who: Callable[[], str | None] = lambda: names[-1]  # noqa: E731
    browser = Browser(site(shop.sagas, operators=who))
    token = browser.token()
    names.append("maria")

    assert browser.post("/sagas/bulk", asked(parked, csrf=token)).status_code == 403


def test_a_name_is_one_of_the_operators_and_is_escaped_where_it_is_not(browser: Browser, parked: str) -> None:
    page = browser.post("/sagas/bulk", asked(parked, csrf=browser.token(), by="<b>maria</b>"))

    assert page.status_code == 400
    assert "<b>maria" not in page.text
    assert "<b>maria</b> is not one of the operators who may act here." in words(
        page.text.replace("&lt;", "&amp;lt;")
    ).replace("&lt;", "<").replace("&gt;", ">")
