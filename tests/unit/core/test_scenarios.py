"""Both sides together: `decide` and `judge` in the schedules that break weaker protocols.

The numbers are those of the scenarios of ``docs/explanation/protocol.md``, section 6, and of the
violations there. What needs real servers, processes or locks is tested elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from sagas_framework.core.events import Act, Outgoing, ReplyReceived, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import (
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
    judge,
)
from sagas_framework.core.instance import Phase, Status
from tests.unit.core.stories import DELIVER_ORDER, SAGA_ID, Run, error_of, seconds

TIMEOUT = timedelta(minutes=5)
TICKET, CARD, PIVOT, DELIVERY = (
    "create_restaurant_ticket",
    "authorize_card",
    "approve_restaurant_ticket",
    "start_delivery",
)
LEASE = seconds(30)


@dataclass
class Participant:
    """An inbox and the effects of its handlers. `plan`: how the next executions end, then with success.

    Args:
        outside: its handlers work at a third party; `crash` in the plan is a kill after the work there.
        effects: how often each operation's effect is there now.
    """

    reply: Any = None
    outside: bool = False
    plan: list[str] = field(default_factory=list)
    rows: dict[str, InboxRow] = field(default_factory=dict)
    effects: dict[str, int] = field(default_factory=dict)
    executions: int = 0
    undoings: int = 0

    def takes(self, out: Outgoing, now: datetime) -> Stored | None:
        """Handle a delivery; what is answered, or None for no reply."""
        row = self.rows.get(out.operation_id)
        delivery = Delivery(out.kind, out.operation_id, out.attempt, out.known, out.hand_over)
        match judge(row, delivery, now=now, outside=self.outside):
            case Execute():
                return self._execute(out, now)
            case Undo(answer):
                if self.plan and self.plan.pop(0) == "fail":
                    stored = Stored(Result.FAILED, error_of("Trouble"))
                    self._write(out, undo_attempt=out.attempt, undo_reply=stored)
                    return stored
                self.undoings += 1
                there = self.effects.get(out.operation_id, 0)
                assert there or self.outside, "only a third party may be asked to undo what it does not know"
                self.effects[out.operation_id] = max(there - 1, 0)
                self._write(out, state=RowState.UNDONE)
                return answer
            case Close(state, answer):
                self._write(out, state=state)
                return answer
            case Answer(reply):
                return reply
            case Drop():
                return None

    def _execute(self, out: Outgoing, now: datetime) -> Stored | None:
        self.executions += 1
        end = self.plan.pop(0) if self.plan else "succeed"
        # A third party takes the operation's key, so its effect is there once; our own failed work is
        # rolled back.
        if self.outside and end != "refuse":
            self.effects[out.operation_id] = 1
        if end == "crash":
            self._write(out, state=RowState.CLAIMED, attempt=out.attempt, lease_until=now + LEASE)
            return None
        if end == "fail":
            stored = Stored(Result.FAILED, error_of("Trouble"))
            self._write(out, state=RowState.FAILED, attempt=out.attempt, reply=stored)
        elif end == "refuse":
            stored = Stored(Result.REFUSED, error_of("RestaurantClosed"))
            self._write(out, state=RowState.REFUSED, reply=stored)
        else:
            if not self.outside:
                self.effects[out.operation_id] = self.effects.get(out.operation_id, 0) + 1
            stored = Stored(Result.SUCCESS, self.reply)
            self._write(out, state=RowState.DONE, reply=stored)
        return stored

    def _write(self, out: Outgoing, **changes: Any) -> None:
        row = self.rows.get(out.operation_id)
        row = row or InboxRow(out.operation_id, SAGA_ID, out.task, RowState.CLAIMED)
        self.rows[out.operation_id] = replace(row, **changes)

    @property
    def effect(self) -> int:
        return sum(self.effects.values())


@dataclass
class Story:
    """A run, and the one participant that matters in it; the others are answered by hand."""

    run: Run
    participant: Participant

    @property
    def last(self) -> Outgoing:
        return self.run.sent[-1]

    def delivered(self, out: Outgoing) -> ReplyReceived | None:
        """The participant takes this message; its answer is on the way."""
        stored = self.participant.takes(out, self.run.now)
        if stored is None:
            return None
        success = stored.result is Result.SUCCESS
        return ReplyReceived(
            SAGA_ID,
            self.run.now,
            (out.message_id,),
            out.task,
            stored.result,
            stored.payload if success else None,
            {} if success else stored.payload,
        )

    def exchange(self, out: Outgoing) -> ReplyReceived:
        """The message is delivered and its answer taken."""
        reply = self.delivered(out)
        assert reply is not None, "there was no reply"
        self.run.happens(reply)
        return reply


def story(name: str, *plan: str, outside: bool = False, reply: Any = None) -> Story:
    """The saga stands at this step: its command was sent and not yet delivered."""
    run = Run(DELIVER_ORDER).until(name)
    return Story(run, Participant(reply=reply, outside=outside, plan=list(plan)))


def ticket(*plan: str, outside: bool = False) -> Story:
    return story(TICKET, *plan, outside=outside, reply={"ticket_id": 7})


# ---- attempts -------------------------------------------------------------------------------------


def test_1_a_redelivered_failed_attempt_is_answered_not_executed() -> None:
    tale = ticket("fail")
    first = tale.exchange(tale.last)

    again = tale.delivered(tale.run.sent[-1])

    assert tale.participant.executions == 1
    assert again is not None
    assert (again.result, again.error) == (first.result, first.error)


def test_2_a_redelivered_failed_attempt_of_the_pivot_does_nothing_while_the_saga_is_undone() -> None:
    """A1c: otherwise the ticket would be approved, and the saga compensated."""
    tale = story(PIVOT, "fail", "fail", "fail")
    first = tale.last
    tale.exchange(first)
    for pause in (5, 10):
        tale.run.after(pause)
        tale.exchange(tale.last)
    tale.exchange(tale.last)  # the settling: it will never happen

    tale.delivered(first)

    assert tale.run.status is Status.COMPENSATING
    assert tale.participant.effect == 0


def test_3_a_cancel_in_the_pause_undoes_what_a_duplicate_may_have_done() -> None:
    """W1: the failed attempt's message is delivered again before its failure is stored."""
    tale = ticket("fail")
    command = tale.last
    tale.exchange(command)
    tale.participant.rows.clear()  # as if the failure had been rolled back
    tale.delivered(command)
    assert tale.participant.effect == 1

    tale.run.operator(Act.CANCEL)
    tale.exchange(tale.last)
    tale.run.until_end()

    assert tale.run.status is Status.COMPENSATED
    assert tale.participant.effect == 0


