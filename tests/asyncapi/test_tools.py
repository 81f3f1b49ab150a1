"""The official tools: what is locked, and what the docs sites are given of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.asyncapi.tools import ROOT, TOOLS
from tests.servers import Missing, skip_or_fail

UI = ROOT / "build" / "asyncapi-ui"


def test_every_package_is_locked_by_its_hash_and_from_no_registry_in_particular() -> None:
    packages = json.loads((TOOLS / "package-lock.json").read_text())["packages"]
    packages.pop("")  # this folder itself

    assert len(packages) > 100
    assert [
        name for name, package in packages.items() if not package["integrity"].startswith("sha512-")
    ] == []
    assert [name for name, package in packages.items() if "resolved" in package] == []


def test_what_is_asked_for_is_pinned_and_locked_in_just_that_version() -> None:
    asked = json.loads((TOOLS / "package.json").read_text())["devDependencies"]
    locked = json.loads((TOOLS / "package-lock.json").read_text())["packages"]

    assert asked == {name: locked[f"node_modules/{name}"]["version"] for name in asked}


@pytest.mark.parametrize("name", ["index.js", "index.js.LICENSE.txt", "LICENSE", "default.min.css"])
def test_the_docs_sites_have_the_renderer_with_its_licences(name: str) -> None:
    file: Path = UI / name
    if not file.exists():
        skip_or_fail(Missing(f"{file.relative_to(ROOT)}. Run: make asyncapi"))

    assert file.stat().st_size > 1000
