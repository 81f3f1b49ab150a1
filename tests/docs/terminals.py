"""Terminals for the commands of a page: what is typed there, and what should be seen.

A line that begins with a prompt is a command; the lines under it are what it prints, where ``...``
stands for any text. At the prompt ``$`` a command is waited for. Before any other prompt stands the name
of a terminal, whose command runs on once what is shown was seen. It is interrupted when the terminal gets
another command, and at the end.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROMPT: Final = re.compile(r"^(?P<terminal>[a-z]*)\$ (?P<command>.+)$")
_WITHIN: Final = 60.0  # seconds for a program to print what is expected; this machine may be busy
_GRACE: Final = 10.0  # seconds for a program to end when it is interrupted


@dataclass(frozen=True)
class Command:
    """A command, the terminal in which it is typed, and what it prints: anything, if nothing is shown."""

    terminal: str
    typed: str
    shown: str


def commands(text: str) -> Iterator[Command]:
    """The commands of a ``console`` block.

    Raises:
        ValueError: it does not begin with a prompt.
    """
    terminal, typed = "", ""
    shown: list[str] = []
    for line in text.splitlines():
        if prompt := _PROMPT.match(line):
            if typed:
                yield Command(terminal, typed, "\n".join(shown))
            terminal, typed, shown = prompt["terminal"], prompt["command"], []
        elif not typed:
            raise ValueError(f"a console block begins with a prompt, not with {line!r}")
        elif typed.endswith("\\"):
            typed = typed[:-1] + line.strip()
        else:
            shown.append(line)
    if typed:
        yield Command(terminal, typed, "\n".join(shown))


def fits(printed: str, shown: str, *, so_far: bool = False) -> bool:
    """Whether that is what the page shows; ``...`` is any text, also over several lines.

    Args:
        so_far: more may follow what is shown.
    """
    wanted = ".*".join(re.escape(part) for part in shown.strip().split("..."))
    return re.fullmatch(wanted + (".*" if so_far else ""), printed.strip(), re.DOTALL) is not None


class Terminals:
    """A main terminal and any number beside it, all in one folder. Close it: it ends what still runs."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = dict(environment)
        self._running: dict[str, tuple[subprocess.Popen[bytes], Path]] = {}

    def run(self, command: Command, *, patient: bool = False) -> str:
        """Type it, and see that it prints what is shown; what it printed.

        Args:
            patient: that it may be typed again until it does.

        Raises:
            AssertionError: it prints something else, or fails.
        """
        if command.terminal:
            return self._run_beside(command)
        until = time.monotonic() + (_WITHIN if patient else 0)
        while True:
            done = subprocess.run(
                ["bash", "-c", command.typed],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_WITHIN,
            )
            if done.returncode == 0 and (not command.shown or fits(done.stdout, command.shown)):
                return done.stdout
            if time.monotonic() >= until:
                raise AssertionError(
                    f"$ {command.typed}\nprints (exit code {done.returncode}):\n{done.stdout}\n"
                    f"The page shows:\n{command.shown}\n{self._told()}"
                )
            time.sleep(0.3)

    def _run_beside(self, command: Command) -> str:
        self._interrupt(command.terminal)
        log = self._folder / f".{command.terminal}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command.typed}"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self._running[command.terminal] = (process, log)
        until = time.monotonic() + _WITHIN
        while not fits(log.read_text(errors="replace"), command.shown, so_far=True):
            if process.poll() is not None or time.monotonic() > until:
                raise AssertionError(
                    f"{command.terminal}$ {command.typed}\ndoes not print what the page shows:\n"
                    f"{command.shown}\n{self._told()}"
                )
            time.sleep(0.1)
        return log.read_text(errors="replace")

    def _told(self) -> str:
        """What was printed beside, for whoever looks for the mistake."""
        return "\n".join(
            f"The terminal {name} has:\n{log.read_text(errors='replace')[-3000:]}"
            for name, (_, log) in self._running.items()
        )

    def _interrupt(self, terminal: str) -> None:
        """End what runs there, with all its children."""
        if terminal not in self._running:
            return
        process, _ = self._running.pop(terminal)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(_GRACE)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # all have gone, as they should
        process.wait(_GRACE)

    def close(self) -> None:
        """End everything that runs."""
        for terminal in list(self._running):
            self._interrupt(terminal)
