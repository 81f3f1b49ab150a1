"""Steps of participants without an inbox: at most once, and a person decides what nobody answers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sagas_framework.core.decide import decide
from sagas_framework.core.events import Act, Confirmed, OperatorActed, Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import OutcomeKind, Phase, Status, steps_from_json, steps_to_json
from sagas_framework.core.options import options
from sagas_framework.core.telling import Effect, effect
from sagas_framework.core.why import why
from sagas_framework.messages import Command, Compensation, Reply, Service
from sagas_framework.saga import Saga, SagaDefinition, Steps, undo_task
from sagas_framework.steps import NOTHING_TO_UNDO
from tests.unit.core.stories import (
    SAGA_ID,
    CreateTicket,
    OrderState,
    Run,
    mark_order_rejected,
    open_ticket,
    reject_ticket,
    remember_ticket,
    seconds,
)

bakery = Service("bakery", protocol="demo-0.1")


class Baked(Reply):
    courier: str


class Bake(Command[Baked], service=bakery, name="bake"):
    order_id: int


class ThrowAway(Compensation[Bake], service=bakery, name="throw_away"):
    order_id: int


class Wrap(Command[None], service=bakery, name="wrap"):
    order_id: int


class Hand(Command[Baked], service=bakery, name="hand"):
    order_id: int


def remember_baked(state: OrderState, reply: Baked) -> None:
    state.courier = reply.courier


def remember_payment(state: OrderState, result: Any) -> None:
    state.transaction_id = result


step = Steps(OrderState)


class BakerySaga(Saga[OrderState], name="bakery", version=1):
    """A local step, one with an inbox, one of each kind without, the pivot, and one of each after it."""

    reject_order = step.local(compensation=mark_order_rejected)
    ticket = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket)
    bake = step.command(
        Bake,
        lambda state: Bake(order_id=state.order_id),
        on_success=remember_baked,
        compensation=lambda state: ThrowAway(order_id=state.order_id),
    )
    pay = step.task(
        "till.take_payment",
        lambda state: {"amount": state.amount},
        on_success=remember_payment,
        compensation=undo_task("till.pay_back", lambda state: {"payment": state.transaction_id}),
    )
    wrap = step.command(Wrap, lambda state: Wrap(order_id=state.order_id), pivot=True)
    hand = step.command(Hand, lambda state: Hand(order_id=state.order_id), on_success=remember_baked)
    thank = step.task("post.thank", lambda state: {"order": state.order_id})


BAKERY: Final = BakerySaga.definition
BAKED: Final = {"courier": "Ann"}
ANSWERS: Final[dict[str, Any]] = {"ticket": {"ticket_id": 7}, "bake": BAKED, "pay": "p-1", "hand": BAKED}
WITHOUT: Final = ("bake", "pay", "wrap", "hand", "thank")
BEFORE: Final = ("bake", "pay", "wrap")
AFTER: Final = ("hand", "thank")
TIMEOUT: Final = timedelta(minutes=5)


def at(name: str) -> Run:
    """A saga with this step's command in flight, everything before it having succeeded."""
    run = Run(BAKERY).start()
    while run.in_flight != [f"{name} do 1"]:
        ((record, _),) = run.instance.in_flight()
        run.succeeds(payload=ANSWERS.get(record.name))
    return run


def unknown(name: str) -> Run:
    """The same, once the step's timeout is over."""
    run = at(name)
    run.after(TIMEOUT)
    return run


def confirmed(run: Run, name: str) -> None:
    """The broker has the compensation of this step."""
    run.happens(Confirmed(SAGA_ID, run.now, run.flight(name).message_id))


def offered(run: Run) -> dict[str, str]:
    """The acts that would be obeyed, with what comes of them."""
    return {option.act.value: option.consequence for option in options(BAKERY, run.instance, run.now)}


def settled(run: Run) -> list[str]:
    return [out.task for out in run.sent if out.kind is Kind.SETTLE]


# ---- sent once -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_only_its_timeout_is_a_timer(name: str) -> None:
    run = at(name)

    assert run.flight(name).check_at is None
    assert run.instance.due_at == run.step(name).deadline


@pytest.mark.parametrize("name", WITHOUT)
def test_it_is_never_sent_again_by_itself(name: str) -> None:
    """Not when its queue was seen empty, and not after any number of looks."""
    run = at(name)
    queue = run.flight(name).queue

    sends = []
    for _ in range(40):
        run.after(7, {queue: run.now + seconds(7)})
        sends += run.sends

    assert sends == []