def test_4_an_old_failure_redelivered_while_the_pivots_second_attempt_succeeds_does_not_turn_the_saga() -> (
    None
):
    """A8d."""
    tale = story(PIVOT, "fail")
    failure = tale.exchange(tale.last)
    tale.run.after(5)
    success = tale.delivered(tale.last)

    tale.run.happens(failure)
    assert success is not None
    tale.run.happens(success)

    assert tale.run.phase(PIVOT) is Phase.SUCCEEDED
    assert tale.run.in_flight == [f"{DELIVERY} do 1"]


@pytest.mark.parametrize("moment", ["in flight", "in the pause", "while parked"])
def test_5_a_success_of_the_first_attempt_is_taken_once(moment: str) -> None:
    run = Run(DELIVER_ORDER).until(DELIVERY)
    run.fails()
    if moment != "in the pause":
        run.at(run.step(DELIVERY).resume_at)
    if moment == "while parked":
        run.at(run.step(DELIVERY).deadline)
    success = run.reply_of(DELIVERY, Kind.DO, 1, Result.SUCCESS, {"courier": "Ann"})

    run.happens(success)
    second = run.happens(success)

    assert run.phase(DELIVERY) is Phase.SUCCEEDED
    assert second.ignored
    assert run.in_flight == ["send_receipt do 1"]


