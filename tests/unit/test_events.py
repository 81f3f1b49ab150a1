"""Declaring events and subscribers, and an event's form on the wire."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from sagas_framework import (
    DefinitionError,
    Event,
    EventContext,
    Message,
    Participant,
    Service,
    Subscriber,
    participant_app,
    publish,
    subscriber_app,
)
from sagas_framework.errors import ConfigurationError
from sagas_framework.events import EXCHANGE, events_of
from sagas_framework.storage.memory import MemorySession
from sagas_framework.testing.sessions import StandInSession
from sagas_framework.transport.envelope import UnreadableError, WireMessage
from sagas_framework.transport.event_wire import EventEnvelope, event_from_wire, event_to_wire

mill = Service("mill")
shop = Service("shop")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class FlourGround(Event, service=mill, name="flour_ground"):
    kilos: int
    price: Decimal = Decimal("1.50")


class FlourSold(Event, service=mill, name="flour.sold"):
    kilos: int


def ignore(event: Any, context: EventContext) -> None: ...


# ---- declaring ------------------------------------------------------------------------------------


def test_an_event_has_a_topic_of_its_service_and_its_name() -> None:
    assert FlourGround.contract.task == "mill.flour_ground"
    assert FlourSold.contract.task == "mill.flour.sold"


def test_the_events_of_a_service_are_those_it_has_declared_by_topic() -> None:
    assert events_of("mill") == [FlourSold, FlourGround]
    assert events_of("shop") == []


def test_an_event_without_a_service_or_a_name_is_refused() -> None:
    with pytest.raises(DefinitionError, match=r"NoService needs a service and a name"):

        class NoService(Event, name="x"): ...

    with pytest.raises(DefinitionError, match=r"NoName needs a service and a name"):

        class NoName(Event, service=mill): ...


@pytest.mark.parametrize("name", ["#", "*", "a b", "a..b", "ü", "x" * 200])
def test_a_name_that_is_no_topic_is_refused(name: str) -> None:
    with pytest.raises(DefinitionError, match="cannot have the topic"):

        class Wrong(Event, service=mill, name=name): ...


def test_two_classes_are_not_one_event() -> None:
    with pytest.raises(DefinitionError, match=r"Again and .*FlourGround are both the event"):

        class Again(Event, service=mill, name="flour_ground"): ...


def test_a_module_that_is_imported_anew_declares_its_events_anew() -> None:
    def declare() -> type[Event]:
        class Fresh(Event, service=Service("mill_2"), name="fresh"): ...

        return Fresh

    declare()
    second = declare()

    assert events_of("mill_2") == [second]


# ---- subscribing ----------------------------------------------------------------------------------


def test_a_service_has_one_queue_bound_to_what_it_subscribes_to() -> None:
    subscriber = Subscriber(shop, database="sqlite://")
    subscriber.subscribes(FlourGround, name="one")(ignore)
    subscriber.subscribes(FlourGround, name="two")(ignore)
    subscriber.subscribes(FlourSold)(ignore)

    assert subscriber.queue.name == "shop.events"
    assert subscriber.queue.topics == ("mill.flour.sold", "mill.flour_ground")
    assert list(subscriber.subscriptions) == ["one", "two", "ignore"]


def test_rows_remember_subscribers_by_a_name_so_each_has_its_own() -> None:
    subscriber = Subscriber(shop, database="sqlite://")
    subscriber.subscribes(FlourGround)(ignore)

    with pytest.raises(DefinitionError, match="shop has a subscriber ignore already, of FlourGround"):
        subscriber.subscribes(FlourSold)(ignore)


@pytest.mark.parametrize("name", ["a" * 101, "\n"])
def test_a_subscriber_has_a_name_that_a_row_can_hold(name: str) -> None:
    with pytest.raises(DefinitionError, match="1 to 100 printable characters"):
        Subscriber(shop, database="sqlite://").subscribes(FlourSold, name=name)(ignore)


@pytest.mark.parametrize("what", [Message, Event, "mill.flour_ground"])
def test_only_an_event_is_subscribed_to(what: Any) -> None:
    with pytest.raises(DefinitionError, match="shop cannot subscribe to"):
        Subscriber(shop, database="sqlite://").subscribes(what)


def test_a_worker_that_subscribes_to_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="shop subscribes to nothing"):
        subscriber_app(Subscriber(shop, database="sqlite://"), broker="memory://")


def test_the_workers_of_one_service_do_not_take_the_events_of_another() -> None:
    subscriber = Subscriber(shop, database="sqlite://")
    subscriber.subscribes(FlourSold)(ignore)

    with pytest.raises(ConfigurationError, match="The subscriber of shop was given to the workers of mill"):
        participant_app(Participant(mill, database="sqlite://"), broker="memory://", subscriber=subscriber)


# ---- publishing where there is no database --------------------------------------------------------


def test_a_stand_in_for_a_session_keeps_what_is_published_with_its_rows() -> None:
    inner = MemorySession({})
    session: Any = StandInSession(inner)

    publish(FlourSold(kilos=5), session)
    publish(FlourSold(kilos=6), session)

    assert inner.rows == {"published": [("mill.flour.sold", {"kilos": 5}), ("mill.flour.sold", {"kilos": 6})]}


# ---- on the wire ----------------------------------------------------------------------------------

SENT = EventEnvelope("e-1", "mill.flour_ground", '{"kilos":5,"price":"1.50"}', NOON, 7)


def test_an_event_is_a_celery_task_message_on_the_exchange_of_events() -> None:
    message = event_to_wire(SENT)

    assert (message.exchange, message.queue) == (EXCHANGE, "mill.flour_ground")
    assert json.loads(message.body)[0] == ["e-1", {"kilos": 5, "price": "1.50"}]
    assert message.headers["task"] == "mill.flour_ground"
    assert message.headers["id"] == message.headers["root_id"] == "e-1"
    assert message.headers["saga_event_at"] == "2026-03-01T12:00:00+00:00"
    assert message.headers["saga_event_number"] == 7


def test_what_is_sent_is_what_is_read() -> None:
    read = event_from_wire(event_to_wire(SENT))

    assert replace(read, body=json.loads(read.body)) == replace(SENT, body=json.loads(SENT.body))


@pytest.mark.parametrize(
    ("headers", "content", "body", "why"),
    [
        ({"task": None}, "application/json", b'[["e",{}],{},{}]', "the task's name is None"),
        ({}, "application/x-python", b'[["e",{}],{},{}]', "the content type is 'application/x-python'"),
        ({}, "application/json", b"{", "the body is not JSON"),
        ({}, "application/json", b"[" * 100_000, "the body is not JSON"),
        ({}, "application/json", b"{}", r"should be \[event_id, payload\]"),
        ({}, "application/json", b'[["e"],{},{}]', r"should be \[event_id, payload\]"),
        ({}, "application/json", b"[[1,{}],{},{}]", "the event's id is 1"),
        ({"saga_event_at": "2026-03-01"}, "application/json", b'[["e",{}],{},{}]', "no.*|not a moment"),
        ({"saga_event_at": 5}, "application/json", b'[["e",{}],{},{}]', "not a moment"),
        ({"saga_event_number": True}, "application/json", b'[["e",{}],{},{}]', "not a number"),
        ({"saga_event_number": 2**64}, "application/json", b'[["e",{}],{},{}]', "not a number"),
    ],
)
def test_what_is_no_event_is_unreadable(headers: dict[str, Any], content: str, body: bytes, why: str) -> None:
    right = event_to_wire(SENT)
    wrong = WireMessage("shop.events", {**right.headers, **headers}, {"content_type": content}, body)

    with pytest.raises(UnreadableError, match=why):
        event_from_wire(wrong)
