"""Drives the saga on DBOS; see `benchmarks.driving`."""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import argparse
import os
import time

import psycopg
from dbos import DBOS

from benchmarks.driving import UNCOUNTED, serve, until
from benchmarks.peers import dbos_app as app

ENDED = (
    f"SELECT {UNCOUNTED} count(*) FROM dbos.workflow_status "
    "WHERE name = %s AND status = 'SUCCESS' AND created_at >= %s"
)


class Dbos:
    def __init__(self, *, local):
        self._local = local
        self._saga = app.local_saga if local else app.services_saga
        self._connection = psycopg.connect(os.environ["BENCHMARK_DATABASE"], autocommit=True)

    def batch(self, count, *, declined):
        since = int(time.time() * 1000)
        time.sleep(0.005)  # a batch begins in a millisecond of its own
        begun = time.perf_counter()
        handles = [self._start(declined) for _ in range(count)]
        until(
            lambda: self._ended(since) >= count,
            every=0.05,
            within=240,
            what=lambda: f"{self._ended(since)} of {count} workflows have ended",
        )
        seconds = time.perf_counter() - begun
        wanted = "rejected" if declined else "approved"
        if (said := handles[-1].get_result()) != wanted:
            raise RuntimeError(f"a saga ended as {said!r}, not as {wanted!r}")
        return seconds

    def one(self, *, declined):
        begun = time.perf_counter()
        if self._local:
            self._saga(self._order(declined))
        else:
            self._start(declined).get_result(polling_interval_sec=0.002)
        return time.perf_counter() - begun

    def _start(self, declined):
        if self._local:
            return DBOS.start_workflow(self._saga, self._order(declined))
        return DBOS.enqueue_workflow("orders", self._saga, self._order(declined))

    @staticmethod
    def _order(declined):
        return {"id": 1, "consumer_id": 70, "amount": 80 if declined else 20}

    def _ended(self, since):
        return self._connection.execute(ENDED, (self._saga.__qualname__, since)).fetchone()[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--local", action="store_true")
    parser.add_argument("--prepare", action="store_true", help="make its tables and queues, and end")
    given = parser.parse_args()
    DBOS.listen_queues([])
    DBOS.launch()
    if given.prepare:
        app.register_queues()
        DBOS.destroy(workflow_completion_timeout_sec=0)
    else:
        serve(Dbos(local=given.local))
    os._exit(0)  # its threads would go on
