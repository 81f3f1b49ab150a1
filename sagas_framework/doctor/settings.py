"""Celery's effective settings, as the team left them. Pure: nothing is connected to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

from celery.utils.imports import symbol_by_name

from sagas_framework.doctor.findings import Area, Examination, Finding, Rule, Severity
from sagas_framework.doctor.installation import (
    ORCHESTRATOR,
    PARTICIPANT,
    Installation,
    address_of,
    declared_arguments,
    listed,
)
from sagas_framework.doctor.times import time_rules
from sagas_framework.messages import WireProtocol
from sagas_framework.transport.connecting import kombu_queue, masked_broker

_POOLS: Final = {ORCHESTRATOR: ("solo",), PARTICIPANT: ("solo", "prefork", "processes")}
_CONSUMERS: Final = {
    ORCHESTRATOR: "sagas_framework.worker.settings.PlainConsumer",
    PARTICIPANT: "sagas_framework.worker.participating.ParticipantConsumer",
}


def examine_settings(installation: Installation) -> Examination:
    """See whether the settings of the service's Celery app keep what the protocol relies on."""
    examination = Examination(Area.SETTINGS, f"the Celery app of {installation.worker}")
    if installation.app is None:
        examination.subject = installation.worker
        examination.add([_no_app(installation)])
        return examination
    examination.look(pool_rule(installation), f"the pool is {installation.pool}")
    examination.look(
        [*_consumer(installation), *_two_brokers(installation)], "workers consume as the protocol needs it"
    )
    examination.look(
        [*_queues(installation), *_bindings(installation), *_routes(installation)],
        "Celery's queues are those of the contracts",
    )
    examination.look(
        [*_of_tasks(installation), *_prefetch(installation)],
        "messages are acknowledged when they are answered",
    )
    examination.look(
        [*_expected(installation), *_transport_options(installation), *_heartbeat(installation)],
        "connections are kept, and given up in time",
    )
    examination.look(_serializers(installation), "messages are JSON")
    examination.look(time_rules(installation), "leases, limits and retention go together")
    return examination


def pool_trouble(kind: str, service: str, pool: str, *, batched: bool = False) -> str | None:
    """Why workers of this kind do not start with this pool; None if they do."""
    if batched and pool != "solo":
        return (
            f"{service} takes its commands in batches and needs --pool solo: "
            "its thread would deadlock beside a pool that forks."
        )
    if pool in _POOLS[kind]:
        return None
    if kind == ORCHESTRATOR:
        return (
            f"The orchestrator of {service} needs --pool solo: "
            "its threads would deadlock beside a pool that forks."
        )
    return (
        f"{service} needs --pool prefork or solo: the others have no time "
        "limits, and the threads pool hangs after the broker was restarted."
    )


def pool_rule(installation: Installation) -> Iterator[Finding]:
    """Of a pool with which no worker starts."""
    trouble = pool_trouble(
        installation.kind, installation.service, installation.pool, batched=installation.batched
    )
    if trouble is not None:
        yield Finding(
            Rule.POOL,
            Severity.LOSES,
            f"worker_pool is {installation.pool}.",
            trouble,
            "worker_pool",
            "solo" if installation.kind == ORCHESTRATOR or installation.batched else "prefork or solo",
        )


def _no_app(installation: Installation) -> Finding:
    return Finding(
        Rule.NO_APP,
        Severity.UNKNOWN,
        f"{installation.worker} has no Celery app with {installation.service}'s "
        f"{'sagas' if installation.sagas is not None else 'participant'}.",
        "So settings, broker and results were not examined.",
        "-A",
        "the module in which orchestrator_app(...) or participant_app(...) is called",
    )


# ---- one setting, one value -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Expected:
    """A setting that stands for itself.

    Args:
        amqp: it matters with RabbitMQ only.
        kinds: whose workers it matters to.
    """

    rule: Rule
    setting: str
    right: Callable[[Any], bool]
    why: str
    write: str
    severity: Severity = Severity.WRONG
    amqp: bool = False
    kinds: tuple[str, ...] = (ORCHESTRATOR, PARTICIPANT)


