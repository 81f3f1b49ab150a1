"""The tap misses nothing and changes nothing: otherwise "no undocumented message" would mean little."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import pytest

from tests.asyncapi.tap import Delivered, Tap
from tests.servers import random_name, wait_until

BODIES = (b"", b"[[], {}, {}]", "Küche".encode(), b"\x00\xce" * 200_000)  # the last takes several frames


def connected(url: str) -> Any:
    parts = urlsplit(url)
    connection = amqp.Connection(
        f"{parts.hostname}:{parts.port}",
        userid=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        virtual_host=unquote(parts.path[1:]),
    )
    connection.connect()
    return connection


@pytest.mark.parametrize("way", ["basic.get", "basic.consume"])
def test_what_is_delivered_is_kept_byte_by_byte(rabbitmq_module_url: str, way: str) -> None:
    queue, taken = random_name(), []
    tap = Tap(rabbitmq_module_url)
    sender, receiver = connected(rabbitmq_module_url), connected(tap.url)
    channel = receiver.channel()
    channel.auto_decode = False
    channel.queue_declare(queue)
    out = sender.channel()
    for number, body in enumerate(BODIES):
        headers = {"task": f"shop.{number}", "parent_id": None, "timelimit": [None, 1], "flag": True}
        message = amqp.Message(body, application_headers=headers, correlation_id=str(number))
        out.basic_publish(message, routing_key=queue)

    if way == "basic.get":
        wait_until(lambda: channel.queue_declare(queue, passive=True).message_count == len(BODIES), queue)
        taken = [channel.basic_get(queue, no_ack=True) for _ in BODIES]
    else:
        channel.basic_consume(queue, no_ack=True, callback=taken.append)
        while len(taken) < len(BODIES):
            receiver.drain_events(timeout=10)
    kept = tap.delivered()
    for connection in (sender, receiver):
        connection.close()
    tap.close()

    assert [bytes(message.body or b"") for message in taken] == list(BODIES)
    assert kept == [
        Delivered(
            queue,
            {"task": f"shop.{number}", "parent_id": None, "timelimit": [None, 1], "flag": True},
            {"correlation_id": str(number)},
            body,
        )
        for number, body in enumerate(BODIES)
    ]
