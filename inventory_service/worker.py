"""The worker: ``celery -A inventory_service.worker worker -n inventory@%h``."""

from app_common.telemetry import trace_worker
from inventory_service.handlers import participant, settings
from sagas_framework import participant_app

app = participant_app(participant, broker=settings.celery_broker, batch=settings.command_batch)
trace_worker(app)

__all__ = ["app", "participant"]
