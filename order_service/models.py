"""Orders, each with items of its own."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import JSON, ForeignKey, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app_common.columns import Moment, one_of
from app_common.money import Money
from app_common.texts import LONGEST_NAME


class Base(DeclarativeBase):
    pass


class OrderStatus(StrEnum):
    """PENDING_VALIDATION is the semantic lock: a saga is still deciding about the order."""

    PENDING_VALIDATION = "pending_validation"
    APPROVED = "approved"
    REJECTED = "rejected"


class Order(Base):
    """What a consumer wants. Its ticket and transaction are noted when the saga ends.

    An order that was posted with an idempotency key has it for good, with the digest of what was posted and
    the id of its saga: the answer stays the same when the saga has gone to the archive.
    """

    __tablename__ = "orders"
    __table_args__ = (Index("orders_idempotency_key", "idempotency_key", unique=True),)

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[OrderStatus] = mapped_column(one_of(OrderStatus), default=OrderStatus.PENDING_VALIDATION)
    consumer_id: Mapped[int]
    card_id: Mapped[int]
    price: Mapped[Decimal] = mapped_column(Money)
    restaurant_ticket_id: Mapped[int | None]
    transaction_id: Mapped[int | None]
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    saga_id: Mapped[str | None] = mapped_column(String(36))
    items: Mapped[list[OrderItem]] = relationship(order_by="OrderItem.id")


class OrderItem(Base):
    """A dish and how many of it."""

    __tablename__ = "order_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    quantity: Mapped[int]


class ProcessingOrder(Base):
    """An order of items from the stock. How it stands, its saga knows, whose key is the order's id.

    `saga_id` is that of the answer to whoever comes with the idempotency key again.
    """

    __tablename__ = "processing_orders"
    __table_args__ = (Index("processing_orders_idempotency_key", "idempotency_key", unique=True),)

    id: Mapped[str] = mapped_column(String(100), primary_key=True)
    customer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    items: Mapped[list[str]] = mapped_column(JSON)
    total: Mapped[Decimal] = mapped_column(Money)
    taken_at: Mapped[datetime] = mapped_column(Moment)
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    request_digest: Mapped[str | None] = mapped_column(String(64))
    saga_id: Mapped[str | None] = mapped_column(String(36))
