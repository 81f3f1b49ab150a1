"""The docs sites of the services, each on a port of its own.

``python -m app_common.docs_sites`` serves them, in one process: they say what does not change while they
run, and four processes would say it no better. The demo serves them beside its homepage.
"""

from __future__ import annotations

import argparse
import logging
import signal
import socket
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from waitress.server import create_server

from app_common.running import HOST, ORCHESTRATOR, SERVICES
from app_common.settings import SettingError, docs_port_variable, docs_ports
from app_common.specifications import specification
from app_common.web.addresses import bracketed, page_address, same_host
from sagas_framework import SagasError
from sagas_framework.asyncapi import docs_site

RENDERER: Final = Path(__file__).parents[1] / "build" / "asyncapi-ui"
INSTALL: Final = "make asyncapi"


def main() -> int:
    """Serve the sites until SIGTERM or Ctrl-C; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m app_common.docs_sites", description="The docs sites.")
    parser.add_argument("--host", default=HOST, help="address to listen on (default: %(default)s)")
    try:
        serve(parser.parse_args().host)
    except (SettingError, SagasError) as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        variables = ", ".join(map(docs_port_variable, SERVICES))
        print(
            f"The docs sites cannot listen: {error.strerror}. Stop what listens there, set other ports: "
            f"{variables}; or give another --host",
            file=sys.stderr,
        )
        return 1
    return 0


def serve(host: str) -> None:
    """Serve all sites until SIGTERM or Ctrl-C.

    Raises:
        SettingError: a port cannot be used as it is written.
        OSError: a port is in use, or the host is not of this machine.
    """
    socket.getaddrinfo(host, None)  # waitress would not say what is wrong with it
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    sites = docs_sites()
    with closing(create_server(by_port(sites), listen=sockets(host, sites), threads=4)) as server:
        for service, port in docs_ports(SERVICES).items():
            print(f"Docs of {service}: http://{bracketed(host)}:{port}/", flush=True)
        server.run()  # returns on KeyboardInterrupt


def docs_sites() -> dict[int, Any]:
    """The sites as WSGI applications, by the port that each is served on."""
    return {port: _site(service) for service, port in docs_ports(SERVICES).items()}


def _site(service: str) -> Any:
    return docs_site(
        specification(service),
        others=[specification(other) for other in SERVICES if other != service],
        address=docs_address,
        links=[("Whole system", lambda: f"{page_address(ORCHESTRATOR)}system")],
        renderer=RENDERER,
        install=INSTALL,
    )


def docs_address(service: str) -> str:
    """Where the service's site is for whoever sends the request that is being answered."""
    return same_host(docs_ports(SERVICES)[service])


# ---- several applications in one server -----------------------------------------------------------


def sockets(host: str, ports: Iterable[int]) -> str:
    """What waitress is to listen on."""
    shown = bracketed(host)
    return " ".join(f"{shown}:{port}" for port in ports)


def by_port(apps: Mapping[int, Any]) -> Any:
    """One WSGI application that hands each request to the one of the port that it came to.

    So all of them share the threads of one server, however many there are.
    """

    def handed_on(environ: dict[str, Any], start_response: Any) -> Any:
        return apps[int(environ["SERVER_PORT"])](environ, start_response)

    return handed_on


if __name__ == "__main__":
    sys.exit(main())
