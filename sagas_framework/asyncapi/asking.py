"""The message that asks: a command, a compensation or a settling."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pydantic import BaseModel

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described, Schemas
from sagas_framework.asyncapi.exchanges import Exchange
from sagas_framework.asyncapi.pieces import NULL, class_name, nothing, saga_id, said
from sagas_framework.asyncapi.samples import Example, as_it_travels, asked, read_back
from sagas_framework.core.ids import Kind
from sagas_framework.messages import WireProtocol

_SENT: Final = {
    Kind.DO: (celery.COMMAND, "command"),
    Kind.UNDO: (celery.COMPENSATION, "compensation"),
    Kind.SETTLE: (celery.SETTLING, "settling"),
}


def models(exchange: Exchange) -> list[type[BaseModel]]:
    """The classes whose schemas its messages need."""
    needed: list[type[BaseModel]] = []
    if exchange.kind is Kind.SETTLE:
        needed += [undo for undo in (exchange.command.compensation,) if undo is not None]
    elif not takes_anything(exchange):
        needed.append(exchange.contract)
    reply = exchange.command.reply_type()
    if exchange.kind is not Kind.UNDO and issubclass(reply, BaseModel):
        needed.append(reply)
    return needed


def takes_anything(exchange: Exchange) -> bool:
    """Whether it is a plain task that no contract describes: `Steps.task` makes an empty class for it."""
    contract = exchange.contract
    return not contract.model_fields and contract.model_config.get("extra") == "allow"


def asking(exchange: Exchange, schemas: Schemas) -> Described:
    """The message that asks."""
    trait, tag = _SENT[exchange.kind]
    summary, description = documented(exchange)
    title = class_name(exchange.task)
    if exchange.protocol is WireProtocol.CELERY:
        anything = takes_anything(exchange)
        payload = celery.body(title, {}, celery.ANY_KEYWORDS if anything else schemas[exchange.contract])
    else:
        payload = celery.body(title, {"saga_id": saga_id(), "payload": _request(exchange, schemas)})
    return Described(
        key=exchange.task,
        task=exchange.task,
        title=named(exchange),
        summary=summary,
        description=description,
        tag=tag,
        trait=trait,
        payload=payload,
        examples=list(_requests(exchange)),
    )


def named(exchange: Exchange) -> str:
    """The message's name for people: that of its class."""
    name = exchange.contract.__name__
    return f"Settle {name}" if exchange.kind is Kind.SETTLE else name


def documented(exchange: Exchange) -> tuple[str, str]:
    """`(summary, description)`: the first line of what the class says of itself, and the rest."""
    command = exchange.command.__name__
    if exchange.kind is Kind.SETTLE:
        return (
            f"Says how {command} went, and closes it if it did not happen.",
            (
                f"Sent when {command} was not answered in time and must not be undone blindly, or when an "
                "operator acts on its step. Participants of the library answer it by themselves, from the "
                "row that they keep of the operation."
            ),
        )
    first, rest = said(exchange.contract)
    told = [rest] if rest else []
    if exchange.kind is Kind.UNDO:
        told.append(
            f"It undoes {command}, also when that was never answered; what never happened is closed, "
            "so that it cannot happen later."
            if exchange.protocol is WireProtocol.INBOX
            else f"It undoes {command}."
        )
    if exchange.protocol is WireProtocol.CELERY:
        told.append(
            "A plain Celery task: the payload travels as its keyword arguments, and `callbacks` and "
            "`errbacks` in the body have its worker send the result to the reply queue."
        )
    if not exchange.answered:
        told.append("It is not answered; it counts as done once the broker has it.")
    return first or named(exchange), "\n\n".join(told)


def _request(exchange: Exchange, schemas: Schemas) -> Schema:
    if exchange.kind is not Kind.SETTLE:
        return schemas[exchange.contract]
    undo = exchange.command.compensation
    if undo is None:
        return nothing("none.")
    return {
        "title": "payload",
        "description": "`payload`: with the header `saga_hand_over`, what the compensation would say.",
        "anyOf": [NULL, schemas[undo]],
    }


def _requests(exchange: Exchange) -> Iterator[Example]:
    summary = named(exchange)
    if exchange.kind is not Kind.SETTLE:
        yield _request_example(exchange, "typical", summary, read_back(exchange.contract))
        return
    yield _request_example(exchange, "typical", summary, None)
    if exchange.command.compensation is not None:
        told = read_back(exchange.command.compensation)
        yield _request_example(
            exchange, "handed_over", "An operator takes the undoing over", told, hand_over=True
        )


def _request_example(
    exchange: Exchange,
    name: str,
    summary: str,
    payload: dict[str, Any] | None,
    *,
    hand_over: bool = False,
) -> Example:
    return as_it_travels(asked(exchange, payload, hand_over=hand_over), name, summary)
