"""What is authorized on cards, and what customers were charged and given back."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import Moment, one_of
from app_common.money import Money
from app_common.texts import LONGEST_NAME


class Base(DeclarativeBase):
    pass


class AuthorizationStatus(StrEnum):
    AUTHORIZED = "AUTHORIZED"
    REVERSED = "REVERSED"


class Authorization(Base):
    """An amount set aside on a card. `operation_key` says which step of which saga asked for it."""

    __tablename__ = "authorizations"

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_key: Mapped[str] = mapped_column(String(36), unique=True)
    card_id: Mapped[int]
    amount: Mapped[Decimal] = mapped_column(Money)
    status: Mapped[AuthorizationStatus] = mapped_column(one_of(AuthorizationStatus))


class ChargeRow(Base):
    """What a customer paid for an order. `operation_key` says which step of which saga asked for it."""

    __tablename__ = "charges"

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_key: Mapped[str] = mapped_column(String(36), unique=True)
    order_id: Mapped[str] = mapped_column(String(100), index=True)
    customer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    amount: Mapped[Decimal] = mapped_column(Money)
    at: Mapped[datetime] = mapped_column(Moment)


class RefundRow(Base):
    """What was given back of a charge: all of it, once."""

    __tablename__ = "refunds"

    charge_id: Mapped[int] = mapped_column(ForeignKey("charges.id"), primary_key=True, autoincrement=False)
    amount: Mapped[Decimal] = mapped_column(Money)
    at: Mapped[datetime] = mapped_column(Moment)


class ProviderPayment(Base):
    """A payment in the books of the imitated provider, which knows nothing of sagas and orders.

    `requests` counts how often it was asked for: with the same key a customer pays once.
    """

    __tablename__ = "provider_payments"

    idempotency_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    customer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    amount: Mapped[Decimal] = mapped_column(Money)
    refunded: Mapped[Decimal] = mapped_column(Money)
    requests: Mapped[int]
