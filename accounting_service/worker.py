"""The worker: ``celery -A accounting_service.worker worker -n accounting@%h``."""

from accounting_service.handlers import participant, settings
from app_common.telemetry import trace_worker
from sagas_framework import participant_app

app = participant_app(participant, broker=settings.celery_broker, batch=settings.command_batch)
trace_worker(app)

__all__ = ["app", "participant"]
