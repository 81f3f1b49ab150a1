"""Shipments, and whether anything is shipped now."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import JSON, CheckConstraint, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app_common.columns import Moment, one_of
from app_common.texts import LONGEST_NAME


class Base(DeclarativeBase):
    pass


class ShipmentStatus(StrEnum):
    SHIPPED = "SHIPPED"
    CANCELLED = "CANCELLED"


class Shipment(Base):
    """Items on their way. `operation_key` says which step of which saga asked for it."""

    __tablename__ = "shipments"

    id: Mapped[int] = mapped_column(primary_key=True)
    operation_key: Mapped[str] = mapped_column(String(36), unique=True)
    order_id: Mapped[str] = mapped_column(String(100))
    customer: Mapped[str] = mapped_column(String(LONGEST_NAME))
    items: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    status: Mapped[ShipmentStatus] = mapped_column(one_of(ShipmentStatus))
    at: Mapped[datetime] = mapped_column(Moment)


class Maintenance(Base):
    """The one row that says whether the service is in maintenance mode, and who switched it last."""

    __tablename__ = "maintenance"
    __table_args__ = (CheckConstraint("id = 1", name="one_maintenance"),)

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    active: Mapped[bool]
    by: Mapped[str | None] = mapped_column(String(LONGEST_NAME))
    at: Mapped[datetime | None] = mapped_column(Moment)
