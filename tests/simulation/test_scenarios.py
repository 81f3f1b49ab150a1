"""The twenty scenarios of the protocol, each with what breaks a system without its rule.

W, A, P and X are the schedules of ``docs/explanation/protocol.md``. Everything here is an interleaving in
memory; what is marked *also on servers* is shown on real ones as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final, cast

import pytest

from sagas_framework import Act, Command, Context, Participant, Status, Undo
from sagas_framework.core.inbox import RowState
from sagas_framework.core.instance import OutcomeKind, Phase
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox
from sagas_framework.testing import POLICY, Run, Simulation, scenario
from sagas_framework.testing.network import Network
from sagas_framework.transport.publisher import Load
from tests.simulation.shapes import (
    SHAPES,
    Charge,
    Comp,
    CompPivot,
    Order,
    OutOfStock,
    PivotRetriable,
    Release,
    Reserve,
    Reserved,
    stock_service,
)

COMP: Final = SHAPES["comp"]
COMP_COMP: Final = SHAPES["comp,comp"]
COMP_PIVOT: Final = SHAPES["comp,pivot"]
PIVOT_RETRIABLE: Final = SHAPES["pivot,retriable"]
OUTSIDE: Final = SHAPES["outside comp"]


def acts(act: Act, step: str | None = None, *, force: bool = False) -> Callable[[Run[Order]], None]:
    """What an operator does in the meantime."""

    def do(run: Run[Order]) -> None:
        run.operator(act, step, force=force)

    return do


def lost(point: str, *numbers: int) -> dict[str, str]:
    """Faults: this message is lost each of these times that it is sent."""
    return {point if number == 1 else f"{point} #{number}": "lost" for number in numbers}


# ---- 1 to 4: attempts -----------------------------------------------------------------------------


def test_01_a_failed_attempt_that_is_delivered_again_is_answered_and_not_executed() -> None:
    """A1, A2: ``reserve 1`` comes again after its failure was answered. Executed, its effect would be there
    although the saga counts the attempt as failed."""
    run = COMP.replay({"handling reserve 1": "fails", "acknowledging reserve 1": "dies before"})

    assert run.effects.executions[run.key("reserve"), 1] == 1
    assert run.sent.count("answer to reserve 1") == 2
    assert run.status is Status.COMPLETED


def test_02_a_duplicate_of_a_failed_pivot_comes_while_the_saga_is_undone() -> None:
    """A1c: the copy of ``charge 1`` comes at 45 s, when both attempts have failed and the saga turns back."""
    run = COMP_PIVOT.replay(
        {
            "sending charge 1": "twice, 45 s apart",
            "handling charge 1": "fails",
            "handling charge 2": "fails",
            "sending undo reserve 1": "late 100 s",
        }
    )

    assert run.executions("charge") == 2
    assert run.count("charge") == run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_03_a_duplicate_in_the_pause_leaves_nothing_when_the_saga_is_cancelled_there() -> None:
    """W1: the copy of ``reserve 1`` comes at 2 s, in the pause after its failure; cancel comes at 3 s."""
    run = COMP.replay(
        {"sending reserve 1": "twice, 2 s apart", "handling reserve 1": "fails"},
        meanwhile={3.0: acts(Act.CANCEL)},
    )

    assert run.executions("reserve") == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED
    assert run.instance.outcome is not None
    assert run.instance.outcome.kind is OutcomeKind.CANCELLED


def test_04_an_old_failure_that_comes_again_is_not_counted_for_the_attempt_in_flight() -> None:
    """A8d: the orchestrator dies before it acknowledges ``answer to charge 1``, and a copy comes at
    7 s, while attempt 2 is at work. Counted for attempt 2, it would turn back a saga whose pivot holds."""
    run = COMP_PIVOT.replay(
        {
            "handling charge 1": "fails",
            "sending answer to charge 1": "twice, 7 s apart",
            "acknowledging answer to charge 1": "dies before",
            "handling charge 2": "takes 3 s",
        }
    )

    assert run.words.count("reply_ignored") == 2
    assert run.words.count("charge.attempt_failed") == 1
    assert run.status is Status.COMPLETED


# ---- 5: a success of attempt 1, taken once ----------------------------------------------------------


def test_05_a_success_of_attempt_1_that_comes_while_attempt_2_is_in_flight_is_taken_once() -> None:
    """``answer to ship 1`` comes at 100 s; an operator started attempt 2 at 40 s, and ``ship 2`` is lost."""
    run = PIVOT_RETRIABLE.replay(
        {"sending answer to ship 1": "late 100 s"}
        | lost("sending answer to ship 1", 2, 3)
        | lost("sending ship 2", 1, 2, 3),
        meanwhile={40.0: acts(Act.RETRY, "ship", force=True)},
    )

    assert run.step("ship").attempts == 2
    assert run.words.count("ship.succeeded") == 1
    assert run.executions("ship") == 1
    assert run.status is Status.COMPLETED


def test_05_a_success_of_attempt_1_that_comes_in_the_pause_is_taken_once() -> None:
    """The success comes after a failure of the same attempt (of a participant without an inbox: ours
    answers an attempt one way for ever)."""
    story = scenario(CompPivot, Order()).expects(Reserve)

    story.fails()
    story.replies(reservation=7).expects(Charge).replies().ends(Status.COMPLETED)


def test_05_a_success_of_attempt_1_that_comes_while_the_step_is_parked_is_taken_once() -> None:
    """``answer to ship 1`` comes at 100 s; at 60 s the step is parked as late."""
    run = PIVOT_RETRIABLE.replay(
        {"sending answer to ship 1": "late 100 s"} | lost("sending answer to ship 1", 2, 3, 4)
    )

    assert run.words.index("ship.parked") < run.words.index("ship.succeeded")
    assert run.words.count("ship.succeeded") == 1
    assert run.status is Status.COMPLETED


# ---- 6, 7: time and order ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late", "status", "effects"),
    [("late 59.97 s", Status.COMPLETED, 1), ("late 59.985 s", Status.COMPENSATED, 0)],
    ids=["the reply is committed first", "the timer is committed first"],
)
def test_06_a_timeout_races_a_success_and_effect_and_status_agree(
    late: str, status: Status, effects: int
) -> None:
    """The timeout is at 60 s; ``answer to reserve 1`` comes a hundredth of a second before or after it."""
    run = COMP.replay({"sending answer to reserve 1": late} | lost("sending answer to reserve 1", 2, 3))

    assert run.status is status
    assert run.count("reserve") == effects


def test_06_a_reply_that_was_taken_before_the_timeout_is_decided_on_the_row_as_locked() -> None:
    """The reply is taken at 59 s, its process stalls until 62 s; at 60 s the timer turns the saga back."""
    run = COMP.replay(
        {"sending answer to reserve 1": "late 59 s", "taking answer to reserve 1": "stalls 3 s"}
        | lost("sending answer to reserve 1", 2, 3)
    )

    assert "reply_ignored" in run.words
    assert run.status is Status.COMPENSATED
    assert run.count("reserve") == 0


def test_07_a_compensation_overtakes_its_command_which_is_refused_when_it_comes() -> None:
    """``reserve 1`` comes at 5 s, when ``undo reserve 1`` was handled and the saga has ended."""
    run = COMP.replay({"an operator cancels": "after 0.005 s", "sending reserve 1": "late 5 s"})

    assert run.last_row("reserve").state is RowState.WITHDRAWN
    assert run.executions("reserve") == run.count("reserve") == 0
    assert run.sent[-1] == "answer to reserve 1"
    assert run.status is Status.COMPENSATED


# ---- 8: two children --------------------------------------------------------------------------------


def test_08_the_compensation_commits_while_another_child_is_at_work_on_the_command() -> None:
    """A5, A6; also on servers: ``reserve 1`` is asleep in its handler when ``undo reserve 1`` writes the
    tombstone. The handler's commit loses the row, reads again, and answers that it was withdrawn."""
    run = COMP.replay(
        {
            "handling reserve 1": "takes 20 s",
            "an operator cancels": "after 2 s",
            "undo reserve 1 finds its key busy": "races",
        }
    )

    assert run.last_row("reserve").state is RowState.WITHDRAWN
    assert run.executions("reserve") == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_08_the_command_commits_first_and_the_compensation_comes_again_to_undo_it() -> None:
    """A5, A6; also on servers: ``undo reserve 1`` is dropped (its key is busy), is sent again and undoes."""
    run = COMP.replay({"handling reserve 1": "takes 20 s", "an operator cancels": "after 2 s"})

    assert run.last_row("reserve").state is RowState.UNDONE
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.status is Status.COMPENSATED


