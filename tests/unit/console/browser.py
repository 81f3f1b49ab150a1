"""Somebody who looks at a console: asks for HTML, keeps cookies, and posts the forms that are on a page."""

from __future__ import annotations

import html
import re
from typing import Any

from flask import Flask
from werkzeug.test import TestResponse

from sagas_framework import Sagas
from sagas_framework.console import console

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


def site(sagas: Sagas, *, prefix: str = "/sagas", secret: str | None = "a secret", **options: Any) -> Flask:
    """An application with a console on these sagas."""
    app = Flask("shop")
    app.secret_key = secret
    app.register_blueprint(console(sagas, **options), url_prefix=prefix)
    return app


class Browser:
    """A test client that asks for HTML."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers={"Accept": HTML} | _named(headers))

    def post(self, path: str, fields: Any, **headers: str) -> TestResponse:
        return self.client.post(path, data=fields, headers={"Accept": HTML} | _named(headers))

    def json(self, path: str, body: Any = None, **headers: str) -> TestResponse:
        """Ask as a program does: GET, or POST with a body."""
        if body is None:
            return self.client.get(path, headers=_named(headers))
        return self.client.post(path, json=body, headers=_named(headers))

    def page(self, path: str) -> str:
        """The text of a page that is there."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def token(self, path: str = "/sagas/") -> str:
        """The token of the forms on this page."""
        return field(self.page(path), "csrf")


def field(page: str, name: str) -> str:
    """The value of the first hidden field of this name."""
    found = re.search(rf'name="{name}" value="([^"]*)"', page)
    assert found is not None, page
    return html.unescape(found[1])


def fields(page: str, name: str) -> list[str]:
    """The values of every field of this name."""
    return [html.unescape(value) for value in re.findall(rf'name="{name}" value="([^"]*)"', page)]


def keys(page: str) -> list[str]:
    """The keys that a list shows, in order."""
    return [html.unescape(key) for key in re.findall(r'<a class="key[^"]*"[^>]*>([^<]*)</a>', page)]


def words(page: str) -> str:
    """What a page says, without its markup."""
    main = page[page.index("<main") :]
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", main)).split())


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
