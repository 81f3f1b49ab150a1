"""The participant's table (rule 3): what a message means for the row it finds, every cell."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from typing import Final, NamedTuple

import pytest

from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import (
    INBOX_ROW_MISSING,
    WITHDRAWN,
    Answer,
    Close,
    Delivery,
    Drop,
    Execute,
    InboxRow,
    RowState,
    Stored,
    Undo,
    Verdict,
    judge,
)
from tests.unit.core.stories import NOON

KEY = "operation-1"
TICKET = Stored(Result.SUCCESS, {"ticket_id": 7})
CLOSED = Stored(Result.REFUSED, {"type": "RestaurantClosed", "message": "closed", "module": "restaurant"})
FAULT = Stored(Result.FAILED, {"type": "ConnectionReset", "message": "reset", "module": "socket"})
UNDO_FAULT = Stored(Result.FAILED, {"type": "DiskFull", "message": "full", "module": "os"})

ATTEMPT = 2
"""That the row claimed or saw fail; the message's is one less, the same or one more."""


def row(state: RowState, *, live: bool = False, undo_failed: bool = False) -> InboxRow:
    reply = {RowState.FAILED: FAULT, RowState.CLAIMED: None, RowState.REFUSED: CLOSED}.get(state, TICKET)
    if state is RowState.WITHDRAWN:
        reply = None
    return InboxRow(
        key=KEY,
        saga_id="saga-1",
        task="restaurant_service.create_ticket",
        state=state,
        attempt=ATTEMPT,
        claim="claim-1" if state is RowState.CLAIMED else None,
        lease_until=NOON + timedelta(seconds=30 if live else 0) if state is RowState.CLAIMED else None,
        reply=reply,
        undo_attempt=ATTEMPT if undo_failed else 0,
        undo_reply=UNDO_FAULT if undo_failed else None,
    )


# ---- the whole table ------------------------------------------------------------------------------

ROWS: Final[dict[str, InboxRow | None]] = {
    "none": None,
    "claimed, live": row(RowState.CLAIMED, live=True),
    "claimed, over": row(RowState.CLAIMED),
    "failed": row(RowState.FAILED),
    "done": row(RowState.DONE),
    "refused": row(RowState.REFUSED),
    "withdrawn": row(RowState.WITHDRAWN),
    "undone": row(RowState.UNDONE),
    "handed over": row(RowState.HANDED_OVER),
}

SETTLED_WITHDRAWN = Stored(Result.SUCCESS, {"answer": "withdrawn"})
SETTLED_DONE = Stored(Result.SUCCESS, {"answer": "done", "reply": {"ticket_id": 7}})
SETTLED_REFUSED = Stored(Result.SUCCESS, {"answer": "refused", "error": CLOSED.payload})
YOURS = Stored(Result.SUCCESS, {"answer": "yours_to_undo", "reply": {"ticket_id": 7}})
UNDONE = Stored(Result.SUCCESS)


class Cell(NamedTuple):
    """One situation: the row, the message, and what both sides say of themselves."""

    row: str
    kind: Kind
    attempt: str
    known: bool
    hand_over: bool
    outside: bool

    def told(self) -> str:
        said = [word for word in ("known", "hand_over", "outside") if getattr(self, word)]
        return " ".join([self.kind, self.attempt, "to", self.row, *said])

    @property
    def delivery(self) -> Delivery:
        attempt = ATTEMPT + {"<": -1, "=": 0, ">": 1}[self.attempt]
        return Delivery(self.kind, KEY, attempt, self.known, self.hand_over)

    @property
    def verdict(self) -> Verdict:
        return judge(ROWS[self.row], self.delivery, now=NOON, outside=self.outside)


BOTH = (False, True)


ALL_CELLS: Final = [Cell(*parts) for parts in product(ROWS, Kind, "<=>", BOTH, BOTH, BOTH)]


def expected(cell: Cell) -> str:
    """The table of rule 3, line by line, as a reader of it would say it."""
    match cell:
        case Cell(row="claimed, live"):
            return "drop"
        # ---- do
        case Cell(row="none" | "claimed, over", kind=Kind.DO):
            return "execute"
        case Cell(row="failed", kind=Kind.DO, attempt=">"):
            return "execute"
        case Cell(row="failed", kind=Kind.DO):
            return "stored fault"
        case Cell(row="done", kind=Kind.DO):
            return "stored reply"
        case Cell(row="refused", kind=Kind.DO):
            return "stored refusal"
        case Cell(row="withdrawn" | "undone" | "handed over", kind=Kind.DO):
            return "refuse as withdrawn"
        # ---- undo
        case Cell(row="none", kind=Kind.UNDO, known=True):
            return "row missing"
        case Cell(row="none", kind=Kind.UNDO):
            return "withdraw, undone"
        case Cell(row="claimed, over" | "done", kind=Kind.UNDO):
            return "undo, undone"
        case Cell(row="failed", kind=Kind.UNDO, outside=True):
            return "undo, undone"
        case Cell(row="failed", kind=Kind.UNDO):
            return "withdraw, undone"
        case Cell(row="refused" | "withdrawn" | "undone" | "handed over", kind=Kind.UNDO):
            return "undone"
        # ---- settle
        case Cell(row="none", kind=Kind.SETTLE, known=True):
            return "row missing"
        case Cell(row="none", kind=Kind.SETTLE):
            return "withdraw, settled: withdrawn"
        case Cell(row="claimed, over", kind=Kind.SETTLE):
            return "undo, settled: withdrawn"
        case Cell(row="failed", kind=Kind.SETTLE, outside=True):
            return "undo, settled: withdrawn"
        case Cell(row="failed", kind=Kind.SETTLE):
            return "withdraw, settled: withdrawn"
        case Cell(row="done", kind=Kind.SETTLE, hand_over=True):
            return "hand over, settled: yours"
        case Cell(row="done", kind=Kind.SETTLE):
            return "settled: done"
        case Cell(row="handed over", kind=Kind.SETTLE):
            return "settled: yours"
        case Cell(row="refused", kind=Kind.SETTLE):
            return "settled: refused"
        case Cell(row="withdrawn" | "undone", kind=Kind.SETTLE):
            return "settled: withdrawn"
        case _:
            raise LookupError(f"no expectation for {cell}")


