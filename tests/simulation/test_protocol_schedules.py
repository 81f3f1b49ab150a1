"""Each schedule of the protocol that breaks a system without its rule, replayed on the real code.

The table in ``docs/explanation/protocol.md``, section 3, names them all. A docstring begins with the rules
that remove the schedule. Two things are shown of each: the moment of danger is reached and comes to nothing;
and with the rule taken away (`without_rules`) the same schedule does the harm. Schedules that differ only in
what the system lacks share their faults.

Times: a message takes 0.01 s, an attempt that failed is followed by the next after 5 s, a message that was
not acknowledged comes again after 1 s, a step's timeout is 60 s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from sagas_framework import Act, Compensation, DefinitionError, Status, participant
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import Delivery, InboxRow, RowState, Verdict, judge
from sagas_framework.core.instance import Phase
from sagas_framework.testing import BrokenPromise, Run, Simulation
from tests.simulation import without_rules as without
from tests.simulation.shapes import (
    SHAPES,
    Order,
    Reserve,
    money_service,
)

COMP: Final = SHAPES["comp"]
COMP_COMP: Final = SHAPES["comp,comp"]
COMP_PIVOT: Final = SHAPES["comp,pivot"]
PIVOT_RETRIABLE: Final = SHAPES["pivot,retriable"]
OUTSIDE: Final = SHAPES["outside comp"]

Patch = pytest.MonkeyPatch
Meanwhile = Mapping[float, Callable[[Run[Order]], object]]


@dataclass(frozen=True)
class Schedule:
    """Faults, and what people do in the meantime."""

    faults: Mapping[str, str]
    meanwhile: Meanwhile = field(default_factory=dict)
    simulation: Simulation[Order] = COMP

    def run(self) -> Run[Order]:
        """The schedule on the code as it is."""
        return self.simulation.replay(self.faults, meanwhile=self.meanwhile)

    def harm(self) -> str:
        """The promise that it breaks, once a rule was taken away."""
        with pytest.raises(BrokenPromise) as broken:
            self.run()
        return str(broken.value).partition("\n")[0]


def lost(point: str, *numbers: int) -> dict[str, str]:
    """Faults: this message is lost each of these times that it is sent."""
    return {point if number == 1 else f"{point} #{number}": "lost" for number in numbers}


def acts(act: Act, step: str | None = None) -> Callable[[Run[Order]], object]:
    """What an operator does in the meantime."""
    return lambda run: run.operator(act, step)


def seconds_of(run: Run[Order], begins: str) -> list[float]:
    """When the trace has lines that begin so, in seconds since the beginning."""
    lines = (line.split(" s  ", 1) for line in run.trace().splitlines())
    return [float(second) for second, said in lines if said.startswith(begins)]


def all_effects(run: Run[Order]) -> int:
    """How many effects there are, under whatever keys."""
    return sum(run.effects.count(key) for key in set(run.effects.keys()))


# ---- a failure that is answered and not kept: rules 4 and 13 ------------------------------------------

FAILED_AND_AGAIN: Final = Schedule(
    {
        "handling reserve 1": "fails",
        "acknowledging reserve 1": "dies before",
        # Whatever the second delivery answers comes too late for the saga to see it.
        "sending answer to reserve 1 #2": "late 20 s",
    }
)
CANCELLED_IN_THE_PAUSE: Final = Schedule(FAILED_AND_AGAIN.faults, {3.0: acts(Act.CANCEL)})
PIVOT_CANCELLED_IN_THE_PAUSE: Final = Schedule(
    {
        "handling charge 1": "fails",
        "acknowledging charge 1": "dies before",
        "sending answer to charge 1 #2": "late 20 s",
    },
    {3.0: acts(Act.CANCEL)},
    COMP_PIVOT,
)
REFUSED_AND_AGAIN: Final = Schedule(
    {"handling reserve 1": "refuses", "acknowledging reserve 1": "dies before"}
)


def assert_the_copy_was_only_answered(run: Run[Order], name: str, fate: str) -> None:
    """Attempt 1 came to nothing, its message came again, and had the stored answer for an answer."""
    (begun,) = seconds_of(run, f"{name} 1 is handled: {fate}")
    first, second = seconds_of(run, f"answer to {name} 1 is sent")

    assert run.effects.executions[run.key(name), 1] == 1
    assert first == begun
    assert second == pytest.approx(begun + 1)


def test_w1_a1_a2_a_copy_of_a_failed_attempt_comes_in_the_pause_and_the_saga_is_cancelled_there() -> None:
    """Rules 4, 13: the copy comes at 1 s, cancel at 3 s."""
    run = CANCELLED_IN_THE_PAUSE.run()

    assert_the_copy_was_only_answered(run, "reserve", "fails")
    assert run.words.index("reserve.attempt_failed") < run.words.index("operator.cancel")
    assert run.last_row("reserve").state is RowState.WITHDRAWN
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a1b_a_copy_that_does_execute_is_undone_with_the_step_that_failed(monkeypatch: Patch) -> None:
    """Rule 13: a failure that is not stored does no harm where the failed step is compensated."""
    without.effects_alone(monkeypatch)
    without.not_stored(RowState.FAILED)(monkeypatch)

    run = CANCELLED_IN_THE_PAUSE.run()

    assert run.effects.executions[run.key("reserve"), 1] == 2
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a1c_a2c_a_copy_of_the_failed_pivot_comes_in_the_pause_and_the_saga_is_cancelled_there() -> None:
    """Rules 4, 16: nothing compensates the pivot."""
    run = PIVOT_CANCELLED_IN_THE_PAUSE.run()

    assert_the_copy_was_only_answered(run, "charge", "fails")
    assert run.words.index("charge.attempt_failed") < run.words.index("operator.cancel")
    assert run.last_row("charge").state is RowState.WITHDRAWN
    assert run.count("charge") == run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_w2_w3_a_copy_of_a_failed_attempt_comes_and_then_the_next_attempt() -> None:
    """Rules 1, 4: the copy of ``reserve 1`` comes at 1 s, ``reserve 2`` at 5 s."""
    run = FAILED_AND_AGAIN.run()

    assert_the_copy_was_only_answered(run, "reserve", "fails")
    assert run.effects.executions[run.key("reserve"), 2] == 1
    assert run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_a3_a_refused_command_comes_again_when_it_would_be_accepted() -> None:
    """Rule 4: the copy comes at 1 s, when the saga has ended."""
    run = REFUSED_AND_AGAIN.run()

    assert_the_copy_was_only_answered(run, "reserve", "refuses")
    assert run.step("reserve").phase is Phase.REFUSED
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- the pivot: rules 16 and 18 -----------------------------------------------------------------------

PIVOT_UNANSWERED: Final = Schedule(lost("sending answer to charge 1", 1, 2, 3), simulation=COMP_PIVOT)
PIVOT_CANCELLED: Final = Schedule(
    {"sending answer to charge 1": "late 20 s"}, {1.0: acts(Act.CANCEL)}, COMP_PIVOT
)


def test_w4_the_pivot_has_executed_and_its_timeout_is_over() -> None:
    """Rules 16, 18: only what ``settle charge 1`` is answered says which way to go."""
    run = PIVOT_UNANSWERED.run()

    (executed,) = seconds_of(run, "charge 1: the inbox says done")
    (settled,) = seconds_of(run, "settle charge 1 is sent")
    assert settled - executed == pytest.approx(60, abs=1)
    assert run.words.count("charge.succeeded") == 1
    assert "undo reserve 1" not in run.sent
    assert run.count("charge") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_w10_the_pivot_has_executed_and_the_saga_is_cancelled() -> None:
    """Rule 16: cancel comes at 1 s, the pivot's answer is still on its way."""
    run = PIVOT_CANCELLED.run()

    (executed,) = seconds_of(run, "charge 1: the inbox says done")
    (settled,) = seconds_of(run, "settle charge 1 is sent")
    assert executed < settled < executed + 20
    assert "undo reserve 1" not in run.sent
    assert run.count("charge") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- timeouts and attempts: rules 1 and 3 -------------------------------------------------------------

