"""The broker: whether its queues are as the contracts say, and whether it takes what is published.

Nothing is created, changed or taken there:

- a queue is first declared *passively*, which only asks whether it is there. Only an *active* declaration
  tells with which type and arguments; it is made for a queue that was just seen, and of an existing queue
  RabbitMQ only compares. (Were it deleted in that millisecond, it would be made as any worker makes it.)
- reading is tried with a consumer whose arguments are wrong on purpose: without the permission RabbitMQ
  refuses it, with it RabbitMQ finds the argument;
- publishing is tried with a message to a queue that nobody has, which comes back.
"""

from __future__ import annotations

import contextlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import amqp
from kombu import Connection
from kombu.exceptions import OperationalError

from sagas_framework.doctor.findings import Area, Examination, Finding, Rule, Severity
from sagas_framework.doctor.installation import Installation, declared_arguments, listed
from sagas_framework.errors import ConfigurationError
from sagas_framework.messages import Queue, QueueType
from sagas_framework.transport.amqp import LINK_ERRORS
from sagas_framework.transport.connecting import connect, is_amqp, masked_broker, queue_arguments

_CONFIRM_WITHIN: Final = 2.0  # seconds
_MOST_DIFFERENCES: Final = 10
_DELAYED: Final = "celery_delayed_delivery"
"""The exchange of Celery's native delayed delivery; the name is fixed."""
_NUMBERS: Final = frozenset(
    {"signedint", "unsignedint", "long", "short", "byte", "unsignedbyte", "timestamp"}
)


def examine_broker(installation: Installation) -> Examination:
    """See whether the service's workers can work with this broker, and with what is there already."""
    url = installation.broker
    examination = Examination(Area.BROKER, masked_broker(url))
    try:
        connection = connect(url)
        if is_amqp(connection):
            with contextlib.closing(_Broker(connection)) as broker:
                _examine(installation, broker, examination)
        else:
            with contextlib.closing(connection):
                connection.connect()
            examination.look(
                _other_transport(installation, connection), "it is reached; it has no types of queues"
            )
    except (amqp.AccessRefused, amqp.NotAllowed) as error:
        examination.add([_turned_away(url, error)])
    except (ConfigurationError, OperationalError) as error:
        examination.add([_unreachable(url, error)])
    except LINK_ERRORS as error:
        examination.add([_unreachable(url, error)])
    return examination


def _examine(installation: Installation, broker: _Broker, examination: Examination) -> None:
    examination.in_order.append(f"{broker.product} {broker.version_told} is reached")
    examination.look(
        version_rules(installation, broker.version), "this version's habits are no trouble for these queues"
    )
    _queues(installation, broker, examination)
    whose = "this worker's name" if installation.started else "the name that Celery gives on this machine"
    examination.look(_node_name(installation, broker), f"no other worker has {whose}")
    if installation.started is None:
        # In a virtual host of many teams this would be said at every start.
        examination.look(_delayed_delivery(installation, broker), "no app here has Celery delay its messages")
    examination.look(_publishing(broker), "a message is published and confirmed")


def _unreachable(url: str, error: Exception) -> Finding:
    return Finding(
        Rule.BROKER,
        Severity.WRONG,
        f"The broker {masked_broker(url)} could not be asked: {_told(error)}",
        "Nothing is known of its queues; workers wait until it is back.",
        "broker_url",
        "an address at which it answers; then ask again",
    )


def _other_transport(installation: Installation, connection: Connection) -> Iterator[Finding]:
    if connection.transport_cls == "memory":
        if installation.started and installation.pool != "solo":
            yield Finding(
                Rule.BROKER,
                Severity.WRONG,
                f"The broker is the memory of one process, and the pool is {installation.pool}.",
                "What is sent in a child of the pool stays there: no saga gets an answer.",
                "broker_url",
                "RabbitMQ, or have all of it in one process with EmbeddedWorkers",
            )
    else:
        yield Finding(
            Rule.BROKER,
            Severity.UNKNOWN,
            f"The broker is a {connection.transport_cls}, of which nothing more can be asked.",
            "Whether it keeps messages until they are acknowledged is not known.",
            "broker_url",
            "RabbitMQ, which is what this library is tested with, or memory:// for one process",
        )


