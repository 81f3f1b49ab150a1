"""Writes the generated parts of the pages anew: ``make docs``.

Between ``<!-- generated: saga ... -->`` and ``<!-- end -->`` stands what that command prints, in a block of
its own if it is a diagram. `tests/docs/test_generated.py` fails when it is not what stands there.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]

_BEGIN: Final = "<!-- generated: "
_PART: Final = re.compile(
    rf"(?P<begin>^{_BEGIN}(?P<command>saga [^\n]+) -->\n)(?P<shown>.*?)(?P<end>^<!-- end -->$)",
    re.MULTILINE | re.DOTALL,
)
_KEPT: Final = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")
"""What the command sees of the environment: the settings of the order platform are as they are by default."""


def main() -> int:
    for page in pages():
        text = page.read_text()
        if (new := regenerated(text)) != text:
            page.write_text(new)
            print(f"Wrote {page.relative_to(ROOT)}")
    return 0


def pages() -> list[Path]:
    """The pages that have generated parts."""
    every = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in every if _BEGIN in page.read_text()]


def regenerated(text: str) -> str:
    """The page with every generated part as it is now.

    Raises:
        ValueError: a part has no command, or no end.
    """
    if text.count(_BEGIN) != len(_PART.findall(text)):
        raise ValueError("a generated part begins with its command, saga ..., and ends with <!-- end -->")
    return _PART.sub(lambda found: found["begin"] + _part(found["command"]) + found["end"], text)


def _part(command: str) -> str:
    text = printed(command)
    if "--diagram" in shlex.split(command):
        return f"```mermaid\n{text}```\n"
    return f"\n{text}\n"  # a table is one only after an empty line


@cache
def printed(command: str) -> str:
    """What the command prints, run in the repository's root.

    Raises:
        CalledProcessError: it fails.
    """
    code = "from sagas_framework.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *shlex.split(command)[1:]],
        cwd=ROOT,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


if __name__ == "__main__":
    sys.exit(main())
