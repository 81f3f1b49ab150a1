"""One child for all questions about schemas."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sagas_framework.contracts.containing import Containing


@pytest.fixture(scope="session")
def containing() -> Iterator[Containing]:
    with Containing() as one:
        yield one
