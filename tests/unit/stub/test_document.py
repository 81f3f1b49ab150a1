"""What a stub reads in a document, and what it says of one that it cannot use."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, Final

import pytest

from restaurant_service.asyncapi_specification import specification
from sagas_framework import Queue, QueueType, SagasError
from sagas_framework.stub.behaviour import behaviours
from sagas_framework.stub.document import DocumentError, read_document
from tests.unit.stub.documents import (
    NOTHING,
    RESERVATION,
    TASK,
    UNDO,
    changed,
    failure,
    message,
    operation,
    read,
    shop,
    written,
)

SUCCESS = f"channels/{TASK}.replies/messages/{TASK}.response.success"
FAILURE = f"channels/{TASK}.replies/messages/{TASK}.response.failure"


# ---- one that can be used ---------------------------------------------------------------------------


def test_a_document_written_by_hand_says_what_is_taken_and_answered() -> None:
    document = read(shop())

    reserve, release = document.taken
    assert (document.service, document.title, document.version) == ("shop", "Shop", "2.1.0")
    assert document.queue == Queue("shop.commands")
    assert document.broker == "amqp://broker.example:5672/shop"
    assert (reserve.task, reserve.answer(), list(reserve.refusals)) == (
        TASK,
        {"number": 17},
        ["SoldOut", "NoSuchSku"],
    )
    assert (release.task, release.answer(), list(release.refusals)) == (UNDO, None, [])


def test_our_own_document_says_which_is_a_compensation_and_nothing_of_settling(tmp_path: Path) -> None:
    file = tmp_path / "restaurant.yaml"
    file.write_text(specification.yaml())

    document = read_document(file)

    assert document.queue == Queue("restaurant_service.commands")
    assert {taken.short: (taken.undoes, list(taken.refusals)) for taken in document.taken} == {
        "create_ticket": (False, ["RestaurantClosed"]),
        "reject_ticket": (True, []),
        "approve_ticket": (False, ["TicketNotPending"]),
    }


def test_events_that_the_service_subscribes_to_are_answered_by_nobody_and_so_by_no_stub() -> None:
    with_events = shop()
    with_events["channels"]["mill.ground"] = {
        "address": "mill.ground",
        "messages": {"mill.ground": message(NOTHING)},
        "bindings": {"amqp": {"is": "routingKey", "exchange": {"name": "events", "type": "topic"}}},
    }
    with_events["operations"]["receive_mill.ground"] = {
        "action": "receive",
        "channel": {"$ref": "#/channels/mill.ground"},
    }

    assert [taken.task for taken in read(with_events).taken] == [taken.task for taken in read(shop()).taken]


def test_json_is_read_like_yaml(tmp_path: Path) -> None:
    file = tmp_path / "restaurant.json"
    file.write_text(specification.json())

    assert [(taken.task, taken.answer()) for taken in read_document(file).taken] == [
        ("restaurant_service.create_ticket", {"ticket_id": 7}),
        ("restaurant_service.reject_ticket", None),
        ("restaurant_service.approve_ticket", None),
    ]


def test_a_date_in_yaml_stays_the_text_that_travels(tmp_path: Path) -> None:
    example = message(RESERVATION, {"number": 17, "until": "UNTIL"})
    file = written(tmp_path, changed(shop(), SUCCESS, example))
    file.write_text(file.read_text().replace("UNTIL", "2026-03-01"))

    assert read_document(file).taken[0].answer() == {"number": 17, "until": "2026-03-01"}


@pytest.mark.parametrize(
    ("arguments", "type_"),
    [({"x-queue-type": "quorum"}, QueueType.QUORUM), ({}, QueueType.CLASSIC), (None, QueueType.QUORUM)],
)
def test_the_queue_is_declared_as_the_binding_says(arguments: Any, type_: QueueType) -> None:
    document = shop()
    for task in (TASK, UNDO):
        said = {} if arguments is None else {"x-queue-arguments": arguments}
        changed(document, f"channels/{task}/bindings", {"amqp": {"is": "queue", **said}})

    assert read(document).queue.type is type_


@pytest.mark.parametrize(
    "failing",
    [
        failure("SoldOut"),
        {**message({"type": "object"}), "name": f"{TASK}.response.failure.SoldOut", "headers": {
            "type": "object", "properties": {"task": {"const": f"{TASK}.response.failure"}}}},
        message({"type": "object"}, {"type": "SoldOut", "message": "none left"}),
        message({"oneOf": [{"properties": {"type": {"const": "SoldOut"}}}]}),
    ],
    ids=["enumeration", "name", "example", "branch"],
)  # fmt: skip
def test_a_failure_is_declared_in_any_of_four_ways(failing: dict[str, Any]) -> None:
    taken = read(changed(shop(), FAILURE, failing)).taken[0]

    assert list(taken.refusals) == ["SoldOut"]


def test_what_the_framework_itself_answers_is_no_declared_failure() -> None:
    document = changed(shop(), FAILURE, failure("SoldOut", "InvalidPayload", "Withdrawn"))

    assert list(read(document).taken[0].refusals) == ["SoldOut"]


def test_an_example_that_does_not_fit_is_passed_over() -> None:
    taken = read(changed(shop(), SUCCESS, message(RESERVATION, {"number": 1}, {"number": 9}))).taken[0]

    assert taken.answer() == {"number": 9}


def test_without_an_example_the_plainest_value_is_made() -> None:
    assert read(changed(shop(), SUCCESS, message(RESERVATION))).taken[0].answer() == {"number": 5}


def test_a_message_of_several_in_one_channel_is_answered_by_the_replies_of_its_own_name() -> None:
    document = shop()
    channels = document["channels"]
    channels[TASK]["messages"][UNDO] = channels[UNDO]["messages"][UNDO]
    replies = channels[f"{TASK}.replies"]["messages"]
    replies |= channels[f"{UNDO}.replies"]["messages"]
    document["operations"] = {"commands": operation(TASK, *replies)}

    assert [(taken.task, taken.answer()) for taken in read(document).taken] == [
        (TASK, {"number": 17}),
        (UNDO, None),
    ]


def test_one_of_several_queues_can_be_chosen() -> None:
    document = changed(shop(), f"channels/{UNDO}/address", "shop.slow")

    assert [taken.task for taken in read(document, "shop.slow").taken] == [UNDO]


# ---- one that cannot --------------------------------------------------------------------------------


ASKED: Final = f"channels/{TASK}/messages/{TASK}"

WRONG: Final = [
    ("just text", "no AsyncAPI document"),
    ({"openapi": "3.1.0"}, "no AsyncAPI document"),
    ({"asyncapi": "2.6.0"}, "is AsyncAPI 2.6.0"),
    ({"asyncapi": 3.1}, "is AsyncAPI 3.1,"),
    ({"asyncapi": "3.1.0"}, "it has no operations"),
    ({"asyncapi": "3.1.0", "operations": {"tell": {"action": "send"}}}, r"only sends \(tell\)"),
    (changed(shop(), "operations/reserve/channel/$ref", "#/channels/other"), "there is no 'other'"),
    (changed(shop(), "operations/reserve/channel/$ref", "other.yaml#/x"), "leads out of the document"),
    (changed(shop(), "channels", {}), "there is no 'shop.reserve'"),
    (changed(shop(), "operations/reserve/channel", None), "operations.reserve has no channel"),
    (changed(shop(), "operations/reserve/reply", None), "response.success .*there are: none"),
    (changed(shop(), "operations/again", shop()["operations"]["reserve"]), "another operation receives"),
    (changed(shop(), f"channels/{TASK}/address", None), "the name of the queue"),
    (changed(shop(), f"channels/{UNDO}/address", "shop.slow"), "2 queues.*shop.commands, shop.slow.*--queue"),
    (changed(shop(), f"channels/{TASK}/messages", {}), "has no message"),
    (changed(shop(), f"{ASKED}/payload", {"type": "object"}), r"\[\[saga_id, payload\]"),
    (changed(shop(), ASKED, message({"type": "any"})), "whose schema is none of draft-07"),
]


@pytest.mark.parametrize(("document", "told"), WRONG)
def test_a_document_that_cannot_be_used_is_told_what_is_wrong(document: Any, told: str) -> None:
    with pytest.raises(DocumentError, match=told) as error:
        read(document)

    assert "shop.yaml" in str(error.value)


def test_a_queue_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(DocumentError, match=r"nothing on other; it does on shop\.commands"):
        read(shop(), "other")


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"a: [", "neither YAML nor JSON"), (b"\xff\xfe\x00", "not text in UTF-8"), (None, "cannot be read")],
)
def test_a_file_that_cannot_be_read_is_told_why(tmp_path: Path, content: bytes | None, told: str) -> None:
    file = tmp_path / "shop.yaml"
    if content is not None:
        file.write_bytes(content)

    with pytest.raises(DocumentError, match=told):
        read_document(file)


def test_nothing_is_a_success_like_others() -> None:
    assert read(changed(shop(), SUCCESS, message(NOTHING))).taken[0].answer() is None


def _places(node: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    if path:
        yield path
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, value in inner:
        yield from _places(value, (*path, name))


@pytest.mark.parametrize("value", [None, "text", [None], {"a": 1}], ids=repr)
def test_whatever_stands_in_a_wrong_place_it_is_used_or_told(value: Any) -> None:
    told = 0
    for path in _places(shop()):
        document = deepcopy(shop())
        node: Any = document
        for part in path[:-1]:
            node = node[part]
        node[path[-1]] = value
        try:
            behaviours(read(document))
        except SagasError as error:
            told += "shop.yaml" in str(error)

    assert told > 20
