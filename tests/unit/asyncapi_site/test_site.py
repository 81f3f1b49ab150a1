"""A docs site: what it answers, with the renderer and without."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import urljoin

import pytest
import yaml
from flask.testing import FlaskClient
from markupsafe import escape
from typing_extensions import override
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import Client, TestResponse

from sagas_framework.asyncapi import Specification, docs_site
from tests.unit.asyncapi.shop import make_kitchen, make_sagas, specify

COMMAND: Final = "make the-renderer"


def kitchen() -> Specification:
    return specify("kitchen", receives=make_kitchen())


def shop() -> Specification:
    return specify("shop", sends=make_sagas())


class Visitor(FlaskClient):
    """It reads every answer to its end, so that no file stays open."""

    @override
    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        return super().open(*arguments, **{"buffered": True, **options})


def visitor(specification: Specification, **options: Any) -> FlaskClient:
    """Somebody at the docs site of the specification."""
    site = docs_site(specification, **options)
    site.test_client_class = Visitor
    return site.test_client()


@pytest.fixture
def renderer(tmp_path: Path) -> Path:
    """A folder with the files of the bundle, as far as a site looks at them."""
    folder = tmp_path / "renderer"
    folder.mkdir()
    (folder / "index.js").write_text("'§'")
    (folder / "default.min.css").write_text("body{}")
    return folder


@pytest.fixture
def site(renderer: Path) -> FlaskClient:
    return visitor(
        kitchen(),
        others=[shop()],
        address=lambda service: f"http://docs.example/{service}/",
        links=[("System", "http://home.example/system"), ("Made", lambda: "http://made.example/")],
        renderer=renderer,
    )


class Links(HTMLParser):
    """Addresses in a page: of links, and of what the browser fetches by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: dict[str, str] = {}
        self.fetched: list[str] = []
        self.inline = 0
        self._href: str | None = None
        self.feed(text)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert not any(name.startswith("on") or name == "style" for name in given)
        self._href = given.get("href") if tag == "a" else None
        if tag in ("script", "link", "img"):
            self.fetched.append(given.get("src") or given.get("href") or "")
        self.inline += tag in ("script", "style") and "src" not in given

    @override
    def handle_data(self, data: str) -> None:
        if self._href is not None:
            self.links[data.strip()] = self._href
            self._href = None


# ---- the document ---------------------------------------------------------------------------------


def test_the_document_is_served_as_yaml_and_as_json(site: FlaskClient) -> None:
    as_yaml, as_json = site.get("/asyncapi.yaml"), site.get("/asyncapi.json")

    assert as_yaml.mimetype == "application/yaml"
    assert as_json.mimetype == "application/json"
    assert as_yaml.text == kitchen().yaml()
    assert as_json.text == kitchen().json()
    assert yaml.safe_load(as_yaml.text) == json.loads(as_json.text) == kitchen().document


@pytest.mark.parametrize("path", ["/", "/asyncapi.yaml", "/asyncapi.json", "/assets/index.js", "/-/docs.js"])
def test_who_has_it_already_gets_304(site: FlaskClient, path: str) -> None:
    first = site.get(path)

    again = site.get(path, headers={"If-None-Match": first.headers["ETag"]})

    assert (first.status_code, again.status_code) == (200, 304)
    assert again.data == b""
    assert "no-cache" in first.headers["Cache-Control"]


def test_head_is_answered_and_a_post_is_not(site: FlaskClient) -> None:
    assert site.head("/asyncapi.yaml").status_code == 200
    assert site.post("/").status_code == 405


# ---- the page -------------------------------------------------------------------------------------


def test_the_page_fetches_only_what_the_site_has(site: FlaskClient) -> None:
    page = Links(site.get("/").text)

    assert {"assets/index.js", "assets/default.min.css", "-/docs.js", "-/docs.css"} <= set(page.fetched)
    assert {name: site.get(f"/{name}").status_code for name in page.fetched} == dict.fromkeys(
        page.fetched, 200
    )
    assert page.inline == 0


def test_the_page_links_to_those_it_talks_with_and_to_what_it_was_given(site: FlaskClient) -> None:
    page = Links(site.get("/").text)

    assert page.links["Shop"] == "http://docs.example/shop/"
    assert page.links["System"] == "http://home.example/system"
    assert page.links["Made"] == "http://made.example/"
    assert page.links["YAML"] == "asyncapi.yaml"
    assert "Kitchen" not in page.links


def test_who_is_no_neighbour_is_not_linked(renderer: Path) -> None:
    lonely = specify("kitchen", receives=make_kitchen())
    stranger = specify("stranger", sends=make_sagas([], "stranger"))

    page = visitor(lonely, others=[stranger], address=lambda _: "x", renderer=renderer).get("/")

    assert "talks with" not in page.text


def test_without_addresses_a_neighbour_is_named_and_not_linked(renderer: Path) -> None:
    page = visitor(kitchen(), others=[shop()], renderer=renderer).get("/")

    assert "Shop" not in Links(page.text).links
    assert re.search(r"<li>Shop\b", page.text)


