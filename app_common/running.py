"""What the demo and the local launch share: which services there are, and the homepage's server."""

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
                f"Stop what listens there, or take another: ORDER_SERVICE_PORT={port + 1} make demo"
            ) from None