def _turned_away(url: str, error: Exception) -> Finding:
    return Finding(
        Rule.PERMISSIONS,
        Severity.LOSES,
        f"The broker {masked_broker(url)} refuses us: {_told(error)}",
        "No command is sent or taken.",
        "broker_url",
        "a user, password and virtual host that the broker knows",
    )


# ---- asking -----------------------------------------------------------------------------------------


class _Broker:
    """A connection to RabbitMQ. Each question has a channel of its own: RabbitMQ closes it with a no."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        opened: Any = connection.connect()
        opened.on_blocked = self._note_blocked
        self._amqp = opened
        self._blocked = False
        properties = opened.server_properties
        self.product = str(properties.get("product", "a broker"))
        self.version_told = str(properties.get("version", "of an unknown version"))

    @property
    def is_rabbitmq(self) -> bool:
        return self.product == "RabbitMQ"

    @property
    def version(self) -> tuple[int, ...]:
        """``(3, 10, 8)``; empty if this is not RabbitMQ, or it does not tell."""
        if not self.is_rabbitmq:
            return ()
        found = re.match(r"\d+(\.\d+)*", self.version_told)
        return tuple(int(part) for part in found[0].split(".")) if found else ()

    @property
    def vhost(self) -> str:
        return str(self.connection.virtual_host or "/")

    def ask(self, question: Callable[[Any], Any]) -> amqp.ChannelError | None:
        """The broker's no to what is done on a channel; None for a yes."""
        channel = self._amqp.channel()
        try:
            question(channel)
        except amqp.ChannelError as error:
            return error
        finally:
            with contextlib.suppress(Exception):
                channel.close()
        return None

    def has_queue(self, name: str) -> amqp.ChannelError | None:
        return self.ask(lambda channel: channel.queue_declare(name, passive=True))

    def differences(
        self, declaration: Declaration
    ) -> tuple[dict[str, tuple[str, str]], amqp.ChannelError | None]:
        """In what an existing queue differs from this declaration: argument, ours and the broker's.

        RabbitMQ tells one difference at a time. So what it told is declared next, until it agrees; a
        declaration that it agrees with changes nothing either. The second part is a no of another kind.
        """
        found: dict[str, tuple[str, str]] = {}
        declared: dict[str, Any] = {
            "durable": declaration.durable,
            "auto_delete": declaration.auto_delete,
            "exclusive": False,
        }
        now = dict(declaration.arguments)
        for _ in range(_MOST_DIFFERENCES):
            no = self.ask(lambda channel: channel.queue_declare(declaration.name, arguments=now, **declared))
            if no is None:
                return found, None
            told = read_difference(str(no))
            if told is None or told.name in found:
                return found, no
            found[told.name] = (told.ours, told.theirs)
            # What the broker has is declared next.
            if told.name in declared:
                declared[told.name] = told.theirs == "true"
            elif told.value is None:
                now.pop(told.name, None)
            else:
                now[told.name] = told.value
        return found, None

    def confirms(self) -> tuple[str, str]:
        """Publish what no queue takes: ``"yes"``, ``"blocked"``, ``"silent"`` or ``"refused"``; and why."""
        channel = self._amqp.channel()
        answered: list[Any] = []
        try:
            channel.confirm_select()
            for event in ("basic_ack", "basic_nack"):
                channel.events[event].add(lambda *_: answered.append(None))
            channel.events["basic_return"].add(lambda *_: None)  # else it is raised
            channel.basic_publish(
                amqp.Message(b"", delivery_mode=1),
                exchange="",
                routing_key=f"saga.doctor.{uuid4()}",
                mandatory=True,  # it comes back, and is in no queue
            )
            until = time.monotonic() + _CONFIRM_WITHIN
            while not answered and not self._blocked and (left := until - time.monotonic()) > 0:
                with contextlib.suppress(TimeoutError):
                    self._amqp.drain_events(timeout=left)
        except amqp.AccessRefused as error:
            return "refused", _told(error)
        if self._blocked:
            return "blocked", ""
        return ("yes", "") if answered else ("silent", "")

    def close(self) -> None:
        if self._blocked:
            self._amqp.collect()  # without a word: RabbitMQ reads none from whoever published in an alarm
        with contextlib.suppress(Exception):
            self.connection.release()

    def _note_blocked(self, _reason: object) -> None:
        self._blocked = True


