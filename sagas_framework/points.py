"""Named moments of a worker's life, between any two of which it may die.

For tests only. In production nobody listens, and reaching a point costs a look at a global name.
The crash matrix (`docs/reference/crash-matrix.md`) breaks something at every one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any


class Point(StrEnum):
    """A moment. Its name says what has just happened."""

    # The orchestrator's reply consumer.
    BATCH_TAKEN = "batch taken"
    BATCH_DECIDED = "batch decided"  # nothing is committed
    BATCH_COMMITTED = "batch committed"  # its commands are not published
    BATCH_PUBLISHED = "batch published"  # its replies are not acknowledged
    BATCH_ACKNOWLEDGED = "batch acknowledged"
    # The timekeeper: what is due, sagas that begin among it.
    TIMERS_DECIDED = "timers decided"
    TIMERS_COMMITTED = "timers committed"
    TIMERS_PUBLISHED = "timers published"
    # The timekeeper: what operators asked for, and signals.
    ACTS_DECIDED = "acts decided"
    ACTS_COMMITTED = "acts committed"
    ACTS_PUBLISHED = "acts published"
    # A participant; its commands are compensations and settlings, too.
    COMMAND_TAKEN = "command taken"
    COMMAND_CLAIMED = "command claimed"  # by an outside handler, committed; it has not worked
    COMMAND_HANDLED = "command handled"  # inside: nothing is committed
    COMMAND_COMMITTED = "command committed"  # its reply is not sent
    COMMAND_ANSWERED = "command answered"  # it is not acknowledged
    # A participant that handles its commands in batches.
    COMMANDS_TAKEN = "commands taken"
    COMMANDS_HANDLED = "commands handled"  # nothing is committed
    COMMANDS_COMMITTED = "commands committed"  # their replies are not sent
    COMMANDS_ANSWERED = "commands answered"  # they are not acknowledged
    # The relay: messages that were set aside and go to their queue again.
    REPLAY_TAKEN = "replay taken"
    REPLAY_PUBLISHED = "replay published"  # they are still in the quarantine
    # Whoever starts a saga.
    SAGA_WRITTEN = "saga written"  # in the caller's transaction, not committed


class EventPoint(StrEnum):
    """A moment on an event's way; `tests/integration/test_events_survive.py` breaks something at each."""

    EVENT_WRITTEN = "event written"  # in the publisher's transaction, not committed
    # The relay.
    EVENTS_READ = "events read"
    EVENTS_PUBLISHED = "events published"  # and confirmed; they are not marked as sent
    EVENTS_MARKED = "events marked"  # as sent, committed
    # A subscriber's consumer.
    EVENTS_TAKEN = "events taken"
    EVENTS_RECEIVED = "events received"  # written down, committed; they are not acknowledged
    # A subscriber.
    EVENT_CLAIMED = "event claimed"  # its attempt is counted; the handler has not worked
    EVENT_HANDLED = "event handled"  # the handler has worked, nothing is committed
    EVENT_DONE = "event done"  # committed
    EVENT_FAILED = "event failed"  # the handler has failed, that is not noted


_listener: Callable[[Any], None] | None = None


def reach(point: Point | EventPoint) -> None:
    """Say that the point is reached. Whatever the listener raises goes on to the caller."""
    if _listener is not None:
        _listener(point)


def listen(listener: Callable[[Any], None] | None) -> None:
    """Have the listener called at every point from now on, in the thread that reaches it; None: nobody.

    For tests. There is one listener in a process; a process that is forked has it, too.
    """
    global _listener
    _listener = listener
