"""Who talks to whom, read from documents."""

from __future__ import annotations

import pytest

from sagas_framework.asyncapi import Operation, System
from tests.unit.asyncapi.shop import of_the_kitchen, of_the_shop
from tests.unit.asyncapi_site.documents import answerer, asker, channel, document, operation


def test_what_one_sends_and_another_receives_is_one_talk() -> None:
    system = System.of({"shop": asker(), "kitchen": answerer()})

    (talk,) = system.talks
    assert (talk.channel, talk.address, talk.title) == ("kitchen.cook", "kitchen.commands", "Cook")
    assert talk.sender == Operation("shop", "send_kitchen.cook", "operation-request-send_kitchen.cook")
    assert talk.receiver == Operation(
        "kitchen", "receive_kitchen.cook", "operation-reply-receive_kitchen.cook"
    )
    assert talk.tags == {"command", "dinner"}
    assert talk.short == "cook"


def test_the_queue_of_the_answers_is_known_from_the_sender() -> None:
    (talk,) = System.of({"kitchen": answerer(), "shop": asker()}).talks

    assert talk.reply_address == "shop.replies"
    assert talk.answers == ("success", "Closed", "failure")


def test_what_nobody_receives_and_what_nobody_sends_is_there_too() -> None:
    system = System.of({"shop": asker(queue="elsewhere"), "kitchen": answerer()})

    assert [(talk.sender is None, talk.receiver is None) for talk in system.talks] == [
        (False, True),
        (True, False),
    ]
    assert system.talks[0].short == "kitchen.cook"
    assert system.talks[1].reply_address is None


def test_one_queue_is_not_enough_to_talk() -> None:
    other = document(
        "Bakery",
        operation("receive", "bakery.bake"),
        channels={"bakery.bake": channel("kitchen.commands", "bake")},
    )

    system = System.of({"shop": asker(), "bakery": other})

    assert [talk.sender and talk.receiver for talk in system.talks] == [None, None]


def test_several_who_receive_are_a_talk_each() -> None:
    system = System.of({"shop": asker(), "kitchen": answerer(), "spare": answerer("Spare kitchen")})

    assert [talk.receiver.service for talk in system.talks if talk.receiver] == ["kitchen", "spare"]


def test_talks_of_two_services_stand_together_in_the_order_of_the_sender() -> None:
    names = ["b.one", "a.one", "b.two", "a.two"]
    channels = {name: channel(name[0], name) for name in names}
    sender = document("S", *(operation("send", name) for name in names), channels=channels)
    receivers = {
        who: document(
            who, *(operation("receive", name) for name in names if name[0] == who), channels=channels
        )
        for who in "ab"
    }

    system = System.of({"s": sender} | receivers)

    assert [talk.channel for talk in system.talks] == ["b.one", "b.two", "a.one", "a.two"]


def test_neighbours_are_those_it_sends_to_and_those_it_receives_from() -> None:
    idle = document("Idle", channels={})
    system = System.of({"idle": idle, "shop": asker(), "kitchen": answerer()})

    (kitchen,) = system.neighbours("shop")
    (shop,) = system.neighbours("kitchen")

    assert (kitchen.name, kitchen.title) == ("kitchen", "Kitchen")
    assert (len(kitchen.sends_to), len(kitchen.receives_from)) == (1, 0)
    assert (len(shop.sends_to), len(shop.receives_from)) == (0, 1)
    assert system.neighbours("idle") == []


def test_who_talks_to_itself_is_no_neighbour_of_its_own() -> None:
    both = document(
        "Both",
        operation("send", "note"),
        operation("receive", "note"),
        channels={"note": channel("notes", "note")},
    )

    assert System.of({"both": both}).neighbours("both") == []


@pytest.mark.parametrize(
    ("action", "reply", "anchor"),
    [
        ("send", None, "operation-send-send_note"),
        ("receive", None, "operation-receive-receive_note"),
        ("send", "replies", "operation-request-send_note"),
        ("receive", "replies", "operation-reply-receive_note"),
    ],
)
def test_an_operation_has_the_anchor_that_its_page_gives_it(
    action: str, reply: str | None, anchor: str
) -> None:
    made = document(
        "Any",
        operation(action, "note", reply=reply),
        channels={"note": channel("notes", "note"), "replies": channel("replies", "noted")},
    )

    (talk,) = System.of({"any": made}).talks

    side = talk.sender or talk.receiver
    assert side is not None
    assert side.anchor == anchor


def test_a_channels_name_may_hold_what_a_reference_escapes() -> None:
    made = document("Any", operation("send", "a/b~c"), channels={"a/b~c": channel("q", "m")})

    assert System.of({"any": made}).talks[0].channel == "a/b~c"


def test_the_librarys_own_documents_fit_together_but_for_plain_tasks_which_have_none() -> None:
    system = System.of({"shop": of_the_shop(), "kitchen": of_the_kitchen()})

    missing = [talk.channel for talk in system.talks if talk.sender is None or talk.receiver is None]
    assert [channel for channel in missing if not channel.startswith("shop.tasks.")] == []
    cook = next(talk for talk in system.talks if talk.channel == "kitchen.cook")
    assert cook.answers[0] == "success"
    assert {"Closed", "failure"} <= set(cook.answers)
    assert cook.reply_address == "shop.replies"
    assert "compensation" in next(talk for talk in system.talks if talk.channel == "kitchen.take_back").tags
