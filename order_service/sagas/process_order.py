"""Processing an order whose customer is told of every step, and which a person may have to approve."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Final

from pydantic import AwareDatetime, BaseModel, Field
from sqlalchemy.orm import Session

from app_common.messaging import accounting_service_messaging as accounting
from app_common.messaging import delivery_service_messaging as delivery
from app_common.messaging import inventory_service_messaging as inventory
from app_common.messaging.order_service_messaging import CustomerTold
from app_common.money import Amount, written
from app_common.settings import step_timeouts
from app_common.texts import Name, isolated
from sagas_framework import (
    NOTHING_TO_UNDO,
    Failure,
    Outcome,
    OutcomeKind,
    Saga,
    Signal,
    Steps,
    on,
    publish,
)

timeouts = step_timeouts()


class Approval(Signal, name="approval"):
    """An approver's yes or no."""

    approver: Name
    approved: bool


class Rejected(Failure):
    """The approver says no."""


class ProcessOrderState(BaseModel):
    """What the saga knows of its order.

    Threshold and deadline are those of the moment at which the order was taken: settings that change later
    change nothing for it.

    Args:
        threshold: an order of this total or more needs an approval.
        approve_by: when that comes too late.
        approver: who has approved.
        told: whether the customer knows why the order does not go through.
    """

    order_id: str
    customer: str
    items: list[str]
    total: Amount
    threshold: Amount
    approve_by: AwareDatetime = Field(examples=["2026-03-18T10:02:05Z"])
    approver: str | None = None
    reservation_id: int | None = None
    charge_id: int | None = None
    shipment_id: int | None = None
    told: bool = False

    @property
    def needs_approval(self) -> bool:
        return self.total >= self.threshold

    @property
    def stock_items(self) -> list[inventory.StockItem]:
        """Each item once, with how many of it."""
        return [
            inventory.StockItem(name=name, quantity=quantity)
            for name, quantity in Counter(self.items).items()
        ]


# ---- what the customer is told --------------------------------------------------------------------

_WENT_WRONG: Final = {
    "reserve_items": "Inventory failed for order",
    "charge": "Payment failed for order",
    "ship_order": "Error submitting order for shipping",
}


def ending_in_words(why: Outcome) -> str:
    """Why the order does not go through, as its customer is told."""
    if why.kind is OutcomeKind.CANCELLED:
        return "Order was cancelled."
    if why.step == "approval" and why.kind is OutcomeKind.REFUSED:
        return why.message
    if why.step == "approval" and why.kind is OutcomeKind.EXPIRED:
        return "Approval deadline expired."
    wrong = _WENT_WRONG.get(why.step, "Order could not be processed")
    if why.kind is OutcomeKind.REFUSED:
        return f"{wrong}: {why.message}"
    # What our own code or another service stumbled over is for the log, not for customers.
    return f"{wrong}: {'no answer in time' if why.kind is OutcomeKind.EXPIRED else 'a technical failure'}"


def _tell(state: ProcessOrderState, session: Session, message: str) -> None:
    publish(CustomerTold(order_id=state.order_id, message=message), session)


def _listed(state: ProcessOrderState) -> str:
    counted = Counter(state.items)
    return ", ".join(
        isolated(name) if number == 1 else f"{number} {isolated(name)}" for name, number in counted.items()
    )


def tell_received(state: ProcessOrderState, session: Session) -> None:
    told = f"Received order for {isolated(state.customer)}: {_listed(state)}. Total = {written(state.total)}"
    _tell(state, session, told)


def tell_reserved(state: ProcessOrderState, session: Session) -> None:
    """Tell what is reserved, and whether it now waits for an approval."""
    _tell(state, session, f"Reserved inventory for order: {_listed(state)}")
    if state.needs_approval:
        deadline = f"{state.approve_by.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
        _tell(
            state,
            session,
            f"Waiting for approval since order >= {written(state.threshold)}. Deadline = {deadline}.",
        )


def tell_paid(state: ProcessOrderState, session: Session) -> None:
    _tell(state, session, "Payment was processed successfully")


