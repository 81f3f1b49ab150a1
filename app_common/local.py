"""The whole application, one process per service, on RabbitMQ and PostgreSQL. ``make local`` runs it.

Settings come from the environment (see `app_common.settings`). A database that does not exist is made.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Final

from app_common.migrate import DEFAULT_DATABASE, migrate
from app_common.running import HOST, ORCHESTRATOR, SERVICES, CannotRun, check_ports, commands
from app_common.settings import (
    DATABASE_VARIABLE,
    SettingError,
    approval_settings,
    approvers,
    operators,
    page_ports,
    page_settings,
)
from sagas_framework import SagasError

RESTAURANT_TIMEOUT: Final = "15"
STOP_WITHIN: Final = 20.0
"""Seconds a process has after SIGTERM, before it is killed."""


def main() -> int:
    """Run until Ctrl-C, SIGTERM or the end of any process; the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    os.environ.setdefault(DATABASE_VARIABLE, DEFAULT_DATABASE)
    os.environ.setdefault("RESTAURANT_TIMEOUT", RESTAURANT_TIMEOUT)
    try:
        ports = page_ports()
        check_ports()
        # Now, while nothing runs, rather than in the process that needs them.
        page_settings(), operators(), approvers(), approval_settings()
        for service in SERVICES:
            migrate(service)
    except KeyboardInterrupt:
        return 0
    except (CannotRun, SettingError, SagasError) as error:
        print(error, file=sys.stderr)
        return 1
    processes = {name: [sys.executable, *command] for name, command in commands(HOST, ports).items()}
    return run(processes, f"The order platform runs: http://{HOST}:{ports[ORCHESTRATOR]}/   Ctrl-C stops it.")


# ---- processes ------------------------------------------------------------------------------------


@dataclass
class Child:
    """A process whose output is passed on line by line, each with its name in front.

    It leads a session of its own, so that Ctrl-C reaches it only through us, and once.
    """

    name: str
    process: subprocess.Popen[str]
    printer: threading.Thread

    @classmethod
    def start(cls, name: str, command: list[str]) -> Child:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        assert process.stdout is not None
        printer = threading.Thread(target=_pass_on, args=(name, process.stdout), daemon=True)
        printer.start()
        return cls(name, process, printer)

    def stop(self) -> None:
        """Wait for the end that `terminate` asked for, or force it."""
        try:
            self.process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            print(f"{self.name} did not stop within {STOP_WITHIN:g} s and is killed.", flush=True)
            os.killpg(self.process.pid, signal.SIGKILL)
        self.printer.join(timeout=1)


def run(what: Mapping[str, list[str]], message: str) -> int:
    """Run all of them until Ctrl-C or until one ends; 1 if one ended by itself."""
    children: list[Child] = []
    code = 0
    try:
        for name, command in what.items():
            children.append(Child.start(name, command))
        print(message, flush=True)
        ended = _first_to_end(children)
        print(f"{ended.name} ended with code {ended.process.returncode}; stopping the others.", flush=True)
        code = 1
    except KeyboardInterrupt:
        print("Stopping. Sagas that have not ended go on at the next start.", flush=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # it is happening already
    for child in children:
        child.process.terminate()
    for child in children:
        child.stop()
    return code


def _first_to_end(children: list[Child]) -> Child:
    pause = threading.Event()
    while True:
        for child in children:
            if child.process.poll() is not None:
                return child
        pause.wait(0.2)


def _pass_on(name: str, lines: IO[str]) -> None:
    for line in lines:
        if line.strip():
            print(f"{name:10} | {line.rstrip()}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
