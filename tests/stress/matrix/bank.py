"""The accounting service once more, as if cards were authorized by somebody else's system.

That system is a table that is written in transactions of its own. As payment providers do, it takes
an idempotency key; that is all that it has in common with the inbox.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Final

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

import accounting_service
from accounting_service.models import Authorization, AuthorizationStatus
from app_common.magic import CARD_LIMIT
from app_common.messaging.accounting_service_messaging import (
    AuthorizeCard,
    CardAuthorized,
    InsufficientBalance,
    ReverseAuthorization,
)
from app_common.messaging.accounting_service_messaging import accounting_service as service
from app_common.settings import service_settings
from sagas_framework import Context, Participant, Undo, participant_app

LEASE_VARIABLE: Final = "MATRIX_LEASE"
"""Seconds for which a claim holds; the handler's process is killed after half of them."""

settings = service_settings("accounting_service")
participant = Participant(
    service,
    database=settings.database,
    migrations=Path(accounting_service.__file__).parent / "migrations",
    lease=timedelta(seconds=float(os.environ.get(LEASE_VARIABLE, "900"))),
)


@participant.handles(AuthorizeCard, outside=True)
def authorize_card(command: AuthorizeCard, context: Context) -> CardAuthorized:
    """Ask the other system, under the operation's key."""
    if command.amount >= CARD_LIMIT:
        raise InsufficientBalance("Card authorization failed. Insufficient balance")
    with Session(participant.engine) as theirs, theirs.begin():
        theirs.execute(select(func.pg_advisory_xact_lock(func.hashtext(context.key))))
        known = select(Authorization).where(Authorization.operation_key == context.key)
        authorization = theirs.scalars(known).one_or_none()
        if authorization is None:
            authorization = Authorization(
                operation_key=context.key,
                card_id=command.card_id,
                amount=command.amount,
                status=AuthorizationStatus.AUTHORIZED,
            )
            theirs.add(authorization)
            theirs.flush()
        return CardAuthorized(transaction_id=authorization.id)


@participant.undoes(ReverseAuthorization)
def reverse_authorization(command: ReverseAuthorization, undo: Undo[AuthorizeCard]) -> None:
    """Nothing happens for a key that the other system does not know."""
    with Session(participant.engine) as theirs, theirs.begin():
        theirs.execute(select(func.pg_advisory_xact_lock(func.hashtext(undo.key))))
        theirs.execute(
            update(Authorization)
            .where(Authorization.operation_key == undo.key)
            .values(status=AuthorizationStatus.REVERSED)
        )


app = participant_app(participant, broker=settings.celery_broker)