UNANSWERED: Final = Schedule(lost("sending answer to reserve 1", 1, 2, 3))
LATE_AFTER_THE_PIVOT: Final = Schedule(lost("sending answer to ship 1", 1, 2, 3), simulation=PIVOT_RETRIABLE)


def test_w7_w8_a_command_has_executed_and_its_timeout_is_over() -> None:
    """Rules 1, 3: the same message goes again until the timeout; then the step is undone, not attempted."""
    run = UNANSWERED.run()

    assert run.sent.count("reserve 1") > 1
    assert "reserve 2" not in run.sent
    assert run.executions("reserve") == 1
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_w9_a_step_after_the_pivot_has_executed_and_its_timeout_is_over() -> None:
    """Rules 1, 3, 18: it is late, parked, and the same message goes on being sent."""
    run = LATE_AFTER_THE_PIVOT.run()

    assert run.words.index("ship.parked") < run.words.index("ship.succeeded")
    assert run.sent.count("ship 1") > 3
    assert "ship 2" not in run.sent
    assert run.executions("ship") == run.count("ship") == 1
    assert run.status is Status.COMPLETED


# ---- undone once: rules 3 and 15 ----------------------------------------------------------------------

UNDO_UNANSWERED: Final = Schedule(
    {"an operator cancels": "after 0.015 s"} | lost("sending answer to undo reserve 1", 1, 2, 3)
)
UNDO_FAILED_AND_AGAIN: Final = Schedule(
    {
        "an operator cancels": "after 0.015 s",
        "handling undo reserve 1": "fails",
        "acknowledging undo reserve 1": "dies before",
        "sending answer to undo reserve 1 #2": "late 100 s",
    }
)


