"""The kitchen's tickets."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import one_of
from app_common.messaging.restaurant_service_messaging import OrderItem


class Base(DeclarativeBase):
    pass


class TicketStatus(StrEnum):
    """CREATE_PENDING is the semantic lock: the kitchen must not cook yet."""

    CREATE_PENDING = "CREATE_PENDING"
    APPROVED = "APPROVED"
    REJECTED = "REJECTED"


class Ticket(Base):
    """What the kitchen is to cook. `operation_key` says which step of which saga opened it."""

    __tablename__ = "tickets"

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_key: Mapped[str] = mapped_column(String(36), unique=True)
    order_id: Mapped[int]
    customer_id: Mapped[int]
    status: Mapped[TicketStatus] = mapped_column(one_of(TicketStatus))
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSON)

    @classmethod
    def open(cls, operation_key: str, order_id: int, customer_id: int, items: Iterable[OrderItem]) -> Ticket:
        return cls(
            operation_key=operation_key,
            order_id=order_id,
            customer_id=customer_id,
            status=TicketStatus.CREATE_PENDING,
            items=[item.to_json() for item in items],
        )

    def has(self, dish: str) -> bool:
        """Whether the dish is on the ticket."""
        return any(item["name"] == dish for item in self.items)