# ---- 9: what was refused stays refused ----------------------------------------------------------------


def _stock(command: type[Command[Any]], handler: Callable[[Any, Context], Any]) -> Participant:
    """The stock service as somebody deploys it."""
    participant = Participant(stock_service, inbox=MemoryInbox(MemoryDatabase()))
    participant.handles(command)(handler)

    @participant.undoes(Release)
    def release(command: Release, undo: Undo[Reserve]) -> None: ...

    return participant


def _with_stock(command: Reserve, context: Context) -> Reserved:
    if not cast(Any, context.session).rows.get("stock"):
        raise OutOfStock("none left")
    return Reserved(reservation=7)


def _again_at_1_s(participant: Participant, change: Callable[[Run[Order]], None]) -> Run[Order]:
    """``reserve 1`` is refused, the world changes, and ``reserve 1`` is delivered again."""
    simulation = Simulation(Comp, Order(), participants=[participant])
    run = simulation.replay({"acknowledging reserve 1": "dies before"}, meanwhile={0.5: change})

    assert run.sent.count("answer to reserve 1") == 2
    assert run.status is Status.COMPENSATED
    assert run.step("reserve").phase is Phase.REFUSED
    assert run.count("reserve") == 0
    return run


def test_09_a_refusal_is_repeated_though_it_would_be_accepted_by_now() -> None:
    """A3: ``reserve 1`` comes again after stock has come in."""

    def stock_comes(run: Run[Order]) -> None:
        run.participants["stock_service"].database.rows["stock"] = 3

    run = _again_at_1_s(_stock(Reserve, _with_stock), stock_comes)

    assert run.step("reserve").error == {
        "type": "OutOfStock",
        "message": "none left",
        "module": OutOfStock.__module__,
    }


