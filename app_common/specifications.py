"""The AsyncAPI documents of the services, and what they say alike."""

from __future__ import annotations

import importlib
from typing import Final

from app_common.running import SERVICES
from sagas_framework.asyncapi import Contact, License, Specification

CONTACT: Final = Contact(
    name="Order platform team",
    url="https://example.com/order-platform",
    email="order-platform@example.com",
)
LICENSE: Final = License(name="MIT", url="https://opensource.org/license/mit")


def specification(service: str) -> Specification:
    """The service's specification, imported by name: what is shared knows no service when it is imported."""
    made: Specification = importlib.import_module(f"{service}.asyncapi_specification").specification
    return made


def specifications() -> list[Specification]:
    """Those of all services, the orchestrator's first."""
    return [specification(service) for service in SERVICES]
