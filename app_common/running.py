"""What all launches share: which services there are, the processes that make them up, their schemas."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Mapping
from itertools import count
from typing import Any, Final

from app_common.settings import PAGES, docs_port_variable, docs_ports, page_ports, port_variable

ORCHESTRATOR: Final = "order_service"
SERVICES: Final = (
    ORCHESTRATOR,
    "consumer_service",
    "restaurant_service",
    "accounting_service",
    "inventory_service",
    "delivery_service",
    "notification_service",
)
PAGED: Final = tuple(PAGES)
"""The services with pages of their own; the orchestrator's are the homepage."""
THREADED: Final = (ORCHESTRATOR, "notification_service")
"""The services whose workers do their work in threads, which do not go together with a pool that forks."""
HOST: Final = "127.0.0.1"


class CannotRun(Exception):
    """The application cannot run as things are; the message says what to do."""


def commands(host: str, ports: Mapping[str, int]) -> dict[str, list[str]]:
    """What is run, by name, as arguments for Python: alike with ``make local`` and with Docker Compose.

    Args:
        host: that the pages listen on.
        ports: of the services with pages.
    """
    worker = ["--without-gossip", "--without-mingle", "--loglevel", "INFO"]
    solo, forking = ["--pool", "solo"], ["--concurrency", "2"]
    return {
        **{web_name(service): _waitress(service, host, ports[service]) for service in PAGED},
        "docs": ["-m", "app_common.docs_sites", "--host", host],
        **{
            _short(service): [*_celery(service), *(solo if service in THREADED else forking), *worker]
            for service in SERVICES
        },
    }


def web_name(service: str) -> str:
    """What the process is called that serves the service's pages: ``web`` serves the homepage."""
    return "web" if service == ORCHESTRATOR else f"{_short(service)}-web"


def _waitress(service: str, host: str, port: int) -> list[str]:
    return ["-m", "waitress", "--host", host, "--port", str(port), "--call", f"{service}.web:create_app"]


def _celery(service: str) -> list[str]:
    return ["-m", "celery", "-A", f"{service}.worker", "worker", "-n", f"{_short(service)}@%h"]


def _short(service: str) -> str:
    return service.removesuffix("_service")


def web_application(service: str) -> Any:
    """The service's web application, as WSGI knows it."""
    return importlib.import_module(f"{service}.web").create_app()


def worker_module(service: str) -> Any:
    """The service's worker, imported by name: what is shared knows no service when it is imported."""
    return importlib.import_module(f"{service}.worker")


def upgrade(service: str) -> list[str]:
    """Bring the service's database to the schema of this release; the migrations that ran."""
    module = worker_module(service)
    owner = next(
        getattr(module, part) for part in ("sagas", "participant", "subscriber") if hasattr(module, part)
    )
    ran: list[str] = owner.upgrade()
    return ran


def check_ports() -> None:
    """See that nobody listens on the ports of the pages and of the docs sites.

    Raises:
        CannotRun: somebody does.
        SettingError: a variable has a wrong value.
    """
    docs = {docs_port_variable(service): port for service, port in docs_ports(SERVICES).items()}
    ports = {port_variable(service): port for service, port in page_ports().items()} | docs
    for variable, port in ports.items():
        another = next(another for another in count(port + 1) if another not in ports.values())
        _check_port(port, f"{variable}={another}")


def _check_port(port: int, instead: str) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise CannotRun(
                f"Port {port} cannot be used ({error.strerror}). "
                f"Stop what listens there, or take another: {instead}"
            ) from None
