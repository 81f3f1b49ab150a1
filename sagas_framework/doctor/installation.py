"""What is examined: one side of a service, with the settings that its workers really run with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from celery import Celery
from kombu import Queue as KombuQueue
from kombu.transport import base as kombu_transports

from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue, QueueType
from sagas_framework.participant import Participant
from sagas_framework.sagas import Sagas
from sagas_framework.steps import CommandStep
from sagas_framework.storage.database import Database
from sagas_framework.transport.connecting import connect, is_amqp

ORCHESTRATOR: Final = "orchestrator"
PARTICIPANT: Final = "participant"


@dataclass(frozen=True)
class Started:
    """How a worker was started: its command line wins over its settings.

    Args:
        pool: ``solo``, ``prefork``, ...
        node: its name, ``order@box``.
        processes: of its pool.
        prefetch: the multiplier.
        time_limit: seconds, None for none.
    """

    pool: str
    node: str
    processes: int
    prefetch: int
    time_limit: float | None


@dataclass(frozen=True)
class Installation:
    """One side of a service: its sagas, or its participant.

    Args:
        app: whose settings its workers have; None if it was not found.
        worker: the module to name in commands, as in ``celery -A``.
        started: None when nothing is started: then what the settings alone say counts.
        beside: the participant of the same program, whose retention the sagas' policy can be held against.
    """

    worker: str
    sagas: Sagas | None = None
    participant: Participant | None = None
    app: Celery | None = None
    started: Started | None = None
    beside: Participant | None = None

    @property
    def kind(self) -> str:
        return PARTICIPANT if self.sagas is None else ORCHESTRATOR

    @property
    def service(self) -> str:
        if self.sagas is not None:
            return self.sagas.service
        assert self.participant is not None
        return self.participant.service.name

    @property
    def database(self) -> Database | None:
        """The service's database; None where the inbox is elsewhere."""
        side = self.sagas or self.participant
        assert side is not None
        return side.database

    @property
    def clock(self) -> Callable[[], datetime]:
        """The clock that its workers go by."""
        side = self.sagas or self.participant
        assert side is not None
        return side.clock

    @property
    def conf(self) -> Any:
        """The settings of the Celery app, which must be there."""
        assert self.app is not None
        return self.app.conf

    @property
    def broker(self) -> str:
        """The address from which its workers consume."""
        return address_of(self.conf.broker_read_url)

    @property
    def on_amqp(self) -> bool:
        """Whether that is RabbitMQ. An address that cannot be read is told elsewhere."""
        try:
            return is_amqp(connect(self.broker))
        except ConfigurationError:
            return False

    @property
    def pool(self) -> str:
        """The name of the pool: ``solo``, ``prefork``, ..."""
        if self.started:
            return self.started.pool
        return str(self.conf.worker_pool).partition(":")[0].rpartition(".")[2]

    @property
    def batched(self) -> bool:
        """Whether its commands are taken in batches, by a thread beside the pool."""
        return self.kind == PARTICIPANT and getattr(self.app, "participant_batch", None) is not None

    @property
    def prefetch(self) -> int:
        """Messages taken ahead by each process; 0 for as many as there are."""
        return self.started.prefetch if self.started else int(self.conf.worker_prefetch_multiplier or 0)

    @property
    def consumed(self) -> list[Queue]:
        """The queues of ours from which its workers take."""
        if self.sagas is not None:
            return [self.sagas.reply_queue]
        assert self.participant is not None
        return [self.participant.service.queue]

    @property
    def contracts(self) -> list[Queue]:
        """Every queue that its contracts name, each once."""
        sent = [] if self.sagas is None else self.sagas.definitions.queues
        return list(dict.fromkeys([*sent, *self.consumed, *self.events]))

    @property
    def events(self) -> list[Queue]:
        """The queue of its events, if the same workers handle those."""
        subscriber = getattr(self.app, "subscriber", None)
        return [] if subscriber is None else [subscriber.queue]

    @property
    def celery_queues(self) -> dict[str, KombuQueue]:
        """The queues as Celery declares them, by name."""
        assert self.app is not None
        return dict(self.app.amqp.queues)

    @property
    def command_steps(self) -> dict[str, CommandStep[Any]]:
        """The steps of its sagas that send commands, by ``saga.step``."""
        definitions = () if self.sagas is None else self.sagas.definitions
        return {
            f"{definition.name}.{step.name}": step
            for definition in definitions
            for step in definition.steps
            if isinstance(step, CommandStep)
        }

    @property
    def uses_quorum_queues(self) -> bool:
        return any(queue.type is QueueType.QUORUM for queue in self.contracts)


def address_of(url: Any) -> str:
    """A broker's address as one text; Celery takes lists, too."""
    return ";".join(url) if isinstance(url, list | tuple) else str(url)


def declared_arguments(queue: KombuQueue) -> dict[str, Any]:
    """The arguments with which Celery declares the queue on RabbitMQ."""
    names = ("expires", "message_ttl", "max_length", "max_length_bytes", "max_priority")
    options = {name: getattr(queue, name) for name in names}
    prepare: Any = kombu_transports.to_rabbitmq_queue_arguments  # type: ignore[attr-defined]
    return dict(prepare(dict(queue.queue_arguments or {}), **options))


def listed(names: Iterable[object]) -> str:
    """``a, b and c``."""
    told = [str(name) for name in names]
    return " and ".join([", ".join(told[:-1]), told[-1]]) if len(told) > 1 else "".join(told)
