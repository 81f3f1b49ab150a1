"""What this service does when somebody is told something."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy.orm import Session

from app_common.messaging.notification_service_messaging import notification_service
from app_common.settings import service_settings
from notification_service import notifications
from sagas_framework import Participant

settings = service_settings("notification_service")
participant = Participant(
    notification_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


def customer_told(session: Session, event_id: str, order_id: str, message: str, at: datetime) -> None:
    """Keep what the customer of an order was told. The same event is kept once, however often it comes."""
    notifications.keep(session, event_id, order_id, message, at)
