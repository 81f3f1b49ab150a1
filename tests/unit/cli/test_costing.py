"""``saga cost``: counted from the rows of sagas that have ended, and shared out among them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sagas_framework.cost import metering
from sagas_framework.cost.counting import wire_bytes
from sagas_framework.transport.envelope import WireMessage
from tests.unit.cli.shop import Shop, standing_in


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with standing_in(tmp_path, monkeypatch):
        shop = Shop(tmp_path)
        yield shop
        shop.sagas.engine.dispose()


def test_messages_and_rows_are_counted_from_what_happened(shop: Shop) -> None:
    smooth = shop.completed("order-1")
    bumpy = shop.until("create_restaurant_ticket", "order-2")
    shop.fails(bumpy)
    shop.after(60)
    while not shop.sagas.get(bumpy).status.ended:
        shop.succeeds(bumpy)

    told = shop.json("cost", "deliver_order")["counted"]

    steps = sum(record.first_sent_at is not None for record in shop.sagas.get(smooth).steps.values())
    lines = len(shop.sagas.history(smooth)) + len(shop.sagas.history(bumpy))
    assert (told["sagas"], told["completed"]) == (2, 1.0)
    assert told["commands"] == steps + 0.5  # one of the two was tried twice
    assert told["replies"] == steps + 0.5
    assert told["operations"] == steps
    assert told["history"] == lines / 2
    assert told["wire_bytes"] > 0


def test_undoing_is_counted(shop: Shop) -> None:
    saga_id = shop.until("authorize_card", "order-1")
    shop.refuses(saga_id)
    while not shop.sagas.get(saga_id).status.ended:
        shop.succeeds(saga_id)

    told = shop.json("cost", "deliver_order")["counted"]

    entries = [line.recorded.entry for line in shop.sagas.history(saga_id)]
    assert "create_restaurant_ticket.compensating" in entries
    forward = sum(record.first_sent_at is not None for record in shop.sagas.get(saga_id).steps.values())
    assert told["completed"] == 0
    assert told["commands"] == told["replies"] == forward + 1


def test_a_rate_says_what_it_takes(shop: Shop) -> None:
    shop.completed("order-1")

    said = shop.say("cost", "deliver_order", "--rate", "500").output

    assert "At 500 a second" in said
    assert "deliver_order: 1 that ended last, 100% completed" in said


def test_what_is_not_known_is_told(shop: Shop) -> None:
    assert "No saga named 'nothing' is declared here" in shop.say("cost", "nothing").output
    assert "has ended in this database yet" in shop.say("cost", "deliver_order").output


def test_a_system_at_rest_cannot_be_watched(shop: Shop) -> None:
    shop.completed("order-1")

    assert "No saga has ended within 0 ms" in shop.say("cost", "deliver_order", "--during", "0s").output


def test_a_message_takes_what_amqp_says() -> None:
    message = WireMessage("q", {"task": "t"}, {"correlation_id": "12345", "delivery_mode": 2}, b"0123456789")

    # basic.publish: frame 8, ids 4, ticket 2, no exchange 1, queue 2, bits 1. Header: frame 8, 14 of its
    # own, 6 for the id, 1 for the mode, the table of headers: 4 + 5 for the name, 1 + 4 + 1 for "t".
    # Body: frame 8, and 10 bytes.
    assert wire_bytes(message) == (8 + 10) + (8 + 14 + 6 + 1 + 4 + 5 + 6) + (8 + 10)


def test_a_process_is_read_whatever_its_name() -> None:
    said = "7 (a (b) c) S 3 " + " ".join("0" for _ in range(9)) + " 100 50 0 0"

    parent, name, seconds = metering._stat(said)

    assert (parent, name) == (3, "a (b) c")
    assert seconds > 0
