"""The answers to settling: how a command stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Schemas
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.asyncapi.pieces import NULL, failure_payload, said
from sagas_framework.asyncapi.samples import read_back
from sagas_framework.core.events import Result
from sagas_framework.core.inbox import SettleAnswer, Stored
from sagas_framework.errors import Failure

_MEANINGS: Final[Mapping[SettleAnswer, str]] = {
    SettleAnswer.DONE: "It happened; nothing was changed.",
    SettleAnswer.REFUSED: "It was refused.",
    SettleAnswer.WITHDRAWN: "It did not happen or was undone, and never will happen.",
    SettleAnswer.YOURS_TO_UNDO: "It happened, and an operator undoes it. Only with `saga_hand_over`.",
}


def settled(exchange: Exchange, schemas: Schemas) -> Schema:
    """The schema of all answers."""
    reply = exchange.command.reply_type()
    answered = schemas[reply] if issubclass(reply, BaseModel) else NULL
    with_it: Mapping[SettleAnswer, Mapping[str, Schema]] = {
        SettleAnswer.DONE: {"reply": answered},
        SettleAnswer.REFUSED: {"error": failure_payload({"type": "string"}, "why.")},
        SettleAnswer.WITHDRAWN: {},
        SettleAnswer.YOURS_TO_UNDO: {"reply": answered},
    }
    return {
        "title": "payload",
        "description": "`payload`: how the step stands.",
        "oneOf": [
            {
                "title": answer.value,
                "type": "object",
                "description": _MEANINGS[answer],
                "required": ["answer", *more],
                "properties": {"answer": {"type": "string", "const": answer.value}, **more},
            }
            for answer, more in with_it.items()
        ],
    }


def settlements(exchange: Exchange) -> Iterator[tuple[str, str, Stored]]:
    """`(name, meaning, answer)`: an example of each."""
    reply = exchange.command.reply_type()
    answered = read_back(reply) if issubclass(reply, BaseModel) else None
    failure = next(iter(exchange.command.failures), Failure)
    error = {"type": failure.wire_name, "message": said(failure)[0], "module": failure.__module__}
    with_it: Mapping[SettleAnswer, Mapping[str, Any]] = {
        SettleAnswer.DONE: {"reply": answered},
        SettleAnswer.REFUSED: {"error": error},
        SettleAnswer.WITHDRAWN: {},
        SettleAnswer.YOURS_TO_UNDO: {"reply": answered},
    }
    for answer, more in with_it.items():
        yield answer.value, _MEANINGS[answer], Stored(Result.SUCCESS, {"answer": answer.value, **more})
