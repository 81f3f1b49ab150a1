"""Every branch is walked: each signal, the deadline, a condition that holds or not, an early end."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from sagas_framework import (
    NO_DEADLINE,
    NOTHING_TO_UNDO,
    Command,
    Failure,
    Policy,
    Saga,
    Service,
    Signal,
    Steps,
    on,
)
from sagas_framework.check import check
from sagas_framework.check.drawing import drawing
from sagas_framework.check.outcomes import outcomes
from sagas_framework.check.walk import walk
from sagas_framework.core.instance import Status

shop = Service("check_waiting_shop")


class Rejected(Failure):
    """No."""


class Approval(Signal, name="approval"):
    approved: bool


class Withdrawal(Signal, name="withdrawal"):
    pass


class Pay(Command[None], service=shop, name="pay"):
    total: int


class Ship(Command[None], service=shop, name="ship"):
    total: int


class Order(BaseModel):
    total: int = 1
    noted: str = ""


def take(order: Order, approval: Approval) -> None:
    if not approval.approved:
        raise Rejected("no")
    order.noted = "approved"


def withdraw(order: Order, withdrawal: Withdrawal) -> None:
    order.noted = "withdrawn"


step = Steps(Order)
DAY = timedelta(days=1)


def pay(order: Order) -> Pay:
    return Pay(total=order.total)


class Approved(Saga[Order], name="check_approved", version=1):
    approve = step.wait(
        on(Approval, take, failures=[Rejected]),
        on(Withdrawal, withdraw),
        deadline=DAY,
        when=lambda order: order.total >= 1000,
    )
    withdrawn = step.end(when=lambda order: order.noted == "withdrawn", because="it was withdrawn")
    pay = step.command(Pay, pay, pivot=True)


def test_every_branch_leads_somewhere() -> None:
    found = {
        happens: (outcome.does, outcome.status)
        for outcome in outcomes(walk(Approved.definition))
        for happens in outcome.happens
    }

    paid, nothing = (("pay",), Status.COMPLETED), ((), Status.COMPENSATED)
    assert found["every step succeeds"] == paid
    assert found["`approve` is left out"] == paid
    assert found["`approve` gets withdrawal"] == paid
    assert found["`withdrawn` ends it early (it was withdrawn)"] == ((), Status.COMPLETED)
    assert nothing in [result for told, result in found.items() if "is told no (Rejected)" in told]
    assert any("has no signal by its deadline" in told for told in found)


def test_the_drawing_has_waits_conditions_and_early_ends() -> None:
    drawn = drawing(walk(Approved.definition))

    assert 'do_approve[/"approve<br><i>waits for approval or withdrawal</i>"/]' in drawn
    assert 'do_approve -->|"withdrawal"| do_withdrawn' in drawn
    assert 'started -->|"left out"| do_withdrawn' in drawn
    assert 'do_withdrawn -->|"ended early"| completed' in drawn
    assert 'do_approve -.->|"Rejected<br>deadline<br>cancelled"| compensated' in drawn


def codes(saga: type[Saga[Order]], policy: Policy = Policy()) -> list[str]:  # noqa: B008 (frozen)
    return [finding.code for finding in check(saga, policy=policy, notes=True)]


def test_a_sound_saga_that_waits_has_no_findings() -> None:
    assert check(Approved) == []


def test_what_is_wrong_with_waits_is_found() -> None:
    class NoAfterPivot(Saga[Order], name="check_no_after_pivot", version=1):
        pay = step.command(Pay, pay, pivot=True)
        approve = step.wait(on(Approval, take, failures=[Rejected]), deadline=NO_DEADLINE)
        end = step.end(when=lambda order: True, because="why not")

    class Hurried(Saga[Order], name="check_hurried", version=1, deadline=DAY):
        approve = step.wait(on(Approval), deadline=2 * DAY)
        pay = step.command(Pay, pay, pivot=True)

    class Raises(Saga[Order], name="check_raises", version=1):
        approve = step.wait(on(Approval), deadline=lambda order: order.noted.missing)  # type: ignore[attr-defined]
        pay = step.command(Pay, pay, pivot=True, when=lambda order: bool(1 // (order.total - 1)))

    class Outlasts(Saga[Order], name="check_outlasts", version=1):
        ship = step.command(Ship, lambda order: Ship(total=1), compensation=NOTHING_TO_UNDO)
        approve = step.wait(on(Approval), deadline=2 * DAY)
        pay = step.command(Pay, pay, pivot=True)

    assert codes(NoAfterPivot) == ["refusal-after-pivot", "end-at-the-end", "waits-for-ever"]
    assert codes(Hurried) == ["deadline-never-comes"]
    assert "hook-raises" in codes(Raises)
    assert codes(Outlasts) == []
