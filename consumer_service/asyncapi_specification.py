"""What this service says to others, as AsyncAPI: ``python -m consumer_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from consumer_service.handlers import participant, settings
from sagas_framework.asyncapi import Specification

specification = Specification(
    "consumer_service",
    title="Consumer service",
    version="1.0.0",
    description="Knows the consumers, and says who may order.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    receives=participant,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
