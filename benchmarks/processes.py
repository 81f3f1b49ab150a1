"""What Linux tells of processes: CPU time, memory, and who listens on a port. Standard library alone.

Drivers of peers import this package in environments of their own, where nothing of ours is installed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_LISTEN: Final = "0A"  # the state of a listening socket in /proc/net/tcp


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one moment. `cpu`: seconds, user and system, of itself without its children."""

    pid: int
    parent: int
    name: str
    cpu: float


@dataclass(frozen=True, slots=True)
class Memory:
    """Megabytes. `rss` counts pages that processes share once for each of them, `pss` once in all."""

    rss: float
    pss: float


# ---- texts of /proc -------------------------------------------------------------------------------


def parse_stat(text: str, tick: int) -> Process:
    """A process from its ``stat``.

    Args:
        tick: clock ticks in a second.
    """
    pid, _, rest = text.partition(" (")
    name, _, fields = rest.rpartition(") ")  # a name may hold spaces and parentheses
    words = fields.split()
    return Process(int(pid), int(words[1]), name, (int(words[11]) + int(words[12])) / tick)


def parse_busy(text: str, tick: int) -> float:
    """Seconds that all cores together have worked since the machine began, from ``/proc/stat``."""
    words = [int(word) for word in text.splitlines()[0].split()[1:9]]
    idle, waiting = words[3], words[4]
    return (sum(words) - idle - waiting) / tick


def parse_memory(text: str) -> Memory:
    """What a process holds, from its ``smaps_rollup``."""
    kilobytes = {"Rss": 0, "Pss": 0}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name in kilobytes:
            kilobytes[name] = int(value.split()[0])
    return Memory(kilobytes["Rss"] / 1024, kilobytes["Pss"] / 1024)


def parse_listening(text: str, port: int) -> set[str]:
    """Inodes of the sockets that listen on the port, from ``/proc/net/tcp`` or ``tcp6``."""
    lines = [line.split() for line in text.splitlines()[1:]]
    return {
        words[9] for words in lines if words[3] == _LISTEN and int(words[1].rpartition(":")[2], 16) == port
    }


def family(processes: Mapping[int, Process], roots: Iterable[int]) -> set[int]:
    """The roots that live, with all that descend from them."""
    children: dict[int, list[int]] = {}
    for process in processes.values():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    todo = [pid for pid in roots if pid in processes]
    while todo:
        pid = todo.pop()
        if pid not in found:
            found.add(pid)
            todo.extend(children.get(pid, ()))
    return found


# ---- reading them ---------------------------------------------------------------------------------


def processes() -> dict[int, Process]:
    """All processes, by number. One that ends meanwhile is left out."""
    found = {}
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError, ValueError):
                process = parse_stat((folder / "stat").read_text(), _tick())
                found[process.pid] = process
    return found


def busy() -> float:
    """Seconds that all cores together have worked since the machine began."""
    return parse_busy((_PROC / "stat").read_text(), _tick())


def memory(pids: Iterable[int]) -> Memory:
    """What these processes hold together; those of other users only root can see."""
    rss = pss = 0.0
    for pid in pids:
        with suppress(OSError):
            one = parse_memory((_PROC / str(pid) / "smaps_rollup").read_text())
            rss, pss = rss + one.rss, pss + one.pss
    return Memory(rss, pss)


def held(pid: int) -> dict[str, int]:
    """Threads, sockets and other open files of a process; none if it has ended."""
    links, threads = [], 0
    with suppress(OSError):
        folder = _PROC / str(pid)
        threads = len(list((folder / "task").iterdir()))
        for entry in (folder / "fd").iterdir():
            with suppress(OSError):
                links.append(os.readlink(entry))
    sockets = sum(link.startswith("socket:") for link in links)
    return {"threads": threads, "sockets": sockets, "files": len(links) - sockets}


def title(pid: int) -> str:
    """The process's command line, which some programs rewrite to say what they do; "" if it has ended."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def listeners(port: int) -> set[int]:
    """Processes that listen on the port; of other users' processes only root is told."""
    inodes: set[str] = set()
    for table in ("tcp", "tcp6"):
        with suppress(OSError):
            inodes |= parse_listening((_PROC / "net" / table).read_text(), port)
    sockets = {f"socket:[{inode}]" for inode in inodes}
    found = set()
    for folder in _PROC.iterdir():
        if folder.name.isdigit():
            with suppress(OSError):
                if any(os.readlink(entry) in sockets for entry in (folder / "fd").iterdir()):
                    found.add(int(folder.name))
    return found


def _tick() -> int:
    return os.sysconf("SC_CLK_TCK")
