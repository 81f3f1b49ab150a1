"""The orchestrator as a Celery worker: ``celery -A order_service.worker worker --pool solo``."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, Final

from celery import Celery, bootsteps
from celery.backends.base import DisabledBackend

from sagas_framework.archiving import Archivist
from sagas_framework.clock import utc_now
from sagas_framework.core.evolving import carried_on, differences, outline
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.doctor.examining import refuse_unsound
from sagas_framework.errors import ConfigurationError, SagasError, UnknownSaga
from sagas_framework.evolution import TIMEKEEPER, declared_word
from sagas_framework.gauges import RowGauges
from sagas_framework.messages import Queue, QueueType
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.saga import SagaDefinition
from sagas_framework.sagas import Sagas
from sagas_framework.storage.declarations import (
    fields_of,
    note_declarations,
    read_open,
    read_outlines,
    read_states,
)
from sagas_framework.storage.engine import reading
from sagas_framework.storage.reads import open_shapes
from sagas_framework.storage.sql import SqlStore
from sagas_framework.subscriber import Subscriber
from sagas_framework.telemetry import active
from sagas_framework.timekeeper import Timekeeper
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher
from sagas_framework.view import summary
from sagas_framework.worker.batches import check_queue
from sagas_framework.worker.loops import Loop, Pulse, worker_name
from sagas_framework.worker.relaying import add_relay
from sagas_framework.worker.replaying import send_again
from sagas_framework.worker.replies import ReplyConsumer
from sagas_framework.worker.settings import celery_app, hardened
from sagas_framework.worker.starting import (
    broker_need,
    check_pool,
    collect_seldom,
    database_need,
    installation,
    or_exit,
    wait_for,
)
from sagas_framework.worker.subscribing import add_subscriber
from sagas_framework.worker.waking import Alarm

logger = logging.getLogger(__name__)

_LONGEST_SLEEP: Final = timedelta(seconds=1)
"""Acts and new rows are found within this even if every nudge is lost."""
_SHORTEST_SLEEP: Final = timedelta(milliseconds=50)
_GRACE: Final = timedelta(seconds=15)
_ARCHIVE_EVERY: Final = 60.0  # seconds, when nothing is left to take
_ARCHIVE_PAUSE: Final = 0.02


class SagaCompensated(SagasError):
    """What ``AsyncResult(saga_id).get()`` raises for a saga that was undone; the message says why."""


def orchestrator_app(
    sagas: Sagas, *, broker: str, result_backend: str | None = None, subscriber: Subscriber | None = None
) -> Celery:
    """A Celery app whose workers run these sagas.

    Its workers need the solo pool: threads beside a forking pool deadlock. Any number may run.

    Args:
        result_backend: where the outcome of every saga is stored as a Celery result, too, as a
            courtesy after the commit; the row is the truth.
        subscriber: the events that the service subscribes to, to be handled by the same workers.
    """
    own = Queue(f"{sagas.service}.tasks", QueueType.CLASSIC)  # for tasks that the team may add
    settings = hardened([own]) | {
        "task_default_queue": own.name,
        "task_default_routing_key": own.name,
        "worker_pool": "solo",
    }
    app = celery_app(sagas.service, broker, settings, result_backend=result_backend)
    app.steps["worker"].add(OrchestratorStep)
    add_relay(app, lambda: sagas.engine, after=OrchestratorStep)
    add_subscriber(app, subscriber)
    app.sagas = sagas  # type: ignore[attr-defined]
    return app


class OrchestratorStep(bootsteps.StartStopStep):
    """Waits for the servers, then turns the reply consumer and the timekeeper in threads."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._loops: list[Loop] = []
        self._alarm: Alarm | None = None
        self._over = threading.Event()
        self._publishers: list[Publisher] = []
        self._unwatch: Callable[[], None] = lambda: None

    def start(self, parent: Any) -> None:
        app: Any = parent.app
        sagas: Sagas = app.sagas
        broker = app.conf.broker_url
        with or_exit():
            starting = installation(parent)
            check_pool(starting)
            wait_for(
                [database_need(sagas.database), broker_need(broker)],
                stopping=getattr(app, "saga_stopping", None),
            )
            check_queue(broker, sagas.reply_queue)
            check_declarations(sagas)
            refuse_unsound(starting)
        collect_seldom(parent)
        self._begin(app, sagas, broker)

    def _begin(self, app: Any, sagas: Sagas, broker: str) -> None:
        store = SqlStore(sagas.engine)
        queues = [*sagas.definitions.queues, sagas.reply_queue]
        publisher = make_publisher(broker, queues)
        orchestrator = Orchestrator(
            store,
            sagas.definitions,
            publisher,
            reply_to=sagas.reply_queue.name,
            policy=sagas.policy,
            clock=sagas.clock,
            on_ended=None if isinstance(app.backend, DisabledBackend) else _Results(app),
        )
        timekeeper = Timekeeper(
            orchestrator,
            [queue.name for queue in sagas.definitions.queues],
            resend=lambda messages: send_again(publisher, messages),
        )
        worker = worker_name(sagas.service)
        self._publishers = [publisher]
        alarm = self._alarm = Alarm(sagas.database, sagas.woken, lambda: app.relay_woken.set())
        pulse = Pulse(TIMEKEEPER, worker, store.beat)
        # Read by whoever moves instances to a version that this worker may not know.
        declares = ", ".join(declared_word(name, version) for name, version in sagas.definitions.known())

        def keep_time() -> None:
            due = timekeeper.turn()
            pulse.turned(declares)
            alarm.sleep(_until(due))

        consumer = ReplyConsumer(
            broker,
            sagas.reply_queue,
            orchestrator,
            say=lambda saga, key, signal, payload, its_id: sagas.signal(
                saga, (signal, payload), key=key, id=its_id
            ),
            turned=Pulse("consumer", worker, store.beat).turned,
        )
        archivist = Archivist(sagas)
        over = self._over = threading.Event()

        def keep_house() -> None:
            begun = time.monotonic()
            gone = archivist.turn()
            # At most a fifth of the time, and not in one piece: the others' turns come first.
            over.wait(max(4 * (time.monotonic() - begun), _ARCHIVE_PAUSE) if gone.more else _ARCHIVE_EVERY)

        self._loops = [
            Loop("timekeeper", keep_time, cleanup=alarm.close),
            Loop("reply consumer", consumer.turn, cleanup=consumer.close),
        ]
        if any(kept.keep is not None for kept in sagas.retentions.values()):
            self._loops.append(Loop("archivist", keep_house, cleanup=archivist.close))
        if (telemetry := active()) is not None:
            self._unwatch = telemetry.watch(RowGauges(sagas))
        for loop in self._loops:
            loop.start()
        logger.info(
            "orchestrating %s", ", ".join(f"{name} v{version}" for name, version in sagas.definitions.known())
        )

    def stop(self, parent: Any) -> None:
        self._unwatch()
        self._unwatch = lambda: None
        for loop in self._loops:
            loop.stop()
        self._over.set()
        if self._alarm is not None:
            self._alarm.ring()
        for loop in self._loops:
            if not loop.join(_GRACE):
                logger.warning("the %s did not end within %.0f s", loop.name, _GRACE.total_seconds())
        for publisher in self._publishers:
            publisher.close()
        self._loops, self._publishers = [], []

    terminate = stop


