"""An orchestrator in the test's own thread, for participants that run elsewhere; and such a worker."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import Act, Queue, Saga, SagaInstance, Sagas
from sagas_framework.clock import utc_now
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.sql import SqlStore
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.generic import make_publisher
from sagas_framework.worker.batches import check_queue
from sagas_framework.worker.replies import ReplyConsumer

_WITHIN: Final = 30.0  # seconds; a worker on a busy machine takes its time


class Desk:
    """Takes replies and looks at the clock when the test says so. Time can be moved on by hand."""

    def __init__(self, database: str, broker: str, sagas: list[type[Saga[Any]]], replies: Queue) -> None:
        self.moved = timedelta(0)
        self.sagas = Sagas("desk", database, sagas=sagas, reply_queue=replies, clock=self.now)
        self.sagas.upgrade()
        check_queue(broker, replies)  # as every worker does first: what has no queue is lost
        self.publisher = make_publisher(broker, [*self.sagas.definitions.queues, replies])
        self.orchestrator = Orchestrator(
            SqlStore(self.sagas.engine),
            self.sagas.definitions,
            self.publisher,
            reply_to=replies.name,
            clock=self.now,
        )
        self.timekeeper = Timekeeper(self.orchestrator, [])
        self.consumer = ReplyConsumer(broker, replies, self.orchestrator)

    def now(self) -> datetime:
        return utc_now() + self.moved

    def close(self) -> None:
        self.consumer.close()
        self.publisher.close()
        self.sagas.engine.dispose()

    def start(self, saga: type[Saga[Any]], state: BaseModel) -> str:
        with Session(self.sagas.engine) as session, session.begin():
            saga_id = self.sagas.start(saga, state, session=session).id
        self.timekeeper.turn()
        return saga_id

    def until(self, saga_id: str, there: Callable[[SagaInstance], bool]) -> SagaInstance:
        """Turn until the saga stands there."""
        until = time.monotonic() + _WITHIN
        while not there(instance := self.sagas.get(saga_id)):
            if time.monotonic() > until:
                raise AssertionError(f"not within {_WITHIN:g} s: {self.sagas.view(saga_id).why}")
            self.consumer.turn()
            self.timekeeper.turn()
        return instance

    def ended(self, saga_id: str) -> SagaInstance:
        return self.until(saga_id, lambda instance: instance.status.ended)

    def later(self, by: timedelta) -> None:
        """Time passes at once, and the timekeeper looks."""
        self.moved += by
        self.timekeeper.turn()

    def act(self, saga_id: str, act: Act, reply: Any = None) -> str:
        """An operator's act, carried out; its answer."""
        number = self.sagas.act(saga_id, act, by="ann", reason="I have looked", reply=reply)
        self.timekeeper.turn()
        answer = self.sagas.act_answer(number)
        assert answer.answer is not None
        return ("refused: " if answer.refused else "") + answer.answer

    def can_do(self, saga_id: str) -> list[str]:
        return [option.act.value for option in self.sagas.view(saga_id).options]

    def words(self, saga_id: str) -> list[str]:
        """The entries of its history, oldest first."""
        return [line.recorded.entry for line in self.sagas.history(saga_id)]

    def told(self, saga_id: str, entry: str) -> Mapping[str, Any]:
        """What the history says with this entry."""
        lines = [line.recorded for line in self.sagas.history(saga_id)]
        return next(line.detail for line in lines if line.entry == entry)


@contextlib.contextmanager
def celery_worker(
    program: Path, app: str, log: Path, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker of somebody else's app in a process of its own, until the block is left."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            [program, "-A", app, "worker", "--pool", "solo", "--without-gossip", "--without-mingle"],
            env=os.environ | environment | {"C_FORCE_ROOT": "1", "PYTHONWARNINGS": "ignore"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
