"""The edge to a broker: publish a batch, know what became of each message, see how long a queue is."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from sagas_framework.transport.envelope import WireMessage


class Receipt(StrEnum):
    """What became of a published message."""

    CONFIRMED = "confirmed"  # the broker has it
    UNROUTABLE = "unroutable"  # there is no such queue
    UNSENT = "unsent"  # no broker, or it did not confirm: perhaps it has it, perhaps not


class Load(NamedTuple):
    """A queue at one moment.

    Args:
        messages: how many wait, those being handled not counted.
        consumers: how many workers take from it; None where the broker does not say.
    """

    messages: int
    consumers: int | None = None


class Publisher(Protocol):
    """What the shell asks of a broker. Every promise is a test in ``tests/contract``."""

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        """Send all, await the broker's confirmations together; a receipt for each, in order.

        Never raises for a broker that is away: what is not confirmed is `UNSENT`, and its owner
        sends it again later.
        """

    def load(self, queue: str) -> Load | None:
        """What waits in the queue and who takes from it; None: no broker to ask.

        A queue that does not exist holds nothing: what was sent to it is lost.
        """

    def close(self) -> None:
        """Give the connection back."""
