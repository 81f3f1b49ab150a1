"""The participant as ordinary Celery tasks.

``celery -A restaurant_service.worker worker -n restaurant@%h`` runs one.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from celery import Celery, bootsteps
from celery.exceptions import Reject

from sagas_framework.doctor.examining import refuse_unsound
from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue, QueueType
from sagas_framework.participant import CLOCK_SKEW, Participant
from sagas_framework.points import Point, reach
from sagas_framework.storage.dropping import Gone
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.subscriber import Subscriber
from sagas_framework.telemetry import active, carried_by
from sagas_framework.transport.arrivals import wire_message
from sagas_framework.transport.envelope import OPERATION_ID, WireMessage
from sagas_framework.transport.generic import make_publisher
from sagas_framework.transport.publisher import Publisher, Receipt
from sagas_framework.worker.batches import BatchConsumer, check_queue
from sagas_framework.worker.loops import Loop, Pulse, worker_name
from sagas_framework.worker.relaying import ChildRelay, add_relay
from sagas_framework.worker.replaying import send_again
from sagas_framework.worker.settings import PlainConsumer, celery_app, hardened
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

logger = logging.getLogger(__name__)

_BEAT: Final = 2.0
_REQUEUE_PAUSE: Final = 1.0
_GRACE: Final = timedelta(seconds=30)
_LARGEST_BATCH: Final = 1000
"""PostgreSQL has room for 6,400 locks by default, and each command of a batch takes one."""
_TAKEN: Final = 20
"""Commands that are taken at once to be handled one by one: none waits long for the others' replies."""
_FORGET_EVERY: Final = timedelta(minutes=1)
_FORGET_FOR: Final = 0.05
"""Seconds of every beat that may go by with it; what has begun is ended."""
_MARGIN: Final = timedelta(seconds=30)
"""By how much a pool process is killed before the lease on its work ends."""


def participant_app(
    participant: Participant,
    *,
    broker: str,
    prefetch: int = 1,
    batch: int | None = None,
    subscriber: Subscriber | None = None,
) -> Celery:
    """A Celery app whose workers serve this participant: prefork or solo pool.

    (The threads pool hangs after RabbitMQ was restarted.)

    Args:
        prefetch: commands taken ahead by each pool process.
        batch: so many commands at most, as they have come, are handled in one transaction; 1: each in one
            of its own. For handlers that are quick and touch their database only: a slow one holds up the
            others. The commands are then handled by a thread of the worker itself, beside the solo pool,
            and not as Celery tasks: no signals, time limits or ETA of Celery's. None: each is a Celery
            task, which costs many times as much.
        subscriber: the events that the service subscribes to, to be handled by threads of the same workers,
            which then need the solo pool.

    Raises:
        ConfigurationError: a batch of less than one command or more than 1,000, or of commands that cannot
            be handled in batches.
        DefinitionError: a command has a compensation that no function here undoes.
    """
    participant.check()
    if batch is not None:
        _check_batches(participant, batch)
    # For tasks that the team may add: the commands' own queue is then not consumed by Celery.
    own = Queue(f"{participant.service.name}.tasks", QueueType.CLASSIC)
    queue = participant.service.queue if batch is None else own
    limit = max(participant.lease - CLOCK_SKEW - _MARGIN, participant.lease / 2)
    settings = hardened([queue], prefetch=prefetch, time_limit=limit.total_seconds()) | {
        "task_default_queue": queue.name,
        "task_default_routing_key": queue.name,
        "worker_consumer": "sagas_framework.worker.participating:ParticipantConsumer",
    }
    if batch is not None:
        settings["worker_pool"] = "solo"
    app = celery_app(participant.service.name, broker, settings)
    server = _Server(participant, broker, together=batch != 1)
    app.participant = participant  # type: ignore[attr-defined]
    app.participant_server = server  # type: ignore[attr-defined]
    app.participant_batch = _TAKEN if batch == 1 else batch  # type: ignore[attr-defined]
    for name in participant.tasks:
        _register(app, name, server)
    if batch is None:
        app.steps["worker"].add(ReadinessStep)
        app.steps["consumer"].add(ParticipantBeat)
    else:
        app.steps["worker"].add(BatchStep)
    if participant.database is not None:
        add_relay(app, lambda: participant.engine, after=ReadinessStep if batch is None else BatchStep)
    add_subscriber(app, subscriber)
    return app


