"""Drives the saga on bare Celery; see `benchmarks.driving`."""

# mypy: ignore-errors
# What it needs is in an environment of its own, of other versions than ours.

from __future__ import annotations

import json
import time

from benchmarks.driving import serve
from benchmarks.peers import celery_app as app
from benchmarks.peers.celery_workers import wait_for_workers


class PingPong:
    def __init__(self, connection):
        self._connection = connection
        self._ended = {"approved": 0, "rejected": 0}
        channel = connection.channel()
        channel.queue_declare(app.DONE, durable=True, auto_delete=False)
        channel.basic_qos(0, 500, False)
        channel.basic_consume(app.DONE, callback=self._note, no_ack=True)

    def batch(self, count, *, declined):
        before = dict(self._ended)
        begun = time.perf_counter()
        for number in range(count):
            self._start(number, declined)
        self._wait(before, count, declined)
        return time.perf_counter() - begun

    def one(self, *, declined):
        return self.batch(1, declined=declined)

    @staticmethod
    def _start(number, declined):
        name, queue = app.STEPS[0]
        saga = {"id": number, "consumer_id": 70, "amount": 80 if declined else 20}
        app.starter.send_task(name, args=[0, saga], queue=queue)

    def _wait(self, before, count, declined):
        ended = "rejected" if declined else "approved"
        while self._ended != before | {ended: before[ended] + count}:
            self._connection.drain_events(timeout=120)

    def _note(self, message):
        (saga,), _, _ = json.loads(message.body)
        self._ended[saga["status"]] += 1


if __name__ == "__main__":
    queues = [app.REPLIES, "consumer", "restaurant", "accounting"]
    wait_for_workers(app.starter, dict.fromkeys(queues, 1))
    with app.starter.connection() as connection:
        serve(PingPong(connection))