def tell_shipped(state: ProcessOrderState, session: Session) -> None:
    _tell(state, session, "Order submitted for shipping")


def tell_why(state: ProcessOrderState, session: Session, why: Outcome) -> None:
    """Tell the customer once why the order does not go through, as soon as the saga turns back."""
    if not state.told:
        _tell(state, session, ending_in_words(why))
        state.told = True


def tell_refunding(state: ProcessOrderState, session: Session, why: Outcome) -> None:
    """Tell that what was charged is being given back, before it is.

    That it was, the accounting service tells: it knows, also of a charge that was never answered.
    """
    tell_why(state, session, why)
    if state.charge_id is not None:
        _tell(state, session, "Payment is being refunded")


# ---- approval -------------------------------------------------------------------------------------


def needs_approval(state: ProcessOrderState) -> bool:
    return state.needs_approval


def approve_by(state: ProcessOrderState) -> datetime:
    return state.approve_by


def take_approval(state: ProcessOrderState, approval: Approval) -> None:
    """Note who has approved.

    Raises:
        Rejected: the approver says no.
    """
    if not approval.approved:
        raise Rejected(f"Order was rejected by {isolated(approval.approver)}.")
    state.approver = approval.approver


def tell_approved(state: ProcessOrderState, session: Session) -> None:
    if state.approver is not None:  # None: it needs no approval
        _tell(state, session, f"Order was approved by {isolated(state.approver)}.")


# ---- the other services ---------------------------------------------------------------------------


def reserve(state: ProcessOrderState) -> inventory.ReserveItems:
    return inventory.ReserveItems(order_id=state.order_id, items=state.stock_items)


def remember_reservation(state: ProcessOrderState, reply: inventory.ItemsReserved) -> None:
    state.reservation_id = reply.reservation_id


def release(state: ProcessOrderState) -> inventory.ReleaseItems:
    return inventory.ReleaseItems(reservation_id=state.reservation_id)


def charge_customer(state: ProcessOrderState) -> accounting.Charge:
    return accounting.Charge(order_id=state.order_id, customer=state.customer, amount=state.total)


def remember_charge(state: ProcessOrderState, reply: accounting.CustomerCharged) -> None:
    state.charge_id = reply.charge_id


def refund(state: ProcessOrderState) -> accounting.Refund:
    return accounting.Refund(charge_id=state.charge_id)


def ship(state: ProcessOrderState) -> delivery.ShipOrder:
    return delivery.ShipOrder(order_id=state.order_id, customer=state.customer, items=state.stock_items)


def remember_shipment(state: ProcessOrderState, reply: delivery.OrderShipped) -> None:
    state.shipment_id = reply.shipment_id


step = Steps(ProcessOrderState)


class ProcessOrderSaga(Saga[ProcessOrderState], name="process_order", version=1):
    """Reserve, have it approved if it is expensive, charge, ship; and tell the customer each time."""

    # The pivot is the shipping: a payment can be given back, a parcel on its way cannot. Nothing that was
    # told can be taken back; whichever local step is undone first tells why, in the moment of turning back.
    turn_down_order = step.local(compensation=tell_why)
    receive_order = step.local(tell_received, compensation=NOTHING_TO_UNDO)
    reserve_items = step.command(
        inventory.ReserveItems,
        reserve,
        on_success=remember_reservation,
        compensation=release,
        timeout=timeouts.inventory,
    )
    confirm_reservation = step.local(tell_reserved, compensation=tell_why)
    approval = step.wait(
        on(Approval, take_approval, failures=[Rejected]),
        deadline=approve_by,
        when=needs_approval,
    )
    approve_order = step.local(tell_approved, compensation=tell_why)
    charge = step.command(
        accounting.Charge,
        charge_customer,
        on_success=remember_charge,
        compensation=refund,
        timeout=timeouts.accounting,
    )
    confirm_payment = step.local(tell_paid, compensation=tell_refunding)
    ship_order = step.command(
        delivery.ShipOrder,
        ship,
        on_success=remember_shipment,
        pivot=True,
        timeout=timeouts.delivery,
    )
    complete_order = step.local(tell_shipped)
