"""What this service does when it is asked."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import IntegrityError

from app_common.magic import LOWEST_CORRECT_CONSUMER_ID
from app_common.messaging.consumer_service_messaging import (
    IncorrectConsumerId,
    VerifyConsumerDetails,
    consumer_service,
)
from app_common.settings import service_settings
from consumer_service.models import Consumer
from sagas_framework import Context, Participant

settings = service_settings("consumer_service")
participant = Participant(
    consumer_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(VerifyConsumerDetails, loads=lambda command: (Consumer, command.consumer_id))
def verify_consumer_details(command: VerifyConsumerDetails, context: Context) -> None:
    """Say whether the consumer may order, and remember those who may.

    That somebody is a correct consumer stays true when the order fails, so the saga has nothing to
    undo here.

    Raises:
        IncorrectConsumerId: the id is below the lowest correct one.
    """
    if command.consumer_id < LOWEST_CORRECT_CONSUMER_ID:
        raise IncorrectConsumerId(f"Consumer has incorrect id = {command.consumer_id}")
    if context.session.get(Consumer, command.consumer_id) is None:
        # Two first orders of one consumer may race for the row; it does not matter whose it is.
        with suppress(IntegrityError), context.session.begin_nested():
            context.session.add(Consumer(id=command.consumer_id))
