"""The publisher on a broker of its own, which is killed, wiped, hung and choked."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta

import pytest

from sagas_framework.transport.amqp import AmqpPublisher
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Publisher, Receipt
from tests.contract.looking import depth
from tests.contract.test_publisher import Broker, a_message, a_queue
from tests.servers import OwnRabbitmq


def in_time(publisher: Publisher, messages: Sequence[WireMessage], within: float) -> list[Receipt]:
    begun = time.monotonic()
    receipts = publisher.publish(messages)
    assert time.monotonic() - begun < within
    return receipts


def test_a_broker_that_dies_takes_nothing_until_it_is_back(
    own_rabbitmq: OwnRabbitmq, caplog: pytest.LogCaptureFixture
) -> None:
    queue = a_queue()
    with closing(AmqpPublisher(own_rabbitmq.url, [queue])) as publisher:
        before = a_message(queue, 1)
        assert publisher.publish([before]) == [Receipt.CONFIRMED]
        # RabbitMQ writes down a new quorum queue within half a second; killed sooner, it has a dead one.
        time.sleep(1)

        own_rabbitmq.kill()
        lost = in_time(publisher, [a_message(queue, 2), a_message(queue, 3)], within=5)
        waiting = depth(publisher, queue.name)
        own_rabbitmq.start()
        back = [a_message(queue, 4), a_message(queue, 5)]
        found = publisher.publish(back)

    assert lost == [Receipt.UNSENT] * 2
    assert waiting is None
    assert found == [Receipt.CONFIRMED] * 2
    assert "the broker did not take a batch of 2" in caplog.text
    bodies = [message.body for message in Broker(own_rabbitmq.url).take(queue)]
    assert bodies == [message.body for message in (before, *back)]


def test_a_restart_that_nobody_noticed_costs_nothing(own_rabbitmq: OwnRabbitmq) -> None:
    queue = a_queue()
    with closing(AmqpPublisher(own_rabbitmq.url, [queue])) as publisher:
        publisher.publish([a_message(queue)])

        own_rabbitmq.stop()
        own_rabbitmq.start()

        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]


def test_a_broker_that_was_wiped_has_our_queues_declared_again(own_rabbitmq: OwnRabbitmq) -> None:
    queue = a_queue()
    with closing(AmqpPublisher(own_rabbitmq.url, [queue])) as publisher:
        publisher.publish([a_message(queue)])

        own_rabbitmq.reset()

        assert depth(publisher, queue.name) in (0, None)  # None: the first to notice
        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]
        assert depth(publisher, queue.name) == 1


def test_a_broker_that_hangs_is_waited_for_no_longer_than_said(own_rabbitmq: OwnRabbitmq) -> None:
    queue = a_queue()
    with closing(
        AmqpPublisher(own_rabbitmq.url, [queue], confirm_within=timedelta(seconds=0.5))
    ) as publisher:
        publisher.publish([a_message(queue)])

        own_rabbitmq.pause()
        try:
            hung = in_time(publisher, [a_message(queue)], within=3)
        finally:
            own_rabbitmq.resume()

        assert hung == [Receipt.UNSENT]
        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]


def test_a_broker_without_memory_is_waited_for_no_longer_than_said(own_rabbitmq: OwnRabbitmq) -> None:
    queue = a_queue()
    with closing(
        AmqpPublisher(own_rabbitmq.url, [queue], confirm_within=timedelta(seconds=0.5))
    ) as publisher:
        publisher.publish([a_message(queue)])

        own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.00001")
        try:
            choked = in_time(publisher, [a_message(queue)], within=3)
        finally:
            own_rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")

        assert choked == [Receipt.UNSENT]
        assert publisher.publish([a_message(queue)]) == [Receipt.CONFIRMED]
