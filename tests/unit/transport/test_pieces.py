"""A connection that reads in pieces, with the broker's end of the socket in the test's hand."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from struct import pack
from typing import Any, cast

import amqp
import pytest
from amqp.exceptions import ConnectionForced, UnexpectedFrame

from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.frames import Content, publishing
from sagas_framework.transport.pieces import PiecesConnection

FRAME_MAX = 4096
BOUNDED = 20.0
"""Seconds that nothing here takes."""


def frame(kind: int, payload: bytes, channel: int = 1) -> bytes:
    return pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def delivery(tag: int, body: bytes, *, cut: int = FRAME_MAX) -> bytes:
    """What RabbitMQ sends for a message of a queue."""
    properties: Any = amqp.Message(b"", correlation_id=f"m{tag}", application_headers={"number": tag})
    method = b"\x00\x3c\x00\x3c" + b"\x04ctag" + pack(">QB", tag, 0) + b"\x00\x01q"
    header = pack(">HHQ", 60, 0, len(body)) + properties._serialize_properties()
    bodies = [frame(3, body[at : at + cut]) for at in range(0, len(body), cut)]
    return frame(1, method) + frame(2, header) + b"".join(bodies)


def ack(tag: int, *, multiple: bool = False) -> bytes:
    return frame(1, b"\x00\x3c\x00\x50" + pack(">QB", tag, multiple))


METHOD = delivery(1, b"")[: len(frame(1, b"\x00\x3c\x00\x3c" + b"\x04ctag" + bytes(9) + b"\x00\x01q"))]
"""The first of a delivery's frames."""
HEARTBEAT = frame(8, b"", channel=0)


class Counted:
    """A socket that counts what is read from it."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.reads = 0

    def recv(self, size: int) -> bytes:
        self.reads += 1
        return self._inner.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Link:
    """A connection, open as after the handshake, and the broker's end of its socket."""

    def __init__(self) -> None:
        ours, self.broker = socket.socketpair()
        self.socket = Counted(ours)
        # That the broker does not read is to be found before much is in flight.
        for end in (ours, self.broker):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 16384)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
        self.connection = cast(Any, PiecesConnection(host="nowhere"))
        transport = self.connection.Transport("nowhere", None)
        transport.sock, transport.connected = self.socket, True
        transport._setup_transport()
        self.connection.transport = transport
        self.connection.frame_max = FRAME_MAX
        self.connection.on_inbound_frame = self.connection.frame_handler_cls(
            self.connection, self.connection.on_inbound_method
        )
        self.connection.frame_writer = self.connection.frame_writer_cls(self.connection, transport)
        self.channel = self.connection.Channel(self.connection, 1, auto_decode=False)
        self.delivered: list[tuple[int, Content, bytes]] = []
        self.connection.takers[1] = lambda *one: self.delivered.append(one)
        self.acks: list[tuple[int, bool]] = []
        self.channel.events["basic_ack"].add(lambda tag, multiple: self.acks.append((tag, multiple)))

    def hears(self, data: bytes) -> None:
        self.broker.sendall(data)

    def take_in(self, timeout: float = 0) -> bool:
        try:
            self.connection.take_in(timeout)
        except TimeoutError:
            return False
        return True

    def take_in_all(self) -> None:
        """Until nothing more comes."""
        while self.take_in(0):
            pass

    def close(self) -> None:
        self.broker.close()
        self.socket.close()


@pytest.fixture
def link() -> Iterator[Link]:
    link = Link()
    yield link
    link.close()


# ---- reading --------------------------------------------------------------------------------------


def test_all_that_has_come_is_taken_in_with_one_read(link: Link) -> None:
    link.hears(b"".join(delivery(tag, b"body") for tag in range(1, 21)))

    assert link.take_in(BOUNDED)

    assert [tag for tag, _, _ in link.delivered] == list(range(1, 21))
    assert {body for _, _, body in link.delivered} == {b"body"}
    assert link.delivered[6][1] == Content(4, {"number": 7}, {"correlation_id": "m7"})
    assert link.socket.reads == 1