_EXPECTED: Final = (
    _Expected(
        Rule.RECONNECT,
        "broker_connection_retry_on_startup",
        lambda value: value is None or bool(value),  # None: as broker_connection_retry says
        "A worker that starts while the broker is away ends instead of waiting for it.",
        "True",
    ),
    _Expected(
        Rule.RECONNECT,
        "broker_connection_retry",
        bool,
        "A worker that loses its connection ends instead of connecting again.",
        "True",
    ),
    _Expected(
        Rule.RECONNECT,
        "broker_connection_max_retries",
        lambda value: not value,
        "A worker gives up after so many tries, and stays away when the broker is back.",
        "None",
    ),
    _Expected(
        Rule.RECONNECT,
        "broker_channel_error_retry",
        lambda value: not value,
        "After a task that outlived the broker's consumer_timeout, a second copy starts beside the first.",
        "False",
        amqp=True,
    ),
    _Expected(
        Rule.TIMEOUTS,
        "broker_pool_acquire_timeout",
        lambda value: value is not None,
        "Code of yours that publishes may wait for a free connection for ever.",
        "5",
    ),
    _Expected(
        Rule.MISSING_QUEUES,
        "task_create_missing_queues",
        lambda value: not value,
        "A mistyped queue becomes a new queue that nobody reads, instead of an error.",
        "False",
    ),
    _Expected(
        Rule.CONNECTION_LOST,
        "worker_enable_prefetch_count_reduction",
        lambda value: not value,
        "After a reconnect it asks the broker from a pool's thread, and may hang the worker.",
        "False",
        amqp=True,
        kinds=(PARTICIPANT,),
    ),
    _Expected(
        Rule.CONNECTION_LOST,
        "worker_cancel_long_running_tasks_on_connection_loss",
        bool,
        "After a lost connection the old copy of a command works on beside the one that is delivered again.",
        "True",
        amqp=True,
        kinds=(PARTICIPANT,),
    ),
    _Expected(
        Rule.EAGER,
        "task_always_eager",
        lambda value: not value,
        "Tasks of your own run inside their caller, unseen by any worker; commands of sagas never do.",
        "False",
    ),
    _Expected(
        Rule.EVENTS,
        "worker_send_task_events",
        lambda value: not value,
        "Monitoring events together with publisher confirms can deadlock the pool.",
        "False",
        amqp=True,
    ),
    _Expected(
        Rule.EVENTS,
        "task_send_sent_event",
        lambda value: not value,
        "Each task that you send then needs a second message, an event that nobody here reads.",
        "False",
        severity=Severity.NOTE,
        amqp=True,
    ),
)


def _expected(installation: Installation) -> Iterator[Finding]:
    amqp = installation.on_amqp
    for expected in _EXPECTED:
        value = getattr(installation.conf, expected.setting)
        matters = installation.kind in expected.kinds and (amqp or not expected.amqp)
        if matters and not expected.right(value):
            yield Finding(
                expected.rule,
                expected.severity,
                f"{expected.setting} is {value!r}.",
                expected.why,
                expected.setting,
                expected.write,
            )
    if amqp and installation.uses_quorum_queues and not installation.conf.worker_detect_quorum_queues:
        yield Finding(
            Rule.GLOBAL_QOS,
            Severity.WRONG,
            "worker_detect_quorum_queues is off, and there are quorum queues.",
            "Workers ask for a global prefetch, which RabbitMQ before 4.0 refuses there, so they end.",
            "worker_detect_quorum_queues",
            "True",
        )


# ---- consuming --------------------------------------------------------------------------------------


def _consumer(installation: Installation) -> Iterator[Finding]:
    wanted = _CONSUMERS[installation.kind]
    try:
        consumer = symbol_by_name(installation.conf.worker_consumer)
        known = {f"{base.__module__}.{base.__qualname__}" for base in consumer.__mro__}
    except (ImportError, AttributeError):
        known = set()
    if wanted not in known:
        why = "Native delayed delivery then binds your queues so that one message can reach two of them."
        if installation.kind == PARTICIPANT:
            why = "Messages that cannot be read are then dropped or end the worker; ours sets them aside."
        module, _, name = wanted.rpartition(".")
        yield Finding(
            Rule.CONSUMER,
            Severity.WRONG,
            f"worker_consumer is {installation.conf.worker_consumer}, and not ours or a subclass of it.",
            why,
            "worker_consumer",
            f"{module}:{name}",
        )


