"""What every inbox promises a participant; what those add that commit a handler's work with the row."""

from __future__ import annotations

import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import pytest
from redis import Redis
from sqlalchemy import Engine, text
from sqlalchemy.exc import (
    DataError,
    IntegrityError,
    InternalError,
    OperationalError,
    PendingRollbackError,
    ProgrammingError,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from sagas_framework.core.events import Result
from sagas_framework.core.inbox import InboxRow, RowState, Stored
from sagas_framework.errors import ConfigurationError
from sagas_framework.storage.engine import is_unavailable, make_engine, reading
from sagas_framework.storage.memory import MemoryInbox
from sagas_framework.storage.ports import (
    BatchInbox,
    Beat,
    Busy,
    Entangled,
    Inbox,
    InboxTurn,
    InboxTurns,
    LostRace,
    Quarantined,
    StoreUnavailable,
)
from sagas_framework.storage.redis_inbox import RedisInbox
from sagas_framework.storage.sql_inbox import SqlInbox, SqlInboxTurns
from tests.contract.looking import (
    BOUNDED,
    NOON,
    Database,
    InMemory,
    InRedis,
    InSql,
    Looking,
    after,
    in_thread,
    messages,
    postgres_database,
    sqlite_database,
)
from tests.contract.replaying import ReplayContract, Sender
from tests.servers import wait_until

KEY: Final = "5f0c1a52-1111-5222-8333-444455556666"


class Base(DeclarativeBase):
    pass


class Work(Base):
    """The service's own table, for the ORM."""

    __tablename__ = "work"
    value: Mapped[str] = mapped_column(primary_key=True)


class Stop(Exception):
    """Leaves a block the bad way."""


def never(messages: Sequence[Quarantined]) -> list[str | None]:
    raise AssertionError(f"given {messages}")


def a_row(key: str = KEY, state: RowState = RowState.DONE, **changes: Any) -> InboxRow:
    return InboxRow(key, "saga-1", "restaurant_service.create_ticket", state, **changes)


def put(inbox: Inbox, row: InboxRow, at: float = 0) -> None:
    with inbox.turn(row.key, after(at)) as turn:
        turn.save(row)


def read(inbox: Inbox, key: str = KEY) -> InboxRow | None:
    with inbox.turn(key, NOON) as turn:
        return turn.row


class InboxContract(ReplayContract, ABC):
    """What every Inbox promises. Subclass it with a fixture `there`."""

    @pytest.fixture
    def inbox(self, there: Looking) -> Inbox:
        return self.inbox_in(there)

    @pytest.fixture
    def keeper(self, inbox: Inbox) -> Inbox:
        return inbox

    @abstractmethod
    def inbox_in(self, there: Any) -> Inbox: ...

    # ---- rows ---------------------------------------------------------------------------------------

    def test_an_operation_that_nobody_has_handled_has_no_row(self, inbox: Inbox) -> None:
        assert read(inbox) is None
        assert read(inbox) is None  # looking makes none

    def test_a_row_comes_back_as_it_was_saved(self, inbox: Inbox) -> None:
        row = a_row(
            state=RowState.CLAIMED,
            attempt=3,
            claim="0b8f5d1e-0000-4000-8000-000000000000",
            lease_until=after(600.000001),
            reply=Stored(
                Result.FAILED, {"type": "Oops", "message": "naïve \U0001f355", "n": [1, 2.5, None, True]}
            ),
            undo_attempt=2,
            undo_reply=Stored(Result.REFUSED),
        )

        put(inbox, row)

        assert read(inbox) == row

    def test_a_row_is_replaced_as_a_whole(self, inbox: Inbox) -> None:
        put(inbox, a_row(state=RowState.CLAIMED, claim="c", lease_until=after(1), attempt=2))

        done = a_row(attempt=2, reply=Stored(Result.SUCCESS, {"ticket_id": 7}))
        put(inbox, done)

        assert read(inbox) == done

    def test_the_last_row_saved_in_a_turn_counts(self, inbox: Inbox) -> None:
        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row(state=RowState.CLAIMED))
            turn.save(a_row(state=RowState.DONE))
            assert turn.row == a_row(state=RowState.DONE)

        assert read(inbox) == a_row(state=RowState.DONE)

    def test_rows_of_other_operations_are_left_alone(self, inbox: Inbox) -> None:
        put(inbox, a_row("a"))
        put(inbox, a_row("b", RowState.WITHDRAWN))

        assert read(inbox, "a") == a_row("a")
        assert read(inbox, "b") == a_row("b", RowState.WITHDRAWN)

    def test_a_turn_that_ends_with_an_error_leaves_nothing(self, inbox: Inbox) -> None:
        put(inbox, a_row("known", RowState.FAILED))

        for key in ("known", "new"):
            with pytest.raises(Stop):
                self._fail(inbox, key)

        assert read(inbox, "known") == a_row("known", RowState.FAILED)
        assert read(inbox, "new") is None

    @staticmethod
    def _fail(inbox: Inbox, key: str) -> None:
        with inbox.turn(key, NOON) as turn:
            turn.save(a_row(key))
            raise Stop

    # ---- races --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("first", [None, a_row(state=RowState.FAILED)], ids=["new", "known"])
    def test_of_two_turns_at_once_only_one_writes_on_what_it_read(
        self, inbox: Inbox, first: InboxRow | None
    ) -> None:
        if first is not None:
            put(inbox, first)
        has_begun, may_end = threading.Event(), threading.Event()

        def one() -> str:
            try:
                with inbox.turn(KEY, NOON) as turn:
                    found = turn.row
                    has_begun.set()
                    may_end.wait(BOUNDED)
                    turn.save(a_row(reply=Stored(Result.SUCCESS, "one")))
            except LostRace:
                return "lost"
            return "wrote" if found == first else "saw the other"

        def other() -> str:
            try:
                with inbox.turn(KEY, NOON) as turn:
                    found = turn.row
                    turn.save(a_row(reply=Stored(Result.SUCCESS, "other")))
            except (Busy, LostRace):
                return "lost"
            return "wrote" if found == first else "saw the other"

        running = in_thread(one)
        has_begun.wait(BOUNDED)
        second = in_thread(other)
        second_ended = second.done() or self._ends_alone(second)
        may_end.set()
        said = {"one": running.result(BOUNDED), "other": second.result(BOUNDED)}

        assert list(said.values()).count("wrote") == 1, said
        winner = "other" if "saw the other" in said.values() else next(n for n in said if said[n] == "wrote")
        assert read(inbox) == a_row(reply=Stored(Result.SUCCESS, winner))
        assert second_ended or said["other"] == "saw the other"

    @staticmethod
    def _ends_alone(second: Any) -> bool:
        """Whether the second turn ends while the first goes on, instead of waiting for it."""
        try:
            wait_until(second.done, "", within=1)
        except TimeoutError:
            return False
        return True

    def test_a_turn_for_another_operation_need_not_lose(self, inbox: Inbox) -> None:
        def other() -> None:
            put(inbox, a_row("other"))

        with inbox.turn(KEY, NOON) as turn:
            second = in_thread(other)
            self._ends_alone(second)
            turn.save(a_row())

        second.result(BOUNDED)
        assert read(inbox) == a_row()
        assert read(inbox, "other") == a_row("other")

    def test_after_a_lost_race_the_next_turn_reads_what_won(self, inbox: Inbox) -> None:
        gate = threading.Barrier(4)

        def handle(name: str) -> str:
            gate.wait(BOUNDED)
            while True:
                try:
                    with inbox.turn(KEY, NOON) as turn:
                        if turn.row is not None:
                            assert turn.row.reply is not None
                            return str(turn.row.reply.payload)
                        turn.save(a_row(reply=Stored(Result.SUCCESS, name)))
                    return name
                except (Busy, LostRace):
                    continue

        running = [in_thread(lambda n=n: handle(str(n))) for n in range(4)]  # type: ignore[misc]

        assert len({one.result(BOUNDED) for one in running}) == 1

    # ---- forgetting ---------------------------------------------------------------------------------

    def test_only_rows_last_changed_before_the_moment_are_forgotten(self, inbox: Inbox) -> None:
        for key, at in {"old": 0, "changed since": 0, "at the moment": 10, "new": 11}.items():
            put(inbox, a_row(key), at)
        put(inbox, a_row("changed since", RowState.UNDONE), 12)

        forgotten = inbox.forget(after(10))

        assert forgotten == 1
        assert read(inbox, "old") is None
        assert read(inbox, "changed since") == a_row("changed since", RowState.UNDONE)
        assert read(inbox, "at the moment") == a_row("at the moment")
        assert read(inbox, "new") == a_row("new")

    def test_no_more_rows_are_forgotten_at_once_than_asked_for(self, inbox: Inbox) -> None:
        for n in range(5):
            put(inbox, a_row(f"row {n}"), n)

        counts = [inbox.forget(after(100), 2) for _ in range(4)]

        assert counts == [2, 2, 1, 0]

    # ---- quarantine and beats -----------------------------------------------------------------------

    def test_a_message_with_anything_in_it_can_be_set_aside(self, inbox: Inbox, there: Looking) -> None:
        (plain,) = messages(1)

        inbox.quarantine(
            replace(
                plain,
                task="\x00" * 999,
                headers={"at": NOON, "raw": b"\xff"},
                body="\ud800",
                saga_id="s" * 99,
            )
        )

        assert [message.body for message in there.quarantined()] == ["\\ud800"]

    def test_a_beat_replaces_the_one_before(self, inbox: Inbox, there: Looking) -> None:
        inbox.beat(Beat("w", "participant", NOON, after(1)))
        inbox.beat(Beat("v", "participant", NOON, after(1), "idle"))

        inbox.beat(Beat("w", "participant", NOON, after(2)))

        assert there.beats() == [
            Beat("v", "participant", NOON, after(1), "idle"),
            Beat("w", "participant", NOON, after(2)),
        ]


