"""A tap on the way from RabbitMQ to whoever consumes: it keeps the bytes of every message delivered.

Messages go through the default exchange, to which no second queue can be bound. A proxy changes neither the
broker nor the application, and what the broker delivers has been on it, byte by byte.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from amqp import spec
from amqp.method_framing import frame_handler
from amqp.serialization import loads

_FRAME_HEADER: Final = 7  # type, channel, size of the payload
_CHUNK: Final = 1 << 16
# Arguments of the methods that bring a message, as py-amqp writes types.
_DELIVERIES: Final = {spec.Basic.Deliver: "sLbss", spec.Basic.GetOk: "Lbssl"}
_ROUTING_KEY: Final = {spec.Basic.Deliver: 4, spec.Basic.GetOk: 3}


@dataclass(frozen=True)
class Delivered:
    """A message as RabbitMQ delivered it. `properties` are AMQP's, without the headers."""

    queue: str
    headers: dict[str, Any]
    properties: dict[str, Any]
    body: bytes

    @property
    def task(self) -> str:
        """The Celery task's name, or nothing."""
        return str(self.headers.get("task", ""))


class Tap:
    """Listens on a port of its own and passes everything on to the broker and back.

    Args:
        url: the broker's address, without TLS.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._broker = (parts.hostname or "127.0.0.1", parts.port or 5672)
        self._server = socket.create_server(("127.0.0.1", 0))
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self._server.getsockname()[1]}"
        self.url = urlunsplit(parts._replace(netloc=netloc))
        """The broker's address for those whose messages are to be kept."""
        self._lock = threading.Lock()
        self._delivered: list[Delivered] = []
        self._troubles: list[Exception] = []
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, name="tap", daemon=True).start()

    def delivered(self) -> list[Delivered]:
        """What was delivered so far, in the order of each connection.

        Raises:
            AssertionError: the tap could not read what passed, so something may be missing.
        """
        with self._lock:
            assert not self._troubles, self._troubles
            return list(self._delivered)

    def close(self) -> None:
        """Cut every connection."""
        self._server.close()
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            _hang_up(one)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return  # closed
            try:
                broker = socket.create_connection(self._broker)
            except OSError:
                client.close()
                continue
            with self._lock:
                self._sockets |= {client, broker}
            for source, target, reader in ((client, broker, None), (broker, client, _Reader(self._keep))):
                threading.Thread(target=self._pass_on, args=(source, target, reader), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, reader: _Reader | None) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if reader is not None:
                    self._read(reader, chunk)
                target.sendall(chunk)
        _hang_up(source)
        _hang_up(target)

    def _read(self, reader: _Reader, chunk: bytes) -> None:
        try:
            reader.feed(chunk)
        except Exception as error:  # the application goes on; `delivered` tells
            with self._lock:
                self._troubles.append(error)

    def _keep(self, message: Delivered) -> None:
        with self._lock:
            self._delivered.append(message)


class _Reader:
    """Puts the bytes of one connection together to frames, and frames to messages."""

    def __init__(self, keep: Any) -> None:
        self._keep = keep
        self._pending = bytearray()
        self._on_frame = frame_handler(SimpleNamespace(bytes_recv=0), self._on_method)

    def feed(self, chunk: bytes) -> None:
        self._pending += chunk
        while len(self._pending) >= _FRAME_HEADER:
            size = int.from_bytes(self._pending[3:_FRAME_HEADER], "big")
            if len(self._pending) <= _FRAME_HEADER + size:  # the frame's last byte is its end mark
                return
            payload = bytes(self._pending[_FRAME_HEADER : _FRAME_HEADER + size])
            kind, channel = self._pending[0], int.from_bytes(self._pending[1:3], "big")
            del self._pending[: _FRAME_HEADER + size + 1]
            self._on_frame((kind, channel, payload))

    def _on_method(self, _channel: int, method: tuple[int, int], arguments: bytes, content: Any) -> None:
        if method not in _DELIVERIES:
            return
        values, _ = loads(_DELIVERIES[method], arguments, 4)
        properties = dict(content.properties)
        headers = dict(properties.pop("application_headers", {}))
        self._keep(
            Delivered(str(values[_ROUTING_KEY[method]]), headers, properties, bytes(content.body or b""))
        )


def _hang_up(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
