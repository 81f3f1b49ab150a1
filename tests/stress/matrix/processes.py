"""The web process, and what the system says of any process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from tests.stress.fleet import ROOT


def state(pid: int) -> str | None:
    """The letter that the kernel has for it, such as S, or T for stopped; None if it has ended."""
    try:
        told = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    letter = told.rpartition(")")[2].split()[0]
    return None if letter in "ZX" else letter


class Web:
    """Takes orders in a process of its own.

    Args:
        environment: all of it.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment = environment
        self._log = log
        self._taken: set[str] = set()
        self._process: subprocess.Popen[str] | None = None
        self._asked = ""

    @property
    def running(self) -> bool:
        """Whether it has not ended by itself or by a deed."""
        return self._process is not None and self._process.poll() is None

    @property
    def group(self) -> int | None:
        """Its process, which leads a group."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Start it; what it was asked for and has not answered it is asked again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.stress.matrix.web"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                cwd=ROOT,
                start_new_session=True,
            )
        assert self._process.stdout is not None
        threading.Thread(target=self._listen, args=[self._process.stdout], daemon=True).start()
        self._tell()

    def post(self, prefix: str, prices: Sequence[int], *, told: bool = False) -> None:
        """Have it take an order for each price, and tell of each in an event if it is to be told."""
        self._asked = json.dumps({"prefix": prefix, "prices": list(prices), "told": told}) + "\n"
        self._tell()

    def taken(self, prefix: str) -> bool:
        """Whether all orders of this prefix were taken."""
        return prefix in self._taken

    def close(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.close()

    def _tell(self) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(self._asked)
        self._process.stdin.flush()

    def _listen(self, output: IO[str]) -> None:
        with output:
            for line in output:
                prefix = json.loads(line)["prefix"]
                self._taken.add(prefix)
