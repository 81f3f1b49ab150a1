"""Events in the documents: at who publishes them, at who subscribes, and between the two."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from sagas_framework import DefinitionError, Service
from sagas_framework.asyncapi import System, check_document, check_together, draw_system, fitting
from sagas_framework.transport.event_wire import EventEnvelope, event_to_wire
from tests.unit.asyncapi.mill import described, mill, shop, specified, subscriber_of


@pytest.fixture(scope="module")
def documents() -> dict[str, Any]:
    return {one.service: one.document for one in described()}


def test_who_declares_an_event_publishes_it_and_who_subscribes_receives_it(documents: dict[str, Any]) -> None:
    assert list(documents["documented_mill"]["operations"]) == ["send_documented_mill.sack_filled"]
    for name in ("documented_shop", "documented_inn"):
        assert list(documents[name]["operations"]) == ["receive_documented_mill.sack_filled"]


def test_the_channel_is_a_topic_of_the_exchange_of_events(documents: dict[str, Any]) -> None:
    for document in documents.values():
        channel = document["channels"]["documented_mill.sack_filled"]
        assert channel["address"] == "documented_mill.sack_filled"
        assert channel["bindings"]["amqp"]["is"] == "routingKey"
        assert channel["bindings"]["amqp"]["exchange"]["name"] == "events"
        assert channel["bindings"]["amqp"]["exchange"]["type"] == "topic"


def test_the_subscribers_queue_is_named(documents: dict[str, Any]) -> None:
    [operation] = documents["documented_shop"]["operations"].values()

    assert "the queue `documented_shop.events` (`x-queue-type` `quorum`)" in operation["description"]


def test_the_documents_are_sound_alone_and_together(documents: dict[str, Any]) -> None:
    assert [check_document(document) for document in documents.values()] == [[], [], []]
    assert check_together(documents.values()) == []
    assert check_together([documents["documented_mill"]]) == []  # nobody need subscribe


def test_a_subscriber_that_sees_it_otherwise_is_told(documents: dict[str, Any]) -> None:
    other = copy.deepcopy(documents["documented_inn"])
    del other["components"]["messages"]["documented_mill.sack_filled"]["payload"]["items"][0]["items"][1]

    problems = check_together([documents["documented_mill"], documents["documented_shop"], other])

    [problem] = problems
    assert problem.startswith("Documented_Mill: operations.send_documented_mill.sack_filled: payload of ")
    assert problem.endswith("is not as in the document of Documented_Inn")


def test_what_travels_is_what_the_documents_say(documents: dict[str, Any]) -> None:
    sent = EventEnvelope(str(uuid4()), "documented_mill.sack_filled", '{"kilos":5}', datetime.now(UTC), 7)
    wire = event_to_wire(sent)

    for document in documents.values():
        assert fitting(document, wire.headers, json.loads(wire.body)) == ["documented_mill.sack_filled"]


def test_the_picture_has_a_line_to_each_subscriber(documents: dict[str, Any]) -> None:
    system = System.of(documents)

    pairs = [(talk.sender, talk.receiver) for talk in system.talks]
    assert [(one and one.service, other and other.service) for one, other in pairs] == [
        ("documented_mill", "documented_shop"),
        ("documented_mill", "documented_inn"),
    ]
    drawn = draw_system(system, lambda operation: f"/{operation.service}#{operation.anchor}")
    assert drawn.count("exchange events") == 2
    assert "queue documented" not in drawn


def test_the_specification_of_another_services_subscriber_is_refused() -> None:
    with pytest.raises(DefinitionError, match="was given subscribes= of documented_shop"):
        specified(mill, subscriber_of(shop))


def test_a_specification_of_nothing_is_refused() -> None:
    with pytest.raises(DefinitionError, match="describes nothing"):
        specified(Service("documented_nobody"))
