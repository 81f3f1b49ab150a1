"""A broker that loses, doubles, delays and reorders messages as the choices say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from sagas_framework.core.ids import Kind, operation_id
from sagas_framework.saga import SagaDefinition
from sagas_framework.testing.choices import duration
from sagas_framework.testing.world import World
from sagas_framework.transport.envelope import ATTEMPT, KNOWN, NOT_AFTER, OPERATION_ID, WireMessage
from sagas_framework.transport.publisher import Load, Receipt

LATENCY: Final = 0.01

_SENDING: Final = (
    "arrives",
    "lost",
    "lost, unconfirmed",
    "arrives, unconfirmed",
    "no queue",
    "twice",
    "twice, 0.5 s apart",
    "twice, 7 s apart",
    "twice, 45 s apart",
    "twice, 400 s apart",
    "late 0.5 s",
    "late 5 s",
    "late 15 s",
    "late 45 s",
    "late 100 s",
    "late 400 s",
    "late 1500 s",
    "late 16000 s",
    "corrupted",
    "broker wiped",
)


def kind_of(message: WireMessage) -> Kind:
    """What a command's message asks for."""
    if KNOWN not in message.headers:
        return Kind.DO
    return Kind.SETTLE if str(message.headers.get("task")).endswith(".settle") else Kind.UNDO


def expires(message: WireMessage) -> datetime | None:
    """After which moment it is neither executed nor answered; None for what never expires."""
    not_after = message.headers.get(NOT_AFTER)
    return None if not_after is None else datetime.fromisoformat(not_after)


def identity(message: WireMessage) -> tuple[str, str, bytes]:
    """The same for messages that nobody can tell apart."""
    return message.queue, str(message.headers.get("id")), message.body


class Names:
    """What messages are called: ``reserve 1``, ``undo reserve 2``, ``settle pay 1``, ``answer to pay 1``."""

    def __init__(self) -> None:
        self.operations: dict[str, str] = {}
        self._messages: dict[str, str] = {}

    def introduce(self, saga_id: str, definition: SagaDefinition, prefix: str) -> None:
        """Learn the operations of a saga."""
        for step in definition.steps:
            self.operations[operation_id(saga_id, step.name)] = f"{prefix}{step.name}"

    def of(self, message: WireMessage) -> str:
        """The name of a message."""
        headers = message.headers
        if OPERATION_ID not in headers:
            return "answer to " + self._messages.get(str(headers.get("root_id")), str(headers.get("task")))
        step = self.operations.get(str(headers[OPERATION_ID]), str(headers.get("task")))
        kind = kind_of(message)
        name = f"{'' if kind is Kind.DO else f'{kind.value} '}{step} {headers.get(ATTEMPT, 1)}"
        self._messages[str(headers.get("id"))] = name
        return name


class Network:
    """Queues, and what is on its way to them.

    Attributes:
        sent: name of every message that was published, in order.
        missing: queues that do not exist.
        under_way: how many messages of each operation are on the network, or being handled.
    """

    def __init__(self, world: World, names: Names) -> None:
        self.world = world
        self.names = names
        self.sent: list[str] = []
        self.missing: set[str] = set()
        self._queues: dict[str, list[WireMessage]] = defaultdict(list)
        self._ready: dict[str, Callable[[], None]] = {}
        self._wipes = 0
        self.under_way: Counter[str] = Counter()

    def consume(self, queue: str, ready: Callable[[], None]) -> None:
        """Have this called whenever a message has come to the queue."""
        self._ready[queue] = ready

    def waiting(self, queue: str) -> int:
        """How many messages wait in the queue."""
        return len(self._queues[queue])

    def take(self, queue: str, limit: int = 1) -> list[WireMessage]:
        """The first messages of the queue; they leave it."""
        taken, self._queues[queue] = self._queues[queue][:limit], self._queues[queue][limit:]
        return taken

    def queued(self) -> Iterator[WireMessage]:
        """Every message that waits in a queue."""
        for queue in self._queues.values():
            yield from queue

    def may_come(self, key: str) -> bool:
        """Whether a message of this operation may still come to its participant."""
        return self.under_way[key] > 0 or any(
            message.headers.get(OPERATION_ID) == key for message in self.queued()
        )

    def redeliver(self, message: WireMessage, after: float) -> None:
        """A message that was not acknowledged comes again, unless the broker is wiped before."""
        self._put(message, after)

    def wipe(self) -> None:
        """Every queue is emptied, and what is on its way is gone."""
        self.world.say("the broker is wiped")
        self._wipes += 1
        self._queues.clear()

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        """See `sagas_framework.transport.publisher.Publisher`."""
        return [self._publish(message) for message in messages]

    def load(self, queue: str) -> Load | None:
        """See `sagas_framework.transport.publisher.Publisher`."""
        return Load(self.waiting(queue))

    def close(self) -> None:
        """See `sagas_framework.transport.publisher.Publisher`."""

    def _publish(self, message: WireMessage) -> Receipt:
        name = self.names.of(message)
        self.sent.append(name)
        fate = self.world.choices.at(f"sending {name}", _SENDING, weight=1.5)
        self.world.say(f"{name} is sent" + ("" if fate == _SENDING[0] else f": {fate}"))
        if fate == "no queue" or message.queue in self.missing:
            return Receipt.UNROUTABLE
        if fate == "lost, unconfirmed":
            return Receipt.UNSENT
        if fate == "broker wiped":
            self._put(message, LATENCY)
            self.world.after(LATENCY / 2, self.wipe, ("the broker is wiped",))
            return Receipt.CONFIRMED
        if fate == "corrupted":
            message = replace(message, body=message.body[: len(message.body) // 2])
        if fate.startswith("late "):
            self._put(message, LATENCY + (duration(fate)))
        elif fate != "lost":
            self._put(message, LATENCY)
            if fate.startswith("twice"):
                self._put(message, LATENCY + (duration(fate)))
        return Receipt.UNSENT if fate == "arrives, unconfirmed" else Receipt.CONFIRMED

    def _put(self, message: WireMessage, after: float) -> None:
        wipes = self._wipes
        key = str(message.headers.get(OPERATION_ID))
        self.under_way[key] += 1

        def arrive() -> None:
            self.under_way[key] -= 1
            if wipes == self._wipes:
                self._queues[message.queue].append(message)
                if message.queue in self._ready:
                    self._ready[message.queue]()

        expiry = expires(message)
        too_late = expiry is not None and (expiry - self.world.now).total_seconds() < after
        self.world.after(after, arrive, ("arrives", *identity(message), too_late))