def test_09_an_invalid_payload_is_refused_again_after_a_deployment_that_could_read_it() -> None:
    """A3: the first worker wanted a field that ``reserve 1`` lacks; the second does not."""

    class StrictReserve(Command[Reserved], service=stock_service, name="reserve"):
        order: int
        warehouse: int

    run = _again_at_1_s(_stock(StrictReserve, _with_stock), _deploys(_stock(Reserve, _with_stock)))

    assert (run.step("reserve").error or {})["type"] == "InvalidPayload"


def test_09_an_unknown_task_is_refused_again_after_a_deployment_that_has_it() -> None:
    """A3: the first worker had no handler for ``reserve 1``; the second has."""

    class Other(Command[Reserved], service=stock_service, name="other"):
        order: int

    run = _again_at_1_s(_stock(Other, _with_stock), _deploys(_stock(Reserve, _with_stock)))

    assert (run.step("reserve").error or {})["type"] == "UnknownTask"


def _deploys(participant: Participant) -> Callable[[Run[Order]], None]:
    def deploy(run: Run[Order]) -> None:
        process = run.participants[participant.service.name]
        process.database.rows["stock"] = 3
        process.participant._handlings = participant._handlings

    return deploy


# ---- 10: undone once --------------------------------------------------------------------------------


def test_10_a_failed_try_of_a_compensation_that_comes_again_is_answered_and_the_next_undoes() -> None:
    """A7, W6: ``undo reserve 1`` fails and comes again, where it would work; then ``undo reserve 2``."""
    run = COMP_PIVOT.replay(
        {
            "handling charge 1": "refuses",
            "handling undo reserve 1": "fails",
            "acknowledging undo reserve 1": "dies before",
        }
    )

    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.step("reserve").tries == 2
    assert run.status is Status.COMPENSATED


