"""The participant: the library's own, whose handlers answer as they are told. It says what it does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from typing_extensions import override

from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind
from sagas_framework.messages import Service, settle_task
from sagas_framework.participant import Context, Participant
from sagas_framework.stub.behaviour import SUCCESS, Behaviour
from sagas_framework.stub.contracts import Example, command, compensation, failure
from sagas_framework.stub.document import Document, Taken
from sagas_framework.transport.envelope import (
    ATTEMPT,
    KNOWN,
    RESULT,
    UnreadableError,
    WireMessage,
    from_wire,
)
from sagas_framework.transport.publisher import Receipt


class StubFault(Exception):
    """Something that may have passed at the next attempt."""


@dataclass(frozen=True)
class Told:
    """What became of one message.

    Args:
        saga_id, task: as far as the message could be read.
        attempt: of the command or of its compensation, from 1.
        result: ``success``, ``refused``, ``failed``, ``silent``, ``set aside`` or ``not answered``.
        payload: of the answer.
        why: a sentence, where there is no answer or a late one.
    """

    at: datetime
    saga_id: str
    task: str
    attempt: int
    result: str
    payload: Any = None
    why: str = ""


Tell = Callable[[Told], None]
Publish = Callable[[Sequence[WireMessage]], Sequence[Receipt]]


class StubParticipant(Participant):
    """A service that exists as a document only.

    Args:
        behaviours: by task; see `behaviours`.
        database: where its inbox is kept.
        tell: is told of every message; of a delayed answer from another thread.

    Attributes:
        publish: sends the answers that are delayed. To be set before it receives anything.
    """

    publish: Publish

    def __init__(
        self, document: Document, behaviours: Mapping[str, Behaviour], *, database: str, tell: Tell
    ) -> None:
        super().__init__(Service(document.service, document.queue), database=database)
        self._behaviours = behaviours
        self._tell = tell
        self._taken = {taken.task: taken for taken in document.taken}
        self._set_aside = False
        self._waiting: set[threading.Timer] = set()
        for taken in document.taken:
            self._take(taken)

    # ---- handlers -----------------------------------------------------------------------------------

    def _take(self, taken: Taken) -> None:
        """Register the handler of a command or a compensation."""
        behave = self._handler(taken)
        if taken.undoes:
            self.undoes(compensation(taken, self.service))(behave)
            return
        failures = tuple(failure(declared) for declared in taken.refusals.values())

        def handle(_command: object, context: Context) -> Example:
            behave(_command, context)
            return Example(payload=self._behaviours[taken.task].answer)

        self.handles(command(taken, self.service, failures))(handle)

    def _handler(self, taken: Taken) -> Callable[[object, Context], None]:
        """What precedes a success, or raises in its place."""
        behaviour = self._behaviours[taken.task]
        refusal = behaviour.refusal
        refuses = None if refusal is None else failure(refusal)

        def behave(_message: object, context: Context) -> None:
            if context.attempt <= behaviour.failing:
                raise StubFault(f"attempt {context.attempt} fails, as --fail says")
            if refusal is not None and refuses is not None:
                raise refuses(refusal.message or "refused, as --refuse says")

        return behave

    def _learn(self, message: WireMessage) -> None:
        """Take a task for a compensation once a message says so, where the document leaves it open.

        A task is always the one or always the other, and no handler runs before that is known.
        """
        handling = self._handlings.get(str(message.headers.get("task")))
        taken = self._taken.get(str(message.headers.get("task")))
        if taken is None or handling is None or handling.kind is not Kind.DO or KNOWN not in message.headers:
            return
        del self._handlings[taken.task], self._handlings[settle_task(handling.command)]
        self._take(replace(taken, undoes=True))

    # ---- receiving ----------------------------------------------------------------------------------

    @override
    def receive(self, message: WireMessage) -> WireMessage | None:
        behaviour = self._behaviours.get(str(message.headers.get("task")), SUCCESS)
        if behaviour.silent:
            self._say(message, "silent", why="as --silent says")
            return None
        self._learn(message)
        self._set_aside = False
        answer = super().receive(message)
        if answer is None:
            if not self._set_aside:
                self._say(message, "not answered", why="the inbox cannot be written; it will come again")
            return None
        if not behaviour.delay:
            self._say_answer(message, answer)
            return answer
        self._later(message, answer, behaviour)
        return None

    @override
    def set_aside(self, message: WireMessage, reason: str, path: str = "$") -> None:
        super().set_aside(message, reason, path)
        self._set_aside = True
        self._say(message, "set aside", why=reason if path == "$" else f"{reason} ({path})")

    def _later(self, message: WireMessage, answer: WireMessage, behaviour: Behaviour) -> None:
        """Answer after the delay. The inbox has the answer, as if it had been long on its way."""

        def publish() -> None:
            self._waiting.discard(timer)
            (receipt,) = self.publish([answer])
            if receipt is Receipt.CONFIRMED:
                self._say_answer(message, answer, f"after {behaviour.delay.total_seconds():g} s")
            else:
                self._say(
                    message, "not answered", why=f"the late answer is {receipt.value} on {answer.queue}"
                )

        timer = threading.Timer(behaviour.delay.total_seconds(), publish)
        timer.daemon = True
        self._waiting.add(timer)
        timer.start()

    def close(self) -> int:
        """Give up the answers that are still delayed; how many there were."""
        waiting = list(self._waiting)
        for timer in waiting:
            timer.cancel()
        self._waiting.clear()
        return len(waiting)

    # ---- telling ------------------------------------------------------------------------------------

    def _say_answer(self, message: WireMessage, answer: WireMessage, why: str = "") -> None:
        envelope = from_wire(answer)
        result = Result(envelope.headers[RESULT])
        self._say(message, result.value, envelope.payload, why)

    def _say(self, message: WireMessage, result: str, payload: Any = None, why: str = "") -> None:
        try:
            saga_id = from_wire(message).saga_id
        except UnreadableError:
            saga_id = ""
        attempt = message.headers.get(ATTEMPT, 1)
        self._tell(
            Told(
                at=self.clock(),
                saga_id=saga_id,
                task=str(message.headers.get("task", "")),
                attempt=attempt if isinstance(attempt, int) else 1,
                result=result,
                payload=payload,
                why=why,
            )
        )
