"""What a change of an event does to subscribers and publishers of the last release."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from sagas_framework import Event, EventContext, Service, Subscriber
from sagas_framework.asyncapi import Contact, License, Specification
from sagas_framework.contracts import Change, Document, document
from sagas_framework.contracts.containing import Containing
from sagas_framework.contracts.judging import Judge, LastRelease

mill, shop = Service("released_mill"), Service("released_shop")
TOPIC = "released_mill.sack_filled"


class Sack(Event, service=mill, name="sack_filled"):
    kilos: int


def ignore(event: Sack, context: EventContext) -> None: ...


def content_of(service: Service) -> dict[str, Any]:
    subscriber = None
    if service is shop:
        subscriber = Subscriber(shop, database="sqlite://")
        subscriber.subscribes(Sack)(ignore)
    specification = Specification(
        service.name,
        title=service.name,
        version="1.0.0",
        description="Of a test.",
        contact=Contact("us", "https://example.com", "us@example.com"),
        license=License("MIT", "https://example.com/mit"),
        broker="amqp://guest:guest@localhost//",
        subscribes=subscriber,
    )
    return copy.deepcopy(specification.document)


def judged(
    containing: Containing, service: Service, edit: Callable[[dict[str, Any]], None], *, alone: bool = False
) -> list[Change]:
    old, new = content_of(service), content_of(service)
    edit(new)
    others = [] if alone else [read(content_of(mill if service is shop else shop), "other.yaml")]
    before, after = read(old, "old.yaml"), read(new, "new.yaml")
    return list(Judge(before, after, containing, LastRelease([*others, before])).changes())


def read(content: dict[str, Any], name: str) -> Document:
    return document(content, name)


def nothing(content: dict[str, Any]) -> None: ...


def gone(content: dict[str, Any]) -> None:
    content["operations"].clear()


def without_the_field(content: dict[str, Any]) -> None:
    payload = content["components"]["messages"][TOPIC]["payload"]["items"][0]["items"][1]
    schema = content["components"]["schemas"].get(payload.get("$ref", "").rpartition("/")[2], payload)
    del schema["properties"]["kilos"]
    schema["required"] = []


@pytest.mark.parametrize("service", [mill, shop])
def test_no_change_is_no_change(containing: Containing, service: Service) -> None:
    assert judged(containing, service, nothing) == []


def test_an_event_that_is_published_no_more_breaks_its_subscribers(containing: Containing) -> None:
    [change] = judged(containing, mill, gone)

    assert (change.code, change.breaking) == ("event-removed", True)
    assert "released_shop of the last release subscribes to it" in change.what


def test_an_event_that_nobody_subscribed_to_may_go(containing: Containing) -> None:
    [change] = judged(containing, mill, gone, alone=True)

    assert (change.code, change.breaking) == ("event-removed", False)


def test_a_subscription_may_end_and_it_is_said_what_is_left(containing: Containing) -> None:
    [change] = judged(containing, shop, gone)

    assert (change.code, change.breaking) == ("subscription-removed", False)
    assert f"events unbind {TOPIC}" in change.what


def test_a_field_that_subscribers_need_may_not_go(containing: Containing) -> None:
    changes = judged(containing, mill, without_the_field)

    assert any(change.breaking and change.field == "kilos" for change in changes)


def test_a_new_event_and_a_new_subscription_break_nobody(containing: Containing) -> None:
    for service in (mill, shop):
        old, new = content_of(service), content_of(service)
        gone(old)
        changes = Judge(
            read(old, "old.yaml"), read(new, "new.yaml"), containing, LastRelease([read(old, "old.yaml")])
        ).changes()
        assert [change.breaking for change in changes] == [False]
