"""How many orders a second the web application accepts on one core: ``python -m benchmarks.web``.

gunicorn serves the order platform on one core of the machine; the client, and with ``--own-servers``
PostgreSQL as well, have the others. Only a 202 is counted, and afterwards each must have its rows.
No worker runs: what is measured is how orders come in.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg

from benchmarks import processes
from benchmarks.driving import until
from benchmarks.metering import Meter
from benchmarks.results import percentile
from benchmarks.running import CannotMeasure, Servers, servers
from benchmarks.systems import ROOT, Needs
from tests.servers import Missing

HOST: Final = "127.0.0.1"
WARM_UP: Final = 2.0  # seconds
READY_WITHIN: Final = 60.0  # seconds
ORDER: Final = {
    "consumer_id": 70,
    "card_id": 3,
    "price": "20.00",
    "items": [{"name": "Rice", "quantity": 2}],
}


def main() -> int:
    """Measure; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.web", description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="how long is measured")
    parser.add_argument("--connections", type=int, default=16, help="of the client, kept open")
    parser.add_argument("--workers", type=int, default=2, help="gunicorn's processes")
    parser.add_argument("--threads", type=int, default=2, help="of each")
    parser.add_argument("--core", type=int, default=0, help="the one that gunicorn has")
    parser.add_argument("--own-servers", action="store_true", help="start a PostgreSQL for this alone")
    given = parser.parse_args()
    try:
        with servers(own=given.own_servers) as found:
            measured = measure(found, given)
    except (Missing, CannotMeasure, TimeoutError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(measured, indent=2))
    return 0


def measure(found: Servers, given: argparse.Namespace) -> dict[str, Any]:
    """Take orders for some seconds; what came of it, as JSON.

    Raises:
        CannotMeasure: an order was not accepted, or one that was has no row.
        TimeoutError: the application does not come up.
    """
    others = os.sched_getaffinity(0) - {given.core}
    with ExitStack() as stack:
        place = stack.enter_context(found.place(frozenset({Needs.POSTGRES})))
        assert place.database is not None
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **place.environment()}
        if given.own_servers:
            for pid in processes.family(processes.processes(), _servers_of(place.database)):
                os.sched_setaffinity(pid, others)
        subprocess.run([sys.executable, "-m", "app_common.migrate"], env=environment, cwd=ROOT, check=True)
        port, web = stack.enter_context(_web(given, environment))
        if others:
            os.sched_setaffinity(0, others)
        _load(port, given.connections, WARM_UP)
        before = _rows(f"{place.database}_order_service")
        own = time.process_time()
        with Meter({"web": [web.pid]}, place.database) as meter:
            taken = _load(port, given.connections, given.seconds)
        own = time.process_time() - own
        if (rows := _rows(f"{place.database}_order_service") - before) != len(taken):
            raise CannotMeasure(f"{len(taken)} orders were accepted, and {rows} are there with their sagas")
        return {
            "orders": len(taken),
            "per_second": round(len(taken) / given.seconds, 1),
            "p50_ms": round(1000 * percentile(taken, 50), 2),
            "p99_ms": round(1000 * percentile(taken, 99), 2),
            "client_cpu_ms": round(1000 * own / len(taken), 3),
            **{name: value for name, value in meter.usage.each(len(taken)).items() if "top" not in name},
        }


@contextmanager
def _web(
    given: argparse.Namespace, environment: dict[str, str]
) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The application under gunicorn, on its core; port and master process."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "gunicorn", "--bind", f"{HOST}:{port}", "--log-level", "warning"),
        *("--workers", str(given.workers), "--threads", str(given.threads), "--keep-alive", "60"),
        "order_service.web:create_app()",
    ]
    process = subprocess.Popen(
        command, env=environment, cwd=ROOT, preexec_fn=lambda: os.sched_setaffinity(0, {given.core})
    )
    try:
        until(lambda: _answers(port), every=0.1, within=READY_WITHIN, what=lambda: "gunicorn does not answer")
        yield port, process
    finally:
        process.terminate()
        process.wait()


def _answers(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True


def _servers_of(database: str) -> set[int]:
    return processes.listeners(urlsplit(database).port or 5432)


def _rows(database: str) -> int:
    """Orders that have a saga."""
    query = "SELECT count(*) FROM orders JOIN saga_instance ON key = 'order-' || orders.id"
    with psycopg.connect(database) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


# ---- the client -----------------------------------------------------------------------------------


def _load(port: int, connections: int, seconds: float) -> Sequence[float]:
    """Post orders on so many connections, one after the other on each; how long each took (seconds).

    Raises:
        CannotMeasure: an answer is no 202.
    """
    body = json.dumps(ORDER).encode()
    head = (
        f"POST /orders HTTP/1.1\r\nHost: {HOST}:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    end = time.perf_counter() + seconds
    with closing(_Client(port, connections, head.encode() + body)) as client:
        while time.perf_counter() < end:
            client.turn(again=True)
        while client.waiting:
            client.turn(again=False)
        return client.took


class _Client:
    """Cheap: it knows as much of HTTP as gunicorn's answers need."""

    def __init__(self, port: int, connections: int, request: bytes) -> None:
        self.took: list[float] = []
        self.waiting = 0
        self._request = request
        self._selector = selectors.EpollSelector()
        self._begun: dict[socket.socket, float] = {}
        for _ in range(connections):
            link = socket.create_connection((HOST, port), timeout=READY_WITHIN)
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(link, selectors.EVENT_READ)
            self._send(link)

    def turn(self, *, again: bool) -> None:
        """Read the answers that are there; whether the connections are asked again."""
        for key, _ in self._selector.select(timeout=READY_WITHIN):
            link: Any = key.fileobj
            self._answer(link)
            self.took.append(time.perf_counter() - self._begun[link])
            self.waiting -= 1
            if again:
                self._send(link)
            else:
                self._selector.unregister(link)  # what comes now is the other side hanging up

    def close(self) -> None:
        for link in self._begun:
            link.close()
        self._selector.close()

    def _send(self, link: socket.socket) -> None:
        self._begun[link] = time.perf_counter()
        self.waiting += 1
        link.sendall(self._request)

    @staticmethod
    def _answer(link: socket.socket) -> None:
        """Read one answer, which the server sends as a whole."""
        read = link.recv(65536)
        while b"\r\n\r\n" not in read:
            read += _more(link, read)
        head, _, body = read.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += _more(link, read)
        if not head.startswith(b"HTTP/1.1 202 "):
            raise CannotMeasure(f"an order was answered with {(head + body).decode(errors='replace')}")


def _more(link: socket.socket, read: bytes) -> bytes:
    more = link.recv(65536)
    if not more:
        raise CannotMeasure(f"the application hung up after {read!r}")
    return more


if __name__ == "__main__":
    sys.exit(main())
