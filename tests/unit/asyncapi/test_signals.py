"""Signals in the documents: at the orchestrator whose saga waits for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from celery import Celery
from pydantic import BaseModel

from sagas_framework import NO_DEADLINE, DefinitionError, Queue, Saga, Sagas, Signal, Steps, on
from sagas_framework.asyncapi import (
    Contact,
    License,
    Specification,
    System,
    check_document,
    check_together,
    draw_system,
    fitting,
)
from sagas_framework.transport.envelope import Envelope, to_wire
from tests.unit.asyncapi.mill import described


class Word(Signal, name="word"):
    """Somebody's word.

    It is taken once.
    """

    who: str
    yes: bool = False


class Wish(BaseModel):
    who: str = ""


step = Steps(Wish)


class WishSaga(Saga[Wish], name="documented_wish", version=1):
    asked = step.wait(on(Word), deadline=NO_DEADLINE)
    asked_again = step.wait(on(Word), deadline=NO_DEADLINE)


def document_of(*sagas: type[Saga[Any]]) -> dict[str, Any]:
    return Specification(
        "documented_wishes",
        title="Documented_Wishes",
        version="1.0.0",
        description="Grants wishes.",
        contact=Contact("Ann", "https://wishes.example", "ann@wishes.example"),
        license=License("MIT", "https://wishes.example/license"),
        broker="amqp://guest:guest@broker.example:5672//",
        sends=Sagas(
            "documented_wishes",
            "sqlite://",
            sagas=list(sagas),
            reply_queue=Queue("documented_wishes.replies"),
        ),
    ).document


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return document_of(WishSaga)


TASK = "documented_wish.signal.word"


def test_the_orchestrator_receives_it_on_its_reply_queue(document: dict[str, Any]) -> None:
    [(name, operation)] = document["operations"].items()

    assert name == f"receive_{TASK}"
    assert operation["action"] == "receive"
    assert "reply" not in operation
    assert operation["summary"] == "Somebody's word."
    assert "- `asked` of the saga `documented_wish`, version 1" in operation["description"]
    assert "- `asked_again` of the saga `documented_wish`, version 1" in operation["description"]
    assert [tag["name"] for tag in operation["tags"]] == ["signal", "documented_wish"]
    assert document["channels"][TASK]["address"] == "documented_wishes.replies"
    assert document["channels"][TASK]["bindings"]["amqp"]["x-queue-arguments"] == {"x-queue-type": "quorum"}


def test_its_document_is_sound_alone_and_beside_others(document: dict[str, Any]) -> None:
    assert check_document(document) == []
    assert check_together([document, *(one.document for one in described())]) == []


def test_what_travels_is_what_the_document_says(document: dict[str, Any]) -> None:
    sent = Envelope("documented_wishes.replies", TASK, "click-4711", "wish-1", {"who": "ann", "yes": True})
    wire = to_wire(sent)

    assert fitting(document, wire.headers, json.loads(wire.body)) == [TASK]
    for payload in ({"who": 1}, {}, None):
        wire = to_wire(Envelope("documented_wishes.replies", TASK, "click-4711", "wish-1", payload))
        assert fitting(document, wire.headers, json.loads(wire.body)) == []


def test_what_a_plain_celery_client_sends_is_what_the_document_says(document: dict[str, Any]) -> None:
    app = Celery(broker="memory://", set_as_current=False)
    message = app.amqp.as_task_v2(
        "0d3c3dc2-7f3b-4c5c-9d2a-0a0a0a0a0a0a", TASK, args=("wish-1", {"who": "ann"})
    )

    assert fitting(document, message.headers, json.loads(json.dumps(message.body))) == [TASK]


def test_the_picture_shows_it_although_no_service_sends_it(document: dict[str, Any]) -> None:
    system = System.of({"documented_wishes": document})

    [talk] = system.talks
    assert (talk.sender, talk.channel) == (None, TASK)
    assert draw_system(system, lambda operation: f"/{operation.service}#{operation.anchor}")


def test_two_signals_of_one_name_that_differ_are_refused() -> None:
    class Other(Signal, name="word"):
        number: int

    class NewWishSaga(Saga[Wish], name="documented_wish", version=2):
        asked = step.wait(on(Other), deadline=NO_DEADLINE)

    with pytest.raises(DefinitionError, match=r"are both the signal .* and differ"):
        document_of(WishSaga, NewWishSaga)
