"""What this service does when it is asked."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from accounting_service.models import Authorization, AuthorizationStatus
from app_common.magic import CARD_LIMIT
from app_common.messaging.accounting_service_messaging import (
    AuthorizeCard,
    CardAuthorized,
    InsufficientBalance,
    ReverseAuthorization,
    accounting_service,
)
from app_common.settings import service_settings
from sagas_framework import Context, Participant, Undo

settings = service_settings("accounting_service")
participant = Participant(
    accounting_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(AuthorizeCard)
def authorize_card(command: AuthorizeCard, context: Context) -> CardAuthorized:
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
    context.session.flush()  # the database gives the id
    return CardAuthorized(transaction_id=authorization.id)


@participant.undoes(ReverseAuthorization)
def reverse_authorization(command: ReverseAuthorization, undo: Undo[AuthorizeCard]) -> None:
    """Let go of the amount that the operation set aside."""
    found = select(Authorization).where(Authorization.operation_key == undo.key)
    undo.session.scalars(found).one().status = AuthorizationStatus.REVERSED
