"""A stub answers as the real service would: once, validated, undone, settled, and as it is told."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import inf
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from restaurant_service.asyncapi_specification import specification
from sagas_framework.core.events import Outgoing
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.stub.behaviour import NO_OPTIONS, Options, behaviours
from sagas_framework.stub.document import understand
from sagas_framework.stub.participant import StubParticipant, Told
from sagas_framework.transport import envelope
from sagas_framework.transport.envelope import WireMessage, from_wire, to_wire
from sagas_framework.transport.publisher import Receipt
from tests.servers import wait_until
from tests.unit.stub.documents import TASK, UNDO, read, shop

ORDERED: dict[str, Any] = {"sku": "A-1", "lines": [{"quantity": 2}]}


@contextmanager
def stub(folder: Path, options: Options = NO_OPTIONS, document: Any = None) -> Iterator[Stub]:
    """The shop's stub, or that of another document."""
    made = read(shop()) if document is None else document
    heard: list[Told] = []
    participant = StubParticipant(
        made,
        behaviours(made, options),
        database=f"sqlite:///{folder}/inbox.sqlite3",
        tell=heard.append,
    )
    participant.upgrade()
    yield Stub(participant, heard)
    participant.close()
    participant.engine.dispose()


class Stub:
    """A stub and the messages about one step of one saga."""

    def __init__(self, participant: StubParticipant, heard: list[Told]) -> None:
        self.participant = participant
        self.heard = heard
        self.saga = str(uuid4())

    def ask(
        self,
        task: str = TASK,
        payload: Any = ORDERED,
        *,
        kind: Kind = Kind.DO,
        attempt: int = 1,
        known: bool = False,
        late: bool = False,
    ) -> tuple[str, Any]:
        """Send it a message as an orchestrator does; the result and the payload of what it answers."""
        return answer(self.participant.receive(self.asking(task, payload, kind, attempt, known, late)))

    def asking(
        self, task: str, payload: Any, kind: Kind, attempt: int = 1, known: bool = False, late: bool = False
    ) -> WireMessage:
        outgoing = Outgoing(
            saga_id=self.saga,
            message_id=message_id(self.saga, "reserve", kind, attempt),
            operation_id=operation_id(self.saga, "reserve"),
            kind=kind,
            task=task,
            queue="shop.commands",
            attempt=attempt,
            not_after=datetime.now(UTC) + timedelta(hours=-1 if late else 1),
            payload=payload,
            known=known,
        )
        return to_wire(envelope.command(outgoing, "replies"))

    def release(self, *, known: bool = False, attempt: int = 1) -> tuple[str, Any]:
        return self.ask(UNDO, {}, kind=Kind.UNDO, known=known, attempt=attempt)

    def settle(self) -> tuple[str, Any]:
        return self.ask(f"{TASK}.settle", None, kind=Kind.SETTLE)


def answer(reply: WireMessage | None) -> tuple[str, Any]:
    if reply is None:
        return "nothing", None
    read = from_wire(reply)
    return str(read.headers[envelope.RESULT]), read.payload


# ---- commands -------------------------------------------------------------------------------------


