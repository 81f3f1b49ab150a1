"""What this service says to others, as AsyncAPI: ``python -m accounting_service.asyncapi_specification``."""

from accounting_service.handlers import participant, settings
from app_common.specifications import CONTACT, LICENSE
from sagas_framework.asyncapi import Specification

specification = Specification(
    "accounting_service",
    title="Accounting service",
    version="1.0.0",
    description="Sets amounts aside on cards and charges customers; lets go of either again.",
    contact=CONTACT,
    license=LICENSE,
    broker=settings.celery_broker,
    receives=participant,
)

if __name__ == "__main__":
    print(specification.yaml(), end="")