def test_scripts_are_told_to_be_utf_8(site: FlaskClient) -> None:
    assert site.get("/assets/index.js").headers["Content-Type"] == "text/javascript; charset=utf-8"


def test_what_is_in_a_specification_is_text(renderer: Path) -> None:
    named = specify("kitchen", receives=make_kitchen(), title="<b>Kitchen</b>")

    page = visitor(named, renderer=renderer).get("/")

    assert "<b>" not in page.text
    assert "&lt;b&gt;Kitchen" in page.text


def test_it_works_under_a_prefix(renderer: Path) -> None:
    def nothing(environ: Any, start_response: Any) -> list[bytes]:
        start_response("404 Not Found", [])
        return []

    site = docs_site(kitchen(), renderer=renderer)
    client = Client(DispatcherMiddleware(nothing, {"/docs/kitchen": site}))

    page = Links(client.get("/docs/kitchen/").text)

    for name in [*page.fetched, page.links["YAML"]]:
        assert client.get(f"/docs/kitchen/{name}", buffered=True).status_code == 200, name


@pytest.mark.parametrize("path", ["/", "/asyncapi.json", "/assets/index.js", "/nothing"])
def test_nothing_comes_from_elsewhere_and_nobody_frames_it(site: FlaskClient, path: str) -> None:
    headers = site.get(path).headers

    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"


# ---- without the renderer -------------------------------------------------------------------------


def test_without_the_renderer_the_page_says_the_command_and_the_document_is_served() -> None:
    site = visitor(kitchen(), renderer="no/such/folder", install=COMMAND)

    page = site.get("/")

    assert page.status_code == 503
    assert COMMAND in page.text
    assert "no-store" in page.headers["Cache-Control"]
    links = Links(page.text)
    assert links.fetched == ["-/favicon.svg", "-/docs.css"]
    for name in ("asyncapi.yaml", "asyncapi.json", "-/docs.css"):
        assert site.get(f"/{name}").status_code == 200
    assert site.get("/healthz").json == {"service": "kitchen", "healthy": True, "renderer": False}


def test_half_a_renderer_is_none(renderer: Path) -> None:
    (renderer / "default.min.css").unlink()

    assert visitor(kitchen(), renderer=renderer).get("/").status_code == 503


def test_unless_told_otherwise_the_command_is_npms() -> None:
    page = visitor(kitchen()).get("/")

    assert page.status_code == 503
    assert "npm install --ignore-scripts @asyncapi/react-component@" in page.text


def test_what_is_installed_meanwhile_is_found(tmp_path: Path, renderer: Path) -> None:
    folder = tmp_path / "later"
    site = visitor(kitchen(), renderer=folder)
    before = site.get("/").status_code

    renderer.rename(folder)

    assert (before, site.get("/").status_code) == (503, 200)


def test_the_folder_of_the_npm_package_will_do(tmp_path: Path) -> None:
    package = tmp_path / "react-component"
    for name in ("browser/standalone/index.js", "styles/default.min.css"):
        (package / name).parent.mkdir(parents=True)
        (package / name).write_text(name)

    site = visitor(kitchen(), renderer=package)

    assert site.get("/").status_code == 200
    assert site.get("/assets/index.js").text == "browser/standalone/index.js"


# ---- the rest -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/nothing", "/assets/passwd", "/assets/..%2Fsecret", "/-/../site.py"])
def test_what_is_not_there_is_told_with_what_is(site: FlaskClient, path: str) -> None:
    answer = site.get(path)

    assert answer.status_code == 404
    assert "/asyncapi.yaml" in answer.get_json()["do"]


@pytest.mark.parametrize("path", ["/nothing", "/assets/<b>", "/a/b/c", "/a/b/"])
def test_a_browser_gets_a_page_that_leads_to_what_is_there(renderer: Path, path: str) -> None:
    def elsewhere(environ: Any, start_response: Any) -> list[bytes]:
        raise AssertionError(f"{environ['PATH_INFO']} is not of this site")

    client = Client(DispatcherMiddleware(elsewhere, {"/docs": docs_site(kitchen(), renderer=renderer)}))

    answer = client.get(f"/docs{path}", headers={"Accept": "text/html"})
    page = Links(answer.text)

    assert (answer.status_code, answer.mimetype) == (404, "text/html")
    assert f"There is nothing at {escape(path)}" in answer.text
    assert set(page.links) == {"document", "YAML", "JSON"}
    for name in [*page.fetched, *page.links.values()]:
        there = urljoin(f"http://localhost/docs{path}", name)
        assert client.get(there, buffered=True).status_code == 200, there


def test_a_site_tells_that_it_serves(site: FlaskClient) -> None:
    answer = site.get("/healthz")

    assert (answer.status_code, answer.json) == (
        200,
        {"service": "kitchen", "healthy": True, "renderer": True},
    )