@pytest.mark.parametrize("name", WITHOUT)
def test_its_command_expires_when_a_person_is_asked(name: str) -> None:
    run = at(name)

    assert run.sent[-1].not_after == run.step(name).deadline


def test_what_nobody_answers_may_wait_its_turn() -> None:
    run = at("pay")
    run.refuses("TaskFailed")

    (undo,) = run.decision.commands
    assert (undo.task, undo.unanswered) == ("bakery.throw_away", True)
    assert undo.not_after == run.now + timedelta(days=1)


def test_a_flight_without_looks_is_kept_in_the_row() -> None:
    steps = at("bake").instance.steps

    assert steps_from_json(steps_to_json(steps)) == steps


def test_a_participant_without_an_inbox_cannot_have_forgotten() -> None:
    """Rule 10 is about the inbox's memory."""
    run = at("hand")
    run.after(TIMEOUT)
    run.now += timedelta(days=60)

    run.operator(Act.RETRY)

    assert run.sends == ["bakery.hand 2"]


# ---- a failure is final ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("result", [Result.FAILED, Result.REFUSED])
def test_a_failure_turns_back_and_the_step_is_not_undone(name: str, result: Result) -> None:
    run = at(name)

    run.happens(run.reply_of(name, Kind.DO, 1, result, error={"type": "OutOfFlour"}))

    assert run.phase(name) is Phase.REFUSED
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name, run.outcome.step) == (OutcomeKind.REFUSED, "OutOfFlour", name)
    assert run.step(name).tries == 0
    assert not settled(run)


@pytest.mark.parametrize("name", AFTER)
def test_a_failure_after_the_pivot_is_parked_and_an_operator_may_retry(name: str) -> None:
    run = at(name)

    run.fails(name, "OutOfFlour")
    assert run.status is Status.PARKED
    assert "retry, complete or skip it by hand" in (run.step(name).parked or "")
    assert list(offered(run)) == ["retry", "skip", "complete"]
    run.operator(Act.RETRY)

    assert (run.sends, run.status) == ([f"{run.flight(name).task} 2"], Status.RUNNING)
    assert run.step(name).deadline == run.now + TIMEOUT


@pytest.mark.parametrize(("act", "phase"), [(Act.SKIP, Phase.SKIPPED), (Act.COMPLETE, Phase.SUCCEEDED)])
def test_a_failure_after_the_pivot_is_skipped_or_completed_at_once(act: Act, phase: Phase) -> None:
    run = at("hand")
    run.fails("hand")

    run.operator(act, reply=BAKED)

    assert run.phase("hand") is phase
    assert run.in_flight == ["thank do 1"]
    assert not settled(run)


@pytest.mark.parametrize("result", [Result.FAILED, Result.REFUSED])
def test_a_failure_of_an_attempt_that_a_person_has_replaced_is_ignored(result: Result) -> None:
    run = unknown("hand")
    run.operator(Act.RETRY)

    run.happens(run.reply_of("hand", Kind.DO, 1, result, error={"type": "Slow"}))

    assert run.decision.ignored == "try 1 is over"
    assert run.in_flight == ["hand do 2"]


# ---- a timeout decides nothing ---------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_a_timeout_parks_it_and_nothing_moves(name: str) -> None:
    run = unknown(name)

    assert run.status is Status.PARKED
    assert run.outcome is None
    assert (run.step(name).parked or "").startswith(
        f"unknown outcome: {run.flight(name).task}: no answer in 300 s"
    )
    assert run.sends == []
    assert run.instance.due_at is None


@pytest.mark.parametrize("name", WITHOUT)
def test_why_says_who_is_waited_for(name: str) -> None:
    run = at(name)
    assert "its outcome is unknown and needs a person in 5 min" in why(run.instance, run.now, BAKERY)

    run.after(TIMEOUT)

    assert why(run.instance, run.now, BAKERY).startswith(f"{name} needs a person: unknown outcome: ")


@pytest.mark.parametrize("name", WITHOUT)
def test_a_late_success_goes_on(name: str) -> None:
    run = unknown(name)

    run.succeeds(name, ANSWERS.get(name))

    assert run.phase(name) is Phase.SUCCEEDED
    assert run.status in (Status.RUNNING, Status.COMPLETED)


