"""What this service does when it is asked.

An `OSError` here stands for a kitchen that has trouble of its own: the saga tries again.
"""

from __future__ import annotations

import random
from pathlib import Path

from app_common.magic import FAILED_APPROVALS, FAILED_REJECTIONS, Dish
from app_common.messaging.restaurant_service_messaging import (
    ApproveTicket,
    CreateTicket,
    KitchenOffline,
    RejectTicket,
    RestaurantClosed,
    TicketCreated,
    TicketNotPending,
    restaurant_service,
)
from app_common.settings import service_settings
from restaurant_service.models import Ticket, TicketStatus
from sagas_framework import Context, Later, Participant, Unavailable, Undo

settings = service_settings("restaurant_service")
participant = Participant(
    restaurant_service, database=settings.database, migrations=Path(__file__).parent / "migrations"
)


@participant.handles(CreateTicket)
def create_ticket(command: CreateTicket, context: Context) -> Later[TicketCreated]:
    """Open a ticket that the kitchen must not cook yet.

    CREATE_PENDING is the semantic lock; `ApproveTicket` or `RejectTicket` lifts it.

    Raises:
        RestaurantClosed: a dish is ordered that is cooked when the restaurant is closed.
        Unavailable: a dish is ordered at which the restaurant falls silent.
    """
    dishes = {item.name for item in command.items}
    if Dish.NEVER_ANSWERED in dishes:
        raise Unavailable("The restaurant does not answer")
    if Dish.OFF_HOURS in dishes:
        raise RestaurantClosed(f"The restaurant is closed when {Dish.OFF_HOURS} is served")
    ticket = Ticket.open(context.key, command.order_id, command.customer_id, command.items)
    context.session.add(ticket)
    return lambda: TicketCreated(ticket_id=ticket.id)  # the database gives the id


@participant.undoes(RejectTicket, loads=lambda command: (Ticket, command.ticket_id))
def reject_ticket(command: RejectTicket, undo: Undo[CreateTicket]) -> None:
    """Close the ticket that the operation opened; the order's saga turned back.

    Which it was the inbox knows: a saga that was never answered does not.

    Raises:
        KitchenOffline: at the first try, for a dish that the kitchen must be called about.
    """
    assert undo.reply is not None  # opening a ticket touches nothing outside the database
    ticket = undo.session.get_one(Ticket, undo.reply.ticket_id)
    if ticket.has(Dish.HARD_TO_REJECT) and undo.attempt <= FAILED_REJECTIONS:
        raise OSError(f"The kitchen did not notice that ticket {ticket.id} was taken back")
    if ticket.has(Dish.NEEDS_A_CALL) and undo.attempt == 1:
        raise KitchenOffline(f"Call the kitchen about ticket {ticket.id}, then try again")
    ticket.status = TicketStatus.REJECTED


@participant.handles(ApproveTicket, loads=lambda command: (Ticket, command.ticket_id))
def approve_ticket(command: ApproveTicket, context: Context) -> None:
    """Let the kitchen cook.

    Raises:
        TicketNotPending: there is no such ticket, or it was rejected.
    """
    ticket = context.session.get(Ticket, command.ticket_id)
    if ticket is None or ticket.status is not TicketStatus.CREATE_PENDING:
        raise TicketNotPending(f"Ticket {command.ticket_id} does not wait for its approval")
    if ticket.has(Dish.NEVER_APPROVED):
        raise OSError(f"The kitchen cannot approve ticket {ticket.id}")
    if ticket.has(Dish.SOMETIMES_APPROVED) and random.random() < FAILED_APPROVALS:
        raise OSError(f"The kitchen could not approve ticket {ticket.id} this time")
    ticket.status = TicketStatus.APPROVED
