"""Sending quarantined messages again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Receipt
from sagas_framework.worker.replaying import send_again


class Broker:
    """Answers with these receipts."""

    def __init__(self, *receipts: Receipt) -> None:
        self.receipts = list(receipts)
        self.taken: list[WireMessage] = []

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        self.taken.extend(messages)
        return self.receipts

    def depth(self, queue: str) -> int | None:
        return None

    def close(self) -> None: ...


def message(number: int) -> Quarantined:
    return Quarantined(
        queue="kitchen.commands",
        task="kitchen.cook",
        headers={"task": "kitchen.cook", "id": str(number)},
        properties={"content_type": "application/json"},
        body="[[1, {}], {}, {}]",
        reason="no such task",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        id=number,
        replay="ann",
    )


def test_a_message_goes_out_as_it_came() -> None:
    broker = Broker(Receipt.CONFIRMED)
    put_back: list[Quarantined] = []

    send_again(broker, [message(1)], put_back.append)

    (sent,) = broker.taken
    assert (sent.queue, sent.body) == ("kitchen.commands", b"[[1, {}], {}, {}]")
    assert sent.headers == {"task": "kitchen.cook", "id": "1"}
    assert sent.properties == {"content_type": "application/json", "delivery_mode": 2}
    assert put_back == []


def test_what_the_broker_does_not_take_is_set_aside_again_and_says_why() -> None:
    broker = Broker(Receipt.CONFIRMED, Receipt.UNROUTABLE, Receipt.UNSENT)
    put_back: list[Quarantined] = []

    send_again(broker, [message(1), message(2), message(3)], put_back.append)

    assert [(m.headers["id"], m.reason) for m in put_back] == [
        ("2", "no such task (not sent again: unroutable)"),
        ("3", "no such task (not sent again: unsent)"),
    ]