def test_w5_a_compensation_has_undone_and_its_timeout_is_over() -> None:
    """Rules 3, 15: the same message goes on being sent, and is answered from the row."""
    run = UNDO_UNANSWERED.run()

    assert "reserve.parked" in run.words
    assert run.sent.count("undo reserve 1") > 3
    assert "undo reserve 2" not in run.sent
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_w6_a7_a_copy_of_a_failed_try_comes_and_then_the_next_try() -> None:
    """Rules 3, 15: the copy of ``undo reserve 1`` is answered with its failure, ``undo reserve 2`` undoes."""
    run = UNDO_FAILED_AND_AGAIN.run()

    (failed,) = seconds_of(run, "undo reserve 1 is handled")
    first, again = seconds_of(run, "answer to undo reserve 1 is sent")
    assert failed == first < again < seconds_of(run, "undo reserve 2 is sent")[0]
    assert run.step("reserve").tries == 2
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- the compensation comes first, or at the same time: rules 5 and 6 ---------------------------------

OVERTAKEN: Final = Schedule({"an operator cancels": "after 0.005 s", "sending reserve 1": "late 5 s"})
BURIED_WHILE_AT_WORK: Final = Schedule(
    {
        "handling reserve 1": "takes 20 s",
        "an operator cancels": "after 2 s",
        "undo reserve 1 finds its key busy": "races",
    }
)
DONE_WHILE_BURYING: Final = Schedule(
    {
        "an operator cancels": "after 0.005 s",
        "sending reserve 1": "late 5 s",
        "reserve 1 finds its key busy": "races",
    }
)


def test_a4_a_command_comes_after_its_compensation() -> None:
    """Rule 5: ``undo reserve 1`` finds nothing at 0.015 s; ``reserve 1`` comes at 5 s."""
    run = OVERTAKEN.run()

    assert run.last_row("reserve").state is RowState.WITHDRAWN
    assert seconds_of(run, "undo reserve 1: the inbox says withdrawn") < [5.0]
    assert seconds_of(run, "answer to reserve 1 is sent") == [5.01]
    assert run.executions("reserve") == run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a5_the_compensation_commits_while_the_handler_of_the_command_is_at_work() -> None:
    """Rule 5: the tombstone of 2 s is in the way when the handler commits at 20 s."""
    run = BURIED_WHILE_AT_WORK.run()

    (begun,) = seconds_of(run, "reserve 1 is handled: takes 20 s")
    (buried,) = seconds_of(run, "undo reserve 1: the inbox says withdrawn")
    (answered,) = seconds_of(run, "answer to reserve 1 is sent")
    assert begun < buried < answered
    assert seconds_of(run, "reserve 1: the inbox says done") == []
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def stalling_before_its_commit(patch: Patch) -> Schedule:
    """`DONE_WHILE_BURYING`: whoever handles the compensation stalls 20 s after it has read: no row."""
    runs: list[Run[Order]] = []

    def slowly(row: InboxRow | None, delivery: Delivery, **how: Any) -> Verdict:
        if row is None and delivery.kind is Kind.UNDO:
            runs[-1].world.pass_time(20)
        return judge(row, delivery, **how)

    patch.setattr(participant, "judge", slowly)
    return Schedule(DONE_WHILE_BURYING.faults, {0.0: runs.append})


def test_a6_the_command_commits_between_the_compensations_look_and_its_commit(monkeypatch: Patch) -> None:
    """Rule 6: ``undo reserve 1`` loses the row, reads it again, and undoes."""
    run = stalling_before_its_commit(monkeypatch).run()

    (done,) = seconds_of(run, "reserve 1: the inbox says done")
    (undone,) = seconds_of(run, "undo reserve 1: the inbox says undone")
    assert 5 < done < 20 < undone
    assert seconds_of(run, "undo reserve 1: the inbox says withdrawn") == []
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a6_breaks_the_promise_without_its_rule(monkeypatch: Patch) -> None:
    """Rule 6: going on with what it had read, ``undo reserve 1`` says that there was nothing to undo."""
    schedule = stalling_before_its_commit(monkeypatch)
    without.effects_alone(monkeypatch)
    without.going_on_with_what_was_read(monkeypatch)

    assert schedule.harm() == "the saga is compensated, and the effect of reserve stays"


