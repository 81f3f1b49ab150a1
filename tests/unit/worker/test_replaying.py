"""Sending quarantined messages again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from sagas_framework.storage.memory import MemoryDatabase, MemoryStore
from sagas_framework.storage.ports import Quarantined
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt
from sagas_framework.worker.replaying import send_again


class Broker:
    """Answers with these receipts; raises on a message that has a header `broken`."""

    def __init__(self, *receipts: Receipt) -> None:
        self.receipts = list(receipts)
        self.taken: list[WireMessage] = []

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        for message in messages:
            if "broken" in message.headers:
                raise OverflowError("a number too large")
        self.taken.extend(messages)
        return [self.receipts.pop(0) for _ in messages]

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...


def message(number: int, **headers: object) -> Quarantined:
    return Quarantined(
        queue="kitchen.commands",
        task="kitchen.cook",
        headers={"task": "kitchen.cook", "id": str(number)} | headers,
        properties={"content_type": "application/json"},
        body="[[1, {}], {}, {}]",
        reason="no such task",
        at=datetime(2026, 1, 1, tzinfo=UTC),
        id=number,
        replay="ann",
    )


def test_a_message_goes_out_as_it_came() -> None:
    broker = Broker(Receipt.CONFIRMED)

    troubles = send_again(broker, [message(1)])

    (sent,) = broker.taken
    assert (sent.queue, sent.body) == ("kitchen.commands", b"[[1, {}], {}, {}]")
    assert sent.headers == {"task": "kitchen.cook", "id": "1"}
    assert sent.properties == {"content_type": "application/json", "delivery_mode": 2}
    assert troubles == [None]


def test_what_the_broker_does_not_take_is_told_with_the_reason() -> None:
    broker = Broker(Receipt.CONFIRMED, Receipt.UNROUTABLE, Receipt.UNSENT)

    troubles = send_again(broker, [message(1), message(2), message(3)])

    assert troubles == [None, "unroutable", "unsent"]


def test_a_message_that_cannot_be_published_at_all_keeps_no_other_from_being_sent() -> None:
    broker = Broker(Receipt.CONFIRMED, Receipt.UNSENT)

    troubles = send_again(broker, [message(1), message(2, broken=True), message(3)])

    assert [sent.headers["id"] for sent in broker.taken] == ["1", "3"]
    assert troubles == [None, "OverflowError: a number too large", "unsent"]


class Died(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("broker_has_it", [True, False])
def test_a_process_that_dies_around_publishing_leaves_the_message_to_the_next(broker_has_it: bool) -> None:
    store = MemoryStore(MemoryDatabase(quarantined=[message(1)]))
    broker = Broker(Receipt.CONFIRMED, Receipt.CONFIRMED)

    def dies(messages: Sequence[Quarantined]) -> list[str | None]:
        if broker_has_it:
            send_again(broker, messages)
        raise Died

    with pytest.raises(Died):
        store.replay(dies)
    store.replay(lambda messages: send_again(broker, messages))

    assert len(broker.taken) == (2 if broker_has_it else 1)
    assert store.database.quarantined == []


def test_a_broker_that_is_away_leaves_the_message_with_a_note_and_is_asked_once() -> None:
    store = MemoryStore(MemoryDatabase(quarantined=[message(1)]))
    broker = Broker(Receipt.UNSENT)

    store.replay(lambda messages: send_again(broker, messages))
    store.replay(lambda messages: send_again(broker, messages))

    (kept,) = store.database.quarantined
    assert (kept.id, kept.replay) == (1, None)
    assert kept.reason == "no such task (not sent again: unsent)"
    assert len(broker.taken) == 1
