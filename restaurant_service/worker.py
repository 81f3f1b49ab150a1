"""The worker: ``celery -A restaurant_service.worker worker -n restaurant@%h``."""

from app_common.telemetry import trace_worker
from restaurant_service.handlers import participant, settings
from sagas_framework import participant_app

app = participant_app(participant, broker=settings.celery_broker, batch=settings.command_batch)
trace_worker(app)

__all__ = ["app", "participant"]
