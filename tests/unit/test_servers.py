"""What two runs of the tests side by side must not share."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests import servers
from tests.servers import Ahead, free_ports

ROOT = Path(__file__).parents[2]

ANOTHER_RUN = """
import sys
from tests import servers

servers._PORTS = range(int(sys.argv[1]), int(sys.argv[2]))
print(*servers.free_ports(int(sys.argv[3])))
"""


def another_run(ports: range, count: int) -> subprocess.CompletedProcess[str]:
    """What another process is given of the ports."""
    command = [sys.executable, "-c", ANOTHER_RUN, str(ports.start), str(ports.stop), str(count)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def test_a_port_that_one_run_was_given_is_given_to_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    (begin,) = free_ports(1)
    few = range(begin, begin + 60)  # others may have some of them
    monkeypatch.setattr(servers, "_PORTS", few)
    ours = {begin, *free_ports(5), *free_ports(5)}

    theirs = {int(port) for port in another_run(few, 10).stdout.split()}
    too_many = another_run(few, 50)

    assert len(ours) == 11
    assert len(theirs) == 10
    assert not ours & theirs
    assert "RuntimeError: no 50 free ports" in too_many.stderr


def test_one_is_made_before_it_is_asked_for_and_all_are_dropped_in_the_end() -> None:
    made: list[str] = []
    dropped: list[str] = []
    second = threading.Event()

    def make() -> str:
        made.append(f"number {len(made) + 1}")
        if len(made) == 2:
            second.set()
        return made[-1]

    ahead = Ahead(make, dropped.append)
    first = ahead.take()

    assert first == "number 1"
    assert second.wait(20)
    ahead.give_back(first)
    ahead.close()
    assert sorted(dropped) == made == ["number 1", "number 2"]


def test_what_could_not_be_made_or_dropped_is_told_to_whoever_asked() -> None:
    def make() -> str:
        raise OSError("no room")

    def drop(address: str) -> None:
        raise OSError(f"{address} is in use")

    nothing = Ahead(make, drop)
    with pytest.raises(OSError, match="no room"):
        nothing.take()
    nothing.close()

    kept = Ahead(lambda: "it", drop)
    kept.give_back(kept.take())
    with pytest.raises(OSError, match="it is in use"):
        kept.close()
