"""The orchestrator: ``celery -A order_service.worker worker -n order@%h --pool solo``."""

from app_common.telemetry import trace_worker
from order_service.orchestrator import sagas, settings
from sagas_framework import orchestrator_app

app = orchestrator_app(sagas, broker=settings.celery_broker, result_backend=settings.result_backend)
trace_worker(app, orchestrator=True)

__all__ = ["app", "sagas"]
