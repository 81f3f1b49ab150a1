"""``saga events``: what a subscriber has not handled, and what was not sent."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from sagas_framework import publish
from sagas_framework.clock import utc_now
from sagas_framework.events import EXCHANGE
from sagas_framework.storage.outbox import Outbox
from sagas_framework.transport.connecting import connect, kombu_queue
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire
from sagas_framework.transport.generic import make_publisher
from tests.unit.cli.shop import say

WORKER = """
from sagas_framework import Event, Service, Subscriber, subscriber_app

inventory, buying = Service("cli_inventory"), Service("cli_buying")


class StockLow(Event, service=inventory, name="stock_low"):
    item: str


class Gone(Event, service=inventory, name="gone"):
    item: str


subscriber = Subscriber(buying, database="sqlite:///buying.sqlite3")
troubles = ["no line to the supplier"]


@subscriber.subscribes(StockLow)
def order_more(event, context):
    for trouble in troubles:
        raise RuntimeError(trouble)


@subscriber.subscribes(StockLow)
def tell(event, context):
    pass


app = subscriber_app(subscriber, broker="memory://cli_events")
"""


class Buying:
    """A service that subscribes, five events of which one is parked."""

    def __init__(self, folder: Path) -> None:
        (folder / "cli_buying_worker.py").write_text(WORKER)
        module: Any = importlib.import_module("cli_buying_worker")
        self.module, self.subscriber = module, module.subscriber
        self.subscriber.upgrade()

    def receive(self, event_id: str) -> None:
        envelope = EventEnvelope(event_id, "cli_inventory.stock_low", '{"item":"lamp"}', utc_now(), 1)
        self.subscriber.receive([event_to_wire(envelope)])

    def park(self) -> None:
        clock = self.subscriber.clock
        for _ in range(10):
            while self.subscriber.handle_due("order_more"):
                pass
            past = self.subscriber.clock() + timedelta(minutes=10)
            self.subscriber.clock = lambda past=past: past
        self.subscriber.clock = clock

    def say(self, *words: str, exit_code: int = 0) -> str:
        result = say("-A", "cli_buying_worker", *words)
        assert result.exit_code == exit_code, result.output
        return result.output


@pytest.fixture
def buying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Buying]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("cli_buying_worker", None)
    buying = Buying(tmp_path)
    yield buying
    buying.subscriber.engine.dispose()
    sys.modules.pop("cli_buying_worker", None)


def test_what_waits_is_listed_with_the_reason(buying: Buying) -> None:
    assert buying.say("events", "list") == "No event waits for a subscriber.\n"
    buying.receive("e-1")
    buying.subscriber.handle_due("order_more")

    told = buying.say("events", "list")

    assert "e-1  order_more  waiting, 1 attempt, the next in" in told
    assert "    RuntimeError: no line to the supplier\n" in told
    assert "e-1  tell  waiting, 0 attempts\n" in told
    assert buying.say("events", "list", "--parked") == "No event is parked.\n"


def test_an_event_is_shown_with_each_subscriber_by_the_beginning_of_its_id(buying: Buying) -> None:
    buying.receive("e-1")
    buying.subscriber.handle_due("tell")

    told = buying.say("events", "show", "e-")

    assert told.startswith("Event e-1: cli_inventory.stock_low, published ")
    assert "tell  done, 1 attempt\n" in told
    assert '"item": "lamp"' in told


def test_parked_events_are_tried_again_by_a_persons_word(buying: Buying) -> None:
    buying.receive("e-1")
    buying.receive("e-2")
    buying.park()
    assert "2 events are parked that order_more failed over" in buying.say("health", exit_code=1)

    buying.module.troubles.clear()
    assert buying.say("events", "retry", "--parked").startswith("done: 2 events are tried again")
    assert buying.say("events", "list", "--parked") == "No event is parked.\n"
    while buying.subscriber.handle_due("order_more"):
        pass
    assert "order_more" not in buying.say("events", "list")


def test_one_event_is_dropped_for_one_subscriber_with_name_and_reason(buying: Buying) -> None:
    buying.receive("e-1")

    told = buying.say(
        *("events", "drop", "e-1", "--subscriber", "order_more", "--by", "ann", "--reason", "a test's")
    )

    assert told == "done: 1 event is dropped, by ann: a test's.\n"
    assert "order_more" not in buying.say("events", "list")
    assert "dropped by ann: a test's" in buying.say("events", "show", "e-1")


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("retry",), "Say which: the id of an event, or --parked"),
        (("retry", "e-1", "--parked"), "Say which: the id of an event, or --parked"),
        (("show", "e-9"), "No event 'e-9' has come here"),
        (("show", "e"), "'e' fits more than one event"),
        (("drop", "e-1", "--reason", " "), "needs a name and a reason"),
        (
            ("unbind", "cli_inventory.stock_low"),
            "subscribes to cli_inventory.stock_low: take its functions out",
        ),
    ],
)
def test_what_cannot_be_done_is_said_in_words(buying: Buying, words: tuple[str, ...], why: str) -> None:
    buying.receive("e-1")
    buying.receive("e-2")

    assert why in " ".join(buying.say("events", *words, exit_code=1).split())


def test_a_topic_is_taken_off_the_queue(buying: Buying) -> None:
    queue, topic = buying.subscriber.queue, "cli_inventory.gone"
    with connect("memory://cli_events") as connection:
        channel: Any = connection.default_channel
        kombu_queue(queue)(channel).declare()
        channel.queue_bind(queue.name, EXCHANGE, topic)

    assert (
        buying.say("events", "unbind", topic)
        == f"done: {topic} does not come to cli_buying.events any more.\n"
    )

    publisher = make_publisher("memory://cli_events", [queue])
    publisher.publish([event_to_wire(EventEnvelope("e", topic, "{}", utc_now(), 1))])
    load = publisher.load(queue.name)
    assert load is not None
    assert load.messages == 0
    publisher.close()


def test_the_outbox_is_listed_and_what_was_sent_can_be_sent_again(buying: Buying) -> None:
    assert buying.say("events", "outbox") == "Nothing waits to be sent.\n"
    with Session(buying.subscriber.engine) as session, session.begin():
        publish(buying.module.Gone(item="lamp"), session)
    assert "cli_inventory.gone, published" in buying.say("events", "outbox")
    assert "1 unsent, the oldest" in buying.say("health", exit_code=1)

    Outbox(buying.subscriber.engine).send(lambda rows: [True], 10, utc_now())
    assert buying.say("events", "outbox") == "Nothing waits to be sent.\n"
    assert buying.say("events", "send-again", "--since", "1h").startswith("done: 1 event is to be sent again")
    assert "cli_inventory.gone, published" in buying.say("events", "outbox")


def test_commands_about_sagas_say_that_there_are_none(buying: Buying) -> None:
    assert "it has no sagas to check" in buying.say("check")
    assert "is the subscriber cli_buying: it has an inbox and no sagas" in buying.say("list", exit_code=1)
    assert "only subscribes to events" in " ".join(buying.say("doctor", exit_code=1).split())
    assert "what was handled goes by itself" in " ".join(buying.say("archive", "status", exit_code=1).split())
    assert buying.say("quarantine", "list") == "The quarantine is empty.\n"
