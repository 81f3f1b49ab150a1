"""Drives the saga on saga-framework 0.1; see `benchmarks.driving`."""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import argparse
import os
import time

os.environ["BENCHMARK_ORCHESTRATES"] = "yes"  # before the app is imported

import psycopg2

from benchmarks.driving import UNCOUNTED, serve, until
from benchmarks.peers import saga_framework_app as app
from benchmarks.peers.celery_workers import wait_for_workers

ENDED = f"SELECT {UNCOUNTED} count(*) FROM saga_state WHERE id > %s AND status IN ('succeeded', 'failed')"
AS_WANTED = f"SELECT {UNCOUNTED} count(*) FROM saga_state WHERE id > %s AND status = %s"
LAST = f"SELECT {UNCOUNTED} coalesce(max(id), 0) FROM saga_state"


class SagaFramework:
    def __init__(self):
        connection = psycopg2.connect(os.environ["BENCHMARK_DATABASE"])
        connection.autocommit = True
        self._cursor = connection.cursor()

    def batch(self, count, *, declined):
        before = self._value(LAST)
        begun = time.perf_counter()
        for _ in range(count):
            app.start(declined)
        self._wait(before, count, every=0.05)
        seconds = time.perf_counter() - begun
        right = self._value(AS_WANTED, before, "failed" if declined else "succeeded")
        if right != count:
            raise RuntimeError(f"{count - right} of {count} sagas did not end as they should")
        return seconds

    def one(self, *, declined):
        before = self._value(LAST)
        begun = time.perf_counter()
        app.start(declined)
        self._wait(before, 1, every=0.001)
        return time.perf_counter() - begun

    def _wait(self, before, count, *, every):
        until(
            lambda: self._value(ENDED, before) >= count,
            every=every,
            within=240,
            what=lambda: f"{self._value(ENDED, before)} of {count} sagas have ended",
        )

    def _value(self, statement, *values):
        self._cursor.execute(statement, values)
        return self._cursor.fetchone()[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--orchestrators", type=int, required=True)
    given = parser.parse_args()
    app.Base.metadata.create_all(app.engine)
    queues = ("consumer.commands", "restaurant.commands", "accounting.commands")
    wait_for_workers(app.starter, {app.RESPONSES: given.orchestrators, **dict.fromkeys(queues, 1)})
    serve(SagaFramework())
