"""Contracts: what a message class says of itself, and what a wrong one is told."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from sagas_framework.errors import DefinitionError, Failure
from sagas_framework.messages import (
    Command,
    Compensation,
    Queue,
    QueueType,
    Reply,
    Service,
    declared_failure,
    settle_task,
)

kitchen = Service("kitchen")


class Closed(Failure):
    """The kitchen is closed."""


class SoldOut(Failure):
    """Renamed since; its old name is still on the wire."""

    wire_name = "OffTheMenu"


class Cooked(Reply):
    dish: str


class Cook(Command[Cooked], service=kitchen, name="cook", failures=[Closed, SoldOut]):
    dish: str
    price: Decimal = Decimal("10.90")
    wanted_at: datetime | None = None
    day: date | None = None


class ThrowAway(Compensation[Cook], service=kitchen, name="throw_away"):
    dish: str | None


class Ring(Command[None], service=kitchen, name="ring"):
    pass


# ---- what a class says of itself ------------------------------------------------------------------


def test_a_command_knows_its_task_its_reply_its_failures_and_its_compensation() -> None:
    assert Cook.contract.task == "kitchen.cook"
    assert Cook.contract.service is kitchen
    assert Cook.reply_type() is Cooked
    assert Cook.failures == (Closed, SoldOut)
    assert Cook.compensation is ThrowAway
    assert Cook.itself() is Cook


def test_a_compensation_knows_its_task_and_its_command() -> None:
    assert ThrowAway.contract.task == "kitchen.throw_away"
    assert ThrowAway.undoes() is Cook
    assert ThrowAway.itself() is ThrowAway


def test_a_command_whose_success_carries_nothing_says_so() -> None:
    assert Ring.reply_type() is type(None)
    assert Ring.compensation is None
    assert Ring.failures == ()


def test_the_settling_of_a_command_is_named_after_its_task() -> None:
    assert settle_task(Cook) == "kitchen.cook.settle"


def test_a_failure_is_known_by_the_name_that_it_has_on_the_wire() -> None:
    assert declared_failure(Cook, "Closed")
    assert declared_failure(Cook, "OffTheMenu")
    assert not declared_failure(Cook, "SoldOut")
    assert not declared_failure(Ring, "Closed")


def test_a_failure_derived_from_another_has_a_name_of_its_own() -> None:
    class SoldOutForEver(SoldOut):
        pass

    assert SoldOutForEver.wire_name == "SoldOutForEver"


def test_a_service_takes_commands_on_a_quorum_queue_named_after_it() -> None:
    assert kitchen.queue == Queue("kitchen.commands", QueueType.QUORUM)


def test_a_service_can_share_the_classic_queue_of_an_old_participant() -> None:
    old = Service("kitchen", queue=Queue("old.kitchen", QueueType.CLASSIC))

    assert old.queue == Queue("old.kitchen", QueueType.CLASSIC)


def test_a_service_keeps_the_type_of_a_queue_that_has_no_name_of_its_own() -> None:
    assert Service("kitchen", Queue("", QueueType.CLASSIC)).queue == Queue(
        "kitchen.commands", QueueType.CLASSIC
    )


# ---- what travels ---------------------------------------------------------------------------------


def test_a_body_is_plain_json() -> None:
    command = Cook(dish="soup", wanted_at=datetime(2026, 3, 1, 12, tzinfo=UTC), day=date(2026, 3, 1))

    assert command.to_json() == {
        "dish": "soup",
        "price": "10.90",
        "wanted_at": "2026-03-01T12:00:00Z",
        "day": "2026-03-01",
    }


def test_a_body_is_read_back_as_it_was() -> None:
    command = Cook(dish="soup", price=Decimal("0.10"))

    assert Cook.model_validate(command.to_json()) == command


def test_a_field_that_the_receiver_does_not_know_yet_is_ignored() -> None:
    assert Cook.model_validate({"dish": "soup", "table": 4}) == Cook(dish="soup")


def test_a_message_does_not_change_on_its_way() -> None:
    command = Cook(dish="soup")

    with pytest.raises(ValidationError, match="frozen"):
        command.dish = "salad"  # type: ignore[misc]


# ---- what a wrong contract is told ----------------------------------------------------------------


def test_a_command_without_a_service_or_a_name_is_told_to_write_both_out() -> None:
    told = (
        'Cooled needs a service and a name: class Cooled(..., service=some_service, name="..."). '
        "The name is written out so that renaming the class does not orphan messages on their way."
    )

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Cooled(Command[None]):
            pass

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Cooled(Command[None], service=kitchen):  # type: ignore[no-redef]
            pass

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Cooled(Command[None], name="cooled"):  # type: ignore[no-redef]
            pass


@pytest.mark.parametrize("answer", [int, str, Cook])
def test_a_command_that_answers_no_reply_is_told_what_to_write(answer: Any) -> None:
    told = "Fried answers .*: write Command\\[X\\] with X a subclass of Reply, or Command\\[None\\]."

    with pytest.raises(DefinitionError, match=told):

        class Fried(Command[answer], service=kitchen, name="fried"):
            pass


def test_a_failure_that_is_none_is_named() -> None:
    with pytest.raises(
        DefinitionError, match=r"Baked: <class 'ValueError'> in failures= is not a subclass of Failure\."
    ):

        class Baked(Command[None], service=kitchen, name="baked", failures=[ValueError]):
            pass


def test_a_compensation_without_a_command_is_told_what_to_write() -> None:
    told = "UndoNothing undoes nothing: write Compensation[SomeCommand]."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class UndoNothing(Compensation, service=kitchen, name="undo_nothing"):  # type: ignore[type-arg]
            pass


def test_a_compensation_of_another_service_is_told_who_has_the_row() -> None:
    """Rule 14 (A9)."""
    told = (
        "Unring is handled by hall, but Ring by kitchen. Only the service that did the work has the inbox "
        "row that tells whether there is something to undo: give both the same service."
    )

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class Unring(Compensation[Ring], service=Service("hall"), name="unring"):
            pass

    assert Ring.compensation is None


def test_a_second_compensation_of_a_command_is_told_of_the_first() -> None:
    told = "Cook already has a compensation, ThrowAway; GiveAway would be a second."

    with pytest.raises(DefinitionError, match=re.escape(told)):

        class GiveAway(Compensation[Cook], service=kitchen, name="give_away"):
            pass

    assert Cook.compensation is ThrowAway
