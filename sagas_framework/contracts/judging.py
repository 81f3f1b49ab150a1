"""Whether what changed between two releases of a service breaks somebody who still is of the last one.

A release changes the service and nobody else. So what the service *receives* is sent by senders of the last
release, its commands that wait in queues, and rows of theirs that are sent again: they must be taken by the
new service. What it *sends* is received by others of the last release, and must be taken by them. With
replies it is the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sagas_framework.contracts.changes import Change, Effect, safe
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.documents import Channel, Document, Message, Operation, Reply
from sagas_framework.contracts.fields import Break, Side, breaks
from sagas_framework.contracts.schemas import definitions
from sagas_framework.contracts.words import Way, broken, either, of_command, of_reply, upper

_SUCCESS: Final = (".response.success", ".linked.success")


@dataclass(frozen=True)
class LastRelease:
    """What all services of the last release say."""

    documents: Sequence[Document]

    def takes(self, queue: str | None, task: str) -> bool | None:
        """Whether somebody takes a task from a queue; None if no document speaks of the queue."""
        taking = [
            operation
            for document in self.documents
            for operation in document.operations
            if operation.action == "receive" and operation.channel.address == queue
        ]
        return any(task in operation.tasks for operation in taking) if taking else None

    def others(self, service: str, operation: Operation) -> Iterator[tuple[Document, Operation]]:
        """Operations of other services at the other end of this one's queue."""
        for document in self.documents:
            for other in document.operations if document.service != service else ():
                if (
                    other.action != operation.action
                    and other.channel.address == operation.channel.address
                    and set(other.tasks) & set(operation.tasks)
                ):
                    yield document, other


