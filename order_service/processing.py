"""Orders of items from the stock: taking one, looking at one, approving it. Its saga does all the rest."""

from __future__ import annotations

import hashlib
import re
import secrets
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app_common.money import CENT, WrittenAmount, written
from app_common.settings import approval_settings
from app_common.texts import Name, isolated
from order_service.models import ProcessingOrder
from order_service.once import KeyReused, digest_of, take_once
from order_service.orchestrator import sagas
from order_service.orders import SagaArchived, UnknownOrder
from order_service.sagas.process_order import (
    Approval,
    ProcessOrderSaga,
    ProcessOrderState,
    ending_in_words,
)
from sagas_framework import (
    Became,
    Filter,
    Outcome,
    OutcomeKind,
    SagaInstance,
    SagasError,
    SignalConflict,
    SignalRow,
    Status,
    reading,
)

DONE: Final = "Order processed successfully"
ANSWERED_WITHIN: Final = timedelta(seconds=2)
"""An orchestrator looks at a signal within a second."""
PAGE: Final = 50
"""Orders that wait, on a page."""

_LONGEST_BY: Final = 100
_SLUG: Final = 20
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_RANDOM: Final = 12
"""Characters: 62 bits, so that nobody guesses another one's order, and none comes twice."""


def _in_cents(amount: Decimal) -> Decimal:
    """One way to write each amount: 1299.0 is 1299.00, and minus nothing is nothing."""
    return abs(amount).quantize(CENT)


class NewProcessingOrder(BaseModel):
    """An order as it comes in. An item that is named twice is wanted twice."""

    model_config = ConfigDict(title="order", extra="forbid")

    customer: Name
    items: Annotated[list[Name], Field(min_length=1, max_length=100)]
    total: Annotated[WrittenAmount, AfterValidator(_in_cents)]


@dataclass(frozen=True)
class Taken:
    """The ids of an order that was taken and of the saga that processes it."""

    order_id: str
    saga_id: str


class NeedsNoApproval(Exception):
    """The order is processed without anybody's approval."""

    def __init__(self, order_id: str, state: ProcessOrderState) -> None:
        super().__init__(
            f"The order {order_id} needs no approval: its total of {written(state.total)} is below "
            f"{written(state.threshold)}"
        )


class DecidedAlready(Exception):
    """The approval comes too late: somebody has decided, or there is nothing to decide any more."""

    def __init__(self, order_id: str, why: str) -> None:
        super().__init__(f"The order {order_id} cannot be decided any more: {why}")


class DecisionKeyReused(Exception):
    """An idempotency key came again, with another decision about the order. Nothing was stored."""

    def __init__(self, key: str, order_id: str) -> None:
        super().__init__(
            f"The Idempotency-Key {key!r} was used for another decision about the order {order_id}"
        )


# ---- taking ---------------------------------------------------------------------------------------


def take(
    new: NewProcessingOrder,
    key: str | None = None,
    *,
    approve_within: timedelta | None = None,
    approval: Approval | None = None,
) -> Taken:
    """Take an order and start its saga. No step of it runs here.

    Args:
        key: an idempotency key, with which the order is taken once.
        approve_within: how long it waits for an approval; None: as long as the setting says.
        approval: said together with it, before its saga can ask.

    Raises:
        KeyReused: the key was used for another order.
        SagaArchived: an order that an older release has taken with the key; its saga's id was not noted.
    """
    return take_once(
        key, lambda used: _taken_with(used, new), lambda: _take(new, key, approve_within, approval)
    )


def counted(items: Iterable[str]) -> list[tuple[str, int]]:
    """Each item once, with how many of it are wanted."""
    return list(Counter(items).items())


def new_order_id(customer: str) -> str:
    """An id for an order of this customer: ``order_riley_o066i2m1xk3q``, whatever the name is made of."""
    plain = unicodedata.normalize("NFKD", customer).casefold()
    name = re.sub(r"[^a-z0-9]", "", plain)[:_SLUG] or "customer"
    return f"order_{name}_{''.join(secrets.choice(_LETTERS) for _ in range(_RANDOM))}"


def _take(
    new: NewProcessingOrder, key: str | None, approve_within: timedelta | None, approval: Approval | None
) -> Taken:
    now, settings = sagas.clock(), approval_settings()
    order = ProcessingOrder(
        id=new_order_id(new.customer),
        customer=new.customer,
        items=new.items,
        total=new.total,
        taken_at=now,
        idempotency_key=key,
        request_digest=None if key is None else digest_of(new),
    )
    state = ProcessOrderState(
        order_id=order.id,
        customer=new.customer,
        items=new.items,
        total=new.total,
        threshold=settings.threshold,
        approve_by=now + (settings.deadline if approve_within is None else approve_within),
    )
    with Session(sagas.engine) as session, session.begin():
        session.add(order)
        session.flush()  # the database refuses a key
        run = sagas.start(ProcessOrderSaga, state, key=order.id, session=session)
        if key is not None:
            order.saga_id = run.id
        if approval is not None:
            by = approval.approver[:_LONGEST_BY]
            sagas.signal(ProcessOrderSaga, approval, key=order.id, by=by, session=session)
        return Taken(order.id, run.id)


