"""What comparing documents offers: what is here may be relied on."""

from __future__ import annotations

from sagas_framework import contracts


def test_the_public_names_are_these() -> None:
    assert contracts.__all__ == [
        "CannotCompare",
        "Change",
        "Compared",
        "Document",
        "Effect",
        "Report",
        "Tools",
        "compare",
        "document",
        "read",
        "tools",
    ]
