"""The broker, from the address in the settings, as the servers of a document: without credentials."""

from __future__ import annotations

from typing import Any, Final

from kombu import Connection

from sagas_framework.transport.connecting import connect, is_amqp

_PORTS: Final = {"amqp": 5672, "amqps": 5671}


def servers(broker: str) -> dict[str, Any]:
    """The brokers that the address names, several if there are ``;`` in it.

    Raises:
        ConfigurationError: the address cannot be read; the message masks the password.
    """
    found = {}
    addresses = connect(broker).alt or [broker]
    for number, address in enumerate(addresses, start=1):
        connection = connect(address)
        name = "rabbitmq" if is_amqp(connection) else str(connection.transport_cls)
        found[name if number == 1 else f"{name}-{number}"] = _server(connection)
    return found


def virtual_host(broker: str) -> str:
    """RabbitMQ's virtual host.

    Raises:
        ConfigurationError: the address cannot be read; the message masks the password.
    """
    connection = connect(broker)
    return _virtual_host(connect(connection.alt[0]) if connection.alt else connection)


def _virtual_host(connection: Connection) -> str:
    return (is_amqp(connection) and connection.virtual_host) or "/"


def _server(connection: Connection) -> dict[str, Any]:
    if not is_amqp(connection):
        kind = str(connection.transport_cls)
        return {
            "host": _host(connection, None),
            "protocol": kind,
            "description": f"Celery's transport {kind}, through which all services talk.",
        }
    secure = bool(connection.ssl) or connection.transport_cls in ("amqps", "pyamqps")
    protocol = "amqps" if secure else "amqp"
    path = _virtual_host(connection)
    return {
        "host": _host(connection, _PORTS[protocol]),
        "pathname": path if path.startswith("/") else f"/{path}",
        "protocol": protocol,
        "protocolVersion": "0.9.1",
        "title": "RabbitMQ",
        "description": f"The broker that all services share; virtual host `{path}`. Ask for credentials.",
    }


def _host(connection: Connection, default_port: int | None) -> str:
    host = connection.hostname or "localhost"
    port = connection.port or default_port
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if port else host
