"""Money is a `Decimal` from the order to the card: in messages (`Amount`) and in tables (`Money`)."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from sqlalchemy import Dialect, Numeric, String
from sqlalchemy.types import TypeDecorator, TypeEngine
from typing_extensions import override

CENT = Decimal("0.01")


def _no_float(value: object) -> object:
    if isinstance(value, float):
        raise ValueError(f'a float cannot hold every cent: write it as a string, "{value:.2f}"')
    return value


# The bounds come first, so that they are those of the number also in its JSON schema.
Amount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2), BeforeValidator(_no_float)]


def _as_written(value: object) -> object:
    """A JSON number as the decimal that was written: up to 15 digits a float tells each apart."""
    return Decimal(repr(value)) if isinstance(value, float) else value


WrittenAmount = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2), BeforeValidator(_as_written)]
"""An amount in a request: a decimal string, or a JSON number."""


def written(amount: Decimal) -> str:
    """An amount as everybody reads it: ``1180.00``, which is how orders and settings write it, too.

    Nothing parts the thousands: what does so here stands for the point elsewhere.
    """
    return f"{amount:.2f}"


class Money(TypeDecorator[Decimal]):
    """A column for amounts: NUMERIC(12, 2), but text on SQLite, which would make a float of it."""

    impl = Numeric(12, 2)
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(String(13) if dialect.name == "sqlite" else Numeric(12, 2))

    @override
    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        exact = value.quantize(CENT)
        return str(exact) if dialect.name == "sqlite" else exact

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)