@pytest.mark.parametrize("name", BEFORE)
def test_a_late_failure_turns_back(name: str) -> None:
    run = unknown(name)

    run.fails(name, "OutOfFlour")

    assert run.phase(name) is Phase.REFUSED
    assert run.status is Status.COMPENSATING


# ---- a person's word -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_it_happened_and_the_saga_goes_on(name: str) -> None:
    run = unknown(name)

    decision = run.operator(Act.COMPLETE, reply=ANSWERS.get(name))

    assert decision.answer == f"{name}: it happened"
    assert run.phase(name) is Phase.SUCCEEDED
    (line,) = [line for line in run.history if line.entry == f"{name}.succeeded"]
    assert (line.detail["by"], line.detail["by_hand"]) == ("ann", True)
    assert not settled(run)


def test_completing_needs_the_reply_that_the_contract_names() -> None:
    run = unknown("bake")

    decision = run.operator(Act.COMPLETE, reply={"courier": 7})

    assert decision.refused
    assert decision.answer is not None
    assert decision.answer.startswith(
        "completing bake needs the reply that it would have had, a Baked: courier"
    )
    assert run.status is Status.PARKED


@pytest.mark.parametrize("result", [None, 0, "p-2"])
def test_a_plain_tasks_result_may_be_any_json(result: Any) -> None:
    run = unknown("thank")

    run.operator(Act.COMPLETE, reply=result)

    assert run.step("thank").reply == result
    assert run.status is Status.COMPLETED


class Receipt(BaseModel):
    number: str = ""


def take_apart(receipt: Receipt, result: Any) -> None:
    receipt.number = result.pop("number")


class ReceiptSaga(Saga[Receipt], name="receipt", version=1):
    pay = Steps(Receipt).task(
        "till.take_payment", lambda receipt: {}, on_success=take_apart, compensation=NOTHING_TO_UNDO
    )


def test_an_answer_that_is_decided_again_is_the_same() -> None:
    """As when a batch could not be committed; a hook may have changed what it was given."""
    answer = {"number": "p-1"}
    first, second = Run(ReceiptSaga.definition).start(), Run(ReceiptSaga.definition).start()

    first.succeeds(payload=answer)
    second.succeeds(payload=answer)

    assert first.instance == second.instance
    assert first.step("pay").reply == {"number": "p-1"}
    assert first.instance.state == {"number": "p-1"}


def test_a_result_that_on_success_cannot_take_is_refused_and_changes_nothing() -> None:
    """It would have turned the saga back, and undone a payment whose id nobody knew."""
    run = unknown("pay")

    decision = run.operator(Act.COMPLETE, reply=0)

    assert decision.refused
    assert decision.answer is not None
    assert decision.answer.startswith(
        "completing pay needs the result that till.take_payment would have had, and on_success cannot take "
        "this one (PydanticSerializationError: "
    )
    assert (run.status, run.phase("pay")) == (Status.PARKED, Phase.RUNNING)
    assert offered(run)["complete"] == "counts it as done: it happened, as you found out"


def test_with_force_a_result_that_on_success_cannot_take_is_a_fault_of_our_own_code() -> None:
    run = unknown("pay")

    run.operator(Act.COMPLETE, reply=0, force=True)

    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step) == (OutcomeKind.FAILED, "pay")
    assert run.in_flight == ["pay undo 1"]


@pytest.mark.parametrize("name", BEFORE)
def test_it_did_not_happen_and_the_saga_turns_back_without_undoing_it(name: str) -> None:
    run = unknown(name)

    decision = run.operator(Act.WITHDRAW)

    assert decision.answer == f"{name}: it did not happen"
    assert run.phase(name) is Phase.WITHDRAWN
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.step) == (OutcomeKind.EXPIRED, name)
    assert len(run.sends) == 1
    assert not run.sends[0].startswith(f"{BAKERY.steps[BAKERY.index(name)].name} ")
    assert run.step(name).tries == 0
    assert not settled(run)


@pytest.mark.parametrize("name", AFTER)
def test_after_the_pivot_nothing_is_withdrawn(name: str) -> None:
    run = unknown(name)

    decision = run.operator(Act.WITHDRAW)

    assert decision.refused
    assert decision.answer == f"{name} is past the pivot, where nothing turns back: retry or skip it"


def test_after_the_pivot_it_is_skipped_at_once() -> None:
    run = unknown("hand")

    run.operator(Act.SKIP)

    assert run.phase("hand") is Phase.SKIPPED
    assert run.in_flight == ["thank do 1"]