def test_10_a_compensation_whose_reply_is_lost_ten_times_undoes_once() -> None:
    """W5: ``undo reserve 1`` comes eleven times."""
    run = COMP_PIVOT.replay(
        {"handling charge 1": "refuses"} | lost("sending answer to undo reserve 1", *range(1, 11))
    )

    assert run.sent.count("undo reserve 1") == 11
    assert run.effects.tally(run.key("reserve")).undone == 1
    assert run.status is Status.COMPENSATED


# ---- 11, 12: a third party --------------------------------------------------------------------------


def test_11_a_handler_that_charged_and_was_killed_is_voided_when_the_saga_times_out() -> None:
    """X1; also on servers: the worker dies between the provider and its own commit, its message is gone."""
    run = OUTSIDE.replay({"committing reserve 1 #2": "dies before, not redelivered"})

    assert run.effects.provider.calls[run.key("reserve")] == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_11_a_provider_that_charges_and_then_answers_500_charges_once() -> None:
    """X3: ``reserve 2`` calls the provider with the key of ``reserve 1``."""
    run = OUTSIDE.replay({"handling reserve 1": "fails after it worked"})

    assert run.effects.provider.calls[run.key("reserve")] == 2
    assert run.effects.provider.keys["reserve"] == {run.key("reserve")}
    assert run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_11_when_the_attempts_run_out_what_the_provider_charged_is_voided() -> None:
    """X4: both attempts end with an error after the charge."""
    run = OUTSIDE.replay(
        {"handling reserve 1": "fails after it worked", "handling reserve 2": "fails after it worked"}
    )

    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_12_a_compensation_waits_for_the_outside_handler_and_then_undoes() -> None:
    """X5: ``undo reserve 1`` comes while the handler is with the provider, from 60 s to 90 s."""
    run = OUTSIDE.replay({"handling reserve 1": "takes 90 s"})

    assert run.effects.provider.calls[run.key("reserve")] == 1
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED
    assert run.instance.ended_at is not None
    assert run.instance.ended_at - run.instance.created_at > timedelta(seconds=90)


# ---- 13: a long handler -----------------------------------------------------------------------------


def test_13_a_handler_of_five_minutes_that_is_sent_twenty_times_starts_once() -> None:
    """A19, A20; also on servers: every copy of ``ship 1`` finds its key busy, and occupies nobody."""
    eager = replace(POLICY, resend_first=timedelta(seconds=5), resend_ceiling=timedelta(seconds=14))
    simulation = Simulation(PivotRetriable, Order(), policy=eager)

    run = simulation.replay({"handling ship 1": "takes 300 s"})

    assert run.sent.count("ship 1") > 20
    assert run.trace().count("ship 1 finds its key busy and is dropped") > 19
    assert run.executions("ship") == run.count("ship") == 1
    assert run.status is Status.COMPLETED


# ---- 14: the pivot ----------------------------------------------------------------------------------


def test_14_a_pivot_that_had_committed_before_its_participant_went_down_keeps_the_saga_going() -> None:
    """W4: ``answer to charge 1`` is lost, its service down past the timeout. Given up, the charge stays."""
    run = COMP_PIVOT.replay(
        {"sending answer to charge 1": "lost", "money_service is stopped": "after 0.035 s for 130 s"}
    )

    assert "charge.settling" in run.words
    assert run.count("charge") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