def the_beats_of_processes_long_gone_are_forgotten_when_a_new_one_begins(
    inbox: Inbox, there: Looking
) -> None:
    week = 7 * 24 * 3600
    inbox.beat(Beat("gone", "participant", NOON, after(0)))
    inbox.beat(Beat("old", "participant", NOON, after(1)))
    inbox.beat(Beat("old", "participant", NOON, after(week)))  # it turns, and began long ago
    assert [beat.worker for beat in there.beats()] == ["gone", "old"]

    inbox.beat(Beat("new", "participant", after(week), after(week + 1)))

    assert [beat.worker for beat in there.beats()] == ["new", "old"]


class TransactionalInboxContract(InboxContract):
    """What inboxes add whose rows commit together with the handler's work."""

    def test_it_says_that_work_and_row_commit_together(self, inbox: Inbox) -> None:
        assert inbox.transactional

    def test_row_reply_and_work_commit_together(self, inbox: Inbox, there: Database) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "ticket")
            turn.finish_work()
            turn.save(a_row(reply=Stored(Result.SUCCESS, {"ticket_id": 7})))
            assert there.worked() == []

        assert there.worked() == ["ticket"]
        assert read(inbox) == a_row(reply=Stored(Result.SUCCESS, {"ticket_id": 7}))

    def test_a_turn_that_ends_with_an_error_leaves_neither_row_nor_work(
        self, inbox: Inbox, there: Database
    ) -> None:
        def fail() -> None:
            with inbox.turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                there.work(session, "ticket")
                turn.finish_work()
                turn.save(a_row())
                raise Stop

        with pytest.raises(Stop):
            fail()

        assert there.worked() == []
        assert read(inbox) is None

    def test_undoing_the_work_keeps_the_row(self, inbox: Inbox, there: Database) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "half a ticket")
            turn.undo_work()
            turn.save(a_row(state=RowState.FAILED))

        assert there.worked() == []
        assert read(inbox) == a_row(state=RowState.FAILED)

    def test_after_the_work_was_undone_there_is_a_fresh_session(self, inbox: Inbox, there: Database) -> None:
        with inbox.turn(KEY, NOON) as turn:
            for value in ("first", "second"):
                turn.undo_work()
                session = turn.session()
                assert session is not None
                there.work(session, value)
            turn.save(a_row())

        assert there.worked() == ["second"]

    def test_a_session_that_was_not_finished_is_finished_with_the_turn(
        self, inbox: Inbox, there: Database
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row())
            session = turn.session()
            assert session is not None
            there.work(session, "ticket")

        assert there.worked() == ["ticket"]

    def test_whoever_loses_the_race_loses_its_work(self, inbox: Inbox, there: Database) -> None:
        has_begun, may_end = threading.Event(), threading.Event()

        def handle(value: str, *, waits: bool) -> str | None:
            try:
                with inbox.turn(KEY, NOON) as turn:
                    if turn.row is not None:
                        return None
                    session = turn.session()
                    assert session is not None
                    there.work(session, value)
                    if waits:
                        has_begun.set()
                        may_end.wait(BOUNDED)
                    turn.save(a_row(reply=Stored(Result.SUCCESS, value)))
            except (Busy, LostRace):
                return None
            return value

        first = in_thread(lambda: handle("first", waits=True))
        has_begun.wait(BOUNDED)
        second = in_thread(lambda: handle("second", waits=False))
        self._ends_alone(second)
        may_end.set()
        winners = [won for won in (first.result(BOUNDED), second.result(BOUNDED)) if won]

        assert len(winners) == 1
        assert there.worked() == winners
        assert read(inbox) == a_row(reply=Stored(Result.SUCCESS, winners[0]))