def test_skipped_while_nobody_knows_it_may_have_happened_whatever_a_try_before_it_said() -> None:
    run = at("hand")
    run.fails("hand")
    run.operator(Act.RETRY)
    run.after(TIMEOUT)

    run.operator(Act.SKIP)

    assert run.phase("hand") is Phase.SKIPPED
    assert effect(run.step("hand"), run.instance, BAKERY) is Effect.UNKNOWN


def test_why_tells_the_failure_of_the_try_before_this_one_alone() -> None:
    run = at("hand")
    run.fails("hand", "OutOfFlour")
    run.operator(Act.RETRY)
    assert "Try 1 failed (OutOfFlour" in why(run.instance, run.now, BAKERY)
    run.after(TIMEOUT)

    run.operator(Act.RETRY)

    assert run.in_flight == ["hand do 3"]
    assert "OutOfFlour" not in why(run.instance, run.now, BAKERY)


def test_after_the_pivot_it_is_sent_once_more_on_the_persons_word() -> None:
    run = unknown("hand")

    run.operator(Act.RETRY)
    first = run.reply_of("hand", Kind.DO, 1, Result.SUCCESS, BAKED)
    run.happens(first)

    assert run.phase("hand") is Phase.SUCCEEDED


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("act", [Act.RETRY, Act.SKIP])
@pytest.mark.parametrize("force", [False, True])
def test_up_to_the_pivot_it_is_neither_retried_nor_skipped(name: str, act: Act, force: bool) -> None:
    run = unknown(name)

    decision = run.operator(act, force=force)

    assert decision.refused
    assert decision.answer == (
        f"{name} is not past the pivot: complete it if it happened, withdraw it if it did not"
    )


@pytest.mark.parametrize("act", [Act.COMPLETE, Act.WITHDRAW, Act.SKIP, Act.RETRY])
def test_before_its_timeout_nobody_decides_not_even_with_force(act: Act) -> None:
    run = at("bake")

    decision = run.operator(act, "bake", force=True, reply=BAKED)

    assert decision.refused
    assert decision.answer == "bake is in flight: wait for its answer, or for its timeout"


def late_success(run: Run, name: str) -> None:
    run.happens(run.reply_of(name, Kind.DO, 1, Result.SUCCESS, ANSWERS.get(name)))


def test_a_success_after_it_was_withdrawn_and_the_saga_has_ended_is_recorded() -> None:
    run = unknown("bake")
    run.operator(Act.WITHDRAW)
    run.until_end()
    assert run.status is Status.COMPENSATED

    late_success(run, "bake")

    assert run.decision.ignored == "bake is withdrawn"
    assert run.history[-1].entry == "reply_ignored"


def after_all(name: str) -> Run:
    """It was withdrawn, and its success comes while the rest is being undone."""
    run = unknown(name)
    run.operator(Act.WITHDRAW)
    late_success(run, name)
    return run


@pytest.mark.parametrize("name", BEFORE)
def test_a_success_after_it_was_withdrawn_needs_a_person_before_the_saga_ends(name: str) -> None:
    """Not undone by itself: whoever withdrew it may have undone it by hand."""
    run = after_all(name)

    assert run.phase(name) is Phase.HANDED_OVER
    assert "it happened after all" in why(run.instance, run.now, BAKERY)
    assert effect(run.step(name), run.instance, BAKERY) is Effect.STILL_THERE
    assert list(offered(run)) == ["skip", "complete"]
    while run.in_flight:
        ((record, _),) = run.instance.in_flight()
        (run.succeeds if record.name == "ticket" else lambda name: confirmed(run, name))(record.name)
    assert run.status is Status.PARKED


@pytest.mark.parametrize(
    ("act", "phase", "left"),
    [
        (Act.COMPLETE, Phase.COMPENSATED, Effect.UNDONE),
        (Act.SKIP, Phase.SKIPPED, Effect.STILL_THERE),
    ],
)
def test_what_happened_after_all_is_undone_by_hand_or_left(act: Act, phase: Phase, left: Effect) -> None:
    run = after_all("bake")
    run.succeeds("ticket")

    run.operator(act, "bake")

    assert run.status is Status.COMPENSATED
    assert run.phase("bake") is phase
    assert effect(run.step("bake"), run.instance, BAKERY) is left