# ---- replies: rule 12 ---------------------------------------------------------------------------------


def counted_again(name: str) -> dict[str, str]:
    """The failure of attempt 1 is taken, its process dies, and takes it again in the pause; dies again, and
    takes it a third time when attempt 2 is in flight. The answer of that comes later still."""
    return {
        f"handling {name} 1": "fails",
        f"acknowledging answer to {name} 1": "dies before",
        "restarting orchestrator 1": "5.1 s",
        f"acknowledging answer to {name} 1 #2": "dies before",
        "restarting orchestrator 1 #2": "0 s",
        f"sending answer to {name} 2": "late 3 s",
    }


COUNTED_AGAIN: Final = Schedule(counted_again("reserve"))
PIVOT_COUNTED_AGAIN: Final = Schedule(counted_again("charge"), simulation=COMP_PIVOT)


def assert_the_old_failure_came_while_attempt_2_was_in_flight(run: Run[Order], name: str) -> None:
    *_, last = seconds_of(run, f"orchestrator 1 takes answer to {name} 1")
    (sent,) = seconds_of(run, f"{name} 2 is sent")
    (answered,) = seconds_of(run, f"orchestrator 1 takes answer to {name} 2")

    assert sent < last < answered
    assert run.words.count("reply_ignored") == 2
    assert run.words.count(f"{name}.attempt_failed") == 1


def test_w0_a8_a8b_a_failure_of_attempt_1_comes_again_while_attempt_2_is_in_flight() -> None:
    """Rule 12: counted for attempt 2, it would be what no participant ever said."""
    run = COUNTED_AGAIN.run()

    assert_the_old_failure_came_while_attempt_2_was_in_flight(run, "reserve")
    assert run.status is Status.COMPLETED


def test_a8d_a_failure_of_the_pivot_comes_again_after_attempt_2_has_executed() -> None:
    """Rules 12, 16: counted for attempt 2, it would turn back a saga whose pivot holds."""
    run = PIVOT_COUNTED_AGAIN.run()

    assert_the_old_failure_came_while_attempt_2_was_in_flight(run, "charge")
    assert "charge.settling" not in run.words
    assert run.count("charge") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_a8e_a_failure_comes_again_after_attempt_2_has_executed() -> None:
    """Rules 12, 13: counted for attempt 2, it would end the saga as if the step had not happened."""
    run = COUNTED_AGAIN.run()

    (executed,) = seconds_of(run, "reserve 2: the inbox says done")
    assert executed < seconds_of(run, "orchestrator 1 takes answer to reserve 1")[-1]
    assert run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- where a compensation goes: rule 14 ---------------------------------------------------------------

CANCELLED_WHEN_DONE: Final = Schedule({"an operator cancels": "after 0.015 s"})


def test_a9_the_compensation_is_handled_where_the_commands_row_is() -> None:
    """Rule 14: handled elsewhere it would find nothing to undo, so such a saga cannot be declared."""
    with pytest.raises(DefinitionError, match="money_service"):

        class ReleaseElsewhere(Compensation[Reserve], service=money_service, name="release_elsewhere"): ...

    run = CANCELLED_WHEN_DONE.run()

    assert seconds_of(run, "reserve 1: the inbox says done") < seconds_of(
        run, "undo reserve 1: the inbox says undone"
    )
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- sending again: rule 21 ---------------------------------------------------------------------------

DIES_BEFORE_PUBLISHING: Final = Schedule(
    {"an operator cancels": "after 0.015 s", "deciding a timer #2": "dies after"}
)


def test_a10_the_orchestrator_dies_after_the_commit_and_before_publishing_the_compensation() -> None:
    """Rule 21: the row names the compensation, and it is sent by whoever looks at the row next."""
    run = DIES_BEFORE_PUBLISHING.run()

    assert "before anything is published" in run.trace()
    assert "reserve.sent_again" in run.words
    assert run.sent.count("undo reserve 1") == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- rows that go: rules 9 and 10 ---------------------------------------------------------------------


def stock_deletes_old_rows(run: Run[Order]) -> None:
    """What the participant does once a minute."""
    gone = run.participants["stock_service"].participant.forget_old()
    run.world.say(f"{gone} rows are old")


