"""Who is asking: a token in a header for programs, a login and forms for people."""

from __future__ import annotations

from typing import Any, Final

import pytest
from flask import Flask

from app_common.people import People
from app_common.web.access import LASTS, Access
from app_common.web.errors import add_error_handlers

ANN: Final = "ann's-own-token-0123456789"
BEN: Final = "ben's-own-token-9876543210"
HTML: Final = {"Accept": "text/html"}


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def site(people: People, clock: Clock, service: str = "stock", **options: Any) -> Flask:
    app = Flask(__name__)
    access = Access(people, service, home="home", now=clock, **options)
    # The login page's frame is the services' own: here it need not look like anything.
    app.jinja_loader = None
    app.add_url_rule("/", "home", lambda: str(access.csrf))
    app.add_url_rule("/who", "who", lambda: access.who(), methods=["POST"])
    app.add_url_rule("/person", "person", lambda: str(access.person))
    access.install(app)
    add_error_handlers(app, service)
    return app


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(clock: Clock) -> Any:
    return site(People({"ann": ANN, "Ben Doe": BEN}), clock).test_client()


def log_in(client: Any, token: str = ANN) -> str:
    """Log in; the token of the forms."""
    assert client.post("/login", data={"token": token}).status_code == 303
    return form(client)


def form(client: Any) -> str:
    field: str = client.get("/").text
    return field.partition('value="')[2].partition('"')[0]


def test_a_program_is_whose_token_it_sends(client: Any) -> None:
    answer = client.post("/who", headers={"Authorization": f"Bearer {BEN}"})

    assert (answer.status_code, answer.text) == (200, "Ben Doe")


@pytest.mark.parametrize("header", ["Bearer", "Bearer x", f"Basic {ANN}", ANN, f"Bearer {ANN} {ANN}", ""])
def test_a_header_that_proves_nothing_is_refused(client: Any, header: str) -> None:
    log_in(client)  # not even then: whoever sends the header means it

    answer = client.post("/who", headers={"Authorization": header})

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_who_has_logged_in_acts_by_a_form(client: Any) -> None:
    token = log_in(client, BEN)

    assert client.get("/person").text == "Ben Doe"
    assert client.post("/who", data={"csrf": token}).text == "Ben Doe"


def test_the_cookie_is_for_this_site_and_no_script(client: Any) -> None:
    answer = client.post("/login", data={"token": ANN})

    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert "Path=/" in cookie
    assert ANN not in cookie
    assert "Secure" not in cookie
    over_tls = client.post("/login", data={"token": ANN}, base_url="https://localhost")
    assert "Secure" in over_tls.headers["Set-Cookie"]


@pytest.mark.parametrize("token", ["", "x", ANN[:-1]])
def test_a_login_with_nobodys_token_gives_no_cookie(client: Any, token: str) -> None:
    answer = client.post("/login", data={"token": token})

    assert answer.status_code == 401
    assert "Set-Cookie" not in answer.headers


def test_without_a_form_of_ours_nobody_acts(client: Any) -> None:
    token = log_in(client)

    for data in ({}, {"csrf": ""}, {"csrf": token[:-1] + ("0" if token[-1] != "0" else "1")}):
        assert client.post("/who", data=data).status_code == 403
    assert client.post("/who", json={"csrf": token}).status_code == 403


def test_a_form_is_good_for_the_login_that_it_was_made_in(client: Any, clock: Clock) -> None:
    before = log_in(client)
    clock.now += 1
    after = log_in(client)

    assert client.post("/who", data={"csrf": before}).status_code == 403
    assert client.post("/who", data={"csrf": after}).status_code == 200


def test_a_form_of_one_person_is_not_good_for_another(client: Any) -> None:
    of_ann = log_in(client, ANN)
    log_in(client, BEN)

    assert client.post("/who", data={"csrf": of_ann}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": "http://localhost:3004"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_another_origin_neither_acts_nor_logs_in_or_out(
    client: Any, headers: dict[str, str]
) -> None:
    token = log_in(client)

    assert client.post("/who", data={"csrf": token}, headers=headers).status_code == 403
    assert client.post("/login", data={"token": ANN}, headers=headers).status_code == 403
    assert client.post("/logout", headers=headers).status_code == 403
    assert client.get("/person").text == "ann"


def test_a_login_lasts_twelve_hours(client: Any, clock: Clock) -> None:
    token = log_in(client)

    clock.now += LASTS
    assert client.post("/who", data={"csrf": token}).status_code == 200
    clock.now += 1
    assert client.get("/person").text == "None"
    assert client.post("/who", data={"csrf": token}).status_code == 401


def test_a_login_ends_when_the_token_is_changed_or_taken_away(client: Any, clock: Clock) -> None:
    client.post("/login", data={"token": ANN})
    cookie = client.get_cookie("stock_login")
    for now in ({"ann": BEN}, {"ben": BEN}, {"ann": ANN}):
        other = site(People(now), clock).test_client()
        other.set_cookie("stock_login", cookie.value)

        assert other.get("/person").text == ("ann" if now == {"ann": ANN} else "None")


def test_a_login_at_one_service_is_none_at_another(client: Any, clock: Clock) -> None:
    client.post("/login", data={"token": ANN})
    other = site(People({"ann": ANN}), clock, service="shipping").test_client()
    other.set_cookie("shipping_login", client.get_cookie("stock_login").value)

    assert other.get("/person").text == "None"


def test_logging_out_takes_the_cookie_back(client: Any) -> None:
    token = log_in(client)

    client.post("/logout")

    assert client.get("/person").text == "None"
    assert client.post("/who", data={"csrf": token}).status_code == 401


@pytest.mark.parametrize(
    "cookie",
    [
        "",
        "x",
        "..",
        "1.2.3.4",
        "1800000000.YW5u.",
        "9999999999.YW5u.0",
        "-1.YW5u.0",
        "1.\u00e4.0",
        "1.====.0",
        f"{'9' * 400}.YW5u.0",
    ],
)
def test_a_cookie_that_is_none_of_ours_says_nobody(client: Any, cookie: str) -> None:
    client.set_cookie("stock_login", cookie)

    assert client.get("/person").text == "None"
    assert client.post("/who", data={"csrf": "x"}).status_code == 401


def test_without_people_nobody_acts_and_it_says_how_to_name_some(clock: Clock) -> None:
    client = site(People({}), clock, setting="APPROVER_TOKENS").test_client()

    answer = client.post("/who", headers={"Authorization": f"Bearer {ANN}"})

    assert answer.status_code == 403
    assert "APPROVER_TOKENS" in answer.text
