"""Before anything is taken from a queue: database, schema and broker must be there."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from amqp.exceptions import AMQPError
from celery.exceptions import WorkerShutdown
from celery.worker import state
from kombu.exceptions import OperationalError
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from sagas_framework.doctor.installation import Installation, Started
from sagas_framework.doctor.settings import pool_trouble
from sagas_framework.errors import ConfigurationError, DefinitionError
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import is_refused, is_unavailable, reading
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.transport.connecting import masked_broker, try_broker

logger = logging.getLogger(__name__)

TELL_EVERY: Final = timedelta(seconds=30)
LOOK_EVERY: Final = timedelta(seconds=1)


@dataclass(frozen=True)
class Need:
    """Something that must be there.

    `attempt` raises `Away` while it is not, and ConfigurationError if it never will be.
    """

    name: str
    attempt: Callable[[], None]


class Away(Exception):
    """Nobody answers; waiting may help."""


def database_need(database: Database) -> Need:
    """The service's database, at this release's schema."""
    # A pool that is forked next must not inherit a connection. And the service's engine may be in use: what
    # the same worker began before, such as its subscriber, would have its connections taken from the pool.
    apart = database.apart

    def attempt() -> None:
        try:
            with reading(apart.engine) as connection:
                connection.execute(text("SELECT 1"))
            apart.check()
        except DBAPIError as error:
            if is_refused(error):
                raise ConfigurationError(
                    f"The database {database} refuses us: {_first_line(error.orig)}. "
                    "Check user, password and database name."
                ) from None
            if is_unavailable(error):
                raise Away(_first_line(error.orig)) from None
            raise
        except StoreUnavailable as error:
            raise Away(str(error)) from None

    return Need(f"the database {database}", attempt)


def broker_need(url: str) -> Need:
    """The broker."""

    def attempt() -> None:
        try:
            try_broker(url)
        except (OSError, OperationalError, AMQPError) as error:
            raise Away(_first_line(error)) from None

    return Need(f"the broker {masked_broker(url)}", attempt)


@contextmanager
def or_exit() -> Iterator[None]:
    """End the worker with one line in the log, not a traceback, when its configuration is wrong."""
    try:
        yield
    except (ConfigurationError, DefinitionError) as error:
        logger.critical("%s", error)
        raise SystemExit(os.EX_CONFIG) from None


def wait_for(
    needs: list[Need],
    *,
    stopping: threading.Event | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return once everything is there; a line in the log every 30 s until then.

    Raises:
        ConfigurationError: waiting will not help.
        WorkerShutdown, WorkerTerminate: the worker was told to stop meanwhile.
    """
    for need in needs:
        waited = 0.0
        while True:
            try:
                need.attempt()
            except Away as away:
                if waited % TELL_EVERY.total_seconds() == 0:
                    logger.warning("waiting for %s: %s", need.name, away)
            else:
                if waited:
                    logger.warning("%s is there after %.0f s", need.name, waited)
                break
            if stopping is not None and stopping.is_set():
                raise WorkerShutdown(0)
            state.maybe_shutdown()
            sleep(LOOK_EVERY.total_seconds())
            waited += LOOK_EVERY.total_seconds()


def installation(worker: Any) -> Installation:
    """What this worker runs, and how it was started.

    Args:
        worker: Celery's `WorkController`, not yet consuming.
    """
    app = worker.app
    started = Started(
        pool=worker.pool_cls.__module__.rpartition(".")[2],
        node=worker.hostname,
        processes=worker.concurrency,
        prefetch=int(worker.prefetch_multiplier or 0),
        time_limit=worker.time_limit,
    )
    sagas, participant = getattr(app, "sagas", None), getattr(app, "participant", None)
    return Installation(f"{app.main}.worker", sagas, participant, app, started)


def check_pool(starting: Installation) -> None:
    """See, before anything is waited for, that the worker has a pool with which it works.

    Raises:
        ConfigurationError: it has not.
    """
    trouble = pool_trouble(starting.kind, starting.service, starting.pool, batched=starting.batched)
    if trouble is not None:
        raise ConfigurationError(trouble)


def collect_seldom(worker: Any) -> None:
    """Have Python look less often for objects that only refer to each other, and never among those of now.

    A batch makes thousands of objects and drops them, hardly ever such ones. By itself Python looks after
    each 700 that are left, and at last through everything that was imported: a tenth of a worker's time. A
    process that is not the worker's alone is left as it is.
    """
    if getattr(worker.app, "saga_stopping", None) is None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)


def _first_line(error: object) -> str:
    return str(error).strip().partition("\n")[0]
