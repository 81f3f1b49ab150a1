"""The worker: ``celery -A notification_service.worker worker -n notification@%h --pool solo``."""

from notification_service.handlers import settings, subscriber
from sagas_framework import subscriber_app

app = subscriber_app(subscriber, broker=settings.celery_broker)

__all__ = ["app", "subscriber"]
