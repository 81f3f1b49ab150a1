"""Participants of the order platform, asked as an orchestrator asks them, on a database of the test's own."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from sagas_framework import Command, Compensation, Event, Participant, Subscriber
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.storage.database import Database
from sagas_framework.storage.outbox import Outbox, OutboxRow
from sagas_framework.storage.ports import Beat
from sagas_framework.transport import envelope
from sagas_framework.transport.envelope import WireMessage, to_wire
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire

ANN: Final = "ann's-own-token-0123456789"
BEN: Final = "ben's-own-token-9876543210"
TOKENS: Final = f"ann:{ANN},ben:{BEN}"
"""Operators, as the setting names them."""
BROWSER: Final = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@dataclass(frozen=True)
class Asking:
    """A saga of its own, which asks one participant for one thing."""

    participant: Participant
    saga: str = field(default_factory=lambda: str(uuid4()))

    def message(
        self,
        asked: Command[Any] | Compensation[Any] | type[Command[Any]],
        *,
        attempt: int = 1,
        known: bool = False,
        payload: dict[str, Any] | None = None,
    ) -> WireMessage:
        """What the orchestrator would send: a message, or what somebody says is the payload of one."""
        contract = asked.contract
        kind = Kind.UNDO if isinstance(asked, Compensation) else Kind.DO
        if not isinstance(asked, type):
            payload = asked.to_json()
        outgoing = Outgoing(
            saga_id=self.saga,
            message_id=message_id(self.saga, "step", kind, attempt),
            operation_id=operation_id(self.saga, "step"),
            kind=kind,
            task=contract.task,
            queue=contract.service.queue.name,
            attempt=attempt,
            not_after=datetime.now(UTC) + timedelta(hours=1),
            payload=payload,
            known=known,
        )
        return to_wire(envelope.command(outgoing, "replies"))

    def __call__(
        self, asked: Command[Any] | Compensation[Any], *, attempt: int = 1, known: bool = False
    ) -> tuple[str, Any]:
        """The result and the payload of the reply; `nothing` for no reply."""
        return answer(self.participant.receive(self.message(asked, attempt=attempt, known=known)))


def hear(
    subscriber: Subscriber,
    event: Event,
    *,
    event_id: str | None = None,
    at: datetime | None = None,
    number: int = 1,
) -> None:
    """Have the subscriber handle an event as it comes from the broker."""
    at = at or datetime.now(UTC)
    body = json.dumps(event.to_json())
    envelope = EventEnvelope(event_id or str(uuid4()), event.contract.task, body, at, number)
    subscriber.receive([event_to_wire(envelope)])
    for name in subscriber.subscriptions:
        subscriber.handle_due(name)


def answer(reply: WireMessage | None) -> tuple[str, Any]:
    """What a reply says: its result and its payload."""
    if reply is None:
        return "nothing", None
    read = envelope.from_wire(reply)
    return str(read.headers[envelope.RESULT]), read.payload


def told(participant: Participant) -> list[tuple[str, Any]]:
    """What the service has published since it was asked last: `(topic, fields)`, as a relay would send it."""
    sent: list[tuple[str, Any]] = []

    def send(rows: Sequence[OutboxRow]) -> list[bool]:
        sent.extend((row.topic, json.loads(row.body)) for row in rows)
        return [True] * len(rows)

    Outbox(participant.engine).send(send, 100, participant.clock())
    return sent


@contextmanager
def serving(service: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    """The service's participant on an empty database."""
    participant: Participant = importlib.import_module(f"{service}.handlers").participant
    with _on(participant, url, monkeypatch):
        yield participant


@contextmanager
def listening(service: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subscriber]:
    """The service's subscriber on an empty database."""
    subscriber: Subscriber = importlib.import_module(f"{service}.handlers").subscriber
    with _on(subscriber, url, monkeypatch):
        yield subscriber


@contextmanager
def _on(serves: Participant | Subscriber, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    package = importlib.import_module(serves.service.name)
    assert package.__file__ is not None
    database = Database(serves.service.name, url, Path(package.__file__).parent / "migrations")
    database.upgrade()
    monkeypatch.setattr(serves, "database", database)
    monkeypatch.setattr(serves, "_inbox", None)
    yield
    database.engine.dispose()


@contextmanager
def client_of(service: str, monkeypatch: pytest.MonkeyPatch, tokens: str = TOKENS) -> Iterator[Any]:
    """A client of the service's web application; its database is whatever `serving` gave it."""
    monkeypatch.setenv("OPERATOR_TOKENS", tokens)
    yield importlib.import_module(f"{service}.web").create_app().test_client()


@contextmanager
def session_of(serves: Participant | Subscriber) -> Iterator[Session]:
    """A session on the service's database, committed at its end."""
    with Session(serves.engine) as session, session.begin():
        yield session


def beat(serves: Participant | Subscriber) -> None:
    """Let the service's worker turn."""
    at = serves.clock()
    role = "subscriber" if isinstance(serves, Subscriber) else "participant"
    serves.inbox.beat(Beat(f"{serves.service.name}@box", role, at, at))


def csrf_of(page: str) -> str:
    """The token of a page's first form that has one."""
    return page.partition('name="csrf" value="')[2].partition('"')[0]
