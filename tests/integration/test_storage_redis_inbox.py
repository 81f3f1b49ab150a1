"""A participant whose inbox is in Redis: claim, work, row; each of them written before the next begins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from sagas_framework import (
    Command,
    Compensation,
    Context,
    Failure,
    Participant,
    RedisInbox,
    Reply,
    Service,
    Unavailable,
    Undo,
)
from sagas_framework.core.events import Outgoing, Result
from sagas_framework.core.ids import Kind, message_id, operation_id
from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.messages import settle_task
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.transport.envelope import WireMessage, command, from_wire, reply_received, to_wire
from tests.contract.looking import NOON

SAGA = "01890a5d-ac96-774b-bcce-b302099a8057"
KEY = operation_id(SAGA, "cook")
LEASE = timedelta(minutes=10)

kitchen = Service("kitchen")


class Cooked(Reply):
    plate: int


class OutOfGas(Failure):
    pass


class Cook(Command[Cooked], service=kitchen, name="cook", failures=[OutOfGas]):
    dish: str


class ThrowAway(Compensation[Cook], service=kitchen, name="throw_away"):
    why: str


class Killed(BaseException):
    """The process ends here."""


class Kitchen:
    """A participant with a clock that is moved by hand, and a stove that is outside every transaction."""

    def __init__(self, inbox: RedisInbox) -> None:
        self.inbox = inbox
        self.now = NOON
        self.cooked: list[str] = []
        self.thrown_away: list[tuple[str, Cooked | None]] = []
        self.does: Callable[[], object] = lambda: None
        self.undoing_does: Callable[[], object] = lambda: None
        self.participant = Participant(kitchen, inbox=inbox, lease=LEASE, clock=lambda: self.now)

        @self.participant.handles(Cook)
        def cook(order: Cook, context: Context) -> Cooked:
            self.cooked.append(context.key)
            self.does()
            return Cooked(plate=len(self.cooked))

        @self.participant.undoes(ThrowAway)
        def throw_away(order: ThrowAway, undo: Undo[Cook]) -> None:
            self.thrown_away.append((undo.key, undo.reply))
            self.undoing_does()

    def row(self) -> InboxRow:
        row = self.inbox.read_row(KEY)
        assert row is not None
        return row

    def do(self, attempt: int = 1) -> tuple[Result, Any] | None:
        return self.receive(Kind.DO, Cook.contract.task, {"dish": "soup"}, attempt)

    def undo(self, attempt: int = 1, *, known: bool = False) -> tuple[Result, Any] | None:
        return self.receive(Kind.UNDO, ThrowAway.contract.task, {"why": "cold"}, attempt, known=known)

    def settle(self) -> tuple[Result, Any] | None:
        return self.receive(Kind.SETTLE, settle_task(Cook), None, 1)

    def receive(
        self, kind: Kind, task: str, payload: Any, attempt: int, *, known: bool = False
    ) -> tuple[Result, Any] | None:
        """What the orchestrator hears: result and payload or error; None for no reply."""
        answer = self.participant.receive(self.message(kind, task, payload, attempt, known=known))
        if answer is None:
            return None
        event = reply_received(from_wire(answer), self.now)
        return event.result, (event.payload if event.result is Result.SUCCESS else event.error["type"])

    def message(
        self, kind: Kind, task: str, payload: Any, attempt: int, *, known: bool = False
    ) -> WireMessage:
        outgoing = Outgoing(
            SAGA,
            message_id(SAGA, "cook", kind, attempt),
            KEY,
            kind,
            task,
            kitchen.queue.name,
            attempt,
            self.now + timedelta(days=1),
            payload,
            known=known,
        )
        return to_wire(command(outgoing, reply_to="orders.replies"))

    def later(self, by: timedelta) -> None:
        self.now += by


@pytest.fixture
def place(redis_url: str) -> Iterator[Kitchen]:
    inbox = RedisInbox(redis_url)
    yield Kitchen(inbox)
    inbox.close()


def raises(error: BaseException) -> Callable[[], object]:
    def act() -> None:
        raise error

    return act


# ---- claim, work, row -----------------------------------------------------------------------------


def test_the_claim_is_written_before_the_work_and_the_row_after_it(place: Kitchen) -> None:
    seen: list[InboxRow] = []
    place.does = lambda: seen.append(place.row())

    assert place.do() == (Result.SUCCESS, {"plate": 1})

    (claimed,) = seen
    assert claimed.state is RowState.CLAIMED
    assert claimed.claim is not None
    assert claimed.lease_until == NOON + LEASE
    assert place.row() == InboxRow(
        KEY, SAGA, "kitchen.cook", RowState.DONE, 1, reply=Stored(Result.SUCCESS, {"plate": 1})
    )


def test_a_command_that_comes_twice_is_cooked_once_and_answered_twice(place: Kitchen) -> None:
    assert place.do() == place.do() == (Result.SUCCESS, {"plate": 1})
    assert place.cooked == [KEY]


def test_a_refusal_is_kept(place: Kitchen) -> None:
    place.does = raises(OutOfGas("no gas"))
    assert place.do() == (Result.REFUSED, "OutOfGas")

    place.does = lambda: None
    assert place.do() == (Result.REFUSED, "OutOfGas")
    assert place.row().state is RowState.REFUSED
    assert len(place.cooked) == 1


def test_a_payload_that_does_not_validate_is_refused_and_cooks_nothing(place: Kitchen) -> None:
    assert place.receive(Kind.DO, "kitchen.cook", {}, 1) == (Result.REFUSED, "InvalidPayload")
    assert place.row().state is RowState.REFUSED
    assert place.cooked == []


def test_a_transient_fault_is_kept_until_the_next_attempt(place: Kitchen) -> None:
    place.does = raises(OSError("the stove is cold"))
    assert place.do(attempt=1) == (Result.FAILED, "OSError")
    place.does = lambda: None

    again = place.do(attempt=1)  # a copy of the first attempt
    cooked_by_then = len(place.cooked)
    second = place.do(attempt=2)
    late = place.do(attempt=1)

    assert again == (Result.FAILED, "OSError")
    assert cooked_by_then == 1
    assert second == late == (Result.SUCCESS, {"plate": 2})
    assert place.cooked == [KEY, KEY]


def test_a_handler_that_cannot_work_now_uses_no_attempt_and_gives_its_claim_back(place: Kitchen) -> None:
    place.does = raises(Unavailable("the shop is closed"))
    assert place.do() is None
    assert place.row().state is RowState.CLAIMED

    place.does = lambda: None
    place.later(timedelta(seconds=1))
    assert place.do(attempt=1) == (Result.SUCCESS, {"plate": 2})


def test_there_is_no_session(place: Kitchen) -> None:
    def use_session(order: Cook, context: Context) -> Cooked:
        context.session.flush()
        return Cooked(plate=1)

    place.participant = Participant(kitchen, inbox=place.inbox, clock=lambda: place.now)
    place.participant.handles(Cook)(use_session)

    assert place.do() == (Result.FAILED, "ConfigurationError")


# ---- copies, crashes and leases -------------------------------------------------------------------


def test_a_copy_that_comes_while_the_first_is_being_handled_is_dropped(place: Kitchen) -> None:
    copies: list[object] = []

    def a_copy_comes() -> None:
        copies.append(place.do())
        copies.append(place.undo())
        copies.append(place.settle())

    place.does = a_copy_comes

    assert place.do() == (Result.SUCCESS, {"plate": 1})
    assert copies == [None, None, None]
    assert place.cooked == [KEY]
    assert place.thrown_away == []


def test_after_a_crash_the_command_waits_for_the_lease_and_is_taken_over_with_the_same_key(
    place: Kitchen,
) -> None:
    place.does = raises(Killed())
    with pytest.raises(Killed):
        place.do()
    place.does = lambda: None

    place.later(LEASE - timedelta(seconds=1))
    too_soon = place.do()
    place.later(timedelta(seconds=1))
    in_time = place.do()

    assert too_soon is None
    assert in_time == (Result.SUCCESS, {"plate": 2})
    assert place.cooked == [KEY, KEY]


def test_a_handler_that_outlives_its_lease_writes_nothing_over_its_successor(place: Kitchen) -> None:
    answers: list[object] = []

    def overslept() -> None:
        place.does = lambda: None
        place.later(LEASE)
        answers.append(place.do())

    place.does = overslept

    assert place.do() is None
    assert answers == [(Result.SUCCESS, {"plate": 2})]
    assert place.row().reply == Stored(Result.SUCCESS, {"plate": 2})
    assert place.do() == (Result.SUCCESS, {"plate": 2})


def test_a_handler_that_outlives_its_lease_and_its_undoing_writes_nothing(place: Kitchen) -> None:
    def overslept() -> None:
        place.later(LEASE)
        assert place.undo() == (Result.SUCCESS, None)

    place.does = overslept

    assert place.do() is None
    assert place.row().state is RowState.UNDONE
    assert place.thrown_away == [(KEY, None)]


def test_a_redis_that_is_away_is_no_reply_and_no_attempt() -> None:
    place = Kitchen(RedisInbox("redis://127.0.0.1:1/0"))

    assert place.do() is None
    assert place.cooked == []
    with pytest.raises(StoreUnavailable):
        place.participant.receive(WireMessage("kitchen.commands", {}, {}, b"garbage"))


def test_what_cannot_be_read_is_set_aside_in_redis(place: Kitchen) -> None:
    assert (
        place.participant.receive(WireMessage("kitchen.commands", {"task": "x"}, {}, b"gar\xffbage")) is None
    )

    (aside,) = place.inbox.read_quarantine()
    assert aside.body == "gar\\xffbage"
    assert aside.queue == "kitchen.commands"


# ---- undoing --------------------------------------------------------------------------------------


def test_what_was_done_is_undone_once_with_its_reply(place: Kitchen) -> None:
    place.do()

    assert place.undo(known=True) == (Result.SUCCESS, None)
    assert place.undo(known=True) == (Result.SUCCESS, None)
    assert place.undo(attempt=2) == (Result.SUCCESS, None)

    assert place.thrown_away == [(KEY, Cooked(plate=1))]
    assert place.row().state is RowState.UNDONE
    assert place.do() == (Result.REFUSED, "Withdrawn")


def test_what_failed_is_undone_too_for_it_may_have_happened(place: Kitchen) -> None:
    place.does = raises(OSError("the answer was lost"))
    place.do()

    assert place.undo() == (Result.SUCCESS, None)

    assert place.thrown_away == [(KEY, None)]
    assert place.row().state is RowState.UNDONE


def test_what_was_claimed_by_a_handler_that_died_is_undone_after_the_lease(place: Kitchen) -> None:
    place.does = raises(Killed())
    with pytest.raises(Killed):
        place.do()

    assert place.undo() is None
    place.later(LEASE)
    assert place.undo() == (Result.SUCCESS, None)

    assert place.thrown_away == [(KEY, None)]
    assert place.row().state is RowState.UNDONE
    assert place.row().claim is None


def test_what_never_came_is_withdrawn_and_refused_when_it_comes(place: Kitchen) -> None:
    assert place.undo() == (Result.SUCCESS, None)
    assert place.do() == (Result.REFUSED, "Withdrawn")

    assert place.row().state is RowState.WITHDRAWN
    assert place.cooked == []
    assert place.thrown_away == []


def test_what_the_saga_saw_succeed_and_redis_has_forgotten_is_not_guessed_at(place: Kitchen) -> None:
    assert place.undo(known=True) == (Result.FAILED, "InboxRowMissing")
    assert place.inbox.read_row(KEY) is None


def test_an_undoing_that_fails_is_kept_until_its_next_try(place: Kitchen) -> None:
    place.do()
    place.undoing_does = raises(OSError("the bin is full"))
    first, copy = place.undo(attempt=1), place.undo(attempt=1)
    place.undoing_does = lambda: None

    assert first == copy == (Result.FAILED, "OSError")
    assert len(place.thrown_away) == 1
    assert place.undo(attempt=2) == (Result.SUCCESS, None)
    assert place.row().state is RowState.UNDONE


def test_an_undoing_that_meets_another_copy_of_itself_leaves_one_row(place: Kitchen) -> None:
    # Redis holds nothing while a handler works: both run, as the docstring warns, and one row is written.
    place.do()

    def a_copy_comes() -> None:
        place.undoing_does = lambda: None
        assert place.undo() == (Result.SUCCESS, None)

    place.undoing_does = a_copy_comes

    assert place.undo() == (Result.SUCCESS, None)
    assert len(place.thrown_away) == 2
    assert place.row().state is RowState.UNDONE


def test_settling_answers_from_the_row(place: Kitchen) -> None:
    place.do()

    assert place.settle() == (Result.SUCCESS, {"answer": "done", "reply": {"plate": 1}})


def test_rows_past_their_retention_are_forgotten(place: Kitchen) -> None:
    place.do()

    place.later(timedelta(days=30))
    assert place.participant.forget_old() == 0
    place.later(timedelta(seconds=1))
    assert place.participant.forget_old() == 1

    assert place.inbox.read_row(KEY) is None