def _taken_with(key: str, new: NewProcessingOrder) -> Taken | None:
    """What the key was used for; None if for nothing yet.

    Raises:
        KeyReused: for another order.
        SagaArchived: its saga has gone, and its id was not noted.
    """
    table = ProcessingOrder
    query = select(table.id, table.request_digest, table.saga_id).where(table.idempotency_key == key)
    with reading(sagas.engine) as connection:
        first = connection.execute(query).one_or_none()
    if first is None:
        return None
    if first.request_digest != digest_of(new):
        raise KeyReused(key, first.id)
    return Taken(first.id, first.saga_id or _saga_of(first.id).id)


# ---- looking --------------------------------------------------------------------------------------


def describe(order_id: str) -> dict[str, Any]:
    """An order as plain JSON.

    Shape: ``id``, ``status`` (see `status_of`), ``created_time``, ``last_updated_time``, ``details`` (``id``,
    ``customer``, ``items``, ``total`` as a decimal string), ``approval`` (None if it needs none; else
    ``deadline``, ``waiting``, ``approver``), once it has ended ``order_result`` (``id``, ``success``,
    ``message``) or ``failure_details`` (``error_type``, ``message``, ``step``), and ``saga`` (``id``,
    ``status``, ``outcome``, ``why``).

    Raises:
        UnknownOrder: there is none with this id.
        SagaArchived: how it ended is not known here any more.
    """
    # The saga is read first: it is committed together with its order.
    views = sagas.page(_filter(order_id)).views
    if not views:
        raise _gone(order_id)
    view, saga = views[0], views[0].instance
    with reading(sagas.engine) as connection, Session(connection) as session:
        order = session.get_one(ProcessingOrder, order_id)
        details = _details(order)
        created = order.taken_at
    return {
        "id": order_id,
        "status": status_of(saga),
        "created_time": created.isoformat(),
        "last_updated_time": saga.updated_at.isoformat(),
        "details": details,
        "approval": _approval(saga),
        **_result(saga),
        "saga": {
            "id": saga.id,
            "status": saga.status.value,
            "outcome": saga.outcome and saga.outcome.to_json(),
            "why": None if saga.status.ended else view.why,
        },
    }


def status_of(saga: SagaInstance) -> str:
    """How the order stands, in one word.

    ``RUNNING``; ``SUSPENDED`` while a person must look; ``COMPLETED`` once it is decided whether it goes
    through, ``TERMINATED`` if somebody has called it off, ``FAILED`` if something went wrong.
    """
    if saga.status is Status.PARKED:
        return "SUSPENDED"
    if not saga.status.ended or saga.outcome is None:
        return "RUNNING"
    if saga.outcome.kind is OutcomeKind.CANCELLED:
        return "TERMINATED"
    return "COMPLETED" if saga.outcome.kind is OutcomeKind.OK or _decided(saga.outcome) else "FAILED"


def _decided(why: Outcome) -> bool:
    """Whether it is a "no" to this order, and not something that went wrong with it.

    A service that ships nothing at all just now says nothing about the order.
    """
    if why.kind is OutcomeKind.EXPIRED:
        return why.step == "approval"
    return why.kind is OutcomeKind.REFUSED and why.step != "ship_order"


def _result(saga: SagaInstance) -> dict[str, Any]:
    why = saga.outcome
    if not saga.status.ended or why is None:
        return {}
    success = why.kind is OutcomeKind.OK
    if status_of(saga) == "FAILED":
        return {
            "failure_details": {
                "error_type": why.name,
                "message": f"{saga.key}: {ending_in_words(why)}",
                "step": why.step,
            }
        }
    message = DONE if success else ending_in_words(why)
    return {"order_result": {"id": saga.key, "success": success, "message": message}}


def _approval(saga: SagaInstance) -> dict[str, Any] | None:
    state = ProcessOrderState.model_validate(dict(saga.state))
    if not state.needs_approval:
        return None
    record = saga.steps.get("approval")
    return {
        "deadline": _deadline(saga, state).isoformat(),
        "waiting": record is not None and record.phase == "waiting",
        "approver": state.approver,
    }


def _deadline(saga: SagaInstance, state: ProcessOrderState) -> datetime:
    """When an approval comes too late: as somebody has moved it, or as it was taken."""
    record = saga.steps.get("approval")
    return (record and record.deadline) or state.approve_by


def _details(order: ProcessingOrder) -> dict[str, Any]:
    return {
        "id": order.id,
        "customer": order.customer,
        "items": order.items,
        "total": written(order.total),
    }


@dataclass(frozen=True)
class Waiting:
    """Orders that wait for an approval, a page of them. `next`: for `waiting`; None if this is the last."""

    orders: Sequence[dict[str, Any]]
    next: str | None


