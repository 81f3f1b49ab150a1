"""What this service says to others, as AsyncAPI: ``python -m delivery_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from delivery_service.handlers import participant, settings
from sagas_framework.asyncapi import Specification

specification = Specification(
    "delivery_service",
    title="Delivery service",
    version="1.0.0",
    description="Ships orders, unless it is in maintenance, and calls shipments back.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    receives=participant,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