_INEQUIVALENT: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for .*?: received (?P<ours>.+?),? but current is (?P<theirs>.+)$"
)
_TOLD: Final = re.compile(r"the value '(?P<value>.*)' of type '(?P<type>\w+)'")


@dataclass(frozen=True)
class Difference:
    """One argument of a queue in which a declaration and the broker differ, in the broker's words.

    Args:
        value: the broker's, to be declared; None if it has none.
    """

    name: str
    ours: str
    theirs: str
    value: str | int | None


def read_difference(said: str) -> Difference | None:
    """What RabbitMQ says when it refuses an unlike declaration; None if it refuses for another reason."""
    told = _INEQUIVALENT.search(said)
    if told is None:
        return None
    value: str | int | None = None
    if there := _TOLD.search(told["theirs"]):
        value = int(there["value"]) if there["type"] in _NUMBERS else there["value"]
    return Difference(told["name"], _plain(told["ours"]), _plain(told["theirs"]), value)


def _plain(told: str) -> str:
    value = _TOLD.search(told)
    return value["value"] if value else told.strip("'")


@dataclass(frozen=True)
class Declaration:
    """A queue as the service's workers declare it. `contract`: None for one of the team's own."""

    name: str
    arguments: dict[str, Any]
    contract: Queue | None = None
    durable: bool = True
    auto_delete: bool = False

    @property
    def severity(self) -> Severity:
        """How grave it is not to have it: no saga needs a queue of the team's own."""
        return Severity.WRONG if self.contract is None else Severity.LOSES

    @property
    def without_it(self) -> str:
        """What comes of not having it."""
        if self.contract is None:
            return "tasks of your own are not sent, and a worker that takes from it ends"
        return "commands are not sent, or not taken"


# ---- queues -----------------------------------------------------------------------------------------


def _queues(installation: Installation, broker: _Broker, examination: Examination) -> None:
    absent: list[str] = []
    for declaration in _declarations(installation):
        name = declaration.name
        no = broker.has_queue(name)
        if isinstance(no, amqp.NotFound):
            absent.append(name)
            continue
        if no is None:
            differences, no = broker.differences(declaration)
            if differences:
                examination.add([_unlike(installation, declaration, differences)])
                continue
        taken = [*installation.consumed, *installation.events]
        if no is None and declaration.contract in taken and broker.is_rabbitmq:
            no = _no_reading(broker, name)
        if no is None:
            examination.in_order.append(f"the queue {name} is there as it is declared")
        else:
            examination.add([_refused(declaration, no)])
    if absent:
        examination.in_order.append(f"not there yet, and made by the first worker: {listed(absent)}")


def _declarations(installation: Installation) -> Iterator[Declaration]:
    """Every queue that its workers declare, for everybody to use."""
    for queue in installation.contracts:
        yield Declaration(queue.name, queue_arguments(queue), queue)
    known = {queue.name for queue in installation.contracts}
    for name, celerys in installation.celery_queues.items():
        if name not in known and not celerys.exclusive and not getattr(celerys, "no_declare", False):
            yield Declaration(
                name,
                declared_arguments(celerys),
                durable=bool(celerys.durable),
                auto_delete=bool(celerys.auto_delete),
            )


def _no_reading(broker: _Broker, name: str) -> amqp.ChannelError | None:
    """The broker's no to a consumer, unless it is the no to this one's wrong argument."""
    no = broker.ask(lambda channel: channel.basic_consume(name, arguments={"x-priority": "wrong on purpose"}))
    return no if isinstance(no, amqp.AccessRefused) else None


