"""A small system for tests on real servers: one saga, one participant, one third party."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, func, insert, select

from sagas_framework import (
    Command,
    Compensation,
    Context,
    Failure,
    Participant,
    Reply,
    Retry,
    Saga,
    Service,
    Steps,
    Undo,
)
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.transport import envelope
from sagas_framework.transport.envelope import WireMessage, to_wire

kitchen = Service("kitchen")
bank = Service("bank")


class TicketOpened(Reply):
    ticket_id: int


class KitchenClosed(Failure):
    """Nobody cooks now."""


class OpenTicket(Command[TicketOpened], service=kitchen, name="open_ticket", failures=[KitchenClosed]):
    order_id: int


class CloseTicket(Compensation[OpenTicket], service=kitchen, name="close_ticket"):
    ticket_id: int | None


class Cook(Command[None], service=kitchen, name="cook"):
    ticket_id: int


class Meal(BaseModel):
    order_id: int
    ticket_id: int | None = None


step = Steps(Meal)


def _remember(meal: Meal, reply: TicketOpened) -> None:
    meal.ticket_id = reply.ticket_id


class MealSaga(Saga[Meal], name="meal", version=1):
    """Open a ticket, then cook: what is cooked is not undone."""

    open_ticket = step.command(
        OpenTicket,
        lambda meal: OpenTicket(order_id=meal.order_id),
        on_success=_remember,
        compensation=lambda meal: CloseTicket(ticket_id=meal.ticket_id),
        retry=Retry(2, pause=timedelta(seconds=1)),
    )
    cook = step.command(
        Cook, lambda meal: Cook(ticket_id=meal.ticket_id or 0), pivot=True, timeout=timedelta(seconds=30)
    )


_metadata = MetaData()
tickets = Table(
    "kitchen_tickets",
    _metadata,
    Column("id", Integer, primary_key=True),
    Column("operation", String(36), nullable=False),
    Column("status", String(10), nullable=False),
)


@dataclass
class Handlers:
    """What the participant's functions do next; each is called instead of nothing."""

    opening: Callable[[OpenTicket, Context], None] = lambda command, context: None
    cooking: Callable[[Cook, Context], None] = lambda command, context: None
    closing: Callable[[CloseTicket, Undo[OpenTicket]], None] = lambda command, undo: None
    opened: list[str] = field(default_factory=list)
    closed: list[str] = field(default_factory=list)
    cooked: list[str] = field(default_factory=list)


def make_kitchen(database: str, handlers: Handlers, *, outside: bool = False, **options: Any) -> Participant:
    """The participant on a database that has its tables."""
    participant = Participant(kitchen, database=database, **options)
    participant.upgrade()
    _metadata.create_all(participant.engine)

    @participant.handles(OpenTicket, outside=outside)
    def open_ticket(command: OpenTicket, context: Context) -> TicketOpened:
        handlers.opening(command, context)
        handlers.opened.append(context.key)
        row = context.session.execute(
            insert(tickets).values(operation=context.key, status="open").returning(tickets.c.id)
        )
        return TicketOpened(ticket_id=row.scalar_one())

    @participant.undoes(CloseTicket)
    def close_ticket(command: CloseTicket, undo: Undo[OpenTicket]) -> None:
        handlers.closing(command, undo)
        handlers.closed.append(undo.key)
        undo.session.execute(tickets.update().where(tickets.c.operation == undo.key).values(status="closed"))

    @participant.handles(Cook)
    def cook(command: Cook, context: Context) -> None:
        handlers.cooking(command, context)
        handlers.cooked.append(context.key)

    return participant


def open_tickets(engine: Engine) -> int:
    """How many tickets are open."""
    with engine.connect() as connection:
        query = select(func.count()).select_from(tickets).where(tickets.c.status == "open")
        return connection.execute(query).scalar_one()


def sent(
    saga_id: str,
    kind: Kind,
    *,
    attempt: int = 1,
    known: bool = False,
    hand_over: bool = False,
    payload: dict[str, Any] | None = None,
    not_after: datetime | None = None,
) -> WireMessage:
    """A message about the step `open_ticket` as the orchestrator sends it."""
    tasks = {
        Kind.DO: "kitchen.open_ticket",
        Kind.UNDO: "kitchen.close_ticket",
        Kind.SETTLE: "kitchen.open_ticket.settle",
    }
    default: dict[Kind, dict[str, Any] | None] = {
        Kind.DO: {"order_id": 1},
        Kind.UNDO: {"ticket_id": None},
        Kind.SETTLE: None,
    }
    outgoing = Outgoing(
        saga_id=saga_id,
        message_id=message_id(saga_id, "open_ticket", kind, attempt),
        operation_id=operation_id(saga_id, "open_ticket"),
        kind=kind,
        task=tasks[kind],
        queue="kitchen.commands",
        attempt=attempt,
        not_after=not_after or datetime.now(UTC) + timedelta(hours=1),
        payload=payload if payload is not None else default[kind],
        known=known,
        hand_over=hand_over,
    )
    return to_wire(envelope.command(outgoing, "meal_replies"))


def answer(reply: WireMessage | None) -> tuple[str, Any]:
    """What a reply says: its result and its payload; `nothing` for no reply."""
    if reply is None:
        return "nothing", None
    read = envelope.from_wire(reply)
    return str(read.headers[envelope.RESULT]), read.payload
