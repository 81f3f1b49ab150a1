"""Workers as threads of one process: the embedded default, on ``memory://`` and SQLite."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from celery import Celery
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.worker import WorkController

from sagas_framework.errors import SagasError
from sagas_framework.worker.batches import check_queue


class EmbeddedWorkers:
    """One worker for each app, each in a thread, without signal handlers.

    Use as a context manager, or call `start` and `stop`.
    """

    def __init__(self, apps: Iterable[Celery]) -> None:
        self._workers = [_EmbeddedWorker(app) for app in apps]

    def start(self, timeout: timedelta = timedelta(seconds=30)) -> None:
        """Return once every worker takes messages.

        Raises:
            SagasError: one of them did not come up; the others are stopped.
        """
        for worker in self._workers:
            _bind_events(worker.app)
        for worker in self._workers:
            worker.thread.start()
        for worker in self._workers:
            if not worker.ready.wait(timeout.total_seconds()) or worker.error is not None:
                self.stop()
                why = worker.error or f"it waits; its log says for what, after {timeout.total_seconds():g} s"
                raise SagasError(f"The worker of {worker.app.main} did not start: {why}") from worker.error

    def stop(self) -> None:
        """Stop all; what they were doing is found in the rows at the next start."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.thread.join(timeout=20)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _bind_events(app: Celery) -> None:
    """Bind what it subscribes to before another worker publishes: this broker is empty at each start."""
    subscriber = getattr(app, "subscriber", None)
    if subscriber is not None and str(app.conf.broker_url).startswith("memory:"):
        check_queue(app.conf.broker_url, subscriber.queue)


class _EmbeddedWorker:
    def __init__(self, app: Celery) -> None:
        self.app = app
        self.ready = threading.Event()
        self.error: BaseException | None = None
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"{app.main} worker", daemon=True)
        self._controller: Any = None

    def _run(self) -> None:
        ready = self.ready

        class Controller(WorkController):
            def on_consumer_ready(self, consumer: Any) -> None:
                ready.set()

        try:
            # `wait_for` looks at it: a start that was given up must not happen later.
            self.app.saga_stopping = self.stopping  # type: ignore[attr-defined]
            self.app.set_current()  # of this thread: Celery looks its tasks up there
            # use_eventloop=False: kombu's event loop is one for the whole process; workers would share it.
            self._controller = Controller(
                app=self.app,
                hostname=f"{self.app.main}@embedded",
                pool_cls="solo",
                concurrency=1,
                use_eventloop=False,
                without_heartbeat=True,
                without_mingle=True,
                without_gossip=True,
                loglevel="WARNING",
            )
            self._controller.start()
            if self._controller.exitcode == os.EX_CONFIG:  # Celery keeps the SystemExit to itself
                self.error = SagasError("something in its settings is refused; its log says what")
        except (WorkerShutdown, WorkerTerminate, SystemExit):
            pass
        except BaseException as error:
            self.error = error
        finally:
            ready.set()

    def stop(self) -> None:
        """Have the worker's own thread stop it: two threads must not read from one connection."""
        self.stopping.set()
        if self._controller is None:
            return
        consumer = getattr(self._controller, "consumer", None)
        if consumer is not None and self.ready.is_set() and self.error is None:
            consumer.call_soon(_shut_down)
        else:
            with contextlib.suppress(Exception):
                self._controller.stop()


def _shut_down() -> None:
    raise WorkerShutdown(0)
