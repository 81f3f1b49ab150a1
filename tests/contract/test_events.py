"""What the outbox and a subscriber's inbox promise, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, String, Table, func, select
from sqlalchemy.orm import Session

from sagas_framework import Event, Retry, Service, Unavailable, publish
from sagas_framework.errors import SagasError
from sagas_framework.outbox import KEPT, Relay
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.event_inbox import (
    EventInbox,
    EventState,
    count_events,
    drop_events,
    read_events,
    retry_events,
)
from sagas_framework.storage.migrate import upgrade
from sagas_framework.storage.outbox import Outbox, OutboxRow, read_backlog, read_unsent
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.storage.tables import saga_event
from sagas_framework.subscriber import EventContext, Subscriber
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire
from sagas_framework.transport.publisher import Load, Receipt
from tests.contract.looking import BOUNDED, in_thread

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)

warehouse = Service("warehouse")
buyers = Service("buyers")


class StockLow(Event, service=warehouse, name="stock_low"):
    item: str
    left: int = 0


class Renamed(Event, service=warehouse, name="renamed"):
    item: str


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest) -> str:
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = make_engine(url)
    upgrade(engine)
    yield engine
    engine.dispose()


class Broker:
    """Confirms what it is told to confirm."""

    def __init__(self) -> None:
        self.taken: list[WireMessage] = []
        self.confirms: Callable[[WireMessage], bool] = lambda _: True

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.taken += messages
        return [Receipt.CONFIRMED if self.confirms(m) else Receipt.UNSENT for m in messages]

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...

    @property
    def items(self) -> list[str]:
        return [event_item(message) for message in self.taken]


def event_item(message: WireMessage) -> str:
    item: str = json.loads(message.body)[0][1]["item"]
    return item


def published(engine: Engine, *items: str) -> None:
    with Session(engine) as session, session.begin():
        for item in items:
            publish(StockLow(item=item), session)


# ---- the outbox -----------------------------------------------------------------------------------


def test_an_event_is_sent_if_its_transaction_commits_and_not_otherwise(engine: Engine) -> None:
    broker = Broker()
    with Session(engine) as session:
        publish(StockLow(item="rolled back"), session)
        session.rollback()
    published(engine, "kept")

    assert Relay(engine, broker).turn() == 1
    assert broker.items == ["kept"]


def test_it_takes_a_connection_as_well(engine: Engine) -> None:
    broker = Broker()
    with engine.begin() as connection:
        publish(StockLow(item="nut"), connection)

    Relay(engine, broker).turn()

    assert broker.items == ["nut"]


def test_events_of_one_database_are_numbered_and_sent_by_number(engine: Engine) -> None:
    broker = Broker()
    published(engine, "a", "b")
    published(engine, "c")

    Relay(engine, broker).turn()

    numbers = [message.headers["saga_event_number"] for message in broker.taken]
    assert broker.items == ["a", "b", "c"]
    assert numbers == sorted(set(numbers))


def test_what_is_not_confirmed_is_sent_again_and_the_rest_is_not(engine: Engine) -> None:
    broker, outbox = Broker(), Outbox(engine)
    published(engine, "lost", "kept")

    def confirm(rows: Sequence[OutboxRow]) -> list[bool]:
        return ["lost" not in row.body for row in rows]

    assert outbox.send(confirm, 10, NOON) == (2, 1)
    Relay(engine, broker).turn()
    assert broker.items == ["lost"]


def test_a_relay_that_dies_leaves_all_of_its_batch_to_the_next(engine: Engine) -> None:
    published(engine, "a", "b")

    def die(rows: Sequence[OutboxRow]) -> list[bool]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Outbox(engine).send(die, 10, NOON)

    broker = Broker()
    Relay(engine, broker).turn()
    assert broker.items == ["a", "b"]


def test_two_relays_on_postgresql_share_the_events_out(postgres_url: str) -> None:
    engine = make_engine(postgres_url)
    upgrade(engine)
    published(engine, "a", "b", "c")
    second: list[str] = []

    def first(rows: Sequence[OutboxRow]) -> list[bool]:
        Outbox(engine).send(note, 10, NOON)
        return [True] * len(rows)

    def note(rows: Sequence[OutboxRow]) -> list[bool]:
        second.extend(row.body for row in rows)
        return [True] * len(rows)

    assert Outbox(engine).send(first, 2, NOON) == (2, 2)
    assert second == ['{"item":"c","left":0}']
    engine.dispose()


def test_more_than_a_batch_is_sent_in_one_turn(engine: Engine) -> None:
    broker = Broker()
    published(engine, *(str(number) for number in range(450)))

    assert Relay(engine, broker).turn() == 450
    assert broker.items == [str(number) for number in range(450)]


def test_a_broker_that_takes_nothing_is_left_alone_for_a_while(engine: Engine) -> None:
    broker = Broker()
    broker.confirms = lambda _: False
    relay = Relay(engine, broker)
    published(engine, "a")

    assert (relay.turn(), relay.turn(), relay.turn()) == (0, 0, 0)
    assert broker.items == ["a"]


def test_what_a_full_queue_refuses_does_not_hold_up_what_comes_behind(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas_framework.outbox.BATCH", 2)
    monkeypatch.setattr("sagas_framework.outbox._LONGEST_PAUSE", 0.0)
    broker = Broker()
    published(engine, "refused", "refused", "refused", "a", "b", "refused", "c")
    broker.confirms = lambda message: event_item(message) != "refused"
    relay = Relay(engine, broker)

    for _ in range(6):
        relay.turn()

    assert [item for item in broker.items if item != "refused"] == ["a", "b", "c"]
    broker.confirms = lambda _: True
    assert sum(relay.turn() for _ in range(2)) == 4
    assert relay.turn() == 0


def test_sent_events_are_kept_for_a_day_and_can_be_sent_again(engine: Engine) -> None:
    outbox, broker = Outbox(engine), Broker()
    published(engine, "a")
    outbox.send(lambda rows: [True] * len(rows), 10, NOON)

    assert outbox.forget(NOON) == 0
    assert outbox.send_again(NOON + SECOND) == 0
    assert outbox.send_again(NOON) == 1
    Relay(engine, broker, clock=lambda: NOON).turn()
    assert broker.items == ["a"]
    Relay(engine, broker, clock=lambda: NOON + KEPT + SECOND).turn()
    assert outbox.send_again(NOON) == 0


def test_a_relay_that_is_behind_with_forgetting_goes_on_with_the_next_turn(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sagas_framework.outbox._FORGET", 2)
    published(engine, "a", "b", "c")
    Outbox(engine).send(lambda rows: [True] * len(rows), 10, NOON)
    relay = Relay(engine, Broker(), clock=lambda: NOON + KEPT + SECOND)

    relay.turn()
    relay.turn()

    assert Outbox(engine).send_again(NOON) == 0


def test_the_backlog_says_how_many_wait_and_since_when(engine: Engine) -> None:
    with reading(engine) as connection:
        assert read_backlog(connection).events == 0
    published(engine, "a", "b")

    with reading(engine) as connection:
        backlog, unsent = read_backlog(connection), read_unsent(connection, 10)

    assert backlog.events == 2
    assert backlog.since == unsent[0].at


def test_a_commit_with_an_event_in_it_wakes_the_relays_of_the_process(engine: Engine) -> None:
    relay = Relay(engine, Broker())
    with Session(engine) as session:
        publish(StockLow(item="rolled back"), session)
        session.rollback()
    assert not relay.woken.is_set()

    published(engine, "kept")

    assert relay.woken.is_set()


def test_what_no_broker_would_take_is_not_published(engine: Engine) -> None:
    with Session(engine) as session, pytest.raises(SagasError, match="may have 1,048,576"):
        publish(StockLow(item="x" * 2_000_000), session)


def test_text_that_a_database_cannot_keep_goes_through(engine: Engine) -> None:
    broker = Broker()
    published(engine, "nul \0, naïve \U0001f355")

    Relay(engine, broker).turn()

    assert broker.items == ["nul \0, naïve \U0001f355"]


# ---- a subscriber ---------------------------------------------------------------------------------

_own = MetaData()
_effects = Table("effects", _own, Column("id", Integer, primary_key=True), Column("item", String))


class Shop:
    """A service with subscribers, whose effects are rows of its own."""

    def __init__(self, url: str, retry: Retry = Retry(attempts=3, pause=SECOND)) -> None:
        self.now = NOON
        self.failing: Exception | None = None
        self.seen: list[EventContext] = []
        self.subscriber = Subscriber(buyers, database=url, retry=retry, clock=lambda: self.now)
        self.subscriber.upgrade()
        self.engine = self.subscriber.engine
        _own.create_all(self.engine)
        self.subscriber.subscribes(StockLow, name="order_more")(self.order_more)
        self.subscriber.subscribes(StockLow, name="tell")(lambda event, context: None)

    def order_more(self, event: StockLow, context: EventContext) -> None:
        self.seen.append(context)
        context.session.execute(_effects.insert().values(item=event.item))
        if self.failing is not None:
            raise self.failing

    def receive(self, *messages: WireMessage) -> None:
        self.subscriber.receive(messages)

    def work(self, name: str = "order_more") -> int:
        return self.subscriber.handle_due(name)

    @property
    def effects(self) -> int:
        with reading(self.engine) as connection:
            return connection.execute(select(func.count()).select_from(_effects)).scalar_one()

    def rows(self, **wanted: Any) -> dict[str, Any]:
        with reading(self.engine) as connection:
            return {row.subscriber: row for row in read_events(connection, **wanted)}


@pytest.fixture
def shop(url: str) -> Iterator[Shop]:
    shop = Shop(url)
    yield shop
    shop.engine.dispose()


def sent(event_id: str = "e-1", body: str = '{"item":"nut"}', **changes: Any) -> WireMessage:
    envelope = EventEnvelope(event_id, "warehouse.stock_low", body, NOON, 1)
    message = event_to_wire(replace(envelope, **changes))
    return replace(message, queue="buyers.events", exchange="")


def test_an_event_that_comes_twice_has_one_effect(shop: Shop) -> None:
    shop.receive(sent(), sent())
    shop.work()
    shop.receive(sent())

    assert shop.work() == 0
    assert shop.effects == 1


def test_each_subscriber_handles_it_for_itself(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent())

    assert (shop.work("order_more"), shop.work("tell")) == (1, 1)
    assert list(shop.rows()) == ["order_more"]
    assert shop.rows(event_id="e-1")["tell"].state is EventState.DONE


def test_a_failure_takes_its_work_back_and_is_tried_again_after_a_pause(shop: Shop) -> None:
    shop.failing = RuntimeError("no luck")
    shop.receive(sent())
    shop.work()

    row = shop.rows()["order_more"]
    assert (shop.effects, row.attempt, row.reason) == (0, 1, "RuntimeError: no luck")
    assert row.due_at == NOON + SECOND
    assert shop.work() == 0
    shop.now, shop.failing = NOON + SECOND, None
    assert (shop.work(), shop.effects) == (1, 1)
    assert shop.seen[0].key == shop.seen[1].key
    assert shop.seen[1].attempt == 2


def test_one_that_fails_does_not_hold_up_another_event(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent("bad"))
    shop.work()
    shop.failing = None
    shop.receive(sent("good"))

    shop.work()

    assert shop.effects == 1


def test_used_up_attempts_park_it_and_a_person_has_it_tried_again(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent())
    for _ in range(3):
        shop.work()
        shop.now += timedelta(hours=1)

    parked = shop.rows(state=EventState.PARKED)["order_more"]
    assert (parked.attempt, parked.due_at, parked.body is not None) == (3, None, True)
    assert shop.work() == 0
    shop.failing = None
    with shop.engine.begin() as connection:
        assert retry_events(connection, [parked], shop.now) == 1
    assert (shop.work(), shop.effects) == (1, 1)


def test_what_a_person_drops_is_handled_no_more_however_often_it_comes(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent())
    shop.work()
    with shop.engine.begin() as connection:
        assert drop_events(connection, [shop.rows()["order_more"]], "ann: nobody wants it", NOON) == 1
    shop.failing, shop.now = None, NOON + timedelta(hours=1)
    shop.receive(sent())

    assert (shop.work(), shop.effects) == (0, 0)
    with shop.engine.begin() as connection:
        assert retry_events(connection, list(shop.rows(event_id="e-1").values()), NOON) == 1  # of `tell`


@pytest.mark.parametrize("error", [Unavailable("the shop is shut"), StoreUnavailable("gone")])
def test_what_could_not_be_tried_costs_no_attempt(shop: Shop, error: Exception) -> None:
    shop.receive(sent())
    for _ in range(5):
        shop.failing = error
        shop.work()
        shop.now += timedelta(seconds=5)

    assert (shop.rows()["order_more"].attempt, shop.effects) == (0, 0)
    shop.failing = None
    assert (shop.work(), shop.effects) == (1, 1)


def test_one_that_kills_its_process_is_parked_and_costs_its_neighbours_one_attempt(shop: Shop) -> None:
    shop.receive(sent("killer"), sent("b", number=2), sent("c", number=3))
    inbox, lease = shop.subscriber.inbox, timedelta(minutes=1)
    attempts: dict[str, list[int]] = {}
    for _ in range(20):
        claimed = inbox.claim("order_more", shop.now, lease, 10)
        for row in claimed:
            attempts.setdefault(row.event_id, []).append(row.attempt)
            if row.event_id == "killer":
                break  # the process dies
            with inbox.turn(row, shop.now):
                pass
        if not claimed:
            shop.now += lease
        if attempts["killer"][-1] == 3:
            break

    assert attempts == {"killer": [1, 2, 3], "b": [2], "c": [2]}
    shop.now += lease
    shop.work()
    assert shop.rows(state=EventState.PARKED)["order_more"].reason == "the process died in each attempt"


def test_a_claim_that_has_ended_changes_nothing_any_more(shop: Shop) -> None:
    shop.receive(sent())
    inbox, lease = shop.subscriber.inbox, timedelta(minutes=1)
    [old] = inbox.claim("order_more", shop.now, lease, 10)
    shop.now += lease
    [new] = inbox.claim("order_more", shop.now, lease, 10)

    inbox.fail(old, "late", None, shop.now)
    with inbox.turn(old, shop.now) as session:
        assert session is None
    with inbox.turn(new, shop.now) as session:
        assert session is not None

    assert shop.rows(event_id="e-1")["order_more"].state is EventState.DONE


def test_a_handler_that_commits_is_still_taken_back_with_its_failure(shop: Shop) -> None:
    def commit(event: StockLow, context: EventContext) -> None:
        context.session.execute(_effects.insert().values(item="x"))
        context.session.commit()
        raise RuntimeError("after all")

    shop.subscriber.subscribes(StockLow, name="commits")(commit)
    shop.receive(sent())
    shop.work("commits")

    assert shop.effects == 0


def test_a_handler_publishes_with_its_own_work(shop: Shop) -> None:
    def pass_on(event: StockLow, context: EventContext) -> None:
        publish(StockLow(item=f"{event.item} again"), context.session)
        if shop.failing is not None:
            raise shop.failing

    shop.subscriber.subscribes(StockLow, name="pass_on")(pass_on)
    shop.receive(sent())
    broker = Broker()
    shop.failing = RuntimeError("no")
    shop.work("pass_on")
    assert Relay(shop.engine, broker).turn() == 0
    shop.failing, shop.now = None, NOON + SECOND
    shop.work("pass_on")

    assert Relay(shop.engine, broker).turn() == 1


@pytest.mark.parametrize(
    ("message", "reason", "path"),
    [
        (sent(body='{"item":5}'), "not a warehouse.stock_low: $.item", "$[0][1]"),
        (sent(topic="warehouse.unheard_of"), "subscribes to no 'warehouse.unheard_of' here", "$"),
        (sent(at=NOON - timedelta(days=30)), "what was handled then is not remembered any more", "$"),
        (replace(sent(), body=b"\xff{"), "the body is not JSON", "$"),
    ],
)
def test_what_cannot_be_handled_is_set_aside_and_the_rest_is_not(
    shop: Shop, message: WireMessage, reason: str, path: str
) -> None:
    shop.receive(message, sent("fine"))

    with reading(shop.engine) as connection:
        [aside] = read_quarantine(connection)
    assert reason in aside.reason
    assert (aside.path, aside.queue) == (path, "buyers.events")
    assert (shop.work(), shop.effects) == (1, 1)


def test_no_moment_that_an_event_names_stops_whoever_receives_it(shop: Shop) -> None:
    last = sent("last", at=datetime.max.replace(tzinfo=UTC))
    first = sent("first")
    beyond = replace(first, headers={**first.headers, "saga_event_at": "0001-01-01T00:00:00+01:00"})

    shop.receive(last, beyond)

    with reading(shop.engine) as connection:
        [aside] = read_quarantine(connection)
    assert "not a moment" in aside.reason
    assert shop.work() == 1


def test_a_class_that_raises_over_an_event_has_it_set_aside(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(StockLow, "model_validate_json", lambda body: {}[body])

    shop.receive(sent())

    with reading(shop.engine) as connection:
        [aside] = read_quarantine(connection)
    assert "not a warehouse.stock_low: KeyError" in aside.reason


def test_what_a_newer_class_cannot_read_any_more_fails_like_a_handler(shop: Shop) -> None:
    shop.receive(sent())
    subscription = shop.subscriber.subscriptions["order_more"]
    object.__setattr__(subscription, "event", Renamed)
    with shop.engine.begin() as connection:
        connection.execute(saga_event.update().values(body="{}"))

    shop.work()

    assert shop.rows()["order_more"].reason == "ValidationError: $.item: Field required"


def test_it_is_remembered_for_as_long_as_a_copy_may_be_handled(shop: Shop) -> None:
    shop.receive(sent())
    shop.work()
    shop.work("tell")

    shop.now = NOON + timedelta(days=30)
    assert shop.subscriber.forget_old() == 0
    shop.receive(sent())  # too old by now, to a moment before the row goes
    shop.now += SECOND
    assert shop.subscriber.forget_old() == 2
    assert (shop.work(), shop.effects) == (0, 1)


def test_what_waits_or_is_parked_is_never_forgotten(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent())
    for _ in range(3):
        shop.work()
        shop.now += timedelta(days=50)

    assert shop.subscriber.forget_old() == 0
    assert set(shop.rows()) == {"order_more", "tell"}


def test_what_is_not_over_is_counted_by_subscriber(shop: Shop) -> None:
    shop.failing = RuntimeError("no")
    shop.receive(sent("a"), sent("b"))
    for _ in range(3):
        while shop.work():
            pass
        shop.now += timedelta(hours=1)

    with reading(shop.engine) as connection:
        counts = {count.subscriber: count for count in count_events(connection)}

    assert (counts["order_more"].waiting, counts["order_more"].parked) == (0, 2)
    assert (counts["tell"].waiting, counts["tell"].since) == (2, NOON)


def test_workers_that_share_a_database_share_the_events_out(url: str) -> None:
    shops = [Shop(url) for _ in range(3)]
    shops[0].receive(*(sent(f"e-{number}", number=number) for number in range(60)))

    def work(shop: Shop) -> int:
        worked = 0
        while handled := shop.subscriber.handle_due("order_more", 5):
            worked += handled
        return worked

    running = [in_thread(lambda shop=shop: work(shop)) for shop in shops]  # type: ignore[misc]

    assert sum(one.result(BOUNDED) for one in running) == 60
    assert shops[0].effects == 60
    for shop in shops:
        shop.engine.dispose()


def test_a_busy_event_is_left_to_who_has_it(postgres_url: str) -> None:
    shop = Shop(postgres_url)
    shop.receive(sent())
    inbox, lease = shop.subscriber.inbox, timedelta(minutes=1)
    [row] = inbox.claim("order_more", shop.now, lease, 10)

    with inbox.turn(row, shop.now):
        shop.now += lease
        assert EventInbox(shop.engine).claim("order_more", shop.now, lease, 10) == []
    assert shop.work() == 0
    shop.engine.dispose()