def check_declarations(sagas: Sagas) -> None:
    """See that every open instance can be carried on as it was started, and note what is declared now.

    Raises:
        ConfigurationError: the steps of a saga were changed under the same version, or its state so that
            it cannot read that of an instance.
    """
    with reading(sagas.engine) as connection:
        shapes = open_shapes(connection)
        noted, states = read_outlines(connection), read_states(connection)
    for (name, version, shape), count in shapes.items():
        try:
            definition = sagas.definitions.get(name, version)
        except UnknownSaga as unknown:
            logger.error("%d open sagas are carried on by nobody here: %s", count, unknown)
            continue
        if definition.shape != shape:
            was = noted.get((name, version, shape))
            changed = "; ".join(differences(was, outline(definition))) if was is not None else ""
            raise ConfigurationError(
                f"{count} open sagas {name!r} version {version} were started with other steps than are "
                f"declared now{changed and f' ({changed})'}. Give the changed class version={version + 1}, "
                "and keep the old beside it until they have ended, or declare a migration. "
                f"`saga -A {sagas.service}.worker plan` says what each of them needs."
            )
        if states.get((name, version, shape)) != fields_of(definition.state):
            _check_states(sagas, definition)
    with sagas.engine.begin() as connection:
        note_declarations(connection, sagas.definitions, sagas.clock())


def _check_states(sagas: Sagas, definition: SagaDefinition) -> None:
    """Read the state of every open instance: a model that cannot would fail each of them at its next step."""
    troubles: dict[str, list[str]] = {}
    with (
        reading(sagas.engine) as connection,
        closing(read_open(connection, definition.name, definition.version)) as instances,
    ):
        for instance in instances:
            for why in carried_on(instance, definition).missing:
                troubles.setdefault(why, []).append(instance.key)
    for why, keys in troubles.items():
        raise ConfigurationError(
            f"{len(keys)} open sagas {definition.name!r} version {definition.version}, like {keys[0]!r}, "
            f"cannot go on: {why}."
        )


def _until(due: datetime | None) -> timedelta:
    if due is None:
        return _LONGEST_SLEEP
    # Never nothing: what is due may be locked by another worker, and looking again at once finds the same.
    return min(max(due - utc_now(), _SHORTEST_SLEEP), _LONGEST_SLEEP)


class _Results:
    """Stores outcomes as Celery results: ``AsyncResult(saga_id).get()`` for those who have only Celery."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self, ended: Sequence[SagaInstance]) -> None:
        for instance in ended:
            if instance.status is Status.COMPLETED:
                result: Any = summary(instance) | {"state": dict(instance.state)}
                self._app.backend.store_result(instance.id, result, "SUCCESS")
            else:
                outcome = instance.outcome
                why = (
                    f"{outcome.kind.value}: {outcome.name} {outcome.message}"
                    if outcome
                    else instance.status.value
                )
                self._app.backend.store_result(instance.id, SagaCompensated(why), "FAILURE")
