"""AMQP's frames for what is published and delivered: bytes in, bytes out, no socket.

py-amqp makes and reads any frame there is, one value at a time. Eight messages travel for each saga, and
all are of one kind, so theirs are written and read here directly; whatever is unusual about a message is
left to py-amqp, whose answer would be the same.

Reference:
    AMQP 0-9-1, sections 4.2 (frames) and 1.8 (the class basic); RabbitMQ's errata for types of fields.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from struct import Struct
from typing import Any, Final, NamedTuple

import amqp
from amqp.serialization import dumps, loads

from sagas_framework.transport.envelope import WireMessage

logger = logging.getLogger(__name__)

METHOD: Final = 1
HEADER: Final = 2
BODY: Final = 3

DELIVER: Final = b"\x00\x3c\x00\x3c"  # basic.deliver
_PUBLISH: Final = b"\x00\x3c\x00\x28\x00\x00"  # basic.publish, reserved
_MANDATORY: Final = b"\x01"
_OPTIONAL: Final = b"\x00"
_END: Final = b"\xce"
FRAME_AROUND: Final = 8
"""Bytes that a frame adds to what it carries."""
DEEPEST: Final = 64
"""Tables and lists within each other that a header may be; one deeper ends whoever copies or prints it."""

_FRAME: Final = Struct(">BHI")  # type, channel, size
_CONTENT: Final = Struct(">HHQ")  # class, weight, size of the body
_LONG: Final = Struct(">I")
_LONG_LONG: Final = Struct(">Q")
_FLAGS: Final = Struct(">H")
_STRING: Final = Struct(">cI")
_NUMBER: Final = Struct(">ci")
_SIGNED: Final = Struct(">i")
_SIGNED_LONG: Final = Struct(">q")

# In the order in which they are written.
_SHORT_STRINGS_BEFORE: Final = (("content_type", 0x8000), ("content_encoding", 0x4000))
_HEADERS: Final = 0x2000
_DELIVERY_MODE: Final = 0x1000
_SHORT_STRINGS_AFTER: Final = (("correlation_id", 0x0400), ("reply_to", 0x0200))
_OURS: Final = frozenset(("content_type", "content_encoding", "delivery_mode", "correlation_id", "reply_to"))
_PRIORITY: Final = 0x0800


# ---- what is published ----------------------------------------------------------------------------


def publishing(
    messages: Sequence[WireMessage], channel: int, frame_max: int, piece: int
) -> Iterator[bytearray]:
    """The frames that publish these messages, in pieces of bytes.

    Those to a queue are `mandatory`: that it is gone must be told. That nobody subscribes to a topic is fine.

    Args:
        frame_max: the largest frame that was agreed on.
        piece: bytes after which a piece ends; it is longer by no more than a frame.
    """
    begun = bytearray()
    for message in messages:
        properties = _content_header(message)
        for kind, payload in (
            (METHOD, _publish(message)),
            (HEADER, _CONTENT.pack(60, 0, len(message.body)) + properties),
        ):
            begun += _FRAME.pack(kind, channel, len(payload))
            begun += payload
            begun += _END
        for at in range(0, len(message.body), frame_max - FRAME_AROUND):
            payload = message.body[at : at + frame_max - FRAME_AROUND]
            begun += _FRAME.pack(BODY, channel, len(payload))
            begun += payload
            begun += _END
            if len(begun) >= piece:
                yield begun
                begun = bytearray()
    if begun:
        yield begun


def _publish(message: WireMessage) -> bytes:
    exchange = message.exchange
    return _PUBLISH + _name(exchange) + _name(message.queue) + (_OPTIONAL if exchange else _MANDATORY)


def _content_header(message: WireMessage) -> bytes:
    """Flags and properties; the headers are one of them."""
    given = message.properties
    if not _OURS.issuperset(given):
        return _any_properties(message)
    flags = _HEADERS
    before = after = b""
    for name, flag in _SHORT_STRINGS_BEFORE:
        if given.get(name) is not None:
            flags |= flag
            before += _short(given[name])
    mode = given.get("delivery_mode")
    if mode is not None:
        flags |= _DELIVERY_MODE
        after = bytes((mode,))
    for name, flag in _SHORT_STRINGS_AFTER:
        if given.get(name) is not None:
            flags |= flag
            after += _short(given[name])
    return _FLAGS.pack(flags) + before + _table(message.headers) + after


def _any_properties(message: WireMessage) -> bytes:
    content: Any = amqp.Message(message.body, application_headers=dict(message.headers), **message.properties)
    made: bytes = content._serialize_properties()
    return made


def _table(headers: Mapping[str, Any]) -> bytes:
    fields = bytearray()
    for name, value in headers.items():
        fields += _name(name)
        kind = type(value)
        if kind is str:
            text = value.encode("utf-8", "surrogatepass")
            fields += _STRING.pack(b"S", len(text))
            fields += text
        elif kind is bool:
            fields += b"t\x01" if value else b"t\x00"
        elif kind is int and -0x80000000 < value < 0x80000000:
            fields += _NUMBER.pack(b"I", value)
        elif value is None:
            fields += b"V"
        else:
            made: bytes = dumps("F", (dict(headers),))
            return made
    return _LONG.pack(len(fields)) + fields


@lru_cache(512)  # queues and names of headers are few; ids come once or twice, and push each other out
def _name(text: str) -> bytes:
    return _short(text)


def _short(text: str) -> bytes:
    """A short string: its length in a byte, then up to 255 bytes.

    Raises:
        ValueError: it is longer.
    """
    data = text.encode("utf-8", "surrogatepass")
    return bytes((len(data),)) + data


# ---- what is delivered ----------------------------------------------------------------------------


class Content(NamedTuple):
    """A content header: how long the body is, and what is told about it."""

    size: int
    headers: dict[str, Any]
    properties: dict[str, Any]


def delivery_tag(payload: bytes) -> int:
    """The number under which the delivery in this method's frame is acknowledged."""
    at = 5 + payload[4]  # after the consumer's tag
    tag: int = _LONG_LONG.unpack_from(payload, at)[0]
    return tag