class BatchInboxContract(TransactionalInboxContract):
    """What inboxes add that hold several rows at once."""

    @pytest.fixture
    def batches(self, inbox: Inbox) -> BatchInbox:
        assert isinstance(inbox, BatchInbox)
        return inbox

    def test_rows_of_a_batch_are_found_and_come_back_as_they_were_saved(self, batches: BatchInbox) -> None:
        put(batches, a_row("failed", RowState.FAILED))
        put(batches, a_row("answered"))
        row = a_row(
            "new",
            RowState.CLAIMED,
            attempt=3,
            claim="0b8f5d1e-0000-4000-8000-000000000000",
            lease_until=after(600.000001),
            reply=Stored(
                Result.FAILED, {"type": "Oops", "message": "naïve \U0001f355 \"'\\", "n": [1, None]}
            ),
            undo_attempt=2,
            undo_reply=Stored(Result.REFUSED),
        )

        with batches.turns(["failed", "new", "answered", "nobody's"], after(5)) as turns:
            found = {key: held(turns, key).row for key in ("failed", "new", "answered", "nobody's")}
            held(turns, "new").save(row)
            held(turns, "failed").save(a_row("failed", attempt=2))

        assert found == {
            "failed": a_row("failed", RowState.FAILED),
            "new": None,
            "answered": a_row("answered"),
            "nobody's": None,
        }
        assert read(batches, "new") == row
        assert read(batches, "failed") == a_row("failed", attempt=2)
        assert read(batches, "answered") == a_row("answered")
        assert read(batches, "nobody's") is None
        assert batches.forget(after(5)) == 1  # "answered": the others were changed at that moment

    def test_a_batch_of_nothing_changes_nothing(self, batches: BatchInbox) -> None:
        with batches.turns([], NOON):
            pass

    def test_a_key_may_be_odd(self, batches: BatchInbox) -> None:
        odd = ["it's", 'a "quote"', "{1,2}", "back\\slash", "NULL", "ünïcode", "%(keys)s", ":keys"]
        with batches.turns(odd, NOON) as turns:
            for key in odd:
                held(turns, key).save(a_row(key))

        with batches.turns(odd, NOON) as turns:
            assert [held(turns, key).row for key in odd] == [a_row(key) for key in odd]

    def test_who_comes_second_to_an_operation_in_a_batch_sees_what_the_first_has_saved(
        self, batches: BatchInbox
    ) -> None:
        with batches.turns([KEY, "other"], NOON) as turns:
            held(turns, KEY).save(a_row())
            held(turns, "other").save(a_row("other"))
            second = held(turns, KEY)
            seen = second.row
            second.save(a_row(state=RowState.UNDONE))

        assert seen == a_row()
        assert read(batches) == a_row(state=RowState.UNDONE)

    def test_of_rows_that_are_saved_again_the_last_ones_stay(self, batches: BatchInbox) -> None:
        with batches.turns([KEY], NOON) as turns:
            held(turns, KEY).save(a_row())
            held(turns, KEY).save(a_row(state=RowState.UNDONE))
        assert read(batches) == a_row(state=RowState.UNDONE)
        with batches.turns([KEY], NOON) as turns:
            held(turns, KEY).save(a_row(state=RowState.FAILED))
            held(turns, KEY).save(a_row(state=RowState.UNDONE, attempt=2))

        assert read(batches) == a_row(state=RowState.UNDONE, attempt=2)

    def test_work_that_is_undone_leaves_that_of_the_others(
        self, batches: BatchInbox, there: Database
    ) -> None:
        with batches.turns(["a", "b", "c"], NOON) as turns:
            for key in ("a", "b", "c"):
                turn = held(turns, key)
                session = turn.session()
                assert session is not None
                there.work(session, key)
                if key == "b":
                    turn.undo_work()
                else:
                    turn.finish_work()
                turn.save(a_row(key, RowState.FAILED if key == "b" else RowState.DONE))
            assert there.worked() == []

        assert there.worked() == ["a", "c"]
        assert read(batches, "b") == a_row("b", RowState.FAILED)
        assert read(batches, "c") == a_row("c")

    def test_a_batch_that_ends_with_an_error_leaves_neither_rows_nor_work(
        self, batches: BatchInbox, there: Database
    ) -> None:
        put(batches, a_row("known", RowState.FAILED))

        def fail() -> None:
            with batches.turns(["known", "new", "at work"], NOON) as turns:
                for key in ("known", "new"):
                    turn = held(turns, key)
                    session = turn.session()
                    assert session is not None
                    there.work(session, key)
                    turn.finish_work()
                    turn.save(a_row(key))
                session = held(turns, "at work").session()
                assert session is not None
                there.work(session, "at work")
                raise Stop

        with pytest.raises(Stop):
            fail()

        assert there.worked() == []
        assert read(batches, "known") == a_row("known", RowState.FAILED)
        assert read(batches, "new") is None

    def test_work_that_is_not_guarded_is_taken_back_with_the_others(
        self, batches: BatchInbox, there: Database
    ) -> None:
        def fail() -> None:
            with batches.turns(["a", "b"], NOON) as turns:
                for key in ("a", "b"):
                    turn = held(turns, key)
                    turn.guarded = False
                    session = turn.session()
                    assert session is not None
                    there.work(session, key)
                    if key == "b":
                        turn.undo_work()
                    turn.finish_work()
                    turn.save(a_row(key))

        with pytest.raises(Entangled):
            fail()

        assert there.worked() == []
        assert read(batches, "a") is None

    def test_who_did_no_work_has_none_to_take_back(self, batches: BatchInbox, there: Database) -> None:
        with batches.turns(["a", "b"], NOON) as turns:
            for key in ("a", "b"):
                turn = held(turns, key)
                turn.guarded = False
                if key == "a":
                    session = turn.session()
                    assert session is not None
                    there.work(session, key)
                    turn.finish_work()
                else:
                    turn.undo_work()
                turn.save(a_row(key))

        assert there.worked() == ["a"]
        assert read(batches, "b") == a_row("b")

    @pytest.mark.parametrize("guarded", [True, False])
    def test_who_waits_for_the_work_to_be_written_is_called_once(
        self, batches: BatchInbox, there: Database, guarded: bool
    ) -> None:
        called: list[str] = []

        with batches.turns(["a", "b"], NOON) as turns:
            for key in ("a", "b"):
                turn = held(turns, key)
                turn.guarded = guarded
                session = turn.session()
                assert session is not None
                there.work(session, key)
                turn.finish_work(lambda key=key: called.append(key))  # type: ignore[misc]
            turns.finish_work()
            at_the_end = list(called)

        assert called == at_the_end == ["a", "b"]

    def test_a_session_that_was_not_finished_is_finished_with_the_batch(
        self, batches: BatchInbox, there: Database
    ) -> None:
        with batches.turns([KEY], NOON) as turns:
            turn = held(turns, KEY)
            turn.save(a_row())
            session = turn.session()
            assert session is not None
            there.work(session, "ticket")

        assert there.worked() == ["ticket"]

    def test_of_two_batches_that_meet_one_writes_each_row(self, batches: BatchInbox) -> None:
        both, has_begun, may_end = ["a", "b", "c"], threading.Event(), threading.Event()

        def one(keys: Sequence[str], name: str, *, waits: bool) -> list[str]:
            try:
                with batches.turns(keys, NOON) as turns:
                    if waits:
                        has_begun.set()
                        may_end.wait(BOUNDED)
                    wrote = []
                    for key in keys:
                        turn = turns.get(key)
                        if turn is not None and turn.row is None:
                            turn.save(a_row(key, reply=Stored(Result.SUCCESS, name)))
                            wrote.append(key)
            except LostRace:
                return []
            return wrote

        first = in_thread(lambda: one(["c", "b"], "first", waits=True))
        has_begun.wait(BOUNDED)
        second = in_thread(lambda: one(both, "second", waits=False))
        self._ends_alone(second)
        may_end.set()
        wrote = {"first": first.result(BOUNDED), "second": second.result(BOUNDED)}

        assert wrote["first"] or wrote["second"]
        for name, keys in wrote.items():
            for key in keys:
                row = read(batches, key)
                assert row is not None
                assert row.reply == Stored(Result.SUCCESS, name)
        assert not set(wrote["first"]) & set(wrote["second"])