def test_14_a_pivot_that_never_came_to_its_participant_turns_the_saga_back() -> None:
    """P12: ``charge 1`` comes after ``settle charge 1`` has closed its row."""
    run = COMP_PIVOT.replay({"sending charge 1": "late 400 s"} | lost("sending charge 1", 2, 3))

    assert run.executions("charge") == run.count("charge") == run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


@pytest.mark.parametrize(
    ("happened", "fault"),
    [(True, {"handling charge 1": "takes 3 s"}), (False, {"sending charge 1": "late 5 s"})],
    ids=["it happens", "it does not"],
)
def test_14_a_cancel_while_the_pivot_is_in_flight_asks_first(happened: bool, fault: dict[str, str]) -> None:
    """W10: cancel comes at 1 s; ``settle charge 1`` is answered from the row, and only that decides."""
    run = COMP_PIVOT.replay(fault, meanwhile={1.0: acts(Act.CANCEL)})

    assert "charge.settling" in run.words
    assert run.count("charge") == run.count("reserve") == int(happened)
    assert run.status is (Status.COMPLETED if happened else Status.COMPENSATED)


# ---- 15, 16, 17: late, and operators ----------------------------------------------------------------


def test_15_a_step_after_the_pivot_that_an_operator_retries_has_one_effect() -> None:
    """W9: ``answer to ship 1`` is lost for more than a minute, then ``ship 2`` comes."""
    run = PIVOT_RETRIABLE.replay(
        lost("sending answer to ship 1", *range(1, 5)), meanwhile={75.0: acts(Act.RETRY, "ship")}
    )

    assert run.step("ship").attempts == 2
    assert run.executions("ship") == run.count("ship") == 1
    assert run.status is Status.COMPLETED


def test_16_a_step_that_is_skipped_while_its_command_waits_is_not_done_when_the_queue_is_drained() -> None:
    """A17: ``settle ship 1`` closes the row; then ``ship 1`` comes out of the queue."""
    run = PIVOT_RETRIABLE.replay(
        {"sending ship 1": "late 400 s"} | lost("sending ship 1", 2, 3, 4),
        meanwhile={75.0: acts(Act.SKIP, "ship")},
    )

    assert "ship.skipped" in run.words
    assert run.executions("ship") == run.count("ship") == 0
    assert run.status is Status.COMPLETED


def test_16_a_step_that_an_operator_skips_although_it_was_done_counts_as_done() -> None:
    """A18: ``settle ship 1`` finds the row done."""
    run = PIVOT_RETRIABLE.replay(
        lost("sending answer to ship 1", *range(1, 5)), meanwhile={75.0: acts(Act.SKIP, "ship")}
    )

    assert "ship.skipped" not in run.words
    assert run.count("ship") == 1
    assert run.status is Status.COMPLETED


def test_16_a_compensation_that_is_completed_by_hand_is_not_done_as_well_when_the_queue_is_drained() -> None:
    """A15, A16: a copy of ``undo reserve 5`` comes after the row was handed over to the operator."""
    run = COMP_PIVOT.replay(
        {"handling charge 1": "refuses", "sending undo reserve 5": "twice, 400 s apart"}
        | {f"handling undo reserve {number}": "fails" for number in range(1, 6)},
        meanwhile={20.0: acts(Act.COMPLETE, "reserve")},
    )

    assert run.last_row("reserve").state is RowState.HANDED_OVER
    assert "reserve.handed_over" in run.words
    assert run.effects.tally(run.key("reserve")).undone == 0
    assert run.status is Status.COMPENSATED


