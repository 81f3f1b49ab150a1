"""What is authorized on cards."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum

from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import one_of
from app_common.money import Money


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