def held(turns: InboxTurns, key: str) -> InboxTurn:
    turn = turns.get(key)
    assert turn is not None
    return turn


class TestMemoryInbox(BatchInboxContract):
    """Its session is a dictionary, so what only a session can do is not asked of it."""

    @pytest.fixture
    def there(self) -> InMemory:
        return InMemory()

    def inbox_in(self, there: InMemory) -> Inbox:
        return MemoryInbox(there.database)

    # Coarser than row locks: whoever meets another turn loses, also for another operation.
    def test_a_turn_for_another_operation_need_not_lose(self, inbox: Inbox) -> None:
        with pytest.raises(LostRace):
            super().test_a_turn_for_another_operation_need_not_lose(inbox)


class SqlInboxContract(BatchInboxContract):
    """What a database adds: a real session, constraints, and moments when it is away."""

    def inbox_in(self, there: InSql) -> Inbox:
        return SqlInbox(there.engine)

    def test_beats_of_processes_long_gone_are_forgotten(self, inbox: Inbox, there: InSql) -> None:
        the_beats_of_processes_long_gone_are_forgotten_when_a_new_one_begins(inbox, there)

    def test_a_handler_that_commits_its_session_in_a_batch_commits_nothing_of_the_others(
        self, batches: BatchInbox, there: InSql
    ) -> None:
        with batches.turns(["a", "b", "c"], NOON) as turns:
            for key in ("a", "b", "c"):
                turn = held(turns, key)
                session = turn.session()
                assert session is not None
                there.work(session, key)
                session.commit()
                there.work(session, f"{key}, and after it")
                if key == "b":
                    turn.undo_work()
                else:
                    turn.finish_work()

        assert there.worked() == ["a", "a, and after it", "c", "c, and after it"]

    def test_a_handler_that_rolls_back_in_a_batch_takes_back_its_own_work(
        self, batches: BatchInbox, there: InSql
    ) -> None:
        with batches.turns(["a", "b"], NOON) as turns:
            for key in ("a", "b"):
                turn = held(turns, key)
                session = turn.session()
                assert session is not None
                there.work(session, f"{key}, taken back")
                session.rollback()
                there.work(session, key)
                turn.finish_work()
                turn.save(a_row(key))

        assert there.worked() == ["a", "b"]

    def test_a_handler_that_trips_over_the_database_in_a_batch_trips_nobody_else(
        self, batches: BatchInbox, there: InSql
    ) -> None:
        with batches.turns(["a", "b", "c"], NOON) as turns:
            for key in ("a", "b", "c"):
                turn = held(turns, key)
                session = turn.session()
                assert session is not None
                there.work(session, key)
                if key == "b":
                    with pytest.raises(IntegrityError):
                        there.work(session, "a")
                    turn.undo_work()
                turn.finish_work()
                turn.save(a_row(key))

        assert there.worked() == ["a", "c"]

    def test_a_handler_that_commits_its_session_commits_nothing_of_ours(
        self, inbox: Inbox, there: InSql
    ) -> None:
        def fail() -> None:
            with inbox.turn(KEY, NOON) as turn:
                turn.save(a_row())
                session = turn.session()
                assert session is not None
                there.work(session, "committed too early")
                session.commit()
                raise Stop

        with pytest.raises(Stop):
            fail()

        assert there.worked() == []
        assert read(inbox) is None

    def test_what_a_handler_committed_itself_is_undone_with_the_rest(
        self, inbox: Inbox, there: InSql
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "committed too early")
            session.commit()
            there.work(session, "and after it")
            turn.undo_work()
            turn.save(a_row(state=RowState.FAILED))

        assert there.worked() == []
        assert read(inbox) == a_row(state=RowState.FAILED)

    def test_a_rollback_of_the_handler_goes_back_to_its_last_commit(self, inbox: Inbox, there: InSql) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "committed")
            session.commit()
            there.work(session, "taken back")
            session.rollback()
            there.work(session, "said again")
            turn.finish_work()
            turn.save(a_row())

        assert there.worked() == ["committed", "said again"]

    @pytest.mark.parametrize("end", ["rollback", "close"])
    def test_after_its_session_ended_a_handler_that_fails_leaves_nothing(
        self, inbox: Inbox, there: InSql, end: str
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row())
            session = turn.session()
            assert session is not None
            there.work(session, "before")
            getattr(session, end)()
            there.work(session, "committed after it")
            session.commit()
            there.work(session, "last")
            turn.undo_work()

        assert there.worked() == []
        assert read(inbox) == a_row()

    def test_what_a_handler_wrote_before_it_closed_its_session_is_not_kept(
        self, inbox: Inbox, there: InSql
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "closed on")
            session.flush()
            session.close()
            there.work(session, "kept")
            turn.finish_work()
            turn.save(a_row())

        assert there.worked() == ["kept"]

    def test_a_handler_that_rolls_its_session_back_rolls_back_nothing_of_ours(
        self, inbox: Inbox, there: InSql
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row())
            session = turn.session()
            assert session is not None
            there.work(session, "taken back")
            session.rollback()
            there.work(session, "said again")

        assert there.worked() == ["said again"]
        assert read(inbox) == a_row()

    def test_a_handler_that_closes_its_session_gives_up_what_it_has_not_committed(
        self, inbox: Inbox, there: InSql
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row())
            session = turn.session()
            assert session is not None
            there.work(session, "given up")
            session.close()
            there.work(session, "committed")
            session.commit()
            there.work(session, "given up, too")
            session.close()
            there.work(session, "left for us to commit")

        assert there.worked() == ["committed", "left for us to commit"]
        assert read(inbox) == a_row()

    def test_savepoints_of_a_handler_are_its_own(self, inbox: Inbox, there: InSql) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            with session.begin_nested():
                there.work(session, "kept")
            with pytest.raises(IntegrityError), session.begin_nested():
                session.add(Work(value="kept"))
            session.commit()
            with session.begin_nested() as savepoint:
                there.work(session, "taken back")
                savepoint.rollback()
            there.work(session, "and on")
            turn.finish_work()
            turn.save(a_row())

        assert there.worked() == ["and on", "kept"]

    def test_a_flush_that_fails_is_rolled_back_and_the_row_is_kept(self, inbox: Inbox, there: InSql) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "twice")
            session.add(Work(value="twice"))
            with pytest.raises(IntegrityError):
                turn.finish_work()
            turn.undo_work()
            turn.save(a_row(state=RowState.FAILED))

        assert there.worked() == []
        assert read(inbox) == a_row(state=RowState.FAILED)

    def test_a_row_that_appeared_since_it_was_read_is_a_lost_race(self, inbox: Inbox, there: InSql) -> None:
        # Somebody who takes no lock: an older release, or a person.
        def turn_and_save(connection: Any) -> None:
            turns = SqlInboxTurns(connection, [KEY], {}, NOON)
            turn = held(turns, KEY)
            assert turn.row is None
            connection.execute(
                text(
                    "INSERT INTO saga_inbox (key, saga_id, task, state, attempt, undo_attempt, updated_at) "
                    "VALUES (:key, 's', 't', 'withdrawn', 1, 0, :now)"
                ),
                {"key": KEY, "now": NOON.replace(tzinfo=None)},
            )
            turn.save(a_row())
            turns.write()

        with there.engine.connect() as connection, pytest.raises(LostRace):
            turn_and_save(connection)

    def test_a_constraint_that_is_broken_says_nothing_about_the_database(
        self, inbox: Inbox, there: InSql
    ) -> None:
        def twice() -> None:
            with inbox.turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                there.work(session, "twice")
                there.work(session, "twice")

        with pytest.raises(IntegrityError):
            twice()

        assert there.worked() == []

    def test_a_statement_that_is_wrong_says_nothing_about_the_database(self, inbox: Inbox) -> None:
        def run(statement: str) -> None:
            with inbox.turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                session.execute(text(statement))

        for statement in ("SELEC 1", "SELECT * FROM nowhere", "INSERT INTO work (nothing) VALUES (1)"):
            with pytest.raises((ProgrammingError, OperationalError, DataError)):
                run(statement)

    def test_a_flush_that_failed_and_was_not_noticed_says_nothing_about_the_database(
        self, inbox: Inbox, there: InSql
    ) -> None:
        put(inbox, a_row())
        with there.engine.begin() as connection:
            connection.execute(text("INSERT INTO work (value) VALUES ('taken')"))

        def handle() -> None:
            with inbox.turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                session.add(Work(value="taken"))
                with pytest.raises(IntegrityError):
                    session.flush()
                session.execute(text("SELECT 1"))

        with pytest.raises(PendingRollbackError):
            handle()