COPY_OUTLIVES_THE_JOB: Final = Schedule(
    {"sending answer to reserve 1": "lost", "sending reserve 1 #2": "late 30 s"},
    {20.0: stock_deletes_old_rows},
)
ROW_MISSING: Final = Schedule(
    {
        "stock_service's inbox": "forgets after 2 s",
        "sending hold 1": "late 5 s",
        "handling hold 1": "refuses",
    },
    simulation=COMP_COMP,
)
COPY_OUTLIVES_THE_ROW: Final = Schedule({"sending reserve 1": "twice, 19000 s apart"})


def test_a11_rows_are_deleted_while_a_copy_of_the_command_is_under_way() -> None:
    """Rule 10: a row is kept for longer than any message of its operation may be executed."""
    run = COPY_OUTLIVES_THE_JOB.run()

    (again,) = seconds_of(run, "reserve 1 is sent: late 30 s")
    assert seconds_of(run, "0 rows are old") == [20.0]
    assert again < 20 < again + 30
    assert run.sent.count("answer to reserve 1") > 1
    assert run.executions("reserve") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_a12_a_row_is_gone_when_its_step_must_be_undone() -> None:
    """Rules 9, 10: the saga says that it saw the step succeed, so nobody takes it for "nothing to undo"."""
    run = ROW_MISSING.run()

    (forgotten,) = seconds_of(run, "the inbox forgets reserve")
    assert forgotten < seconds_of(run, "undo reserve 1 is sent")[0]
    assert "InboxRowMissing" in (run.step("reserve").parked or "")
    assert run.row("reserve") is None
    assert run.count("reserve") == 1
    assert run.status is Status.PARKED


def test_a13_a_copy_comes_after_the_sagas_end_when_the_row_is_gone() -> None:
    """Rule 10: it has passed the moment until which it might have been executed."""
    run = COPY_OUTLIVES_THE_ROW.run()

    assert "retention deletes 1 inbox rows of stock_service" in run.trace()
    (expired,) = run.participants["stock_service"].database.quarantined
    assert expired.reason.startswith("expired")
    assert run.executions("reserve") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- operators: rule 17 -------------------------------------------------------------------------------


def she_undoes_by_hand(run: Run[Order]) -> None:
    """The operator takes the effect back herself."""
    run.world.say("she undoes by hand")
    database = run.participants["stock_service"].database
    database.rows = deepcopy(database.rows)  # as a transaction of hers would
    run.effects.undone(database.rows, run.key("reserve"))


COMPLETED_BY_HAND: Final = Schedule(
    {"an operator cancels": "after 0.015 s", "sending undo reserve 1": "late 400 s"}
    | lost("sending undo reserve 1", 2, 3, 4),
    {75.0: acts(Act.COMPLETE, "reserve"), 76.0: she_undoes_by_hand},
)
SKIPPED_WHEN_DONE: Final = Schedule(
    lost("sending answer to ship 1", 1, 2, 3, 4), {75.0: acts(Act.SKIP, "ship")}, PIVOT_RETRIABLE
)
SKIPPED_WHILE_QUEUED: Final = Schedule(
    {"sending ship 1": "late 400 s"} | lost("sending ship 1", 2, 3, 4),
    {75.0: acts(Act.SKIP, "ship")},
    PIVOT_RETRIABLE,
)


def test_a15_a16_an_operator_undoes_by_hand_what_a_queued_compensation_would_undo_too() -> None:
    """Rule 17: the row is handed over first, so ``undo reserve 1`` finds nothing that is its own at 400 s."""
    run = COMPLETED_BY_HAND.run()

    (handed,) = seconds_of(run, "settle reserve 1: the inbox says handed_over")
    assert 75 < handed < 76
    assert run.last_row("reserve").state is RowState.HANDED_OVER
    assert [
        said for said in run.trace().splitlines() if "undo reserve" in said and "is handled" in said
    ] == []
    assert run.sent.count("answer to undo reserve 1") == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_a17_an_operator_skips_a_step_whose_command_is_still_queued() -> None:
    """Rule 17: the row is closed first, so ``ship 1`` is refused when it comes at 400 s."""
    run = SKIPPED_WHILE_QUEUED.run()

    (closed,) = seconds_of(run, "settle ship 1: the inbox says withdrawn")
    assert closed < seconds_of(run, "answer to ship 1 is sent")[0]
    assert "ship.skipped" in run.words
    assert run.executions("ship") == run.count("ship") == 0
    assert run.status is Status.COMPLETED


