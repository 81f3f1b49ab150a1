"""Celery's settings for money: each with the reason why the default will not do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from celery import Celery
from celery.worker.consumer import Consumer

from sagas_framework.messages import Queue
from sagas_framework.transport.connecting import kombu_queue

_Blueprint: Any = Consumer.Blueprint  # untyped in Celery


class PlainConsumer(Consumer):
    """Celery's consumer without native delayed delivery.

    That would put 28 queues and an exchange into the virtual host as soon as one queue is a quorum
    queue, for countdowns that nothing here uses: timers are rows.
    """

    class Blueprint(_Blueprint):  # type: ignore[misc]
        default_steps: ClassVar = [
            step for step in _Blueprint.default_steps if not step.endswith(":DelayedDelivery")
        ]


def hardened(
    queues: Iterable[Queue] = (), *, prefetch: int = 1, time_limit: float | None = None
) -> dict[str, Any]:
    """The settings that every worker of ours runs with.

    Args:
        queues: that the worker consumes.
        prefetch: commands taken ahead by each pool process.
        time_limit: seconds after which a pool process is killed; only the prefork pool can.
    """
    return {
        # JSON only: a pickle is code, and kombu's wrappers for dates and decimals are no JSON for others.
        "task_serializer": "json",
        "accept_content": ["json"],
        # Our rows are the state; results and chords would be a second one.
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # Acknowledged once the reply is out: a worker that dies has its messages delivered again.
        "task_acks_late": True,
        # A child that was killed: the message is dropped and sent again by the orchestrator. Requeued,
        # it would kill child after child without a pause (22 in 8 s when measured).
        "task_reject_on_worker_lost": False,
        "task_retry_on_worker_lost": False,
        "task_acks_on_failure": True,
        "task_acks_on_timeout": True,
        "task_time_limit": time_limit,
        # One: what waits behind a slow command in one process could run in another.
        "worker_prefetch_multiplier": prefetch,
        # The old copy would go on beside the one that is delivered again.
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        # Acks from a pool's thread after a reconnect would race the main thread's reads, and hang it.
        "worker_enable_prefetch_count_reduction": False,
        "task_queues": [kombu_queue(queue) for queue in queues],
        # A mistyped queue must be an error, not a new queue that nobody reads.
        "task_create_missing_queues": False,
        # Quorum queues know no global prefetch.
        "worker_detect_quorum_queues": True,
        "worker_consumer": "sagas_framework.worker.settings:PlainConsumer",
        # A broker that is away is waited for, at the start and later, for ever.
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 5,
        "broker_pool_acquire_timeout": 5,
        # Finds a broker that vanished without closing the connection.
        "broker_heartbeat": 30,
        # For tasks that a team sends itself: without confirms a publish may vanish unnoticed.
        "broker_transport_options": {"confirm_publish": True, "read_timeout": 10, "write_timeout": 10},
        # On SIGTERM with REMAP_SIGTERM=SIGQUIT: half a minute for what runs, then it is sent again.
        "worker_soft_shutdown_timeout": 30,
        "worker_enable_soft_shutdown_on_idle": True,
        # Monitoring events with confirms can deadlock the pool, and nobody listens.
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        # The service's own logging set-up stays.
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "timezone": "UTC",
        "enable_utc": True,
    }


def celery_app(
    name: str, broker: str, settings: dict[str, Any], *, result_backend: str | None = None
) -> Celery:
    """A Celery app of its own: it does not become the process's current one, so several can live together."""
    app = Celery(name, broker=broker, backend=result_backend, set_as_current=False)
    if broker.startswith("memory:"):
        settings = settings | {
            "broker_transport_options": {"polling_interval": 0.01},
            "worker_cancel_long_running_tasks_on_connection_loss": False,
        }
    app.conf.update(settings)
    return app
