"""The whole application in one process: SQLite files and a broker in memory. ``make demo`` runs it.

The broker's memory dies with the process. The rows do not, and after a kill the next start goes on
with the sagas that were running.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from waitress.server import create_server

from app_common.docs_sites import by_port, docs_sites, sockets
from app_common.running import (
    HOST,
    ORCHESTRATOR,
    PAGED,
    SERVICES,
    CannotRun,
    check_ports,
    upgrade,
    web_application,
    worker_module,
)
from app_common.settings import (
    APPROVER_TOKENS,
    DATABASE_VARIABLE,
    OPERATOR_TOKENS,
    SettingError,
    approval_settings,
    approvers,
    demo_data,
    demo_database,
    operators,
    page_ports,
)
from sagas_framework import EmbeddedWorkers, SagasError

# The restaurant that never answers should be given up while somebody watches.
RESTAURANT_TIMEOUT: Final = "5"
COMMAND_BATCH: Final = "200"
OPERATOR: Final = "ann"
"""Who frees parked sagas here."""
APPROVER: Final = "Chris"
"""Who approves orders here."""


def main() -> int:
    """Run until Ctrl-C or SIGTERM; the exit code."""
    # Both raise KeyboardInterrupt, also when a shell started us in the background and ignores Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        folder, ports = demo_data(), page_ports()
        check_ports()
        operators(), approvers(), approval_settings()
        with _alone_in(folder):
            _configure(folder)
            for service in SERVICES:
                upgrade(service)
            _serve(folder, ports)
    except KeyboardInterrupt:
        return 0
    except (CannotRun, SettingError, SagasError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep a second demo out: it would drive the same sagas through a broker of its own.

    Raises:
        CannotRun: there is one, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "demo.lock").open("w")
    except OSError as error:
        raise CannotRun(
            f"The folder {folder} cannot be used ({error.strerror}). "
            "Choose another folder: DEMO_DATA=var/another make demo"
        ) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotRun(
                f"Another demo is running on {folder}. Stop it, or choose another folder: "
                "DEMO_DATA=var/another make demo"
            ) from None
        yield  # the system gives the lock back when the process ends, however it ends


def _configure(folder: Path) -> None:
    """Make the services' settings, before their modules are imported, and the log."""
    os.environ["CELERY_BROKER"] = "memory://localhost"
    os.environ.pop("CELERY_RESULT_BACKEND", None)
    os.environ[DATABASE_VARIABLE] = demo_database(folder)
    os.environ.setdefault("RESTAURANT_TIMEOUT", RESTAURANT_TIMEOUT)
    os.environ.setdefault("COMMAND_BATCH", COMMAND_BATCH)
    os.environ.setdefault("ORDER_SERVICE_OPERATORS", OPERATOR)
    os.environ.setdefault("ORDER_SERVICE_SECRET_KEY", secrets.token_hex(32))
    os.environ.setdefault(OPERATOR_TOKENS, f"{OPERATOR}:{secrets.token_hex(16)}")
    os.environ.setdefault(APPROVER_TOKENS, f"{APPROVER}:{secrets.token_hex(16)}")
    logging.basicConfig(
        handlers=[RotatingFileHandler(folder / "demo.log", maxBytes=10_000_000, backupCount=1)],
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(threadName)s: %(message)s",
    )
    for chatty in ("alembic", "kombu", "celery.app.trace", "celery.worker.strategy", "waitress.queue"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def _serve(folder: Path, ports: Mapping[str, int]) -> None:
    apps = {ports[service]: web_application(service) for service in PAGED} | docs_sites()
    with (
        closing(create_server(by_port(apps), listen=sockets(HOST, apps), threads=8)) as server,
        EmbeddedWorkers(worker_module(service).app for service in SERVICES),
    ):
        _tell(folder, ports)
        server.run()  # returns on KeyboardInterrupt
        print("Stopping. Sagas that have not ended go on at the next start.", flush=True)


def _tell(folder: Path, ports: Mapping[str, int]) -> None:
    saga = Path(os.path.relpath(sys.executable)).parent / "saga"
    database = shlex.quote(demo_database(folder))
    print(
        f"The order platform runs: http://{HOST}:{ports[ORCHESTRATOR]}/\n"
        f"Who talks to whom, and the docs of each service: http://{HOST}:{ports[ORCHESTRATOR]}/system\n"
        f"What customers were told: http://{HOST}:{ports['notification_service']}/\n"
        f"Stock: http://{HOST}:{ports['inventory_service']}/   "
        f"Shipping: http://{HOST}:{ports['delivery_service']}/\n"
        f"Tokens for changing those two, as name:token: {os.environ[OPERATOR_TOKENS]}\n"
        f"Tokens for approving orders, in the same form: {os.environ[APPROVER_TOKENS]}\n"
        f"Databases and log: {folder}\n"
        "In another terminal, from here:\n"
        f"  {DATABASE_VARIABLE}={database} {saga} -A {ORCHESTRATOR}.worker list\n"
        "Ctrl-C stops it.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
