"""The participant as ordinary Celery tasks.

``celery -A restaurant_service.worker worker -n restaurant@%h`` runs one.
"""

from __future__ import annotations

import json
import logging
import time
from datetime import datetime, timedelta
from typing import Any, Final

from celery import Celery, bootsteps
from celery.exceptions import Reject

from sagas_framework.doctor.examining import refuse_unsound
from sagas_framework.participant import CLOCK_SKEW, Participant
from sagas_framework.points import Point, reach
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.transport.envelope import OPERATION_ID, WireMessage
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher, Receipt
from sagas_framework.worker.loops import Pulse, worker_name
from sagas_framework.worker.replaying import send_again
from sagas_framework.worker.replies import wire_message
from sagas_framework.worker.settings import PlainConsumer, celery_app, hardened
from sagas_framework.worker.starting import (
    broker_need,
    check_pool,
    database_need,
    installation,
    or_exit,
    wait_for,
)

logger = logging.getLogger(__name__)

_BEAT: Final = 2.0
_REQUEUE_PAUSE: Final = 1.0
_FORGET_EVERY: Final = timedelta(minutes=1)
_MARGIN: Final = timedelta(seconds=30)
"""By how much a pool process is killed before the lease on its work ends."""


def participant_app(participant: Participant, *, broker: str, prefetch: int = 1) -> Celery:
    """A Celery app whose workers serve this participant: prefork or solo pool.

    (The threads pool hangs after RabbitMQ was restarted.)

    Raises:
        DefinitionError: a command has a compensation that no function here undoes.
    """
    participant.check()
    queue = participant.service.queue
    limit = max(participant.lease - CLOCK_SKEW - _MARGIN, participant.lease / 2)
    settings = hardened([queue], prefetch=prefetch, time_limit=limit.total_seconds()) | {
        "task_default_queue": queue.name,
        "task_default_routing_key": queue.name,
        "worker_consumer": "sagas_framework.worker.participating:ParticipantConsumer",
    }
    app = celery_app(participant.service.name, broker, settings)
    server = _Server(participant, broker)
    app.participant = participant  # type: ignore[attr-defined]
    app.participant_server = server  # type: ignore[attr-defined]
    for name in participant.tasks:
        _register(app, name, server)
    app.steps["worker"].add(ReadinessStep)
    app.steps["consumer"].add(ParticipantBeat)
    return app


def _register(app: Celery, name: str, server: _Server) -> None:
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        request = self.request
        headers = {name: value for name, value in vars(request).items() if name.startswith("saga_")}
        headers |= {
            "task": name,
            "id": request.id,
            "root_id": request.root_id,
            "parent_id": request.parent_id,
        }
        properties = {
            "reply_to": request.reply_to,
            "content_type": "application/json",
            "content_encoding": "utf-8",
        }
        body = json.dumps([args, kwargs, None]).encode()
        server.serve(WireMessage(server.queue, headers, properties, body))

    # shared=False: otherwise every other app of the process would have the task as well.
    app.task(bind=True, name=name, shared=False)(run)


class _Server:
    """What a task does: hand the message to the participant, send the reply."""

    def __init__(self, participant: Participant, broker: str) -> None:
        self.participant = participant
        self.broker = broker
        self.queue = participant.service.queue.name
        self.publisher: Publisher = make_publisher(broker, [participant.service.queue])

    def serve(self, message: WireMessage) -> None:
        """Handle one message.

        Raises:
            Reject: the message could not even be set aside; it comes again.
        """
        try:
            reply = self.participant.receive(message)
        except StoreUnavailable as error:
            time.sleep(_REQUEUE_PAUSE)  # it comes again at once
            raise Reject(str(error), requeue=True) from error
        if reply is None:
            return
        (receipt,) = self.publisher.publish([reply])
        reach(Point.COMMAND_ANSWERED)
        if receipt is not Receipt.CONFIRMED:
            # The row has it: the command is sent again, and answered from there.
            logger.warning(
                "the reply to %s is %s on %s", message.headers.get("task"), receipt.value, reply.queue
            )


