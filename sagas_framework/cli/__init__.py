"""The command line ``saga``: look at sagas and act on them, without the broker. Extra: ``cli``."""

from __future__ import annotations

import io
import sys


def main() -> None:
    """The entry point ``saga``. Without its extra it says how to install it, and exits with 1."""
    try:
        from sagas_framework.cli.program import saga
    except ModuleNotFoundError as missing:
        library = (missing.name or "").partition(".")[0]
        if library not in ("click", "rich"):
            raise
        sys.exit(
            f"`saga` needs {library}, which comes with an extra. Run: pip install 'sagas-framework[cli]'"
        )
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a key in letters that this terminal lacks
    saga(prog_name="saga")