def _two_brokers(installation: Installation) -> Iterator[Finding]:
    """Commands come from where Celery's settings say, replies go where `participant_app` was told."""
    server = getattr(installation.app, "participant_server", None)
    if installation.kind != PARTICIPANT or server is None:
        return
    replies = address_of(server.broker)
    (commands_host, commands_vhost), (replies_host, replies_vhost) = map(
        _place, (installation.broker, replies)
    )
    if (commands_host, commands_vhost) != (replies_host, replies_vhost):
        # Another host may be the same broker by another name, or of the same cluster.
        apart = commands_vhost != replies_vhost
        yield Finding(
            Rule.TWO_BROKERS,
            Severity.LOSES if apart else Severity.WRONG,
            f"Commands are taken from {masked_broker(installation.broker)}, "
            f"and replies go to {masked_broker(replies)}.",
            f"{'No' if apart else 'Unless both are one broker, no'} saga gets an answer, "
            "so none comes to its end.",
            "broker_url (or CELERY_BROKER_URL, CELERY_BROKER_READ_URL, broker_read_url)",
            "leave it to participant_app(..., broker=...)",
        )


def _place(url: str) -> tuple[tuple[str, int | None], tuple[str, str]]:
    """`((host, port), (transport, virtual host))` of an address; of several, that of the first."""
    first = urlsplit(url.partition(";")[0])
    transport = "amqp" if first.scheme in ("pyamqp", "amqps") else first.scheme
    port = first.port or {"amqp": 5672, "pyamqp": 5672, "amqps": 5671}.get(first.scheme)
    return (first.hostname or "localhost", port), (transport, unquote(first.path[1:]) or "/")


# ---- queues -----------------------------------------------------------------------------------------


def _queues(installation: Installation) -> Iterator[Finding]:
    there = installation.celery_queues
    if installation.kind == PARTICIPANT and not installation.batched:  # else Celery takes no commands
        (own,) = installation.consumed
        if own.name not in there:
            yield Finding(
                Rule.TASK_QUEUES,
                Severity.LOSES,
                f"task_queues does not have {own.name}; it has {listed(sorted(there)) or 'none'}.",
                "Commands wait there and no worker of this app takes them.",
                "task_queues",
                f"add {own.name} as participant_app declares it, or leave the setting out",
            )
        elif installation.started and not _consumes(installation, own.name):
            yield Finding(
                Rule.TASK_QUEUES,
                Severity.NOTE,
                f"This worker does not take from {own.name}.",
                "Another one must, or commands wait there.",
                "-Q",
                own.name,
            )
    if not installation.on_amqp:
        return
    for queue in installation.contracts:
        celerys = there.get(queue.name)
        if celerys is None:
            continue
        ours = kombu_queue(queue)
        mine, its = declared_arguments(ours), declared_arguments(celerys)
        differences = [
            f"{name}={its.get(name, 'none')} instead of {mine.get(name, 'none')}"
            for name in sorted(mine.keys() | its.keys())
            if mine.get(name) != its.get(name)
        ]
        if not celerys.durable or celerys.auto_delete or celerys.exclusive:
            differences.append("and not as a durable queue for everybody")
        if differences:
            priority = "x-max-priority" in its and installation.conf.task_queue_max_priority is not None
            yield Finding(
                Rule.TASK_QUEUES,
                Severity.LOSES,
                f"Celery declares the queue {queue.name} with {', '.join(differences)}.",
                "The other services declare it as its contract says; RabbitMQ refuses whoever comes second, "
                "who then cannot send or take commands.",
                "task_queue_max_priority" if priority else "task_queues",
                "None: quorum queues have no priorities of this kind"
                if priority
                else "leave it to orchestrator_app and participant_app",
            )


def _consumes(installation: Installation, queue: str) -> bool:
    """Whether this worker takes from it: ``-Q`` may say otherwise."""
    assert installation.app is not None
    return queue in dict(installation.app.amqp.queues.consume_from)


def _bindings(installation: Installation) -> Iterator[Finding]:
    """A command queue bound so that it gets messages that were not sent to it."""
    for name, queue in installation.celery_queues.items():
        exchange = queue.exchange
        if exchange is None or name not in {contract.name for contract in installation.contracts}:
            continue
        wild = exchange.type == "topic" and any(
            word in ("#", "*") for word in str(queue.routing_key).split(".")
        )
        if exchange.type == "fanout" or wild:
            key = f" by {queue.routing_key!r}" if wild else ""
            yield Finding(
                Rule.QUEUE_BINDING,
                Severity.WRONG,
                f"The queue {name} is bound to the {exchange.type} exchange {exchange.name!r}{key}.",
                "It also gets messages that were sent to others, and refuses or sets aside each of them.",
                "task_default_exchange, task_default_exchange_type, task_default_routing_key",
                "leave them out",
            )