def test_a_command_is_answered_with_the_example_on_the_queue_that_it_names(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        reply = shop.participant.receive(shop.asking(TASK, ORDERED, Kind.DO))

        assert reply is not None
        assert reply.queue == "replies"
        assert reply.headers["task"] == f"{TASK}.response.success"
        assert answer(reply) == ("success", {"number": 17})
        (told,) = shop.heard
        assert (told.saga_id, told.task, told.result, told.payload) == (
            shop.saga, TASK, "success", {"number": 17},
        )  # fmt: skip


def test_a_declared_failure_is_a_refusal_for_good(tmp_path: Path) -> None:
    with stub(tmp_path, Options(refuse=[("reserve", "SoldOut")])) as shop:
        first = shop.ask()
        again = shop.ask(attempt=2)

        assert first == again
        assert first[0] == "refused"
        assert first[1]["type"] == "SoldOut"


def test_attempts_fail_as_often_as_they_are_told_to(tmp_path: Path) -> None:
    with stub(tmp_path, Options(fail=[("reserve", 2)])) as shop:
        results = [shop.ask(attempt=attempt)[0] for attempt in (1, 1, 2, 3)]

        assert results == ["failed", "failed", "failed", "success"]


def test_a_silent_command_leaves_nothing_behind(tmp_path: Path) -> None:
    with stub(tmp_path, Options(silent=["reserve"])) as shop:
        assert shop.ask() == ("nothing", None)
        assert shop.settle() == ("success", {"answer": "withdrawn"})
        assert [told.result for told in shop.heard] == ["silent", "success"]


@pytest.mark.parametrize(
    ("payload", "told"),
    [
        ({"sku": "A-1"}, "$: 'lines' is a required property"),
        (ORDERED | {"lines": [{"quantity": "two"}]}, "$.lines[0].quantity: 'two' is not of type 'integer'"),
        (None, "$: 'sku' is a required property"),
        ([1], "$: [1] is not of type 'object'"),
    ],
)
def test_a_payload_that_does_not_fit_is_refused_with_what_is_wrong(
    tmp_path: Path, payload: Any, told: str
) -> None:
    with stub(tmp_path) as shop:
        result, said = shop.ask(payload=payload)

        assert result == "refused"
        assert (said["type"], said["module"]) == ("InvalidPayload", "sagas_framework")
        assert told in said["message"]
        assert shop.heard[0].payload == said


def test_fields_that_are_not_in_the_document_are_ignored(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        assert shop.ask(payload=ORDERED | {"payload": 1, "model_config": 2})[0] == "success"


def test_a_task_that_is_not_in_the_document_is_refused_as_unknown(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        result, said = shop.ask("shop.pay")

        assert (result, said["type"]) == ("refused", "UnknownTask")


def test_what_cannot_be_read_is_set_aside_and_told(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        message = replace(shop.asking(TASK, ORDERED, Kind.DO), body=b"[]")

        assert shop.participant.receive(message) is None
        assert [(told.result, told.task) for told in shop.heard] == [("set aside", TASK)]
        assert "[saga_id, payload]" in shop.heard[0].why


def test_what_comes_too_late_is_neither_done_nor_answered(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        assert shop.ask(late=True) == ("nothing", None)
        assert "expired" in shop.heard[0].why


# ---- undoing and settling ---------------------------------------------------------------------------


def test_what_was_done_is_undone_and_then_refused(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        assert shop.ask()[0] == "success"
        assert shop.release(known=True) == ("success", None)
        assert shop.release(known=True) == ("success", None)
        assert shop.ask()[1]["type"] == "Withdrawn"


def test_a_command_that_comes_after_its_compensation_is_refused(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        assert shop.release() == ("success", None)
        assert shop.ask()[1]["type"] == "Withdrawn"


def test_undoing_what_is_known_to_have_happened_and_is_not_in_the_inbox_fails(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        assert shop.release(known=True)[1]["type"] == "InboxRowMissing"


def test_a_compensation_fails_as_often_as_it_is_told_to(tmp_path: Path) -> None:
    with stub(tmp_path, Options(fail=[("release", 1)])) as shop:
        shop.ask()

        assert [shop.release(known=True, attempt=attempt)[0] for attempt in (1, 2)] == ["failed", "success"]


def test_settling_says_how_the_step_stands(tmp_path: Path) -> None:
    with stub(tmp_path) as shop:
        shop.ask()

        assert shop.settle() == ("success", {"answer": "done", "reply": {"number": 17}})
    with stub(tmp_path, Options(refuse=[("reserve", "SoldOut")])) as shop:
        shop.ask()

        assert shop.settle()[1]["error"]["type"] == "SoldOut"


def test_a_compensation_that_the_document_tells_may_be_refused_by_any_name(tmp_path: Path) -> None:
    restaurant = understand(specification.document, "restaurant.yaml")
    options = Options(refuse=[("reject_ticket", "KitchenOffline")])
    with stub(tmp_path, options, restaurant) as kitchen:
        order = {"order_id": 1, "customer_id": 1, "items": []}
        assert kitchen.ask("restaurant_service.create_ticket", order)[0] == "success"

        result, said = kitchen.ask(
            "restaurant_service.reject_ticket", {"ticket_id": 1}, kind=Kind.UNDO, known=True
        )

        assert (result, said["type"]) == ("refused", "KitchenOffline")


def test_the_next_stub_with_the_same_inbox_knows_what_was_done(tmp_path: Path) -> None:
    with stub(tmp_path) as first:
        first.ask()
    with stub(tmp_path, Options(fail=[("reserve", inf)])) as second:
        second.saga = first.saga

        assert second.ask() == ("success", {"number": 17})
        assert second.release(known=True) == ("success", None)


# ---- delays -----------------------------------------------------------------------------------------


def test_a_late_answer_is_published_later_and_holds_nobody_up(tmp_path: Path) -> None:
    published: list[WireMessage] = []

    def publish(messages: Sequence[WireMessage]) -> list[Receipt]:
        published.extend(messages)
        return [Receipt.CONFIRMED]

    with stub(tmp_path, Options(delay=[("reserve", timedelta(milliseconds=50))])) as shop:
        shop.participant.publish = publish

        assert shop.ask() == ("nothing", None)
        assert shop.settle()[1]["answer"] == "done"  # it is done; only the answer is on its way
        wait_until(lambda: len(shop.heard) == 2, "the late answer", 10)
        assert [answer(message) for message in published] == [("success", {"number": 17})]
        assert [(told.result, told.why) for told in shop.heard] == [
            ("success", ""),
            ("success", "after 0.05 s"),
        ]


def test_a_late_answer_that_the_broker_does_not_take_is_told(tmp_path: Path) -> None:
    with stub(tmp_path, Options(delay=[("reserve", timedelta(0, 0, 1))])) as shop:
        shop.participant.publish = lambda messages: [Receipt.UNROUTABLE]

        shop.ask()

        wait_until(lambda: bool(shop.heard), "the line about it", 10)
        assert [(told.result, told.why) for told in shop.heard] == [
            ("not answered", "the late answer is unroutable on replies")
        ]


def test_answers_that_still_wait_are_given_up_at_the_end(tmp_path: Path) -> None:
    with stub(tmp_path, Options(delay=[("reserve", timedelta(hours=1))])) as shop:
        shop.ask()

        assert shop.participant.close() == 1
        assert shop.participant.close() == 0
