"""Contracts of one program that get in each other's way."""

from __future__ import annotations

from typing import Any

from sagas_framework import NOTHING_TO_UNDO, Command, Compensation, Queue, QueueType, Saga, Service, undo_task
from sagas_framework.check import check
from tests.unit.check.orders import (
    Charge,
    Refused,
    State,
    bank,
    charge,
    codes,
    kitchen,
    nothing,
    step,
    ticket,
)


class First(Saga[State], name="first", version=1):
    ticket = ticket()
    charge = charge()


def second(command: type[Command[Any]]) -> type[Saga[State]]:
    class Second(Saga[State], name="second", version=1):
        mark = step.local(nothing, compensation=NOTHING_TO_UNDO)
        charge = step.command(command, lambda s: command.model_validate(s.model_dump()), pivot=True)

    return Second


def test_one_contract_in_two_sagas_is_right() -> None:
    assert check(First, second(Charge)) == []


def test_two_contracts_of_one_task_that_are_not_alike() -> None:
    class ChargeInCents(Command[None], service=bank, name="charge"):
        order_id: int
        cents: int = 0

    (found,) = check(First, second(ChargeInCents))

    assert codes([found]) == ["error same-task"]
    assert "orders.Charge (first.charge)" in found.what
    assert "ChargeInCents (second.charge)" in found.what
    assert "'bank.charge'" in found.what


def test_two_contracts_of_one_task_that_are_alike_today() -> None:
    class Charge(Command[None], service=bank, name="charge", failures=[Refused]):
        order_id: int

    assert codes(check(First, second(Charge))) == ["warning same-task"]


def test_contracts_that_differ_in_what_may_be_refused_are_not_alike() -> None:
    class Charge(Command[None], service=bank, name="charge"):
        order_id: int

    assert codes(check(First, second(Charge))) == ["error same-task"]


def test_a_command_named_like_another_ones_compensation_or_settling() -> None:
    class Reject(Command[None], service=kitchen, name="reject_ticket"):
        ticket_id: int | None = None
        order_id: int = 1

    class Settle(Command[None], service=bank, name="charge.settle"):
        order_id: int

    rejects, settles = check(First, second(Reject)), check(First, second(Settle))

    assert codes(rejects) == codes(settles) == ["error same-task"]
    assert "the settling of tests.unit.check.orders.Charge (first.charge)" in settles[0].what


def test_a_plain_task_may_be_called_in_many_ways() -> None:
    class Plain(Saga[State], name="plain", version=1):
        one = step.task("shop.book", lambda s: {"a": 1}, compensation=undo_task("shop.free", lambda s: {}))
        two = step.task("shop.book", lambda s: {"b": 2}, compensation=undo_task("shop.free", lambda s: {}))
        free = step.task("shop.free", lambda s: {}, pivot=True)

    assert check(Plain) == []


def test_a_plain_task_that_is_also_a_contract() -> None:
    class Plain(Saga[State], name="plain", version=1):
        charge = step.task("bank.charge", lambda s: {"order_id": 1}, pivot=True)

    assert codes(check(First, Plain)) == ["error same-task"]


def test_two_declarations_of_one_queue() -> None:
    classic = Service("kitchen", Queue("kitchen.commands", QueueType.CLASSIC))

    class Wash(Command[None], service=classic, name="wash"):
        order_id: int

    class Unwash(Compensation[Wash], service=classic, name="unwash"):
        order_id: int

    (found,) = check(First, second(Wash))

    assert codes([found]) == ["error queue-declared-otherwise"]
    assert "quorum by CreateTicket (first.ticket) and classic by Wash (second.charge)" in found.what


def test_two_declarations_of_one_service() -> None:
    elsewhere = Service("kitchen", Queue("kitchen.urgent"))

    class Wash(Command[None], service=elsewhere, name="wash"):
        order_id: int

    (found,) = check(First, second(Wash))

    assert codes([found]) == ["error service-declared-otherwise second.charge"]
    assert "Wash goes to kitchen on kitchen.urgent (inbox); for CreateTicket that is" in found.what


def test_plain_tasks_of_one_module_may_have_queues_of_their_own() -> None:
    class Plain(Saga[State], name="plain", version=1):
        one = step.task("shop.one", lambda s: {}, compensation=NOTHING_TO_UNDO)
        two = step.task("shop.two", lambda s: {}, compensation=NOTHING_TO_UNDO, queue=Queue("slow"))
        charge = charge()

    assert check(Plain) == []
