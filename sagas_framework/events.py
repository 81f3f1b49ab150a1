"""Domain events: what a service says has happened, to whoever wants to know.

An event is declared like a command, by the service that publishes it::

    class StockLow(Event, service=inventory_service, name="stock_low"):
        item: str
        left: int

Nobody answers it, and nobody need listen. It travels on the topic exchange `EXCHANGE` under its topic,
``<service>.<name>``; every service that subscribes has one queue there, bound to the topics that it wants.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from sagas_framework.errors import DefinitionError
from sagas_framework.messages import Contract, Message, Queue, QueueType, Service

EXCHANGE: Final = "events"
"""The topic exchange of all events; durable."""

_WORDS: Final = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_LONGEST: Final = 200
_declared: dict[str, type[Event]] = {}


class Event(Message):
    """Something that has happened in one service. Frozen; unknown fields are ignored, as in all messages.

    Raises:
        DefinitionError: the class names no service or no name, the name cannot be a topic, or another
            class is that event already.
    """

    contract: ClassVar[Contract]

    def __init_subclass__(cls, *, service: Service | None = None, name: str = "") -> None:
        super().__init_subclass__()  # for type checkers; the work is done once pydantic has made the class

    @classmethod
    def __pydantic_init_subclass__(
        cls, *, service: Service | None = None, name: str = "", **kwargs: Any
    ) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        if not isinstance(service, Service) or not name:
            raise DefinitionError(
                f"{cls.__name__} needs a service and a name: "
                f'class {cls.__name__}(Event, service=some_service, name="..."). '
                "The name is written out so that renaming the class does not orphan events on their way."
            )
        cls.contract = Contract(service, name)
        topic = cls.contract.task
        if not _WORDS.fullmatch(topic) or len(topic) > _LONGEST:
            raise DefinitionError(
                f"{cls.__name__} cannot have the topic {topic!r}: write words of letters, digits, _ and - "
                f"with dots between them, at most {_LONGEST} characters. To a broker '*' and '#' mean others."
            )
        other = _declared.get(topic)
        # A module that is imported anew makes its classes anew.
        if other is not None and _place(other) != _place(cls):
            raise DefinitionError(
                f"{cls.__name__} and {_place(other)} are both the event {topic}: subscribers could not tell "
                "them apart. Give one of them another name=."
            )
        _declared[topic] = cls


def _place(event: type[Event]) -> str:
    return f"{event.__module__}.{event.__qualname__}"


def events_of(service: str) -> list[type[Event]]:
    """The events of this service that this process has declared: those in its contracts, by topic."""
    return [event for _, event in sorted(_declared.items()) if event.contract.service.name == service]


@dataclass(frozen=True)
class EventQueue(Queue):
    """A subscriber's queue. `topics`: what is bound to it on `EXCHANGE`, whoever declares it."""

    topics: tuple[str, ...] = ()


def event_queue(service: Service, topics: Iterable[str], queue_type: QueueType | None = None) -> EventQueue:
    """The one queue of a service for all events that it subscribes to: ``<service>.events``."""
    return EventQueue(
        f"{service.name}.events", queue_type or service.queue.type, tuple(sorted(dict.fromkeys(topics)))
    )
