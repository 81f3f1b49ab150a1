"""The documents that all these tests are about."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from app_common.specifications import specifications
from sagas_framework.asyncapi import Specification


@pytest.fixture(scope="session")
def published() -> dict[str, Specification]:
    """What each service publishes of itself, by its name."""
    return {specification.service: specification for specification in specifications()}


@pytest.fixture
def documents(published: dict[str, Specification]) -> dict[str, dict[str, Any]]:
    """The document of each service, by its name: a copy that a test may change."""
    return {service: deepcopy(specification.document) for service, specification in published.items()}