def content(payload: bytes) -> Content:
    """What the frame of a content header says, as far as anybody here asks.

    What is not there is not among the properties. Bytes that are no UTF-8 become ``\\xNN`` in a property
    or a header's name, and stay bytes in a header's value: a message must not end whoever reads it.
    """
    _, _, size = _CONTENT.unpack_from(payload, 0)
    (flags,) = _FLAGS.unpack_from(payload, 12)
    at = 14
    properties: dict[str, Any] = {}
    headers: dict[str, Any] = {}
    for name, flag in _SHORT_STRINGS_BEFORE:
        if flags & flag:
            end = at + 1 + payload[at]
            properties[name] = payload[at + 1 : end].decode("utf-8", "backslashreplace")
            at = end
    if flags & _HEADERS:
        end = at + 4 + _LONG.unpack_from(payload, at)[0]
        found = _fields(payload, at + 4, end)
        headers = _any_fields(payload, at) if found is None else found
        at = end
    if flags & _DELIVERY_MODE:
        properties["delivery_mode"] = payload[at]
        at += 1
    if flags & _PRIORITY:
        at += 1
    for name, flag in _SHORT_STRINGS_AFTER:
        if flags & flag:
            end = at + 1 + payload[at]
            properties[name] = payload[at + 1 : end].decode("utf-8", "backslashreplace")
            at = end
    return Content(size, headers, properties)


def _any_fields(payload: bytes, at: int) -> dict[str, Any]:
    """The headers that begin here, of any kind; none if one cannot be read: whoever looks sets it aside."""
    try:
        (found,), _ = loads("F", payload, at)
    except Exception:  # an unknown kind, a moment beyond the last year, nested beyond the interpreter's stack
        logger.warning("a message's headers cannot be read", exc_info=True)
        return {}
    if _nested(found, DEEPEST):
        logger.warning("a message's headers cannot be read: they are nested more than %d deep", DEEPEST)
        return {}
    return {
        name if isinstance(name, str) else name.decode("utf-8", "backslashreplace"): value
        for name, value in found.items()
    }


def _nested(table: dict[Any, Any], deepest: int) -> bool:
    """Whether there are more tables and lists within each other than this, without a stack of our own."""
    level: list[Any] = [table]
    for _ in range(deepest):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return False
    return True


def _fields(data: bytes, at: int, end: int) -> dict[str, Any] | None:
    """The headers between these places; None: one is of a kind that ours never are."""
    fields: dict[str, Any] = {}
    try:
        while at < end:
            begun = at + 1
            at = begun + data[at]
            name = data[begun:at].decode()
            kind = data[at]
            at += 1
            if kind == 83:  # S
                begun = at + 4
                at = begun + _LONG.unpack_from(data, at)[0]
                fields[name] = data[begun:at].decode()
            elif kind == 86:  # V
                fields[name] = None
            elif kind == 73:  # I
                fields[name] = _SIGNED.unpack_from(data, at)[0]
                at += 4
            elif kind == 116:  # t
                fields[name] = data[at] != 0
                at += 1
            elif kind in (108, 76):  # l, L: RabbitMQ's own count of deliveries is one
                fields[name] = _SIGNED_LONG.unpack_from(data, at)[0]
                at += 8
            else:
                return None
    except UnicodeDecodeError:
        return None
    return fields
