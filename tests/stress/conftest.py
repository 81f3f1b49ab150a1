"""The fleet on servers found on this machine, in databases and a virtual host of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stress.fleet import Fleet


@pytest.fixture
def fleet(rabbitmq_url: str, postgres_url: str, tmp_path: Path) -> Iterator[Fleet]:
    """The order platform, nothing of it running yet."""
    fleet = Fleet(rabbitmq_url, postgres_url, tmp_path)
    yield fleet
    fleet.stop()