def _routes(installation: Installation) -> Iterator[Finding]:
    if not installation.conf.task_routes or installation.app is None:
        return
    elsewhere: dict[str, list[str]] = {}
    plain: dict[str, list[str]] = {}
    for task, queue, protocol in _sent(installation):
        routed = _routed(installation, task)
        if routed is not None and routed != queue:
            found = plain if protocol is WireProtocol.CELERY else elsewhere
            found.setdefault(f"{routed}, and its contract says {queue}", []).append(task)
    for where, tasks in plain.items():
        yield Finding(
            Rule.ROUTES,
            Severity.WRONG,
            f"task_routes sends {listed(tasks)} to {where}.",
            "Sagas go by the contract: if the routes are right, the command reaches a worker that drops it.",
            "step.task(queue=...)",
            "the queue of task_routes, or take the route away",
        )
    for where, tasks in elsewhere.items():
        yield Finding(
            Rule.ROUTES,
            Severity.NOTE,
            f"task_routes sends {listed(tasks)} to {where}.",
            "Commands of sagas do not go by task_routes; what your own code sends by these names does.",
            "task_routes",
            "leave these names out",
        )


def _sent(installation: Installation) -> Iterator[tuple[str, str, WireProtocol]]:
    """`(task, queue, protocol)` of every command that the program's contracts name."""
    contracts = dict.fromkeys(step.command.contract for step in installation.command_steps.values())
    for contract in contracts:
        yield contract.task, contract.service.queue.name, WireProtocol(contract.service.protocol)
    if installation.participant is not None:
        for task in sorted(installation.participant.tasks):
            yield task, installation.participant.service.queue.name, WireProtocol.INBOX


def _routed(installation: Installation, task: str) -> str | None:
    """The queue that task_routes names for the task; None if it names none, or only an exchange."""
    assert installation.app is not None
    try:
        route = installation.app.amqp.router.lookup_route(task, (), {}, {})
    except Exception:
        return None  # a router of the team's own that wants more than a name
    queue = route.get("queue") if isinstance(route, dict) else route
    return getattr(queue, "name", queue)


# ---- acknowledging ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _TaskExpected:
    """A setting that each task may have otherwise."""

    rule: Rule
    setting: str
    right: Callable[[Any], bool]
    why: str
    write: str


_TASKS: Final = (
    _TaskExpected(
        Rule.ACKS,
        "task_acks_late",
        lambda task: bool(task.acks_late),
        "A worker that dies takes the command with it, which waits until the saga sends it again.",
        "True",
    ),
    _TaskExpected(
        Rule.WORKER_LOST,
        "task_reject_on_worker_lost",
        lambda task: not task.reject_on_worker_lost,
        "A command that kills its process is delivered again at once, and kills the next, without a pause.",
        "False: sagas send again by themselves",
    ),
    _TaskExpected(
        Rule.WORKER_LOST,
        "task_retry_on_worker_lost",
        lambda task: not getattr(task, "retry_on_worker_lost", False),
        "A command whose process died waits for three minutes in a worker's memory, and goes with it.",
        "False: sagas send again by themselves",
    ),
    _TaskExpected(
        Rule.ACKS,
        "task_acks_on_failure",
        lambda task: _either(task.acks_on_failure, task.acks_on_failure_or_timeout),
        "A command whose task failed is rejected: it is gone, or wherever the queue's dead letters go.",
        "True",
    ),
    _TaskExpected(
        Rule.ACKS,
        "task_acks_on_timeout",
        lambda task: _either(task.acks_on_timeout, task.acks_on_failure_or_timeout),
        "A command that takes too long is delivered again at once, for ever.",
        "True",
    ),
)


def _either(value: bool | None, older: bool | None) -> bool:
    """Of two settings the newer, unless it is left to the older."""
    return (older is not False) if value is None else bool(value)


def _of_tasks(installation: Installation) -> Iterator[Finding]:
    """What each task really does: settings, then annotations, then its own attributes."""
    if installation.participant is None or installation.app is None:
        return
    tasks = {name: installation.app.tasks[name] for name in sorted(installation.participant.tasks)}
    for expected in _TASKS:
        wrong = [name for name, task in tasks.items() if not expected.right(task)]
        if wrong:
            whose = "" if len(wrong) == len(tasks) else f" for {listed(wrong)}"
            value = "off" if expected.write.startswith("True") else "on"
            yield Finding(
                expected.rule,
                Severity.WRONG,
                f"{expected.setting} is {value}{whose}.",
                expected.why,
                expected.setting,
                expected.write,
            )


