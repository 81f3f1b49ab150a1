"""What the accounting service is asked: to authorize an amount on a card, or to let go of it again."""

from pydantic import Field

from app_common.money import Amount
from sagas_framework import Command, Compensation, Failure, Reply, Service

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
