"""The docs sites of the order platform, as ``python -m app_common.docs_sites`` serves them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from app_common.docs_sites import sockets
from app_common.running import SERVICES
from app_common.settings import docs_port_variable
from app_common.specifications import specification
from tests.servers import free_ports, wait_until

ROOT: Final = Path(__file__).parents[2]
BROKER: Final = "amqp://somebody:hidden@broker.example//"


@dataclass
class Sites:
    """The running process."""

    ports: Mapping[str, int]
    process: subprocess.Popen[str]

    def ask(self, service: str, path: str, host: str | None = None) -> tuple[int, str]:
        """Status and body of the answer to a GET, with this name in the header ``Host``."""
        connection = HTTPConnection("127.0.0.1", self.ports[service], timeout=20)
        try:
            connection.request("GET", path, headers={"Host": host} if host else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def answer(self) -> bool:
        try:
            return all(self.ask(service, "/healthz")[0] == 200 for service in self.ports)
        except OSError:
            return False


def begin(ports: Mapping[str, int], **environment: str) -> subprocess.Popen[str]:
    """Start the process."""
    chosen = {docs_port_variable(service): str(port) for service, port in ports.items()}
    return subprocess.Popen(
        [sys.executable, "-m", "app_common.docs_sites"],
        cwd=ROOT,
        env={
            **os.environ,
            **chosen,
            "CELERY_BROKER": "amqp://somebody:hidden@broker.example//",
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    started = Sites(ports, begin(ports, ORDER_SERVICE_PORT="5005"))
    wait_until(lambda: started.answer() or started.process.poll() is not None, "the docs sites")
    assert started.process.poll() is None
    yield started
    if started.process.poll() is None:
        started.process.kill()
    started.process.communicate()


@pytest.mark.parametrize("service", SERVICES)
def test_each_port_has_the_document_of_its_service(sites: Sites, service: str) -> None:
    status, body = sites.ask(service, "/asyncapi.yaml")

    document: dict[str, Any] = yaml.safe_load(body)
    assert status == 200
    assert document["info"]["title"] == specification(service).title
    assert document["operations"] == specification(service).document["operations"]


@pytest.mark.parametrize("service", SERVICES)
def test_no_document_holds_what_opens_the_broker(sites: Sites, service: str) -> None:
    for path in ("/asyncapi.yaml", "/asyncapi.json"):
        _, body = sites.ask(service, path)
        assert "broker.example" in body
        assert "hidden" not in body
        assert "somebody" not in body


def test_a_site_leads_to_those_that_its_service_talks_with(sites: Sites) -> None:
    addresses = {service: f'href="http://127.0.0.1:{port}/"' for service, port in sites.ports.items()}
    talks: dict[str, set[str]] = {}
    for service in SERVICES:
        _, body = sites.ask(service, "/")
        talks[service] = {other for other, address in addresses.items() if address in body}

    first, *others = SERVICES
    expected = {first: set(others)} | {other: {first} for other in others}
    expected["inventory_service"] |= {"notification_service"}  # it tells what is low
    expected["accounting_service"] |= {"notification_service"}  # it tells what was refunded
    expected["notification_service"] |= {"inventory_service", "accounting_service"}
    assert talks == expected


@pytest.mark.parametrize("host", ["localhost", "docs.example", "[::1]"])
def test_links_keep_the_host_by_which_the_site_was_asked(sites: Sites, host: str) -> None:
    port = sites.ports["restaurant_service"]

    _, body = sites.ask("restaurant_service", "/", f"{host}:{port}")

    assert f'href="http://{host}:{sites.ports["order_service"]}/"' in body
    assert f'href="http://{host}:5005/system"' in body


@pytest.mark.parametrize("service", SERVICES)
def test_each_site_tells_that_it_serves(sites: Sites, service: str) -> None:
    status, body = sites.ask(service, "/healthz")

    assert status == 200
    assert f'"service":"{service}"' in body


def test_a_port_in_use_ends_it_with_what_to_do(sites: Sites) -> None:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", ports["accounting_service"]))
        somebody.listen()
        output, _ = begin(ports).communicate(timeout=60)

    assert output.splitlines()[-1].startswith("The docs sites cannot listen: Address already in use.")
    assert "ACCOUNTING_SERVICE_DOCS_PORT" in output
    assert "Traceback" not in output


def test_a_host_that_is_none_ends_it_with_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app_common.docs_sites", "--host", "no host"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr.startswith("The docs sites cannot listen: ")
    assert "--host" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_of_ipv6_is_in_brackets() -> None:
    assert sockets("::1", [8081, 8082]) == "[::1]:8081 [::1]:8082"
    assert sockets("localhost", [8081]) == "localhost:8081"


def test_a_wrong_port_ends_it_with_what_to_write() -> None:
    process = begin({}, CONSUMER_SERVICE_DOCS_PORT="http")
    output, _ = process.communicate(timeout=60)

    assert process.returncode == 1
    assert output == (
        "CONSUMER_SERVICE_DOCS_PORT is 'http', not a port from 1 to 65535. "
        "Write it like this: CONSUMER_SERVICE_DOCS_PORT=8082\n"
    )


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_cleanly(how: signal.Signals) -> None:
    ports = dict(zip(SERVICES, free_ports(len(SERVICES)), strict=True))
    own = Sites(ports, begin(ports))
    wait_until(own.answer, "the docs sites")

    own.process.send_signal(how)
    output, _ = own.process.communicate(timeout=20)

    assert own.process.returncode == 0
    assert "Traceback" not in output
