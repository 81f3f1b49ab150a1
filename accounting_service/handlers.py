"""What this service does when it is asked."""

from __future__ import annotations

from pathlib import Path

from accounting_service import payments
from accounting_service.models import Authorization, AuthorizationStatus
from accounting_service.provider import ImitatedProvider
from app_common.magic import CARD_LIMIT
from app_common.messaging.accounting_service_messaging import (
    AuthorizeCard,
    CardAuthorized,
    Charge,
    CustomerCharged,
    InsufficientBalance,
    Refund,
    ReverseAuthorization,
    accounting_service,
)
from app_common.settings import service_settings
from sagas_framework import Context, Later, Participant, Undo

settings = service_settings("accounting_service")
participant = Participant(
    accounting_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(AuthorizeCard)
def authorize_card(command: AuthorizeCard, context: Context) -> Later[CardAuthorized]:
    """Set the amount aside on the card.

    Raises:
        InsufficientBalance: the amount reaches what any card is good for.
    """
    if command.amount >= CARD_LIMIT:
        raise InsufficientBalance("Card authorization failed. Insufficient balance")
    authorization = Authorization(
        operation_key=context.key,
        card_id=command.card_id,
        amount=command.amount,
        status=AuthorizationStatus.AUTHORIZED,
    )
    context.session.add(authorization)
    return lambda: CardAuthorized(transaction_id=authorization.id)  # the database gives the id


@participant.undoes(
    ReverseAuthorization,
    loads=lambda command: (Authorization, command.transaction_id),
)
def reverse_authorization(command: ReverseAuthorization, undo: Undo[AuthorizeCard]) -> None:
    """Let go of the amount that the operation set aside."""
    assert undo.reply is not None  # authorizing touches nothing outside the database
    authorization = undo.session.get_one(Authorization, undo.reply.transaction_id)
    authorization.status = AuthorizationStatus.REVERSED


@participant.handles(Charge)
def charge(command: Charge, context: Context) -> Later[CustomerCharged]:
    """Have the customer pay the amount.

    Raises:
        PaymentDeclined: the payment provider does not charge the customer.
    """
    row = payments.charge(
        context.session,
        ImitatedProvider(context.session),
        context.key,
        order_id=command.order_id,
        customer=command.customer,
        amount=command.amount,
        at=participant.clock(),
    )
    return lambda: CustomerCharged(charge_id=row.id)  # the database gives the id


@participant.undoes(Refund)
def refund(command: Refund, undo: Undo[Charge]) -> None:
    """Give the money back that the operation took."""
    payments.refund(undo.session, ImitatedProvider(undo.session), undo.key, at=participant.clock())