def test_a_success_after_a_failure_that_turned_the_saga_back_needs_a_person() -> None:
    """The broker may deliver twice: one failed, the other worked."""
    run = at("bake")
    run.fails("bake", "OutOfFlour")

    late_success(run, "bake")

    assert run.phase("bake") is Phase.HANDED_OVER


def test_a_success_after_a_failure_past_the_pivot_goes_on() -> None:
    """Else a person would retry what has happened."""
    run = at("hand")
    run.fails("hand")

    late_success(run, "hand")

    assert run.phase("hand") is Phase.SUCCEEDED
    assert run.in_flight == ["thank do 1"]


def test_a_success_after_its_skipping_is_recorded() -> None:
    run = unknown("hand")
    run.operator(Act.SKIP)

    late_success(run, "hand")

    assert run.decision.ignored == "hand is skipped"
    assert effect(run.step("hand"), run.instance, BAKERY) is Effect.UNKNOWN


def test_what_leaves_nothing_behind_may_happen_after_all() -> None:
    class LookSaga(Saga[OrderState], name="look", version=1):
        pay = step.task("till.pay", lambda state: {}, compensation=undo_task("till.back", lambda state: {}))
        look = step.task("shop.look", lambda state: {}, compensation=NOTHING_TO_UNDO)

    run = Run(LookSaga.definition).start()
    run.succeeds("pay")
    run.after(TIMEOUT)
    run.operator(Act.WITHDRAW)

    late_success(run, "look")

    assert run.decision.ignored == "look leaves nothing behind"
    assert run.status is Status.COMPENSATING


def test_what_has_an_inbox_is_not_withdrawn() -> None:
    run = at("ticket")
    run.fails("ticket")

    decision = run.operator(Act.WITHDRAW)

    assert decision.refused
    assert decision.answer is not None
    assert decision.answer.startswith("ticket is pausing: only a step whose participant keeps no inbox")


# ---- cancelling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("force", [False, True])
def test_what_is_in_flight_cannot_be_cancelled(name: str, force: bool) -> None:
    run = at(name)

    decision = run.operator(Act.CANCEL, force=force)

    assert decision.refused
    assert decision.answer is not None
    assert "which keeps no inbox, so it cannot be taken back: wait for its answer" in decision.answer
    assert decision.answer.endswith("then say whether it happened")


@pytest.mark.parametrize("name", BEFORE)
def test_what_is_unknown_cannot_be_cancelled(name: str) -> None:
    run = unknown(name)

    decision = run.operator(Act.CANCEL)

    assert decision.refused
    assert decision.answer is not None
    assert decision.answer.startswith(f"nobody knows whether {name} happened: withdraw it if it did not")


def test_elsewhere_a_saga_is_cancelled_as_ever() -> None:
    run = at("ticket")
    run.fails("ticket")

    decision = run.operator(Act.CANCEL)

    assert not decision.refused
    assert run.status is Status.COMPENSATING


# ---- compensations: sent, not acknowledged ---------------------------------------------------------


def undoing_bake() -> Run:
    run = at("pay")
    run.fails("pay", "TaskFailed")
    return run


def test_a_compensation_is_done_once_the_broker_has_it() -> None:
    run = undoing_bake()

    confirmed(run, "bake")

    line = next(line for line in run.history if line.entry == "bake.compensated")
    assert line.detail == {"because": "sent, not acknowledged"}
    assert run.in_flight == ["ticket undo 1"]


def test_a_compensation_is_never_sent_again_by_itself() -> None:
    run = undoing_bake()

    run.after(60, {"bakery.commands": run.now + seconds(60)})

    assert run.sends == []


def test_a_compensation_that_was_not_confirmed_is_parked_and_those_before_it_go_on() -> None:
    run = undoing_bake()

    run.after(TIMEOUT)

    assert run.step("bake").parked == (
        "unknown outcome: bakery.throw_away: not confirmed by the broker; find out by hand, then complete it "
        "if it is undone, retry to send it once more, or skip it"
    )
    assert "ticket undo 1" in run.in_flight


@pytest.mark.parametrize(("act", "phase"), [(Act.COMPLETE, Phase.COMPENSATED), (Act.SKIP, Phase.SKIPPED)])
def test_a_compensation_is_taken_over_at_once(act: Act, phase: Phase) -> None:
    run = undoing_bake()
    run.after(TIMEOUT)

    run.operator(act, "bake")

    assert run.phase("bake") is phase
    assert not settled(run)


