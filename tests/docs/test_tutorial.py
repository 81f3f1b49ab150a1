"""The tutorial, to the letter: an empty folder, the wheel, every file and every command in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import ROOT, Block, blocks
from tests.docs.terminals import Command, Terminals, commands
from tests.servers import free_ports

TUTORIAL: Final = ROOT / "docs" / "tutorial" / "from-tasks-to-a-saga.md"
_FILE: Final = re.compile(r"# (?P<path>shop/\w+\.py)\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty folder, but for the wheel: the page says how that is made."""
    empty = tmp_path / "shop"
    empty.mkdir()
    made = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", empty, ROOT],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert made.returncode == 0, made.stdout + made.stderr
    return empty


@pytest.fixture
def terminals(folder: Path, rabbitmq_url: str, tmp_path: Path) -> Iterator[Terminals]:
    """Terminals in the folder. What differs from a reader's: broker, port and the versions that pip takes."""
    locked = re.findall(
        r"^[\w.\[\]-]+==[^\s\\]+(?: ;[^\\\n]*)?", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    (tmp_path / "constraints.txt").write_text("\n".join(locked) + "\n")
    [port] = free_ports(1)
    (tmp_path / ".curlrc").write_text(f'connect-to = "127.0.0.1:5000:127.0.0.1:{port}"\nmax-time = 20\n')
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {
        "PATH": f"{Path(sys.base_prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PIP_CONSTRAINT": str(tmp_path / "constraints.txt"),
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "CURL_HOME": str(tmp_path),
        "FLASK_RUN_PORT": str(port),
        "SHOP_BROKER": rabbitmq_url,
        "COLUMNS": "80",
    }
    opened = Terminals(folder, environment)
    yield opened
    opened.close()


def only_looks(command: Command) -> bool:
    """Whether it may be typed again, as the page says: it shows something and changes nothing."""
    words = command.typed.split()
    asks = words[:2] == ["curl", "-s"] and "-d" not in words
    shows = words[0].endswith("/saga") and words[3] in ("list", "show", "history", "why", "stuck", "health")
    return asks or shows


def write(block: Block, folder: Path) -> None:
    named = _FILE.match(block.text)
    assert named is not None, f"{block}: a Python block's first line names its file"
    path = folder / named["path"]
    path.parent.mkdir(exist_ok=True)
    path.write_text(block.text)


def see_the_compensation(terminals: Terminals) -> None:
    """The page says that the console shows it, so it does: on the list, and on the page of the saga."""
    fetch = "curl -s --fail --location -H 'Accept: text/html' http://127.0.0.1:5000/sagas/"

    listed = terminals.run(Command("", f"{fetch}?status=all", ""))
    shown = " ".join(re.sub(r"<[^>]*>", " ", terminals.run(Command("", f"{fetch}order-3", ""))).split())

    assert re.search(r'href="/sagas/[0-9a-f-]{36}">order-3<', listed)
    assert "order-3 compensated" in shown
    assert "Undone because card was refused (TaskFailed" in shown
    assert re.search(r"stock done in [\w ]+ undone in [\w ]+ undone Messages", shown)


@pytest.mark.timeout(400)  # pip fetches two dozen packages
def test_the_tutorial_does_what_it_says(folder: Path, terminals: Terminals) -> None:
    for block in blocks(TUTORIAL):
        if block.language == "python":
            write(block, folder)
            continue
        assert block.language == "console", f"{block}: neither a file nor commands"
        for command in commands(block.text):
            try:
                terminals.run(command, patient=only_looks(command))
            except AssertionError as error:
                raise AssertionError(f"{block}: {error}") from None
        if "show order-3" in block.text:
            see_the_compensation(terminals)
