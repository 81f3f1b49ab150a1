"""What the services of the platform know and no saga of it asks for yet."""

from __future__ import annotations

from typing import Final

NO_SAGA: Final = (
    "accounting_service.charge",
    "accounting_service.refund",
    "delivery_service.",
    "inventory_service.",  # also what it tells: only orders that reserve bring that about
    "order_service.customer_told",
)
"""Beginnings of the names of messages."""

SERVICES: Final = ("inventory_service", "delivery_service")
"""Services that no saga asks for anything yet."""


def unasked(name: str) -> bool:
    """Whether no saga of the platform sends this message, or is answered with it."""
    return name.startswith(NO_SAGA)
