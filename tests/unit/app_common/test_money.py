"""Amounts, as everybody reads them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from app_common.money import written


@pytest.mark.parametrize(
    ("amount", "reads"),
    [("1180", "1180.00"), ("1.18E+3", "1180.00"), ("0.1", "0.10"), ("0", "0.00"), ("9999999999.99",) * 2],
)
def test_an_amount_is_written_with_its_cents_and_nothing_between_the_thousands(
    amount: str, reads: str
) -> None:
    assert written(Decimal(amount)) == reads