# ---- timeouts -------------------------------------------------------------------------------------


def test_6_a_timeout_before_the_success_undoes_it() -> None:
    tale = ticket()
    success = tale.delivered(tale.last)

    tale.run.after(TIMEOUT)
    assert success is not None
    tale.run.happens(success)
    tale.exchange(tale.last)
    tale.run.until_end()

    assert tale.run.status is Status.COMPENSATED
    assert tale.participant.effect == 0


def test_6_a_success_before_the_timeout_keeps_it() -> None:
    tale = ticket()

    tale.exchange(tale.last)
    tale.run.after(TIMEOUT - seconds(1))

    assert tale.run.phase(TICKET) is Phase.SUCCEEDED
    assert tale.participant.effect == 1


def test_7_a_compensation_that_overtakes_its_command_leaves_a_tombstone() -> None:
    """A4."""
    tale = ticket()
    command = tale.last
    tale.run.after(TIMEOUT)
    tale.exchange(tale.last)
    tale.run.until_end()

    late = tale.delivered(command)

    assert tale.run.status is Status.COMPENSATED
    assert late is not None
    assert (late.result, late.error["type"]) == (Result.REFUSED, WITHDRAWN)
    assert tale.participant.executions == 0


def test_7_the_refusal_of_a_command_that_came_too_late_changes_nothing() -> None:
    tale = ticket()
    command = tale.last
    tale.run.after(TIMEOUT)
    tale.exchange(tale.last)
    before = tale.run.instance

    tale.exchange(command)

    assert tale.run.instance == before


# ---- refusals and undoing -------------------------------------------------------------------------


def test_9_a_refusal_delivered_again_is_the_stored_one() -> None:
    """A3: the restaurant has opened since."""
    tale = ticket("refuse", "succeed")
    command = tale.last
    tale.exchange(command)

    again = tale.delivered(command)

    assert again is not None
    assert again.result is Result.REFUSED
    assert tale.participant.effect == 0


def test_10_a_compensation_redelivered_after_it_failed_undoes_once() -> None:
    """A7, W6."""
    tale = ticket()
    tale.exchange(tale.last)
    tale.run.refuses("CardRefused")
    first_try = tale.last
    tale.participant.plan = ["fail"]
    tale.exchange(first_try)

    tale.delivered(first_try)
    tale.run.after(1)
    tale.exchange(tale.last)
    tale.delivered(first_try)

    assert tale.participant.undoings == 1
    assert tale.participant.effect == 0
    assert tale.run.status is Status.COMPENSATED


def test_10_a_compensation_whose_reply_is_lost_ten_times_undoes_once() -> None:
    tale = ticket()
    tale.exchange(tale.last)
    tale.run.refuses("CardRefused")

    for _ in range(10):
        tale.delivered(tale.last)
        tale.run.after(60, {tale.last.queue: tale.run.now + seconds(60)})
    tale.exchange(tale.last)

    assert tale.participant.undoings == 1
    assert {out.message_id for out in tale.run.sent[-11:]} == {tale.last.message_id}
    assert tale.run.status is Status.COMPENSATED


# ---- third parties --------------------------------------------------------------------------------


def test_11_a_charge_whose_handler_was_killed_is_voided() -> None:
    """X1: claimed, charged, killed; the message never comes again."""
    tale = story(CARD, "crash", outside=True, reply={"transaction_id": "t"})
    tale.delivered(tale.last)
    assert tale.participant.effect == 1

    tale.run.after(TIMEOUT)
    tale.exchange(tale.last)

    assert tale.participant.effect == 0


def test_11_a_charge_that_answered_with_an_error_is_not_charged_twice() -> None:
    """X3: the key is the operation's, not the attempt's."""
    tale = story(CARD, "fail", outside=True, reply={"transaction_id": "t"})
    first = tale.last
    tale.exchange(first)

    tale.run.after(1)
    tale.exchange(tale.last)

    assert tale.last.operation_id != first.operation_id  # the next step's
    assert tale.participant.effect == 1
    assert tale.run.phase(CARD) is Phase.SUCCEEDED


