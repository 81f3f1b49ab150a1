"""A saga is one trace also when the processes that make its spans are killed with -9 and others go on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from sagas_framework import Status
from sagas_framework.worker.batches import check_queue
from tests.integration.traced_shop import Approval, Shop, stock
from tests.integration.tracing import Seen, ToFile, from_file, traced
from tests.servers import wait_until

WITHIN: Final = 60.0  # seconds, for processes to come up


class Processes:
    """The shop's workers, each a process that writes its spans to a file of its own."""

    def __init__(self, folder: Path, broker: str, orders: str, stock_: str) -> None:
        urls = iter((orders, stock_))
        self.shop = Shop(broker, lambda: next(urls))
        self.folder = folder
        self._environment = {"BROKER": broker, "ORDERS": orders, "STOCK": stock_, "SPANS": str(folder)}
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder.with_suffix(".log")).open("ab") as log:
                self._running.append(
                    subprocess.Popen(
                        [
                            *(sys.executable, "-m", "celery", "-A", f"tests.integration.traced_shop:{name}"),
                            *("worker", "--pool", "solo", "--without-gossip", "--without-mingle"),
                            *("-n", f"{name}@%h", "-l", "WARNING"),
                        ],
                        env={**os.environ, **self._environment},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                    )
                )

    def kill(self) -> None:
        """All of them, with -9."""
        for process in self._running:
            process.kill()
        for process in self._running:
            process.wait(10)
        self._running = []

    def made(self) -> dict[str, list[Seen]]:
        """The spans, by the process that made them."""
        return {path.name: from_file(path) for path in sorted(self.folder.iterdir())}

    def told(self, name: str) -> bool:
        """Whether somebody has made a span of this name."""
        return any(span.name == name for spans in self.made().values() for span in spans)

    def close(self) -> None:
        self.kill()
        self.shop.close()


@pytest.fixture
def processes(tmp_path: Path, rabbitmq_url: str, postgres_urls: Callable[[], str]) -> Iterator[Processes]:
    folder = tmp_path / "spans"
    folder.mkdir()
    processes = Processes(folder, rabbitmq_url, postgres_urls(), postgres_urls())
    yield processes
    processes.close()


def test_orchestrators_and_participants_that_are_killed_leave_one_trace(processes: Processes) -> None:
    shop = processes.shop
    check_queue(shop.broker, stock.queue)
    with traced(ToFile(processes.folder / "web")):
        processes.start("orders")
        run = shop.start()
        wait_until(lambda: shop.queued() == 1, "the command is in its queue", WITHIN)
        wait_until(lambda: processes.told("send stock.reserve"), "its sending is told", WITHIN)
        processes.kill()

        processes.start("orders", "stockroom")
        wait_until(lambda: shop.waits(run), "the saga waits", WITHIN)
        wait_until(lambda: processes.told("step reserve"), "what was before is told", WITHIN)
        processes.kill()

        shop.sagas.signal(run, Approval(approver="ann"))
        processes.start("orders", "stockroom")
        wait_until(lambda: shop.sagas.get(run.id).status is Status.COMPENSATED, "it is undone", WITHIN)
        wait_until(lambda: processes.told("saga ordering"), "the end is told", WITHIN)

    made = processes.made()
    by: dict[str, str] = {}
    spans: dict[str, Seen] = {}
    told = [(span.begun, process, span) for process, its in made.items() for span in its]
    for _, process, span in sorted(told, key=lambda one: one[0]):  # what was handled twice: the first time
        by.setdefault(span.name, process)
        spans.setdefault(span.name, span)
    signal = spans.pop("signal ordering")
    assert {span.trace for span in spans.values()} == {spans["start ordering"].trace}
    assert signal.trace != spans["start ordering"].trace
    # Each part was told by another process: the web, three orchestrators, two participants.
    sent, reserved, ended = by["send stock.reserve"], by["step reserve"], by["saga ordering"]
    assert len({"web", sent, reserved, ended}) == 4
    assert by["process stock.reserve"] != by["process stock.charge"]
    assert len(made) == 6
    # What one process began and another ended is one span, as long as it was.
    step = spans["step reserve"]
    assert step.begun <= spans["send stock.reserve"].begun
    assert step.links == [(step.trace, spans["process stock.reserve"].id)]
    waited = spans["wait approve"]
    assert by["wait approve"] == ended
    assert waited.begun < signal.begun < waited.ended
    assert waited.links == [(signal.trace, signal.id)]
    # Every parent is there: none was lost with a process.
    known = {span.id for span in spans.values()}
    assert {span.parent for span in spans.values()} - {None} <= known
