"""What customers pay and are given back, and whether the books agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import BigInteger, ColumnElement, Integer, cast, func, select, type_coerce
from sqlalchemy.orm import InstrumentedAttribute, Session

from accounting_service.models import ChargeRow, ProviderPayment, RefundRow
from accounting_service.provider import Declined, Provider
from app_common.messaging.accounting_service_messaging import PaymentDeclined, PaymentRefunded
from sagas_framework import publish


def charge(
    session: Session,
    provider: Provider,
    key: str,
    *,
    order_id: str,
    customer: str,
    amount: Decimal,
    at: datetime,
) -> ChargeRow:
    """Have the customer pay.

    Args:
        key: of the operation, and the provider's idempotency key: the same for every attempt.

    Raises:
        PaymentDeclined: the provider does not charge the customer.
    """
    try:
        provider.charge(key, customer, amount)
    except Declined as declined:
        raise PaymentDeclined(str(declined)) from None
    row = ChargeRow(operation_key=key, order_id=order_id, customer=customer, amount=amount, at=at)
    session.add(row)
    return row


def refund(session: Session, provider: Provider, key: str, *, at: datetime) -> None:
    """Give back what was paid by the operation, and tell of it: both, or neither."""
    provider.refund(key)
    paid = session.scalars(select(ChargeRow).where(ChargeRow.operation_key == key)).one()
    session.add(RefundRow(charge_id=paid.id, amount=paid.amount, at=at))
    publish(PaymentRefunded(order_id=paid.order_id, amount=paid.amount), session)


@dataclass(frozen=True)
class Books:
    """Money, summed up over all that ever happened.

    Args:
        charged: by this service's rows.
        refunded: of that.
        provider_kept: what the provider took and did not give back, by its own books.
        charged_twice: orders that paid more than once and were not given back all but one of it.
    """

    charged: Decimal
    refunded: Decimal
    provider_kept: Decimal
    charged_twice: Sequence[str]

    @property
    def kept(self) -> Decimal:
        """What completed orders have paid."""
        return self.charged - self.refunded

    @property
    def agree(self) -> bool:
        """Whether the provider has taken what this service believes, and from nobody twice."""
        return self.kept == self.provider_kept and not self.charged_twice


def books(session: Session) -> Books:
    """What the rows say, read in one snapshot if the session's transaction has one."""
    kept = (
        select(ChargeRow.order_id)
        .outerjoin(RefundRow, RefundRow.charge_id == ChargeRow.id)
        .where(RefundRow.charge_id.is_(None))
        .group_by(ChargeRow.order_id)
        .having(func.count() > 1)
        .order_by(ChargeRow.order_id)
    )
    provider = _sum(session, ProviderPayment.amount) - _sum(session, ProviderPayment.refunded)
    return Books(
        charged=_sum(session, ChargeRow.amount),
        refunded=_sum(session, RefundRow.amount),
        provider_kept=provider,
        charged_twice=session.scalars(kept).all(),
    )


def _sum(session: Session, column: InstrumentedAttribute[Decimal]) -> Decimal:
    # In whole cents: SQLite keeps amounts as text and would add them up as floats.
    cents: ColumnElement[int] = cast(func.round(type_coerce(column, Integer) * 100), BigInteger)
    total = session.scalar(select(func.coalesce(func.sum(cents), 0)))
    return Decimal(int(total or 0)).scaleb(-2)
