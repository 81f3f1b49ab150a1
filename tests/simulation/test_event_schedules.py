"""Events in any order, doubled, lost, with relays and subscribers that die anywhere.

Real tables and the real relay and subscriber; the broker, the clock and the deaths are the schedule's.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, event, select

from sagas_framework import Event, EventContext, Retry, Service, Subscriber, Unavailable, publish
from sagas_framework.outbox import Relay
from sagas_framework.points import EventPoint, listen
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.event_inbox import read_events, retry_events
from sagas_framework.storage.migrate import upgrade
from sagas_framework.storage.outbox import Outbox
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
mint = Service("mint")
banks = ("bank_a", "bank_b")


class Coined(Event, service=mint, name="coined"):
    coin: int


_own = MetaData()
_coins = Table("coins", _own, Column("id", Integer, primary_key=True), Column("coin", Integer))
_kept = Table(
    "kept", _own, Column("id", Integer, primary_key=True), Column("by", String), Column("coin", Integer)
)


SEEDS = range(6)


class Died(BaseException):
    """As a kill: nobody catches it."""


class Broker:
    """Loses confirmations, doubles and reorders; it keeps what it has confirmed, unless it is wiped."""

    def __init__(self, dice: Random) -> None:
        self.dice = dice
        self.queues: dict[str, list[WireMessage]] = {bank: [] for bank in banks}

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        receipts = []
        for message in messages:
            chance = self.dice.random()
            if chance > 0.15:  # it comes; below, it is lost before the broker has it
                for bank, queue in self.queues.items():
                    came = replace(message, queue=f"{bank}.events", exchange="")
                    queue.extend([came] * self.dice.choice((1, 1, 1, 2)))
                    self.dice.shuffle(queue)
            receipts.append(Receipt.CONFIRMED if chance > 0.3 else Receipt.UNSENT)
        return receipts

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...


def in_a_hurry(engine: Engine) -> None:
    """Nothing here survives the machine, so no commit waits for the disk."""

    @event.listens_for(engine, "connect")
    def hurry(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")


class World:
    """A mint that publishes each coin, and banks whose subscribers keep it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.dice = Random(seed)
        self.now = NOON
        self.trouble = True
        self.broker = Broker(self.dice)
        self.mint = make_engine(f"sqlite:///{folder}/mint.sqlite")
        in_a_hurry(self.mint)
        upgrade(self.mint)
        _own.create_all(self.mint)
        self.coin = 0
        self.banks = [self._bank(name, folder) for name in banks]

    def _bank(self, name: str, folder: Path) -> Subscriber:
        bank = Subscriber(
            Service(name),
            database=f"sqlite:///{folder}/{name}.sqlite",
            retry=Retry(4, pause=timedelta(seconds=1)),
            clock=lambda: self.now,
        )
        in_a_hurry(bank.engine)
        bank.upgrade()
        _own.create_all(bank.engine)
        for each in ("vault", "ledger"):
            bank.subscribes(Coined, name=each)(self._keeper(each))
        return bank

    def _keeper(self, by: str) -> Any:
        def keep(coined: Coined, context: EventContext) -> None:
            context.session.execute(_kept.insert().values(by=by, coin=coined.coin))
            if self.trouble and (chance := self.dice.random()) < 0.2:
                raise Unavailable("not now") if chance < 0.1 else RuntimeError("no")

        return keep

    def step(self) -> None:
        """One thing happens; perhaps whoever does it dies in the middle."""
        points = list(EventPoint)
        dies_at = self.dice.choice(points) if self.trouble and self.dice.random() < 0.3 else None

        def die(point: EventPoint) -> None:
            if point is dies_at:
                raise Died

        listen(die)
        try:
            self.dice.choice((self.coining, self.relaying, self.receiving, self.handling, self.handling))()
        except Died:
            pass
        finally:
            listen(None)

    def coining(self) -> None:
        with self.mint.begin() as connection:
            self.coin += 1
            connection.execute(_coins.insert().values(coin=self.coin))
            publish(Coined(coin=self.coin), connection)

    def relaying(self) -> None:
        Relay(self.mint, self.broker, clock=lambda: self.now).turn()

    def receiving(self) -> None:
        bank = self.dice.choice(self.banks)
        queue = self.broker.queues[bank.service.name]
        taken = queue[: self.dice.randint(1, 5)]
        bank.receive(taken)
        if not self.trouble or self.dice.random() > 0.2:  # else it dies before it acknowledges
            del queue[: len(taken)]

    def handling(self) -> None:
        self.now += timedelta(seconds=self.dice.choice((0, 1, 30, 61)))
        self.dice.choice(self.banks).handle_due(self.dice.choice(("vault", "ledger")), 3)

    def settle(self) -> None:
        """All trouble is over, and a person has what was parked tried again."""
        self.trouble = False
        self.broker.dice = Random(1)
        for _ in range(200):
            Relay(self.mint, self.broker, clock=lambda: self.now).turn()
            for bank in self.banks:
                queue = self.broker.queues[bank.service.name]
                bank.receive(queue)
                queue.clear()
                self.now += timedelta(minutes=2)
                with bank.engine.begin() as connection:
                    retry_events(connection, read_events(connection, limit=1000), self.now)
                for name in bank.subscriptions:
                    while bank.handle_due(name):
                        pass
            with reading(self.mint) as connection:
                if not Outbox(self.mint).send(lambda rows: [False] * len(rows), 1, self.now)[0]:
                    break

    def close(self) -> None:
        for engine in (self.mint, *(bank.engine for bank in self.banks)):
            engine.dispose()


