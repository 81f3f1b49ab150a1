"""The consumers that were found to be correct."""

from __future__ import annotations

from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Consumer(Base):
    """Somebody we deliver to."""

    __tablename__ = "consumers"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