def test_nothing_is_waited_for_when_a_message_is_here(link: Link) -> None:
    link.hears(delivery(1, b"one"))

    assert link.take_in(BOUNDED)
    assert not link.take_in(0)
    assert len(link.delivered) == 1


@pytest.mark.parametrize("size", [1, 2, 7, 8, 50, 101])
def test_a_message_may_come_in_any_pieces(link: Link, size: int) -> None:
    data = delivery(1, b"x" * 90, cut=40) + ack(5) + delivery(2, b"") + HEARTBEAT + delivery(3, b"z")

    for at in range(0, len(data), size):
        link.hears(data[at : at + size])
        link.take_in_all()

    assert [(tag, body) for tag, _, body in link.delivered] == [(1, b"x" * 90), (2, b""), (3, b"z")]
    assert link.acks == [(5, False)]


def test_what_comes_for_py_amqp_between_deliveries_is_given_to_it_in_order(link: Link) -> None:
    seen: list[str] = []
    link.connection.takers[1] = lambda tag, *_: seen.append(f"delivery {tag}")
    link.channel.events["basic_ack"].add(lambda tag, _: seen.append(f"ack {tag}"))

    link.hears(delivery(1, b"a") + ack(8, multiple=True) + delivery(2, b"b") + ack(9))
    link.take_in(BOUNDED)

    assert seen == ["delivery 1", "ack 8", "delivery 2", "ack 9"]


def test_py_amqp_reads_on_where_we_stopped(link: Link) -> None:
    link.hears(ack(1) + ack(2) + ack(3)[:9])

    link.connection.drain_events(timeout=BOUNDED)
    assert link.acks == [(1, False)]
    assert link.take_in(0)
    assert link.acks == [(1, False), (2, False)]
    link.hears(ack(3)[9:])
    link.connection.drain_events(timeout=BOUNDED)

    assert link.acks == [(1, False), (2, False), (3, False)]


def test_deliveries_that_py_amqp_comes_upon_go_to_the_taker_as_well(link: Link) -> None:
    link.hears(delivery(1, b"a") + ack(2))

    link.connection.drain_events(timeout=BOUNDED)
    link.connection.drain_events(timeout=BOUNDED)

    assert (len(link.delivered), link.acks) == (1, [(2, False)])


def test_what_a_heartbeat_interrupts_is_whole_and_counts_as_a_sign_of_life(link: Link) -> None:
    link.connection.heartbeat = 30
    link.connection.prev_recv = link.connection.bytes_recv
    one = delivery(1, b"x" * 20, cut=10)

    link.hears(one[:-18] + HEARTBEAT + one[-18:])
    link.take_in(BOUNDED)
    link.connection.heartbeat_tick()

    assert [body for _, _, body in link.delivered] == [b"x" * 20]
    assert link.connection.bytes_recv > 0
    assert link.connection.last_heartbeat_received > 0


def test_a_heartbeat_is_sent_when_nothing_else_was(link: Link) -> None:
    link.connection.heartbeat = 1
    link.connection.prev_sent = link.connection.bytes_sent
    link.connection.last_heartbeat_sent = -10.0

    link.connection.heartbeat_tick()

    assert link.broker.recv(100) == HEARTBEAT


def test_a_broker_that_is_silent_for_two_heartbeats_is_gone(link: Link) -> None:
    link.connection.heartbeat = 1
    link.connection.prev_recv = link.connection.bytes_recv
    link.connection.last_heartbeat_received = -10.0

    with pytest.raises(ConnectionForced, match="heartbeats"):
        link.connection.heartbeat_tick()


@pytest.mark.parametrize("come", [0, 5, 30])
def test_a_connection_that_ends_is_an_error_wherever_it_ends(link: Link, come: int) -> None:
    link.hears(delivery(1, b"body")[:come])
    link.broker.close()

    with pytest.raises(ConnectionResetError, match="closed"):
        link.take_in_all()

    assert link.delivered == []
    assert not link.connection.connected


