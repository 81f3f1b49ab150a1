"""Both sides of a service as a team has them, with settings of its own. Nothing is connected to."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Final

from sagas_framework import Participant, Policy, Queue, Retention, Sagas, orchestrator_app, participant_app
from sagas_framework.doctor.findings import Finding, Rule, Severity
from sagas_framework.doctor.installation import Installation, Started
from sagas_framework.retention import KEEP
from tests.unit.core.stories import (
    CreateOrderSaga,
    CreateTicket,
    DeliverOrderSaga,
    RejectTicket,
    TicketCreated,
    restaurant_service,
)

BROKER: Final = "amqp://guest:secret@127.0.0.1:1//"


def orchestrator(
    broker: str = BROKER,
    *,
    policy: Policy | None = None,
    retention: Retention = KEEP,
    result_backend: str | None = None,
    sagas: Iterable[Any] = (CreateOrderSaga, DeliverOrderSaga),
    database: str = "sqlite://",
    beside: Participant | None = None,
    started: Started | None = None,
    **settings: Any,
) -> Installation:
    """The orchestrator of order_service; `settings` are put into its app's, as a team does."""
    side = Sagas(
        "order_service",
        database,
        sagas=sagas,
        reply_queue=Queue("order_service.replies"),
        policy=policy or Policy(),
        retention=retention,
    )
    app = orchestrator_app(side, broker=broker, result_backend=result_backend)
    app.conf.update(settings)
    return Installation("order_service.worker", sagas=side, app=app, beside=beside, started=started)


def restaurant(*, outside: bool = False, database: str | None = "sqlite://", **options: Any) -> Participant:
    participant = Participant(restaurant_service, database=database, **options)

    @participant.handles(CreateTicket, outside=outside)
    def create_ticket(command: CreateTicket, context: object) -> TicketCreated:
        return TicketCreated(ticket_id=7)

    @participant.undoes(RejectTicket)
    def reject_ticket(command: RejectTicket, undo: object) -> None: ...

    return participant


def participant(
    broker: str = BROKER,
    *,
    outside: bool = False,
    lease: timedelta = timedelta(minutes=15),
    retention: timedelta = timedelta(days=30),
    inbox: Any = None,
    prefetch: int = 1,
    batch: int | None = None,
    started: Started | None = None,
    **settings: Any,
) -> Installation:
    """The participant restaurant_service; `settings` are put into its app's, as a team does."""
    side = restaurant(
        outside=outside,
        lease=lease,
        retention=retention,
        database=None if inbox is not None else "sqlite://",
        inbox=inbox,
    )
    app = participant_app(side, broker=broker, prefetch=prefetch, batch=batch)
    app.conf.update(settings)
    return Installation("restaurant_service.worker", participant=side, app=app, started=started)


def told(findings: Iterable[Finding], *severities: Severity) -> list[tuple[Rule, Severity]]:
    """`(rule, severity)` of these findings; of all severities if none is named."""
    return [(f.rule, f.severity) for f in findings if not severities or f.severity in severities]
