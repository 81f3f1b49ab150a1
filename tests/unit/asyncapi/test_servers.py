"""The broker's address as the servers of a document."""

from __future__ import annotations

import json

import pytest

from sagas_framework import ConfigurationError
from sagas_framework.asyncapi.servers import servers, virtual_host


@pytest.mark.parametrize(
    ("broker", "host", "path", "protocol", "vhost"),
    [
        ("amqp://rabbitmq:secret@localhost//", "localhost:5672", "/", "amqp", "/"),
        ("amqp://somebody:secret@broker.example:5673/shop", "broker.example:5673", "/shop", "amqp", "shop"),
        ("amqps://somebody:secret@broker.example/shop", "broker.example:5671", "/shop", "amqps", "shop"),
        ("pyamqp://somebody:secret@[::1]//", "[::1]:5672", "/", "amqp", "/"),
    ],
)
def test_rabbitmq_without_its_credentials(
    broker: str, host: str, path: str, protocol: str, vhost: str
) -> None:
    found = servers(broker)

    server = found["rabbitmq"]
    assert (server["host"], server["pathname"], server["protocol"]) == (host, path, protocol)
    assert server["protocolVersion"] == "0.9.1"
    assert virtual_host(broker) == vhost
    assert "secret" not in json.dumps(found)
    assert "somebody" not in json.dumps(found)


def test_several_brokers() -> None:
    found = servers("amqp://u:p@one//;amqp://u:p@two//")

    assert {name: server["host"] for name, server in found.items()} == {
        "rabbitmq": "one:5672",
        "rabbitmq-2": "two:5672",
    }


@pytest.mark.parametrize(
    ("broker", "host"), [("memory://localhost", "localhost"), ("redis://:secret@cache:6379/1", "cache:6379")]
)
def test_another_transport_is_named_as_it_is(broker: str, host: str) -> None:
    (name,) = servers(broker)

    assert name == broker.partition(":")[0]
    assert (servers(broker)[name]["protocol"], servers(broker)[name]["host"]) == (name, host)
    assert "secret" not in json.dumps(servers(broker))


def test_an_address_that_cannot_be_read_is_told_without_its_password() -> None:
    with pytest.raises(ConfigurationError) as raised:
        servers("carrier-pigeon://u:secret@roof//")

    assert "amqp://user:password@host:5672/vhost" in str(raised.value)
    assert "secret" not in str(raised.value)
