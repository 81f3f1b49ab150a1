"""Frames as py-amqp writes and reads them, byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp.method_framing import frame_writer
from amqp.serialization import decode_properties_basic
from amqp.spec import Basic
from hypothesis import given
from hypothesis import strategies as st

from sagas_framework.transport.envelope import Envelope, WireMessage, to_wire
from sagas_framework.transport.frames import DEEPEST, Content, content, delivery_tag, publishing

FRAME_MAX = 4096

names = st.text(min_size=1, max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=6,
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": names,
        "content_encoding": st.none() | names,
        "delivery_mode": st.sampled_from([1, 2]),
        "correlation_id": names,
        "reply_to": names,
        "priority": st.integers(0, 9),
        "message_id": names,
    },
)
messages = st.builds(
    WireMessage,
    queue=names,
    headers=st.dictionaries(names, values, max_size=6),
    properties=properties,
    body=st.binary(max_size=200) | st.binary(min_size=FRAME_MAX - 20, max_size=2 * FRAME_MAX + 20),
)

A_COMMAND = to_wire(
    Envelope(
        queue="restaurant_service.commands",
        task="restaurant_service.create_ticket",
        message_id="7c9e6679-7425-40de-944b-e07fc1f90ae7",
        saga_id="01890a5d-ac96-774b-bcce-b302099a8057",
        payload={"dish": "soupe à l'oignon"},
        reply_to="order_service.replies",
        headers={"saga_attempt": 1, "saga_hand_over": True, "saga_known": "unknown"},
    )
)


def py_amqps(message: WireMessage) -> bytes:
    """The same message as py-amqp writes it to a socket."""
    written = bytearray()
    connection: Any = SimpleNamespace(frame_max=FRAME_MAX, bytes_sent=0)
    write = frame_writer(connection, SimpleNamespace(write=written.extend))
    sent = amqp.Message(message.body, application_headers=dict(message.headers), **message.properties)
    # Reserved, exchange, queue, mandatory.
    name = message.queue.encode("utf-8", "surrogatepass")
    write(1, 1, Basic.Publish, b"\0\0\0" + bytes([len(name)]) + name + b"\1", sent)
    return bytes(written)


def ours(*sent: WireMessage, piece: int = 131072) -> list[bytes]:
    return [bytes(one) for one in publishing(sent, 1, FRAME_MAX, piece)]


def header(headers: Mapping[str, Any], properties: Mapping[str, Any], size: int = 9) -> bytes:
    """A content header as py-amqp writes it."""
    made: Any = amqp.Message(b"", application_headers=dict(headers), **properties)
    return (60).to_bytes(2, "big") + bytes(2) + size.to_bytes(8, "big") + bytes(made._serialize_properties())


def nested(deep: int) -> bytes:
    """A field whose value is so many lists within each other."""
    return b"\x01a" + b"".join(b"A" + (5 * left).to_bytes(4, "big") for left in range(deep - 1, -1, -1))


def table(field: bytes) -> bytes:
    """A content header with nothing but this field of its headers."""
    return (60).to_bytes(2, "big") + bytes(10) + b"\x20\x00" + len(field).to_bytes(4, "big") + field


@given(messages)
def test_what_is_published_is_what_py_amqp_would_write(message: WireMessage) -> None:
    assert b"".join(ours(message)) == py_amqps(message)


def test_a_command_is_what_py_amqp_would_write() -> None:
    assert ours(A_COMMAND, A_COMMAND) == [py_amqps(A_COMMAND) * 2]


def test_a_batch_is_cut_where_a_piece_is_long_enough() -> None:
    sent = [WireMessage("q", {}, {}, bytes([number]) * 3000) for number in range(5)]

    pieces = ours(*sent, piece=8000)

    assert [len(piece) >= 8000 for piece in pieces] == [True, False]
    assert max(map(len, pieces)) < 8000 + 2 * FRAME_MAX
    assert b"".join(pieces) == b"".join(py_amqps(message) for message in sent)


def test_a_large_body_is_more_than_one_piece() -> None:
    large = WireMessage("q", {}, {}, b"x" * 10 * FRAME_MAX)

    pieces = ours(large, piece=2 * FRAME_MAX)

    assert len(pieces) == 6
    assert b"".join(pieces) == py_amqps(large)


def test_a_queue_whose_name_is_too_long_for_a_frame_is_an_error() -> None:
    with pytest.raises(ValueError, match="range"):
        ours(WireMessage("q" * 256, {}, {}, b""))


@given(st.dictionaries(names, values, max_size=6), properties)
def test_what_is_delivered_is_read_as_py_amqp_reads_it(headers: dict[str, Any], told: dict[str, Any]) -> None:
    frame = header(headers, told)

    expected, _ = decode_properties_basic(frame, 12)

    asked = ("content_type", "content_encoding", "delivery_mode", "correlation_id", "reply_to")
    read = content(frame)
    assert read.headers == expected["application_headers"]
    assert read.properties == {name: expected[name] for name in asked if name in expected}


def test_a_command_is_read_as_it_was_written() -> None:
    read = content(header(A_COMMAND.headers, A_COMMAND.properties, 261))

    assert read == Content(261, dict(A_COMMAND.headers), dict(A_COMMAND.properties))


def test_what_is_no_utf_8_is_read_all_the_same() -> None:
    headers: Any = {"good": "yes", "bad": b"\xff\xfe", b"\xfd": 1}
    read = content(header(headers, {"content_type": b"text/\xff", "reply_to": b"\xfe"}))

    assert read.headers == {"good": "yes", "bad": b"\xff\xfe", "\\xfd": 1}
    assert read.properties == {"content_type": "text/\\xff", "reply_to": "\\xfe"}


@pytest.mark.parametrize(
    "field",
    [
        b"\x01aT" + b"\xff" * 8,  # a moment beyond the last year
        b"\x01az",  # of no known kind
        nested(DEEPEST),
        nested(5000),  # beyond the interpreter's own stack, unless somebody made that larger
    ],
)
def test_headers_that_cannot_be_read_do_not_end_whoever_reads_them(field: bytes) -> None:
    assert content(table(field)) == Content(0, {}, {})


def test_headers_may_be_nested_as_deep_as_anybody_needs() -> None:
    value: list[Any] = []
    for _ in range(DEEPEST - 2):
        value = [value]

    assert content(table(nested(DEEPEST - 1))) == Content(0, {"a": value}, {})


def test_a_message_may_have_no_headers_at_all() -> None:
    bare: Any = amqp.Message(b"", content_type="text/plain")
    frame = (60).to_bytes(2, "big") + bytes(2) + bytes(8) + bare._serialize_properties()

    assert content(frame) == Content(0, {}, {"content_type": "text/plain"})


def test_the_tag_of_a_delivery_follows_the_consumers() -> None:
    frame = b"\x00\x3c\x00\x3c" + b"\x04ctag" + (2**40 + 7).to_bytes(8, "big") + b"\x00\x00\x01q"

    assert delivery_tag(frame) == 2**40 + 7
