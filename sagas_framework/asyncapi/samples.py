"""Examples, written by the code that writes the real messages, so that they cannot differ from them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from pydantic import BaseModel, ValidationError

from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.errors import DefinitionError
from sagas_framework.examples import example
from sagas_framework.messages import Message, readable
from sagas_framework.transport import envelope

SAGA_ID: Final = str(UUID("01998d1f-5c00-7000-8000-000000000001"))
_NOT_AFTER: Final = datetime(2026, 3, 8, 12, tzinfo=UTC)
EXAMPLE_REPLIES: Final = "replies"


@dataclass(frozen=True)
class Example:
    """One message as it travels."""

    name: str
    summary: str
    headers: Mapping[str, Any]
    payload: Any

    def to_json(self) -> Schema:
        """The Message Example Object."""
        return {
            "name": self.name,
            "summary": self.summary,
            "headers": dict(self.headers),
            "payload": self.payload,
        }


def asked(
    exchange: Exchange, payload: dict[str, Any] | None, *, hand_over: bool = False
) -> envelope.Envelope:
    """What asks, as a saga would send it at its first attempt."""
    step = exchange.command.contract.name
    outgoing = Outgoing(
        saga_id=SAGA_ID,
        message_id=message_id(SAGA_ID, step, exchange.kind, 1),
        operation_id=operation_id(SAGA_ID, step),
        kind=exchange.kind,
        task=exchange.task,
        queue=exchange.queue.name,
        attempt=1,
        not_after=_NOT_AFTER,
        payload=payload,
        known=exchange.kind is Kind.UNDO or hand_over,
        hand_over=hand_over,
        protocol=exchange.protocol,
    )
    return envelope.command(outgoing, EXAMPLE_REPLIES)


def as_it_travels(sent: envelope.Envelope, name: str, summary: str) -> Example:
    """The message, as its receiver gets it."""
    wire = envelope.to_wire(sent)
    return Example(name, summary, wire.headers, json.loads(wire.body))


def read_back(model: type[BaseModel]) -> dict[str, Any]:
    """A valid example of the class as JSON, which its receiver can read.

    Raises:
        NoExample: none can be guessed.
        DefinitionError: what it writes it cannot read.
    """
    made = example(model)
    written = made.to_json() if isinstance(made, Message) else made.model_dump(mode="json")
    try:
        model.model_validate(written)
    except ValidationError as error:
        raise DefinitionError(
            f"{model.__module__}.{model.__qualname__} cannot read what it writes ({readable(error)}). "
            "Its receiver could not, either: leave out serializers that change what a field is."
        ) from None
    return written