def test_11_a_charge_whose_attempts_ran_out_is_voided() -> None:
    """X4."""
    tale = story(CARD, "fail", "fail", "fail", outside=True)
    tale.exchange(tale.last)
    for pause in (1, 2):
        tale.run.after(pause)
        tale.exchange(tale.last)

    tale.exchange(tale.last)

    assert tale.participant.effect == 0
    assert tale.run.phase(CARD) is Phase.COMPENSATED


def test_12_a_compensation_waits_until_the_handlers_lease_is_over() -> None:
    """X5: voiding now would be followed by the charge."""
    tale = story(CARD, "crash", outside=True)
    tale.run.now += TIMEOUT - seconds(10)
    tale.delivered(tale.last)
    tale.run.after(10)
    undo = tale.last

    while_it_works = tale.delivered(undo)
    tale.run.now += LEASE
    afterwards = tale.delivered(undo)

    assert while_it_works is None
    assert afterwards is not None
    assert tale.participant.effect == 0


def test_13_a_message_sent_again_while_its_handler_works_is_dropped() -> None:
    tale = story(CARD, "crash", outside=True)
    tale.delivered(tale.last)

    answers = [tale.delivered(tale.last) for _ in range(20)]

    assert answers == [None] * 20
    assert tale.participant.executions == 1


# ---- the pivot and after it -----------------------------------------------------------------------


def test_14_a_pivot_that_was_done_but_not_answered_lets_the_saga_go_on() -> None:
    """W4."""
    tale = story(PIVOT)
    tale.delivered(tale.last)
    tale.run.after(TIMEOUT)

    tale.exchange(tale.last)

    assert tale.participant.effect == 1
    assert tale.run.in_flight == [f"{DELIVERY} do 1"]


@pytest.mark.parametrize("arrived", [True, False])
def test_14_a_cancel_while_the_pivot_is_in_flight_ends_as_the_participant_says(arrived: bool) -> None:
    """W10, both answers."""
    tale = story(PIVOT)
    command = tale.last
    if arrived:
        tale.delivered(command)
    tale.run.operator(Act.CANCEL)

    tale.exchange(tale.last)
    tale.exchange(command)
    tale.run.until_end()

    assert tale.run.status is (Status.COMPLETED if arrived else Status.COMPENSATED)
    assert tale.participant.effect == arrived


def test_15_a_step_after_the_pivot_has_one_effect_whatever_is_lost_and_retried() -> None:
    """W9."""
    tale = story(DELIVERY, reply={"courier": "Ann"})

    for _ in range(4):
        tale.delivered(tale.last)
        tale.run.after(TIMEOUT, {tale.last.queue: tale.run.now + seconds(1)})
        tale.delivered(tale.last)
        tale.run.operator(Act.RETRY)
    tale.exchange(tale.last)

    assert tale.participant.executions == 1
    assert tale.run.phase(DELIVERY) is Phase.SUCCEEDED


# ---- operators ------------------------------------------------------------------------------------


def test_16_a_step_skipped_while_its_message_waits_in_the_queue_never_happens() -> None:
    """A17."""
    tale = story(DELIVERY, reply={"courier": "Ann"})
    command = tale.last
    tale.run.after(TIMEOUT)
    tale.run.operator(Act.SKIP)
    tale.exchange(tale.last)

    tale.exchange(command)

    assert tale.participant.executions == 0
    assert tale.run.phase(DELIVERY) is Phase.SKIPPED


def undo_parked_and_handed_over() -> tuple[Story, Outgoing]:
    """The ticket's compensation is still in its queue when a person takes it over."""
    tale = ticket()
    tale.exchange(tale.last)
    tale.run.refuses("CardRefused")
    undo = tale.last
    tale.run.after(TIMEOUT)
    tale.run.operator(Act.COMPLETE)
    return tale, undo