def _check_batches(participant: Participant, batch: int) -> None:
    name = participant.service.name
    if not 1 <= batch <= _LARGEST_BATCH:
        raise ConfigurationError(
            f"{name} cannot take batches of {batch}: write 1 to {_LARGEST_BATCH}, as in batch=200, or leave "
            "it out."
        )
    if participant.outside_tasks and participant.inbox.transactional:
        raise ConfigurationError(
            f"{name} cannot handle its commands in batches: {', '.join(participant.outside_tasks)} work "
            "outside their transaction, and would hold up that of the others. Leave out batch=, or give them "
            "a service of their own."
        )
    if not participant.batches:
        raise ConfigurationError(
            f"{name} cannot handle its commands in batches: its inbox is not in a database. Leave out "
            "batch=, or give it a database: Participant(service, database='postgresql://...')."
        )


def _register(app: Celery, name: str, server: _Server) -> None:
    def run(self: Any, *args: Any, **kwargs: Any) -> None:
        request = self.request
        given = vars(request)
        headers = {name: value for name, value in given.items() if name.startswith("saga_")}
        if active() is not None:
            headers |= carried_by(given)
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
    """What a task does: hand the message to the participant, send the reply.

    Args:
        together: the messages of a batch are handled in one transaction.
    """

    def __init__(self, participant: Participant, broker: str, *, together: bool = True) -> None:
        self.participant = participant
        self.broker = broker
        self.together = together
        self.queue = participant.service.queue.name
        self.publisher: Publisher = make_publisher(broker, [participant.service.queue])
        self.relay: ChildRelay | None = None
        if participant.database is not None:
            self.relay = ChildRelay(lambda: participant.engine, self.publisher)

    def serve(self, message: WireMessage) -> None:
        """Handle one message.

        Raises:
            Reject: the message could not even be set aside; it comes again.
        """
        if self.relay is not None:
            self.relay.watch()
        try:
            reply = self.participant.receive(message)
        except StoreUnavailable as error:
            time.sleep(_REQUEUE_PAUSE)  # it comes again at once
            raise Reject(str(error), requeue=True) from error
        if reply is not None:
            self._publish([reply])
            reach(Point.COMMAND_ANSWERED)
        if self.relay is not None:
            self.relay.after_work()

    def serve_all(self, messages: Sequence[WireMessage]) -> None:
        """Handle a batch of messages as they come from their queue, and answer them at once.

        Raises:
            StoreUnavailable: they are to come again, all of them.
        """
        unfit = [(message, self._unfit(message)) for message in messages]
        commands = [message for message, why in unfit if why is None]
        receive = self.participant.receive_all if self.together else self.participant.receive_each
        replies = [reply for reply in receive(commands) if reply is not None]
        if replies:
            self._publish(replies)
        reach(Point.COMMANDS_ANSWERED if self.together else Point.COMMAND_ANSWERED)
        for message, why in unfit:  # last: if this fails, all come again, and are answered from their rows
            if why is not None:
                self.participant.set_aside(message, why)

    def _unfit(self, message: WireMessage) -> str | None:
        """Why it is no command of a saga, as far as one need not read it for that."""
        content = message.properties.get("content_type")
        if content != "application/json":
            return f"the body cannot be read: its content type is {content!r}, not application/json"
        task = message.headers.get("task")
        if not task:
            return "not a Celery task message: its headers name no task"
        # One that came from a saga, which waits for an answer, is refused, and the refusal is kept (rule 4).
        if task in self.participant.handlings or OPERATION_ID in message.headers:
            return None
        return f"no task {task!r} here; there are: {', '.join(sorted(self.participant.tasks))}"

    def _publish(self, replies: Sequence[WireMessage]) -> None:
        for reply, receipt in zip(replies, self.publisher.publish(replies), strict=True):
            if receipt is not Receipt.CONFIRMED:
                # The row has it: the command is sent again, and answered from there.
                logger.warning("%s is %s on %s", reply.headers["task"], receipt.value, reply.queue)


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
        collect_seldom(parent)

    def stop(self, parent: Any) -> None:
        parent.app.participant_server.publisher.close()


