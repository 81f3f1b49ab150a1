"""Sending quarantined messages to their queues again, when somebody has asked for it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Publisher, Receipt

logger = logging.getLogger(__name__)


def send_again(
    publisher: Publisher, replays: Sequence[Quarantined], set_aside: Callable[[Quarantined], None]
) -> None:
    """Publish them; what the broker does not take is set aside again, and says so."""
    receipts = publisher.publish([as_it_came(message) for message in replays])
    for message, receipt in zip(replays, receipts, strict=True):
        if receipt is Receipt.CONFIRMED:
            logger.info(
                "message %d is sent to %s again, as %s asked", message.id, message.queue, message.replay
            )
        else:
            logger.warning(
                "message %d could not be sent to %s again: %s", message.id, message.queue, receipt.value
            )
            set_aside(replace(message, reason=f"{message.reason} (not sent again: {receipt.value})"))


def as_it_came(message: Quarantined) -> WireMessage:
    """A quarantined message as it was taken from its queue."""
    properties = {"delivery_mode": 2, **message.properties}
    return WireMessage(message.queue, message.headers, properties, message.body.encode())