@dataclass(frozen=True)
class Judge:
    """Compares one service's documents.

    Args:
        last: what the others of the last release say, and so send and take.
    """

    old: Document
    new: Document
    containing: Containing
    last: LastRelease

    def changes(self) -> Iterator[Change]:
        """What changed in brokers, operations, their queues and messages, in the order of the documents."""
        yield from self._servers()
        pairs = _paired(self.old.operations, self.new.operations)
        for old, new in pairs:
            if new is None:
                assert old is not None
                yield self._removed(old)
                continue
            told = [self._added(new)] if old is None else list(self._operation(old, new))
            yield from told
            yield from self._with_others(old, new, {(change.message, change.field) for change in told})

    @property
    def _service(self) -> str:
        return self.new.service

    # ---- brokers ------------------------------------------------------------------------------------

    def _servers(self) -> Iterator[Change]:
        for name, old in self.old.servers.items():
            new = self.new.servers.get(name, {})
            for key in ("protocol", "protocolVersion", "host", "pathname"):
                if old.get(key) != new.get(key):
                    gone = (
                        "is gone"
                        if not new
                        else f"has the {key} {new.get(key)!r} instead of {old.get(key)!r}"
                    )
                    yield _breaking(
                        "server-moved",
                        f"/servers/{name}",
                        f"The broker {name} {gone}: senders and receivers of the last release are still at "
                        "the other one.",
                        "senders and receivers of the last release",
                        "Keep the broker, or move all services at once, when its queues are empty.",
                    )
                    break

    # ---- operations ---------------------------------------------------------------------------------

    def _added(self, new: Operation) -> Change:
        if new.action == "receive":
            return safe(
                "receive-added",
                new.pointer,
                f"{self._service} takes {new.called} now; nobody of the last release sends it.",
                message=new.called,
            )
        queue = new.channel.address
        known = [self.last.takes(queue, task) for task in new.tasks]
        if False in known:
            return _breaking(
                "send-added",
                new.pointer,
                f"The new {self._service} sends {new.called} to {queue}; the service that takes from it does "
                "not know it in the last release, and refuses it.",
                "receivers of the last release",
                "Release the service that takes it first, and what sends it in a later release.",
                message=new.called,
            )
        taken = (
            "a service of the last release takes it"
            if all(known) and known
            else f"no document of the last release speaks of {queue}: see that somebody takes from it"
        )
        return safe(
            "send-added",
            new.pointer,
            f"{self._service} sends {new.called} now; {taken}.",
            message=new.called,
        )

    def _removed(self, old: Operation) -> Change:
        if _is_event(old):
            return self._removed_event(old)
        if old.action == "send":
            return safe(
                "send-removed",
                old.pointer,
                f"{self._service} does not send {old.called} any more; who takes it waits for nothing. "
                "Its own sagas that are in flight may: a worker does not start without their declaration.",
                message=old.called,
            )
        twin = next(
            (
                new
                for new in self.new.operations
                if new.action == "receive"
                and new.channel.address == old.channel.address
                and not set(new.tasks) & {task for one in self.old.operations for task in one.tasks}
            ),
            None,
        )
        renamed = f" It looks as if it were called {twin.called} now." if twin is not None else ""
        return _breaking(
            "receive-removed",
            old.pointer,
            f"A sender of the last release still sends {old.called} to {old.channel.address}; the new "
            f"{self._service} does not take it.{renamed}",
            "senders of the last release",
            f"Keep {old.called}{' beside the new name' if twin is not None else ''} until nobody sends it, "
            "no message of it is left, and no saga is in flight that may send it.",
            message=old.called,
        )

    def _removed_event(self, old: Operation) -> Change:
        """Nobody waits for an answer: who subscribes is told nothing any more, who published is not told."""
        if old.action == "receive":
            return safe(
                "subscription-removed",
                old.pointer,
                f"{self._service} does not subscribe to {old.called} any more; who publishes it does not "
                f"mind. Its queue stays bound to the topic until somebody says: "
                f"saga -A {self._service}.worker events unbind {old.channel.address}.",
                message=old.called,
            )
        others = [document.service for document, _ in self.last.others(self._service, old)]
        if not others:
            return safe(
                "event-removed",
                old.pointer,
                f"{self._service} does not publish {old.called} any more, and no document of the last "
                "release subscribes to it.",
                message=old.called,
            )
        return _breaking(
            "event-removed",
            old.pointer,
            f"{self._service} does not publish {old.called} any more; {either(sorted(others))} of the last "
            "release subscribes to it, and would never hear of it again.",
            "subscribers of the last release",
            f"Publish {old.called} until nobody subscribes to it.",
            message=old.called,
        )

    def _operation(self, old: Operation, new: Operation) -> Iterator[Change]:
        command = of_command(self._service, new.action)
        yield from self._queue(old, new, command)
        yield from self._declared(old.channel, new.channel)
        yield from self._brokers(old, old.channel, new.channel, command)
        yield from self._messages(old.messages, new.messages, command, old)
        yield from self._replies(old, new)

    def _queue(self, old: Operation, new: Operation, way: Way) -> Iterator[Change]:
        before, after = old.channel.address, new.channel.address
        if before == after:
            return
        yield _breaking(
            "queue-moved",
            old.channel.pointer,
            f"{way.sends} {old.called} to {before if way.old_sends else after}; {way.receiver} takes it from "
            f"{after if way.old_sends else before}.",
            way.breaks,
            f"Keep {before}. Or let the receiver take from both: first from the new one, too; then change "
            f"where it is sent; and leave {before} when it is empty.",
            message=old.called,
        )

    def _declared(self, old: Channel, new: Channel) -> Iterator[Change]:
        if old.address != new.address or old.declared == new.declared:
            return
        differing = sorted(
            key
            for key in old.declared.keys() | new.declared.keys()
            if old.declared.get(key) != new.declared.get(key)
        )
        before = ", ".join(f"{key} {old.declared.get(key)!r}" for key in differing)
        after = ", ".join(f"{key} {new.declared.get(key)!r}" for key in differing)
        yield _breaking(
            "queue-declared-otherwise",
            f"{old.pointer}/bindings",
            f"The new {self._service} declares the queue {old.address} with {after}, and everybody of the "
            f"last release with {before}: RabbitMQ refuses whoever comes second.",
            "senders and receivers of the last release",
            "Declare it as before, or declare a queue of another name.",
        )

    def _brokers(self, about: Operation, old: Channel, new: Channel, way: Way) -> Iterator[Change]:
        """A channel that is at other ones of the brokers than before."""
        before, after = old.servers or set(self.old.servers), new.servers or set(self.new.servers)
        sent, taken = (before, after) if way.old_sends else (after, before)
        if sent <= taken or not taken:
            return
        yield _breaking(
            "server-moved",
            f"{old.pointer}/servers",
            f"{way.sends} {'answers to ' if way.reply else ''}{about.called} at "
            f"{either(sorted(sent - taken))}; {way.receiver} takes them only from {either(sorted(taken))}.",
            way.breaks,
            "Let the receiver take from both brokers first; then change where it is sent.",
            message=about.called,
        )

    # ---- the other end ------------------------------------------------------------------------------

    def _with_others(
        self, old: Operation | None, new: Operation, told: Collection[tuple[str, str]]
    ) -> Iterator[Change]:
        """What breaks between the new service and the documents of others, and did not break before.

        A sender may send more than its receiver's document names, and a receiver ignores that until it
        gives the field a meaning of its own.
        """
        if old is not None and _said(old, self.old) == _said(new, self.new):
            return
        for document, other in self.last.others(self.new.service, new):
            before = [] if old is None else self._between(self.old, old, document, other)
            known = {(change.code, change.message, change.field) for change in before}
            for change in self._between(self.new, new, document, other):
                about = (change.message, change.field)
                if (change.code, *about) not in known and about not in told:
                    yield change

    def _between(
        self, own: Document, operation: Operation, document: Document, other: Operation
    ) -> list[Change]:
        """What of the messages between two services would not be taken."""
        ways = [(of_command(self._service, operation.action), operation.messages, other.messages)]
        if operation.reply is not None and other.reply is not None:
            way = of_reply(self._service, operation.action)
            ways.append((way, operation.reply.messages, other.reply.messages))
        found: list[Change] = []
        for way, ours, theirs in ways:
            sent, taken = (theirs, ours) if way.old_sends else (ours, theirs)
            senders, receivers = (document, own) if way.old_sends else (own, document)
            for message in sent:
                tried = [
                    list(self._message(message, senders, one, receivers, way))
                    for one in sorted(taken, key=lambda one: one.key != message.key)
                    if one.task == message.task
                ]
                found += tried[0] if tried and all(tried) else ()
        return found

    # ---- messages -----------------------------------------------------------------------------------

    def _messages(
        self, old: Sequence[Message], new: Sequence[Message], way: Way, about: Operation
    ) -> Iterator[Change]:
        sent, taken = (old, new) if way.old_sends else (new, old)
        senders, receivers = (self.old, self.new) if way.old_sends else (self.new, self.old)
        for message in sent:
            yield from self._taken(message, senders, taken, receivers, way, about)
        told = "is new" if way.old_sends else "is not sent any more"
        for message in taken:
            if not any(other.key == message.key for other in sent):
                yield safe(
                    "message-removed" if not way.old_sends else "message-added",
                    message.pointer,
                    f"{message.key} {told}; {way.receiver} takes it, and {way.sender} does not send it.",
                    message=message.key,
                )

    def _taken(
        self,
        message: Message,
        senders: Document,
        taken: Sequence[Message],
        receivers: Document,
        way: Way,
        about: Operation,
    ) -> Iterator[Change]:
        same = [other for other in taken if other.key == message.key]
        alike = [other for other in taken if other.key != message.key and other.task == message.task]
        found: list[Change] | None = None
        for other in (*same, *alike):
            changes = list(self._message(message, senders, other, receivers, way))
            if not changes:
                if other.key != message.key:
                    yield safe(
                        "message-taken-as",
                        message.pointer,
                        f"{upper(way.sender)} may send {message.key}; {way.receiver} takes it as "
                        f"{other.key}.",
                        message=message.key,
                    )
                return
            found = found or changes
        if found and same:
            yield from found
            return
        instead = (
            f"Keep {message.key}; take it away in a later release, {way.later}."
            if way.old_sends
            else f"Deploy a receiver that knows {message.key} first; send it in a later release."
        )
        yield _breaking(
            "message-not-taken",
            message.pointer,
            f"{way.sends} {message.key}; {way.receiver} has no such message for {about.called}.",
            way.breaks,
            instead,
            message=message.key,
        )

    def _message(
        self, sent: Message, senders: Document, taken: Message, receivers: Document, way: Way
    ) -> Iterator[Change]:
        """What of a message its receiver would not take."""
        for what, before in sent.form.items():
            if before != taken.form.get(what):
                yield _breaking(
                    "form",
                    sent.pointer,
                    f"{way.sends} {sent.key} with the {what} {before or 'that nobody names'}; {way.receiver} "
                    f"takes it with {taken.form.get(what) or 'another that nobody names'}.",
                    way.breaks,
                    f"Keep the {what}.",
                    message=sent.key,
                )
        if sent.correlation != taken.correlation:
            yield _breaking(
                "correlation-moved",
                f"{sent.pointer}/correlationId",
                f"{way.sends} {sent.key} with its correlation id at {sent.correlation or 'no place'}; "
                f"{way.receiver} looks for it at {taken.correlation or 'no place'}.",
                way.breaks,
                "Keep the place of the correlation id.",
                message=sent.key,
            )
        if sent.form["schema format"] is not None or taken.form["schema format"] is not None:
            yield from self._in_another_language(sent, taken, way)
            return
        for part, closed in (("headers", True), ("payload", False)):
            there = Side(getattr(sent, part), senders)
            here = Side(getattr(taken, part), receivers)
            for found in breaks(there, here, self.containing, closed=closed):
                yield self._of_task(sent, taken, found, part, way) or broken(way, sent, part, found)

    def _of_task(self, sent: Message, taken: Message, found: Break, part: str, way: Way) -> Change | None:
        if part != "headers" or found.path != ("task",) or sent.task == taken.task:
            return None
        return _breaking(
            "task-renamed",
            f"{sent.pointer}/headers",
            f"{way.sends} the task {sent.task}; {way.receiver} knows it only as {taken.task}.",
            way.breaks,
            "Keep the task's name (name= of its contract), or keep both until nobody uses the old one.",
            message=sent.key,
            field="task",
        )

    def _in_another_language(self, sent: Message, taken: Message, way: Way) -> Iterator[Change]:
        if sent.payload != taken.payload:
            yield _breaking(
                "undecided",
                f"{sent.pointer}/payload",
                f"The payload of {sent.key} has changed, and schemas of the format "
                f"{sent.form['schema format'] or taken.form['schema format']} cannot be compared here.",
                way.breaks,
                "Compare them with a tool for that format, or make it a change of a major version.",
                message=sent.key,
            )

    # ---- replies ------------------------------------------------------------------------------------

    def _replies(self, old: Operation, new: Operation) -> Iterator[Change]:
        way = of_reply(self._service, new.action)
        if old.reply is None and new.reply is None:
            return
        if old.reply is None or new.reply is None:
            yield self._answered_or_not(old, new, way)
            return
        yield from self._reply_queue(old, old.reply, new.reply, way)
        yield from self._messages(old.reply.messages, new.reply.messages, way, old)
        yield from self._success(old, old.reply, new.reply)

    def _answered_or_not(self, old: Operation, new: Operation, way: Way) -> Change:
        receives, answered = new.action == "receive", new.reply is not None
        if receives:
            what = (
                f"The new {self._service} answers {old.called}; a sender of the last release expects no "
                "answer and names no queue for it."
                if answered
                else f"The new {self._service} does not answer {old.called}; a sender of the last release "
                "waits for the answer until its step's timeout."
            )
            breaks_whom = "senders of the last release"
        else:
            what = (
                f"The new {self._service} waits for an answer to {old.called}; a participant of the last "
                "release sends none."
                if answered
                else f"A participant of the last release still answers {old.called}; the new {self._service} "
                "does not take the answer."
            )
            breaks_whom = "participants of the last release"
        return _breaking(
            "reply-added" if answered else "reply-removed",
            f"{old.pointer}/reply",
            what,
            breaks_whom,
            "Declare a new command, and move to it when its receivers have been deployed.",
            message=old.called,
        )

    def _reply_queue(self, old: Operation, before: Reply, after: Reply, way: Way) -> Iterator[Change]:
        was, is_now = _answers_to(before), _answers_to(after)
        if was != is_now:
            yield _breaking(
                "reply-queue-moved",
                f"{old.pointer}/reply",
                f"The answers to {old.called} go to {is_now} instead of {was}: those to what one release "
                "has sent come where nobody of the other one looks.",
                way.breaks,
                f"Keep {was} until no saga of the last release is in flight and it is empty.",
                message=old.called,
            )
        elif before.channel is not None and after.channel is not None:
            yield from self._declared(before.channel, after.channel)
            yield from self._brokers(old, before.channel, after.channel, way)

    def _success(self, old: Operation, before: Reply, after: Reply) -> Iterator[Change]:
        """A command whose success is not told any more."""
        gone = sorted({m.task for m in before.messages} - {m.task for m in after.messages})
        for task in gone:
            if old.action == "receive" and task.endswith(_SUCCESS):
                yield _breaking(
                    "success-removed",
                    f"{old.pointer}/reply",
                    f"The new {self._service} does not send {task}; an orchestrator of the last release "
                    "waits for it until its step's timeout, and then undoes the step.",
                    "orchestrators of the last release",
                    f"Keep sending {task}.",
                    message=task,
                )


