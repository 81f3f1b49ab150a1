"""Who talks to whom, read from the documents of several services. No places, no SVG."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sagas_framework.references import follow

Document = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """A service's side of a channel.

    Args:
        service: whose document has it.
        id: its key in the document's ``operations``.
        anchor: the fragment of the address at which the docs page shows it.
    """

    service: str
    id: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Talk:
    """A channel, with who sends to it, who receives from it, and what is answered.

    Args:
        channel: its key in the documents; for a command, the name of the Celery task.
        address: the queue; of an event, its topic.
        title: of the channel, for people.
        sender, receiver: None if no document has that side.
        replies: names of the messages that may come back, in the document's order.
        reply_address: the queue of the replies; None if only the sender knows it and it has no document.
        tags: of the operations on both sides.
        exchange: on which the topic is; None for a queue.
    """

    channel: str
    address: str
    title: str
    sender: Operation | None
    receiver: Operation | None
    replies: tuple[str, ...] = ()
    reply_address: str | None = None
    tags: frozenset[str] = frozenset()
    exchange: str | None = None

    @property
    def place(self) -> str:
        """Where it is sent, in words."""
        return f"exchange {self.exchange}" if self.exchange else f"queue {self.address}"

    @property
    def short(self) -> str:
        """The channel's name without the name of who receives from it."""
        return self.channel.removeprefix(f"{self.receiver.service}.") if self.receiver else self.channel

    @property
    def answers(self) -> tuple[str, ...]:
        """The replies' names without what every reply to this channel begins with."""
        begins = f"{self.channel}.response."
        return tuple(name.removeprefix(begins).removeprefix("failure.") for name in self.replies)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A service with which another one talks."""

    name: str
    title: str
    sends_to: tuple[Talk, ...]
    """What the other one sends to it."""
    receives_from: tuple[Talk, ...]
    """What the other one receives from it."""


@dataclass(frozen=True)
class System:
    """Services and their talk.

    Args:
        titles: of the services, by name, in the order in which the documents were given.
        talks: by sender, then by receiver, each with the channels in the order of the sender's document;
            what nobody is known to send comes last.
    """

    titles: Mapping[str, str]
    talks: tuple[Talk, ...]

    @classmethod
    def of(cls, documents: Mapping[str, Document]) -> System:
        """The system that the documents describe together.

        Args:
            documents: AsyncAPI 3 documents by the services' names.
        """
        titles = {name: str(document["info"]["title"]) for name, document in documents.items()}
        sides = [side for name, document in documents.items() for side in _sides(name, document)]
        sends = [side for side in sides if side.action == "send"]
        receives = [side for side in sides if side.action == "receive"]
        talks = []
        for send in sends:
            meets = [receive for receive in receives if receive.meets(send)]
            talks += [_talk(send, receive) for receive in meets] or [_talk(send, None)]
        talks += [_talk(None, receive) for receive in receives if not any(map(receive.meets, sends))]
        return cls(titles, tuple(_together(talks)))

    def neighbours(self, service: str) -> list[Neighbour]:
        """The services with which this one talks, in the order of the documents."""
        found = []
        for name, title in self.titles.items():
            to = tuple(talk for talk in self.talks if _pair(talk) == (service, name))
            back = tuple(talk for talk in self.talks if _pair(talk) == (name, service))
            if name != service and (to or back):
                found.append(Neighbour(name, title, to, back))
        return found


def _together(talks: list[Talk]) -> list[Talk]:
    """Talks of the same two services beside each other, otherwise in the order in which they came."""
    first: dict[tuple[str | None, str | None], int] = {}
    for number, talk in enumerate(talks):
        first.setdefault(_pair(talk), number)
        first.setdefault((_pair(talk)[0], ""), number)
    return sorted(talks, key=lambda talk: (first[_pair(talk)[0], ""], first[_pair(talk)]))


def _pair(talk: Talk) -> tuple[str | None, str | None]:
    return (
        talk.sender.service if talk.sender else None,
        talk.receiver.service if talk.receiver else None,
    )


# ---- from a document ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Side:
    """An operation with what is needed to find its other side."""

    action: str
    operation: Operation
    channel: str
    title: str
    address: str
    messages: frozenset[str]
    replies: tuple[str, ...]
    reply_address: str | None
    tags: frozenset[str]
    exchange: str | None

    def meets(self, other: _Side) -> bool:
        """Whether the two talk: the same queue, and a message in common."""
        return self.address == other.address and bool(self.messages & other.messages)


def _sides(service: str, document: Document) -> Iterator[_Side]:
    for key, operation in document.get("operations", {}).items():
        reference = operation["channel"]["$ref"]
        channel = follow(document, operation["channel"])
        reply = operation.get("reply")
        reply_channel = follow(document, reply["channel"]) if reply and "channel" in reply else {}
        yield _Side(
            action=str(operation["action"]),
            operation=Operation(service, key, _anchor(key, operation)),
            channel=reference.rpartition("/")[2].replace("~1", "/").replace("~0", "~"),
            title=str(channel.get("title") or operation.get("title") or key),
            address=str(channel.get("address") or ""),
            messages=frozenset(_names(document, channel)),
            replies=tuple(_replies(document, reply or {}, reply_channel)),
            reply_address=reply_channel.get("address"),
            tags=frozenset(str(follow(document, tag)["name"]) for tag in operation.get("tags", ())),
            exchange=_exchange(channel),
        )


def _exchange(channel: Mapping[str, Any]) -> str | None:
    amqp = channel.get("bindings", {}).get("amqp", {})
    return str(amqp["exchange"].get("name")) if amqp.get("is") == "routingKey" else None


def _names(document: Document, channel: Mapping[str, Any]) -> Iterator[str]:
    for key, message in channel.get("messages", {}).items():
        yield str(follow(document, message).get("name") or key)


def _replies(document: Document, reply: Mapping[str, Any], channel: Mapping[str, Any]) -> Iterator[str]:
    messages = reply.get("messages") or list(channel.get("messages", {}).values())
    for message in messages:
        yield str(follow(document, message).get("name") or message.get("$ref", "").rpartition("/")[2])


def _anchor(key: str, operation: Mapping[str, Any]) -> str:
    """As `@asyncapi/react-component` names the place of an operation: what is answered has other words."""
    if operation.get("reply"):
        action = {"send": "request", "receive": "reply"}[operation["action"]]
    else:
        action = operation["action"]
    return f"operation-{action}-{key}"


def _talk(send: _Side | None, receive: _Side | None) -> Talk:
    # The replies are as the receiver says, who makes them; their queue only the sender knows.
    side = receive or send
    assert side is not None
    return Talk(
        channel=side.channel,
        address=side.address,
        title=side.title,
        sender=send.operation if send else None,
        receiver=receive.operation if receive else None,
        replies=side.replies,
        reply_address=send.reply_address if send else side.reply_address,
        tags=frozenset().union(*(one.tags for one in (send, receive) if one)),
        exchange=side.exchange,
    )
