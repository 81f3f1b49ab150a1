"""Every rule: a saga that is wrong on purpose, and one that is right."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, Field

from sagas_framework import NOTHING_TO_UNDO, Command, Compensation, Failure, Policy, Reply, Retry, Saga, Steps
from sagas_framework.check import Severity, check
from sagas_framework.check.paths import Happening, What
from sagas_framework.check.timing import longest_until_undone
from sagas_framework.check.walk import walk
from sagas_framework.core.instance import Phase
from sagas_framework.core.instance import Status as SagaStatus
from tests.unit.check.orders import (
    Authorize,
    Charge,
    CreateTicket,
    Deliver,
    Print,
    State,
    TicketCreated,
    authorize,
    bank,
    charge,
    codes,
    cook,
    kitchen,
    nothing,
    printed,
    reject,
    remember,
    step,
    ticket,
)
from tests.unit.core.stories import CREATE_ORDER, Run


class Right(Saga[State], name="right", version=1):
    mark = step.local(nothing, compensation=nothing)
    ticket = ticket()
    authorize = authorize()
    charge = charge()
    cook = cook()
    close = step.local(nothing)


def test_nothing_is_found_in_a_saga_that_is_right() -> None:
    assert check(Right, notes=True) == []


# ---- refusals after the pivot ---------------------------------------------------------------------


def deliver() -> Any:
    return step.command(Deliver, lambda s: Deliver(order_id=s.order_id))


def test_a_refusal_after_the_pivot_can_only_park_the_saga() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        charge = charge()
        deliver = deliver()

    (found,) = check(Wrong)

    assert codes([found]) == ["error refusal-after-pivot wrong.deliver"]
    assert "Closed" in found.what
    assert "Do deliver before charge" in found.instead


def test_without_an_inbox_nothing_is_tried_again_so_that_is_no_way_out() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        charge = charge()
        print = step.command(Print, lambda s: Print(order_id=s.order_id))

    (found,) = check(Wrong)

    assert found.instead == "Do print before charge, or make it the pivot."


def test_the_same_command_may_be_refused_as_the_pivot() -> None:
    class Pivot(Saga[State], name="pivot", version=1):
        ticket = ticket()
        deliver = step.command(Deliver, lambda s: Deliver(order_id=s.order_id), pivot=True)
        cook = cook()

    assert check(Pivot) == []


# ---- compensations --------------------------------------------------------------------------------


class Book(Command[TicketCreated], service=kitchen, name="book"):
    order_id: int


class Unbook(Compensation[Book], service=kitchen, name="unbook"):
    ticket_id: int


def book(compensation: Any, on_success: Any = remember) -> Any:
    return step.command(
        Book, lambda s: Book(order_id=s.order_id), on_success=on_success, compensation=compensation
    )


def test_a_compensation_that_only_the_reply_can_fill_is_missing_when_no_reply_came() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        book = book(lambda s: Unbook(ticket_id=s.ticket_id))
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["error compensation-needs-reply wrong.book"]
    assert "Unbook: $.ticket_id: Input should be a valid integer" in found.what
    assert found.instead.startswith("Write ticket_id: int | None in Unbook.")
    assert "undo.reply" in found.instead


def test_a_compensation_whose_hook_raises_without_the_reply_is_the_same() -> None:
    def unbook(state: State) -> Unbook:
        assert state.ticket_id is not None
        return Unbook(ticket_id=state.ticket_id)

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(unbook)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["error compensation-needs-reply wrong.book"]
    assert found.instead.startswith("Make Unbook from a state that lacks what only the reply says")


def test_a_compensation_that_always_raises_lacks_an_example() -> None:
    def unbook(state: State) -> Unbook:
        raise KeyError("EUR")

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(unbook)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["warning hook-raises wrong.book"]
    assert "What makes its compensation raised KeyError: 'EUR'" in found.what


def test_a_reply_that_the_compensation_wants_and_nobody_keeps() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        ticket = step.command(CreateTicket, lambda s: CreateTicket(order_id=s.order_id), compensation=reject)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["warning reply-not-kept wrong.ticket"]
    assert "RejectTicket is sent with ticket_id None" in found.what


def test_a_compensation_without_fields_of_the_reply_needs_none_kept() -> None:
    class Note(Command[TicketCreated], service=kitchen, name="note"):
        order_id: int

    class Unnote(Compensation[Note], service=kitchen, name="unnote"):
        order_id: int
        reason: str | None = None

    class Kept(Saga[State], name="kept", version=1):
        note = step.command(
            Note, lambda s: Note(order_id=s.order_id), compensation=lambda s: Unnote(order_id=s.order_id)
        )
        charge = charge()

    assert check(Kept) == []


# ---- hooks that raise -----------------------------------------------------------------------------


class Priced(BaseModel):
    order_id: int
    currency: str


class PricedWithExample(BaseModel):
    order_id: int
    currency: str = Field(examples=["EUR"])


def by_rate(state: Any) -> Charge:
    return Charge(order_id={"EUR": 1}[state.currency])


def test_a_request_that_raises_on_the_example_says_how_to_give_one() -> None:
    class Wrong(Saga[Priced], name="wrong", version=1):
        charge = Steps(Priced).command(Charge, by_rate, pivot=True)
        cook = Steps(Priced).local(nothing)

    (found,) = check(Wrong)

    assert codes([found]) == ["warning hook-raises wrong.charge"]
    assert 'raised KeyError: \'text\' on the example {"order_id": 1, "currency": "text"}' in found.what
    assert "cook could not be walked" in found.what
    assert "give the fields of Priced examples" in found.instead


def test_a_hook_that_raises_where_there_is_no_way_back_would_park_the_saga() -> None:
    def no_request(state: State) -> Any:
        raise LookupError("no card")

    def not_taken(state: State, reply: TicketCreated) -> None:
        raise LookupError("no book")

    class Before(Saga[State], name="before", version=1):
        authorize = step.command(Authorize, no_request, compensation=NOTHING_TO_UNDO)
        charge = charge()

    class Asking(Saga[State], name="asking", version=1):
        charge = step.command(Charge, no_request, pivot=True)

    class Taking(Saga[State], name="taking", version=1):
        ticket = step.command(
            CreateTicket, lambda s: CreateTicket(order_id=1), on_success=not_taken, pivot=True
        )

    class After(Saga[State], name="after", version=1):
        charge = charge()
        cook = step.command(Deliver, no_request)

    ends = []
    for saga in (Before, Asking, Taking, After):
        (raised,) = [found for found in check(saga) if found.code == "hook-raises"]
        parks = any(end.parked for end in walk(saga.definition).ends)
        ends.append((raised.instead.endswith("the saga would park."), parks))

    assert ends == [(False, False), (False, False), (True, True), (True, True)]


def test_with_an_example_it_is_walked() -> None:
    class Given(Saga[PricedWithExample], name="given", version=1):
        charge = Steps(PricedWithExample).command(Charge, by_rate, pivot=True)

    assert check(Given) == []


def test_a_hook_that_needs_what_a_local_step_leaves_is_told_how_to_say_it() -> None:
    def of_ticket(state: State) -> Charge:
        assert state.ticket_id is not None
        return Charge(order_id=state.ticket_id)

    class Wrong(Saga[State], name="wrong", version=1):
        number = step.local(nothing, compensation=NOTHING_TO_UNDO)
        charge = step.command(Charge, of_ticket, pivot=True)

    (found,) = check(Wrong)

    assert "What a local step or a plain task leaves there" in found.instead


def test_a_hook_that_makes_another_message_than_is_declared_is_an_error_whatever_the_state() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        charge = step.command(Charge, lambda s: Book(order_id=s.order_id), pivot=True)  # type: ignore[arg-type, return-value]

    (found,) = check(Wrong)

    assert codes([found]) == ["error wrong-message wrong.charge"]
    assert "the hook made Book(order_id=1), not Charge" in found.what
    assert found.instead == "Return the message that the step declares."


def test_a_reply_that_cannot_be_taken() -> None:
    def forget(state: State, reply: TicketCreated) -> None:
        raise LookupError("no such ticket")

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(lambda s: Unbook(ticket_id=0), on_success=forget)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["warning hook-raises wrong.book"]
    assert "Its on_success raised LookupError: no such ticket" in found.what


def test_an_error_of_several_lines_is_told_in_one() -> None:
    def forget(state: State, reply: TicketCreated) -> None:
        raise LookupError("no such ticket\n  in these books")

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(lambda s: Unbook(ticket_id=0), on_success=forget)
        charge = charge()

    (found,) = check(Wrong)

    assert "LookupError: no such ticket in these books on the example" in found.what


def test_a_compensation_that_raises_as_soon_as_the_next_request_does_is_not_taken_for_on_success() -> None:
    def no_request(state: State) -> Charge:
        raise LookupError("no card")

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(lambda s: Unbook(ticket_id=s.ticket_id), on_success=lambda state, reply: None)
        charge = step.command(Charge, no_request, pivot=True)

    found = check(Wrong)

    assert codes(found) == ["warning hook-raises wrong.charge", "warning hook-raises wrong.book"]
    assert found[1].what.startswith("What makes its compensation raised Unbook: $.ticket_id")


def test_what_undoes_a_reply_that_could_not_be_taken_is_judged_by_the_other_paths() -> None:
    def forget(state: State, reply: TicketCreated) -> None:
        raise LookupError("no such ticket")

    class Wrong(Saga[State], name="wrong", version=1):
        book = book(lambda s: Unbook(ticket_id=s.ticket_id), on_success=forget)
        charge = charge()

    assert codes(check(Wrong)) == [
        "error compensation-needs-reply wrong.book",
        "warning hook-raises wrong.book",
    ]
    raised = [end.story for end in walk(Wrong.definition).ends if What.RAISED in {h.what for h in end.story}]
    assert raised == [(Happening(What.RAISED, "book"),)]


def test_a_state_without_an_example_is_not_walked() -> None:
    class Coded(BaseModel):
        code: str = Field(pattern="^[0-9]{4}$")

    class Wrong(Saga[Coded], name="wrong", version=1):
        charge = Steps(Coded).command(Charge, lambda s: Charge(order_id=int(s.code)), pivot=True)

    (found,) = check(Wrong)

    assert codes([found]) == ["error not-walked wrong"]
    assert "Field(examples=[...]) in Coded" in found.instead


def test_a_state_that_is_no_json_is_not_walked() -> None:
    class Odd(BaseModel):
        order_id: int
        odd: Any = object()

    class Wrong(Saga[Odd], name="wrong", version=1):
        charge = Steps(Odd).command(Charge, lambda s: Charge(order_id=s.order_id), pivot=True)

    assert codes(check(Wrong)) == ["error not-walked wrong"]


def test_a_reply_without_an_example_is_told_and_the_rest_is_walked() -> None:
    class Coded(Reply):
        code: str = Field(pattern="^[0-9]{4}$")

    class Encode(Command[Coded], service=bank, name="encode"):
        order_id: int

    class Wrong(Saga[State], name="wrong", version=1):
        encode = step.command(Encode, lambda s: Encode(order_id=s.order_id), compensation=NOTHING_TO_UNDO)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["warning example-needed wrong.encode"]


# ---- timeouts -------------------------------------------------------------------------------------

DAY = timedelta(days=1)


def test_one_timeout_beyond_which_nothing_may_be_sent() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        authorize = authorize(timeout=29 * DAY)
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["error timeout-too-long wrong.authorize"]
    assert "28 d 23 h" in found.what


def test_timeouts_that_are_too_long_one_after_the_other() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        mark = step.local(nothing, compensation=nothing)
        ticket = ticket()
        authorize = authorize(timeout=12 * DAY)
        charge = charge(timeout=3 * DAY)

    (found,) = check(Wrong)

    assert codes([found]) == ["error timeout-too-long wrong.ticket"]
    assert "30 d" in found.what


def test_a_step_that_leaves_nothing_behind_is_waited_for_once() -> None:
    class Waits(Saga[State], name="waits", version=1):
        ticket = ticket()
        look = step.command(
            Authorize, lambda s: Authorize(order_id=s.order_id), compensation=NOTHING_TO_UNDO, timeout=DAY
        )
        authorize = authorize()
        charge = charge()

    minutes = 5 + 2 * 5 + 2 * 5  # the ticket; what authorizes, and undoing it; the pivot, and settling it
    assert longest_until_undone(Waits.definition, 0) == DAY + timedelta(minutes=minutes)


def test_the_programs_own_policy_counts() -> None:
    class Slow(Saga[State], name="slow", version=1):
        authorize = authorize(timeout=3 * DAY)
        charge = charge()

    assert check(Slow) == []
    assert codes(check(Slow, policy=Policy(inbox_retention=4 * DAY))) == [
        "error timeout-too-long slow.authorize"
    ]
    assert codes(check(Slow, policy=Policy(inbox_retention=DAY)))[0] == "error nothing-may-be-sent"


@pytest.mark.parametrize("spare", [timedelta(minutes=-1), timedelta(minutes=1)])
def test_just_as_long_as_that_a_saga_can_still_undo_its_first_command(spare: timedelta) -> None:
    """On the real core: the slowest path, with a policy that allows for it, or for a minute too little."""
    ticket = CREATE_ORDER.index("create_restaurant_ticket")
    longest = longest_until_undone(CREATE_ORDER, ticket)
    policy = Policy(inbox_retention=longest + spare + Policy().message_lifetime + Policy().clock_skew)
    run = Run(policy=policy).start()
    moment = timedelta(milliseconds=1)
    run.succeeds("verify_consumer_details")

    for name in ("create_restaurant_ticket", "authorize_card"):
        deadline = run.step(name).deadline
        assert deadline is not None
        run.after(deadline - moment - run.now)
        run.succeeds(name)
    run.at(run.step("approve_restaurant_ticket").deadline)  # no answer: it is settled
    run.after(timedelta(minutes=5) - moment)
    run.settles("withdrawn", "approve_restaurant_ticket")
    run.after(timedelta(minutes=5) - moment)
    if run.phase("authorize_card") is Phase.COMPENSATING:
        run.succeeds("authorize_card")

    record = run.step("create_restaurant_ticket")
    assert record.phase is Phase.COMPENSATING
    assert bool(record.parked) is (spare < timedelta(0)), record.parked
    assert (run.status is SagaStatus.PARKED) is (spare < timedelta(0))


def test_attempts_that_the_timeout_leaves_no_time_for() -> None:
    class Wrong(Saga[State], name="wrong", version=1):
        authorize = authorize(retry=Retry(10, pause=timedelta(minutes=1)), timeout=timedelta(minutes=5))
        charge = charge()

    (found,) = check(Wrong)

    assert codes([found]) == ["warning attempts-never-made wrong.authorize"]
    assert "Of its 10 attempts at most 3 can be made" in found.what  # after 0, 1 and 3 minutes; 7 is late


def test_after_the_pivot_the_timeout_ends_nothing() -> None:
    class Kept(Saga[State], name="kept", version=1):
        charge = charge()
        cook = cook(retry=Retry(10, pause=timedelta(minutes=1)))

    assert check(Kept) == []


# ---- failures' names ------------------------------------------------------------------------------


def failing(*failures: type[Failure]) -> type[Saga[State]]:
    class Fails(Command[None], service=bank, name="fails", failures=failures):
        order_id: int

    class Failing(Saga[State], name="failing", version=1):
        fails = step.command(Fails, lambda s: Fails(order_id=s.order_id), pivot=True)

    return Failing


def test_two_failures_under_one_name() -> None:
    class Late(Failure): ...

    class TooLate(Failure):
        wire_name = "Late"

    class LaterStill(Failure): ...

    (found,) = check(failing(Late, TooLate))

    assert codes([found]) == ["warning same-failure failing.fails"]
    assert "TooLate" in found.what
    assert check(failing(Late, LaterStill)) == []


def test_a_failure_under_a_name_with_which_participants_answer_themselves() -> None:
    class Withdrawn(Failure): ...

    assert codes(check(failing(Withdrawn))) == ["warning reserved-failure failing.fails"]


# ---- what is not guaranteed -----------------------------------------------------------------------


def test_what_is_not_guaranteed_is_a_note_and_only_told_when_asked_for() -> None:
    class Printed(Saga[State], name="printed", version=1):
        print = printed()
        charge = charge()

    assert check(Printed) == []
    assert codes(check(Printed, notes=True)) == [
        "note at-most-once printed.print",
        "note undo-unanswered printed.print",
    ]


def test_a_plain_task_is_at_most_once_and_answers_its_undoing() -> None:
    class Plain(Saga[State], name="plain", version=1):
        reserve = step.task("shop.reserve", lambda s: {}, compensation=NOTHING_TO_UNDO)
        charge = charge()

    assert codes(check(Plain, notes=True)) == ["note at-most-once plain.reserve"]


# ---- how they are told ----------------------------------------------------------------------------


def test_errors_come_first_and_a_finding_is_a_sentence_and_plain_json() -> None:
    class Wrong(Saga[State], name="wrong", version=2):
        ticket = step.command(CreateTicket, lambda s: CreateTicket(order_id=s.order_id), compensation=reject)
        print = printed()
        authorize = authorize(timeout=29 * DAY)  # looked at after what the walk found
        charge = charge()
        deliver = deliver()

    findings = check(Wrong, notes=True)

    assert [found.severity for found in findings] == [
        Severity.ERROR,
        Severity.ERROR,
        Severity.WARNING,
        Severity.NOTE,
        Severity.NOTE,
    ]
    assert str(findings[0]).startswith("error refusal-after-pivot at wrong.deliver: Deliver may be refused")
    assert findings[0].to_json()["version"] == 2
    assert set(findings[0].to_json()) == {"code", "severity", "saga", "version", "step", "what", "instead"}
