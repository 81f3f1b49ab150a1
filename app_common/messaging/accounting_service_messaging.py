"""What the accounting service is asked: to authorize an amount on a card, or to charge a customer.

Either can be taken back. And what it tells: that a customer has money back.
"""

from typing import Annotated

from pydantic import Field

from app_common.money import Amount
from app_common.texts import Name, OrderId
from sagas_framework import Command, Compensation, Event, Failure, Reply, Service

accounting_service = Service("accounting_service")


class InsufficientBalance(Failure):
    """The card's issuer does not authorize the amount."""


class CardAuthorized(Reply):
    """The amount is set aside on the card."""

    transaction_id: int = Field(examples=[11])


class AuthorizeCard(
    Command[CardAuthorized], service=accounting_service, name="authorize_card", failures=[InsufficientBalance]
):
    """Set the amount aside on the card."""

    card_id: int = Field(examples=[23])
    amount: Amount = Field(examples=["42.50"])


class ReverseAuthorization(
    Compensation[AuthorizeCard], service=accounting_service, name="reverse_authorization"
):
    """Let go of the amount. `transaction_id` is None when `AuthorizeCard` was never answered."""

    transaction_id: int | None = Field(examples=[11])


class PaymentDeclined(Failure):
    """The payment provider does not charge the customer."""


class CustomerCharged(Reply):
    """The customer has paid."""

    charge_id: int = Field(examples=[31])


class Charge(Command[CustomerCharged], service=accounting_service, name="charge", failures=[PaymentDeclined]):
    """Have the customer pay the amount."""

    order_id: OrderId
    customer: Annotated[Name, Field(examples=["Riley"])]
    amount: Amount = Field(examples=["1299.00"])


class Refund(Compensation[Charge], service=accounting_service, name="refund"):
    """Give the money back. `charge_id` is None when `Charge` was never answered."""

    charge_id: int | None = Field(examples=[31])


class PaymentRefunded(Event, service=accounting_service, name="payment_refunded"):
    """The customer has the money back that was paid for the order."""

    order_id: OrderId
    amount: Amount = Field(examples=["1299.00"])
