"""What a plain task's worker sends by itself, since the command's body asks it to."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

from pydantic import BaseModel

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.asking import named
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described, Schemas
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.asyncapi.pieces import class_name, saga_id
from sagas_framework.asyncapi.samples import EXAMPLE_REPLIES, SAGA_ID, Example, asked, read_back
from sagas_framework.core.ids import Kind
from sagas_framework.transport import envelope


def linked_success(exchange: Exchange, schemas: Schemas) -> Described:
    """What the task returned."""
    reply = exchange.command.reply_type()
    if exchange.kind is Kind.DO and issubclass(reply, BaseModel):
        result, value = schemas[reply], read_back(reply)
    else:
        result, value = {"title": "result", "description": "`result`: any JSON value."}, None
    return _linked(
        exchange,
        suffix=envelope.LINKED_SUCCESS_SUFFIX,
        title=f"{named(exchange)}: result",
        summary=f"What the task {exchange.task} returned.",
        name="result",
        first=result,
        value=value,
    )


def linked_failure(exchange: Exchange) -> Described:
    """That the task raised; Celery tells no more."""
    return _linked(
        exchange,
        suffix=envelope.LINKED_FAILURE_SUFFIX,
        title=f"{named(exchange)}: failure",
        summary=f"The task {exchange.task} raised. Its worker's log says what.",
        name="failed_id",
        first={
            "title": "failed_id",
            "type": "string",
            "format": "uuid",
            "description": "`failed_id`: the id of the task that failed.",
        },
        value=asked(exchange, None).message_id,
    )


def _linked(
    exchange: Exchange, *, suffix: str, title: str, summary: str, name: str, first: Schema, value: Any
) -> Described:
    """A message that a plain task's worker sends: Celery puts what it adds before our argument."""
    answered = asked(exchange, None)
    wire = envelope.to_wire(
        envelope.Envelope(
            queue=EXAMPLE_REPLIES,
            task=exchange.task + suffix,
            message_id=str(UUID(int=1)),
            saga_id=SAGA_ID,
            root_id=answered.message_id,
            parent_id=answered.message_id,
        )
    )
    body = [[value, SAGA_ID], {}, json.loads(wire.body)[2]]
    key = exchange.task + suffix
    return Described(
        key=key,
        task=key,
        title=title,
        summary=summary,
        description="Celery's worker sends it by itself, as the command's body asks for.",
        tag="reply",
        trait=celery.PLAIN_REPLY,
        payload=celery.body(class_name(key), {name: first, "saga_id": saga_id()}),
        examples=[Example("typical", summary, {**wire.headers, "origin": "1@worker"}, body)],
    )
