"""What is in a document, by the declarations from which it is made."""

from __future__ import annotations

from typing import Any

import pytest

from sagas_framework import Command, DefinitionError, Participant, Queue, QueueType, Saga, Sagas, Service
from sagas_framework.asyncapi import Contact, License, Specification, check_document, check_together
from tests.unit.asyncapi.shop import (
    Dinner,
    Leftovers,
    Meal,
    Snack,
    kitchen,
    make_kitchen,
    make_sagas,
    of_the_kitchen,
    of_the_shop,
    specify,
    step,
)


def replies(document: dict[str, Any], task: str) -> list[str]:
    """Keys of the messages that answer it."""
    return list(document["channels"][f"{task}.replies"]["messages"])


def payload(document: dict[str, Any], key: str) -> Any:
    """The schema of the second argument: a message's payload, or of a task's result the first."""
    return document["components"]["messages"][key]["payload"]["items"][0]["items"][1]


def test_documents_of_both_sides_are_sound_and_fit_together() -> None:
    shop, kitchens = of_the_shop(Snack), of_the_kitchen()

    assert check_document(shop) == []
    assert check_document(kitchens) == []
    assert check_together([shop, kitchens]) == []


@pytest.mark.parametrize("saga", [Dinner, Leftovers])
def test_a_document_of_what_is_sent_to_participants_without_an_inbox_is_sound(saga: type[Saga[Any]]) -> None:
    assert check_document(of_the_shop(saga)) == []


def test_a_participant_receives_commands_settlings_and_compensations() -> None:
    document = of_the_kitchen()

    assert list(document["operations"]) == [
        "receive_kitchen.cook",
        "receive_kitchen.cook_settle",
        "receive_kitchen.take_back",
        "receive_kitchen.bill",
        "receive_kitchen.bill_settle",
    ]
    assert document["channels"]["kitchen.cook.settle"]["address"] == "kitchen.commands"


def test_sagas_send_what_their_steps_may_send_and_each_task_once() -> None:
    document = of_the_shop()

    assert list(document["operations"]) == [
        "send_kitchen.cook",
        "send_kitchen.take_back",
        "send_kitchen.cook_settle",
        "send_shop.tasks.reserve_chair",
        "send_shop.tasks.free_chair",
        "send_kitchen.bill",
        "send_kitchen.bill_settle",
    ]
    told = document["operations"]["send_kitchen.cook"]["description"]
    assert "`cook` of the saga `dinner`, version 2" in told
    assert "`cook_less` of the saga `snack`, version 1" in told


def test_a_compensation_that_no_step_runs_is_not_sent() -> None:
    assert "send_kitchen.take_back" not in of_the_shop(Snack)["operations"]


def test_a_settling_that_no_step_can_bring_about_is_not_sent() -> None:
    # Before the pivot only an undoing is ever settled, and there is none.
    assert list(of_the_shop(Snack)["operations"]) == ["send_kitchen.cook"]
    assert "send_kitchen.bill_settle" in of_the_shop(Dinner)["operations"]  # its pivot


def test_each_declared_failure_is_a_reply_by_its_name_on_the_wire_and_any_other_is_the_standard_one() -> None:
    document = of_the_kitchen()

    assert replies(document, "kitchen.cook") == [
        "kitchen.cook.response.success",
        "kitchen.cook.response.failure.Closed",
        "kitchen.cook.response.failure.Gluttony",
        "kitchen.cook.response.failure",
    ]
    closed = payload(document, "kitchen.cook.response.failure.Closed")
    assert closed["properties"]["type"]["const"] == "Closed"
    other = payload(document, "kitchen.cook.response.failure")
    assert other["properties"]["type"]["not"] == {"enum": ["Closed", "Gluttony"]}


def test_a_compensation_is_answered_with_success_or_the_standard_failure() -> None:
    assert replies(of_the_kitchen(), "kitchen.take_back") == [
        "kitchen.take_back.response.success",
        "kitchen.take_back.response.failure",
    ]


def test_a_settling_has_four_answers() -> None:
    answers = payload(of_the_kitchen(), "kitchen.cook.settle.response.success")["oneOf"]

    assert [answer["properties"]["answer"]["const"] for answer in answers] == [
        "done",
        "refused",
        "withdrawn",
        "yours_to_undo",
    ]
    assert answers[0]["properties"]["reply"] == {"$ref": "#/components/schemas/Cooked"}


def test_at_the_participant_the_message_says_where_to_answer() -> None:
    document = of_the_kitchen()

    assert document["channels"]["kitchen.cook.replies"]["address"] is None
    reply = document["operations"]["receive_kitchen.cook"]["reply"]
    assert reply["address"]["location"] == "$message.header#/reply_to"


def test_at_the_orchestrator_answers_come_to_its_reply_queue() -> None:
    document = of_the_shop()

    channel = document["channels"]["kitchen.cook.replies"]
    assert channel["address"] == "shop.replies"
    assert channel["bindings"]["amqp"]["queue"]["name"] == "shop.replies"
    assert "address" not in document["operations"]["send_kitchen.cook"]["reply"]


