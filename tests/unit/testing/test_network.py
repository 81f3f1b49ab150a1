"""The simulated broker: what each fate of a message means."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sagas_framework.testing import Scripted
from sagas_framework.testing.network import Names, Network
from sagas_framework.testing.world import World
from sagas_framework.transport.envelope import Envelope, UnreadableError, from_wire, to_wire
from sagas_framework.transport.publisher import Receipt
from tests.contract.looking import depth

MESSAGE = to_wire(
    Envelope("stock", "stock.reserve", "m-1", "s-1", {"order": 1}, headers={"saga_operation_id": "o-1"})
)


def network(fate: str) -> Network:
    names = Names()
    names.operations["o-1"] = "reserve"
    return Network(World(Scripted({"sending reserve 1": fate})), names)


@pytest.mark.parametrize(
    ("fate", "receipt", "soon", "late"),
    [
        ("arrives", Receipt.CONFIRMED, 1, 1),
        ("lost", Receipt.CONFIRMED, 0, 0),
        ("lost, unconfirmed", Receipt.UNSENT, 0, 0),
        ("arrives, unconfirmed", Receipt.UNSENT, 1, 1),
        ("no queue", Receipt.UNROUTABLE, 0, 0),
        ("twice", Receipt.CONFIRMED, 2, 2),
        ("twice, 7 s apart", Receipt.CONFIRMED, 1, 2),
        ("corrupted", Receipt.CONFIRMED, 1, 1),
        ("late 5 s", Receipt.CONFIRMED, 0, 1),
        ("broker wiped", Receipt.CONFIRMED, 0, 0),
    ],
)
def test_a_message_meets_its_fate(fate: str, receipt: Receipt, soon: int, late: int) -> None:
    broker = network(fate)

    assert broker.publish([MESSAGE]) == [receipt]

    broker.world.run(until=1)
    assert depth(broker, "stock") == soon
    broker.world.run(until=60)
    assert depth(broker, "stock") == late


def test_a_message_that_waits_is_gone_when_the_broker_is_wiped() -> None:
    broker = network("arrives")
    broker.publish([MESSAGE])
    broker.world.run(until=1)

    broker.wipe()

    assert depth(broker, "stock") == 0


def test_a_queue_that_does_not_exist_takes_nothing() -> None:
    broker = network("arrives")
    broker.missing.add("stock")

    assert broker.publish([MESSAGE]) == [Receipt.UNROUTABLE]


def test_messages_are_taken_in_the_order_in_which_they_came() -> None:
    broker = network("late 5 s")
    second = replace(MESSAGE, headers={**MESSAGE.headers, "id": "m-2"})
    broker.publish([MESSAGE, second])
    broker.world.run(until=60)

    assert [message.headers["id"] for message in broker.take("stock", 9)] == ["m-2", "m-1"]
    assert depth(broker, "stock") == 0


def test_a_corrupted_message_cannot_be_read() -> None:
    broker = network("corrupted")
    broker.publish([MESSAGE])
    broker.world.run(until=1)

    (message,) = broker.take("stock")
    with pytest.raises(UnreadableError, match="the body is not JSON"):
        from_wire(message)
