"""Participants of the order platform, asked as an orchestrator asks them, on a database of the test's own."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pytest
from sqlalchemy.orm import Session

from sagas_framework import Command, Compensation, Participant
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.storage.database import Database
from sagas_framework.storage.ports import Beat
from sagas_framework.transport import envelope
from sagas_framework.transport.envelope import WireMessage, to_wire

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


def answer(reply: WireMessage | None) -> tuple[str, Any]:
    """What a reply says: its result and its payload."""
    if reply is None:
        return "nothing", None
    read = envelope.from_wire(reply)
    return str(read.headers[envelope.RESULT]), read.payload


@contextmanager
def serving(service: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    """The service's participant on an empty database."""
    package = importlib.import_module(service)
    assert package.__file__ is not None
    database = Database(service, url, Path(package.__file__).parent / "migrations")
    database.upgrade()
    participant: Participant = importlib.import_module(f"{service}.handlers").participant
    monkeypatch.setattr(participant, "database", database)
    monkeypatch.setattr(participant, "_inbox", None)
    yield participant
    database.engine.dispose()


@contextmanager
def client_of(service: str, monkeypatch: pytest.MonkeyPatch, tokens: str = TOKENS) -> Iterator[Any]:
    """A client of the service's web application; its database is whatever `serving` gave it."""
    monkeypatch.setenv("OPERATOR_TOKENS", tokens)
    yield importlib.import_module(f"{service}.web").create_app().test_client()


@contextmanager
def session_of(participant: Participant) -> Iterator[Session]:
    """A session on the participant's database, committed at its end."""
    with Session(participant.engine) as session, session.begin():
        yield session


def beat(participant: Participant) -> None:
    """Let the participant's worker turn."""
    at = participant.clock()
    participant.inbox.beat(Beat(f"{participant.service.name}@box", "participant", at, at))


def csrf_of(page: str) -> str:
    """The token of a page's first form that has one."""
    return page.partition('name="csrf" value="')[2].partition('"')[0]