class TestSqliteInbox(SqlInboxContract):
    @pytest.fixture
    def there(self, sqlite_url: str) -> Iterator[InSql]:
        with sqlite_database(sqlite_url) as there:
            yield there

    def test_a_file_that_another_process_holds_is_unavailable(self, sqlite_url: str) -> None:
        with sqlite_database(sqlite_url, busy_timeout=0.05) as there:
            inbox = SqlInbox(there.engine)
            with there.engine.begin():
                with pytest.raises(StoreUnavailable), inbox.turn(KEY, NOON):
                    pytest.fail("began while another writes")
                with pytest.raises(StoreUnavailable):
                    inbox.quarantine(messages(1)[0])
                with pytest.raises(StoreUnavailable):
                    inbox.forget(NOON)
                with pytest.raises(StoreUnavailable):
                    inbox.beat(Beat("w", "participant", NOON, NOON))

            assert read(inbox) is None

    def test_a_disk_that_is_full_is_unavailable(self, there: InSql) -> None:
        def fill(engine: Engine) -> None:
            with SqlInbox(engine).turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                pages = session.execute(text("PRAGMA page_count")).scalar_one()
                session.execute(text(f"PRAGMA max_page_count = {pages}"))
                there.work(session, "x" * 1_000_000)

        with pytest.raises(StoreUnavailable):
            fill(there.engine)

        assert there.worked() == []