def _prefetch(installation: Installation) -> Iterator[Finding]:
    if installation.kind != PARTICIPANT or installation.batched:
        return
    if installation.prefetch == 0:
        yield Finding(
            Rule.PREFETCH,
            Severity.WRONG,
            "worker_prefetch_multiplier is 0.",
            "One worker takes all that waits; the queue looks empty, so what waits in the worker is presumed "
            "lost and sent again.",
            "worker_prefetch_multiplier",
            "1, by participant_app(prefetch=1)",
        )
    elif installation.prefetch > 1:
        yield Finding(
            Rule.PREFETCH,
            Severity.NOTE,
            f"worker_prefetch_multiplier is {installation.prefetch}.",
            "What waits behind a slow command in one process could run in another.",
            "worker_prefetch_multiplier",
            "1, by participant_app(prefetch=1), unless all handlers are quick",
        )


# ---- connections ------------------------------------------------------------------------------------


def _transport_options(installation: Installation) -> Iterator[Finding]:
    if not installation.on_amqp:
        return
    options = dict(installation.conf.broker_transport_options or {})
    if not options.get("confirm_publish"):
        yield Finding(
            Rule.CONFIRMS,
            Severity.WRONG,
            "Publisher confirms are off for tasks that your own code sends.",
            "Such a task may vanish unnoticed; messages of sagas are always confirmed.",
            "broker_transport_options",
            "add 'confirm_publish': True",
        )
    missing = [name for name in ("read_timeout", "write_timeout") if not options.get(name)]
    if missing:
        yield Finding(
            Rule.TIMEOUTS,
            Severity.WRONG,
            f"broker_transport_options has no {listed(missing)}.",
            "While the broker has no memory or disk left, code of yours that publishes hangs.",
            "broker_transport_options",
            "add " + ", ".join(f"'{name}': 10" for name in missing),
        )


def _heartbeat(installation: Installation) -> Iterator[Finding]:
    if not installation.on_amqp:
        return
    in_address = parse_qs(urlsplit(installation.broker.partition(";")[0]).query).get("heartbeat")
    beat = in_address[-1] if in_address else installation.conf.broker_heartbeat
    if not float(beat or 0):
        yield Finding(
            Rule.HEARTBEAT,
            Severity.WRONG,
            "The connection has no heartbeat"
            + (", because the broker's address says heartbeat=0." if in_address else "."),
            "A broker that vanished without closing the connection is noticed after hours.",
            "?heartbeat= in the broker's address" if in_address else "broker_heartbeat",
            "30" if not in_address else "leave it out, and set broker_heartbeat to 30",
        )
    elif in_address:
        yield Finding(
            Rule.HEARTBEAT,
            Severity.NOTE,
            f"The broker's address says heartbeat={beat}.",
            "That holds also for connections that only publish; idle, they send none, and the broker closes "
            "them again and again.",
            "?heartbeat= in the broker's address",
            f"leave it out, and set broker_heartbeat to {beat}",
        )


# ---- contents ---------------------------------------------------------------------------------------

_CODE: Final = frozenset({"pickle", "application/x-python-serialize"})


def _serializers(installation: Installation) -> Iterator[Finding]:
    accepted = set(installation.conf.accept_content or ())
    if not accepted & {"json", "application/json"} and installation.kind == PARTICIPANT:
        yield Finding(
            Rule.SERIALIZER,
            Severity.LOSES,
            f"accept_content is {sorted(accepted)}, without json.",
            "Every command is set aside unread, so no saga gets an answer.",
            "accept_content",
            "['json']",
        )
    if accepted & _CODE:
        yield Finding(
            Rule.SERIALIZER,
            Severity.WRONG,
            "accept_content has pickle.",
            "A pickle is code: whoever may publish to the queue may run anything in the worker.",
            "accept_content",
            "['json']",
        )
    serializer = installation.conf.task_serializer
    if serializer in _CODE:
        yield Finding(
            Rule.SERIALIZER,
            Severity.WRONG,
            f"task_serializer is {serializer}.",
            "Workers that accept JSON only refuse what your own code sends.",
            "task_serializer",
            "json",
        )
