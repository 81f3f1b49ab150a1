"""What this service says to others: ``python -m notification_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from notification_service.handlers import settings, subscriber
from sagas_framework.asyncapi import Specification

specification = Specification(
    "notification_service",
    title="Notification service",
    version="1.0.0",
    description="Keeps what customers were told, and shows it.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    subscribes=subscriber,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