def test_queues_are_bound_as_they_are_declared() -> None:
    quorum = of_the_kitchen()["channels"]["kitchen.cook"]["bindings"]["amqp"]
    classic = of_the_shop(Leftovers)["channels"]["old_kitchen.warm"]["bindings"]["amqp"]

    assert quorum["queue"] == {
        "name": "kitchen.commands",
        "durable": True,
        "exclusive": False,
        "autoDelete": False,
        "vhost": "/",
    }
    assert quorum["x-queue-arguments"] == {"x-queue-type": "quorum"}
    assert classic["x-queue-arguments"] == {}


def test_old_participants_do_not_answer_compensations_and_are_not_settled() -> None:
    document = of_the_shop(Leftovers)

    assert list(document["operations"]) == ["send_old_kitchen.warm", "send_old_kitchen.cool_down"]
    assert "reply" not in document["operations"]["send_old_kitchen.cool_down"]
    assert replies(document, "old_kitchen.warm") == [
        "old_kitchen.warm.response.success",
        "old_kitchen.warm.response.failure.Closed",
        "old_kitchen.warm.response.failure",
    ]


def test_a_plain_task_is_answered_by_its_worker() -> None:
    document = of_the_shop(Dinner)

    assert replies(document, "shop.tasks.reserve_chair") == [
        "shop.tasks.reserve_chair.linked.success",
        "shop.tasks.reserve_chair.linked.failure",
    ]
    command = document["components"]["messages"]["shop.tasks.reserve_chair"]
    (example,) = command["examples"]
    assert example["payload"][2]["callbacks"][0]["task"] == "shop.tasks.reserve_chair.linked.success"


def test_a_contract_of_a_plain_task_describes_its_arguments_and_its_result() -> None:
    class Sum(Command[None], service=Service("maths", Queue("celery"), protocol="celery"), name="sum"):
        """Add up."""

        numbers: list[int]

    class Adding(Saga[Meal], name="adding", version=1):
        add = step.command(Sum, lambda _: Sum(numbers=[]), pivot=True)

    document = of_the_shop(Adding)

    body = document["components"]["messages"]["maths.sum"]["payload"]["items"]
    assert body[1] == {"$ref": "#/components/schemas/Sum"}
    assert check_document(document) == []


def test_docstrings_are_summaries_and_descriptions() -> None:
    messages = of_the_kitchen()["components"]["messages"]

    assert messages["kitchen.cook"]["summary"] == "Cook the dishes."
    reply = messages["kitchen.cook.response.success"]
    assert (reply["title"], reply["summary"]) == ("Cooked", "It is on the table.")
    assert reply["description"] == "Eat it warm."
    closed = messages["kitchen.cook.response.failure.Closed"]
    assert (closed["summary"], closed["description"]) == ("The kitchen takes no orders.", "It opens at noon.")


def test_examples_of_fields_are_those_of_messages() -> None:
    (example,) = of_the_kitchen()["components"]["messages"]["kitchen.cook"]["examples"]

    assert example["payload"][0][1] == {"dishes": [{"name": "soup", "price": "1.00"}], "guest": None}


def test_one_contract_cannot_have_the_task_of_another() -> None:
    class Cooking(Command[None], service=kitchen, name="cook"):
        """Another of the same name."""

    class Twice(Saga[Meal], name="twice", version=1):
        again = step.command(Cooking, lambda _: Cooking(), pivot=True)

    with pytest.raises(DefinitionError, match=r"Cooking are both the task 'kitchen\.cook'"):
        _ = specify("shop", sends=make_sagas((Dinner, Twice))).document


def test_a_service_may_both_receive_and_send() -> None:
    document = specify("kitchen", receives=make_kitchen(), sends=make_sagas((Leftovers,), "kitchen")).document

    actions = {operation["action"] for operation in document["operations"].values()}
    assert actions == {"send", "receive"}
    assert check_document(document) == []


def test_a_service_that_asks_itself_says_so_on_one_channel_and_answers_others_too() -> None:
    document = specify("kitchen", receives=make_kitchen(), sends=make_sagas((Snack,), "kitchen")).document

    asks, answers = (document["operations"][f"{action}_kitchen.cook"] for action in ("send", "receive"))
    assert asks["channel"] == answers["channel"]
    assert asks["reply"]["channel"] != answers["reply"]["channel"]
    assert check_document(document) == []
    assert check_together([document]) == []


def test_the_reply_queue_may_be_classic() -> None:
    sagas = Sagas("shop", "sqlite://", sagas=[Snack], reply_queue=Queue("r", QueueType.CLASSIC))

    channel = specify("shop", sends=sagas).document["channels"]["kitchen.cook.replies"]

    assert channel["bindings"]["amqp"]["x-queue-arguments"] == {}


def test_a_service_that_is_asked_for_nothing_has_a_sound_document() -> None:
    participant = Participant(Service("listening"), database="sqlite://")

    told = Specification(
        "listening",
        title="Listening",
        version="1.0.0",
        description="Is told things, and asked for none.",
        contact=Contact("Team", "https://example.com", "team@example.com"),
        license=License("MIT", "https://opensource.org/license/mit"),
        broker="amqp://localhost//",
        receives=participant,
    ).document

    assert check_document(told) == []
    assert told["operations"] == told["channels"] == {}
