"""What this service says to others, as AsyncAPI: ``python -m order_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from order_service.orchestrator import sagas, settings
from sagas_framework.asyncapi import Specification

specification = Specification(
    "order_service",
    title="Order service",
    # 2: it sends charge and refund, which an accounting service of the last release does not know.
    version="2.0.0",
    description="Takes orders, and runs the sagas that create and process them across the other services.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    sends=sagas,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
