"""How pages answer: HTML or JSON, headers, problems in the same look, and where the console is mounted."""

from __future__ import annotations

import logging
from importlib.resources import files
from pathlib import Path

import pytest
from flask import Blueprint, Flask, abort, redirect, render_template_string, url_for
from sqlalchemy import text
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Unauthorized
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client
from werkzeug.wrappers import Response

from sagas_framework.console import console
from tests.unit.cli.shop import Shop
from tests.unit.console.browser import Browser, keys, site, words

# ---- HTML or JSON ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html", "text/html; charset=utf-8"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "text/html; charset=utf-8"),
        ("application/json;q=0.9,text/html;q=0.8", "application/json"),
        ("image/png", "application/json"),
    ],
)
@pytest.mark.parametrize("path", ["/sagas/", "/sagas/stuck", "/sagas/?status=nope"])
def test_html_is_for_those_who_prefer_it(browser: Browser, path: str, accept: str | None, kind: str) -> None:
    answer = browser.client.get(path, headers={} if accept is None else {"Accept": accept})

    assert answer.headers["Content-Type"] == kind
    assert "Accept" in answer.headers["Vary"]


def test_pages_are_not_kept_not_framed_and_run_nothing_of_others(browser: Browser) -> None:
    for path in ("/sagas/", "/sagas/stuck", "/sagas/acts?numbers=1", "/sagas/?status=nope"):
        answer = browser.get(path)
        assert answer.headers["Cache-Control"] == "no-store"
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "same-origin"


def test_pages_need_no_inline_style_or_script_and_no_other_host(shop: Shop, browser: Browser) -> None:
    shop.parked_after_pivot("a")

    for path in ("/sagas/", "/sagas/stuck", "/sagas/?status=nope"):
        page = browser.get(path).text
        assert "style=" not in page
        assert "<style" not in page
        assert page.count("<script") == page.count('<script src="/sagas/-/live.js') == 1
        assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in page


@pytest.mark.parametrize(
    ("name", "kind"),
    [("style.css", "text/css"), ("live.js", "text/javascript"), ("favicon.svg", "image/svg+xml")],
)
def test_the_pages_own_files_are_there(browser: Browser, name: str, kind: str) -> None:
    with browser.client.get(f"/sagas/-/{name}") as answer:
        assert answer.status_code == 200
        assert answer.mimetype == kind
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "Set-Cookie" not in answer.headers


def test_every_template_and_file_is_one_of_the_package() -> None:
    package = files("sagas_framework.console")

    assert isinstance(package, Path)
    assert {"base.html", "sagas.html"} <= {
        path.name for path in (package / "templates/saga_console").iterdir()
    }
    assert {path.name for path in (package / "static").iterdir()} == {"style.css", "live.js", "favicon.svg"}


# ---- problems -------------------------------------------------------------------------------------


