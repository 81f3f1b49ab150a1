"""What can happen to a saga, and what a decision about it holds. Time comes in with the event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import SagaInstance
from sagas_framework.messages import WireProtocol


class Result(StrEnum):
    """What a reply says."""

    SUCCESS = "success"
    REFUSED = "refused"  # final: a declared failure, an invalid payload, an unknown task
    FAILED = "failed"  # a transient fault: the next attempt may succeed


@dataclass(frozen=True)
class Started:
    """The saga's row was found and nothing was done for it yet."""

    saga_id: str
    at: datetime


@dataclass(frozen=True)
class ReplyReceived:
    """A participant answered.

    Args:
        refs: ids of the message that it answers, the most reliable first; empty when the reply bears none.
        task: name of the task that it answers (``restaurant_service.create_ticket``).
        payload: of a success; for a settled step its answer.
        error: ``type``, ``message``, ``module`` of a refusal or a fault.
        trace: the context in which it was given, if it is traced; no decision depends on it.
    """

    saga_id: str
    at: datetime
    refs: tuple[str, ...]
    task: str
    result: Result
    payload: Any = None
    error: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    trace: Mapping[str, str] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class TimerFired:
    """A moment of the row has come.

    Args:
        horizons: for a queue, the moment before which everything sent to it has left it; a command
            sent earlier and still not answered is presumed lost (`sagas_framework.core.lost`).
        unattended: queues from which nobody takes, as far as they could be looked at.
    """

    saga_id: str
    at: datetime
    horizons: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    unattended: frozenset[str] = frozenset()


@dataclass(frozen=True)
class LocalRan:
    """A local step ran in its savepoint: with a new `state`, or with an `error` and rolled back."""

    saga_id: str
    at: datetime
    step: str
    kind: Kind
    state: Mapping[str, Any] | None = None
    error: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Unroutable:
    """The broker had no queue for a command. It stays in flight, and is sent again if it may be."""

    saga_id: str
    at: datetime
    message_id: str


@dataclass(frozen=True)
class Confirmed:
    """The broker has a message that nobody will answer (`Outgoing.unanswered`)."""

    saga_id: str
    at: datetime
    message_id: str


class Act(StrEnum):
    """What an operator can do."""

    RETRY = "retry"
    SKIP = "skip"
    COMPLETE = "complete"
    WITHDRAW = "withdraw"  # of a step without an inbox, whose outcome is unknown: it did not happen
    RESCHEDULE = "reschedule"  # the moment at which a wait, a delay or the whole saga is over
    CANCEL = "cancel"


@dataclass(frozen=True)
class OperatorActed:
    """A person decided something about the saga.

    Args:
        revision: of the instance on which it was decided; another one is refused (rule 17). None from
            code that acts on whatever it finds.
        step: which; None for the only one it can be. To reschedule: None for the saga's own deadline.
        reply: for `COMPLETE`, what the participant would have answered; of a plain task any JSON value.
        force: do not ask the participant, who is gone; said so in the history.
        until: for `RESCHEDULE`, the new moment.
    """

    saga_id: str
    at: datetime
    act: Act
    by: str
    reason: str
    revision: int | None = None
    step: str | None = None
    reply: Any = None
    force: bool = False
    until: datetime | None = None


@dataclass(frozen=True)
class SignalReceived:
    """Somebody outside told the saga something (rules 22 to 25).

    Args:
        number: of its row.
        signal: the name of its class.
        said_at: when it was stored, which decides between it and a deadline.
        by, reason: who sent it and why, if that was said.
        trace: the context in which it was sent, if that is traced; no decision depends on it.
    """

    saga_id: str
    at: datetime
    number: int
    signal: str
    payload: Mapping[str, Any]
    said_at: datetime
    by: str = ""
    reason: str = ""
    trace: Mapping[str, str] | None = field(default=None, compare=False)


Event = (
    Started | ReplyReceived | TimerFired | LocalRan | Unroutable | Confirmed | OperatorActed | SignalReceived
)


@dataclass(frozen=True)
class Outgoing:
    """A command to publish after the commit. Equal decisions make equal messages.

    Args:
        not_after: a delivery later than this is neither executed nor answered (rule 10).
        known: whether the saga saw the step succeed; said by compensations, and when they are handed over.
        hand_over: of a settle: an operator does the undoing.
        again: whether it was sent before.
        protocol: how it is to be written.
        unanswered: nobody answers it, so the broker's confirmation is told to the core (`Confirmed`).
    """

    saga_id: str
    message_id: str
    operation_id: str
    kind: Kind
    task: str
    queue: str
    attempt: int
    not_after: datetime
    payload: dict[str, Any] | None
    known: bool = False
    hand_over: bool = False
    again: bool = False
    protocol: WireProtocol = WireProtocol.INBOX
    unanswered: bool = False


@dataclass(frozen=True)
class Recorded:
    """A line of the history: ``<step>.running``, ``parked``, ... with what belongs to it."""

    at: datetime
    entry: str
    step: str | None = None
    detail: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class LocalCall:
    """A local step to run now, inside the transaction; its result comes back as `LocalRan`."""

    step: str
    kind: Kind


@dataclass(frozen=True)
class Decision:
    """What happens next. Nothing has happened yet.

    Args:
        answer: to an operator's act: what it set going, or why it was refused; why a signal is too late.
        refused: the act changed nothing.
        too_late: nothing will ever take the signal.
        ignored: why the event changed nothing; a signal may be taken later.
        answered: queue and time of sending of the command whose answer this was.
        raised: by the saga's own code, each with the step that it was called for; for the log.
    """

    instance: SagaInstance
    commands: tuple[Outgoing, ...] = ()
    history: tuple[Recorded, ...] = ()
    local: LocalCall | None = None
    answer: str | None = None
    refused: bool = False
    ignored: str | None = None
    too_late: bool = False
    answered: tuple[str, datetime] | None = None
    raised: tuple[tuple[str, Exception], ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Policy:
    """Numbers that hold for every saga of an orchestrator.

    Args:
        message_lifetime: how long after the decision to send it a message may still be executed.
        inbox_retention: how long the participants keep inbox rows.
        clock_skew: by how much two machines' clocks may differ.
        resend_first: the first look whether a message was lost comes this long after sending.
        resend_ceiling: the pauses between looks double up to this.
        signal_retention: how long a signal is kept for a saga that does not come, and an answered one to
            tell a repetition by.
        resend_cap: after so many looks in a row at a queue that somebody takes from, and that does not
            move, a message which waits its turn there is sent again anyway.
    """

    message_lifetime: timedelta = timedelta(days=1)
    inbox_retention: timedelta = timedelta(days=30)
    clock_skew: timedelta = timedelta(minutes=5)
    resend_first: timedelta = timedelta(seconds=10)
    resend_ceiling: timedelta = timedelta(seconds=60)
    resend_cap: int = 10
    signal_retention: timedelta = timedelta(days=30)

    def resend_pause(self, looks: int) -> timedelta:
        """The pause before the next look, after so many; doubles up to the ceiling."""
        return min(self.resend_first * (1 << min(looks, 16)), self.resend_ceiling)

    @property
    def sendable_for(self) -> timedelta:
        """How long after a step's first command anything may still be sent for it (rule 10)."""
        return self.inbox_retention - self.message_lifetime - self.clock_skew
