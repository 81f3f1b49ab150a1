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
    KeyConflict,
    SagaNotEnded,
    SagasError,
    SchemaOutdated,
    Unavailable,
    UnknownRun,
    UnknownSaga,
)

# Changing
from sagas_framework.evolution import NotMovable, Plan

# Watching
from sagas_framework.health import Checkup, check_orchestrator, check_participant
from sagas_framework.messages import (
    Command,
    Compensation,
    Message,
    Queue,
    QueueType,
    Reply,
    Service,
    WireProtocol,
)
from sagas_framework.migration import Migration

# Serving
from sagas_framework.participant import Context, Participant, Undo
from sagas_framework.saga import NOTHING_TO_UNDO, Retry, Saga, Steps, undo_task

# Starting
from sagas_framework.sagas import SagaPage, SagaRun, Sagas
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.ports import Filter, HistoryLine
from sagas_framework.storage.redis_inbox import RedisInbox

# Running
from sagas_framework.worker.embedded import EmbeddedWorkers
from sagas_framework.worker.orchestrating import SagaCompensated, orchestrator_app
from sagas_framework.worker.participating import participant_app

__all__ = [
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