def test_a_database_that_is_away_is_told_and_named_in_the_log(
    shop: Shop, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    with shop.sagas.engine.begin() as connection:
        connection.execute(text("DROP TABLE saga_history"))

    with caplog.at_level(logging.ERROR):
        page, told = browser.get("/sagas/"), browser.json("/sagas/")

    assert page.status_code == told.status_code == 503
    assert "The database of order_service does not do what we ask (OperationalError)" in words(page.text) or (
        "The database of order_service cannot be reached" in words(page.text)
    )
    assert told.json is not None
    assert told.json["do"].startswith("`saga -A order_service.worker health` says what is wrong")
    assert "no such table: saga_history" in caplog.text


def test_the_applications_own_errors_stay_its_own(shop: Shop) -> None:
    app = site(shop.sagas, operators=["maria"])
    app.register_error_handler(404, lambda error: ("the application's 404", 404))

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError

    @app.get("/raises")
    def raises() -> str:
        return shop.sagas.get("nobody").key

    app.register_error_handler(Exception, lambda error: (f"the application's {type(error).__name__}", 500))
    browser = Browser(app)

    assert browser.get("/nowhere").text == "the application's 404"
    assert browser.get("/broken").text == "the application's ZeroDivisionError"
    assert browser.get("/raises").text == "the application's UnknownRun"
    assert "Content-Security-Policy" not in browser.get("/nowhere").headers
    assert words(browser.get("/sagas/?status=nope").text).startswith("There is no status 'nope'")


@pytest.mark.parametrize(
    ("refusal", "status", "told"),
    [
        (403, 403, "Forbidden"),
        (Unauthorized(www_authenticate=WWWAuthenticate("basic")), 401, "Unauthorized"),
        (redirect("/login"), 302, "/login"),
    ],
)
def test_who_is_kept_out_by_the_application_is_answered_as_it_says(
    shop: Shop, refusal: int | Unauthorized | Response, status: int, told: str
) -> None:
    desk = console(shop.sagas)

    @desk.before_request
    def nobody() -> None:
        if isinstance(refusal, Unauthorized):
            raise refusal
        abort(refusal)

    app = Flask("shop")
    app.register_blueprint(desk, url_prefix="/sagas")

    answer = Browser(app).get("/sagas/")

    assert answer.status_code == status
    assert told in answer.text
    assert answer.headers.get("WWW-Authenticate") == ("Basic" if status == 401 else None)
    assert answer.headers.get("Location") == ("/login" if status == 302 else None)


# ---- where it is mounted --------------------------------------------------------------------------


def test_it_works_at_any_prefix_also_at_none(shop: Shop) -> None:
    shop.parked_after_pivot("a")

    for prefix, path in (("/ops/sagas", "/ops/sagas/"), ("", "/"), ("/s", "/s/")):
        page = Browser(site(shop.sagas, prefix=prefix, operators=["maria"])).page(path)
        assert keys(page) == ["a"]
        assert f'href="{path}-/style.css' in page
        assert f'action="{path}bulk"' in page


def test_it_works_behind_a_proxys_prefix(shop: Shop) -> None:
    shop.parked_after_pivot("a")
    app = site(shop.sagas, operators=["maria"], links=[("Home", lambda: url_for("home"))])
    template = '{% extends "saga_console/base.html" %}'
    app.add_url_rule("/", "home", view_func=lambda: render_template_string(template))
    client = Client(DispatcherMiddleware(Flask("none"), {"/shop": app}))

    answer = client.get("/shop/sagas/", headers={"Accept": "text/html"})

    assert 'href="/shop/sagas/-/style.css' in answer.text
    assert 'action="/shop/sagas/bulk"' in answer.text
    assert '<a href="/shop/">Home</a>' in answer.text
    assert '<a href="/shop/" aria-current="page">Home</a>' in client.get("/shop/").text
    assert "Path=/shop/sagas/;" in answer.headers["Set-Cookie"]


def test_two_consoles_live_in_one_application(shop: Shop) -> None:
    shop.parked_after_pivot("a")
    app = Flask("shop")
    app.secret_key = "a secret"
    first = console(shop.sagas, operators=["maria"], title="First")
    app.register_blueprint(first, url_prefix="/one")
    app.register_blueprint(console(shop.sagas, name="others", title="Second"), url_prefix="/two")
    app.register_blueprint(first, url_prefix="/three", name="again")
    browser = Browser(app)

    one, two, three = browser.page("/one/"), browser.page("/two/"), browser.page("/three/")

    assert [page.split("<title>")[1].split("</title>")[0] for page in (one, two, three)] == [
        "Sagas · First",
        "Sagas · Second",
        "Sagas · First",
    ]
    assert 'href="/one/-/style.css' in one
    assert 'href="/two/-/style.css' in two
    assert 'href="/three/-/style.css' in three
    assert "csrf" not in two
    asked = {"act": "skip", "all": "1", "csrf": browser.token("/one/")}
    assert browser.post("/one/bulk", asked).status_code == 200
    assert browser.post("/three/bulk", asked).status_code == 403  # the token is the other mount's


def test_it_can_be_part_of_another_blueprint(shop: Shop) -> None:
    shop.parked_after_pivot("a")
    admin = Blueprint("admin", __name__)
    admin.register_blueprint(console(shop.sagas, operators=["maria"]), url_prefix="/sagas")
    app = Flask("shop")
    app.secret_key = "a secret"
    app.register_blueprint(admin, url_prefix="/admin")

    browser = Browser(app)

    assert keys(browser.page("/admin/sagas/")) == ["a"]
    asked = {"act": "skip", "all": "1", "csrf": browser.token("/admin/sagas/")}
    assert browser.post("/admin/sagas/bulk", asked).status_code == 200


def test_a_page_of_the_application_can_have_the_same_frame(shop: Shop) -> None:
    app = site(shop.sagas, title="Shop", links=[("Home", "/")], more_links=[("API", "/docs")])
    template = '{% extends "saga_console/base.html" %}{% block main %}hello{% endblock %}'
    app.add_url_rule("/", "home", view_func=lambda: render_template_string(template, title="Home"))
    browser = Browser(app)

    page = browser.page("/")

    assert "<title>Home · Shop</title>" in page
    assert '<a href="/" aria-current="page">Home</a>' in page
    assert '<a href="/sagas/">Sagas</a>' in page
    assert '<a href="/docs">API</a>' in page
    assert 'href="/sagas/-/style.css' in page
    assert '<a href="/sagas/" aria-current="page">Sagas</a>' in browser.page("/sagas/")
