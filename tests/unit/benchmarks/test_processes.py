"""What Linux's texts say of processes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.processes import (
    Memory,
    Process,
    family,
    listeners,
    memory,
    parse_busy,
    parse_listening,
    parse_memory,
    parse_stat,
    processes,
)

only_linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="Linux alone has /proc")

STAT = (
    "4242 (a name) with ) in it) S 77 4242 4242 0 -1 4194304 1050 33 0 0 "
    "150 50 900 800 20 0 4 0 12345 2243792 32110 18446744073709551615"
)
TCP = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
    "   0: 0100007F:1538 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 5150 1\n"
    "   1: 0100007F:1538 0100007F:B0D2 01 00000000:00000000 00:00000000 00000000   106        0 5151 1\n"
    "   2: 0100007F:1628 00000000:0000 0A 00000000:00000000 00:00000000 00000000   106        0 5152 1\n"
)


def test_a_processs_own_time_counts_and_not_that_of_its_children() -> None:
    assert parse_stat(STAT, tick=100) == Process(4242, 77, "a name) with ) in it", 2.0)


def test_waiting_for_the_disk_is_not_being_busy() -> None:
    text = "cpu  100 20 30 9000 500 6 4 10 7 7\ncpu0 1 1 1 1 1 1 1 1 0 0\n"

    assert parse_busy(text, tick=100) == pytest.approx(1.7)


def test_memory_is_in_megabytes() -> None:
    text = "00400000-7ffd rollup\nRss:   20480 kB\nPss:   10240 kB\nPss_Anon:   8000 kB\n"

    assert parse_memory(text) == Memory(rss=20, pss=10)


def test_only_sockets_that_listen_on_the_port_are_found() -> None:
    assert parse_listening(TCP, 0x1538) == {"5150"}
    assert parse_listening(TCP, 80) == set()


def test_a_family_is_all_that_descend_from_its_roots() -> None:
    known = {pid: Process(pid, parent, "", 0.0) for pid, parent in [(1, 0), (2, 1), (3, 2), (4, 1), (5, 0)]}

    assert family(known, [2, 5]) == {2, 3, 5}


def test_a_root_that_has_ended_has_no_family() -> None:
    assert family({1: Process(1, 0, "", 0.0)}, [9]) == set()


@only_linux
def test_this_process_is_seen_with_its_child() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = processes()

        assert child.pid in family(found, [os.getpid()])
        assert found[os.getpid()].cpu > 0
        assert 1 < memory([os.getpid()]).pss <= memory([os.getpid()]).rss
        child.communicate(b"\n")


@only_linux
def test_who_listens_on_a_port_is_found() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()

        assert listeners(listening.getsockname()[1]) == {os.getpid()}
