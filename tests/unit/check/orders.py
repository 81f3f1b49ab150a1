"""Contracts and a state of which the tests declare sagas, right and wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel

from sagas_framework import Command, Compensation, Failure, Reply, Service, Steps
from sagas_framework.check import Finding

kitchen = Service("kitchen")
bank = Service("bank")
old = Service("old", protocol="demo-0.1")


class Closed(Failure): ...


class Refused(Failure): ...


class TicketCreated(Reply):
    ticket_id: int


class CreateTicket(Command[TicketCreated], service=kitchen, name="create_ticket", failures=[Closed]):
    order_id: int


class RejectTicket(Compensation[CreateTicket], service=kitchen, name="reject_ticket"):
    ticket_id: int | None


class Authorize(Command[None], service=bank, name="authorize", failures=[Refused]):
    order_id: int


class Release(Compensation[Authorize], service=bank, name="release"):
    order_id: int


class Charge(Command[None], service=bank, name="charge", failures=[Refused]):
    order_id: int


class Cook(Command[None], service=kitchen, name="cook"):
    order_id: int


class Deliver(Command[None], service=kitchen, name="deliver", failures=[Closed]):
    order_id: int


class Print(Command[None], service=old, name="print", failures=[Closed]):
    order_id: int


class Shred(Compensation[Print], service=old, name="shred"):
    order_id: int


class State(BaseModel):
    order_id: int
    ticket_id: int | None = None


step = Steps(State)


def remember(state: State, reply: TicketCreated) -> None:
    state.ticket_id = reply.ticket_id


def reject(state: State) -> RejectTicket:
    return RejectTicket(ticket_id=state.ticket_id)


def nothing(state: Any, session: object) -> None:
    pass


def ticket() -> Any:
    """A step that is right."""
    return step.command(
        CreateTicket,
        lambda s: CreateTicket(order_id=s.order_id),
        on_success=remember,
        compensation=reject,
    )


def authorize(**more: Any) -> Any:
    return step.command(
        Authorize,
        lambda s: Authorize(order_id=s.order_id),
        compensation=lambda s: Release(order_id=s.order_id),
        **more,
    )


def charge(**more: Any) -> Any:
    """The pivot."""
    return step.command(Charge, lambda s: Charge(order_id=s.order_id), pivot=True, **more)


def cook(**more: Any) -> Any:
    """A step after the pivot that cannot be refused."""
    return step.command(Cook, lambda s: Cook(order_id=s.order_id), **more)


def printed(**more: Any) -> Any:
    """A step of a participant without an inbox."""
    return step.command(
        Print,
        lambda s: Print(order_id=s.order_id),
        compensation=lambda s: Shred(order_id=s.order_id),
        **more,
    )


def codes(findings: Sequence[Finding]) -> list[str]:
    """``severity code saga.step`` of each."""
    return [
        f"{found.severity.value} {found.code} {found.saga}{f'.{found.step}' if found.step else ''}".strip()
        for found in findings
    ]
