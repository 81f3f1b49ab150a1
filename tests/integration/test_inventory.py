"""The inventory on real databases: all or nothing, the last of an item, and what is put back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy.orm import Session

from app_common.messaging.inventory_service_messaging import LowStock, ReleaseItems, ReserveItems, StockItem
from inventory_service import stock
from sagas_framework import Participant, publish
from tests.integration.asking import Asking, answer, serving, session_of, told

LOW = LowStock.contract.task
FULL = {"apples": 10, "bread": 10, "iPhone": 10, "milk": 10, "oranges": 10}


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def inventory(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Participant]:
    """The participant with the stock that the platform opens with."""
    with serving("inventory_service", request.getfixturevalue(request.param), monkeypatch) as participant:
        yield participant


def wanting(**items: int) -> ReserveItems:
    return ReserveItems(
        order_id="order_riley_o066i", items=[StockItem(name=name, quantity=n) for name, n in items.items()]
    )


def available(inventory: Participant) -> dict[str, int]:
    with session_of(inventory) as session:
        assert stock.out_of_balance(session) == {}
        return stock.available(session)


def test_the_platform_opens_with_ten_of_each_item(inventory: Participant) -> None:
    assert available(inventory) == FULL


def test_items_are_reserved_together(inventory: Participant) -> None:
    result, reply = Asking(inventory)(wanting(milk=2, bread=1))

    assert result == "success"
    assert reply["reservation_id"] >= 1
    assert available(inventory) == FULL | {"milk": 8, "bread": 9}
    with session_of(inventory) as session:
        assert stock.reserved(session) == {"milk": 2, "bread": 1}


def test_an_item_that_comes_twice_is_wanted_as_often_as_both_say(inventory: Participant) -> None:
    twice = [StockItem(name="milk", quantity=6), StockItem(name="milk", quantity=5)]

    refused = Asking(inventory)(ReserveItems(order_id="o", items=twice))
    reserved = Asking(inventory)(ReserveItems(order_id="o", items=[twice[1], twice[1]]))

    assert refused[0] == "refused"
    assert refused[1]["message"] == "Out of stock: milk (11 ordered, 10 there)"
    assert reserved[0] == "success"
    assert available(inventory) == FULL | {"milk": 0}


def test_a_refusal_names_every_missing_item_and_reserves_nothing(inventory: Participant) -> None:
    result, said = Asking(inventory)(wanting(milk=1, bread=11, **{"<b>gold</b>": 1}))

    assert result == "refused"
    assert said["type"] == "OutOfStock"
    assert said["message"] == (
        "Out of stock: bread (11 ordered, 10 there), <b>gold</b> (1 ordered, none there)"
    )
    assert available(inventory) == FULL


def test_a_refusal_is_the_same_after_a_restock(inventory: Participant) -> None:
    asking = Asking(inventory)
    first = asking(wanting(milk=11))
    with session_of(inventory) as session:
        stock.restock(session, "milk", 5)

    assert asking(wanting(milk=11)) == first
    assert available(inventory)["milk"] == 15


@pytest.mark.parametrize(
    "items",
    [
        [],
        [{"name": "milk", "quantity": 0}],
        [{"name": "milk", "quantity": -1}],
        [{"name": "milk", "quantity": "many"}],
        [{"name": "", "quantity": 1}],
        [{"name": "mi\u0000lk", "quantity": 1}],
        [{"name": "milk"}],
        "milk",
    ],
)
def test_items_that_cannot_be_are_refused_and_nothing_is_reserved(inventory: Participant, items: Any) -> None:
    message = Asking(inventory).message(ReserveItems, payload={"order_id": "o", "items": items})

    result, said = answer(inventory.receive(message))

    assert (result, said["type"]) == ("refused", "InvalidPayload")
    assert available(inventory) == FULL


def test_what_was_reserved_is_put_back_once(inventory: Participant) -> None:
    asking = Asking(inventory)
    _, reply = asking(wanting(milk=2, bread=1))
    release = ReleaseItems(reservation_id=reply["reservation_id"])

    results = [asking(release, known=True), asking(release, known=True, attempt=2)]

    assert results == [("success", None)] * 2
    assert available(inventory) == FULL
    with session_of(inventory) as session:
        assert stock.reserved(session) == {}


def test_releasing_first_withdraws_the_reservation_that_comes_later(inventory: Participant) -> None:
    asking = Asking(inventory)

    undone = asking(ReleaseItems(reservation_id=None))
    late = asking(wanting(milk=1))

    assert undone == ("success", None)
    assert late[1]["type"] == "Withdrawn"
    assert available(inventory) == FULL


def test_the_same_command_reserves_once(inventory: Participant) -> None:
    asking = Asking(inventory)

    assert asking(wanting(milk=2)) == asking(wanting(milk=2)) == asking(wanting(milk=2), attempt=2)
    assert available(inventory)["milk"] == 8


def test_commands_in_a_batch_reserve_as_they_do_alone(inventory: Participant) -> None:
    askings = [Asking(inventory) for _ in range(5)]
    messages = [asking.message(wanting(milk=3)) for asking in askings]

    results = [answer(reply)[0] for reply in inventory.receive_all(messages)]

    assert results == ["success"] * 3 + ["refused"] * 2
    assert available(inventory)["milk"] == 1


def test_an_item_that_gets_low_is_told_once_until_it_was_put_back(inventory: Participant) -> None:
    for number in (7, 1, 1):  # 3 left, 2 left, 1 left
        assert Asking(inventory)(wanting(milk=number))[0] == "success"
    first = told(inventory)
    with session_of(inventory) as session:
        stock.fill_up(session)
    assert Asking(inventory)(wanting(milk=10, bread=8, apples=1))[0] == "success"

    assert first == [(LOW, {"item": "milk", "available": 2})]
    assert told(inventory) == [
        (LOW, {"item": "bread", "available": 2}),
        (LOW, {"item": "milk", "available": 0}),
    ]


def test_that_an_item_is_low_is_told_with_the_reservation_or_not_at_all(
    inventory: Participant, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = [Asking(inventory)(wanting(milk=9, bread=11)), Asking(inventory)(wanting(milk=11))]
    asking = Asking(inventory)
    with monkeypatch.context() as patched:
        patched.setattr(stock, "publish", publish_and_break)
        broken = asking(wanting(milk=9))
    nothing = told(inventory)

    again = asking(wanting(milk=9), attempt=2)

    assert [result for result, _ in refused] == ["refused"] * 2
    assert (broken[0], nothing) == ("failed", [])
    assert (again[0], told(inventory)) == ("success", [(LOW, {"item": "milk", "available": 1})])


def publish_and_break(event: LowStock, session: Session) -> None:
    publish(event, session)
    raise RuntimeError("the process has no memory left")


def test_commands_in_a_batch_tell_what_those_tell_that_are_kept(inventory: Participant) -> None:
    messages = [Asking(inventory).message(wanting(milk=number)) for number in (8, 11, 1)]

    results = [answer(reply)[0] for reply in inventory.receive_all(messages)]

    assert results == ["success", "refused", "success"]
    assert told(inventory) == [(LOW, {"item": "milk", "available": 2})]


def test_what_is_out_of_stock_stays_apart_from_its_number(inventory: Participant) -> None:
    result, said = Asking(inventory)(wanting(milk=11, חלב=1))

    assert result == "refused"
    assert (
        said["message"]
        == "Out of stock: milk (11 ordered, 10 there), \u2068חלב\u2069 (1 ordered, none there)"
    )


def test_the_last_of_an_item_goes_to_one_order(inventory: Participant) -> None:
    assert Asking(inventory)(wanting(milk=9, bread=9))[0] == "success"
    together = Barrier(6)

    def ask(number: int) -> str:
        # Half of them name the items the other way round: nobody waits in a circle.
        names = ("milk", "bread") if number % 2 else ("bread", "milk")
        together.wait(20)
        return Asking(inventory)(wanting(**dict.fromkeys(names, 1)))[0]

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(ask, range(6)))

    assert sorted(results) == ["refused"] * 5 + ["success"]
    assert available(inventory) == FULL | {"milk": 0, "bread": 0}


def test_batches_that_want_the_same_items_in_other_orders_all_end(inventory: Participant) -> None:
    together = Barrier(2)
    batches = [
        [Asking(inventory).message(wanting(**{name: 1})) for name in names * 3]
        for names in (("milk", "bread"), ("bread", "milk"))
    ]

    def handle(batch: list[Any]) -> list[str]:
        together.wait(20)
        replies = inventory.receive_all(batch)
        # What lost a circle of locks is not answered, and comes again.
        again = [message for message, reply in zip(batch, replies, strict=True) if reply is None]
        return [answer(reply)[0] for reply in [*filter(None, replies), *map(inventory.receive, again)]]

    with ThreadPoolExecutor(2) as pool:
        results = [result for each in pool.map(handle, batches) for result in each]

    assert results == ["success"] * 12
    assert available(inventory) == FULL | {"milk": 4, "bread": 4}


def test_restocking_and_reserving_at_once_lose_nothing(inventory: Participant) -> None:
    together = Barrier(4)

    def act(number: int) -> None:
        together.wait(20)
        for _ in range(5):
            if number % 2:
                assert Asking(inventory)(wanting(milk=1))[0] == "success"
            else:
                with session_of(inventory) as session:
                    stock.restock(session, "milk", 1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(act, range(4)))

    assert available(inventory)["milk"] == 10


def test_filling_up_twice_puts_in_nothing_more(inventory: Participant) -> None:
    Asking(inventory)(wanting(milk=4))

    for _ in range(2):
        with session_of(inventory) as session:
            stock.fill_up(session)

    assert available(inventory) == FULL
    with session_of(inventory) as session:
        assert stock.reserved(session) == {"milk": 4}
