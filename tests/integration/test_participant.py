"""The participant on real databases: duplicates, races made on purpose, and third parties."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text

from sagas_framework import Context, Unavailable
from sagas_framework.core.ids import Kind
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.transport.envelope import WireMessage
from tests.integration.kitchen import Handlers, KitchenClosed, answer, make_kitchen, open_tickets, sent


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> str:
    """A fresh database of each kind."""
    name = "sqlite_url" if request.param == "sqlite" else "postgres_url"
    url: str = request.getfixturevalue(name)
    return url


class Clock:
    """Time moved by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, by: timedelta) -> None:
        self.now += by


def failing(times: int, error: Exception) -> Callable[..., None]:
    """A handler's beginning that raises so often, then lets it work."""
    left = [error] * times

    def raise_while_any_is_left(*_: object) -> None:
        if left:
            raise left.pop()

    return raise_while_any_is_left


def test_a_copy_of_a_failed_attempt_is_answered_and_the_effect_is_there_once(database: str) -> None:
    handlers = Handlers(opening=failing(1, OSError("the oven is out")))
    participant = make_kitchen(database, handlers)
    saga = str(uuid4())

    first = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    copy = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    second = answer(participant.receive(sent(saga, Kind.DO, attempt=2)))
    late_copy = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))

    assert first == copy
    assert first[0] == "failed"
    assert first[1]["message"] == "the oven is out"
    assert second == late_copy
    assert second[0] == "success"
    assert open_tickets(participant.engine) == 1
    assert len(handlers.opened) == 1


def test_a_third_party_sees_one_key_over_all_attempts(database: str) -> None:
    charges: list[str] = []
    handlers = Handlers()

    def charge_then_lose_the_answer(_command: object, context: object) -> None:
        charges.append(context.key)  # type: ignore[attr-defined]
        if len(charges) == 1:
            raise TimeoutError("the provider's answer is lost")

    handlers.opening = charge_then_lose_the_answer
    participant = make_kitchen(database, handlers, outside=True)
    saga = str(uuid4())

    first = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    copy = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    second = answer(participant.receive(sent(saga, Kind.DO, attempt=2)))

    assert (first[0], copy[0], second[0]) == ("failed", "failed", "success")
    assert len(charges) == 2
    assert len(set(charges)) == 1
    assert open_tickets(participant.engine) == 1


def test_a_handler_that_died_with_its_claim_is_undone_by_its_key(database: str) -> None:
    clock = Clock()
    handlers = Handlers(opening=failing(1, KeyboardInterrupt()))  # type: ignore[arg-type]
    participant = make_kitchen(database, handlers, outside=True, clock=clock)
    saga = str(uuid4())
    with pytest.raises(KeyboardInterrupt):  # as a kill would: the claim stays, nothing is answered
        participant.receive(sent(saga, Kind.DO))

    while_it_may_still_run = answer(participant.receive(sent(saga, Kind.UNDO)))
    clock.forward(participant.lease + timedelta(seconds=1))
    afterwards = answer(participant.receive(sent(saga, Kind.UNDO)))
    again = answer(participant.receive(sent(saga, Kind.UNDO)))
    late_command = answer(participant.receive(sent(saga, Kind.DO)))

    assert while_it_may_still_run == ("nothing", None)
    assert afterwards == again == ("success", None)
    assert len(handlers.closed) == 1
    assert late_command[0] == "refused"
    assert late_command[1]["type"] == "Withdrawn"


def test_a_refusal_stays_a_refusal_when_the_kitchen_has_opened_since(database: str) -> None:
    participant = make_kitchen(database, Handlers(opening=failing(1, KitchenClosed("at night"))))
    saga = str(uuid4())

    first = answer(participant.receive(sent(saga, Kind.DO)))
    again = answer(participant.receive(sent(saga, Kind.DO)))

    assert first == again
    assert first[1] == {"type": "KitchenClosed", "message": "at night", "module": KitchenClosed.__module__}
    assert open_tickets(participant.engine) == 0


