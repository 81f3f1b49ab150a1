"""The notification service once more, with a handler that fails now and then, and a short lease.

It writes down what it is told without looking whether it was told that before.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final

import notification_service
from app_common.messaging.notification_service_messaging import notification_service as service
from app_common.messaging.order_service_messaging import CustomerTold
from app_common.settings import service_settings
from notification_service.models import Audience, Notification
from sagas_framework import EventContext, Retry, Subscriber, subscriber_app

LEASE: Final = timedelta(seconds=4)

settings = service_settings("notification_service")
subscriber = Subscriber(
    service,
    database=settings.database,
    migrations=Path(notification_service.__file__).parent / "migrations",
    retry=Retry(10, pause=timedelta(milliseconds=200)),
    lease=LEASE,
)


@subscriber.subscribes(CustomerTold)
def customer_told(event: CustomerTold, context: EventContext) -> None:
    """Note it; what ends in a 7 not at once."""
    context.session.add(
        Notification(
            event_id=context.event_id,
            audience=Audience.CUSTOMERS,
            order_id=event.order_id,
            message=event.message,
            at=context.at,
        )
    )
    if context.attempt == 1 and event.order_id.endswith("7"):
        context.session.flush()
        raise ConnectionResetError("the first attempt fails, as things do")


app = subscriber_app(subscriber, broker=settings.celery_broker)

__all__ = ["app", "subscriber"]