@contextmanager
def raising(there: InSql, sqlstate: str, why: str) -> Iterator[None]:
    """A trigger that raises an error with this SQLSTATE whenever somebody works."""
    body = f"BEGIN RAISE EXCEPTION '{why}' USING ERRCODE = '{sqlstate}'; END"
    with there.engine.begin() as connection:
        connection.exec_driver_sql(
            f"CREATE FUNCTION says_no() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"
        )
        connection.exec_driver_sql(
            "CREATE TRIGGER says_no BEFORE INSERT ON work FOR EACH ROW EXECUTE FUNCTION says_no()"
        )
    yield
    with there.engine.begin() as connection:
        connection.exec_driver_sql("DROP FUNCTION says_no CASCADE")


class TestPostgresInbox(SqlInboxContract):
    @pytest.fixture
    def there(self, postgres_module_url: str) -> Iterator[InSql]:
        with postgres_database(postgres_module_url) as there:
            yield there

    def test_an_operation_that_another_handles_is_busy_at_once(self, inbox: Inbox) -> None:
        with inbox.turn(KEY, NOON):
            with pytest.raises(Busy), inbox.turn(KEY, NOON):
                pytest.fail("had the turn that another has")
            with inbox.turn("another key", NOON) as turn:
                assert turn.row is None

        assert read(inbox) is None

    def test_a_server_that_is_away_is_unavailable(self) -> None:
        inbox = SqlInbox(make_engine("postgresql://nobody@127.0.0.1:1/nothing"))

        with pytest.raises(StoreUnavailable), inbox.turn(KEY, NOON):
            pytest.fail("connected")
        with pytest.raises(StoreUnavailable):
            inbox.quarantine(messages(1)[0])
        with pytest.raises(StoreUnavailable):
            inbox.beat(Beat("w", "participant", NOON, NOON))

    def test_a_row_that_appears_under_a_batch_is_a_lost_race(self, batches: BatchInbox, there: InSql) -> None:
        def write_without_lock(statement: str) -> None:
            with there.engine.begin() as connection:  # an older release, or a person
                connection.execute(text(statement))

        def handle(key: str, statement: str) -> None:
            with batches.turns([key, "other"], NOON) as turns:
                held(turns, "other").save(a_row("other"))
                held(turns, key).save(a_row(key))
                write_without_lock(statement)

        put(batches, a_row("known", RowState.FAILED))
        appears = (
            "INSERT INTO saga_inbox (key, saga_id, task, state, attempt, undo_attempt, updated_at) "
            "VALUES ('new', 's', 't', 'withdrawn', 1, 0, now())"
        )
        for key, statement in {"new": appears, "known": "DELETE FROM saga_inbox WHERE key = 'known'"}.items():
            with pytest.raises(LostRace):
                handle(key, statement)

        assert read(batches, "other") is None
        row = read(batches, "new")
        assert row is not None
        assert row.state is RowState.WITHDRAWN

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE saga_inbox SET state = 'withdrawn'",
            "UPDATE saga_inbox SET state = state",
            "DELETE FROM saga_inbox",
        ],
    )
    def test_a_row_that_another_wrote_since_it_was_read_is_a_lost_race(
        self, inbox: Inbox, batches: BatchInbox, there: InSql, statement: str
    ) -> None:
        def handle() -> None:
            put(inbox, a_row(state=RowState.FAILED))
            with inbox.turn(KEY, NOON) as turn:
                with there.engine.begin() as other:
                    other.execute(text(statement))
                turn.save(a_row())

        def handle_as_a_batch() -> None:
            put(inbox, a_row(state=RowState.FAILED))
            with batches.turns([KEY], NOON) as turns:
                with there.engine.begin() as other:
                    other.execute(text(statement))
                held(turns, KEY).save(a_row())

        with pytest.raises(LostRace):
            handle()
        with pytest.raises(LostRace):
            handle_as_a_batch()

        row = read(inbox)
        assert row is None or row.state is not RowState.DONE

    @pytest.mark.parametrize(
        ("makes", "breaks"),
        [
            ("ALTER TABLE saga_inbox ADD CONSTRAINT never CHECK (state <> 'done')", "SELECT 1"),
            (
                "CREATE SCHEMA other CREATE TABLE saga_inbox (key int UNIQUE DEFERRABLE INITIALLY DEFERRED)",
                "INSERT INTO other.saga_inbox VALUES (1), (1)",
            ),
        ],
        ids=["on the inbox", "looked at last, on a table that bears its name"],
    )
    def test_a_constraint_of_the_services_own_is_no_lost_race(
        self, inbox: Inbox, there: InSql, makes: str, breaks: str
    ) -> None:
        with there.engine.begin() as connection:
            connection.execute(text(makes))

        try:
            with pytest.raises(IntegrityError):  # who has lost a race would decide anew, without end
                self._in_turn(inbox, breaks)
        finally:
            with there.engine.begin() as connection:
                connection.execute(text("ALTER TABLE saga_inbox DROP CONSTRAINT IF EXISTS never"))
                connection.execute(text("DROP SCHEMA IF EXISTS other CASCADE"))

        assert read(inbox) is None

    def test_a_row_may_be_saved_twice_in_a_turn(self, inbox: Inbox) -> None:
        put(inbox, a_row(state=RowState.FAILED))

        with inbox.turn(KEY, NOON) as turn:
            turn.save(a_row(state=RowState.DONE))
            turn.save(a_row(state=RowState.UNDONE))

        assert read(inbox) == a_row(state=RowState.UNDONE)

    def test_an_operation_that_another_has_is_left_out_of_a_batch_at_once(self, batches: BatchInbox) -> None:
        def other() -> None:
            with batches.turns(["a", "held"], NOON) as turns:
                assert turns.get("held") is None
                held(turns, "a").save(a_row("a"))

        with batches.turn("held", NOON):
            in_thread(other).result(BOUNDED)

        assert read(batches, "a") == a_row("a")

    def test_waiting_for_a_lock_for_too_long_is_unavailable(self, inbox: Inbox, there: InSql) -> None:
        with there.engine.begin() as holder:
            holder.execute(text("LOCK TABLE work"))

            with pytest.raises(StoreUnavailable):
                self._in_turn(inbox, "SET LOCAL lock_timeout = '20ms'", "SELECT * FROM work")

        assert read(inbox) is None

    def test_a_deadlock_is_unavailable(self, inbox: Inbox, there: InSql) -> None:
        with there.engine.begin() as connection:
            connection.execute(text("INSERT INTO work (value) VALUES ('a'), ('b')"))
        one, other = (f"UPDATE work SET value = value WHERE value = '{name}'" for name in "ab")

        with there.engine.begin() as holder:
            holder.execute(text("SET LOCAL deadlock_timeout = '1h'"))  # so that not this one is the victim
            holder.execute(text(other))
            handler = in_thread(
                lambda: self._in_turn(inbox, "SET LOCAL deadlock_timeout = '500ms'", one, other)
            )
            wait_until(lambda: self._waiting(there) == 1, "the handler waits", BOUNDED)
            holder.execute(text(one))

        with pytest.raises(StoreUnavailable):
            handler.result(BOUNDED)
        assert read(inbox) is None

    def test_a_serialization_failure_is_unavailable(self, there: InSql) -> None:
        inbox = SqlInbox(there.engine.execution_options(isolation_level="REPEATABLE READ"))
        with there.engine.begin() as connection:
            connection.execute(text("INSERT INTO work (value) VALUES ('a')"))

        def handle() -> None:
            with inbox.turn(KEY, NOON) as turn:
                with there.engine.begin() as other:
                    other.execute(text("UPDATE work SET value = 'b'"))
                session = turn.session()
                assert session is not None
                session.execute(text("UPDATE work SET value = 'c'"))

        with pytest.raises(StoreUnavailable):
            handle()

        assert there.worked() == ["b"]

    @pytest.mark.parametrize(
        ("sqlstate", "why"),
        [
            ("53100", "disk full"),
            ("53300", "too many connections"),
            ("57P01", "the server is shut down"),
            ("57014", "statement timeout"),
            ("25006", "a standby after a failover"),
            ("40001", "serialization failure"),
        ],
    )
    def test_a_server_that_cannot_now_is_unavailable(
        self, inbox: Inbox, there: InSql, sqlstate: str, why: str
    ) -> None:
        with raising(there, sqlstate, why), pytest.raises(StoreUnavailable, match=why):
            self._in_turn(inbox, "INSERT INTO work (value) VALUES ('x')")

        assert read(inbox) is None
        assert there.worked() == []

    @pytest.mark.parametrize("sqlstate", ["23514", "22003", "P0001", "42501"])
    def test_a_server_that_says_no_is_not_unavailable(
        self, inbox: Inbox, there: InSql, sqlstate: str
    ) -> None:
        with raising(there, sqlstate, "no"), pytest.raises(Exception, match="no") as raised:
            self._in_turn(inbox, "INSERT INTO work (value) VALUES ('x')")

        assert not isinstance(raised.value, StoreUnavailable)

    def test_a_handler_that_swallows_an_error_of_the_database_cannot_succeed(
        self, inbox: Inbox, there: InSql
    ) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            there.work(session, "twice")
            with pytest.raises(IntegrityError):
                there.work(session, "twice")
            with pytest.raises(InternalError, match="aborted") as raised:
                turn.finish_work()
            turn.undo_work()
            turn.save(a_row(state=RowState.FAILED))

        assert not is_unavailable(raised.value)
        assert read(inbox) == a_row(state=RowState.FAILED)
        assert there.worked() == []

    def test_a_connection_that_is_cut_in_a_turn_is_unavailable(self, inbox: Inbox, there: InSql) -> None:
        def handle() -> None:
            with inbox.turn(KEY, NOON) as turn:
                session = turn.session()
                assert session is not None
                there.work(session, "ticket")
                pid = session.execute(text("SELECT pg_backend_pid()")).scalar_one()
                with there.engine.begin() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": pid})
                turn.finish_work()
                turn.save(a_row())

        with pytest.raises(StoreUnavailable):
            handle()

        assert read(inbox) is None
        assert there.worked() == []

    @staticmethod
    def _in_turn(inbox: Inbox, *statements: str) -> None:
        with inbox.turn(KEY, NOON) as turn:
            session = turn.session()
            assert session is not None
            for statement in statements:
                session.execute(text(statement))
            turn.save(a_row())

    @staticmethod
    def _waiting(there: InSql) -> int:
        """How many sessions wait for a lock."""
        with reading(there.engine) as connection:
            return (
                connection.scalar(
                    text(
                        "SELECT count(*) FROM pg_stat_activity "
                        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
                    )
                )
                or 0
            )


