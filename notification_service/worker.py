"""The worker: ``celery -A notification_service.worker worker -n notification@%h --pool solo``."""

from app_common.telemetry import trace_worker
from notification_service.handlers import settings, subscriber
from sagas_framework import subscriber_app

app = subscriber_app(subscriber, broker=settings.celery_broker)
trace_worker(app)

__all__ = ["app", "subscriber"]
