"""The saga of orders from the stock, as its authors would test it: how it ends, what the customer is told."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from typing import Final, cast

import pytest
from sqlalchemy.orm import Session

from app_common.messaging import accounting_service_messaging as accounting
from app_common.messaging import delivery_service_messaging as delivery
from app_common.messaging import inventory_service_messaging as inventory
from order_service.sagas.process_order import Approval, ProcessOrderSaga, ProcessOrderState
from sagas_framework import Act, OutcomeKind, Status
from sagas_framework.check import check
from sagas_framework.testing import Run, Scenario, Simulation, scenario
from sagas_framework.testing.world import BEGINNING

RUNS: Final = int(os.environ.get("SAGAS_SIMULATION_RUNS", "300"))
DEADLINE: Final = timedelta(minutes=1)
YES: Final = Approval(approver="Chris", approved=True)
NO: Final = Approval(approver="Chris", approved=False)

RECEIVED: Final = "Received order for Riley: 2 milk, bread. Total = {}"
RESERVED: Final = "Reserved inventory for order: 2 milk, bread"
WAITING: Final = "Waiting for approval since order >= 1000.00. Deadline = 2026-03-01 12:01:00 UTC."
APPROVED: Final = "Order was approved by Chris."
PAID: Final = "Payment was processed successfully"
SHIPPED: Final = "Order submitted for shipping"
REFUNDED: Final = "Payment is being refunded"


def an_order(total: str) -> ProcessOrderState:
    return ProcessOrderState(
        order_id="order_riley_o066i",
        customer="Riley",
        items=["milk", "bread", "milk"],
        total=Decimal(total),
        threshold=Decimal("1000.00"),
        approve_by=BEGINNING + DEADLINE,
    )


class Told:
    """A session that keeps what is published."""

    def __init__(self) -> None:
        self.rows: dict[str, list[tuple[str, dict[str, str]]]] = {}

    @property
    def messages(self) -> list[str]:
        return told(self.rows.get("published", []))


def told(published: Iterable[tuple[str, dict[str, str]]]) -> list[str]:
    """The messages, all of them about the order."""
    for topic, fields in published:
        assert (topic, fields["order_id"]) == ("order_service.customer_told", "order_riley_o066i")
    return [fields["message"] for _, fields in published]


@pytest.fixture
def session() -> Told:
    return Told()


def ordered(session: Told, total: str) -> Scenario[ProcessOrderState]:
    return scenario(ProcessOrderSaga, an_order(total), session=cast(Session, session))


def reserved(session: Told, total: str) -> Scenario[ProcessOrderState]:
    two_milk = [
        inventory.StockItem(name="milk", quantity=2),
        inventory.StockItem(name="bread", quantity=1),
    ]
    return (
        ordered(session, total)
        .expects(inventory.ReserveItems, order_id="order_riley_o066i", items=two_milk)
        .replies(reservation_id=5)
    )


def paid(story: Scenario[ProcessOrderState], total: str) -> Scenario[ProcessOrderState]:
    return story.expects(accounting.Charge, customer="Riley", amount=Decimal(total)).replies(charge_id=31)


def test_nothing_is_wrong_with_it() -> None:
    assert check(ProcessOrderSaga, notes=True) == []


@pytest.mark.parametrize("total", ["0", "999.99"])
def test_a_cheap_order_is_charged_and_shipped_without_anybodys_approval(session: Told, total: str) -> None:
    (
        paid(reserved(session, total), total)
        .expects(delivery.ShipOrder, order_id="order_riley_o066i")
        .replies(shipment_id=8817)
        .ends(Status.COMPLETED)
    )

    assert session.messages == [RECEIVED.format(f"{Decimal(total):.2f}"), RESERVED, PAID, SHIPPED]


@pytest.mark.parametrize("total", ["1000.00", "1299.00"])
def test_an_expensive_order_goes_on_when_somebody_approves_it(session: Told, total: str) -> None:
    story = reserved(session, total).waits("approval").signalled(YES)
    paid(story, total).expects(delivery.ShipOrder).replies(shipment_id=8817).ends(Status.COMPLETED)

    assert session.messages == [RECEIVED.format(total), RESERVED, WAITING, APPROVED, PAID, SHIPPED]


def test_names_from_the_right_stay_apart_from_the_numbers_beside_them(session: Told) -> None:
    order = an_order("1000.00").model_copy(update={"customer": "שרה", "items": ["חלב", "חלב", "bread"]})
    story = scenario(ProcessOrderSaga, order, session=cast(Session, session))
    story = story.expects(inventory.ReserveItems).replies(reservation_id=5).waits("approval")
    story.signalled(Approval(approver="شيري", approved=True)).expects(accounting.Charge, customer="שרה")

    listed = "2 \u2068חלב\u2069, bread"
    assert session.messages == [
        f"Received order for \u2068שרה\u2069: {listed}. Total = 1000.00",
        f"Reserved inventory for order: {listed}",
        WAITING,
        "Order was approved by \u2068شيري\u2069.",
    ]


def test_an_early_approval_is_taken_when_the_saga_comes_to_it(session: Told) -> None:
    story = (
        ordered(session, "1000.00").signalled(YES).expects(inventory.ReserveItems).replies(reservation_id=5)
    )
    paid(story, "1000.00").expects(delivery.ShipOrder).replies(shipment_id=8817).ends(Status.COMPLETED)

    assert session.messages[2:4] == [WAITING, APPROVED]


def test_a_rejected_order_gives_back_what_was_reserved(session: Told) -> None:
    story = (
        reserved(session, "1000.00")
        .waits("approval")
        .signalled(NO)
        .expects(inventory.ReleaseItems, reservation_id=5)
        .replies()
    )
    story.ends(Status.COMPENSATED)

    assert session.messages == [
        RECEIVED.format("1000.00"),
        RESERVED,
        WAITING,
        "Order was rejected by Chris.",
    ]
    assert story.instance.outcome is not None
    assert (story.instance.outcome.kind, story.instance.outcome.name) == (OutcomeKind.REFUSED, "Rejected")


def test_an_order_that_nobody_approves_in_time_gives_back_what_was_reserved(session: Told) -> None:
    story = (
        reserved(session, "1000.00")
        .in_vain("approval")
        .expects(inventory.ReleaseItems, reservation_id=5)
        .replies()
    )
    story.ends(Status.COMPENSATED)

    assert session.messages[2:] == [WAITING, "Approval deadline expired."]
    assert story.instance.outcome is not None
    assert story.instance.outcome.kind is OutcomeKind.EXPIRED
    assert story.history[-1].at == BEGINNING + DEADLINE


def test_what_is_out_of_stock_ends_the_order(session: Told) -> None:
    (
        ordered(session, "10.00")
        .expects(inventory.ReserveItems)
        .refuses("Out of stock: milk (2 ordered, 1 there)")
        .ends(Status.COMPENSATED)
    )

    assert session.messages == [
        RECEIVED.format("10.00"),
        "Inventory failed for order: Out of stock: milk (2 ordered, 1 there)",
    ]


@pytest.mark.parametrize("total", ["10.00", "1000.00"])
def test_a_refused_payment_gives_back_what_was_reserved(session: Told, total: str) -> None:
    story = reserved(session, total)
    if total == "1000.00":
        story = story.waits("approval").signalled(YES)
    (
        story.expects(accounting.Charge)
        .refuses("declined")
        .expects(inventory.ReleaseItems, reservation_id=5)
        .replies()
        .ends(Status.COMPENSATED)
    )

    assert session.messages[-1] == "Payment failed for order: declined"
    assert Counter(session.messages).most_common(1)[0][1] == 1


def test_when_nothing_is_shipped_the_payment_is_given_back_then_the_items(session: Told) -> None:
    (
        paid(reserved(session, "10.00"), "10.00")
        .expects(delivery.ShipOrder)
        .refuses("in maintenance")
        .runs("confirm_payment", undo=True)
        .expects(accounting.Refund, charge_id=31)
        .replies()
        .expects(inventory.ReleaseItems, reservation_id=5)
        .replies()
        .ends(Status.COMPENSATED)
    )

    assert session.messages[2:] == [
        PAID,
        "Error submitting order for shipping: in maintenance",
        REFUNDED,
    ]


def test_of_a_charge_that_was_never_answered_only_the_one_who_knows_may_tell_the_refund(
    session: Told,
) -> None:
    (
        reserved(session, "10.00")
        .expects(accounting.Charge)
        .never_answers()
        .expects(accounting.Refund, charge_id=None)
        .replies()
        .expects(inventory.ReleaseItems, reservation_id=5)
        .replies()
        .ends(Status.COMPENSATED)
    )

    assert session.messages[2:] == ["Payment failed for order: no answer in time"]


def test_a_customer_is_told_of_a_technical_failure_but_not_what_it_was(session: Told) -> None:
    story = ordered(session, "10.00")
    for _ in range(3):
        story = story.expects(inventory.ReserveItems).fails("psycopg: password of stock@10.0.0.7 refused")
    story.expects(inventory.ReleaseItems, reservation_id=None).replies().ends(Status.COMPENSATED)

    assert session.messages[-1] == "Inventory failed for order: a technical failure"


def test_a_customer_is_told_that_the_order_was_cancelled(session: Told) -> None:
    (
        reserved(session, "1000.00")
        .waits("approval")
        .cancels()
        .expects(inventory.ReleaseItems)
        .replies()
        .ends(Status.COMPENSATED)
    )

    assert session.messages[-1] == "Order was cancelled."


def test_threshold_and_deadline_are_those_of_the_moment_at_which_the_order_was_taken(
    session: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("APPROVAL_THRESHOLD", "5.00")
    monkeypatch.setenv("APPROVAL_DEADLINE", "1")

    paid(reserved(session, "999.99"), "999.99").expects(delivery.ShipOrder).replies().ends(Status.COMPLETED)


# ---- under faults ---------------------------------------------------------------------------------


def each_thing_once(run: Run[ProcessOrderState]) -> Iterator[str]:
    """The customer is told how it ends, once, and nothing twice."""
    if not run.status.ended:
        return
    messages = told(run.database.rows.get("published", []))
    yield from (f"{message!r} was told {n} times" for message, n in Counter(messages).items() if n > 1)
    told_so = SHIPPED in messages
    if told_so is not (run.status is Status.COMPLETED):
        yield f"it is {run.status.value}, and the customer was told {messages}"
    progress = (RECEIVED[:8], RESERVED, WAITING, APPROVED, PAID, SHIPPED, REFUNDED)
    endings = [message for message in messages if not message.startswith(progress)]
    if len(endings) != (run.status is Status.COMPENSATED):
        yield f"it is {run.status.value}, and the customer was told why: {endings}"


def under_faults(total: str, approval: Approval = YES) -> Simulation[ProcessOrderState]:
    return Simulation(ProcessOrderSaga, an_order(total), examples=[approval], promises=[each_thing_once])


@pytest.mark.parametrize("total", ["10.00", "1000.00"])
@pytest.mark.timeout(600)
def test_whichever_fault_there_is_an_order_is_shipped_or_leaves_nothing(total: str) -> None:
    assert under_faults(total).exhaust(1).schedules > 150


@pytest.mark.parametrize(("total", "approval"), [("10.00", YES), ("1000.00", YES), ("1000.00", NO)])
@pytest.mark.timeout(600)
def test_whatever_fails_an_order_is_shipped_or_leaves_nothing(total: str, approval: Approval) -> None:
    under_faults(total, approval).check(RUNS)


def test_a_cancel_before_the_first_step_is_told_too() -> None:
    run = under_faults("10.00").replay({}, meanwhile={0.0: lambda run: run.operator(Act.CANCEL)})

    assert run.status is Status.COMPENSATED
    assert told(run.database.rows["published"])[-1] == "Order was cancelled."