class BatchStep(ReadinessStep):
    """Turns, in a thread, the consumer of the commands; see `participant_app`."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._loop: Loop | None = None
        self._upkeep: _Upkeep | None = None

    def start(self, parent: Any) -> None:
        super().start(parent)
        server: _Server = parent.app.participant_server
        queue = server.participant.service.queue
        with or_exit():
            check_queue(server.broker, queue)
        upkeep = self._upkeep = _Upkeep(server)
        consumer = BatchConsumer(
            server.broker,
            queue,
            server.serve_all,
            size=parent.app.participant_batch,
            turned=lambda _: upkeep.turned(),
        )
        self._loop = Loop("command consumer", consumer.turn, cleanup=consumer.close)
        self._loop.start()

    def stop(self, parent: Any) -> None:
        if self._loop is not None:
            self._loop.stop()
            if not self._loop.join(_GRACE):
                logger.warning("the command consumer did not end within %.0f s", _GRACE.total_seconds())
            self._loop = None
        if self._upkeep is not None:
            self._upkeep.close()
            self._upkeep = None
        super().stop(parent)

    terminate = stop


class _Upkeep:
    """What a consumer's own loop does beside: says that it turns, forgets old rows, replays."""

    def __init__(self, server: _Server) -> None:
        participant = self._participant = server.participant
        self._publisher = server.publisher
        self._pulse = Pulse("participant", worker_name(participant.service.name), participant.inbox.beat)
        self._forgot_at: datetime | None = None
        self._done_at: datetime | None = None

    def turned(self) -> None:
        """The loop has come round: every two seconds that is seen to."""
        now = self._participant.clock()
        if self._done_at is None or now - self._done_at >= timedelta(seconds=_BEAT):
            self._done_at = now
            self.see_to_it()

    def see_to_it(self) -> None:
        """Now."""
        try:
            self._pulse.turned()
            self._forget()
            self._participant.inbox.replay(lambda messages: send_again(self._publisher, messages))
        except StoreUnavailable as error:
            logger.warning("the inbox is away: %s", str(error).partition("\n")[0])

    def close(self) -> None:
        """Leave nothing half written."""
        try:
            self._participant.close_archive()
        except OSError as error:
            logger.warning("the archive's last segment could not be closed: %s", error)

    def _forget(self) -> None:
        """Take out inbox rows past their retention: few at a time, so that the consumer hardly waits."""
        now = self._participant.clock()
        if self._forgot_at is not None and now - self._forgot_at < _FORGET_EVERY:
            return
        until = time.monotonic() + _FORGET_FOR
        try:
            while (gone := self._participant.forget()).more and time.monotonic() < until:
                pass
        except OSError as error:
            logger.warning("the archive cannot be written, and inbox rows stay: %s", error)
            gone = Gone()
        self._forgot_at = None if gone.more else now  # whoever is behind goes on at the next beat


class ParticipantBeat(bootsteps.StartStopStep):
    """From within the consumer's own loop: says that it turns, and sends what somebody wants replayed."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._timer: Any = None
        self._upkeep: _Upkeep | None = None

    def start(self, parent: Any) -> None:
        upkeep = self._upkeep = _Upkeep(parent.app.participant_server)
        self._timer = parent.timer.call_repeatedly(_BEAT, upkeep.see_to_it)

    def stop(self, parent: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._upkeep is not None:
            self._upkeep.close()
            self._upkeep = None