def coins(engine: Engine) -> list[int]:
    with reading(engine) as connection:
        return sorted(connection.execute(select(_coins.c.coin)).scalars())


def kept(engine: Engine, by: str) -> list[int]:
    with reading(engine) as connection:
        return sorted(connection.execute(select(_kept.c.coin).where(_kept.c.by == by)).scalars())


@pytest.fixture(autouse=True)
def nobody_listens_afterwards() -> Iterator[None]:
    yield
    listen(None)


@pytest.mark.parametrize("seed", SEEDS)
def test_each_subscriber_keeps_each_coin_that_was_committed_once(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path, seed)

    for _ in range(20):
        for _ in range(5):
            world.step()
        for bank in world.banks:  # never a coin that is not, never twice, at any moment
            for name in bank.subscriptions:
                found = kept(bank.engine, name)
                assert len(found) == len(set(found))
                assert set(found) <= set(coins(world.mint))
    world.settle()

    for bank in world.banks:
        for name in bank.subscriptions:
            assert kept(bank.engine, name) == coins(world.mint)
        with reading(bank.engine) as connection:
            assert read_events(connection) == []
            assert read_quarantine(connection) == []
    world.close()


def test_what_a_broker_has_lost_that_was_wiped_is_sent_again_and_handled_once(tmp_path: Path) -> None:
    world = World(tmp_path, 1)
    world.trouble = False
    for _ in range(3):
        world.coining()
    while Outbox(world.mint).send(lambda rows: [False] * len(rows), 1, NOON)[0]:
        world.relaying()
    world.banks[0].receive(world.broker.queues["bank_a"])
    for queue in world.broker.queues.values():
        queue.clear()

    assert Outbox(world.mint).send_again(NOON) == 3
    world.settle()

    assert [kept(bank.engine, "vault") for bank in world.banks] == [[1, 2, 3]] * 2
    world.close()


# ---- planted bugs: what the schedules above find --------------------------------------------------


def _fails(folder: Path) -> bool:
    for seed in SEEDS:
        place = folder / str(seed)
        place.mkdir()
        try:
            test_each_subscriber_keeps_each_coin_that_was_committed_once(place, seed)
        except AssertionError:
            return True
    return False


def test_a_relay_that_marks_before_it_sends_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Relay._send
    monkeypatch.setattr(Relay, "_send", lambda self, rows: [True for _ in right(self, rows)])

    assert _fails(tmp_path)


def test_an_inbox_that_forgets_what_is_done_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Subscriber.receive

    def forgetful(self: Subscriber, messages: Sequence[WireMessage]) -> None:
        strangers = []
        for message in messages:
            [[_, payload], *rest] = json.loads(message.body)
            strangers.append(replace(message, body=json.dumps([[str(uuid4()), payload], *rest]).encode()))
        right(self, strangers)

    monkeypatch.setattr(Subscriber, "receive", forgetful)

    assert _fails(tmp_path)
