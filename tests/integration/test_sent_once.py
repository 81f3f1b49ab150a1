"""What is meant for a participant without an inbox reaches RabbitMQ at most once, whatever breaks."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sagas_framework import Queue
from sagas_framework.transport.amqp import AmqpPublisher, _Link
from sagas_framework.transport.envelope import Envelope, WireMessage, to_wire
from sagas_framework.transport.publisher import Receipt

QUEUE = Queue("bakery.commands")


@pytest.fixture
def publisher(rabbitmq_url: str) -> Iterator[AmqpPublisher]:
    """One that has published before, and so has a connection."""
    publisher = AmqpPublisher(rabbitmq_url, [QUEUE])
    assert publisher.publish([message(once=False)]) == [Receipt.CONFIRMED]
    yield publisher
    publisher.close()


def message(*, once: bool) -> WireMessage:
    written = to_wire(Envelope(QUEUE.name, "bakery.bake", "m1", "saga-1", {"order": 1}))
    return replace(written, once=once)


def waiting(publisher: AmqpPublisher) -> int:
    load = publisher.load(QUEUE.name)
    assert load is not None
    return load.messages


def test_a_connection_that_died_unseen_is_replaced_first(publisher: AmqpPublisher) -> None:
    link: Any = publisher._link
    link._amqp.transport.sock.shutdown(socket.SHUT_RDWR)

    receipts = publisher.publish([message(once=True)])

    assert receipts == [Receipt.CONFIRMED]
    assert waiting(publisher) == 2


@pytest.mark.parametrize(
    ("once", "receipt", "sent"), [(True, Receipt.UNSENT, 1), (False, Receipt.CONFIRMED, 2)]
)
def test_one_that_dies_before_the_confirmation_leaves_it_open(
    publisher: AmqpPublisher, monkeypatch: pytest.MonkeyPatch, once: bool, receipt: Receipt, sent: int
) -> None:
    """The broker may have it, so only what an inbox would recognise goes again."""
    publish, dies = _Link.publish, iter([True, False])

    def dying(
        self: _Link,
        messages: Sequence[WireMessage],
        todo: Sequence[int],
        receipts: list[Receipt],
        within: float,
    ) -> None:
        seen = list(receipts)
        publish(self, messages, todo, seen, within)
        if next(dies):
            raise ConnectionResetError("before the confirmation was read")
        receipts[:] = seen

    monkeypatch.setattr(_Link, "publish", dying)

    assert publisher.publish([message(once=once)]) == [receipt]
    assert waiting(publisher) == 1 + sent
