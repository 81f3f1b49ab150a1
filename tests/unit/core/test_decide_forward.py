"""Going forward: the words in the history, what each command bears, attempts, the pivot, our own faults."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from sagas_framework.core.events import Act, Result, Started, TimerFired
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.instance import OutcomeKind, Phase, Status
from sagas_framework.saga import Saga
from tests.unit.core.stories import (
    DELIVER_ORDER,
    NOON,
    SAGA_ID,
    CreateTicket,
    OrderState,
    Run,
    reject_ticket,
    seconds,
    step,
    verify,
)

# ---- the words that the demo's histories have, and those that it only documented ------------------


def test_a_success_writes_the_demos_words_and_the_succeeded_that_it_never_wrote() -> None:
    run = Run().start().until_end()

    assert run.words == [
        "started",
        "reject_order.running",
        "reject_order.succeeded",
        "verify_consumer_details.running",
        "verify_consumer_details.succeeded",
        "create_restaurant_ticket.running",
        "create_restaurant_ticket.succeeded",
        "authorize_card.running",
        "authorize_card.succeeded",
        "approve_restaurant_ticket.running",
        "approve_restaurant_ticket.succeeded",
        "approve_order.running",
        "approve_order.succeeded",
        "completed",
    ]
    assert run.status is Status.COMPLETED
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.OK
    assert run.order.order == "approved"


def test_a_bad_consumer_writes_the_demos_words() -> None:
    run = Run().until("verify_consumer_details")

    run.refuses("ConsumerUnknown")

    assert run.words == [
        "started",
        "reject_order.running",
        "reject_order.succeeded",
        "verify_consumer_details.running",
        "verify_consumer_details.failed",
        "compensating",
        "reject_order.compensating",
        "reject_order.compensated",
        "compensated",
    ]
    assert run.order.order == "rejected"


def test_an_error_of_the_orchestrator_writes_the_demos_words() -> None:
    run = Run(state=OrderState(broken="open_ticket")).until("verify_consumer_details")

    run.succeeds()

    assert run.words[run.words.index("create_restaurant_ticket.running") :] == [
        "create_restaurant_ticket.running",
        "create_restaurant_ticket.failed",
        "compensating",
        "verify_consumer_details.compensating",
        "verify_consumer_details.compensated",
        "reject_order.compensating",
        "reject_order.compensated",
        "compensated",
    ]
    assert run.order.order == "rejected"
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name) == (OutcomeKind.FAILED, "KeyError")


def test_a_refused_card_writes_the_demos_words() -> None:
    run = Run().until("authorize_card")

    run.refuses("CardRefused")
    run.until_end()

    assert run.words[run.words.index("authorize_card.running") :] == [
        "authorize_card.running",
        "authorize_card.failed",
        "compensating",
        "create_restaurant_ticket.compensating",
        "create_restaurant_ticket.compensated",
        "verify_consumer_details.compensating",
        "verify_consumer_details.compensated",
        "reject_order.compensating",
        "reject_order.compensated",
        "compensated",
    ]
    assert run.order.order == "rejected"


# ---- starting -------------------------------------------------------------------------------------


def test_a_saga_starts_with_its_local_steps_and_the_first_command() -> None:
    run = Run().start()

    assert run.sends == ["consumer_service.verify_consumer_details 1"]
    assert run.instance.started


def test_the_timekeeper_starts_a_saga_whose_nudge_was_lost() -> None:
    run = Run()

    run.happens(TimerFired(SAGA_ID, NOON))

    assert run.sends == ["consumer_service.verify_consumer_details 1"]


def test_a_second_start_changes_nothing() -> None:
    run = Run().start()
    before = run.instance

    decision = run.happens(Started(SAGA_ID, run.now))

    assert decision.ignored == "started before"
    assert run.instance == before
    assert run.sends == []


def test_what_is_refused_before_the_start_leaves_the_row_to_be_found_by_the_timekeeper() -> None:
    run = Run()

    decision = run.operator(Act.RETRY)

    assert decision.refused
    assert run.instance.due_at == NOON


def test_a_stray_reply_before_the_start_leaves_the_row_to_be_found_by_the_timekeeper() -> None:
    run = Run()
    untouched = run.instance

    decision = run.happens(run.reply_of("authorize_card", Kind.DO, 1, Result.SUCCESS))

    assert decision.ignored
    assert run.instance == untouched


# ---- what a command bears -------------------------------------------------------------------------


def test_a_command_names_its_operation_its_attempt_and_its_expiry() -> None:
    """Rules 1, 2 and 10."""
    run = Run().until("create_restaurant_ticket")

    (command,) = run.decision.commands

    assert command.operation_id == operation_id(SAGA_ID, "create_restaurant_ticket")
    assert command.message_id == message_id(SAGA_ID, "create_restaurant_ticket", Kind.DO, 1)
    assert command.task == "restaurant_service.create_ticket"
    assert command.queue == "restaurant_service.commands"
    assert command.payload == {"order_id": 1, "quantity": 3}
    assert command.not_after == run.now + timedelta(days=1)
    assert not command.again


def test_money_travels_as_a_decimal_string() -> None:
    run = Run().until("authorize_card")

    (command,) = run.decision.commands

    assert command.payload == {"order_id": 1, "amount": "12.30"}


def test_the_reply_is_remembered_in_the_state_and_in_the_step() -> None:
    run = Run().until("create_restaurant_ticket")

    run.succeeds(payload={"ticket_id": 42})

    assert run.order.ticket_id == 42
    assert run.step("create_restaurant_ticket").reply == {"ticket_id": 42}
    assert run.step("create_restaurant_ticket").known


# ---- attempts -------------------------------------------------------------------------------------


def test_a_new_attempt_comes_after_the_pause_with_the_same_key_and_payload_and_another_id() -> None:
    """Rules 1 to 3."""
    run = Run().until("create_restaurant_ticket")
    first = run.sent[-1]

    run.fails()
    run.after(0.999)
    too_early = run.sends
    run.after(0.001)

    (second,) = run.decision.commands
    assert too_early == []
    assert (second.operation_id, second.payload) == (first.operation_id, first.payload)
    assert (second.attempt, second.message_id) == (
        2,
        message_id(SAGA_ID, "create_restaurant_ticket", Kind.DO, 2),
    )


def test_the_pauses_grow_as_the_steps_retry_says() -> None:
    run = Run().until("approve_restaurant_ticket")

    run.fails()
    first = run.step("approve_restaurant_ticket").resume_at
    run.at(first)
    run.fails()
    second = run.step("approve_restaurant_ticket").resume_at

    assert first == NOON + seconds(5)
    assert second == NOON + seconds(5 + 10)


def test_attempts_used_up_before_the_pivot_are_compensated_this_step_too() -> None:
    """Rule 13."""
    run = Run().until("create_restaurant_ticket")

    for pause in (1, 2):
        run.fails()
        run.after(pause)
    run.fails()

    assert run.phase("create_restaurant_ticket") is Phase.COMPENSATING
    assert run.sends == ["restaurant_service.reject_ticket 1"]
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name) == (OutcomeKind.FAILED, "ConnectionReset")


def test_attempts_used_up_at_the_pivot_settle_it() -> None:
    """Rule 16."""
    run = Run().until("approve_restaurant_ticket")

    for pause in (5, 10):
        run.fails()
        run.after(pause)
    run.fails()

    assert run.phase("approve_restaurant_ticket") is Phase.SETTLING
    assert run.sends == ["restaurant_service.approve_ticket.settle 1"]
    assert run.status is Status.RUNNING


def test_after_the_pivot_attempts_go_on_without_end_and_a_person_sees_it_after_so_many() -> None:
    """Rule 18."""
    run = Run(DELIVER_ORDER).until("start_delivery")

    parked_after = []
    for _ in range(6):
        run.fails()
        parked_after.append(run.status is Status.PARKED)
        run.at(run.step("start_delivery").resume_at)

    assert parked_after == [False, False, True, True, True, True]
    assert run.in_flight == ["start_delivery do 7"]
    assert run.status is Status.PARKED
    assert run.step("start_delivery").parked == (
        "failed 6 times (ConnectionReset: says ConnectionReset); it goes on being tried"
    )


def test_a_parked_step_after_the_pivot_that_succeeds_un_parks_and_the_saga_goes_on() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")
    for _ in range(3):
        run.fails()
        run.at(run.step("start_delivery").resume_at)
    status_before = run.status

    run.succeeds()

    assert (status_before, run.status) == (Status.PARKED, Status.RUNNING)
    assert run.in_flight == ["send_receipt do 1"]
    assert run.order.courier == "Ann"


def test_the_retriable_steps_after_the_pivot_go_one_after_the_other() -> None:
    run = Run(DELIVER_ORDER).until("approve_restaurant_ticket")

    sent = []
    for _ in range(3):
        run.succeeds()
        sent += run.sends

    assert sent == ["delivery_service.start_delivery 1", "consumer_service.send_receipt 1"]
    assert run.status is Status.COMPLETED


# ---- refusals -------------------------------------------------------------------------------------


def test_a_refusal_needs_no_compensation_of_its_own() -> None:
    """Rule 13."""
    run = Run().until("authorize_card")

    run.refuses("CardRefused")

    assert run.phase("authorize_card") is Phase.REFUSED
    assert run.sends == ["restaurant_service.reject_ticket 1"]
    assert run.outcome is not None
    assert (run.outcome.kind, run.outcome.name, run.outcome.step) == (
        OutcomeKind.REFUSED,
        "CardRefused",
        "authorize_card",
    )


def test_a_refused_pivot_compensates_everything_before_it() -> None:
    run = Run().until("approve_restaurant_ticket")

    run.refuses("InvalidPayload")
    run.until_end()

    assert run.status is Status.COMPENSATED
    assert [f"{out.task} {out.attempt}" for out in run.sent[-2:]] == [
        "accounting_service.reverse_authorization 1",
        "restaurant_service.reject_ticket 1",
    ]


def test_a_refusal_after_the_pivot_parks_since_nothing_can_be_undone() -> None:
    run = Run(DELIVER_ORDER).until("start_delivery")

    run.refuses("NoCourier")

    assert run.status is Status.PARKED
    assert run.outcome is None
    assert run.sends == []
    assert run.instance.due_at is None


# ---- our own code ---------------------------------------------------------------------------------


def test_a_request_that_raises_was_never_sent_so_its_step_is_not_compensated() -> None:
    run = Run(state=OrderState(broken="open_ticket")).until("verify_consumer_details")

    run.succeeds()

    assert run.phase("create_restaurant_ticket") is Phase.FAILED
    assert run.step("create_restaurant_ticket").first_sent_at is None
    assert run.status is Status.COMPENSATED


def test_a_hook_that_raises_before_the_pivot_compensates_its_own_step_which_is_known_to_have_succeeded() -> (
    None
):
    run = Run(state=OrderState(broken="remember_ticket")).until("create_restaurant_ticket")

    run.succeeds()

    (undo,) = run.decision.commands
    assert (undo.task, undo.known) == ("restaurant_service.reject_ticket", True)
    assert run.outcome is not None
    assert run.outcome.kind is OutcomeKind.FAILED


def test_what_a_hook_that_raises_did_to_the_state_is_forgotten() -> None:
    run = Run(state=OrderState(broken="remember_ticket")).until("create_restaurant_ticket")

    run.succeeds()

    assert run.order.ticket_id is None


def test_a_reply_that_is_not_what_the_contract_says_is_a_fault_of_ours_after_a_success() -> None:
    run = Run().until("create_restaurant_ticket")

    run.succeeds(payload={"ticket_id": "seven"})

    assert run.phase("create_restaurant_ticket") is Phase.COMPENSATING
    assert run.outcome is not None
    assert run.outcome.name == "ValidationError"


def test_a_hook_that_raises_at_the_pivot_parks_because_the_pivot_has_happened() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="note_approval")).until("approve_restaurant_ticket")

    run.succeeds()

    assert run.phase("approve_restaurant_ticket") is Phase.ANSWERED
    assert run.status is Status.PARKED
    assert run.sends == []


def test_a_hook_that_raises_after_the_pivot_parks() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="remember_courier")).until("start_delivery")

    run.succeeds()

    assert run.phase("start_delivery") is Phase.ANSWERED
    assert run.status is Status.PARKED


def test_a_request_that_raises_after_the_pivot_parks() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="start_delivery")).until("approve_restaurant_ticket")

    run.succeeds()

    assert run.phase("start_delivery") is Phase.BLOCKED
    assert run.status is Status.PARKED
    assert run.in_flight == []


def test_a_local_step_that_raises_after_the_pivot_parks_and_keeps_nothing_of_its_work() -> None:
    run = Run(state=OrderState(broken="mark_order_approved")).until("approve_restaurant_ticket")

    run.succeeds()

    assert run.phase("approve_order") is Phase.BLOCKED
    assert run.order.order == "approval_pending"
    assert run.status is Status.PARKED


def test_a_fault_of_ours_says_type_and_message_but_never_a_traceback() -> None:
    run = Run(state=OrderState(broken="open_ticket")).until("verify_consumer_details")

    run.succeeds()

    assert run.step("create_restaurant_ticket").error == {
        "type": "KeyError",
        "message": "'open_ticket is broken'",
        "module": "builtins",
    }


def test_what_an_old_participant_adds_to_a_failure_is_left_out() -> None:
    """Neither a traceback, nor a key that the history uses itself."""
    run = Run().until("authorize_card")
    error = {
        "type": "CardRefused",
        "message": "no",
        "module": "m",
        "traceback": ["line 1"],
        "step": "x",
        "entry": "y",
    }

    run.happens(run.reply_of("authorize_card", Kind.DO, 1, Result.REFUSED, error=error))

    assert run.step("authorize_card").error == {"type": "CardRefused", "message": "no", "module": "m"}


class MisdirectedSaga(Saga[OrderState], name="misdirected", version=1):
    """A type checker would not let it pass."""

    create_restaurant_ticket = step.command(CreateTicket, cast(Any, verify), compensation=reject_ticket)


def test_a_request_that_makes_another_command_is_a_fault_of_ours() -> None:
    run = Run(MisdirectedSaga.definition).start()

    assert run.sent == []
    assert run.outcome is not None
    assert run.outcome.name == "DefinitionError"
    assert run.outcome.message.endswith("not CreateTicket")