def _said(operation: Operation, document: Document) -> list[Any]:
    """All that its messages are, with everything that they refer to."""
    replies = operation.reply.messages if operation.reply is not None else ()
    return [
        (one, definitions([one.headers, one.payload], document)) for one in (*operation.messages, *replies)
    ]


def _answers_to(reply: Reply) -> str:
    if reply.location is not None:
        return f"the queue at {reply.location}"
    address = reply.channel.address if reply.channel is not None else None
    return address or "a queue that is not named"


def _paired(
    old: Sequence[Operation], new: Sequence[Operation]
) -> Iterator[tuple[Operation | None, Operation | None]]:
    """Old and new operations that are the same: of one name, or else of one queue and the same tasks."""
    left = list(new)
    for one in old:
        fits = [other for other in left if other.action == one.action]
        twin = next((other for other in fits if other.key == one.key), None) or next(
            (
                other
                for other in fits
                if other.channel.address == one.channel.address and other.tasks == one.tasks
            ),
            None,
        )
        if twin is not None:
            left.remove(twin)
        yield one, twin
    for other in left:
        yield None, other


def _is_event(operation: Operation) -> bool:
    """Whether it is on a topic, where as many services take it as want to."""
    return operation.channel.declared.get("is") == "routingKey"


def _breaking(code: str, pointer: str, what: str, breaks_whom: str, instead: str, **about: Any) -> Change:
    return Change(code, Effect.BREAKING, pointer, what, breaks_whom, instead, **about)