def test_a_compensation_is_sent_once_more_on_the_persons_word() -> None:
    run = undoing_bake()
    run.after(TIMEOUT)

    run.operator(Act.RETRY, "bake")
    assert run.sends == ["bakery.throw_away 2"]
    confirmed(run, "bake")

    assert run.phase("bake") is Phase.COMPENSATED


def test_a_confirmation_that_comes_late_frees_it() -> None:
    run = undoing_bake()
    run.after(TIMEOUT)

    confirmed(run, "bake")

    assert run.phase("bake") is Phase.COMPENSATED
    assert run.status is Status.COMPENSATING


@pytest.mark.parametrize("result", [Result.SUCCESS, Result.FAILED])
def test_a_reply_that_comes_after_the_confirmation_is_recorded(result: Result) -> None:
    run = undoing_bake()
    confirmed(run, "bake")

    run.happens(run.reply_of("bake", Kind.UNDO, 1, result, error={"type": "Oops"}))

    assert run.decision.ignored == "bake is compensated"
    assert run.phase("bake") is Phase.COMPENSATED


def test_a_confirmation_of_what_is_not_in_flight_changes_nothing() -> None:
    run = at("bake")
    before = run.instance

    run.happens(Confirmed(SAGA_ID, run.now, run.flight("bake").message_id))

    assert run.instance is before
    assert run.decision.ignored == "no longer in flight"


@pytest.mark.parametrize("act", [Act.RETRY, Act.COMPLETE, Act.SKIP])
def test_nobody_decides_on_a_compensation_in_flight_not_even_with_force(act: Act) -> None:
    """Sent once more, or undone by hand, it would be undone twice."""
    run = undoing_bake()

    decision = run.operator(act, "bake", force=True)

    assert decision.refused
    assert decision.answer == "its compensation is in flight: wait for its answer, or for its timeout"
    assert run.in_flight == ["bake undo 1"]


@dataclass
class Mending:
    """A compensation that cannot be built `failures` times, and then can."""

    failures: int = 5

    def throw_away(self, state: OrderState) -> ThrowAway:
        self.failures -= 1
        if self.failures >= 0:
            raise KeyError("broken")
        return ThrowAway(order_id=state.order_id)


def test_a_compensation_that_can_be_built_at_last_is_not_parked_while_it_is_in_flight() -> None:
    """Else a person would be told that it failed, and would send it a second time."""

    class MendedSaga(Saga[OrderState], name="mended", version=1):
        bake = step.command(
            Bake, lambda state: Bake(order_id=state.order_id), compensation=Mending().throw_away
        )
        pay = step.task("till.pay", lambda state: {}, pivot=True)

    run = Run(MendedSaga.definition).start()
    run.succeeds("bake", BAKED)
    run.fails("pay")
    for _ in range(4):
        run.at(run.instance.due_at)
    assert "failed 5 times" in (run.step("bake").parked or "")
    run.at(run.instance.due_at)

    assert run.in_flight == ["bake undo 6"]
    assert run.status is Status.COMPENSATING
    assert run.operator(Act.RETRY, "bake").refused
    run.after(TIMEOUT)
    assert (run.step("bake").parked or "").startswith("unknown outcome: bakery.throw_away: not confirmed")


@pytest.mark.parametrize("argument", [object(), "\ud800", "\0"], ids=["object", "half", "nul"])
def test_a_compensation_that_cannot_be_written_is_a_fault_of_our_own_code(argument: object) -> None:
    """Raised out of the decision, the saga could neither go on nor be parked."""

    class OddSaga(Saga[OrderState], name="odd", version=1):
        pay = step.task(
            "till.pay", lambda state: {}, compensation=undo_task("till.back", lambda state: {"it": argument})
        )
        thank = step.task("post.thank", lambda state: {}, pivot=True)

    run = Run(OddSaga.definition).start()
    run.succeeds("pay")

    run.fails("thank")

    assert run.phase("pay") is Phase.UNDO_PAUSING
    assert run.sends == []
    assert run.instance.due_at == run.now + seconds(1)


# ---- compensations: plain tasks --------------------------------------------------------------------


def undoing_payment() -> Run:
    run = at("wrap")
    run.fails("wrap")
    return run