def _unlike(
    installation: Installation, declaration: Declaration, differences: dict[str, tuple[str, str]]
) -> Finding:
    name, contract = declaration.name, declaration.contract
    told = listed(
        f"{argument}={_kind(argument, theirs)} (here {_kind(argument, ours)})"
        for argument, (ours, theirs) in differences.items()
    )
    setting, write = "the declarations of this queue", "the same everywhere"
    if contract is not None:
        replies = installation.sagas is not None and contract == installation.sagas.reply_queue
        setting = "Sagas(reply_queue=...)" if replies else "Service(queue=...)"
        if contract in installation.events:
            setting = "Subscriber(queue_type=...)"
        write = (
            f"delete {name} on the broker once it is empty, and start those that declare it otherwise anew"
        )
        if set(differences) == {"x-queue-type"}:
            there = QueueType.QUORUM if differences["x-queue-type"][1] == "quorum" else QueueType.CLASSIC
            write = f"Queue({name!r}, QueueType.{there.name}) for everybody; or {write}"
        else:
            write += "; dead letters and limits are set by a policy: rabbitmqctl set_policy"
    return Finding(
        Rule.QUEUE,
        declaration.severity,
        f"On the broker the queue {name} has {told}.",
        f"RabbitMQ refuses whoever declares it otherwise: {declaration.without_it}.",
        setting,
        write,
    )


def _kind(argument: str, value: str) -> str:
    return "classic" if argument == "x-queue-type" and value == "none" else value


def _refused(declaration: Declaration, no: amqp.ChannelError) -> Finding:
    if isinstance(no, amqp.AccessRefused):
        return Finding(
            Rule.PERMISSIONS,
            declaration.severity,
            f"The broker does not let us use the queue {declaration.name}: {_told(no)}",
            f"Then {declaration.without_it}.",
            "permissions of the broker's user",
            "configure, write and read: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
        )
    if isinstance(no, amqp.ResourceLocked):
        return Finding(
            Rule.QUEUE,
            Severity.WRONG,
            f"Somebody has the queue {declaration.name} alone.",
            "Until that connection ends nobody else sends to it or takes from it.",
            "the declarations of this queue",
            "durable, and not exclusive",
        )
    return Finding(
        Rule.QUEUE,
        declaration.severity,
        f"The broker refuses the queue {declaration.name} as it is declared here: {_told(no)}",
        f"Then {declaration.without_it}.",
        "the declarations of this queue",
        "what the broker takes, the same everywhere",
    )


# ---- publishing -------------------------------------------------------------------------------------


def _publishing(broker: _Broker) -> Iterator[Finding]:
    answer, why = broker.confirms()
    if answer == "refused":
        yield Finding(
            Rule.PERMISSIONS,
            Severity.LOSES,
            f"The broker does not let us publish: {why}",
            "No command and no reply is sent.",
            "permissions of the broker's user",
            "write on amq.default: rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*'",
        )
    elif answer == "blocked":
        yield Finding(
            Rule.ALARM,
            Severity.WRONG,
            "The broker has no memory or disk left, and takes no messages.",
            "Sagas wait; what they send goes out once it takes messages again.",
            "vm_memory_high_watermark, disk_free_limit (RabbitMQ)",
            "give it memory or disk: rabbitmq-diagnostics alarms",
        )
    elif answer == "silent":
        yield Finding(
            Rule.ALARM,
            Severity.WRONG,
            f"The broker did not confirm a message within {_CONFIRM_WITHIN:g} s.",
            "What is not confirmed counts as not sent, and is sent again.",
            "the broker",
            "look at its load: rabbitmq-diagnostics status",
        )


# ---- names, versions, delays ------------------------------------------------------------------------


def _node_name(installation: Installation, broker: _Broker) -> Iterator[Finding]:
    node = installation.started.node if installation.started else f"celery@{socket.gethostname()}"
    no = broker.has_queue(f"{node}.celery.pidbox")
    if not isinstance(no, amqp.ResourceLocked):
        return
    if installation.started is None:
        yield Finding(
            Rule.NODE_NAME,
            Severity.NOTE,
            f"A worker runs under {node}, the name that Celery gives to all that have none.",
            "A second one on this machine ends at its start with RESOURCE_LOCKED.",
            "-n",
            "a name for each worker, as in: celery -A ... worker -n order@%h",
        )
    else:
        yield Finding(
            Rule.NODE_NAME,
            Severity.WRONG,
            f"Another worker runs under the name {node}.",
            "This one is about to end with RESOURCE_LOCKED.",
            "-n",
            "a name for each worker, as in: celery -A ... worker -n order2@%h",
        )