def test_what_came_before_the_end_is_taken_in(link: Link) -> None:
    link.hears(delivery(1, b"body") + delivery(2, b"body")[:30])
    link.broker.close()

    assert link.take_in(BOUNDED)
    with pytest.raises(ConnectionResetError):
        link.take_in(BOUNDED)

    assert len(link.delivered) == 1


def test_a_network_that_gives_up_is_no_silence(link: Link, monkeypatch: pytest.MonkeyPatch) -> None:
    def gives_up(size: int) -> bytes:
        raise TimeoutError(110, "Connection timed out")

    monkeypatch.setattr(link.socket, "recv", gives_up)

    with pytest.raises(ConnectionResetError, match="timed out"):
        link.take_in(BOUNDED)
    assert not link.connection.connected


def test_a_broker_that_closes_the_connection_says_why(link: Link) -> None:
    close = b"\x00\x0a\x00\x32" + pack(">H", 320) + b"\x04stop" + pack(">HH", 0, 0)
    link.hears(delivery(1, b"a") + frame(1, close, channel=0) + delivery(2, b"b"))

    with pytest.raises(ConnectionForced, match="stop"):
        link.take_in(BOUNDED)

    assert len(link.delivered) == 1


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(frame(1, b"\x00\x3c\x00\x50" + bytes(9))[:-1] + b"\x00", id="a wrong end"),
        pytest.param(frame(3, b"x"), id="a body of nothing"),
        pytest.param(METHOD + frame(3, b"x"), id="a body before its header"),
        pytest.param(METHOD + ack(1), id="a method within a delivery"),
    ],
)
def test_what_is_no_amqp_is_an_error(link: Link, data: bytes) -> None:
    link.hears(data)

    with pytest.raises(UnexpectedFrame):
        link.take_in(BOUNDED)
    assert link.delivered == []


# ---- writing --------------------------------------------------------------------------------------


def a_message(size: int, number: int = 0) -> WireMessage:
    return WireMessage("q", {"number": number}, {"correlation_id": str(number)}, b"x" * size)


def test_more_than_the_socket_holds_is_written_to_a_slow_broker(link: Link) -> None:
    sent = [a_message(3000, number) for number in range(200)]
    expected = b"".join(publishing(sent, 1, FRAME_MAX, 2**30))
    got = bytearray()

    def read_slowly() -> None:
        while len(got) < len(expected):
            got.extend(link.broker.recv(5000))

    reading = threading.Thread(target=read_slowly, daemon=True)
    reading.start()
    link.connection.publish(1, sent, BOUNDED)
    reading.join(BOUNDED)

    assert bytes(got) == expected
    assert link.connection.bytes_sent > 0  # a sign of life


def test_what_the_broker_says_meanwhile_is_heard(link: Link) -> None:
    """Of a broker that goes on writing, and reads no further before it has."""
    sent = [a_message(3000, number) for number in range(200)]
    size = len(b"".join(publishing(sent, 1, FRAME_MAX, 2**30)))
    answers = b"".join(ack(tag) for tag in range(1, 5001))

    def answer_first() -> None:
        read = len(link.broker.recv(5000))
        link.broker.sendall(answers)
        while read < size:
            read += len(link.broker.recv(65536))

    broker = threading.Thread(target=answer_first, daemon=True)
    broker.start()
    link.connection.publish(1, sent, BOUNDED)
    while len(link.acks) < 5000:
        link.take_in(BOUNDED)
    broker.join(BOUNDED)

    assert not broker.is_alive()


def test_a_broker_that_does_not_read_is_waited_for_no_longer_than_said(link: Link) -> None:
    with pytest.raises(TimeoutError):
        link.connection.publish(1, [a_message(3000, number) for number in range(200)], 0.05)


def test_a_connection_that_breaks_within_a_batch_is_an_error(link: Link) -> None:
    def break_off() -> None:
        link.broker.recv(5000)
        link.broker.close()

    broker = threading.Thread(target=break_off, daemon=True)
    broker.start()
    with pytest.raises(OSError, match=r"Broken pipe|reset|closed"):
        link.connection.publish(1, [a_message(3000, number) for number in range(200)], BOUNDED)
    broker.join(BOUNDED)
