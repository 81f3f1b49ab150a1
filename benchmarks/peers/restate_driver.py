"""Drives the saga on Restate; see `benchmarks.driving`.

It posts to the ingress over plain keep-alive connections, a request for each saga, so that little of the
CPU is its own.
"""

# mypy: ignore-errors
# It serves the environment of its own alone.

from __future__ import annotations

import argparse
import asyncio
import json
import socket
import time
import urllib.error
import urllib.request

from benchmarks.driving import serve, until

CONNECTIONS = 100


class Restate:
    def __init__(self, ingress, path):
        self._ingress = ingress
        self._path = path
        self._loop = asyncio.new_event_loop()
        self._connections = []

    def batch(self, count, *, declined):
        self._loop.run_until_complete(self._connect(min(count, CONNECTIONS)))
        begun = time.perf_counter()
        self._loop.run_until_complete(self._post_all(count, declined))
        return time.perf_counter() - begun

    def one(self, *, declined):
        self._loop.run_until_complete(self._connect(1))
        begun = time.perf_counter()
        self._loop.run_until_complete(self._post(self._connections[0], 1, declined))
        return time.perf_counter() - begun

    async def _connect(self, count):
        while len(self._connections) < count:
            self._connections.append(await asyncio.open_connection("127.0.0.1", self._ingress))

    async def _post_all(self, count, declined):
        numbers = iter(range(count))

        async def post_some(connection):
            for number in numbers:
                await self._post(connection, number, declined)

        await asyncio.gather(*map(post_some, self._connections))

    async def _post(self, connection, number, declined):
        reader, writer = connection
        body = json.dumps({"id": number, "consumer_id": 70, "amount": 80 if declined else 20}).encode()
        head = (
            f"POST {self._path} HTTP/1.1\r\nHost: restate\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        said = await self._body(reader, answer.lower())
        wanted = b'"rejected"' if declined else b'"approved"'
        if not answer.startswith(b"HTTP/1.1 200") or said != wanted:
            raise RuntimeError(f"Restate answered {answer + said!r}, not {wanted!r}")

    @staticmethod
    async def _body(reader, head):
        if b"content-length:" in head:
            length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
            return await reader.readexactly(length)
        body = b""
        while True:
            size = int((await reader.readline()).strip(), 16)
            body += await reader.readexactly(size)
            await reader.readline()
            if not size:
                return body


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def register(admin, port):
    """Tell the server of a service; whether it took it."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{admin}/deployments",
        method="POST",
        data=json.dumps({"uri": f"http://127.0.0.1:{port}"}).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        urllib.request.urlopen(request, timeout=20).read()
    except (urllib.error.URLError, OSError):
        return False
    return True


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--ingress", type=int, required=True)
    parser.add_argument("--admin", type=int, required=True)
    parser.add_argument("--services", type=int, nargs="+", required=True, metavar="PORT")
    parser.add_argument("--path", required=True)
    given = parser.parse_args()
    ports = [given.ingress, given.admin, *given.services]
    until(
        lambda: all(map(listens, ports)),
        every=0.1,
        within=60,
        what=lambda: f"nobody listens on {[port for port in ports if not listens(port)]}",
    )
    for service in given.services:
        until(
            lambda port=service: register(given.admin, port),
            every=0.5,
            within=20,
            what=lambda port=service: f"the server does not take the service on port {port}",
        )
    serve(Restate(given.ingress, given.path))
