"""What a user installs: the wheel holds the library alone, and the first example runs on it."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
EXTRAS: Final = {"postgres", "redis", "console", "contracts", "cli", "otel", "asyncapi", "testing"}


def run(*command: str | Path, cwd: Path, within: float = 100) -> subprocess.CompletedProcess[str]:
    """Run a program without the project on its path."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=within,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as a release is, with what the project's environment has."""
    folder = tmp_path_factory.mktemp("wheel")
    built = run(
        *(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", folder, ROOT), cwd=folder
    )
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def files(wheel: Path) -> list[str]:
    """The names of the files in the wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def read(wheel: Path, name: str) -> str:
    """A file of the wheel's metadata."""
    with zipfile.ZipFile(wheel) as archive:
        (found,) = [file for file in archive.namelist() if file.endswith(f".dist-info/{name}")]
        return archive.read(found).decode()


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> Message:
    """What the wheel says of itself."""
    return message_from_string(read(wheel, "METADATA"))


def first_example() -> tuple[str, str]:
    """The program of the tutorial in one file, and what it says that the program prints."""
    page = (ROOT / "docs/tutorial/one-file.md").read_text()
    program = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert program is not None
    printed = re.search(r"```text\n(.*?)```", page[program.end() :], re.DOTALL)
    assert printed is not None
    return program[1], printed[1]


# ---- what it holds --------------------------------------------------------------------------------


def test_the_wheel_holds_the_library_alone(files: Sequence[str]) -> None:
    folders = {name.split("/")[0] for name in files}

    assert {name for name in folders if not name.endswith(".dist-info")} == {"sagas_framework"}
    assert [name for name in files if "__pycache__" in name] == []


def test_the_wheel_holds_every_module_of_the_library(files: Sequence[str]) -> None:
    modules = {str(path.relative_to(ROOT)) for path in (ROOT / "sagas_framework").rglob("*.py")}

    assert modules <= set(files)


def test_the_wheel_says_that_it_is_typed_and_brings_its_migrations(files: Sequence[str]) -> None:
    versions = "sagas_framework/storage/migrations/versions/"

    assert "sagas_framework/py.typed" in files
    assert f"{versions}0001_first.py" in files


def test_the_wheel_brings_the_consoles_pages(files: Sequence[str]) -> None:
    console = ROOT / "sagas_framework" / "console"
    pages = [path for folder in ("templates", "static") for path in (console / folder).rglob("*.*")]

    assert {path.name for path in pages} >= {"base.html", "sagas.html", "style.css", "live.js", "favicon.svg"}
    assert {str(path.relative_to(ROOT)) for path in pages} <= set(files)


def test_the_wheel_brings_the_page_of_a_docs_site(files: Sequence[str]) -> None:
    asyncapi = ROOT / "sagas_framework" / "asyncapi"
    page = [path for folder in ("templates", "static") for path in (asyncapi / folder).rglob("*.*")]

    assert {path.name for path in page} == {"page.html", "nothing.html", "docs.css", "docs.js", "favicon.svg"}
    assert {str(path.relative_to(ROOT)) for path in page} <= set(files)


def test_the_wheel_has_the_extras_that_the_documents_name(metadata: Message) -> None:
    assert set(metadata.get_all("Provides-Extra", [])) == EXTRAS
    assert metadata["Name"] == "sagas-framework"
    assert metadata["License-Expression"] == "MIT"


def test_the_wheel_needs_little_without_extras(metadata: Message) -> None:
    needs = [need for need in metadata.get_all("Requires-Dist", []) if "extra ==" not in need]

    names = {re.split(r"[^\w-]", need, maxsplit=1)[0].lower() for need in needs}
    assert names == {"alembic", "celery", "pydantic", "sqlalchemy", "typing-extensions"}


def test_the_wheel_shows_the_readme(metadata: Message) -> None:
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert str(metadata.get_payload()).strip() == (ROOT / "README.md").read_text().strip()


def test_the_wheel_brings_the_program_saga(wheel: Path) -> None:
    scripts = configparser.ConfigParser()
    scripts.read_string(read(wheel, "entry_points.txt"))

    assert dict(scripts["console_scripts"]) == {"saga": "sagas_framework.cli:main"}


# ---- the first example ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it needs, in the locked versions, and nothing else.

    Needs the package index that pip is configured for.
    """
    folder = tmp_path_factory.mktemp("empty")
    made = run(sys.executable, "-m", "venv", folder / "venv", cwd=folder)
    assert made.returncode == 0, made.stderr
    locked = re.findall(
        r"^[\w.\[\]-]+==[^\s\\]+(?: ;[^\\\n]*)?", (ROOT / "requirements.lock").read_text(), re.MULTILINE
    )
    (folder / "constraints.txt").write_text("\n".join(locked) + "\n")
    pip = (
        folder / "venv" / "bin" / "python",
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--retries=1",
    )
    installed = run(*pip, "install", "--quiet", "-c", "constraints.txt", wheel, cwd=folder, within=280)
    if installed.returncode != 0:
        pytest.fail(
            "The wheel cannot be installed into an empty environment. This test needs the package index "
            f"that pip is configured for. pip says:\n{installed.stderr}",
            pytrace=False,
        )
    return folder / "venv"


@pytest.mark.timeout(400)  # pip fetches a dozen packages
def test_the_first_example_runs_where_nothing_else_is_installed(environment: Path, tmp_path: Path) -> None:
    program, printed = first_example()
    (tmp_path / "example.py").write_text(program)

    done = run(environment / "bin" / "python", "example.py", cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


@pytest.mark.timeout(400)
def test_without_its_extra_the_program_saga_says_how_to_install_it(environment: Path, tmp_path: Path) -> None:
    done = run(environment / "bin" / "saga", "list", cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.endswith("Run: pip install 'sagas-framework[cli]'\n")


def test_the_first_example_is_right_for_a_strict_type_checker(tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(first_example()[0])

    checked = run(
        *(sys.executable, "-m", "mypy", "--strict", "--cache-dir", tmp_path / "cache"),
        *("--config-file", os.devnull, tmp_path / "example.py"),
        cwd=ROOT,
    )

    assert checked.returncode == 0, checked.stdout
