"""py-amqp's connection to RabbitMQ, but what there is to read is read in one piece.

py-amqp asks the socket for the seven bytes that begin a frame, for its payload and for the byte that ends
it, and sets the socket's timeout around each frame: a dozen system calls for a message. Here one call
takes in what has come, and the frames are cut from it. Everything else is py-amqp's, which reads and
writes through the same two classes, so that its own calls and ours can follow each other in any order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from selectors import EVENT_READ, EVENT_WRITE, DefaultSelector
from ssl import SSLWantReadError, SSLWantWriteError
from struct import Struct
from typing import Any, Final

from amqp.exceptions import UnexpectedFrame
from amqp.method_framing import frame_handler
from amqp.transport import SSLTransport, TCPTransport
from kombu.transport import pyamqp

from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.frames import (
    BODY,
    DELIVER,
    FRAME_AROUND,
    HEADER,
    METHOD,
    Content,
    content,
    delivery_tag,
    publishing,
)

Frame = tuple[int, int, bytes]
"""Type, channel, payload."""

Taker = Callable[[int, Content, bytes], None]
"""Takes a delivery: its tag, what its header says, its body."""

_READ: Final = 65536
"""Bytes that are asked for: about a hundred messages."""
_WRITE: Final = 131072
"""Bytes of a batch that are in memory at once, as frames."""
_HEAD: Final = Struct(">BHI")
_END: Final = 0xCE


class _Pieces:
    """A transport of py-amqp's that reads in pieces."""

    sock: Any
    connected: bool

    _come = b""
    _at = 0

    def frame(self) -> Frame | None:
        """The next frame that is here; None: none is here as a whole."""
        come, at = self._come, self._at
        if len(come) - at < FRAME_AROUND:
            return None
        kind, channel, size = _HEAD.unpack_from(come, at)
        end = at + 7 + size
        if end >= len(come):
            return None
        if come[end] != _END:
            raise UnexpectedFrame(f"a frame ends with {come[end]:#04x} instead of {_END:#04x}")
        self._at = end + 1
        return kind, channel, come[at + 7 : end]

    def read_frame(self, unpack: object = None) -> Frame:
        """The next frame, which is waited for.

        Raises:
            TimeoutError: it has not come in time; what has come of it is kept.
            OSError: the connection is broken.
        """
        while (frame := self.frame()) is None:
            try:
                more = self.sock.recv(_READ)
            except (BlockingIOError, SSLWantReadError):
                raise TimeoutError("nothing has come") from None
            except OSError as error:
                if isinstance(error, TimeoutError) and error.errno is None:
                    raise  # the socket's own; with a number it is the network that gives up
                self.connected = False
                raise ConnectionResetError(f"the connection to the broker is broken: {error}") from error
            if not more:
                self.connected = False
                raise ConnectionResetError("the broker has closed the connection")
            self._come, self._at = self._come[self._at :] + more, 0
        return frame


class _Tcp(_Pieces, TCPTransport):
    pass


class _Tls(_Pieces, SSLTransport):
    pass


class PiecesConnection(pyamqp.Connection):
    """See the module. What is delivered on a channel with a taker goes to that, and not through py-amqp."""

    def __init__(self, **options: Any) -> None:
        self.takers: dict[int, Taker] = {}
        super().__init__(**options | {"frame_handler": _frame_handler})

    def Transport(  # noqa: N802
        self,
        host: str,
        connect_timeout: float | None,
        ssl: bool | dict[str, Any] = False,
        read_timeout: float | None = None,
        write_timeout: float | None = None,
        socket_settings: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """Where py-amqp gets its socket from."""
        options |= {
            "read_timeout": read_timeout,
            "write_timeout": write_timeout,
            "socket_settings": socket_settings,
        }
        if ssl:
            return _Tls(host, connect_timeout, ssl, **options)
        return _Tcp(host, connect_timeout, **options)

    def take_in(self, timeout: float) -> None:
        """Wait for something to come, and dispatch all that is here then.

        Args:
            timeout: seconds; 0: do not wait.

        Raises:
            TimeoutError: nothing has come.
        """
        transport = self.transport
        frame = transport.frame()
        if frame is None:
            with transport.having_timeout(timeout):
                frame = transport.read_frame()
        while frame is not None:
            self.on_inbound_frame(frame)
            frame = transport.frame()

    def publish(self, channel: int, messages: Sequence[WireMessage], within: float) -> None:
        """Write messages to the socket, each to its queue or topic.

        Args:
            within: seconds, for all of them.

        Raises:
            TimeoutError: the broker does not read. What it has got of them is not known, and the
                connection is of no more use.
        """
        until = time.monotonic() + within
        for piece in publishing(messages, channel, self.frame_max, _WRITE):
            self._write(piece, until)
            self.bytes_sent += 1

    def _write(self, piece: bytearray, until: float) -> None:
        """Write a piece, and hear meanwhile what the broker says.

        A broker that has much to say, as of messages without a queue, might not read on until it has said
        it, and we would wait for each other.
        """
        left = memoryview(piece)
        with self.transport.having_timeout(0):
            while left:
                try:
                    left = left[self.transport.sock.send(left) :]
                except (BlockingIOError, SSLWantReadError, SSLWantWriteError):
                    self._await_either(until)
                except OSError as error:
                    self.transport.connected = False
                    raise ConnectionResetError(f"the connection to the broker is broken: {error}") from error

    def _await_either(self, until: float) -> None:
        """Return when there is room to write; what there is to read is taken in."""
        with DefaultSelector() as waiting:
            waiting.register(self.transport.sock, EVENT_READ | EVENT_WRITE)
            ready = waiting.select(max(until - time.monotonic(), 0))
        if not ready:
            raise TimeoutError("the broker does not read")
        if ready[0][1] & EVENT_READ:
            with suppress(TimeoutError):
                self.take_in(0)


class _Delivery:
    """One that has come in part."""

    __slots__ = ("chunks", "content", "missing", "tag")

    def __init__(self, tag: int) -> None:
        self.tag = tag
        self.content: Content | None = None
        self.missing = 0
        self.chunks: list[bytes] = []


def _frame_handler(connection: PiecesConnection, callback: Any) -> Callable[[Frame], bool]:
    """What each frame is given to; it says whether that was the last one of something."""
    others = frame_handler(connection, callback)
    takers = connection.takers
    begun: dict[int, _Delivery] = {}  # by channel, on which they come one after the other

    def on_frame(frame: Frame) -> bool:
        kind, channel, payload = frame
        delivery = begun.get(channel)
        if delivery is None:
            if kind != METHOD or channel not in takers or not payload.startswith(DELIVER):
                return bool(others(frame))
            begun[channel] = _Delivery(delivery_tag(payload))
            connection.bytes_recv += 1
            return False
        connection.bytes_recv += 1
        if kind == HEADER and delivery.content is None:
            delivery.content = content(payload)
            delivery.missing = delivery.content.size
        elif kind == BODY and delivery.content is not None:
            delivery.chunks.append(payload)
            delivery.missing -= len(payload)
        else:
            raise UnexpectedFrame(f"a frame of type {kind} within a delivery")
        if delivery.missing > 0:
            return False
        del begun[channel]
        chunks = delivery.chunks
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        takers[channel](delivery.tag, delivery.content, body)
        return True

    return on_frame


class PiecesTransport(pyamqp.Transport):
    """kombu's name for such connections."""

    Connection = PiecesConnection


class PiecesTlsTransport(pyamqp.SSLTransport):
    """The same with TLS."""

    Connection = PiecesConnection
