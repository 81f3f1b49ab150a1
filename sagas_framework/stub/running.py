"""A stub as a Celery worker: the same worker that serves a real participant, on the solo pool."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from celery import Celery
from celery.worker import WorkController, state
from kombu.exceptions import OperationalError
from sqlalchemy.exc import DBAPIError

from sagas_framework.errors import ConfigurationError
from sagas_framework.stub.behaviour import Behaviour
from sagas_framework.stub.document import Document
from sagas_framework.stub.participant import StubParticipant, Tell
from sagas_framework.transport.connecting import connect, masked_broker, try_broker
from sagas_framework.transport.publisher import Load
from sagas_framework.worker.participating import participant_app

_PATIENCE: Final = 5.0
"""Seconds for which a broker that hangs is waited for after Ctrl-C."""


@contextmanager
def stub_app(
    document: Document,
    behaviours: Mapping[str, Behaviour],
    *,
    broker: str,
    tell: Tell,
    inbox: Path | None = None,
) -> Iterator[Celery]:
    """A Celery app whose one worker answers what the document receives.

    Leaving the block gives up the answers that are still delayed.

    Args:
        tell: is told what became of each message.
        inbox: an SQLite file, kept for the next stub; None: one in a temporary folder.

    Raises:
        ConfigurationError: the broker's address or the inbox cannot be used.
    """
    with _inbox(inbox) as database:
        participant = StubParticipant(document, behaviours, database=database, tell=tell)
        try:
            participant.upgrade()
        except DBAPIError as error:
            told = str(error.orig).partition("\n")[0]
            raise ConfigurationError(f"The inbox {inbox or database} cannot be used: {told}.") from None
        app: Any = participant_app(participant, broker=broker)
        participant.publish = app.participant_server.publisher.publish
        try:
            yield app
        finally:
            participant.close()
            app.participant_server.publisher.close()
            participant.engine.dispose()


@contextmanager
def _inbox(file: Path | None) -> Iterator[str]:
    """The address of the inbox's database.

    Raises:
        ConfigurationError: the file has no folder, or is one.
    """
    if file is not None:
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise ConfigurationError(
                f"The inbox {file} cannot be a file: name one in a folder that exists, like inbox.sqlite3."
            )
        yield f"sqlite:///{file.absolute()}"
        return
    with TemporaryDirectory(prefix="saga-stub-", ignore_cleanup_errors=True) as folder:
        yield f"sqlite:///{folder}/inbox.sqlite3"


def see_broker(broker: str, whence: str) -> None:
    """See that somebody answers at the broker's address, and that others can be reached through it.

    Args:
        whence: who gave the address, for the message.

    Raises:
        ConfigurationError: nobody does, or it is a broker in memory; the message says what to write.
    """
    if "://" not in broker:
        raise ConfigurationError(
            f"The broker {broker!r} ({whence}) is no address. Write it like amqp://user:password@host:5672/vhost."
        )
    connection = connect(broker)
    if connection.transport_cls == "memory":
        raise ConfigurationError(
            f"The broker {broker} ({whence}) lives in the memory of one process, and a stub is another one. "
            "Give the one that your saga uses: --broker amqp://user:password@host:5672/vhost."
        )
    away: tuple[type[BaseException], ...] = (OSError, OperationalError, *connection.connection_errors)
    try:
        try_broker(broker)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error} ({whence})") from None
    except away as error:
        told = str(error).strip().partition("\n")[0]
        raise ConfigurationError(
            f"No broker answers at {masked_broker(broker)} ({whence}): {told}. "
            "Start it, or give another: --broker amqp://user:password@host:5672/vhost."
        ) from None


def others(app: Celery, document: Document) -> Load | None:
    """What waits in the stub's queue and who takes from it, before the stub does."""
    server: Any = app
    load: Load | None = server.participant_server.publisher.load(document.queue.name)
    return load


def serve(app: Celery) -> int:
    """Take messages until Ctrl-C or SIGTERM; the exit code. Only in a program's main thread."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    # What becomes of messages is told; the log would say it again.
    logging.getLogger("sagas_framework.participant").setLevel(logging.CRITICAL)
    app.set_current()
    # Celery's program would print on stdout, among our lines, and call Ctrl-C a failure.
    worker = WorkController(
        app=app,
        hostname=f"{app.main}-stub@{socket.gethostname()}",
        pool_cls="solo",
        concurrency=1,
        loglevel="WARNING",
        without_gossip=True,
        without_heartbeat=True,  # of events, which nobody listens to; connections have their own
        without_mingle=True,
    )
    with _stopped_by_signals():
        worker.start()
    return int(worker.exitcode or 0)


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let the worker's own loop end it. A second Ctrl-C is no longer waited for.

    A broker that hangs is waited for without end, here and there; so each of these waits is given up.
    What was not acknowledged is delivered again.
    """

    def stop(*_: object) -> None:
        state.should_stop = os.EX_OK  # type: ignore[assignment]
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _PATIENCE / 25)

    def give_up(*_: object) -> None:
        raise TimeoutError("the broker does not answer")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    before[signal.SIGALRM] = signal.signal(signal.SIGALRM, give_up)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
