"""What all launches share: which services there are, the processes that make them up, their schemas."""

from __future__ import annotations

import importlib
import socket
from typing import Any, Final

ORCHESTRATOR: Final = "order_service"
PARTICIPANTS: Final = ("consumer_service", "restaurant_service", "accounting_service")
SERVICES: Final = (ORCHESTRATOR, *PARTICIPANTS)
HOST: Final = "127.0.0.1"


class CannotRun(Exception):
    """The application cannot run as things are; the message says what to do."""


def commands(host: str, port: int) -> dict[str, list[str]]:
    """What is run, by name, as arguments for Python: alike with ``make local`` and with Docker Compose.

    Args:
        host: that the homepage listens on.
    """
    web = ["waitress", "--host", host, "--port", str(port), "--call", f"{ORCHESTRATOR}.web:create_app"]
    worker = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    return {
        "web": ["-m", *web],
        # Solo: the orchestrator's threads do not go together with a pool that forks.
        "order": [*_celery(ORCHESTRATOR), "--pool", "solo", *worker],
        **{_short(service): [*_celery(service), "--concurrency", "2", *worker] for service in PARTICIPANTS},
    }


def _celery(service: str) -> list[str]:
    return ["-m", "celery", "-A", f"{service}.worker", "worker", "-n", f"{_short(service)}@%h"]


def _short(service: str) -> str:
    return service.removesuffix("_service")


def worker_module(service: str) -> Any:
    """The service's worker, imported by name: what is shared knows no service when it is imported."""
    return importlib.import_module(f"{service}.worker")


def upgrade(service: str) -> list[str]:
    """Bring the service's database to the schema of this release; the migrations that ran."""
    module = worker_module(service)
    owner = module.sagas if service == ORCHESTRATOR else module.participant
    ran: list[str] = owner.upgrade()
    return ran


def check_port(port: int) -> None:
    """See that nobody listens there.

    Raises:
        CannotRun: somebody does.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise CannotRun(
                f"Port {port} cannot be used ({error.strerror}). "
                f"Stop what listens there, or take another: ORDER_SERVICE_PORT={port + 1}"
            ) from None
