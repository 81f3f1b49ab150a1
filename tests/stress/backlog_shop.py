"""A saga of one command, with a worker for each side: what a backlog of commands is made of.

Run by `test_backlog.py` with its settings in the environment. One command, so that a large backlog drains in
minutes: every saga costs its participant one message, or two where the step is given up and undone.
"""

from __future__ import annotations

import os
from datetime import timedelta

from pydantic import BaseModel
from sqlalchemy import Column, MetaData, String, Table, delete, insert

from sagas_framework import (
    Command,
    Compensation,
    Context,
    Participant,
    Queue,
    Saga,
    Sagas,
    Service,
    Steps,
    Undo,
    orchestrator_app,
    participant_app,
)

BROKER = os.environ.get("BACKLOG_BROKER", "memory://")
TIMEOUT = timedelta(seconds=float(os.environ.get("BACKLOG_TIMEOUT", "300")))
COMMANDS = "parcels.commands"
REPLIES = "parcel_replies"

parcels_service = Service("parcels")


class Pack(Command[None], service=parcels_service, name="pack"):
    order: int


class Unpack(Compensation[Pack], service=parcels_service, name="unpack"):
    order: int


class Parcel(BaseModel):
    order: int


step = Steps(Parcel)


class ParcelSaga(Saga[Parcel], name="parcel", version=1):
    pack = step.command(
        Pack,
        lambda parcel: Pack(order=parcel.order),
        compensation=lambda parcel: Unpack(order=parcel.order),
        timeout=TIMEOUT,
    )


metadata = MetaData()
packed = Table("packed", metadata, Column("operation", String(36), primary_key=True))

sagas = Sagas(
    "parcel_orders",
    os.environ.get("BACKLOG_ORDERS", "sqlite://"),
    sagas=[ParcelSaga],
    reply_queue=Queue(REPLIES),
)
participant = Participant(parcels_service, database=os.environ.get("BACKLOG_PARCELS", "sqlite://"))


@participant.handles(Pack)
def pack(command: Pack, context: Context) -> None:
    context.session.execute(insert(packed).values(operation=context.key))


@participant.undoes(Unpack)
def unpack(command: Unpack, undo: Undo[Pack]) -> None:
    undo.session.execute(delete(packed).where(packed.c.operation == undo.key))


orders_app = orchestrator_app(sagas, broker=BROKER)
parcels_app = participant_app(participant, broker=BROKER, prefetch=20)
