"""What this service says to others, as AsyncAPI: ``python -m restaurant_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from restaurant_service.handlers import participant, settings
from sagas_framework.asyncapi import Specification

specification = Specification(
    "restaurant_service",
    title="Restaurant service",
    version="1.0.0",
    description="Knows the kitchens: opens, approves and rejects their tickets.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    receives=participant,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
