"""The library's public names: what is here may be relied on, and what is added or gone is noticed."""

from __future__ import annotations

import sagas_framework

PUBLIC = [
    "COMPENSATE",
    "GO_ON",
    "NOTHING_TO_UNDO",
    "NO_DEADLINE",
    "Act",
    "Became",
    "Checkup",
    "Command",
    "Compensation",
    "ConfigurationError",
    "Context",
    "DefinitionError",
    "EmbeddedWorkers",
    "Event",
    "EventContext",
    "Failure",
    "Filter",
    "HistoryLine",
    "InvalidSignal",
    "KeyConflict",
    "Later",
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
    "Retention",
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
    "Signal",
    "SignalConflict",
    "SignalRow",
    "Status",
    "Steps",
    "Subscriber",
    "Unavailable",
    "Undo",
    "UnknownRun",
    "UnknownSaga",
    "UnknownSignal",
    "WireProtocol",
    "check_orchestrator",
    "check_participant",
    "check_subscriber",
    "disable_telemetry",
    "enable_telemetry",
    "make_engine",
    "on",
    "orchestrator_app",
    "participant_app",
    "publish",
    "reading",
    "subscriber_app",
    "undo_task",
]


def test_the_public_names_are_these() -> None:
    assert sagas_framework.__all__ == PUBLIC


def test_every_public_name_is_there_and_says_what_it_is() -> None:
    for name in PUBLIC:
        assert getattr(sagas_framework, name).__doc__, name
