"""Which services the measured saga has to do with; the order platform has more."""

from __future__ import annotations

from typing import Final

PARTICIPANTS: Final = ("consumer_service", "restaurant_service", "accounting_service")
SERVICES: Final = ("order_service", *PARTICIPANTS)