WITHDRAWN_REFUSAL = Stored(
    Result.REFUSED,
    {
        "type": WITHDRAWN,
        "message": "restaurant_service.create_ticket was withdrawn before it came; nothing was done",
        "module": "sagas_framework",
    },
)
ROW_MISSING = Stored(
    Result.FAILED,
    {
        "type": INBOX_ROW_MISSING,
        "message": "the saga saw this succeed, but the inbox has no row of it: find out by hand",
        "module": "sagas_framework",
    },
)

VERDICTS: Final[dict[str, Verdict]] = {
    "drop": Drop(),
    "execute": Execute(),
    "stored fault": Answer(FAULT),
    "stored reply": Answer(TICKET),
    "stored refusal": Answer(CLOSED),
    "refuse as withdrawn": Answer(WITHDRAWN_REFUSAL),
    "row missing": Answer(ROW_MISSING),
    "withdraw, undone": Close(RowState.WITHDRAWN, UNDONE),
    "undo, undone": Undo(UNDONE),
    "undone": Answer(UNDONE),
    "withdraw, settled: withdrawn": Close(RowState.WITHDRAWN, SETTLED_WITHDRAWN),
    "undo, settled: withdrawn": Undo(SETTLED_WITHDRAWN),
    "hand over, settled: yours": Close(RowState.HANDED_OVER, YOURS),
    "settled: yours": Answer(YOURS),
    "settled: done": Answer(SETTLED_DONE),
    "settled: refused": Answer(SETTLED_REFUSED),
    "settled: withdrawn": Answer(SETTLED_WITHDRAWN),
}


@pytest.mark.parametrize("cell", ALL_CELLS, ids=Cell.told)
def test_the_table_of_rule_3_holds(cell: Cell) -> None:
    assert cell.verdict == VERDICTS[expected(cell)]


def test_the_table_has_a_row_for_every_state_and_every_verdict_is_given() -> None:
    states = {found.state for found in ROWS.values() if found}
    given = {expected(cell) for cell in ALL_CELLS}

    assert states == set(RowState)
    assert given == VERDICTS.keys()


# ---- a compensation that failed before ------------------------------------------------------------


@pytest.mark.parametrize("state", [RowState.DONE, RowState.FAILED, RowState.CLAIMED])
@pytest.mark.parametrize("attempt", [ATTEMPT - 1, ATTEMPT])
def test_a_try_at_or_below_a_failed_one_is_answered_not_executed(state: RowState, attempt: int) -> None:
    """W6, A7: its redelivery would undo what the next try undoes again."""
    verdict = judge(
        row(state, undo_failed=True), Delivery(Kind.UNDO, KEY, attempt, known=True), now=NOON, outside=True
    )

    assert verdict == Answer(UNDO_FAULT)


@pytest.mark.parametrize("state", [RowState.DONE, RowState.FAILED, RowState.CLAIMED])
def test_a_try_after_a_failed_one_undoes(state: RowState) -> None:
    verdict = judge(
        row(state, undo_failed=True), Delivery(Kind.UNDO, KEY, ATTEMPT + 1), now=NOON, outside=True
    )

    assert verdict == Undo(UNDONE)


@pytest.mark.parametrize("state", [RowState.UNDONE, RowState.HANDED_OVER])
def test_an_old_try_for_a_closed_row_is_answered_with_success(state: RowState) -> None:
    verdict = judge(row(state, undo_failed=True), Delivery(Kind.UNDO, KEY, ATTEMPT), now=NOON, outside=False)

    assert verdict == Answer(UNDONE)


def test_a_failed_try_of_the_compensation_does_not_keep_the_row_from_being_settled() -> None:
    verdict = judge(
        row(RowState.DONE, undo_failed=True),
        Delivery(Kind.SETTLE, KEY, 1, known=True, hand_over=True),
        now=NOON,
        outside=False,
    )

    assert verdict == Close(RowState.HANDED_OVER, YOURS)


# ---- leases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("left", "dropped"), [(1, True), (0, False), (-1, False)])
@pytest.mark.parametrize("kind", list(Kind))
def test_a_lease_is_live_until_its_last_microsecond(kind: Kind, left: int, dropped: bool) -> None:
    now = NOON - timedelta(microseconds=left)

    verdict = judge(row(RowState.CLAIMED), Delivery(kind, KEY), now=now, outside=True)

    assert (verdict == Drop()) is dropped


# ---- as JSON --------------------------------------------------------------------------------------


@pytest.mark.parametrize("stored", [TICKET, CLOSED, FAULT, UNDONE])
def test_a_stored_reply_is_read_back_from_its_json(stored: Stored) -> None:
    assert Stored.from_json(stored.to_json()) == stored


def test_no_reply_is_no_reply_in_json_too() -> None:
    assert Stored.from_json(None) is None
