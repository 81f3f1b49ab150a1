"""What customers were told."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import Moment


class Base(DeclarativeBase):
    pass


class Notification(Base):
    """A message about an order. `event_id` says which event it came with: each is kept once."""

    __tablename__ = "notifications"
    __table_args__ = (
        Index("notifications_newest", "at", "id"),
        Index("notifications_of_order", "order_id", "at", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[str] = mapped_column(String(64), unique=True)
    order_id: Mapped[str] = mapped_column(String(100))
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Moment)
