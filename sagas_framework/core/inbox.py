"""The participant's side of the protocol: one row per operation, one state machine.

`judge` is the table of rule 3: what a message means for the row it finds. The rules cited are those
of ``docs/explanation/protocol.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, assert_never

from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind

INBOX_ROW_MISSING: Final = "InboxRowMissing"
WITHDRAWN: Final = "Withdrawn"


class RowState(StrEnum):
    """How an operation stands at its participant."""

    CLAIMED = "claimed"  # a handler that works outside the transaction has it, until its lease ends
    FAILED = "failed"
    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"  # the tombstone: it never happened and never will
    UNDONE = "undone"
    # Closed like `UNDONE`, but the effect is there and undoing it is an operator's (rule 17). A state of
    # its own, so that the settling that comes twice is answered twice alike.
    HANDED_OVER = "handed_over"


class SettleAnswer(StrEnum):
    """What a settled step answers."""

    DONE = "done"
    REFUSED = "refused"
    WITHDRAWN = "withdrawn"
    YOURS_TO_UNDO = "yours_to_undo"


@dataclass(frozen=True)
class Stored:
    """A reply as it is kept in the row, and sent from it."""

    result: Result
    payload: Any = None

    def to_json(self) -> dict[str, Any]:
        return {"result": self.result.value, "payload": self.payload}

    @classmethod
    def from_json(cls, value: Mapping[str, Any] | None) -> Stored | None:
        return None if value is None else cls(Result(value["result"]), value["payload"])


@dataclass(frozen=True)
class InboxRow:
    """One operation.

    Args:
        key: the operation id; for a command that bears none, its task id (rule 3).
        attempt: the claimed or failed one.
        claim: which claim it is; a handler whose claim was taken over must not write.
        reply: to the command.
        undo_attempt: the last try of the compensation that failed; 0 for none.
        undo_reply: what that try answered.
    """

    key: str
    saga_id: str
    task: str
    state: RowState
    attempt: int = 1
    claim: str | None = None
    lease_until: datetime | None = None
    reply: Stored | None = None
    undo_attempt: int = 0
    undo_reply: Stored | None = None


@dataclass(frozen=True)
class Delivery:
    """A message as the inbox sees it. `known`, `hand_over`: what the saga says (rules 9 and 17)."""

    kind: Kind
    key: str
    attempt: int = 1
    known: bool = False
    hand_over: bool = False


@dataclass(frozen=True)
class Execute:
    """Run the handler."""


@dataclass(frozen=True)
class Undo:
    """Run the undo handler with the stored reply, close the row as undone, then give `answer`."""

    answer: Stored


@dataclass(frozen=True)
class Answer:
    """Answer from the row; nothing changes."""

    reply: Stored


@dataclass(frozen=True)
class Close:
    """Close the row without running anything, and answer."""

    state: RowState
    answer: Stored


@dataclass(frozen=True)
class Drop:
    """No reply: it is being handled right now, and will be sent again."""


Verdict = Execute | Undo | Answer | Close | Drop

_UNDONE: Final = Stored(Result.SUCCESS)
_SETTLED_WITHDRAWN: Final = Stored(Result.SUCCESS, {"answer": SettleAnswer.WITHDRAWN.value})


def refusal(type_: str, message: str) -> Stored:
    """A refusal that the framework itself gives."""
    return Stored(Result.REFUSED, {"type": type_, "message": message, "module": "sagas_framework"})


_ROW_MISSING: Final = Stored(
    Result.FAILED,
    {
        "type": INBOX_ROW_MISSING,
        "message": "the saga saw this succeed, but the inbox has no row of it: find out by hand",
        "module": "sagas_framework",
    },
)


def judge(row: InboxRow | None, delivery: Delivery, *, now: datetime, outside: bool) -> Verdict:
    """What to do with a message, given the row of its operation (rule 3).

    Args:
        outside: whether the command's handler touches anything outside its transaction (rule 8).
    """
    match delivery.kind:
        case Kind.DO:
            return _do(row, delivery, now)
        case Kind.UNDO:
            return _undo(row, delivery, now, outside)
        case Kind.SETTLE:
            return _settle(row, delivery, now, outside)
        case _:
            assert_never(delivery.kind)


def _live(row: InboxRow, now: datetime) -> bool:
    return row.state is RowState.CLAIMED and row.lease_until is not None and row.lease_until > now


def _do(row: InboxRow | None, delivery: Delivery, now: datetime) -> Verdict:
    if row is None:
        return Execute()
    match row.state:
        case RowState.CLAIMED:
            return Drop() if _live(row, now) else Execute()
        case RowState.FAILED:
            if delivery.attempt > row.attempt or row.reply is None:
                return Execute()
            return Answer(row.reply)
        case RowState.DONE | RowState.REFUSED if row.reply is not None:
            return Answer(row.reply)
        case _:
            return Answer(refusal(WITHDRAWN, f"{row.task} was withdrawn before it came; nothing was done"))


def _undo(row: InboxRow | None, delivery: Delivery, now: datetime, outside: bool) -> Verdict:
    if row is None:
        if delivery.known:  # the saga saw it succeed, so a missing row is a lost one (rule 9)
            return Answer(_ROW_MISSING)
        return Close(RowState.WITHDRAWN, _UNDONE)
    if _live(row, now):
        return Drop()
    if (
        row.undo_reply is not None
        and delivery.attempt <= row.undo_attempt
        and row.state not in (RowState.UNDONE, RowState.HANDED_OVER)
    ):
        return Answer(row.undo_reply)
    match row.state:
        case RowState.DONE | RowState.CLAIMED:
            return Undo(_UNDONE)
        case RowState.FAILED:
            return Undo(_UNDONE) if outside else Close(RowState.WITHDRAWN, _UNDONE)
        case RowState.REFUSED | RowState.WITHDRAWN | RowState.UNDONE | RowState.HANDED_OVER:
            return Answer(_UNDONE)
        case _:
            assert_never(row.state)


def _settle(row: InboxRow | None, delivery: Delivery, now: datetime, outside: bool) -> Verdict:
    if row is None:
        if delivery.known:  # as for an undo: "nothing to undo" would be a guess (rule 9)
            return Answer(_ROW_MISSING)
        return Close(RowState.WITHDRAWN, _SETTLED_WITHDRAWN)
    if _live(row, now):
        return Drop()
    match row.state:
        case RowState.DONE:
            if delivery.hand_over:
                return Close(RowState.HANDED_OVER, _settled(SettleAnswer.YOURS_TO_UNDO, row))
            return Answer(_settled(SettleAnswer.DONE, row))
        case RowState.HANDED_OVER:
            return Answer(_settled(SettleAnswer.YOURS_TO_UNDO, row))
        case RowState.REFUSED:
            error = row.reply.payload if row.reply else {}
            return Answer(Stored(Result.SUCCESS, {"answer": SettleAnswer.REFUSED.value, "error": error}))
        case RowState.CLAIMED:
            return Undo(_SETTLED_WITHDRAWN)
        case RowState.FAILED:
            return Undo(_SETTLED_WITHDRAWN) if outside else Close(RowState.WITHDRAWN, _SETTLED_WITHDRAWN)
        case RowState.WITHDRAWN | RowState.UNDONE:
            return Answer(_SETTLED_WITHDRAWN)
        case _:
            assert_never(row.state)


def _settled(answer: SettleAnswer, row: InboxRow) -> Stored:
    """It happened: the answer, with the reply that the command had."""
    reply = row.reply.payload if row.reply else None
    return Stored(Result.SUCCESS, {"answer": answer.value, "reply": reply})
