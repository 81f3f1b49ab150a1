"""The same saga in bare loops: what is left when there is no library. ``python -m benchmarks.bare ROLE``.

Four processes exchange the same eight messages through the same kind of queues, and each message leads to one
commit: of the saga with a line of history, of the operation with its effect. Every transaction is a single
statement. Published is with confirmation, acknowledged after that. There is no retry, no deadline, no
compensation but that of a refused card, no validation; whatever comes twice would be done twice.

So this is no system, but the limit for any that has these messages and commits, on this machine.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any, Final
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import psycopg
from amqp import Connection, Message

from benchmarks.driving import UNCOUNTED, serve, until
from sagas_framework.transport.generic import make_publisher

_STEPS: Final = ("consumer", "restaurant", "accounting", "restaurant")
"""Who does them."""
_CARD: Final = 2
_REJECTING: Final = 9
_REPLIES: Final = "replies"
_BALLAST: Final = "x" * 400
"""A message is about as long as one of ours."""

_SCHEMA: Final = (
    "CREATE TABLE saga (id text PRIMARY KEY, step int, status text, declined boolean, state json);"
    "CREATE TABLE history (id text, step int, at timestamptz DEFAULT now(), detail json);"
    "CREATE TABLE inbox (key text PRIMARY KEY, reply json); CREATE TABLE work (key text, note text)"
)
_START: Final = (
    "WITH made AS "
    "(INSERT INTO saga SELECT * FROM json_populate_recordset(CAST(NULL AS saga), %s) RETURNING id) "
    "SELECT pg_notify('bare', id) FROM made"
)
_MOVE: Final = (
    "WITH moved AS (UPDATE saga SET step = %(step)s, status = %(status)s, state = %(state)s "
    "WHERE id = %(id)s RETURNING declined), "
    "told AS (INSERT INTO history (id, step, detail) VALUES (%(id)s, %(step)s, %(state)s)) "
    "SELECT declined FROM moved"
)
_HANDLE: Final = (
    "WITH said AS (INSERT INTO inbox VALUES (%(key)s, %(reply)s)) INSERT INTO work VALUES (%(key)s, 'done')"
)
_OPEN: Final = f"SELECT {UNCOUNTED} count(*) FROM saga WHERE status = 'running'"
_STATUS: Final = f"SELECT {UNCOUNTED} status FROM saga WHERE id = %s"
_ENDED_WITHIN: Final = 240.0  # seconds


def _queue(name: str) -> str:
    return f"bare_{name}"


def _broker() -> Any:
    url = urlsplit(os.environ["BENCHMARK_BROKER"])
    connection = Connection(
        f"{url.hostname}:{url.port or 5672}",
        userid=unquote(url.username or "guest"),
        password=unquote(url.password or "guest"),
        virtual_host=unquote(url.path[1:]) or "/",
    )
    connection.connect()
    return connection


class _Publisher:
    """Publishes one message at a time, and waits for the confirmation."""

    def __init__(self) -> None:
        self._channel: Any = _broker().channel()
        self._channel.confirm_select()

    def send(self, queue: str, **content: Any) -> None:
        body = json.dumps(content | {"ballast": _BALLAST})
        self._channel.basic_publish_confirm(
            Message(body, delivery_mode=2), exchange="", routing_key=_queue(queue)
        )


def _database() -> psycopg.Connection[Any]:
    connection = psycopg.connect(os.environ["BENCHMARK_DATABASE"], autocommit=True)
    connection.prepare_threshold = 1
    return connection


def _consume(queue: str, take: Callable[[dict[str, Any]], None]) -> Any:
    """Take from the queue from now on, whenever the connection that is given back is drained."""
    connection = _broker()
    channel: Any = connection.channel()
    channel.queue_declare(
        _queue(queue), durable=True, auto_delete=False, arguments={"x-queue-type": "quorum"}
    )
    channel.basic_qos(0, 400, False)

    def taken(message: Any) -> None:
        take(json.loads(message.body))
        channel.basic_ack(message.delivery_tag)

    channel.basic_consume(_queue(queue), callback=taken)
    return connection


def participate(name: str) -> None:
    """Handle commands until the process is ended."""
    database, publisher = _database(), _Publisher()

    def take(command: dict[str, Any]) -> None:
        saga, step, declined = command["saga"], command["step"], command["declined"]
        refused = declined and step == _CARD
        database.execute(_HANDLE, {"key": f"{saga}:{step}", "reply": json.dumps({"refused": refused})})
        publisher.send(_REPLIES, saga=saga, step=step, refused=refused)

    connection = _consume(name, take)
    while True:
        connection.drain_events()


def orchestrate() -> None:
    """Begin sagas and take replies until the process is ended."""
    database, publisher = _database(), _Publisher()
    listening = psycopg.connect(os.environ["BENCHMARK_DATABASE"], autocommit=True)
    listening.execute("LISTEN bare")

    def move(saga: str, step: int, status: str = "running") -> None:
        state = json.dumps({"step": step, "ballast": _BALLAST})
        moved = database.execute(
            _MOVE, {"id": saga, "step": step, "status": status, "state": state}
        ).fetchone()
        if status == "running":
            assert moved is not None
            to = "restaurant" if step == _REJECTING else _STEPS[step]
            publisher.send(to, saga=saga, step=step, declined=moved[0])

    def take(reply: dict[str, Any]) -> None:
        saga, step = reply["saga"], reply["step"]
        if reply["refused"]:
            move(saga, _REJECTING)
        elif step == _REJECTING:
            move(saga, step, "rejected")
        elif step + 1 == len(_STEPS):
            move(saga, step, "approved")
        else:
            move(saga, step + 1)

    connection: Any = _consume(_REPLIES, take)
    while True:
        ready, _, _ = select.select([connection.sock, listening.fileno()], [], [])
        if connection.sock in ready:
            connection.drain_events()
        if listening.fileno() in ready:
            for note in listening.notifies(timeout=0):
                move(note.payload, 0)


class Driving:
    """See `benchmarks.driving.Driven`."""

    def __init__(self) -> None:
        self._database = _database()

    def batch(self, count: int, *, declined: bool) -> float:
        """Start so many and wait until all have ended; seconds."""
        begun = time.perf_counter()
        for first in range(0, count, 100):
            self._start(min(100, count - first), declined)
        until(lambda: self._one(_OPEN) == 0, every=0.05, within=_ENDED_WITHIN, what=lambda: "sagas are open")
        return time.perf_counter() - begun

    def one(self, *, declined: bool) -> float:
        """Start one and wait for its end; seconds."""
        begun = time.perf_counter()
        [saga] = self._start(1, declined)
        until(
            lambda: self._one(_STATUS, saga) == ("rejected" if declined else "approved"),
            every=0.001,
            within=_ENDED_WITHIN,
            what=lambda: f"{saga} is open",
        )
        return time.perf_counter() - begun

    def _start(self, count: int, declined: bool) -> list[str]:
        ids = [str(uuid4()) for _ in range(count)]
        rows = [{"id": one, "step": -1, "status": "running", "declined": declined} for one in ids]
        self._database.execute(_START, [json.dumps(rows)])
        return ids

    def _one(self, query: str, *values: object) -> object:
        row = self._database.execute(query, values).fetchone()
        return None if row is None else row[0]


def _wait_for_the_others() -> None:
    with closing(make_publisher(os.environ["BENCHMARK_BROKER"], [])) as broker:

        def taken_from(name: str) -> bool:
            load = broker.load(_queue(name))
            return load is not None and load.consumers == 1

        until(
            lambda: all(taken_from(name) for name in (_REPLIES, *_STEPS)),
            every=0.1,
            within=60.0,
            what=lambda: "a process does not take from its queue",
        )


def main() -> None:
    """Be one of the processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bare", description=__doc__)
    parser.add_argument("role", choices=["schema", "driver", "orchestrator", *sorted(set(_STEPS))])
    match parser.parse_args().role:
        case "schema":
            _database().execute(_SCHEMA)
        case "driver":
            _wait_for_the_others()
            serve(Driving())
        case "orchestrator":
            orchestrate()
        case participant:
            participate(participant)


if __name__ == "__main__":
    main()
