"""A publisher for orchestrators whose sagas send nothing."""

from __future__ import annotations

from collections.abc import Sequence

from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt


class Nowhere:
    """Says so if something is sent all the same."""

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        raise AssertionError(f"nothing should be sent: {messages}")

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...
