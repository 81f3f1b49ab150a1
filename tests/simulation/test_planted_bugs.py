"""The simulator is not blind: each bug that is planted here is found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

import pytest

from sagas_framework import participant
from sagas_framework.core import decide
from sagas_framework.core.events import Outgoing, ReplyReceived, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import (
    Answer,
    Close,
    Delivery,
    Execute,
    InboxRow,
    RowState,
    Stored,
    Undo,
    Verdict,
    judge,
)
from sagas_framework.core.instance import Phase, StepRecord
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.memory import MemoryDatabase, MemoryInboxTurn, MemoryTransaction
from sagas_framework.testing import BrokenPromise, storage
from sagas_framework.testing.storage import SimulatedStore
from tests.simulation.shapes import SHAPES

RUNS: Final = 500
Patch = pytest.MonkeyPatch


def found(*shapes: str) -> str:
    """What the shortest schedule of up to two faults breaks; if there is none, what longer ones break."""
    try:
        for shape in shapes:
            SHAPES[shape].exhaust(2)
        for shape in shapes:
            SHAPES[shape].check(RUNS)
    except BrokenPromise as broken:
        return str(broken).partition("\n")[0]
    return f"nothing in all schedules of two faults, and in {RUNS} of more"


def test_nothing_is_found_where_nothing_is_planted() -> None:
    assert "nothing" in found("comp")


def test_it_finds_a_participant_without_an_inbox(monkeypatch: Patch) -> None:
    def forgetful(self: MemoryInboxTurn, row: InboxRow | None, rows: Mapping[str, Any]) -> None:
        remembers(self, None, rows)

    remembers = MemoryInboxTurn.__init__
    monkeypatch.setattr(MemoryInboxTurn, "__init__", forgetful)

    assert "is there 2 times" in found("comp")


def test_it_finds_commands_that_are_published_before_the_commit(monkeypatch: Patch) -> None:
    decides = Orchestrator._decide

    def too_early(self: Orchestrator, tx: Any, batch: Any, *args: Any) -> Any:
        decision = decides(self, tx, batch, *args)
        commands: list[Outgoing] = list(batch.commands)
        batch.commands.clear()
        if commands:
            self._publish(commands, [])
        return decision

    monkeypatch.setattr(Orchestrator, "_decide", too_early)

    assert "effect" in found("comp,comp", "comp,pivot")


def judged_otherwise(
    monkeypatch: Patch, change: Callable[[Verdict, InboxRow | None, Delivery], Verdict]
) -> None:
    def other(row: InboxRow | None, delivery: Delivery, *, now: datetime, outside: bool) -> Verdict:
        return change(judge(row, delivery, now=now, outside=outside), row, delivery)

    monkeypatch.setattr(participant, "judge", other)


def test_it_finds_a_compensation_that_leaves_no_tombstone(monkeypatch: Patch) -> None:
    def no_tombstone(verdict: Verdict, row: InboxRow | None, delivery: Delivery) -> Verdict:
        return Answer(verdict.answer) if isinstance(verdict, Close) and row is None else verdict

    judged_otherwise(monkeypatch, no_tombstone)

    assert "its row says nothing" in found("comp")


def test_it_finds_the_missing_tombstone_by_its_effects_alone(monkeypatch: Patch) -> None:
    def executes_after_it(verdict: Verdict, row: InboxRow | None, delivery: Delivery) -> Verdict:
        late = row is not None and row.state is RowState.WITHDRAWN and row.reply is None
        late = late and delivery.kind is Kind.DO
        return Execute() if late else verdict

    judged_otherwise(monkeypatch, executes_after_it)

    assert re.search("after its tombstone|its row says", found("comp"))


def test_it_finds_a_failure_that_is_not_stored(monkeypatch: Patch) -> None:
    saves = MemoryInboxTurn.save

    def all_but_failures(self: MemoryInboxTurn, row: InboxRow) -> None:
        if row.state is not RowState.FAILED:
            saves(self, row)

    monkeypatch.setattr(MemoryInboxTurn, "save", all_but_failures)

    assert re.search("its row says|although the failure", found("comp"))


def test_it_finds_a_failed_attempt_that_is_executed_again(monkeypatch: Patch) -> None:
    def again(verdict: Verdict, row: InboxRow | None, delivery: Delivery) -> Verdict:
        failed = row is not None and row.state is RowState.FAILED and delivery.kind is Kind.DO
        return Execute() if failed else verdict

    judged_otherwise(monkeypatch, again)

    assert "is executed although the failure" in found("comp")


def test_it_finds_replies_that_are_matched_by_name(monkeypatch: Patch) -> None:
    matches = decide._Turn._match

    def by_name(self: Any, reply: ReplyReceived) -> Any:
        return matches(self, replace(reply, refs=()))

    monkeypatch.setattr(decide._Turn, "_match", by_name)

    assert "failed in attempt" in found("outside comp")  # its claims take their time: three faults will do


def test_it_finds_a_failed_step_that_is_not_compensated(monkeypatch: Patch) -> None:
    monkeypatch.setattr(decide, "_TO_UNDO", frozenset({Phase.SUCCEEDED, Phase.UNKNOWN}))

    assert "is compensated, and the effect" in found("outside comp")


def test_it_finds_a_compensation_that_is_not_tried_again(monkeypatch: Patch) -> None:
    fails = decide._Turn._undo_failed

    def for_good(self: Any, record: StepRecord, error: Mapping[str, str]) -> None:
        fails(self, record, error)
        self._put(record.name, resume_at=None)

    monkeypatch.setattr(decide._Turn, "_undo_failed", for_good)

    assert re.search("long after the last fault|waits for a person", found("comp"))


def test_it_finds_a_timer_that_is_not_cleared(monkeypatch: Patch) -> None:
    monkeypatch.delitem(decide._LANDED, "deadline")

    assert "still waits for something" in found("comp")


def test_it_finds_commands_that_are_not_sent_again(monkeypatch: Patch) -> None:
    def looks_away(self: Any, record: StepRecord, flight: Any, horizons: Mapping[str, datetime]) -> None:
        self._put(record.name, flight=replace(flight, check_at=self.at + self.policy.inbox_retention))

    monkeypatch.setattr(decide._Turn, "_look_for", looks_away)

    assert "long after the last fault" in found("comp")


def test_it_finds_an_undo_that_is_not_kept_to_one(monkeypatch: Patch) -> None:
    def again(verdict: Verdict, row: InboxRow | None, delivery: Delivery) -> Verdict:
        undone = row is not None and row.state is RowState.UNDONE and delivery.kind is Kind.UNDO
        return Undo(Stored(Result.SUCCESS)) if undone else verdict

    judged_otherwise(monkeypatch, again)

    assert re.search("is there -1 times|was undone 2 times", found("comp"))


def test_it_finds_a_pivot_that_is_given_up_blindly(monkeypatch: Patch) -> None:
    def blindly(self: Any, name: str, *, turning: Any = None, **_: Any) -> None:
        self._give_up(name, Phase.UNKNOWN, turning)

    monkeypatch.setattr(decide._Turn, "_settle", blindly)

    assert re.search("effect of charge stays|its effect is there", found("comp,pivot"))


def test_it_finds_two_orchestrators_without_a_lock(monkeypatch: Patch) -> None:
    @contextmanager
    def on_what_was_found(self: Any) -> Iterator[MemoryTransaction]:
        found_so: MemoryDatabase = self._inner.database.copy()
        seconds, self.stall = self.stall, 0.0
        self._world.pass_time(seconds)
        yield MemoryTransaction(found_so)
        self._inner.database.become(found_so)
        self._world.changed = True

    monkeypatch.setattr(SimulatedStore, "transaction", on_what_was_found)

    assert "the saga" in found("comp", "comp,pivot")


def test_it_finds_a_batch_in_which_the_second_does_not_see_the_first(monkeypatch: Patch) -> None:
    as_before_the_batch = property(lambda turn: turn.found, lambda turn, row: None)
    monkeypatch.setattr(storage._SimulatedTurn, "row", as_before_the_batch)

    assert "is there 2 times" in found("comp")