def test_a_plain_compensation_is_acknowledged_by_the_tasks_result() -> None:
    run = undoing_payment()
    (undo,) = run.decision.commands
    assert (undo.task, undo.payload, undo.unanswered) == ("till.pay_back", {"payment": "p-1"}, False)

    run.succeeds("pay", payload={"any": "thing"})

    assert run.phase("pay") is Phase.COMPENSATED


def test_a_plain_compensation_that_fails_needs_a_person_at_once() -> None:
    run = undoing_payment()

    run.fails("pay", "TaskFailed")

    assert "TaskFailed" in (run.step("pay").parked or "")
    assert run.step("pay").resume_at is None
    assert "bake undo 1" in run.in_flight  # those before it go on
    run.operator(Act.RETRY, "pay")
    assert run.sends == ["till.pay_back 2"]


def test_a_plain_compensation_that_is_silent_needs_a_person() -> None:
    run = undoing_payment()

    run.after(TIMEOUT)

    assert (run.step("pay").parked or "").startswith("unknown outcome: till.pay_back: no answer in 300 s")
    run.succeeds("pay")
    assert run.phase("pay") is Phase.COMPENSATED


# ---- buttons ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITHOUT)
def test_withdraw_is_offered_exactly_where_it_is_possible(name: str) -> None:
    assert "withdraw" not in offered(at(name))
    assert ("withdraw" in offered(unknown(name))) is (name in BEFORE)


def test_the_buttons_say_what_comes_of_them() -> None:
    assert offered(unknown("pay")) == {
        "complete": "counts it as done: it happened, as you found out",
        "withdraw": "counts it as never happened, and undoes what was done before it",
    }
    assert offered(unknown("hand")) == {
        "retry": "tries it once more now; if it did happen, it happens twice",
        "skip": "goes on without it",
        "complete": "counts it as done: it happened, as you found out",
    }


def test_completing_says_what_reply_it_takes() -> None:
    def reply(name: str) -> Any:
        run = unknown(name)
        return next(o.reply for o in options(BAKERY, run.instance, run.now) if o.act is Act.COMPLETE)

    assert reply("bake")["required"] == ["courier"]
    assert reply("pay") == {"description": "what till.take_payment returned"}
    assert reply("wrap") is None
    assert reply("thank") is None


# ---- whatever happens ------------------------------------------------------------------------------

_HAPPENS: Final = st.one_of(
    st.sampled_from(["succeeds", "fails", "refuses", "confirmed", "a minute", "six minutes"]),
    st.tuples(st.sampled_from(list(Act)), st.booleans()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(_HAPPENS, min_size=5, max_size=40))
def test_nothing_is_settled_and_nothing_is_sent_twice_without_a_persons_word(story: list[Any]) -> None:
    run = Run(BAKERY).start()
    retries = 0

    for happens in story:
        flights = list(run.instance.in_flight())
        record, flight = flights[0] if flights else (None, None)
        match happens:
            case "a minute" | "six minutes":
                run.after(
                    60 if happens == "a minute" else 360, {"bakery.commands": run.now, "celery": run.now}
                )
            case (Act() as act, bool() as force):
                event = OperatorActed(SAGA_ID, run.now, act, "ann", "so", None, None, BAKED, force)
                if not decide(BAKERY, run.instance, event).refused:
                    retries += act is Act.RETRY
                    run.happens(event)
            case _ if record is None or flight is None:
                continue
            case "confirmed":
                run.happens(Confirmed(SAGA_ID, run.now, flight.message_id))
            case "succeeds":
                run.succeeds(record.name, ANSWERS.get(record.name))
            case "fails":
                run.fails(record.name)
            case "refuses":
                run.refuses("No", record.name)

    sent = [out for out in run.sent if out.protocol != "inbox"]
    assert not any(out.kind is Kind.SETTLE for out in sent)
    assert not any(out.again for out in sent)
    first = {(out.operation_id, out.kind) for out in sent}
    assert len(sent) <= len(first) + retries


# ---- declaring -------------------------------------------------------------------------------------


def test_the_protocol_belongs_to_a_sagas_shape() -> None:
    """What was sent without an inbox in mind is not carried on as if there were one."""

    def definition(service: Service) -> SagaDefinition:
        class Do(Command[None], service=service, name="do"):
            pass

        class OneSaga(Saga[OrderState], name="one", version=1):
            do = step.command(Do, lambda state: Do(), pivot=True)

        return OneSaga.definition

    shapes = {definition(Service("one", protocol=name)).shape for name in ("inbox", "demo-0.1", "celery")}

    assert len(shapes) == 3