def test_16_a_compensation_done_by_hand_is_not_done_by_the_message_in_the_queue_as_well() -> None:
    """A15, A16."""
    tale, undo = undo_parked_and_handed_over()
    tale.exchange(tale.last)
    tale.delivered(undo)

    tale.run.operator(Act.COMPLETE)

    assert tale.participant.undoings == 0, "the person does it"
    assert tale.run.status is Status.COMPENSATED


def test_16_a_handing_over_whose_answer_is_lost_is_answered_alike_when_it_comes_again() -> None:
    """Otherwise the second answer were "nothing to undo", and the effect stayed."""
    tale, _ = undo_parked_and_handed_over()
    handing_over = tale.last
    tale.delivered(handing_over)

    tale.exchange(handing_over)

    assert tale.run.phase(TICKET) is Phase.HANDED_OVER
    assert tale.run.status is Status.PARKED


def test_16_a_compensation_that_was_faster_than_the_person_leaves_nothing_to_do() -> None:
    tale, undo = undo_parked_and_handed_over()
    tale.delivered(undo)

    tale.exchange(tale.last)

    assert tale.participant.undoings == 1
    assert tale.run.phase(TICKET) is Phase.COMPENSATED
    assert tale.run.status is Status.COMPENSATED


def test_17_a_late_success_of_a_parked_compensation_un_parks_and_the_rest_goes_on() -> None:
    tale = ticket()
    tale.exchange(tale.last)
    tale.run.refuses("CardRefused")
    tale.run.after(TIMEOUT)
    parked = tale.run.status

    tale.exchange(tale.run.sent[-1])

    assert parked is Status.PARKED
    assert tale.run.status is Status.COMPENSATED
    assert tale.participant.effect == 0


# ---- retention ------------------------------------------------------------------------------------


def test_18_a_row_that_retention_took_away_parks_the_saga() -> None:
    """A12: never "compensated" with the effect there."""
    tale = ticket()
    tale.exchange(tale.last)
    tale.participant.rows.clear()
    tale.run.refuses("CardRefused")

    tale.exchange(tale.last)

    assert tale.run.status is Status.PARKED
    assert tale.participant.effect == 1


def test_18_nor_does_the_operators_asking_take_a_missing_row_for_nothing_to_undo() -> None:
    tale = ticket()
    tale.exchange(tale.last)
    tale.participant.rows.clear()
    tale.run.refuses("CardRefused")
    tale.exchange(tale.last)

    tale.run.operator(Act.COMPLETE)
    tale.exchange(tale.last)

    assert tale.run.phase(TICKET) is Phase.HANDING_OVER
    assert tale.run.status is Status.PARKED


def sent_once_more(run: Run) -> timedelta:
    """Time passes until something is sent again, with a backlog so that nothing is ever seen lost."""
    began = run.now
    for _ in range(20):
        run.at(run.instance.due_at)
        if any(out.again for out in run.decision.commands):
            return run.now - began
    raise AssertionError(f"nothing was sent again: {run.words}")


def test_20_a_compensation_lost_behind_a_backlog_that_never_empties_comes_again_and_the_saga_ends() -> None:
    """Rule 21; A10 is the same without it."""
    tale = ticket()
    tale.exchange(tale.last)
    tale.run.refuses("CardRefused")

    waited = sent_once_more(tale.run)
    tale.exchange(tale.last)

    assert waited == seconds(10 + 20 + 40 + 7 * 60)
    assert tale.participant.effect == 0
    assert tale.run.status is Status.COMPENSATED


def test_20_a_broker_wiped_at_every_step_after_the_pivot_still_ends() -> None:
    run = Run(DELIVER_ORDER).until(DELIVERY)

    for _ in (DELIVERY, "send_receipt"):
        sent_once_more(run)
        run.succeeds()

    assert run.status is Status.COMPLETED
