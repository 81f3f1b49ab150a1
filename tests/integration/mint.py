"""Two services for tests of events on real servers: a mint that coins and tells, a bank that keeps.

``celery -A tests.integration.mint:<attribute> worker`` runs one: `mint_app` is a participant, whose pool may
fork, `bank_app` subscribes. Addresses come from the environment.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

from celery import Celery
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, insert, select

from sagas_framework import (
    Command,
    Context,
    Event,
    EventContext,
    Participant,
    Queue,
    QueueType,
    Service,
    Subscriber,
    participant_app,
    publish,
    subscriber_app,
)
from sagas_framework.storage.engine import reading

mint = Service("mint", Queue("mint.commands", QueueType.CLASSIC))
bank = Service("bank", Queue("bank.commands", QueueType.CLASSIC))

_own = MetaData()
_kept = Table(
    "kept", _own, Column("id", Integer, primary_key=True), Column("by", String), Column("coin", Integer)
)


class Coined(Event, service=mint, name="was_coined"):
    coin: int


class Coin(Command[None], service=mint, name="coin"):
    coin: int


def make_mint(database: str) -> Participant:
    participant = Participant(mint, database=database)

    @participant.handles(Coin)
    def coin(command: Coin, context: Context) -> None:
        publish(Coined(coin=command.coin), context.session)

    return participant


def make_bank(database: str) -> Subscriber:
    subscriber = Subscriber(bank, database=database, lease=timedelta(seconds=2))

    def keep(by: str) -> Any:
        def kept(event: Coined, context: EventContext) -> None:
            context.session.execute(insert(_kept).values(by=by, coin=event.coin))
            if by == "ledger" and context.attempt == 1 and event.coin % 3 == 0:
                raise RuntimeError("the ledger jams over each third coin, once")

        return kept

    subscriber.subscribes(Coined, name="vault")(keep("vault"))
    subscriber.subscribes(Coined, name="ledger")(keep("ledger"))
    return subscriber


def prepare(subscriber: Subscriber) -> None:
    """Make the bank's tables."""
    subscriber.upgrade()
    _own.create_all(subscriber.engine)


def kept_coins(engine: Engine) -> dict[str, list[int]]:
    """The coins that each of the bank's subscribers has kept, each as often as it has."""
    with reading(engine) as connection:
        rows = connection.execute(select(_kept.c.by, _kept.c.coin).order_by(_kept.c.coin)).all()
    found: dict[str, list[int]] = {"vault": [], "ledger": []}
    for by, coin in rows:
        found[by].append(coin)
    return found


def _sabotaged(app: Celery) -> Celery:
    from tests.stress.matrix.saboteur import begin

    begin()
    return app


def __getattr__(name: str) -> Celery:
    """The apps, made when they are asked for: only a worker has their addresses."""
    broker = os.environ.get("BROKER", "")
    if name == "mint_app" and broker:
        return _sabotaged(participant_app(make_mint(os.environ["MINT"]), broker=broker))
    if name == "bank_app" and broker:
        return _sabotaged(subscriber_app(make_bank(os.environ["BANK"]), broker=broker))
    raise AttributeError(name)
