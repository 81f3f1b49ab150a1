"""What this service says to others, as AsyncAPI: ``python -m inventory_service.asyncapi_specification``."""

from app_common.specifications import CONTACT, LICENSE
from inventory_service.handlers import participant, settings
from sagas_framework.asyncapi import Specification

specification = Specification(
    "inventory_service",
    title="Inventory service",
    version="1.0.0",
    description="Keeps the stock: sets items aside for orders, and puts them back.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    receives=participant,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