class ParticipantConsumer(PlainConsumer):
    """Celery's consumer, but what Celery would drop is answered or set aside."""

    def create_task_handler(self, *args: Any, **options: Any) -> Any:
        handle = super().create_task_handler(*args, **options)
        connection: Any = self.connection
        broken: tuple[type[Exception], ...] = connection.connection_errors + connection.channel_errors

        def guarded(message: Any) -> None:
            try:
                handle(message)
            except broken:
                raise
            except Exception as error:
                # A body that is JSON but no task's would end the worker, and the next one, and so on.
                self._aside(message, f"not a task message of Celery's protocol 2: {error}")

        return guarded

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._aside(message, "not a Celery task message: its headers name no task")

    def on_unknown_task(self, body: Any, message: Any, exc: Any) -> None:
        if OPERATION_ID in (message.headers or {}):
            # It came from a saga, which waits for an answer: refused, and the refusal is kept (rule 4).
            self._settle(message, self._server.serve)
        else:
            known = ", ".join(sorted(self._server.participant.tasks))
            self._aside(message, f"no task {message.headers.get('task')!r} here; there are: {known}")

    def on_invalid_task(self, body: Any, message: Any, exc: Any) -> None:
        self._aside(message, f"not a task message of Celery's protocol 2: {exc}")

    def on_decode_error(self, message: Any, exc: Any) -> None:
        self._aside(message, f"the body cannot be read: {exc}")

    @property
    def _server(self) -> _Server:
        app: Any = self.app
        server: _Server = app.participant_server
        return server

    def _aside(self, message: Any, why: str) -> None:
        self._settle(message, lambda wire: self._server.participant.set_aside(wire, why))

    def _settle(self, message: Any, act: Any) -> None:
        try:
            act(wire_message(self._server.queue, message))
        except (StoreUnavailable, Reject):
            logger.warning("the database is away: a message that cannot be handled waits in its queue")
            time.sleep(_REQUEUE_PAUSE)  # it comes again at once
            message.requeue()
        else:
            message.ack()


class ReadinessStep(bootsteps.StartStopStep):
    """Takes nothing from the queue before database, schema and broker are there."""

    def start(self, parent: Any) -> None:
        participant: Participant = parent.app.participant
        needs = [] if participant.database is None else [database_need(participant.database)]
        with or_exit():
            starting = installation(parent)
            check_pool(starting)
            wait_for(
                [*needs, broker_need(parent.app.conf.broker_url)],
                stopping=getattr(parent.app, "saga_stopping", None),
            )
            refuse_unsound(starting)

    def stop(self, parent: Any) -> None:
        parent.app.participant_server.publisher.close()


class ParticipantBeat(bootsteps.StartStopStep):
    """From within the consumer's own loop: says that it turns, and sends what somebody wants replayed."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._forgot_at: datetime | None = None

    def start(self, parent: Any) -> None:
        server: _Server = parent.app.participant_server
        inbox = server.participant.inbox
        pulse = Pulse("participant", worker_name(server.participant.service.name), inbox.beat)

        def beat() -> None:
            try:
                pulse.turned()
                self._forget(server.participant)
                inbox.replay(lambda messages: send_again(server.publisher, messages))
            except StoreUnavailable as error:
                logger.warning("the inbox is away: %s", str(error).partition("\n")[0])

        self._timer = parent.timer.call_repeatedly(_BEAT, beat)

    def _forget(self, participant: Participant) -> None:
        """Delete some inbox rows past their retention: few at a time, so that the consumer hardly waits."""
        now = participant.clock()
        if self._forgot_at is None or now - self._forgot_at >= _FORGET_EVERY:
            self._forgot_at = now
            participant.inbox.forget(now - participant.retention)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
