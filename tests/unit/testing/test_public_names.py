"""What users import from `sagas_framework.testing`, pinned."""

from __future__ import annotations

from sagas_framework import testing


def test_the_public_names_are_these() -> None:
    assert testing.__all__ == [
        "ALWAYS",
        "AT_THE_END",
        "POLICY",
        "BrokenPromise",
        "Choices",
        "Expected",
        "Explored",
        "Invariant",
        "Provider",
        "Run",
        "Scenario",
        "Schedule",
        "Scripted",
        "Settling",
        "Simulation",
        "Sown",
        "View",
        "example",
        "scenario",
    ]
    assert all(hasattr(testing, name) for name in testing.__all__)