def test_16_an_act_that_was_decided_on_an_older_revision_is_refused() -> None:
    """The operator's page is older than the row."""
    numbers: list[int] = []

    def late_click(run: Run[Order]) -> None:
        numbers.append(run.operator(Act.CANCEL, revision=run.instance.revision - 1))

    run = COMP_COMP.replay({"handling hold 1": "takes 20 s"}, meanwhile={1.0: late_click})

    act = run.answer(numbers[0])
    assert act.refused
    assert "was decided on revision" in (act.answer or "")
    assert run.status is Status.COMPLETED


def test_17_a_late_success_of_a_parked_compensation_unparks_it_and_the_rest_goes_on() -> None:
    """``answer to undo hold 1`` comes at 100 s; at 60 s its compensation was parked as late."""
    run = COMP_COMP.replay(
        {"sending answer to hold 1": "late 3 s", "sending answer to undo hold 1": "late 100 s"}
        | lost("sending answer to undo hold 1", 2, 3, 4),
        meanwhile={1.0: acts(Act.CANCEL)},
    )

    assert "hold.parked" in run.words
    assert run.count("reserve") == run.count("hold") == 0
    assert run.status is Status.COMPENSATED


# ---- 18, 19: retention ------------------------------------------------------------------------------


def test_18_a_step_whose_row_is_gone_is_never_taken_for_undone() -> None:
    """A12: the inbox forgets ``reserve`` in the middle of the saga, then ``hold`` is refused. "Nothing to
    undo" would end it as compensated with the effect there."""
    run = COMP_COMP.replay(
        {
            "handling hold 1": "refuses",
            "sending hold 1": "late 5 s",
            "stock_service's inbox": "forgets after 2 s",
        }
    )

    assert run.count("reserve") == 1
    assert "InboxRowMissing" in (run.step("reserve").parked or "")
    assert run.status is Status.PARKED


def test_19_a_message_that_a_stopped_process_publishes_after_retention_ran_is_set_aside() -> None:
    """A13; also on servers: ``reserve 1`` is published 5 hours late; the saga has ended, its row is gone."""
    run = COMP.replay({"sending reserve 1": "late 19000 s"})

    (expired,) = run.participants["stock_service"].database.quarantined
    assert "expired" in expired.reason
    assert run.row("reserve") is None
    assert run.executions("reserve") == run.count("reserve") == 1
    assert run.status is Status.COMPLETED


# ---- 20: two orchestrators, no broker, no database --------------------------------------------------


def test_20_a_reply_is_not_decided_on_what_was_found_before_the_other_orchestrator_timed_out() -> None:
    """A27: one orchestrator takes ``answer to reserve 1`` at 45 s and stalls; at 60 s the other gives up."""
    run = COMP_PIVOT.replay(
        {
            "orchestrators": "two",
            "sending answer to reserve 1": "late 45 s",
            "taking answer to reserve 1": "stalls 20 s",
        }
        | lost("sending answer to reserve 1", 2, 3)
    )

    assert "reply_ignored" in run.words
    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_20_a_broker_that_is_wiped_at_each_step_behind_a_backlog_that_never_empties_does_not_stop_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rule 21: no queue is ever seen empty, so nothing is presumed lost; after a cap it is sent anyway."""

    def never_empty(network: Network, queue: str) -> Load:
        return Load(5)

    monkeypatch.setattr(Network, "load", never_empty)

    run = COMP_PIVOT.replay(
        {
            "sending reserve 1": "broker wiped",
            "sending undo reserve 1": "broker wiped",
            "sending undo reserve 1 #2": "broker wiped",
        }
    )

    assert run.count("reserve") == 0
    assert run.status is Status.COMPENSATED


def test_20_a_database_that_is_away_for_a_while_costs_no_attempt() -> None:
    """Rule 4; also on servers ("database is locked"): ``reserve 1`` gets no reply twice, then one."""
    run = COMP.replay(
        {
            "committing reserve 1": "database away",
            "committing reserve 1 #2": "database away",
        }
    )

    assert run.sent.count("answer to reserve 1") == 1
    assert run.step("reserve").attempts == 1
    assert "reserve.attempt_failed" not in run.words
