"""What customers were told, and what operators are to know."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import Moment, one_of


class Base(DeclarativeBase):
    pass


class Audience(StrEnum):
    """Whom a message is for."""

    CUSTOMERS = "customers"
    OPERATORS = "operators"


class Notification(Base):
    """A message: to a customer about an order, or to the operators about none.

    `event_id` says which event it came with: each is kept once.
    """

    __tablename__ = "notifications"
    __table_args__ = (
        Index("notifications_newest", "at", "id"),
        Index("notifications_of_order", "order_id", "at", "id"),
        Index("notifications_for", "audience", "at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(String(64), unique=True)
    audience: Mapped[Audience] = mapped_column(one_of(Audience))
    order_id: Mapped[str | None] = mapped_column(String(100))
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Moment)