def test_a18_an_operator_skips_a_step_that_has_happened() -> None:
    """Rule 17: the row says *done*, so it is a success, whatever was asked for."""
    run = SKIPPED_WHEN_DONE.run()

    assert seconds_of(run, "ship 1: the inbox says done") < seconds_of(run, "settle ship 1 is sent")
    assert "operator.skip" in run.words
    assert "ship.skipped" not in run.words
    assert "ship.succeeded" in run.words
    assert run.count("ship") == 1
    assert run.status is Status.COMPLETED


# ---- two at once: rules 7 and 19 ----------------------------------------------------------------------

TWICE_AT_ONCE: Final = Schedule(
    {"sending reserve 1": "twice, 0.5 s apart", "handling reserve 1": "takes 3 s"}
)
TWO_ORCHESTRATORS: Final = Schedule(
    {
        "orchestrators": "two",
        "sending answer to reserve 1": "late 45 s",
        "taking answer to reserve 1": "stalls 20 s",
    }
    | lost("sending answer to reserve 1", 2, 3),
    simulation=COMP_PIVOT,
)


def test_a19_a20_a_copy_comes_while_the_handler_is_at_work() -> None:
    """Rule 7: it finds the key busy and is dropped."""
    run = TWICE_AT_ONCE.run()

    (begun,) = seconds_of(run, "reserve 1 is handled: takes 3 s")
    (dropped,) = seconds_of(run, "reserve 1 finds its key busy and is dropped")
    (done,) = seconds_of(run, "reserve 1: the inbox says done")
    assert begun < dropped < done
    assert run.executions("reserve") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_a19_breaks_the_promise_without_its_rule() -> None:
    """Rule 7: where no key is held, two handlers are at work at once; rule 6 still saves the effect."""
    run = Schedule({**TWICE_AT_ONCE.faults, "reserve 1 finds its key busy": "races"}).run()

    (begun,) = seconds_of(run, "reserve 1 is handled: takes 3 s")
    (begun_again,) = seconds_of(run, "reserve 1 is handled: works")
    assert begun < begun_again < begun + 3
    assert run.executions("reserve") == 2
    assert run.count("reserve") == 1


def test_a27_one_orchestrator_stalls_with_a_success_while_the_other_times_the_step_out() -> None:
    """Rule 19: the success of 45 s is decided on the row as it is at 65 s, when the saga has turned back."""
    run = TWO_ORCHESTRATORS.run()

    (stalled,) = seconds_of(run, "answer to reserve 1: the process stalls for 20 s before it has the lock")
    (undoing,) = seconds_of(run, "undo reserve 1 is sent")
    assert stalled < undoing < stalled + 20
    assert "reply_ignored" in run.words
    assert "reserve.succeeded" not in run.words
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- third parties: rule 8 ----------------------------------------------------------------------------

CHARGED_AND_DIED: Final = Schedule(
    {"committing reserve 1 #2": "dies before, not redelivered"}, simulation=OUTSIDE
)
CHARGED_LATE: Final = Schedule({"handling reserve 1": "takes 90 s"}, simulation=OUTSIDE)
CHARGED_AND_FAILED: Final = Schedule({"handling reserve 1": "fails after it worked"}, simulation=OUTSIDE)
CHARGED_AND_FAILED_TWICE: Final = Schedule(
    {"handling reserve 1": "fails after it worked", "handling reserve 2": "fails after it worked"},
    simulation=OUTSIDE,
)


def test_x1_a_handler_charges_and_dies_and_its_step_times_out() -> None:
    """Rule 8: the claim says that it may have worked, so it is undone once the lease is over."""
    run = CHARGED_AND_DIED.run()

    assert run.effects.provider.calls[run.key("reserve")] == 1
    assert (
        seconds_of(run, "undo reserve 1 is sent")[0]
        < seconds_of(run, "undo reserve 1: the inbox says undone")[0]
    )
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_x2_x5_a_compensation_comes_while_the_handler_is_with_the_third_party() -> None:
    """Rule 8: it waits for the claim; what is voided before it was charged is charged all the same."""
    run = CHARGED_LATE.run()

    (charged,) = seconds_of(run, "reserve 1: the inbox says done")
    assert seconds_of(run, "undo reserve 1 is not answered")[0] < charged
    assert charged < seconds_of(run, "undo reserve 1: the inbox says undone")[0]
    assert run.effects.provider.calls[run.key("reserve")] == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_x3_the_third_partys_answer_is_lost_and_the_next_attempt_asks_again() -> None:
    """Rule 1: it asks with the same key."""
    run = CHARGED_AND_FAILED.run()

    assert run.executions("reserve") == 2
    assert run.effects.provider.calls == {run.key("reserve"): 2}
    assert all_effects(run) == 1
    assert run.status is Status.COMPLETED