def waiting(*, after: str | None = None) -> Waiting:
    """The orders that wait for an approval: those taken first, by their deadlines.

    Each as ``id``, ``customer``, ``items``, ``total``, ``created_time``, ``deadline``. That is the order of
    the deadlines, too; if somebody has moved one, or the setting, only within a page.

    Args:
        after: `next` of the page before.

    Raises:
        ValueError: it is none.
    """
    wanted = Filter(
        saga=ProcessOrderSaga.definition.name,
        waits_for="approval",
        open_only=True,
        after=after,
        limit=PAGE,
    )
    try:
        page = sagas.page(wanted)
    except SagasError:
        raise ValueError(f"{after!r} is not where a page ends") from None
    waits = {
        view.instance.key: deadline
        for view in page.views
        if (deadline := view.instance.steps["approval"].deadline) is not None  # None: it is parked there
    }
    with reading(sagas.engine) as connection, Session(connection) as session:
        found = session.scalars(select(ProcessingOrder).where(ProcessingOrder.id.in_(waits))).all()
        orders = [
            {
                **_details(order),
                "created_time": order.taken_at.isoformat(),
                "deadline": waits[order.id].astimezone(UTC).isoformat(),
            }
            for order in sorted(found, key=lambda order: (waits[order.id], order.id))
        ]
    return Waiting(orders, page.next)


# ---- approving ------------------------------------------------------------------------------------


def decide(order_id: str, approval: Approval, key: str | None = None) -> SignalRow:
    """Say an approver's yes or no; what became of it: taken, or kept until the saga asks for it.

    Args:
        key: an idempotency key: under the same one it is the same decision, and has the first answer.

    Raises:
        UnknownOrder: there is none with this id.
        SagaArchived: it has ended long ago.
        NeedsNoApproval: nobody is asked.
        DecidedAlready: somebody was quicker, or it is too late.
        DecisionKeyReused: the key was used for another decision about it.
    """
    said_id = None if key is None else hashlib.sha256(key.encode()).hexdigest()  # an id may be shorter
    saga = _saga_of(order_id)
    state = ProcessOrderState.model_validate(dict(saga.state))
    if not state.needs_approval:
        raise NeedsNoApproval(order_id, state)
    with Session(sagas.engine) as session, session.begin():
        # Whoever decides about the order waits here for each other, so that the second one sees the first,
        # also while the saga has not come to ask for an approval.
        row = select(ProcessingOrder).where(ProcessingOrder.id == order_id).with_for_update()
        session.scalars(row).one()
        said = decision_of(order_id)
        if said is not None and said.said_id != said_id:
            word = "approved" if said.payload["approved"] else "rejected"
            raise DecidedAlready(order_id, f"{isolated(said.payload['approver'])} has {word} it")
        if said is None and not saga.status.ended and sagas.clock() > (deadline := _deadline(saga, state)):
            # No orchestrator has looked at the clock yet; the deadline counts all the same.
            raise DecidedAlready(order_id, f"its deadline has passed, {deadline.astimezone(UTC).isoformat()}")
        try:
            stored = sagas.signal(
                ProcessOrderSaga,
                approval,
                key=order_id,
                id=said_id,
                by=approval.approver[:_LONGEST_BY],
                session=session,
            )
        except SignalConflict as error:  # it names the id, which nobody would know again
            assert key is not None
            raise DecisionKeyReused(key, order_id) from error
    answered = sagas.signal_answer(stored.id, within=ANSWERED_WITHIN)
    if answered.too_late:
        raise DecidedAlready(order_id, answered.answer or "it is too late")
    return answered


def decision_of(order_id: str) -> SignalRow | None:
    """The decision that counts, or will as soon as the saga asks for it; None if there is none yet."""
    said = sagas.signals(ProcessOrderSaga.definition.name, key=order_id)
    return next((row for row in said if row.became is not Became.TOO_LATE), None)


def _saga_of(order_id: str) -> SagaInstance:
    """The saga that processes the order.

    Raises:
        UnknownOrder: there is none.
        SagaArchived: it has ended long ago.
    """
    found = sagas.list(_filter(order_id))
    if not found:
        raise _gone(order_id)
    return found[0]


def _gone(order_id: str) -> UnknownOrder | SagaArchived:
    """What to say of an order without a saga: it was committed with one, which may go to the archive."""
    if re.fullmatch(r"\w+", order_id, re.ASCII) is None:  # it may hold what no database takes
        return UnknownOrder(order_id)
    query = select(ProcessingOrder.id).where(ProcessingOrder.id == order_id)
    with reading(sagas.engine) as connection:
        known = connection.execute(query).one_or_none() is not None
    return SagaArchived(order_id, order_id) if known else UnknownOrder(order_id)


def _filter(order_id: str) -> Filter:
    return Filter(saga=ProcessOrderSaga.definition.name, key=order_id)
