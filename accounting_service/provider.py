"""A payment provider: somebody else, who knows payments by the keys that he was given for them.

The one here is imitated. It keeps its books in the service's own database and in the same transaction as
the handler that asks, which spares the demo a server. Of a real one a handler is told before its transaction
commits, so with a real one it is registered as ``outside=True`` and takes no batches; nothing else changes,
because the provider is asked with a key and is asked nothing that it has not answered before.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Protocol

from sqlalchemy.orm import Session

from accounting_service.models import ProviderPayment
from app_common.magic import DECLINED_CUSTOMER
from app_common.money import written


class Declined(Exception):
    """The provider does not charge the customer, and has noted nothing."""


class Provider(Protocol):
    """What is asked of a payment provider."""

    def charge(self, key: str, customer: str, amount: Decimal) -> None:
        """Have the customer pay; whatever was asked with this key before is answered as it was.

        Raises:
            Declined: the customer is not charged.
            ValueError: the key was used for another payment.
        """

    def refund(self, key: str) -> None:
        """Give back what was paid under the key, once; nothing if the key is not known."""


class ImitatedProvider:
    """The one of the demo: its books are a table, so that what it was asked can be counted."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def charge(self, key: str, customer: str, amount: Decimal) -> None:
        if customer.strip().casefold() == DECLINED_CUSTOMER.casefold():
            raise Declined(f"The payment of {written(amount)} by {customer} was declined")
        payment = self._session.get(ProviderPayment, key)
        if payment is None:
            payment = ProviderPayment(
                idempotency_key=key, customer=customer, amount=amount, refunded=Decimal(0), requests=0
            )
            self._session.add(payment)
        elif (payment.customer, payment.amount) != (customer, amount):
            raise ValueError(f"the key {key} was used for another payment")
        payment.requests += 1

    def refund(self, key: str) -> None:
        payment = self._session.get(ProviderPayment, key)
        if payment is not None:
            payment.refunded = payment.amount