def test_x3_breaks_the_promise_without_its_rule(monkeypatch: Patch) -> None:
    """Rule 1: with a key per attempt it is charged twice."""
    without.keys_per_attempt(monkeypatch)

    assert all_effects(CHARGED_AND_FAILED.run()) == 2


def test_x4_the_third_partys_answer_is_lost_until_the_attempts_are_used_up() -> None:
    """Rules 8, 13: it is undone, because a failure is not "nothing happened"."""
    run = CHARGED_AND_FAILED_TWICE.run()

    assert run.effects.provider.calls == {run.key("reserve"): 2}
    assert run.last_row("reserve").state is RowState.UNDONE
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


# ---- the same schedules without their rules -----------------------------------------------------------


@dataclass(frozen=True)
class Without:
    """A schedule, what is taken away, and the promise that breaks then."""

    schedule: Schedule
    taken_away: tuple[Callable[[Patch], None], ...]
    harm: str


STAYS: Final = "the saga is compensated, and the effect of reserve stays"
PIVOT_STAYS: Final = "the saga believes that charge is compensated, and its effect is there"
NO_FAILURES: Final = without.not_stored(RowState.FAILED)

HARM: Final[Mapping[str, Without]] = {
    "W0": Without(
        COUNTED_AGAIN,
        (without.matched_by_name,),
        "the history says that reserve failed in attempt 2: it did not",
    ),
    "W1": Without(CANCELLED_IN_THE_PAUSE, (NO_FAILURES, without.failed_is_not_undone), STAYS),
    "W2": Without(
        FAILED_AND_AGAIN, (NO_FAILURES, without.rows_per_attempt), "the effect of reserve is there 2 times"
    ),
    "W4": Without(PIVOT_UNANSWERED, (without.given_up_blindly,), PIVOT_STAYS),
    "W5": Without(
        UNDO_UNANSWERED,
        (without.a_timeout_starts_an_attempt, without.undone_once_per_try),
        "the effect of reserve is there -1 times",
    ),
    "W6": Without(
        UNDO_FAILED_AND_AGAIN, (without.undone_once_per_try,), "the effect of reserve is there -1 times"
    ),
    "W7": Without(
        UNANSWERED,
        (without.a_timeout_starts_an_attempt, without.rows_per_attempt),
        "the effect of reserve is there 2 times",
    ),
    "W9": Without(
        LATE_AFTER_THE_PIVOT,
        (without.a_timeout_starts_an_attempt, without.rows_per_attempt),
        "the effect of ship is there 2 times",
    ),
    "W10": Without(PIVOT_CANCELLED, (without.given_up_blindly,), PIVOT_STAYS),
    "A1c": Without(PIVOT_CANCELLED_IN_THE_PAUSE, (NO_FAILURES, without.given_up_blindly), PIVOT_STAYS),
    "A2": Without(
        CANCELLED_IN_THE_PAUSE,
        (without.failures_without_attempt, without.failed_is_not_undone),
        STAYS,
    ),
    "A2c": Without(
        PIVOT_CANCELLED_IN_THE_PAUSE,
        (without.failures_without_attempt, without.given_up_blindly),
        PIVOT_STAYS,
    ),
    "A3": Without(REFUSED_AND_AGAIN, (without.not_stored(RowState.REFUSED),), STAYS),
    "A4": Without(OVERTAKEN, (without.no_tombstone,), STAYS),
    "A5": Without(BURIED_WHILE_AT_WORK, (without.tombstone_in_a_row_of_its_own,), STAYS),
    "A8d": Without(PIVOT_COUNTED_AGAIN, (without.matched_by_name, without.given_up_blindly), PIVOT_STAYS),
    "A8e": Without(COUNTED_AGAIN, (without.matched_by_name, without.failed_is_not_undone), STAYS),
    "A9": Without(CANCELLED_WHEN_DONE, (without.compensated_elsewhere,), STAYS),
    "A10": Without(
        DIES_BEFORE_PUBLISHING,
        (without.never_sent_again,),
        "reserve is parked long after the last fault, and needs no person",
    ),
    "A11": Without(
        COPY_OUTLIVES_THE_JOB, (without.rows_go_by_age_alone,), "the effect of reserve is there 2 times"
    ),
    "A12": Without(ROW_MISSING, (without.what_the_saga_saw_is_not_said,), STAYS),
    "A13": Without(
        COPY_OUTLIVES_THE_ROW, (without.messages_without_an_end,), "the effect of reserve is there 2 times"
    ),
    "A15": Without(
        COMPLETED_BY_HAND, (without.taken_over_blindly,), "the effect of reserve is there -1 times"
    ),
    "A17": Without(
        SKIPPED_WHILE_QUEUED,
        (without.taken_over_blindly,),
        "the saga believes that ship is skipped, and its effect is there",
    ),
    "A18": Without(
        SKIPPED_WHEN_DONE,
        (without.taken_over_blindly,),
        "the saga believes that ship is skipped, and its effect is there",
    ),
    "A27": Without(
        TWO_ORCHESTRATORS,
        (without.no_lock,),
        "the saga believes that reserve succeeded, and its effect is not there",
    ),
    "X1": Without(CHARGED_AND_DIED, (without.no_claim,), STAYS),
    "X2": Without(CHARGED_LATE, (without.undoing_while_it_works,), STAYS),
    "X4": Without(CHARGED_AND_FAILED_TWICE, (without.failed_is_not_undone,), STAYS),
    "X4, rule 8": Without(CHARGED_AND_FAILED_TWICE, (without.failed_outside_is_nothing,), STAYS),
}


