"""The console's look for an application that has pages and no sagas."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from flask import Blueprint, Flask, render_template_string
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client

from sagas_framework.console import frame

TEMPLATE: Final = """{% extends "saga_console/base.html" %}
{% from "saga_console/macros.html" import when %}
{% block main %}hello, {{ when(moment) }}{% endblock %}"""
NOON: Final = datetime(2026, 3, 17, 12, tzinfo=UTC)


def site(prefix: str = "/-") -> Flask:
    app = Flask("stock")
    shop = frame(
        "stock_service",
        title="Shop",
        links=[("Stock", lambda: "/"), ("Elsewhere", "http://elsewhere.example/")],
    )
    app.register_blueprint(shop, url_prefix=prefix)
    app.add_url_rule(
        "/", "home", lambda: render_template_string(TEMPLATE, title="Stock", moment=NOON, live=2000)
    )
    return app


def fetched(client: Any, address: str) -> Any:
    """The answer, with its file closed."""
    answer = client.get(address)
    answer.close()
    return answer


def test_a_page_has_title_links_and_foot() -> None:
    page = site().test_client().get("/").text

    assert "<title>Stock · Shop</title>" in page
    assert '<a href="/" aria-current="page">Stock</a>' in page
    assert '<a href="http://elsewhere.example/">Elsewhere</a>' in page
    assert '<meta name="live" content="2000">' in page
    assert "hello, <time" in page
    assert ">12:00:00</time>" in page
    assert "stock_service · sagas-framework" in page


def test_its_files_are_served_and_kept_for_as_long_as_the_release() -> None:
    client = site("/look").test_client()
    address = client.get("/").text.partition('<link rel="stylesheet" href="')[2].partition('"')[0]

    kept, unnamed, none = (fetched(client, one) for one in (address, "/look/live.js", "/look/none?v=1"))

    assert address.startswith("/look/style.css?v=")
    assert (kept.status_code, kept.headers["Cache-Control"]) == (200, "public, max-age=86400")
    assert (unnamed.status_code, unnamed.headers["Cache-Control"]) == (200, "no-cache")
    assert none.status_code == 404
    assert "max-age" not in none.headers.get("Cache-Control", "")


def test_behind_a_prefix_and_in_another_blueprint_its_files_are_found() -> None:
    admin = Blueprint("admin", __name__)
    admin.register_blueprint(frame("stock_service", title="Shop", links=[("Stock", "/")]), url_prefix="/-")
    app = Flask("stock")
    app.register_blueprint(admin, url_prefix="/admin")
    app.add_url_rule("/", "home", lambda: render_template_string(TEMPLATE, moment=NOON))
    client: Any = Client(DispatcherMiddleware(Flask("none"), {"/shop": app}))

    page = client.get("/shop/").text

    address = page.partition('<link rel="stylesheet" href="')[2].partition('"')[0]
    assert address.startswith("/shop/admin/-/style.css?v=")
    assert fetched(client, address).status_code == 200
