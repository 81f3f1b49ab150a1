"""Sagas on Celery, RabbitMQ and PostgreSQL: business transactions that always end, completed or undone."""

# Declaring
from sagas_framework.core.events import Act, Policy

# Looking
from sagas_framework.core.instance import Outcome, OutcomeKind, SagaInstance, Status

# Errors
from sagas_framework.errors import (
    ConfigurationError,
    DefinitionError,
    Failure,
    InvalidSignal,
    KeyConflict,
    SagaNotEnded,
    SagasError,
    SchemaOutdated,
    SignalConflict,
    Unavailable,
    UnknownRun,
    UnknownSaga,
    UnknownSignal,
)

# Telling
from sagas_framework.events import Event

# Changing
from sagas_framework.evolution import NotMovable, Plan

# Watching
from sagas_framework.health import Checkup, check_orchestrator, check_participant, check_subscriber
from sagas_framework.messages import (
    Command,
    Compensation,
    Message,
    Queue,
    QueueType,
    Reply,
    Service,
    Signal,
    WireProtocol,
)
from sagas_framework.migration import Migration

# Serving
from sagas_framework.outbox import publish
from sagas_framework.participant import Context, Later, Participant, Undo
from sagas_framework.retention import Retention
from sagas_framework.saga import Saga, Steps, undo_task

# Starting
from sagas_framework.sagas import SagaPage, SagaRun, Sagas
from sagas_framework.steps import (
    COMPENSATE,
    GO_ON,
    NO_DEADLINE,
    NOTHING_TO_UNDO,
    Retry,
    on,
)
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.ports import Became, Filter, HistoryLine, SignalRow
from sagas_framework.storage.redis_inbox import RedisInbox
from sagas_framework.subscriber import EventContext, Subscriber

# Tracing
from sagas_framework.telemetry import disable_telemetry, enable_telemetry

# Running
from sagas_framework.worker.embedded import EmbeddedWorkers
from sagas_framework.worker.orchestrating import SagaCompensated, orchestrator_app
from sagas_framework.worker.participating import participant_app
from sagas_framework.worker.subscribing import subscriber_app

__all__ = [
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
