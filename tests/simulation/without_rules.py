"""The library with a rule of the protocol taken away, so that a schedule does the harm that it prevents.

Each function takes one thing away, for as long as the `pytest.MonkeyPatch` lasts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from sagas_framework import participant
from sagas_framework.core import decide
from sagas_framework.core.events import ReplyReceived, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import (
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
)
from sagas_framework.core.instance import Flight, Intent, Outcome, Phase, StepRecord
from sagas_framework.participant import Context, Participant
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox, MemoryInboxTurn, MemoryTransaction
from sagas_framework.testing import processes
from sagas_framework.testing.effects import Effects
from sagas_framework.testing.storage import SimulatedStore

Patch = pytest.MonkeyPatch
Judge = Callable[[InboxRow | None, Delivery, bool, Verdict], Verdict]

_DONE: Final = Stored(Result.SUCCESS)


def effects_alone(patch: Patch) -> None:
    """Only effects count: the simulator's checks that see a bug before it does harm are off."""

    def begin(self: Effects, name: str, key: str, attempt: int) -> None:
        self.executions[key, attempt] += 1

    def committed(self: Effects, name: str, row: InboxRow, done_before: int) -> None:
        self.rows[row.key] = row

    patch.setattr(processes, "_is_in", lambda *_: True)
    patch.setattr(Effects, "begin", begin)
    patch.setattr(Effects, "committed", committed)
    patch.setattr(Effects, "charged", lambda *_: None)


def judged(patch: Patch, change: Judge) -> None:
    """A participant that changes what the table of rule 3 says. Changes can be laid upon each other."""
    before: Any = vars(participant)["judge"]  # with what was taken away before

    def other(row: InboxRow | None, delivery: Delivery, *, now: datetime, outside: bool) -> Verdict:
        return change(row, delivery, outside, before(row, delivery, now=now, outside=outside))

    patch.setattr(participant, "judge", other)


# ---- names: rules 1, 2 and 3 ------------------------------------------------------------------------


def rows_per_attempt(patch: Patch) -> None:
    """Rule 1: each attempt has a key, and so a row, of its own."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        stranger = row is not None and delivery.kind is Kind.DO and row.attempt != delivery.attempt
        return Execute() if stranger else verdict

    judged(patch, change)


def keys_per_attempt(patch: Patch) -> None:
    """Rule 1: a handler gets a key of its own for each attempt, and gives it to its third party."""

    class ItsOwnKey(Context):
        def __init__(self, key: str, saga_id: str, attempt: int, session: Any) -> None:
            super().__init__(key if attempt == 1 else f"{key}/{attempt}", saga_id, attempt, session)

    patch.setattr(participant, "Context", ItsOwnKey)


def a_timeout_starts_an_attempt(patch: Patch) -> None:
    """Rules 3, 15 and 18: what was not answered in time is attempted once more, under the next number."""
    overdue = decide._Turn._overdue

    def once_more(self: Any, record: StepRecord) -> None:
        step = self._step(record.name)
        self._put(record.name, deadline=None)
        if record.phase is Phase.RUNNING:
            self._attempt(step)
        elif record.phase is Phase.COMPENSATING:
            self._undo(step)
        else:
            overdue(self, record)

    patch.setattr(decide._Turn, "_overdue", once_more)


# ---- the participant: rules 4 to 10 -----------------------------------------------------------------


def not_stored(state: RowState) -> Callable[[Patch], None]:
    """Rule 4: a row of this state is answered and not kept."""

    def take_away(patch: Patch) -> None:
        saves = MemoryInboxTurn.save

        def all_but_these(self: MemoryInboxTurn, row: InboxRow) -> None:
            if row.state is not state:
                saves(self, row)

        patch.setattr(MemoryInboxTurn, "save", all_but_these)

    return take_away


def failures_without_attempt(patch: Patch) -> None:
    """Rule 4: a failure is kept, but nobody knows of which attempt, so every command is executed."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        failed = row is not None and row.state is RowState.FAILED and delivery.kind is Kind.DO
        return Execute() if failed else verdict

    judged(patch, change)


def no_tombstone(patch: Patch) -> None:
    """Rule 5: a compensation that finds no row leaves none."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        return Answer(verdict.answer) if row is None and isinstance(verdict, Close) else verdict

    judged(patch, change)


def tombstone_in_a_row_of_its_own(patch: Patch) -> None:
    """Rule 5: the tombstone is looked for at the start, and is in nobody's way at the end."""

    @contextmanager
    def turn(self: MemoryInbox, key: str, now: datetime) -> Iterator[MemoryInboxTurn]:
        inbox = self.database.inbox
        found = inbox.get(key) or inbox.get(f"tombstone of {key}")
        mine = MemoryInboxTurn(found[0] if found else None, self.database.rows)
        yield mine
        mine.finish_work()
        self.database.rows = mine.rows
        if mine.saved and mine.row is not None:
            buried = mine.row.state is RowState.WITHDRAWN
            inbox[f"tombstone of {key}" if buried else key] = mine.row, now

    patch.setattr(MemoryInbox, "turn", turn)


def going_on_with_what_was_read(patch: Patch) -> None:
    """Rule 6: whoever finds the key taken at its commit writes nothing, and answers what it had decided."""

    @contextmanager
    def turn(self: MemoryInbox, key: str, now: datetime) -> Iterator[MemoryInboxTurn]:
        found = self.database.inbox.get(key)
        mine = MemoryInboxTurn(found[0] if found else None, self.database.rows)
        yield mine
        mine.finish_work()
        if self.database.inbox.get(key) is found:
            self.database.rows = mine.rows
            if mine.saved and mine.row is not None:
                self.database.inbox[key] = mine.row, now

    patch.setattr(MemoryInbox, "turn", turn)


