"""The library's public names: what is here may be relied on, and what is added or gone is noticed."""

from __future__ import annotations

import sagas_framework

PUBLIC = [
    "NOTHING_TO_UNDO",
    "Act",
    "Checkup",
    "Command",
    "Compensation",
    "ConfigurationError",
    "Context",
    "DefinitionError",
    "EmbeddedWorkers",
    "Failure",
    "Filter",
    "HistoryLine",
    "KeyConflict",
    "Message",
    "Migration",
    "NotMovable",
    "Outcome",
    "OutcomeKind",
    "Participant",
    "Plan",
    "Policy",
    "Queue",
    "QueueType",
    "RedisInbox",
    "Reply",
    "Retry",
    "Saga",
    "SagaCompensated",
    "SagaInstance",
    "SagaNotEnded",
    "SagaPage",
    "SagaRun",
    "Sagas",
    "SagasError",
    "SchemaOutdated",
    "Service",
    "Status",
    "Steps",
    "Unavailable",
    "Undo",
    "UnknownRun",
    "UnknownSaga",
    "WireProtocol",
    "check_orchestrator",
    "check_participant",
    "make_engine",
    "orchestrator_app",
    "participant_app",
    "reading",
    "undo_task",
]


def test_the_public_names_are_these() -> None:
    assert sagas_framework.__all__ == PUBLIC


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in PUBLIC:
        assert getattr(sagas_framework, name).__doc__, name
