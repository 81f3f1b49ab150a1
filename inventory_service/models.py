"""The stock, and what of it is reserved."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import CheckConstraint, ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from app_common.columns import one_of
from app_common.texts import LONGEST_NAME


class Base(DeclarativeBase):
    pass


class ReservationStatus(StrEnum):
    RESERVED = "RESERVED"
    RELEASED = "RELEASED"


class StockRow(Base):
    """How many of an item are there to be ordered, and how many ever came in.

    What came in is there, or in a reservation that was kept.
    """

    __tablename__ = "stock"
    __table_args__ = (CheckConstraint("available >= 0", name="stock_never_negative"),)

    item: Mapped[str] = mapped_column(String(LONGEST_NAME), primary_key=True)
    available: Mapped[int]
    received: Mapped[int]


class Reservation(Base):
    """Items set aside for an order. `operation_key` says which step of which saga asked for them."""

    __tablename__ = "reservations"

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_key: Mapped[str] = mapped_column(String(36), unique=True)
    order_id: Mapped[str] = mapped_column(String(100))
    status: Mapped[ReservationStatus] = mapped_column(one_of(ReservationStatus))
    lines: Mapped[list[ReservedLine]] = relationship(order_by="ReservedLine.item")


class ReservedLine(Base):
    """An item of a reservation and how many of it."""

    __tablename__ = "reservation_lines"

    reservation_id: Mapped[int] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    item: Mapped[str] = mapped_column(ForeignKey("stock.item"), primary_key=True)
    quantity: Mapped[int]