def test_an_invalid_payload_is_refused_with_its_path_and_the_refusal_is_kept(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    saga = str(uuid4())

    refused = answer(participant.receive(sent(saga, Kind.DO, payload={"order_id": "seven"})))
    mended = answer(participant.receive(sent(saga, Kind.DO)))

    assert refused == mended
    assert refused[0] == "refused"
    assert refused[1]["type"] == "InvalidPayload"
    assert refused[1]["message"].startswith("$.order_id: ")


def test_what_a_handler_wrote_before_it_raised_is_gone_and_a_commit_of_its_own_changes_nothing(
    database: str,
) -> None:
    handlers = Handlers()
    participant = make_kitchen(database, handlers)

    def write_commit_and_raise(_command: object, context: object) -> None:
        from tests.integration.kitchen import tickets

        session = context.session  # type: ignore[attr-defined]
        session.execute(tickets.insert().values(operation="x", status="open"))
        session.commit()
        raise OSError("after the commit")

    handlers.opening = write_commit_and_raise

    assert answer(participant.receive(sent(str(uuid4()), Kind.DO)))[0] == "failed"
    assert open_tickets(participant.engine) == 0


def test_nothing_is_answered_and_no_attempt_is_used_while_something_is_away(database: str) -> None:
    participant = make_kitchen(database, Handlers(opening=failing(1, Unavailable("no gas"))))
    saga = str(uuid4())

    assert answer(participant.receive(sent(saga, Kind.DO))) == ("nothing", None)
    assert answer(participant.receive(sent(saga, Kind.DO)))[0] == "success"


def test_a_message_past_its_time_is_set_aside_and_not_executed(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)

    assert answer(participant.receive(sent(str(uuid4()), Kind.DO, not_after=long_ago))) == ("nothing", None)
    assert open_tickets(participant.engine) == 0
    with participant.engine.connect() as connection:
        (message,) = read_quarantine(connection)
    assert message.reason.startswith("expired")


def test_a_duplicate_of_a_long_handler_is_dropped_at_once(postgres_url: str) -> None:
    started, release = threading.Event(), threading.Event()

    def cook_slowly(*_: object) -> None:
        started.set()
        assert release.wait(30)

    handlers = Handlers(opening=cook_slowly)
    participant = make_kitchen(postgres_url, handlers)
    saga = str(uuid4())
    replies: list[tuple[str, object]] = []
    first = threading.Thread(target=lambda: replies.append(answer(participant.receive(sent(saga, Kind.DO)))))
    first.start()
    assert started.wait(30)

    copies = [answer(participant.receive(sent(saga, Kind.DO))) for _ in range(20)]
    undo = answer(participant.receive(sent(saga, Kind.UNDO)))
    release.set()
    first.join(30)

    assert copies == [("nothing", None)] * 20
    assert undo == ("nothing", None)
    assert replies[0][0] == "success"
    assert len(handlers.opened) == 1
    assert answer(participant.receive(sent(saga, Kind.UNDO, known=True)))[0] == "success"
    assert open_tickets(participant.engine) == 0


def test_command_and_compensation_that_race_leave_nothing_whoever_is_first(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    for _ in range(20):
        saga = str(uuid4())
        barrier = threading.Barrier(2)

        def race(kind: Kind, saga: str = saga, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(30)
            while answer(participant.receive(sent(saga, kind))) == ("nothing", None):
                pass  # it was busy; the sender sends again

        racers = [threading.Thread(target=race, args=(kind,)) for kind in (Kind.DO, Kind.UNDO)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(60)

    assert open_tickets(participant.engine) == 0
    participant.engine.dispose()


def test_an_undo_whose_row_is_missing_fails_when_the_saga_has_seen_the_success(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    saga = str(uuid4())
    participant.receive(sent(saga, Kind.DO))
    participant.inbox.forget(before=datetime.now(UTC) + timedelta(days=1))

    failed = answer(participant.receive(sent(saga, Kind.UNDO, known=True)))

    assert failed[0] == "failed"
    assert failed[1]["type"] == "InboxRowMissing"
    assert open_tickets(participant.engine) == 1


def test_an_undo_that_failed_is_tried_again_and_undoes_once(database: str) -> None:
    handlers = Handlers(closing=failing(1, OSError("the door is stuck")))
    participant = make_kitchen(database, handlers)
    saga = str(uuid4())
    participant.receive(sent(saga, Kind.DO))

    first = answer(participant.receive(sent(saga, Kind.UNDO, attempt=1)))
    second = answer(participant.receive(sent(saga, Kind.UNDO, attempt=2)))
    copy = answer(participant.receive(sent(saga, Kind.UNDO, attempt=1)))

    assert first[0] == "failed"
    assert second == copy == ("success", None)
    assert len(handlers.closed) == 1


def test_a_handed_over_operation_is_closed_without_its_handler(database: str) -> None:
    handlers = Handlers()
    participant = make_kitchen(database, handlers)
    saga = str(uuid4())
    participant.receive(sent(saga, Kind.DO))

    handed = answer(participant.receive(sent(saga, Kind.SETTLE, hand_over=True)))
    queued_undo = answer(participant.receive(sent(saga, Kind.UNDO, known=True)))

    assert handed[1]["answer"] == "yours_to_undo"
    assert queued_undo == ("success", None)
    assert handlers.closed == []


def test_a_compensation_that_this_release_does_not_know_is_not_answered_from_the_commands_row(
    database: str,
) -> None:
    participant = make_kitchen(database, Handlers())
    saga = str(uuid4())
    participant.receive(sent(saga, Kind.DO))
    undo = sent(saga, Kind.UNDO, known=True)
    newer = replace(undo, headers={**undo.headers, "task": "kitchen.tear_up_ticket"})

    assert answer(participant.receive(newer)) == ("nothing", None)
    with participant.engine.connect() as connection:
        assert "no task 'kitchen.tear_up_ticket'" in read_quarantine(connection)[0].reason
    assert answer(participant.receive(undo)) == ("success", None)  # the worker that has it comes
    assert open_tickets(participant.engine) == 0


@pytest.mark.parametrize("not_after", ["2026-01-01T00:00:00", "soon", 7])
def test_a_deadline_without_a_zone_or_sense_is_set_aside(database: str, not_after: object) -> None:
    participant = make_kitchen(database, Handlers())
    message = sent(str(uuid4()), Kind.DO)

    replied = participant.receive(replace(message, headers={**message.headers, "saga_not_after": not_after}))

    assert replied is None
    with participant.engine.connect() as connection:
        assert "not a time with a zone" in read_quarantine(connection)[0].reason


def test_a_message_can_be_set_aside_whatever_a_broker_has_put_into_it(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    death = {"x-death": [{"time": datetime(2026, 1, 1, tzinfo=UTC), "queue": b"\x00\xff"}]}
    message = WireMessage(
        "kitchen.commands",
        {"task": "t" * 1000, "id": "\x00", **death},
        {"reply_to": "\x00"},
        b"\x00 \xff nonsense",
    )

    assert participant.receive(message) is None

    with participant.engine.connect() as connection:
        (aside,) = read_quarantine(connection)
    assert aside.body == "\\x00 \\xff nonsense"
    assert aside.task == "t" * 255
    assert "2026-01-01" in aside.headers["x-death"][0]["time"]


def test_a_tombstone_bears_the_commands_name(database: str) -> None:
    participant = make_kitchen(database, Handlers())
    saga = str(uuid4())
    participant.receive(sent(saga, Kind.UNDO))

    refused = answer(participant.receive(sent(saga, Kind.DO)))

    assert refused[1]["message"].startswith("kitchen.open_ticket was withdrawn")


@pytest.mark.parametrize("outside", [False, True])
def test_work_that_cannot_be_committed_is_a_fault_of_its_attempt(database: str, outside: bool) -> None:
    handlers = Handlers()
    participant = make_kitchen(database, handlers, outside=outside)
    with participant.engine.begin() as connection:
        connection.execute(text("CREATE TABLE shelves (id INTEGER PRIMARY KEY)"))
        connection.execute(
            text("CREATE TABLE pots (shelf INTEGER REFERENCES shelves (id) DEFERRABLE INITIALLY DEFERRED)")
        )

    def put_it_on_no_shelf(_command: object, context: Context) -> None:
        if context.attempt == 1:
            context.session.execute(text("INSERT INTO pots VALUES (99)"))

    handlers.opening = put_it_on_no_shelf
    saga = str(uuid4())

    first = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    copy = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    second = answer(participant.receive(sent(saga, Kind.DO, attempt=2)))

    assert first == copy
    assert first[0] == "failed"
    assert first[1]["type"] == "IntegrityError"
    assert second[0] == "success"
    assert open_tickets(participant.engine) == 1


def test_a_refusal_after_an_attempt_that_may_have_worked_is_undone_like_a_fault(database: str) -> None:
    charged: list[str] = []
    handlers = Handlers(closing=lambda _command, undo: charged.remove(undo.key))

    def charge_then_refuse(_command: object, context: Context) -> None:
        if context.attempt == 1:
            charged.append(context.key)
            raise TimeoutError("the provider's answer is lost")
        raise KitchenClosed("by now")

    handlers.opening = charge_then_refuse
    participant = make_kitchen(database, handlers, outside=True)
    saga = str(uuid4())

    first = answer(participant.receive(sent(saga, Kind.DO, attempt=1)))
    second = answer(participant.receive(sent(saga, Kind.DO, attempt=2)))
    undone = answer(participant.receive(sent(saga, Kind.UNDO)))

    assert (first[0], second[0], undone[0]) == ("failed", "failed", "success")
    assert second[1]["type"] == "KitchenClosed"
    assert charged == []