def undone_once_per_try(patch: Patch) -> None:
    """Rule 3: an undoing is known by its own id, not by the state of the command's row."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        if row is None or delivery.kind is not Kind.UNDO:
            return verdict
        another = row.state is RowState.UNDONE and delivery.attempt > 1
        return Undo(_DONE) if another or row.state is RowState.DONE else verdict

    judged(patch, change)


def no_claim(patch: Patch) -> None:
    """Rule 8: nobody sees that an outside handler is at work, or has been."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        claimed = row is not None and row.state is RowState.CLAIMED and delivery.kind is not Kind.DO
        return Close(RowState.WITHDRAWN, _DONE) if claimed else verdict

    judged(patch, change)


def undoing_while_it_works(patch: Patch) -> None:
    """Rule 8: a compensation does not wait for an outside handler that is at work."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        waits = isinstance(verdict, Drop) and delivery.kind is Kind.UNDO
        return Undo(_DONE) if waits else verdict

    judged(patch, change)


def failed_outside_is_nothing(patch: Patch) -> None:
    """Rule 8: an outside handler that failed is taken for one that did nothing."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        failed = row is not None and row.state is RowState.FAILED and delivery.kind is Kind.UNDO
        return Close(RowState.WITHDRAWN, _DONE) if failed else verdict

    judged(patch, change)


def what_the_saga_saw_is_not_said(patch: Patch) -> None:
    """Rule 9: a compensation does not say that the saga saw the step succeed."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        guess = row is None and delivery.kind is Kind.UNDO
        return Close(RowState.WITHDRAWN, _DONE) if guess else verdict

    judged(patch, change)


def messages_without_an_end(patch: Patch) -> None:
    """Rule 10: a message may be executed however late it is."""
    patch.setattr(Participant, "_deadline", staticmethod(lambda envelope: None))


def rows_go_by_age_alone(patch: Patch) -> None:
    """Rule 10: a row goes after five seconds, whatever is still under way."""
    patch.setattr(
        Participant, "forget_old", lambda self: self.inbox.forget(self.clock() - timedelta(seconds=5))
    )


def compensated_elsewhere(patch: Patch) -> None:
    """Rule 14: the compensation is handled where the command's row is not."""

    def change(row: InboxRow | None, delivery: Delivery, outside: bool, verdict: Verdict) -> Verdict:
        return Answer(_DONE) if delivery.kind is Kind.UNDO else verdict

    judged(patch, change)


# ---- the orchestrator: rules 12 to 21 ---------------------------------------------------------------


def matched_by_name(patch: Patch) -> None:
    """Rule 12: a reply is taken for an answer to whatever message of its task is in flight."""
    matches = decide._Turn._match

    def by_name(self: Any, reply: ReplyReceived) -> Any:
        return matches(self, replace(reply, refs=()))

    patch.setattr(decide._Turn, "_match", by_name)


def failed_is_not_undone(patch: Patch) -> None:
    """Rule 13: a step whose attempts failed is taken for one that never happened."""
    patch.setattr(decide, "_TO_UNDO", frozenset({Phase.SUCCEEDED, Phase.UNKNOWN}))


def given_up_blindly(patch: Patch) -> None:
    """Rule 16: nobody asks how the pivot stands before the saga turns back."""
    settles = decide._Turn._settle

    def blindly(self: Any, name: str, *, turning: Outcome | None = None, **how: Any) -> None:
        if turning is None:
            settles(self, name, turning=turning, **how)
        else:
            self._give_up(name, Phase.UNKNOWN, turning)

    patch.setattr(decide._Turn, "_settle", blindly)


def taken_over_blindly(patch: Patch) -> None:
    """Rule 17: a person's word is taken without asking the participant."""
    settles = decide._Turn._settle

    def blindly(
        self: Any, name: str, *, intent: Intent | None = None, hand_over: bool = False, **how: Any
    ) -> None:
        if intent is None:
            settles(self, name, intent=intent, hand_over=hand_over, **how)
        elif hand_over:
            self._compensated(name, by=intent.by, reason=intent.reason, by_hand=True)
        else:
            self._put(name, **decide._LANDED)
            self._closed_for(name, intent)

    patch.setattr(decide._Turn, "_settle", blindly)


def never_sent_again(patch: Patch) -> None:
    """Rule 21: what is lost stays lost."""

    def looks_away(self: Any, record: StepRecord, flight: Flight, horizons: Mapping[str, datetime]) -> None:
        self._put(record.name, flight=replace(flight, check_at=self.at + self.policy.inbox_retention))

    patch.setattr(decide._Turn, "_look_for", looks_away)


def no_lock(patch: Patch) -> None:
    """Rule 19: what was found before a process stalled is what it decides on, and commits."""

    @contextmanager
    def on_what_was_found(self: Any) -> Iterator[MemoryTransaction]:
        found_so: MemoryDatabase = self._inner.database.copy()
        if self.stall:
            seconds, self.stall = self.stall, 0.0
            self._world.say(f"{self.trigger}: the process stalls for {seconds:g} s after it has read")
            self._world.pass_time(seconds)
        yield MemoryTransaction(found_so)
        self._inner.database.become(found_so)
        self._world.changed = True

    patch.setattr(SimulatedStore, "transaction", on_what_was_found)