def version_rules(installation: Installation, version: tuple[int, ...]) -> Iterator[Finding]:
    """What this version of RabbitMQ does that others do not."""
    if not version:
        yield Finding(
            Rule.BROKER,
            Severity.UNKNOWN,
            "This broker does not say which RabbitMQ it is.",
            "Its habits are not known.",
            "the broker",
            "RabbitMQ, which is what this library is tested with",
        )
        return
    quorum = [queue.name for queue in installation.contracts if queue.type is QueueType.QUORUM]
    if version >= (4, 0) and quorum and _sent_once(installation):
        yield Finding(
            Rule.DELIVERY_LIMIT,
            Severity.NOTE,
            "RabbitMQ 4 drops a message that was delivered 20 times from a quorum queue.",
            f"What is sent only once ({listed(_sent_once(installation))}), or its answer, can go so; "
            "the saga then waits for a person.",
            "delivery-limit (RabbitMQ)",
            f"rabbitmqctl set_policy saga '^({'|'.join(map(re.escape, quorum))})$' "
            "'{\"delivery-limit\": -1}' --apply-to queues",
        )
    conf = installation.conf
    transient = [
        f"{kind}_queue_exclusive"
        for kind in ("control", "event")
        if not conf[f"{kind}_queue_exclusive"] and not conf[f"{kind}_queue_durable"]
    ]
    if version >= (4, 3) and transient:
        yield Finding(
            Rule.TRANSIENT_QUEUES,
            Severity.WRONG,
            f"{listed(transient)} {'is' if len(transient) == 1 else 'are'} off, and RabbitMQ "
            f"{'.'.join(map(str, version))} refuses queues that are neither durable nor exclusive.",
            "Workers cannot be controlled, or end at their start.",
            ", ".join(transient),
            "True, which is Celery's default",
        )


def _sent_once(installation: Installation) -> list[str]:
    """The services that keep no inbox, so that nothing is sent to them again."""
    services = {step.command.contract.service for step in installation.command_steps.values()}
    return sorted(service.name for service in services if not service.has_inbox)


def _delayed_delivery(installation: Installation, broker: _Broker) -> Iterator[Finding]:
    """Of apps that use it: they bind each queue by ``#.<its key>``; bindings cannot be asked for."""
    no = broker.ask(lambda channel: channel.exchange_declare(_DELAYED, "topic", passive=True))
    if no is not None:
        return
    names = [declaration.name for declaration in _declarations(installation)]
    ends = [
        (shorter, longer)
        for shorter in names
        for longer in names
        if shorter != longer and longer.endswith(f".{shorter}")
    ]
    listing = f"rabbitmqctl list_bindings -p {broker.vhost} source_name destination_name routing_key"
    if ends:
        shorter, longer = ends[0]
        yield Finding(
            Rule.DELAYED_DELIVERY,
            Severity.WRONG,
            f"An app in this virtual host has Celery delay messages, and {longer!r} ends in {shorter!r}.",
            f"A message for {longer} can reach {shorter} as well.",
            "the queues' names, or the virtual host",
            f"one virtual host for each system, or names of which none ends another; look: {listing}",
        )
    else:
        yield Finding(
            Rule.DELAYED_DELIVERY,
            Severity.NOTE,
            "An app in this virtual host has Celery delay messages (native delayed delivery).",
            "Queues that it binds by '#.<key>' also get what was sent to a longer key that ends so.",
            "the virtual host",
            f"one for each system; or look for keys that begin with '#.': {listing}",
        )


def _told(error: Exception) -> str:
    """The first line of what the broker or the network says, as a sentence."""
    line = str(getattr(error, "reply_text", None) or error).strip().partition("\n")[0]
    return line if line.endswith(".") else f"{line}."
