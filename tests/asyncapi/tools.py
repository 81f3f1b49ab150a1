"""The official tools of AsyncAPI, as ``make asyncapi`` installs them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.servers import Missing

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = ROOT / "tools" / "asyncapi"


@dataclass(frozen=True)
class Verdict:
    """What the official parser says. `lines`: of its output, those about a file begin with its path."""

    code: int
    lines: tuple[str, ...]

    def about(self, file: Path) -> list[str]:
        """The lines about one of the files."""
        return [line.removeprefix(str(file)) for line in self.lines if line.startswith(f"{file}:")]


def parse(*files: Path) -> Verdict:
    """Have the official parser check the documents.

    Raises:
        Missing: it is not installed.
    """
    beside_us = shutil.which("node", path=str(Path(sys.executable).parent))
    node = beside_us or shutil.which("node")
    if node is None or not (TOOLS / "node_modules" / ".installed").exists():
        raise Missing("the official tools of AsyncAPI. Run: make asyncapi")
    done = subprocess.run(
        [node, str(TOOLS / "check.mjs"), *map(str, files)], capture_output=True, text=True, timeout=100
    )
    assert not done.stderr, done.stderr
    return Verdict(done.returncode, tuple(done.stdout.splitlines()))
