"""``docs/how-to/document-your-service.md``: its modules and programs run, what it shows is so."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
import waitress
from flask import Flask
from flask.testing import FlaskClient

from sagas_framework.asyncapi.renderer import VERSION
from tests.docs.pages import ROOT, blocks
from tests.docs.terminals import commands, fits

PAGE: Final = ROOT / "docs" / "how-to" / "document-your-service.md"
CONTRACTS, HANDLERS, WAREHOUSE, SHOP, CHECK, SITE, PICTURE = [
    block.text for block in blocks(PAGE) if block.language == "python"
]
INSTALL, PRINT, RENDERER = [
    command for block in blocks(PAGE) if block.language == "console" for command in commands(block.text)
]
(SHOWN,) = [block.text for block in blocks(PAGE) if block.language == "text"]
MODULES: Final = {
    "contracts.py": CONTRACTS,
    "warehouse/__init__.py": "",
    "warehouse/handlers.py": HANDLERS,
    "warehouse/asyncapi_specification.py": WAREHOUSE,
    "shop/__init__.py": "",
    "shop/asyncapi_specification.py": SHOP,
}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The two services, where their modules can be imported."""
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("CELERY_BROKER", raising=False)
    _forget()
    yield tmp_path
    _forget()


def _forget() -> None:
    """Other pages make up a shop, too."""
    for name in [
        name for name in sys.modules if name.partition(".")[0] in ("contracts", "shop", "warehouse")
    ]:
        del sys.modules[name]
    importlib.invalidate_caches()


def run(program: str) -> dict[str, Any]:
    """The names that the program makes."""
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    served: list[Flask] = []
    monkeypatch.setattr(waitress, "serve", lambda site, **_: served.append(site))
    run(SITE)
    (site,) = served
    return site.test_client()


def test_the_modules_are_named_as_the_page_names_them() -> None:
    named = re.findall(r"^`([\w/]+\.py)`", PAGE.read_text(), re.MULTILINE)

    assert named == [
        "contracts.py",
        "warehouse/handlers.py",
        "warehouse/asyncapi_specification.py",
    ]
    assert "`shop/asyncapi_specification.py`:" in PAGE.read_text()


def test_run_as_a_module_it_prints_the_document(folder: Path) -> None:
    program, *arguments = shlex.split(PRINT.typed)
    assert program == "python"

    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
    )

    assert done.returncode == 0, done.stderr
    assert fits(done.stdout, PRINT.shown)
    assert "guest" not in done.stdout


def test_what_is_said_of_the_code_is_in_the_document() -> None:
    document = run("from warehouse.asyncapi_specification import specification")["specification"].document
    messages = document["components"]["messages"]

    operation = document["operations"]["receive_warehouse.reserve"]
    assert operation["summary"] == "Put a thing aside for an order."
    assert "The oldest one goes first." in operation["description"]
    assert messages["warehouse.reserve"]["examples"][0]["payload"][0][1]["sku"] == "LAMP-1"
    assert "warehouse.reserve.response.failure.SoldOut" in messages


def test_the_checks_find_nothing() -> None:
    run(CHECK)


def test_the_site_serves_what_the_page_lists(client: FlaskClient) -> None:
    rows = re.findall(r"^\| (`/.*?) \|", PAGE.read_text(), re.MULTILINE)
    paths = [path for row in rows for path in re.findall(r"`(/[\w.]*)`", row)]

    assert set(paths) == {"/", "/asyncapi.yaml", "/asyncapi.json", "/healthz"}
    assert {path: client.get(path).status_code for path in paths} == dict.fromkeys(paths, 200) | {"/": 503}
    assert 'href="http://docs.example.com/shop/"' in client.get("/").text


def test_without_the_bundle_the_page_says_the_command_of_the_how_to(client: FlaskClient) -> None:
    assert RENDERER.typed in client.get("/").text
    assert RENDERER.typed.endswith(f"@{VERSION}")


def test_the_picture_tells_what_is_shown() -> None:
    with redirect_stdout(StringIO()) as printed:
        names = run(PICTURE)

    assert fits(printed.getvalue(), SHOWN)
    assert "http://docs.example.com/warehouse/#operation-reply-receive_warehouse.reserve" in names["svg"]


def test_the_extra_is_one_that_there_is() -> None:
    assert INSTALL.typed == "pip install 'sagas-framework[asyncapi]'"
    assert "\nasyncapi = [" in (ROOT / "pyproject.toml").read_text()
