"""The restaurant service once more, with commands handled in batches."""

from __future__ import annotations

from restaurant_service.handlers import participant, settings
from sagas_framework import participant_app

app = participant_app(participant, broker=settings.celery_broker, batch=200)

__all__ = ["app", "participant"]
