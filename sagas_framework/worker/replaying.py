"""Sending quarantined messages to their queues again, when somebody has asked for it."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from sagas_framework.points import Point, reach
from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Publisher, Receipt

logger = logging.getLogger(__name__)


def send_again(publisher: Publisher, messages: Sequence[Quarantined]) -> list[str | None]:
    """Publish them as they came; for each why it was not sent, None if the broker has it."""
    reach(Point.REPLAY_TAKEN)
    troubles = _publish(publisher, messages)
    reach(Point.REPLAY_PUBLISHED)
    for message, trouble in zip(messages, troubles, strict=True):
        if trouble is None:
            logger.info(
                "message %d is sent to %s again, as %s asked", message.id, message.queue, message.replay
            )
        else:
            logger.warning("message %d could not be sent to %s again: %s", message.id, message.queue, trouble)
    return troubles


def _publish(publisher: Publisher, messages: Sequence[Quarantined]) -> list[str | None]:
    try:
        receipts = publisher.publish([as_it_came(message) for message in messages])
    except Exception as error:
        # A broker that is away raises nothing: one of them is no message that can be sent. It must not
        # keep the others here, nor come up again in every turn.
        if len(messages) == 1:
            return [f"{type(error).__name__}: {error}"]
        return [trouble for message in messages for trouble in _publish(publisher, [message])]
    return [None if receipt is Receipt.CONFIRMED else receipt.value for receipt in receipts]


def as_it_came(message: Quarantined) -> WireMessage:
    """A quarantined message as it was taken from its queue."""
    properties = {"delivery_mode": 2, **message.properties}
    return WireMessage(message.queue, message.headers, properties, message.body.encode())
