"""`scenario`: a saga's story as a test."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import BaseModel
from sqlalchemy.orm import Session

from sagas_framework import (
    NOTHING_TO_UNDO,
    Act,
    Command,
    Compensation,
    DefinitionError,
    Failure,
    Outcome,
    Reply,
    Retry,
    Saga,
    Service,
    Status,
    Steps,
)
from sagas_framework.testing import scenario

restaurant = Service("restaurant")
accounting = Service("accounting")


class RestaurantClosed(Failure):
    """The kitchen takes no orders."""


class CardRefused(Failure):
    """The bank says no."""


class TicketCreated(Reply):
    ticket_id: int


class CreateTicket(Command[TicketCreated], service=restaurant, name="create", failures=[RestaurantClosed]):
    order_id: int


class RejectTicket(Compensation[CreateTicket], service=restaurant, name="reject"):
    ticket_id: int | None


class AuthorizeCard(Command[None], service=accounting, name="authorize", failures=[CardRefused]):
    order_id: int


class ApproveTicket(Command[None], service=restaurant, name="approve"):
    ticket_id: int


class State(BaseModel):
    order_id: int = 1
    ticket_id: int | None = None
    order: str = "pending"


def remember_ticket(state: State, reply: TicketCreated) -> None:
    state.ticket_id = reply.ticket_id


def reject(state: State, session: Session) -> None:
    state.order = "rejected"


def approve(state: State, session: Session) -> None:
    session.add(object())  # a stand-in takes it
    state.order = "approved"


def approve_ticket(state: State) -> ApproveTicket:
    assert state.ticket_id is not None
    return ApproveTicket(ticket_id=state.ticket_id)


step = Steps(State)


class CreateOrder(Saga[State], name="create_order", version=1):
    reject_order = step.local(compensation=reject)
    create_ticket = step.command(
        CreateTicket,
        lambda state: CreateTicket(order_id=state.order_id),
        on_success=remember_ticket,
        compensation=lambda state: RejectTicket(ticket_id=state.ticket_id),
        retry=Retry(2),
    )
    authorize_card = step.command(
        AuthorizeCard, lambda state: AuthorizeCard(order_id=state.order_id), pivot=True, retry=Retry(1)
    )
    approve_ticket = step.command(ApproveTicket, approve_ticket, timeout=timedelta(seconds=30))
    approve_order = step.local(approve)


def test_a_saga_that_goes_well_completes() -> None:
    story = (
        scenario(CreateOrder, State())
        .expects(CreateTicket, order_id=1)
        .replies(ticket_id=7)
        .expects(AuthorizeCard)
        .replies()
        .expects(ApproveTicket, ticket_id=7)
        .replies()
        .runs("approve_order")
        .ends(Status.COMPLETED)
    )

    assert story.state == State(ticket_id=7, order="approved")
    assert story.words[-1] == "completed"


def test_a_refused_card_rejects_the_ticket_then_the_order() -> None:
    (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .replies(TicketCreated(ticket_id=7))
        .expects(AuthorizeCard)
        .refuses("insufficient funds")
        .expects(RejectTicket, ticket_id=7)
        .replies()
        .runs("reject_order", undo=True)
        .ends(Status.COMPENSATED)
    )


def test_what_undoes_a_local_step_is_told_why_the_saga_turned_back_if_it_asks() -> None:
    def note(state: State, session: Session, why: Outcome) -> None:
        state.order = f"{why.kind}: {why.message}"

    def leave(state: State, session: Session, order: str = "as it was") -> None:
        state.order += f", {order}"

    class Told(Saga[State], name="told", version=1):
        asks_nothing = step.local(compensation=leave)
        asks = step.local(compensation=note)
        create = step.command(
            CreateTicket, lambda state: CreateTicket(order_id=1), compensation=NOTHING_TO_UNDO
        )
        approve_order = step.local(approve)

    story = scenario(Told, State()).expects(CreateTicket).refuses("closed").ends(Status.COMPENSATED)

    assert story.state.order == "refused: closed, as it was"


def test_a_transient_fault_is_tried_again_after_its_pause() -> None:
    (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .fails()
        .expects(CreateTicket)
        .fails("again")
        .expects(RejectTicket, ticket_id=None)
        .fails()
        .expects(RejectTicket)
        .replies()
        .ends(Status.COMPENSATED)
    )


def test_a_step_that_is_never_answered_is_undone() -> None:
    (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .never_answers()
        .expects(RejectTicket, ticket_id=None)
        .replies()
        .ends(Status.COMPENSATED)
    )


@pytest.mark.parametrize("happened", [True, False])
def test_a_pivot_that_is_never_answered_is_settled(happened: bool) -> None:
    settling = (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .replies()
        .expects(AuthorizeCard)
        .never_answers()
        .settles(AuthorizeCard)
    )

    if happened:
        settling.done().expects(ApproveTicket).replies().ends(Status.COMPLETED)
    else:
        settling.withdrawn().expects(RejectTicket).replies().ends(Status.COMPENSATED)


def test_a_step_after_the_pivot_that_is_never_answered_is_parked_until_it_is() -> None:
    late = (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .replies()
        .expects(AuthorizeCard)
        .replies()
        .expects(ApproveTicket)
    )

    late.never_answers().ends(Status.PARKED)
    late.replies().ends(Status.COMPLETED)


def test_an_operator_cancels_and_what_was_done_is_undone() -> None:
    created = scenario(CreateOrder, State()).expects(CreateTicket)

    created.never_answers().cancels().expects(RejectTicket).replies().ends(Status.COMPENSATED)


def test_an_operator_skips_a_step_and_its_participant_is_asked_first() -> None:
    late = (
        scenario(CreateOrder, State())
        .expects(CreateTicket)
        .replies()
        .expects(AuthorizeCard)
        .replies()
        .expects(ApproveTicket)
        .never_answers()
        .ends(Status.PARKED)
    )

    late.operator(Act.SKIP).settles(ApproveTicket).withdrawn().ends(Status.COMPLETED)


# ---- when it goes another way ---------------------------------------------------------------------


def test_another_message_fails_with_what_was_sent_instead() -> None:
    with pytest.raises(
        AssertionError, match=r"expected AuthorizeCard to be sent, but it sent restaurant.create"
    ):
        scenario(CreateOrder, State()).expects(AuthorizeCard)


def test_another_field_fails_with_both_values() -> None:
    with pytest.raises(AssertionError, match="CreateTicket with order_id=2, but it has order_id=1"):
        scenario(CreateOrder, State()).expects(CreateTicket, order_id=2)


def test_an_unknown_field_fails_with_those_there_are() -> None:
    with pytest.raises(AssertionError, match="a field 'oder_id', but its fields are: order_id"):
        scenario(CreateOrder, State()).expects(CreateTicket, oder_id=1)


def test_an_unknown_field_of_a_reply_is_the_tests_mistake() -> None:
    with pytest.raises(DefinitionError, match="TicketCreated has no field 'ticket'"):
        scenario(CreateOrder, State()).expects(CreateTicket).replies(ticket=7)


def test_a_reply_with_fields_where_there_are_none_is_the_tests_mistake() -> None:
    with pytest.raises(DefinitionError, match="answered without fields"):
        scenario(CreateOrder, State()).expects(CreateTicket).replies().expects(AuthorizeCard).replies(a=1)


def test_an_end_that_is_not_one_fails_with_the_message_that_waits() -> None:
    with pytest.raises(AssertionError, match="to be completed, but it sent accounting"):
        scenario(CreateOrder, State()).expects(CreateTicket).replies().ends(Status.COMPLETED)


def test_another_end_fails_with_the_story_and_the_history() -> None:
    ended = scenario(CreateOrder, State()).expects(CreateTicket).refuses()

    with pytest.raises(AssertionError) as failed:
        ended.ends(Status.COMPLETED)

    told = str(failed.value)
    assert "expected the saga to be completed, but it is compensated" in told
    assert "CreateTicket is sent" in told
    assert "create_ticket.failed" in told


def test_a_local_step_that_does_not_run_fails() -> None:
    with pytest.raises(AssertionError, match="the local step approve_order to run, but it sent"):
        scenario(CreateOrder, State()).runs("approve_order")
    with pytest.raises(AssertionError, match="that step is a command"):
        scenario(CreateOrder, State()).runs("create_ticket")
    with pytest.raises(AssertionError, match="a step 'aprove_order', but the saga has: reject_order"):
        scenario(CreateOrder, State()).runs("aprove_order")


def test_a_refused_act_fails_with_its_answer() -> None:
    with pytest.raises(AssertionError, match="an operator to retry, but it was refused: no step is parked"):
        scenario(CreateOrder, State()).operator(Act.RETRY)


def test_a_local_step_that_raises_is_in_the_story() -> None:
    def broken(state: State, session: Session) -> None:
        raise KeyError("a row")

    class Broken(Saga[State], name="broken", version=1):
        verify = Steps(State).command(
            AuthorizeCard, lambda state: AuthorizeCard(order_id=1), compensation=NOTHING_TO_UNDO
        )
        note = Steps(State).local(broken)

    with pytest.raises(AssertionError, match=r"note raised KeyError\('a row'\)"):
        scenario(Broken, State()).expects(AuthorizeCard).replies().ends(Status.COMPLETED)


def never_run_but_read_by_the_type_checker() -> None:
    """A reply of another command does not fit; the ignored errors must be there, or mypy says so."""
    story = scenario(CreateOrder, State())
    story.expects(CreateTicket).replies(TicketCreated(ticket_id=7))
    story.expects(AuthorizeCard).replies(TicketCreated(ticket_id=7))  # type: ignore[arg-type]
    story.expects(RejectTicket).replies(TicketCreated(ticket_id=7))  # type: ignore[arg-type]
    story.expects(TicketCreated)  # type: ignore[call-overload]


# ---- participants without an inbox ------------------------------------------------------------------

bakery = Service("bakery", protocol="demo-0.1")


class Bake(Command[None], service=bakery, name="bake"):
    pass


class ThrowAway(Compensation[Bake], service=bakery, name="throw_away"):
    pass


def remember_order(state: State, result: str) -> None:
    state.order = result


class BakeSaga(Saga[State], name="bake", version=1):
    bake = step.command(Bake, lambda state: Bake(), compensation=lambda state: ThrowAway())
    pay = step.task(
        "till.pay", lambda state: {"order_id": state.order_id}, on_success=remember_order, pivot=True
    )


def test_a_plain_task_returns_its_result() -> None:
    story = scenario(BakeSaga, State()).expects(Bake).replies().expects(BakeSaga.pay.command).returns("paid")

    assert story.ends(Status.COMPLETED).state.order == "paid"


def test_a_compensation_that_nobody_answers_is_confirmed_by_the_broker() -> None:
    story = scenario(BakeSaga, State()).expects(Bake).replies().expects(BakeSaga.pay.command).fails()

    story.expects(ThrowAway).confirmed().ends(Status.COMPENSATED)

    assert story.words[-2:] == ["bake.compensated", "compensated"]


def test_what_is_answered_is_not_confirmed() -> None:
    expected = scenario(BakeSaga, State()).expects(Bake)

    with pytest.raises(DefinitionError, match="Bake is answered: write"):
        expected.confirmed()


def test_what_a_person_says_of_a_silent_participant() -> None:
    silent = scenario(BakeSaga, State()).expects(Bake).never_answers().ends(Status.PARKED)
    silent.operator(Act.WITHDRAW).ends(Status.COMPENSATED)

    silent = scenario(BakeSaga, State()).expects(Bake).replies().expects(BakeSaga.pay.command).never_answers()
    silent.ends(Status.PARKED)
    assert silent.operator(Act.COMPLETE, reply="in cash").ends(Status.COMPLETED).state.order == "in cash"
