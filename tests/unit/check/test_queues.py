"""Queues, as the parts of a program declare them."""

from __future__ import annotations

from sagas_framework import NOTHING_TO_UNDO, Queue, QueueType, Saga, Service
from sagas_framework.check.checking import check_program
from sagas_framework.check.queues import Setup
from tests.unit.check.orders import State, charge, codes, kitchen, step, ticket
from tests.unit.check.test_contracts import First

SAGAS = [First.definition]
REPLIES = Queue("shop.replies")
OWN = Queue("shop.tasks", QueueType.CLASSIC)


def test_a_program_that_is_right() -> None:
    setup = Setup(reply_queue=REPLIES, serves=[kitchen], taken=[OWN, kitchen.queue])

    assert check_program(SAGAS, setup) == []


def test_replies_and_commands_in_one_queue() -> None:
    found = check_program(SAGAS, Setup(reply_queue=Queue("bank.commands")))

    assert codes(found) == ["error reply-queue-shared"]
    assert "bank takes its commands from it" in found[0].what


def test_a_celery_app_that_takes_the_replies() -> None:
    found = check_program(SAGAS, Setup(reply_queue=REPLIES, taken=[OWN, REPLIES]))

    assert codes(found) == ["error queue-taken-by-celery"]
    assert "Take shop.replies from its task_queues" in found[0].instead


def test_a_celery_app_that_takes_the_commands_of_another_service() -> None:
    found = check_program(SAGAS, Setup(reply_queue=REPLIES, taken=[kitchen.queue]))

    assert codes(found) == ["error queue-taken-by-celery"]
    assert "commands for kitchen" in found[0].what


def test_a_queue_that_celery_declares_otherwise_than_the_contracts() -> None:
    taken = Queue(kitchen.queue.name, QueueType.CLASSIC)

    found = check_program(SAGAS, Setup(reply_queue=REPLIES, serves=[kitchen], taken=[taken]))

    assert codes(found) == ["error queue-declared-otherwise"]
    assert "classic by the Celery app's task_queues" in found[0].what


class Plain(Saga[State], name="plain", version=1):
    ticket = ticket()
    reserve = step.task("shop.reserve", lambda s: {}, compensation=NOTHING_TO_UNDO)
    charge = charge()


def test_a_plain_task_that_task_routes_send_elsewhere() -> None:
    routes = {"shop.reserve": "stock", "kitchen.create_ticket": "stock"}

    found = check_program([Plain.definition], Setup(routed=routes.get))

    assert codes(found) == ["warning task-routed-elsewhere plain.reserve"]
    assert "queue=Queue('stock'" in found[0].instead


def test_a_plain_task_that_task_routes_send_to_the_same_queue_and_the_program_takes_itself() -> None:
    celery = Queue("celery", QueueType.CLASSIC)

    assert check_program([Plain.definition], Setup(taken=[celery], routed=lambda task: "celery")) == []


def test_a_participant_of_the_program_that_takes_from_another_queue_than_the_contracts_say() -> None:
    other = Service("kitchen", Queue("kitchen.other"))

    found = check_program(SAGAS, Setup(reply_queue=REPLIES, serves=[other]))

    assert codes(found) == ["error service-declared-otherwise first.ticket"]
    assert "for the participant itself that is kitchen.other" in found[0].what