@pytest.mark.parametrize("tag", HARM)
def test_without_its_rules_the_same_schedule_breaks_a_promise(tag: str, monkeypatch: Patch) -> None:
    case = HARM[tag]
    case.schedule.run()

    without.effects_alone(monkeypatch)
    for take_away in case.taken_away:
        take_away(monkeypatch)

    assert case.schedule.harm().startswith(case.harm)


TOGETHER: Final = [
    (tag, taken_away)
    for tag, case in HARM.items()
    for taken_away in case.taken_away
    # A reply that is matched by name is harm enough: that is W0.
    if len(case.taken_away) > 1 and taken_away is not without.matched_by_name
]


@pytest.mark.parametrize(("tag", "taken_away"), TOGETHER)
def test_where_two_rules_must_be_missing_either_alone_prevents_the_harm(
    tag: str, taken_away: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    without.effects_alone(monkeypatch)
    taken_away(monkeypatch)

    assert HARM[tag].schedule.run().status.ended


# ---- nothing is left out ------------------------------------------------------------------------------

PROTOCOL: Final = Path(__file__).parents[2] / "docs" / "explanation" / "protocol.md"
TAG: Final = re.compile(r"\b[WAX]\d+[a-e]?\b")
KNOWN: Final = TAG.findall(
    "W0 W1 W2 W3 W4 W5 W6 W7 W8 W9 W10 A1 A1b A1c A2 A2c A3 A4 A5 A6 A7 A8 A8b A8d A8e A9 A10 A11 A12 A13 "
    "A15 A16 A17 A18 A19 A20 A27 X1 X2 X3 X4 X5"
)
"""Every schedule that was ever found."""


def table() -> list[tuple[list[str], str, str]]:
    """The rows of the protocol's table: tags, rules, name of the test."""
    section = PROTOCOL.read_text().partition("## 3. ")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if TAG.match(line.strip("| "))]
    return [(TAG.findall(tags), rules, test.strip("`")) for tags, _, rules, test in rows]


def test_every_schedule_of_the_protocol_is_in_its_table_once() -> None:
    tags = [tag for row_tags, _, _ in table() for tag in row_tags]

    assert sorted(tags) == sorted(KNOWN)
    assert set(TAG.findall(PROTOCOL.read_text())) == set(KNOWN)


@pytest.mark.parametrize(("tags", "rules", "test"), table(), ids=lambda value: "".join(value)[:40])
def test_a_row_of_the_table_names_its_test_and_the_rules_that_remove_the_schedule(
    tags: list[str], rules: str, test: str
) -> None:
    word = "Rules" if "," in rules else "Rule"

    assert test.startswith(f"test_{'_'.join(tags).lower()}_")
    assert (globals()[test].__doc__ or "").startswith(f"{word} {rules}: ")


def test_every_test_of_a_schedule_is_in_the_table() -> None:
    tested = [name for name in globals() if re.match(r"test_[wax]\d", name)]

    assert sorted(name for name in tested if "_breaks_the_promise_" not in name) == sorted(
        test for _, _, test in table()
    )


def test_of_every_row_somebody_has_shown_that_it_does_harm_without_its_rules() -> None:
    shown = {tag.partition(",")[0] for tag in HARM}
    shown |= {tag for tag in KNOWN if f"test_{tag.lower()}_breaks_the_promise_without_its_rule" in globals()}

    harmless = [tags for tags, _, _ in table() if not shown & set(tags)]
    assert harmless == [["A1b"]]  # which is there to say so
