"""The messages that may answer: success, each declared failure, and any other failure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import BaseModel

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.asking import named
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described, Schemas
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.asyncapi.linked import linked_failure, linked_success
from sagas_framework.asyncapi.pieces import class_name, failure_payload, nothing, saga_id, said
from sagas_framework.asyncapi.samples import Example, as_it_travels, asked, read_back
from sagas_framework.asyncapi.settling import settled, settlements
from sagas_framework.core.events import Result
from sagas_framework.core.ids import Kind
from sagas_framework.core.inbox import INBOX_ROW_MISSING, WITHDRAWN, Stored, refusal
from sagas_framework.messages import WireProtocol
from sagas_framework.transport import envelope

_OUTCOME_UNKNOWN: Final = "OutcomeUnknown"


def answers(exchange: Exchange, schemas: Schemas) -> list[Described]:
    """The messages that may answer it: success, each declared failure, any other failure."""
    if not exchange.answered:
        return []
    if exchange.protocol is WireProtocol.CELERY:
        return [linked_success(exchange, schemas), linked_failure(exchange)]
    return [_success(exchange, schemas), *_declared(exchange), _failure(exchange)]


def _reply(
    exchange: Exchange,
    *,
    suffix: str,
    failure: str = "",
    title: str,
    summary: str,
    description: str = "",
    payload: Schema,
    results: Sequence[Result],
    stored: Sequence[tuple[str, str, Stored]],
) -> Described:
    """A reply that bears our headers, unless an old participant sends it."""
    key = f"{exchange.task}{suffix}" + (f".{_key(failure)}" if failure else "")
    inbox = exchange.protocol is WireProtocol.INBOX
    allowed: Schema = (
        {"const": results[0].value} if len(results) == 1 else {"enum": [result.value for result in results]}
    )
    return Described(
        key=key,
        task=exchange.task + suffix,
        title=title,
        summary=summary,
        description=description,
        tag="reply",
        trait=celery.REPLY if inbox else celery.PLAIN_REPLY,
        payload=celery.body(class_name(key), {"saga_id": saga_id(), "payload": payload}),
        examples=[_reply_example(exchange, *each) for each in stored],
        headers={envelope.RESULT: allowed} if inbox else {},
    )


def _reply_example(exchange: Exchange, name: str, summary: str, stored: Stored) -> Example:
    replied = envelope.reply(asked(exchange, None), stored)
    told = as_it_travels(replied, name, summary)
    if exchange.protocol is WireProtocol.INBOX:
        return told
    headers = {name: value for name, value in told.headers.items() if name != envelope.RESULT}
    return Example(name, summary, headers | {"origin": "1@participant"}, told.payload)


def _success(exchange: Exchange, schemas: Schemas) -> Described:
    title, summary = f"{named(exchange)}: success", f"{exchange.contract.__name__} succeeded."
    description, payload, told = "", nothing("none."), [("typical", summary, Stored(Result.SUCCESS))]
    reply = exchange.command.reply_type()
    if exchange.kind is Kind.SETTLE:
        title, summary = f"{named(exchange)}: answer", "How the command stands, now for good."
        payload, told = settled(exchange, schemas), list(settlements(exchange))
    elif exchange.kind is Kind.UNDO:
        summary = f"{exchange.command.__name__} is undone, or never happened and never will."
        told = [("typical", summary, Stored(Result.SUCCESS))]
    elif issubclass(reply, BaseModel):
        first, description = said(reply)
        title, summary, payload = reply.__name__, first or summary, schemas[reply]
        told = [("typical", summary, Stored(Result.SUCCESS, read_back(reply)))]
    elif exchange.protocol is not WireProtocol.INBOX:
        payload = {"title": "payload", "description": "`payload`: anything; it is not read."}
    return _reply(
        exchange,
        suffix=envelope.SUCCESS_SUFFIX,
        title=title,
        summary=summary,
        description=description,
        payload=payload,
        results=[Result.SUCCESS],
        stored=told,
    )


def _declared(exchange: Exchange) -> Iterator[Described]:
    """One for each failure that the contract names. They share a task, and differ in the payload's type."""
    if exchange.kind is not Kind.DO:
        return
    # One name may stand for several classes; nobody can tell them apart on the wire.
    for failure in {each.wire_name: each for each in exchange.command.failures}.values():
        first, description = said(failure)
        summary = first or f"{exchange.command.__name__} is refused: {failure.wire_name}."
        error = {"type": failure.wire_name, "message": summary, "module": failure.__module__}
        yield _reply(
            exchange,
            suffix=envelope.FAILURE_SUFFIX,
            failure=failure.wire_name,
            title=failure.wire_name,
            summary=summary,
            description=description,
            payload=failure_payload(
                {"type": "string", "const": failure.wire_name}, f"{failure.wire_name}: {summary}"
            ),
            # As a fault: by a handler that works outside its transaction, and cannot know that an
            # earlier attempt did nothing.
            results=[Result.REFUSED, Result.FAILED],
            stored=[("typical", summary, Stored(Result.REFUSED, error))],
        )


_BY_THE_LIBRARY: Final[Mapping[Kind, Sequence[tuple[str, str]]]] = {
    Kind.DO: (
        ("InvalidPayload", "refused: the payload does not validate"),
        ("UnknownTask", "refused: the participant has no such task"),
        (WITHDRAWN, "refused: it came after its compensation, or after settling closed it"),
    ),
    Kind.UNDO: (
        ("InvalidPayload", "refused: the payload does not validate"),
        (INBOX_ROW_MISSING, "failed: the saga saw the step succeed, and the participant has no row of it"),
    ),
    Kind.SETTLE: (
        ("InvalidPayload", "refused: the payload does not validate"),
        (INBOX_ROW_MISSING, "failed: the saga saw the step succeed, and the participant has no row of it"),
        (_OUTCOME_UNKNOWN, "failed: an outside handler died or failed, and nothing undoes it"),
    ),
}


def _failure(exchange: Exchange) -> Described:
    """Any failure that is not declared: the standard payload."""
    settling = exchange.kind is Kind.SETTLE
    declared = sorted({failure.wire_name for failure in exchange.command.failures})
    what: Schema = {"type": "string", "description": "The name of an exception's class."}
    if exchange.kind is Kind.DO and declared:
        what["not"] = {"enum": declared}
    refused = refusal("InvalidPayload", "$: Input should be an object")
    fault = Stored(Result.FAILED, {"type": "TimeoutError", "message": "timed out", "module": "builtins"})
    stored = [("fault", "A fault that may pass", fault)]
    description = "A fault: any exception, of which old participants also send the `traceback`."
    if exchange.protocol is WireProtocol.INBOX:
        stored.append(("refusal", "A refusal by the library", refused))
        lines = [f"- `{name}`: {meaning}" for name, meaning in _BY_THE_LIBRARY[exchange.kind]]
        description = (
            "A fault (any exception of the handler, `saga_result` is `failed`), or what the library says by "
            "itself:\n\n" + "\n".join(lines)
        )
        if exchange.kind is not Kind.DO:
            description += "\n- any `Failure` that the undo handler raises: refused"
    return _reply(
        exchange,
        suffix=envelope.FAILURE_SUFFIX,
        title=f"{named(exchange)}: failure",
        summary=f"{exchange.contract.__name__} {'cannot be settled' if settling else 'failed'}.",
        description=description,
        payload=failure_payload(what, "The standard payload of failures."),
        results=[Result.REFUSED, Result.FAILED],
        stored=stored,
    )


def _key(name: str) -> str:
    """The name with only such characters as names of components may have."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", name)
