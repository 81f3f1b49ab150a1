"""The sagas of this service and where they are kept. The web starts them, the worker runs them."""

from __future__ import annotations

from pathlib import Path

from app_common.settings import archive_settings, service_settings
from order_service.sagas.create_order import CreateOrderSaga
from order_service.sagas.process_order import ProcessOrderSaga
from sagas_framework import Queue, Retention, Sagas

settings = service_settings("order_service")
archive = archive_settings()
sagas = Sagas(
    "order_service",
    settings.database,
    sagas=[CreateOrderSaga, ProcessOrderSaga],
    reply_queue=Queue("create_order_saga_responses"),
    migrations=Path(__file__).parent / "migrations",
    retention=Retention(archive.keep),
    archive=archive.folder,
)
