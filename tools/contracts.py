"""Writes the AsyncAPI documents of all services: ``make contracts``, and ``make contracts-released``.

``docs/contracts/`` has what the code says now, and ``docs/contracts/released/`` what it said in the last
release. Both are kept, because changes add up: a field that is taken away today and comes back tomorrow with
another type breaks nobody on either day, and yet it breaks those of the last release.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

from app_common.running import SERVICES
from sagas_framework.contracts import Report, compare, read, tools

ROOT: Final = Path(__file__).parents[1]
CURRENT: Final = ROOT / "docs" / "contracts"
RELEASED: Final = CURRENT / "released"
MODULES: Final = ROOT / "tools" / "asyncapi" / "node_modules"

NEW_SERVICES: Final[tuple[str, ...]] = ("inventory_service", "delivery_service", "notification_service")
"""Services that the last release did not have. It is empty again when they are released."""

_KEPT: Final = ("PATH", "HOME", "LANG", "VIRTUAL_ENV")
"""What the services see of the environment: their settings, and so the broker, are as they are by default."""


def built() -> dict[str, str]:
    """What the code says now: the documents as YAML, by the names of their files."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    return {
        f"{service}.yaml": subprocess.run(
            [sys.executable, "-m", f"{service}.asyncapi_specification"],
            cwd=ROOT,
            env=kept,
            check=True,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ).stdout
        for service in SERVICES
    }


def write(folder: Path, documents: dict[str, str]) -> list[Path]:
    """Make the folder's documents these and no others; those that were not so before."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = []
    for file in sorted({*folder.glob("*.yaml"), *(folder / name for name in documents)}):
        text = documents.get(file.name)
        if text is None:
            file.unlink()
        elif file.exists() and file.read_text(encoding="utf-8") == text:
            continue
        else:
            file.write_text(text, encoding="utf-8")
        changed.append(file)
    return changed


def verdict() -> Report:
    """Whether what is said now breaks somebody who is still of the last release."""
    return compare(read(RELEASED), read(CURRENT), admitted=NEW_SERVICES, by=tools(modules=str(MODULES)))


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the AsyncAPI documents of all services.")
    parser.add_argument("--released", action="store_true", help="they are released now: keep them as such")
    released = parser.parse_args().released
    documents = built()
    told(write(CURRENT, documents))
    if released and not any(RELEASED.glob("*.yaml")):  # the first release ever
        told(write(RELEASED, documents))
        return 0
    report = verdict()
    for change in report.breaking:
        print(f"breaking: {change.what} {change.instead}", file=sys.stderr)
    for what in report.missing.values():
        print(what, file=sys.stderr)
    if not report.passes(majors=True):
        print(
            "Change it back, or raise the major version in the service's asyncapi_specification.py. A "
            "service that the last release did not have belongs into NEW_SERVICES in tools/contracts.py.",
            file=sys.stderr,
        )
        return 1
    if released:
        told(write(RELEASED, documents))
    return 0


def told(files: list[Path]) -> None:
    for file in files:
        print(f"{'Wrote' if file.exists() else 'Removed'} {file.relative_to(ROOT)}")


if __name__ == "__main__":
    sys.exit(main())
