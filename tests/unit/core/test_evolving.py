"""Whether an instance that one declaration began is carried on by another, and each reason why not."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import BaseModel, model_validator

from sagas_framework import NO_DEADLINE, NOTHING_TO_UNDO, Migration, Saga, Signal, Status, Steps, on
from sagas_framework.core.decide import decide
from sagas_framework.core.events import Act, Recorded, Result, Started
from sagas_framework.core.evolving import (
    MIGRATED,
    Outline,
    Verdict,
    Whereabouts,
    carried_on,
    differences,
    moved,
    outline,
    under_new_names,
    whereabouts,
)
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.instance import Cause, Phase, StepRecord, Waiting
from sagas_framework.core.telling import Effect, effect
from sagas_framework.core.why import why
from sagas_framework.messages import Command, Compensation, Service
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import AnyStep, CommandStep
from tests.unit.core.stories import (
    DELIVER_ORDER,
    NOON,
    SAGA_ID,
    ApproveTicket,
    AuthorizeCard,
    CreateTicket,
    OrderState,
    Run,
    SendReceipt,
    StartDelivery,
    VerifyConsumer,
    approve_ticket,
    authorize,
    mark_order_approved,
    mark_order_rejected,
    note_approval,
    open_ticket,
    reject_ticket,
    remember_authorization,
    remember_courier,
    remember_ticket,
    reverse_authorization,
    seconds,
    send_receipt,
    start_delivery,
    verify,
)

AnyStep = AnyStep
TICKET, CARD, PIVOT, DELIVERY = (
    "create_restaurant_ticket",
    "authorize_card",
    "approve_restaurant_ticket",
    "start_delivery",
)
step = Steps(OrderState)


class CheckFraud(Command[None], service=Service("bank"), name="check_fraud"):
    order_id: int


def check_fraud() -> CommandStep[OrderState]:
    return step.command(
        CheckFraud, lambda state: CheckFraud(order_id=state.order_id), compensation=NOTHING_TO_UNDO
    )


def as_before() -> dict[str, AnyStep]:
    """The steps of `DeliverOrderSaga`, made anew."""
    return {
        "reject_order": step.local(compensation=mark_order_rejected),
        "verify_consumer_details": step.command(VerifyConsumer, verify, compensation=NOTHING_TO_UNDO),
        TICKET: step.command(
            CreateTicket, open_ticket, on_success=remember_ticket, compensation=reject_ticket
        ),
        CARD: step.command(
            AuthorizeCard,
            authorize,
            on_success=remember_authorization,
            compensation=reverse_authorization,
        ),
        PIVOT: step.command(ApproveTicket, approve_ticket, on_success=note_approval, pivot=True),
        DELIVERY: step.command(StartDelivery, start_delivery, on_success=remember_courier),
        "send_receipt": step.command(SendReceipt, send_receipt),
        "approve_order": step.local(mark_order_approved),
    }


def version_2(
    steps: Mapping[str, AnyStep],
    *,
    order: Sequence[str] = (),
    model: type[BaseModel] = OrderState,
    version: int = 2,
    **changes: Any,
) -> SagaDefinition:
    """The next version of the saga, with these steps, in this order if one is given."""
    body = {name: steps[name] for name in order or steps}
    made: Any = types.new_class(
        "DeliverOrderSaga",
        (Saga[model],),  # type: ignore[valid-type]
        {"name": "deliver_order", "version": version, "migrations": [Migration(from_version=1, **changes)]},
        lambda namespace: namespace.update(body),
    )
    definition: SagaDefinition = made.definition
    return definition


WAS = outline(DELIVER_ORDER)


def move(run: Run, saga: SagaDefinition, was: Outline | None = WAS) -> Verdict:
    verdict = moved(
        run.instance, saga, saga.migrations[0], was, by="ann", reason="it is better so", at=run.now
    )
    again = moved(run.instance, saga, saga.migrations[0], was, by="ann", reason="it is better so", at=run.now)
    assert verdict == again
    return verdict


def goes_on(run: Run, saga: SagaDefinition) -> Run:
    """The same run under the new declaration."""
    verdict = move(run, saga)
    assert verdict.after is not None, verdict.missing
    run.saga, run.instance = saga, verdict.after
    run.history += verdict.history
    return run


def lacks(run: Run, saga: SagaDefinition) -> str:
    verdict = move(run, saga)
    assert verdict.after is None
    assert verdict.history == ()
    (told,) = verdict.missing
    return told


def renamed(old: str, new: str) -> SagaDefinition:
    steps = {new if name == old else name: made for name, made in as_before().items()}
    return version_2(steps, renamed={old: new})


def with_fraud_after(name: str, **changes: Any) -> SagaDefinition:
    steps: dict[str, AnyStep] = {}
    for existing, made in as_before().items():
        steps[existing] = made
        if existing == name:
            steps["check_fraud"] = check_fraud()
    return version_2(steps, added=["check_fraud"], **changes)


def without(name: str, **changes: Any) -> SagaDefinition:
    steps = as_before()
    del steps[name]
    return version_2(steps, **changes)


def undone_at(name: str) -> Run:
    """A run that turned back and undoes this step now."""
    run = Run(DELIVER_ORDER).until(PIVOT)
    run.refuses("Closed")
    while run.in_flight != [f"{name} undo 1"]:
        run.succeeds()
    return run


# ---- what a renamed step keeps --------------------------------------------------------------------


def test_a_renamed_step_is_sent_again_under_the_ids_that_its_participant_knows() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(CARD), renamed(CARD, "take_money"))

    run.after(60, horizons={"accounting_service.commands": run.now + seconds(60)})

    (again,) = run.decision.commands
    assert again.again
    assert again.operation_id == operation_id(SAGA_ID, CARD)
    assert again.message_id == message_id(SAGA_ID, CARD, Kind.DO, 1)


def test_the_reply_to_a_renamed_step_is_matched_also_of_a_former_attempt() -> None:
    run = Run(DELIVER_ORDER).until(CARD)
    run.fails()
    run.after(1)
    first = message_id(SAGA_ID, CARD, Kind.DO, 1)
    goes_on(run, renamed(CARD, "take_money"))

    run.happens(
        replace(
            run.reply_of("take_money", Kind.DO, 1, Result.SUCCESS, {"transaction_id": "t"}), refs=(first,)
        )
    )

    assert run.phase("take_money") is Phase.SUCCEEDED
    assert run.order.transaction_id == "t"


@pytest.mark.parametrize("late", [False, True])
def test_a_renamed_step_is_undone_under_its_former_name(late: bool) -> None:
    """Another key would meet a tombstone, and what the step did would stay."""
    run = Run(DELIVER_ORDER).until(CARD if late else PIVOT)
    goes_on(run, renamed(CARD, "take_money"))
    if late:
        run.after(timedelta(minutes=6))  # nobody knows whether it happened
    else:
        run.refuses("Closed")

    (undo,) = run.decision.commands
    assert undo.kind is Kind.UNDO
    assert undo.operation_id == operation_id(SAGA_ID, CARD)


def test_what_it_turned_back_for_is_told_under_the_new_name() -> None:
    run = Run(DELIVER_ORDER).until(CARD)
    run.refuses("CardRefused")

    goes_on(run, renamed(CARD, "take_money"))

    assert run.outcome is not None
    assert run.outcome.step == "take_money"
    assert "take_money was refused" in why(run.instance, run.now, run.saga)


def test_a_step_renamed_twice_keeps_its_first_name() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(CARD), renamed(CARD, "take_money"))
    was = outline(run.saga)
    steps = {"charge" if name == CARD else name: made for name, made in as_before().items()}
    third = version_2(steps, version=3, renamed={"take_money": "charge"})

    after = moved(run.instance, third, third.migrations[0], was, by="a", reason="b", at=run.now).after

    assert after is not None
    assert after.steps["charge"].identity == CARD
    assert after.steps["charge"].known_as == CARD


def test_a_step_that_gets_its_first_name_back_needs_no_other() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(CARD), renamed(CARD, "take_money"))
    third = version_2(as_before(), version=3, renamed={"take_money": CARD})

    after = moved(
        run.instance, third, third.migrations[0], outline(run.saga), by="a", reason="b", at=run.now
    ).after

    assert after is not None
    assert after.steps[CARD].known_as == ""


def test_an_added_step_never_gets_the_ids_of_a_former_step_of_its_name() -> None:
    body = {"take_money" if name == CARD else name: made for name, made in as_before().items()}
    last = body.pop("approve_order")
    body |= {CARD: step.command(SendReceipt, send_receipt), "approve_order": last}
    saga = version_2(body, renamed={CARD: "take_money"}, added=[CARD])
    run = goes_on(Run(DELIVER_ORDER).until("send_receipt"), saga)

    run.succeeds()

    (sent,) = run.decision.commands
    assert sent.operation_id != operation_id(SAGA_ID, CARD)
    assert run.step("take_money").identity == CARD
    run.happens(run.reply_of(CARD, Kind.DO, 1, Result.SUCCESS, refs=(sent.message_id,)))
    assert run.status is Status.COMPLETED


# ---- added steps ----------------------------------------------------------------------------------


def test_a_step_added_ahead_of_where_the_instance_is_will_be_done() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(TICKET), with_fraud_after(TICKET))

    run.succeeds()

    assert run.in_flight == ["check_fraud do 1"]


def test_an_instance_past_the_place_of_an_added_step_stays() -> None:
    told = lacks(Run(DELIVER_ORDER).until(CARD), with_fraud_after(TICKET))

    assert told == (
        "check_fraud comes before authorize_card, which is sent: the instance is past its place. If it may "
        "be done without, say done_without=['check_fraud'] in Migration(from_version=1, to_version=2)"
    )


def test_it_may_be_done_without_the_added_step() -> None:
    saga = with_fraud_after(TICKET, done_without=["check_fraud"])
    run = goes_on(Run(DELIVER_ORDER).until(CARD), saga)

    while not run.status.ended:
        run.succeeds()

    assert run.status is Status.COMPLETED
    assert run.phase("check_fraud") is Phase.SKIPPED
    assert "check_fraud.skipped" in run.words
    assert effect(run.step("check_fraud"), run.instance, saga) is Effect.NEVER
    assert why(run.instance, run.now, saga) == "Completed: every effect is kept."


def test_a_step_that_was_left_out_is_not_undone() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(CARD), with_fraud_after(TICKET, done_without=["check_fraud"]))
    run.refuses("CardRefused")
    while not run.status.ended:
        run.succeeds()

    assert run.status is Status.COMPENSATED
    assert "check_fraud.compensating" not in run.words
    assert effect(run.step("check_fraud"), run.instance, run.saga) is Effect.NEVER


def test_a_saga_that_turned_back_needs_no_added_step() -> None:
    run = goes_on(undone_at(TICKET), with_fraud_after("reject_order"))

    run.succeeds()

    assert run.status is Status.COMPENSATED
    assert run.phase("check_fraud") is Phase.PENDING


def test_an_added_step_is_declared() -> None:
    steps = as_before()
    ahead = {**{n: steps[n] for n in list(steps)[:7]}, "check_fraud": check_fraud()}
    made = ahead["check_fraud"]
    assert isinstance(made, CommandStep)
    made.compensation = None
    saga = version_2({**ahead, "approve_order": steps["approve_order"]})

    assert lacks(Run(DELIVER_ORDER).until(CARD), saga) == (
        "check_fraud is new in version 2: say added= (or renamed=) in Migration(from_version=1, to_version=2)"
    )


def test_what_is_said_to_be_added_and_was_there_is_told() -> None:
    saga = version_2(as_before(), added=[DELIVERY])

    assert "adds start_delivery, which version 1 has already" in lacks(Run(DELIVER_ORDER).until(CARD), saga)


# ---- removed steps --------------------------------------------------------------------------------


def test_a_removed_step_that_nobody_began_is_gone() -> None:
    run = goes_on(Run(DELIVER_ORDER).until(DELIVERY), without("send_receipt", removed=["send_receipt"]))

    run.succeeds()

    assert run.status is Status.COMPLETED
    assert "send_receipt" not in run.instance.steps


@pytest.mark.parametrize("at", [TICKET, CARD])
def test_a_removed_step_that_was_begun_keeps_its_instance(at: str) -> None:
    told = lacks(Run(DELIVER_ORDER).until(at), without(TICKET, removed=[TICKET]))

    assert told.startswith(
        f"{TICKET} is {'sent' if at == TICKET else 'done'}, and version 2 has no such step"
    )


def test_a_removed_step_is_declared() -> None:
    told = lacks(Run(DELIVER_ORDER).until(CARD), without("send_receipt"))

    assert told == (
        "send_receipt is no step of version 2: say renamed= or removed= in "
        "Migration(from_version=1, to_version=2)"
    )


# ---- what changed about a step --------------------------------------------------------------------


@pytest.mark.parametrize("at", ["verify_consumer_details", TICKET, CARD, PIVOT])
def test_two_steps_do_not_become_one(at: str) -> None:
    steps = as_before()
    del steps[TICKET]
    saga = version_2(steps, renamed={TICKET: CARD})

    assert lacks(Run(DELIVER_ORDER).until(at), saga) == (
        f"{TICKET} and {CARD} of version 1 are both {CARD} in version 2, and one would be forgotten: say in "
        "Migration(from_version=1, to_version=2) which of them is removed=, or what it is renamed= to"
    )


def test_a_step_takes_the_name_of_one_that_is_removed() -> None:
    steps = as_before()
    del steps["send_receipt"]
    steps = {"send_receipt" if name == DELIVERY else name: made for name, made in steps.items()}
    saga = version_2(steps, renamed={DELIVERY: "send_receipt"}, removed=["send_receipt"])

    run = goes_on(Run(DELIVER_ORDER).until(DELIVERY), saga)

    assert run.step("send_receipt").identity == DELIVERY
    assert run.in_flight == ["send_receipt do 1"]


def test_a_step_does_not_take_the_command_of_one_that_is_removed() -> None:
    steps = as_before()
    del steps[DELIVERY]
    saga = version_2(steps, renamed={DELIVERY: "send_receipt"}, removed=["send_receipt"])

    assert lacks(Run(DELIVER_ORDER).until(DELIVERY), saga) == (
        "send_receipt was begun as delivery_service.start_delivery, and is consumer_service.send_receipt in "
        "version 2: only its participant knows what was done"
    )


def test_the_pivot_may_not_move_over_an_instance() -> None:
    steps = as_before()
    steps[PIVOT] = step.command(ApproveTicket, approve_ticket, compensation=NOTHING_TO_UNDO)
    steps[DELIVERY] = step.command(StartDelivery, start_delivery, pivot=True)
    saga = version_2(steps)

    assert lacks(Run(DELIVER_ORDER).until(PIVOT), saga) == (
        f"{PIVOT} was the pivot when it was begun, and is before the pivot in version 2"
    )
    assert len(move(Run(DELIVER_ORDER).until(DELIVERY), saga).missing) == 2
    goes_on(Run(DELIVER_ORDER).until(CARD), saga)


def test_a_pivot_that_moves_ahead_of_an_instance_makes_nothing_that_was_begun_final() -> None:
    steps = as_before()
    steps[CARD] = step.command(AuthorizeCard, authorize, on_success=remember_authorization, pivot=True)
    steps[PIVOT] = step.command(ApproveTicket, approve_ticket)
    saga = version_2(steps)

    assert lacks(Run(DELIVER_ORDER).until(CARD), saga).startswith(
        "authorize_card was before the pivot when it"
    )
    goes_on(Run(DELIVER_ORDER).until(TICKET), saga)


def no_longer_undone() -> SagaDefinition:
    steps = as_before()
    steps[TICKET] = step.command(
        CreateTicket, open_ticket, on_success=remember_ticket, compensation=NOTHING_TO_UNDO
    )
    return version_2(steps)


@pytest.mark.parametrize("run", [Run(DELIVER_ORDER).until(CARD), undone_at(TICKET)], ids=["done", "undoing"])
def test_what_would_be_undone_is_not_left_behind(run: Run) -> None:
    told = lacks(run, no_longer_undone())

    assert told.endswith(
        "would be undone by restaurant_service.reject_ticket; version 2 undoes nothing there, and what it "
        "did would stay"
    )


def test_past_the_pivot_a_compensation_may_go() -> None:
    goes_on(Run(DELIVER_ORDER).until(DELIVERY), no_longer_undone())


def test_a_compensation_that_is_new_undoes_what_was_done_before() -> None:
    was = no_longer_undone()
    run = Run(was).until(CARD)
    third = version_2(as_before(), version=3)

    after = moved(
        run.instance, third, third.migrations[0], outline(was), by="a", reason="b", at=run.now
    ).after

    assert after is not None
    run.saga, run.instance = third, after
    run.refuses("CardRefused")
    assert run.in_flight == [f"{TICKET} undo 1"]


def test_another_command_does_not_take_over_what_the_former_did() -> None:
    class OpenTicket(Command[None], service=Service("kitchen"), name="open"):
        order_id: int

    steps = as_before()
    steps[TICKET] = step.command(
        OpenTicket, lambda state: OpenTicket(order_id=state.order_id), compensation=NOTHING_TO_UNDO
    )
    saga = version_2(steps)

    for at in (TICKET, CARD):
        assert lacks(Run(DELIVER_ORDER).until(at), saga) == (
            f"{TICKET} was begun as restaurant_service.create_ticket, and is kitchen.open in version 2: only "
            "its participant knows what was done"
        )
    goes_on(Run(DELIVER_ORDER).until("verify_consumer_details"), saga)
    goes_on(Run(DELIVER_ORDER).until(DELIVERY), saga)  # nothing of it will be undone any more


def test_without_an_inbox_what_failed_may_have_happened_and_keeps_its_command() -> None:
    bakery = Service("bakery", protocol="demo-0.1")

    class Bake(Command[None], service=bakery, name="bake"):
        pass

    class ThrowAway(Compensation[Bake], service=bakery, name="throw_away"):
        pass

    class BakeTwice(Command[None], service=bakery, name="bake_twice"):
        pass

    def making(command: type[Command[None]], **undo: Any) -> SagaDefinition:
        steps = as_before()
        steps[CARD] = step.command(command, lambda state: command(), **undo)
        return version_2(steps)

    saga = making(Bake, compensation=lambda state: ThrowAway())
    run = Run(saga).until(CARD)
    run.fails()
    assert run.in_flight == [f"{TICKET} undo 1"]

    assert (
        "was begun as bakery.bake, and is bakery.bake_twice in version 2"
        in move(run, making(BakeTwice, compensation=NOTHING_TO_UNDO), outline(saga)).missing[0]
    )
    goes_on(run, saga)  # its success may come yet, and is then a person's to undo
    run.happens(run.reply_of(CARD, Kind.DO, 1, Result.SUCCESS))
    assert (run.status, run.phase(CARD)) == (Status.PARKED, Phase.HANDED_OVER)


def test_a_command_is_no_local_step() -> None:
    steps = as_before()
    steps["verify_consumer_details"] = step.local(lambda state, session: None, compensation=NOTHING_TO_UNDO)

    told = lacks(Run(DELIVER_ORDER).until(CARD), version_2(steps))

    assert "was begun as consumer_service.verify_consumer_details, and is a local step" in told


def test_what_was_begun_keeps_its_order() -> None:
    order = ["reject_order", TICKET, "verify_consumer_details", CARD, PIVOT, DELIVERY, "send_receipt"]
    saga = version_2(as_before(), order=[*order, "approve_order"])

    assert lacks(Run(DELIVER_ORDER).until(CARD), saga) == (
        "verify_consumer_details was begun before create_restaurant_ticket, and comes after it in version 2: "
        "they would be undone in the wrong order"
    )
    assert "the instance would go on without it" in lacks(
        Run(DELIVER_ORDER).until("verify_consumer_details"), saga
    )


def test_a_compensation_that_the_new_version_cannot_make_is_told() -> None:
    def broken(state: OrderState) -> Any:
        raise KeyError("currency")

    steps = as_before()
    steps[TICKET] = step.command(CreateTicket, open_ticket, on_success=remember_ticket, compensation=broken)

    assert lacks(Run(DELIVER_ORDER).until(CARD), version_2(steps)) == (
        f"{TICKET} is done, and the compensation that version 2 has for it cannot be made from its state "
        "(KeyError: 'currency')"
    )


# ---- the state ------------------------------------------------------------------------------------


class Richer(OrderState):
    currency: str


rich = Steps(Richer)


def richer(**changes: Any) -> SagaDefinition:
    steps: dict[str, Any] = as_before()
    for made in steps.values():
        made.state = Richer
    return version_2(steps, model=Richer, **changes)


def test_a_state_that_lacks_a_field_is_told_with_its_path() -> None:
    assert lacks(Run(DELIVER_ORDER).until(CARD), richer()) == (
        "its state does not fit Richer of version 2 ($.currency: Field required): let state= of "
        "Migration(from_version=1, to_version=2) make one that does"
    )


def test_what_its_state_lacks_does_not_hide_what_its_steps_lack() -> None:
    steps: dict[str, Any] = {}
    for name, made in as_before().items():
        if name == CARD:
            steps["check_fraud"] = check_fraud()
        steps[name] = made
    for made in steps.values():
        made.state = Richer
    run = Run(DELIVER_ORDER).until(CARD)

    for_the_state, for_the_steps = move(run, version_2(steps, model=Richer, added=["check_fraud"])).missing
    assert "$.currency: Field required" in for_the_state
    assert for_the_steps.startswith(f"check_fraud comes before {CARD}, which is sent")


def test_a_conversion_makes_the_new_state_and_leaves_the_old_alone() -> None:
    run = Run(DELIVER_ORDER).until(CARD)

    def with_currency(state: dict[str, Any]) -> Mapping[str, Any]:
        state["currency"] = "EUR"
        return state

    before = dict(run.instance.state)
    verdict = move(run, richer(state=with_currency))

    assert verdict.after is not None
    assert verdict.after.state["currency"] == "EUR"
    assert dict(run.instance.state) == before


def test_a_conversion_that_raises_is_told() -> None:
    def broken(state: dict[str, Any]) -> Mapping[str, Any]:
        return {**state, "currency": state["country"]}

    assert lacks(Run(DELIVER_ORDER).until(CARD), richer(state=broken)) == (
        "state= of Migration(from_version=1, to_version=2) fails on its state (KeyError: 'country')"
    )


class OtherName(BaseModel):
    order_id: int
    consumer_id: int
    quantity: int
    amount: str
    address: str
    order: str
    broken: str
    ticket_number: int | None = None


class OtherNameThatIsRead(OtherName):
    @model_validator(mode="before")
    @classmethod
    def under_its_former_name(cls, state: dict[str, Any]) -> dict[str, Any]:
        return {"ticket_number": state.get("ticket_id"), **state}


@pytest.mark.parametrize(
    ("model", "lost"), [(OtherName, "ticket_id, transaction_id"), (OtherNameThatIsRead, "transaction_id")]
)
def test_what_the_state_has_and_the_new_model_does_not_keep_is_told(
    model: type[BaseModel], lost: str
) -> None:
    run = Run(DELIVER_ORDER).until(PIVOT)
    made: list[dict[str, Any]] = []

    def as_it_was(state: dict[str, Any]) -> Mapping[str, Any]:
        made.append(state)
        return state

    def version(**changes: Any) -> SagaDefinition:
        steps: dict[str, Any] = as_before()
        for made_for in steps.values():
            made_for.state = model
        return version_2(steps, model=model, **changes)

    as_it_is = replace(version(), version=1, shape=DELIVER_ORDER.shape)
    (stays,) = carried_on(run.instance, as_it_is).missing
    assert stays == (
        f"its state has {lost}, which {model.__name__} does not keep as it is now: keep that until it has "
        "ended, or give the class the next version and a migration with state="
    )
    told = " ".join(move(run, version()).missing)
    assert (
        f"its state has {lost}, which {model.__name__} of version 2 does not keep: let state= of "
        "Migration(from_version=1, to_version=2) say what becomes of it" in told
    )
    # Who converts it knows what is left out.
    assert "does not keep" not in str(move(run, version(state=as_it_was)).missing)
    assert made


# ---- before it began ------------------------------------------------------------------------------


def test_what_nobody_has_taken_up_begins_in_the_new_version() -> None:
    run = Run(DELIVER_ORDER)

    goes_on(run, with_fraud_after("reject_order"))

    assert run.instance.steps == {}
    assert run.instance.due_at == NOON
    run.start()
    assert run.in_flight == ["check_fraud do 1"]


def test_what_the_caller_committed_is_not_left_behind() -> None:
    run = Run(DELIVER_ORDER)

    assert lacks(run, without("reject_order", removed=["reject_order"])).startswith(
        "reject_order is done, and version 2 has no such step"
    )


def test_what_the_caller_committed_is_not_done_again() -> None:
    steps = as_before()
    steps["reject_order"] = step.local(mark_order_approved, compensation=mark_order_rejected)

    assert lacks(Run(DELIVER_ORDER), version_2(steps)) == (
        "reject_order was committed together with the saga, and is done by a step in version 2: it would be "
        "done twice"
    )


@pytest.mark.parametrize("front", [True, False])
def test_what_its_caller_did_not_commit_is_not_undone(front: bool) -> None:
    given = step.local(compensation=mark_order_rejected)
    first, *rest = as_before().items()
    steps = dict([("noted", given), first, *rest] if front else [first, ("noted", given), *rest])
    saga = version_2(steps, added=["noted"], done_without=["noted"])

    assert lacks(Run(DELIVER_ORDER), saga) == (
        "noted stands for what is committed together with a saga of version 2, and this one was started by "
        "version 1: let that one begin it"
    )


def test_what_nobody_knows_any_more_is_not_moved() -> None:
    run = Run(DELIVER_ORDER).until(CARD)

    (told,) = move(run, version_2(as_before()), was=None).missing

    assert told == (
        "what the steps of version 1 were is not noted in this database: give its class to Sagas(...) beside "
        "the new one"
    )


# ---- the row --------------------------------------------------------------------------------------


def test_deadlines_attempts_and_reasons_stay() -> None:
    run = Run(DELIVER_ORDER).until(CARD)
    run.fails()
    before = run.instance

    goes_on(run, renamed(CARD, "take_money"))

    record, was = run.step("take_money"), before.steps[CARD]
    assert record == replace(was, name="take_money", known_as=CARD)
    assert run.instance.due_at == before.due_at
    assert before.waiting is not None
    assert run.instance.waiting == Waiting(Cause.PAUSE, "take_money", before.waiting.since)
    assert run.instance.revision == before.revision + 1


def test_one_that_stumbled_is_looked_at_again() -> None:
    run = Run(DELIVER_ORDER).until(CARD)
    run.instance = replace(
        run.instance,
        due_at=run.now + seconds(60),
        steps={n: replace(r, flight=None, deadline=None) for n, r in run.instance.steps.items()},
    )

    goes_on(run, version_2(as_before()))

    assert run.instance.due_at == run.now + seconds(60)


def test_a_parked_step_stays_parked_and_takes_the_new_code() -> None:
    run = Run(DELIVER_ORDER, OrderState(broken="note_approval")).until(PIVOT)
    run.succeeds()
    assert run.phase(PIVOT) is Phase.ANSWERED
    steps = as_before()
    steps[PIVOT] = step.command(ApproveTicket, approve_ticket, pivot=True)

    goes_on(run, version_2(steps))
    assert run.status is Status.PARKED
    run.operator(Act.RETRY)

    assert run.in_flight == [f"{DELIVERY} do 1"]


# ---- as they are ----------------------------------------------------------------------------------


def test_an_instance_goes_on_with_the_declaration_that_it_was_started_with() -> None:
    run = Run(DELIVER_ORDER).until(CARD)

    assert carried_on(run.instance, DELIVER_ORDER) == Verdict(after=run.instance)


def test_a_changed_shape_is_told_in_full() -> None:
    run = Run(DELIVER_ORDER).until(CARD)
    changed = replace(without(TICKET), version=1)

    (told,) = carried_on(run.instance, changed, WAS).missing

    assert told.startswith(f"version 1 was changed since it was started ({TICKET} is gone): give the changed")
    assert (
        carried_on(run.instance, changed).missing[0].startswith("version 1 was changed since it was started:")
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"place": "after"}, f"{CARD} was before the pivot, and is after the pivot now"),
        ({"task": None}, f"{CARD} was accounting_service.authorize_card, and is a local step now"),
        (
            {"undo": None},
            f"{CARD} was undone by accounting_service.reverse_authorization, and is by nothing now",
        ),
        ({"undo": "local"}, "and is by a local compensation now"),
        ({"protocol": "celery"}, f"{CARD} was sent as inbox, and is as celery now"),
        ({"name": "x"}, f"{CARD} is gone; x is new"),
    ],
)
def test_a_difference_is_told(changes: dict[str, Any], told: str) -> None:
    steps = [
        {**one, **changes, **({"place": "after the pivot"} if "place" in changes else {})}
        if one["name"] == CARD
        else one
        for one in WAS.steps_to_json()
    ]
    now = Outline.from_json("deliver_order", 1, "other", steps)

    assert told in "; ".join(differences(WAS, now))
    assert differences(WAS, WAS) == []


def test_an_outline_comes_back_from_json() -> None:
    assert Outline.from_json(WAS.saga, WAS.version, WAS.shape, WAS.steps_to_json()) == WAS
    assert [one.given for one in WAS.steps] == [True, False, False, False, False, False, False, False]


# ---- where it stands ------------------------------------------------------------------------------


def test_where_an_instance_stands() -> None:
    run = Run(DELIVER_ORDER)
    assert whereabouts(run.instance) == Whereabouts("", "pending", False, "not begun")
    assert whereabouts(run.until(CARD).instance) == Whereabouts(CARD, "running", False, "sent")
    run.fails()
    assert whereabouts(run.instance) == Whereabouts(CARD, "pausing", False, "pausing")
    parked = Run(DELIVER_ORDER, OrderState(broken="note_approval")).until(PIVOT)
    parked.succeeds()
    assert whereabouts(parked.instance) == Whereabouts(PIVOT, "answered", True, "answered, parked")
    bare = replace(run.instance, steps={"a": StepRecord("a")})
    assert whereabouts(bare) == Whereabouts("", "pending", False, "between two steps")


# ---- history --------------------------------------------------------------------------------------


def line(entry: str, step: str | None = None, **detail: Any) -> Recorded:
    return Recorded(NOON, entry, step, detail)


def test_a_history_is_told_under_the_names_of_today() -> None:
    history = [
        line("a.running", "a"),
        line("b.succeeded", "b"),
        line("operator.retry", "a"),
        line(MIGRATED, renamed={"a": "b", "b": "a"}),
        line("a.running", "a"),
        line(MIGRATED, renamed={"a": "c"}),
        line("c.succeeded", "c"),
        line("completed"),
    ]

    told = under_new_names(history)

    assert [(one.entry, one.step) for one in told] == [
        ("b.running", "b"),
        ("c.succeeded", "c"),
        ("operator.retry", "b"),
        (MIGRATED, None),
        ("c.running", "c"),
        (MIGRATED, None),
        ("c.succeeded", "c"),
        ("completed", None),
    ]
    assert under_new_names([]) == []


def test_equal_arguments_give_equal_decisions_after_a_move() -> None:
    saga = renamed(CARD, "take_money")
    run = goes_on(Run(DELIVER_ORDER), saga)

    assert decide(saga, run.instance, Started(SAGA_ID, NOON)) == decide(
        saga, run.instance, Started(SAGA_ID, NOON)
    )


# ---- what waits -----------------------------------------------------------------------------------


class Said(Signal, name="said"):
    pass


class Unsaid(Signal, name="unsaid"):
    pass


def waiting_versions(was: Any, now: Any) -> tuple[Run, SagaDefinition]:
    """A run that waits in version 1, and version 2."""

    class First(Saga[OrderState], name="waits", version=1):
        wait = was
        done = step.local(mark_order_approved)

    class Second(Saga[OrderState], name="waits", version=2, migrations=[Migration(from_version=1)]):
        wait = now
        done = step.local(mark_order_approved)

    return Run(First.definition).start(), Second.definition


def test_one_that_waits_is_moved_and_waits_on_with_its_deadline() -> None:
    run, saga = waiting_versions(
        step.wait(on(Said), deadline=timedelta(hours=1)), step.wait(on(Said), deadline=timedelta(hours=9))
    )

    after = move(run, saga, outline(run.saga)).after

    assert after is not None
    assert after.steps["wait"].deadline == run.step("wait").deadline
    assert after.waiting == run.instance.waiting


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (lambda: step.wait(on(Unsaid), deadline=NO_DEADLINE), "is a wait for unsaid in version 2"),
        (lambda: step.delay(until=timedelta(hours=1)), "is a delay in version 2"),
        (lambda: step.end(when=lambda s: True, because="so"), "is an early end in version 2"),
    ],
)
def test_one_that_waits_for_something_else_is_not_moved(now: Any, told: str) -> None:
    run, saga = waiting_versions(step.wait(on(Said), deadline=timedelta(hours=1)), now())

    (missing,) = move(run, saga, outline(run.saga)).missing
    assert told in missing