class TestRedisInbox(InboxContract):
    @pytest.fixture
    def there(self, redis_url: str) -> Iterator[InRedis]:
        inbox = RedisInbox(redis_url)
        yield InRedis(inbox)
        inbox.close()

    def inbox_in(self, there: InRedis) -> Inbox:
        return there.inbox

    def test_it_says_that_work_and_row_do_not_commit_together(self, inbox: Inbox) -> None:
        assert not inbox.transactional

    def test_it_has_no_session(self, inbox: Inbox) -> None:
        with inbox.turn(KEY, NOON) as turn:
            assert turn.session() is None

    def test_beats_of_processes_long_gone_are_forgotten(self, there: InRedis) -> None:
        the_beats_of_processes_long_gone_are_forgotten_when_a_new_one_begins(there.inbox, there)

    def test_a_row_can_be_read_without_a_turn(self, there: InRedis) -> None:
        put(there.inbox, a_row())

        assert there.inbox.read_row(KEY) == a_row()
        assert there.inbox.read_row("another") is None

    def test_a_row_expires_after_the_retention(self, redis_url: str) -> None:
        inbox = RedisInbox(redis_url, retention=timedelta(days=3))
        put(inbox, a_row())

        with Redis.from_url(redis_url) as client:
            left = client.pttl(f"saga_inbox:row:{KEY}")
        inbox.close()

        day = 24 * 3600 * 1000
        assert 3 * day - 60_000 < left <= 3 * day

    def test_a_row_that_expired_in_a_turn_is_a_lost_race(self, redis_url: str, inbox: Inbox) -> None:
        put(inbox, a_row(state=RowState.FAILED))

        def handle() -> None:
            with Redis.from_url(redis_url) as client, inbox.turn(KEY, NOON) as turn:
                client.delete(f"saga_inbox:row:{KEY}")
                turn.save(a_row())

        with pytest.raises(LostRace):
            handle()
        assert read(inbox) is None

    def test_forgetting_clears_up_after_rows_that_expired(self, redis_url: str, inbox: Inbox) -> None:
        put(inbox, a_row())
        with Redis.from_url(redis_url) as client:
            client.delete(f"saga_inbox:row:{KEY}")
            inbox.forget(after(1))

            assert client.keys("*") == []

    def test_two_services_share_a_redis_by_their_prefixes(self, redis_url: str) -> None:
        one, other = (RedisInbox(redis_url, prefix=f"{name}:") for name in ("one", "other"))
        put(one, a_row())
        one.quarantine(messages(1)[0])
        one.beat(Beat("w", "participant", NOON, NOON))

        assert read(other) is None
        assert other.read_quarantine() == []
        assert other.read_beats() == []
        assert other.forget(after(1)) == 0
        assert read(one) == a_row()
        one.close()
        other.close()

    def test_a_message_is_dropped_from_the_quarantine_for_good(self, there: InRedis) -> None:
        inbox = there.inbox
        for message in messages(2):
            inbox.quarantine(message)
        inbox.ask_replay(1, "ada")

        assert inbox.drop_quarantined(1)
        assert not inbox.drop_quarantined(1)

        assert not inbox.ask_replay(1, "ada")
        inbox.replay(never)
        assert [message.id for message in inbox.read_quarantine(message_id=2)] == [2]
        assert inbox.read_quarantine(message_id=1) == []

    @pytest.mark.parametrize("trouble", [None, "unsent"])
    def test_a_message_that_is_dropped_while_it_is_sent_again_is_gone(
        self, there: InRedis, trouble: str | None
    ) -> None:
        inbox = there.inbox
        inbox.quarantine(messages(1)[0])
        inbox.ask_replay(1, "ada")

        inbox.replay(Sender(trouble, meanwhile=lambda: inbox.drop_quarantined(1)))

        assert inbox.read_quarantine() == []
        inbox.replay(never)

    def test_a_server_that_is_away_is_unavailable(self) -> None:
        inbox = RedisInbox("redis://127.0.0.1:1/0")

        with pytest.raises(StoreUnavailable), inbox.turn(KEY, NOON):
            pytest.fail("connected")
        with pytest.raises(StoreUnavailable):
            inbox.quarantine(messages(1)[0])
        with pytest.raises(StoreUnavailable):
            inbox.forget(NOON)
        with pytest.raises(StoreUnavailable):
            inbox.replay(never)
        with pytest.raises(StoreUnavailable):
            inbox.beat(Beat("w", "participant", NOON, NOON))

    def test_an_address_that_cannot_be_read_is_refused_with_the_password_masked(self) -> None:
        with pytest.raises(ConfigurationError, match=r"redis://:password@host:6379/0") as raised:
            RedisInbox("http://user:secret@127.0.0.1/0")

        assert "secret" not in str(raised.value)
        assert "user:***@127.0.0.1" in str(raised.value)

    def test_without_redis_py_the_message_names_the_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "redis", None)

        with pytest.raises(ConfigurationError, match=r"pip install 'sagas-framework\[redis\]'"):
            RedisInbox("redis://127.0.0.1")
