"""Installs the peers, each into an environment of its own, from versions that are locked beside this file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from hashlib import sha256
from pathlib import Path
from typing import Final

from benchmarks.peers.catalogue import RESTATE_PACKAGES, environment, python, restate_server

HERE: Final = Path(__file__).parent
PACKAGES: Final = HERE / "npm"


class CannotInstall(Exception):
    """A peer cannot be had here; the message says why."""


def install_python(name: str) -> None:
    """Make a peer's environment, unless it is as its lock says.

    Raises:
        CannotInstall: pip cannot.
    """
    lock = HERE / f"{name}.lock"
    stamp = environment(name) / ".installed"
    if _is(stamp, lock):
        return
    print(f"installing {name}, once", file=sys.stderr, flush=True)
    _run(sys.executable, "-m", "venv", "--clear", str(environment(name)))
    quiet = ("--quiet", "--disable-pip-version-check")
    _run(str(python(name)), "-m", "pip", "install", *quiet, "--require-hashes", "--requirement", str(lock))
    stamp.write_text(_digest(lock))


def install_restate_server() -> None:
    """Have npm bring Restate's server, unless it is as its lock says.

    Raises:
        CannotInstall: npm cannot, or has none for this machine.
    """
    lock = PACKAGES / "package-lock.json"
    stamp = RESTATE_PACKAGES / ".installed"
    if not _is(stamp, lock):
        print("installing Restate's server, once", file=sys.stderr, flush=True)
        RESTATE_PACKAGES.mkdir(parents=True, exist_ok=True)
        for file in (PACKAGES / "package.json", lock):
            shutil.copy(file, RESTATE_PACKAGES)
        # Scripts of packages do not run.
        options = ("--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
        _run("npm", "ci", "--prefix", str(RESTATE_PACKAGES), *options)
        stamp.write_text(_digest(lock))
    if restate_server() is None:
        raise CannotInstall("npm has no restate-server for this machine")


def _is(stamp: Path, lock: Path) -> bool:
    return stamp.exists() and stamp.read_text() == _digest(lock)


def _digest(lock: Path) -> str:
    return sha256(lock.read_bytes()).hexdigest()


def _run(*command: str) -> None:
    # npm is the one of node that the lock of our own environment brings, where that has been made.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    try:
        done = subprocess.run(command, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    except OSError as error:
        raise CannotInstall(f"{command[0]} cannot be run: {error.strerror}") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise CannotInstall(f"{' '.join(command[:4])} failed: {' '.join(said[-3:]) or 'it did not say why'}")
