"""A network between a process and its servers, to be cut.

A polite end of a connection is the easy case. Here the answers stop first: what the process sends
still arrives, so that a commit or a message has its effect and nobody hears of it. Only later are the
connections reset.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)  # close with a reset


class Proxy:
    """Forwards TCP connections from a port of its own to a server's.

    Args:
        port: of the server, on this machine.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._silent = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.silenced = 0
        """Connections whose answers were swallowed."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy to {port}", daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result()
        self.port = int(self._server.sockets[0].getsockname()[1])

    def silence(self) -> None:
        """From now on no answer comes back, and no new connection gets one either."""

        async def silence() -> None:
            self._silent = True
            self.silenced += len(self._writers) // 2

        asyncio.run_coroutine_threadsafe(silence(), self._loop).result()

    def reset(self) -> None:
        """End every connection with a reset; new ones are forwarded as before the silence."""

        async def reset() -> None:
            self._silent = False
            for writer in list(self._writers):
                _abort(writer)

        asyncio.run_coroutine_threadsafe(reset(), self._loop).result()

    def close(self) -> None:
        """Stop forwarding."""

        async def close() -> None:
            self._server.close()
            for writer in list(self._writers):
                _abort(writer)
            if self._tasks:  # each ends with its connection
                await asyncio.wait(self._tasks, timeout=5)

        asyncio.run_coroutine_threadsafe(close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._forward(reader, writer)
        finally:
            self._tasks.discard(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            upstream, to_upstream = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            _abort(writer)
            return
        both = {writer, to_upstream}
        self._writers |= both
        self.silenced += self._silent
        pumps = [
            asyncio.ensure_future(self._pump(reader, to_upstream, answers=False)),
            asyncio.ensure_future(self._pump(upstream, writer, answers=True)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            self._writers -= both
            for end in both:
                end.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        try:
            while data := await reader.read(65536):
                if answers and self._silent:
                    continue
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # the other end is gone; so is this one in a moment


def _abort(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        except OSError:
            pass  # closed meanwhile
    writer.transport.abort()
