"""``docs/how-to/mount-the-console.md``: its programs run, its commands are answered, what it says is so."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session

from sagas_framework import Queue, Sagas
from sagas_framework.console.masking import MASK, SECRETS
from tests.docs.pages import ROOT, blocks
from tests.docs.terminals import commands
from tests.unit.core.stories import DeliverOrderSaga, OrderState

PAGE: Final = ROOT / "docs" / "how-to" / "mount-the-console.md"
SHOWN_ID: Final = "019ca945-0a00-7aac-87e4-15127a4391c0"
HTML: Final = {"Accept": "text/html"}


@pytest.fixture
def sagas(sqlite_url: str) -> Iterator[Sagas]:
    """One saga, order-17, which no orchestrator has taken up."""
    sagas = Sagas("shop", sqlite_url, sagas=[DeliverOrderSaga], reply_queue=Queue("replies"))
    sagas.upgrade()
    with Session(sagas.engine) as session, session.begin():
        sagas.start(DeliverOrderSaga, OrderState(), key="order-17", session=session)
    yield sagas
    sagas.engine.dispose()


@pytest.fixture
def page(sagas: Sagas, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names that the page's programs make, one after the other. `shop.sagas` is the team's own."""
    for name in ("shop", "shop.sagas"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    vars(sys.modules["shop.sagas"])["sagas"] = sagas
    monkeypatch.setenv("SECRET_KEY", "a key of the test's own")
    names: dict[str, Any] = {"__name__": "page"}
    for block in blocks(PAGE):
        if block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), names)
    return names


@pytest.fixture
def client(page: dict[str, Any]) -> FlaskClient:
    app: Flask = page["app"]
    return app.test_client()


def log_in(client: FlaskClient, user: str) -> None:
    with client.session_transaction() as session:
        session["user"] = user


def test_the_pages_programs_mount_the_console_twice(client: FlaskClient) -> None:
    shown = client.get("/sagas/?status=all", headers=HTML)
    by_key = client.get("/sagas/order-17", headers=HTML, follow_redirects=True)

    assert "order-17" in shown.text
    assert by_key.status_code == 200
    assert "order-17" in by_key.text


def test_the_commands_are_answered(client: FlaskClient, sagas: Sagas) -> None:
    [saga] = sagas.list()
    typed = [
        command.typed
        for block in blocks(PAGE)
        if block.language == "console"
        for command in commands(block.text)
    ]
    looks, acts = (shlex.split(line) for line in typed)
    path = urlsplit(acts[2]).path.replace(SHOWN_ID, saga.id)
    body = json.loads(acts[-1]) | {"revision": saga.revision}

    looked = client.get(urlsplit(looks[2]).path, follow_redirects=True)
    acted = client.post(path, json=body)

    assert looked.json is not None
    assert looked.json["key"] == "order-17"
    assert acted.status_code == 202  # no orchestrator runs
    assert [(act.by, act.reason) for act in sagas.acts(saga.id)] == [(body["by"], body["reason"])]


def test_an_act_without_a_reason_is_answered_400_and_stores_nothing(
    client: FlaskClient, sagas: Sagas
) -> None:
    [saga] = sagas.list()

    answer = client.post(f"/sagas/{saga.id}/acts", json={"act": "cancel", "revision": 0, "by": "ann"})

    assert answer.status_code == 400
    assert answer.json is not None
    assert set(answer.json["fields"]) == {"reason"}
    assert sagas.acts(saga.id) == []


def test_only_staff_reaches_the_one_that_asks_who_is_logged_in(client: FlaskClient) -> None:
    stranger = client.get("/admin/sagas/", headers=HTML)
    log_in(client, "ann")
    staff = client.get("/admin/sagas/", headers=HTML)

    assert stranger.status_code == 403
    assert staff.status_code == 200
    assert "Back office" in staff.text
    assert 'href="/sign-in"' in staff.text


def test_behind_the_proxy_every_address_has_its_prefix_and_the_cookie_is_secure(client: FlaskClient) -> None:
    (told,) = [block.text for block in blocks(PAGE) if block.language == "nginx"]
    headers = dict(re.findall(r"proxy_set_header (\S+) (\S+);", told))
    assert re.search(r"^location (\S+) ", told, re.MULTILINE)[1] == headers["X-Forwarded-Prefix"] + "/"  # type: ignore[index]
    sent = {name: {"$scheme": "https", "$http_host": "shop.example"}.get(v, v) for name, v in headers.items()}

    answer = client.get("/sagas/", headers=HTML | sent)

    addresses = re.findall(r'(?:href|src|action)="(/[^"]*)"', answer.text)
    outside = {address for address in addresses if not address.startswith("/backoffice/sagas/")}
    assert addresses
    assert outside == set()
    assert "Secure" in answer.headers["Set-Cookie"]


def test_without_a_key_there_are_no_operators(page: dict[str, Any], sagas: Sagas) -> None:
    blueprint = page["console"](sagas, operators=["ann"])

    with pytest.raises(Exception, match="secret_key") as raised:
        Flask("keyless").register_blueprint(blueprint)

    assert type(raised.value).__name__ == "ConfigurationError"
    assert "ConfigurationError" in PAGE.read_text()


def test_the_page_names_every_field_that_is_hidden() -> None:
    text = PAGE.read_text()

    assert [name for name in SECRETS if f"`{name}`" not in text] == []
    assert f"`{MASK}`" in text
