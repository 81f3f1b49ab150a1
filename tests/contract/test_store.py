"""What every store promises the orchestrator, and what a database adds to it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sagas_framework.core.events import Act, Recorded
from sagas_framework.core.ids import Kind
from sagas_framework.core.instance import (
    Cause,
    Flight,
    Intent,
    Outcome,
    OutcomeKind,
    Phase,
    SagaInstance,
    Status,
    StepRecord,
    Waiting,
)
from sagas_framework.core.why import QueueSeen
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.memory import MemoryStore
from sagas_framework.storage.ports import (
    ActRow,
    Ahead,
    Beat,
    Became,
    Entangled,
    Quarantined,
    SignalAnswer,
    SignalRow,
    Store,
    StoreTransaction,
    StoreUnavailable,
)
from sagas_framework.storage.sql import SqlStore, write_beat
from tests.contract.looking import (
    BOUNDED,
    NOON,
    Database,
    InMemory,
    InSql,
    after,
    an_instance,
    in_thread,
    messages,
    postgres_database,
    saga_id,
    sqlite_database,
)
from tests.contract.replaying import ReplayContract, Sender
from tests.servers import wait_until


class Base(DeclarativeBase):
    pass


class Work(Base):
    """A row of what local steps do; see `InSql`."""

    __tablename__ = "work"

    value: Mapped[str] = mapped_column(primary_key=True)
    note: Mapped[str | None]


MINE = [("create_order", 1)]
A_LINE = Recorded(NOON, "step.running", "step")


class Stop(Exception):
    """Leaves a block the bad way."""


def never(messages: Sequence[Quarantined]) -> list[str | None]:
    raise AssertionError(f"given {messages}")


def an_act(name: str, act: Act = Act.RETRY, **changes: Any) -> ActRow:
    values: dict[str, Any] = {"by": "ada", "reason": "it was our fault", "created_at": NOON}
    return ActRow(0, saga_id(name), act, **(values | changes))


def write(store: Store, *instances: SagaInstance) -> None:
    with store.transaction() as tx:
        tx.write(instances, [])


def ids_due(store: Store, now: datetime) -> list[str]:
    """The ids of what is due, though none is decided."""
    with store.transaction() as tx:
        return [instance.id for instance in tx.lock_due(now, MINE, 10)]


def read(store: Store, *names: str) -> dict[str, SagaInstance]:
    with store.transaction() as tx:
        return tx.lock([saga_id(name) for name in names])


def answer_and_stop(tx: StoreTransaction, signal: SignalRow) -> None:
    tx.answer_signals([SignalAnswer(signal.id, Became.TAKEN)], NOON)
    raise Stop


def a_signal(name: str, said_id: str = "1") -> SignalRow:
    return SignalRow(
        0, "create_order", f"order-{name}", said_id, "approval", {"approved": True}, NOON, "ann", NOON
    )


class StoreContract(ReplayContract, ABC):
    """What every Store promises. Subclass it with a fixture `there`."""

    @pytest.fixture
    def store(self, there: Database) -> Store:
        return self.store_in(there)

    @pytest.fixture
    def keeper(self, store: Store) -> Store:
        return store

    @abstractmethod
    def store_in(self, there: Any) -> Store: ...

    # ---- signals ------------------------------------------------------------------------------------

    def test_signals_of_a_saga_and_key_come_in_the_order_of_storing(
        self, store: Store, there: Database
    ) -> None:
        said = [there.say(a_signal("a", id_)) for id_ in ("1", "2", "3")]
        there.say(a_signal("b"))

        with store.transaction() as tx:
            found = tx.open_signals([("create_order", "order-a")])

        assert found == said
        assert found[0].payload == {"approved": True}

    def test_a_signal_that_comes_again_under_its_id_is_the_first_one(self, there: Database) -> None:
        first = there.say(a_signal("a", "1"))

        again = there.say(replace(a_signal("a", "1"), said_at=after(5)))

        assert again == first
        assert there.signals() == [first]
        assert there.say(a_signal("b", "1")) != first

    def test_a_signal_is_new_until_it_was_looked_at(self, store: Store, there: Database) -> None:
        there.seed(replace(an_instance("a"), key="order-a"))
        mine = there.say(a_signal("a"))
        stray = there.say(a_signal("b"))
        there.say(replace(a_signal("c"), saga="nobodys"))
        later = there.say(replace(a_signal("d"), look_at=after(60)))

        with store.transaction() as tx:
            new = tx.new_signals(NOON, MINE, 10)
            of_another_version = tx.new_signals(NOON, [("create_order", 2)], 10)
            tx.answer_signals([SignalAnswer(stray.id, Became.KEPT)], NOON)
        with store.transaction() as tx:
            after_that = tx.new_signals(after(60), MINE, 10)
            one = tx.new_signals(after(60), MINE, 1)

        assert new == [(mine.id, saga_id("a")), (stray.id, None)]
        assert of_another_version == [(stray.id, None)]
        assert after_that == [(mine.id, saga_id("a")), (later.id, None)]
        assert one == after_that[:1]

    def test_an_answer_to_a_signal_is_kept_and_never_changed(self, store: Store, there: Database) -> None:
        one, two = there.say(a_signal("a", "1")), there.say(a_signal("a", "2"))

        with store.transaction() as tx:
            tx.answer_signals(
                [SignalAnswer(one.id, Became.TAKEN), SignalAnswer(two.id, Became.TOO_LATE, "over")], after(1)
            )
        with store.transaction() as tx:
            left = tx.open_signals([("create_order", "order-a")])
            tx.answer_signals([SignalAnswer(one.id, Became.KEPT)], after(2))

        assert left == []
        assert there.signals() == [
            replace(one, became=Became.TAKEN, look_at=None, handled_at=after(1)),
            replace(two, became=Became.TOO_LATE, answer="over", look_at=None, handled_at=after(1)),
        ]

    def test_a_signal_that_could_not_be_decided_is_new_again_later(
        self, store: Store, there: Database
    ) -> None:
        one = there.say(a_signal("a"))

        with store.transaction() as tx:
            tx.answer_signals([SignalAnswer(one.id, Became.STORED, "not yet", after(60))], NOON)

        with store.transaction() as tx:
            assert tx.new_signals(after(59), MINE, 10) == []
            assert tx.new_signals(after(60), MINE, 10) == [(one.id, None)]

    def test_what_is_rolled_back_answers_no_signal(self, store: Store, there: Database) -> None:
        one = there.say(a_signal("a"))

        with pytest.raises(Stop), store.transaction() as tx:
            answer_and_stop(tx, one)

        assert there.signals() == [one]

    def test_old_signals_go_but_not_those_that_a_saga_may_take(self, store: Store, there: Database) -> None:
        there.seed(replace(an_instance("a"), key="order-a"))
        kept, stray = there.say(a_signal("a", "kept")), there.say(a_signal("b"))
        taken = there.say(a_signal("a", "taken"))
        young = there.say(replace(a_signal("c"), said_at=after(10)))
        with store.transaction() as tx:
            tx.answer_signals([SignalAnswer(taken.id, Became.TAKEN)], NOON)

        gone = store.forget_signals(after(5))

        assert gone == 2
        assert stray not in there.signals()
        assert there.signals() == [kept, young]

    # ---- instances ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("others", ["", "bc"])
    def test_an_instance_comes_back_as_it_was_written(
        self, store: Store, there: Database, others: str
    ) -> None:
        there.seed(*map(an_instance, "a" + others))
        neighbours = [an_instance(name, revision=7, state={"name": name}) for name in others]
        flight = Flight(
            Kind.UNDO,
            3,
            "message-id",
            "service.task",
            "service.commands",
            sent_at=after(1),
            since=after(0.5),
            check_at=after(11.25),
            resends=2,
            pauses=1,
            payload={"amount": "10.50", "items": [1, None, {"dish": "Crème brûlée"}]},
            hand_over=True,
        )
        turning = Outcome(OutcomeKind.EXPIRED, "Timeout", "no answer", "first")
        full = StepRecord(
            "first",
            Phase.COMPENSATING,
            attempts=2,
            tries=3,
            settles=1,
            flight=flight,
            first_sent_at=after(1),
            deadline=after(300),
            resume_at=after(5),
            known=True,
            parked="nobody knows",
            error={"type": "Oops", "message": "no", "module": "m"},
            request={"a": 1},
            reply={"b": [True, 2.5]},
            intent=Intent("complete", "ada", "by phone", {"b": 1}),
            turning=turning,
        )
        written = an_instance(
            "a",
            status=Status.PARKED,
            outcome=turning,
            state={"nested": {"text": "naïve \U0001f355", "nothing": None, "list": []}, "int": 2**40},
            updated_at=after(2.000001),
            steps={"first": full, "second": StepRecord("second")},
            revision=41,
            started=True,
            ended_at=after(3),
            due_at=after(4),
            waiting=Waiting(Cause.PERSON, "first", after(1.5)),
        )

        with store.transaction() as tx:
            tx.write([written, *neighbours], [])

        with store.transaction() as tx:
            read = tx.lock([written.id])[written.id]
        assert read == written
        assert [there.instance(one.id) for one in neighbours] == neighbours
        assert list(read.steps) == ["first", "second"]

    @pytest.mark.parametrize("others", ["", "bc"])
    def test_what_may_be_missing_comes_back_as_none(self, store: Store, there: Database, others: str) -> None:
        there.seed(
            *map(an_instance, others),
            an_instance(
                "a",
                due=after(1),
                outcome=Outcome(OutcomeKind.OK),
                ended_at=after(2),
                waiting=Waiting(Cause.START, "", NOON),
            ),
        )
        empty = an_instance("a", state={})

        with store.transaction() as tx:
            tx.write([*map(an_instance, others), empty], [])

        assert there.instance(saga_id("a")) == empty

    def test_unknown_ids_are_left_out(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            found = tx.lock([saga_id("nobody"), saga_id("a")])
            nothing = tx.lock([])

        assert list(found) == [saga_id("a")]
        assert nothing == {}

    def test_what_was_written_in_a_transaction_is_seen_in_it(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            tx.write([an_instance("a", revision=5)], [])
            assert tx.lock([saga_id("a")])[saga_id("a")].revision == 5

    def test_an_error_leaves_nothing_behind(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))
        act = there.add_act(an_act("a"))

        def everything() -> None:
            with store.transaction() as tx:
                tx.write([an_instance("a", revision=5)], [(saga_id("a"), 5, A_LINE)])
                tx.quarantine(messages(1))
                tx.answer_act(act.id, "done", refused=False, at=NOON)
                with tx.savepoint() as session:
                    there.work(session, "local step")
                raise Stop

        with pytest.raises(Stop):
            everything()

        assert there.instance(saga_id("a")) == an_instance("a")
        assert there.history(saga_id("a")) == []
        assert there.quarantined() == []
        assert there.act(act.id) == act
        assert there.worked() == []

    # ---- what is due --------------------------------------------------------------------------------

    def test_due_instances_come_earliest_first_and_no_more_than_asked_for(
        self, store: Store, there: Database
    ) -> None:
        there.seed(*(an_instance(str(n), due=after(10 - n)) for n in range(5)))

        with store.transaction() as tx:
            due = tx.lock_due(after(9), MINE, 3)

        assert [instance.id for instance in due] == [saga_id("4"), saga_id("3"), saga_id("2")]

    def test_only_what_is_due_by_now_is_due(self, store: Store, there: Database) -> None:
        there.seed(
            an_instance("now", due=after(1)),
            an_instance("later", due=after(1.001)),
            an_instance("never", due=None),
        )

        with store.transaction() as tx:
            due = tx.lock_due(after(1), MINE, 10)

        assert [instance.id for instance in due] == [saga_id("now")]

    def test_sagas_and_versions_that_this_process_does_not_know_are_left_to_others(
        self, store: Store, there: Database
    ) -> None:
        there.seed(
            an_instance("mine", due=after(3)),
            an_instance("newer", due=after(2), version=2),
            an_instance("other", due=after(1), saga="refund"),
        )

        with store.transaction() as tx:
            mine = tx.lock_due(after(9), MINE, 10)
            two = tx.lock_due(after(9), [("create_order", 2), ("refund", 1)], 10)
            crossed = tx.lock_due(after(9), [("refund", 2)], 10)

        assert [instance.id for instance in mine] == [saga_id("mine")]
        assert [instance.id for instance in two] == [saga_id("other"), saga_id("newer")]
        assert crossed == []
        assert store.next_due(MINE) == after(3)
        assert store.next_due([("create_order", 1), ("refund", 1)]) == after(1)

    def test_a_process_that_knows_no_saga_is_given_none(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a", due=after(1)))

        with store.transaction() as tx:
            due = tx.lock_due(after(9), [], 10)

        assert due == []
        assert store.next_due([]) is None

    def test_nothing_is_due_next_when_every_saga_waits(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a", due=None))

        assert store.next_due(MINE) is None

    def test_a_look_ahead_tells_when_something_is_due_and_what_people_wait_for(
        self, store: Store, there: Database
    ) -> None:
        assert store.ahead(MINE) == Ahead(due=None, acts=False, signals=False, replays=False)
        there.seed(an_instance("mine", due=after(3)), an_instance("other", due=after(1), saga="refund"))
        asked = there.add_act(an_act("mine"))
        there.say(a_signal("mine"))
        store.quarantine(messages(1)[0])

        before = store.ahead(MINE)
        with store.transaction() as tx:
            tx.answer_act(asked.id, "done", refused=False, at=NOON)
        there.ask_replay(1, "ada")
        then = store.ahead(MINE)

        assert before == Ahead(after(3), acts=True, signals=True, replays=False)
        assert then == Ahead(after(3), acts=False, signals=True, replays=True)
        assert store.ahead([]) == Ahead(None, acts=False, signals=True, replays=True)

    def test_an_instance_whose_moment_was_moved_is_due_then(self, store: Store, there: Database) -> None:
        there.seed(an_instance("later", due=after(10)), an_instance("sooner", due=after(10)))
        moved = {"later": after(20), "sooner": after(5), "again": after(30)}

        write(
            store, *(an_instance(name, due=moved[name], updated_at=after(1)) for name in ("later", "sooner"))
        )
        due = [ids_due(store, after(second)) for second in (4, 5, 19, 20)]
        write(store, an_instance("later", due=moved["again"], updated_at=after(20)))

        assert due == [[], [saga_id("sooner")], [saga_id("sooner")], [saga_id("sooner"), saga_id("later")]]
        assert ids_due(store, after(29)) == [saga_id("sooner")]
        write(store, an_instance("sooner", due=None, updated_at=after(29)))
        assert ids_due(store, after(29)) == []
        assert store.next_due(MINE) == after(30)

    def test_two_timekeepers_are_never_given_the_same_instance(self, store: Store, there: Database) -> None:
        there.seed(*(an_instance(str(n), due=after(n)) for n in range(4)))
        begun = threading.Event()

        def other() -> list[str]:
            begun.set()
            with store.transaction() as tx:
                due = tx.lock_due(after(9), MINE, 2)
                tx.write([replace(instance, due_at=after(100)) for instance in due], [])
                return [instance.id for instance in due]

        with store.transaction() as tx:
            due = tx.lock_due(after(9), MINE, 2)
            second = in_thread(other)
            begun.wait(BOUNDED)
            tx.write([replace(instance, due_at=after(100)) for instance in due], [])

        assert sorted([*(i.id for i in due), *second.result(BOUNDED)]) == sorted(
            saga_id(str(n)) for n in range(4)
        )

    # ---- what is remembered -------------------------------------------------------------------------

    remembers = True
    """Whether the store knows what it wrote; if not, everybody locks."""

    def test_what_was_written_is_remembered_and_can_be_swapped(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))
        assert store.remembered(saga_id("a")) is None
        written, changed = an_instance("a", revision=1), an_instance("a", revision=2, state={"n": 2})
        write(store, written)

        before = store.remembered(saga_id("a"))
        assert before == (written if self.remembers else None)
        swapped = store.swap(written if before is None else before, changed, [(saga_id("a"), 2, A_LINE)])

        assert swapped is self.remembers
        assert there.instance(saga_id("a")) == (changed if swapped else written)
        assert [line.recorded for line in there.history(saga_id("a"))] == ([A_LINE] if swapped else [])
        assert store.remembered(saga_id("a")) == (changed if swapped else None)

    def test_what_another_process_wrote_since_is_not_swapped(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1))
        before = store.remembered(saga_id("a")) or an_instance("a", revision=1)

        write(self.store_in(there), an_instance("a", revision=2))
        swapped = store.swap(
            before, an_instance("a", revision=2, state={"n": 2}), [(saga_id("a"), 2, A_LINE)]
        )

        assert not swapped
        assert there.instance(saga_id("a")) == an_instance("a", revision=2)
        assert there.history(saga_id("a")) == []

    def test_a_swap_has_one_winner(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1))
        before = store.remembered(saga_id("a")) or an_instance("a", revision=1)

        both = [store.swap(before, an_instance("a", revision=2), [(saga_id("a"), 2, A_LINE)]) for _ in "12"]

        assert both == [self.remembers, False]
        assert len(there.history(saga_id("a"))) == sum(both)

    def test_an_instance_that_has_ended_is_forgotten(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"), an_instance("b"))
        write(store, an_instance("a", revision=1), an_instance("b", status=Status.COMPLETED))
        assert store.remembered(saga_id("b")) is None
        if (before := store.remembered(saga_id("a"))) is not None:
            assert store.swap(before, replace(before, status=Status.COMPLETED), [])

        assert store.remembered(saga_id("a")) is None

    # ---- locks --------------------------------------------------------------------------------------

    def test_whoever_waits_for_a_lock_then_sees_what_its_holder_wrote(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"))
        begun = threading.Event()

        def second() -> int:
            begun.set()
            with store.transaction() as tx:
                found = tx.lock([saga_id("a")])[saga_id("a")]
                tx.write([replace(found, revision=found.revision + 1)], [])
                return found.revision

        with store.transaction() as tx:
            tx.lock([saga_id("a")])
            waiting = in_thread(second)
            begun.wait(BOUNDED)
            waited = not waiting.done()
            tx.write([an_instance("a", revision=7)], [])

        assert waited
        assert waiting.result(BOUNDED) == 7
        instance = there.instance(saga_id("a"))
        assert instance is not None
        assert instance.revision == 8

    def test_batches_that_name_the_same_sagas_in_other_orders_never_block_each_other_for_good(
        self, store: Store, there: Database
    ) -> None:
        names = [str(n) for n in range(20)]
        there.seed(*(an_instance(name) for name in names))
        gate = threading.Barrier(4)

        def process(backwards: bool) -> None:
            gate.wait(BOUNDED)
            for _ in range(10):
                with store.transaction() as tx:
                    ids = [saga_id(name) for name in (reversed(names) if backwards else names)]
                    found = tx.lock(ids)
                    tx.write([replace(found[i], revision=found[i].revision + 1) for i in ids], [])

        running = [in_thread(lambda n=n: process(n % 2 == 0)) for n in range(4)]  # type: ignore[misc]

        for one in running:
            one.result(BOUNDED)
        assert {there.instance(saga_id(n)).revision for n in names} == {40}  # type: ignore[union-attr]

    # ---- versions -----------------------------------------------------------------------------------

    def test_the_open_instances_of_some_versions_come_in_the_order_of_ids(
        self, store: Store, there: Database
    ) -> None:
        mine = [
            an_instance(name, version=version) for name, version in zip("abcd", (1, 2, 1, 3), strict=True)
        ]
        ended = [
            an_instance("completed", status=Status.COMPLETED),
            an_instance("compensated", status=Status.COMPENSATED),
        ]
        there.seed(*mine, *ended, an_instance("other", saga="refund"))

        with store.transaction() as tx:
            found = tx.lock_open("create_order", [1, 2])
            nothing = tx.lock_open("create_order", [])

        assert [one.id for one in found] == sorted(saga_id(name) for name in "abc")
        assert nothing == []

    def test_an_instance_is_moved_to_another_version_with_a_line_of_history(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"), an_instance("b"))
        moved = an_instance(
            "a",
            version=2,
            shape="fedcba9876543210",
            revision=1,
            steps={"new": StepRecord("new", Phase.RUNNING, known_as="old")},
        )

        with store.transaction() as tx:
            tx.move([moved], [(moved.id, 1, A_LINE)])

        assert there.instance(moved.id) == moved
        assert [(line.revision, line.recorded) for line in there.history(moved.id)] == [(1, A_LINE)]
        assert there.instance(saga_id("b")) == an_instance("b")

    def test_what_was_moved_is_as_it_was_if_the_transaction_fails(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"))

        def leave(tx: StoreTransaction) -> None:
            tx.move([an_instance("a", version=2)], [(saga_id("a"), 1, A_LINE)])
            raise Stop

        with pytest.raises(Stop), store.transaction() as tx:
            leave(tx)

        assert there.instance(saga_id("a")) == an_instance("a")
        assert there.history(saga_id("a")) == []

    # ---- history ------------------------------------------------------------------------------------

    def test_history_is_read_in_the_order_in_which_it_was_written(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"), an_instance("b"))
        # Times that run backwards: the order is that of writing.
        lines = [Recorded(after(-n), f"entry {n}", detail=MappingProxyType({"n": n})) for n in range(6)]

        with store.transaction() as tx:
            tx.write(
                [], [(saga_id("a"), 1, lines[0]), (saga_id("b"), 1, lines[1]), (saga_id("a"), 2, lines[2])]
            )
        with store.transaction() as tx:
            tx.write([], [(saga_id("a"), 2, lines[3])])
            tx.write([], [(saga_id("a"), 3, replace(lines[4], step="pay"))])

        history = there.history(saga_id("a"))
        assert [line.recorded.entry for line in history] == ["entry 0", "entry 2", "entry 3", "entry 4"]
        assert [line.revision for line in history] == [1, 2, 2, 3]
        assert [line.seq for line in history] == sorted({line.seq for line in history})
        assert history[-1].recorded.at == after(-4)
        assert history[-1].recorded.step == "pay"
        assert dict(history[-1].recorded.detail) == {"n": 4}
        assert history[0].recorded.step is None

    # ---- local steps --------------------------------------------------------------------------------

    def test_what_a_local_step_did_commits_with_the_row(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            with tx.savepoint() as session:
                there.work(session, "approved")
            tx.write([an_instance("a", revision=1)], [])

        assert there.worked() == ["approved"]

    def test_what_a_failed_local_step_did_is_rolled_back_alone(self, store: Store, there: Database) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            with tx.savepoint() as session:
                there.work(session, "before")
            with pytest.raises(Stop):
                self._fail(tx, there)
            with tx.savepoint() as session:
                there.work(session, "next")
            tx.write([an_instance("a", revision=1)], [])

        assert there.worked() == ["before", "next"]
        assert there.instance(saga_id("a")) == an_instance("a", revision=1)

    @staticmethod
    def _fail(tx: Any, there: Database) -> None:
        with tx.savepoint() as session:
            there.work(session, "failed")
            raise Stop

    def test_what_local_steps_did_in_the_session_that_they_share_commits_with_the_rows(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            with tx.sharing() as session:
                there.work(session, "one")
            with tx.sharing() as session:
                there.work(session, "two")
            tx.write([an_instance("a", revision=1)], [])

        assert sorted(there.worked()) == ["one", "two"]
        assert there.instance(saga_id("a")) == an_instance("a", revision=1)

    def test_nobody_can_tell_what_one_did_of_those_who_share_a_session(
        self, store: Store, there: Database
    ) -> None:
        there.seed(an_instance("a"))

        def transaction() -> None:
            with store.transaction() as tx:
                tx.write([an_instance("a", revision=1)], [])
                with tx.sharing() as session:
                    there.work(session, "one")
                with tx.sharing() as session:
                    there.work(session, "two")
                    raise Stop

        with pytest.raises(Entangled):
            transaction()

        assert there.worked() == []
        assert there.instance(saga_id("a")) == an_instance("a")

    def test_a_failed_step_with_a_savepoint_leaves_alone_what_others_share(
        self, store: Store, there: Database
    ) -> None:
        with store.transaction() as tx:
            with tx.sharing() as session:
                there.work(session, "before")
            with pytest.raises(Stop):
                self._fail(tx, there)
            with tx.sharing() as session:
                there.work(session, "next")

        assert there.worked() == ["before", "next"]

    # ---- operators' acts ----------------------------------------------------------------------------

    def test_acts_come_back_as_they_were_written_oldest_first(self, store: Store, there: Database) -> None:
        acts = [
            there.add_act(an_act("a", Act.COMPLETE, revision=3, step="pay", reply={"id": 1}, force=True)),
            there.add_act(an_act("b", Act.CANCEL)),
            there.add_act(an_act("c", Act.SKIP)),
        ]

        with store.transaction() as tx:
            first = tx.lock_acts(2)

        assert first == acts[:2]

    def test_an_act_is_answered_once(self, store: Store, there: Database) -> None:
        done = there.add_act(an_act("a"))
        refused = there.add_act(an_act("b"))

        with store.transaction() as tx:
            tx.lock_acts(10)
            tx.answer_act(done.id, "retrying", refused=False, at=after(1))
            tx.answer_act(refused.id, "it has ended", refused=True, at=after(2))

        with store.transaction() as tx:
            assert tx.lock_acts(10) == []
        assert there.act(done.id) == replace(done, answer="retrying", handled_at=after(1))
        assert there.act(refused.id) == replace(
            refused, answer="it has ended", refused=True, handled_at=after(2)
        )

    def test_two_timekeepers_never_handle_the_same_act(self, store: Store, there: Database) -> None:
        for name in ("a", "b", "c"):
            there.add_act(an_act(name))
        begun = threading.Event()

        def take() -> list[int]:
            begun.set()
            with store.transaction() as tx:
                taken = [act.id for act in tx.lock_acts(10)]
                for act_id in taken:
                    tx.answer_act(act_id, "done", refused=False, at=NOON)
                return taken

        with store.transaction() as tx:
            mine = [act.id for act in tx.lock_acts(2)]
            other = in_thread(take)
            begun.wait(BOUNDED)
            for act_id in mine:
                tx.answer_act(act_id, "done", refused=False, at=NOON)

        assert sorted([*mine, *other.result(BOUNDED)]) == [1, 2, 3]

    # ---- quarantine and beats -----------------------------------------------------------------------

    def test_messages_set_aside_come_back_as_they_were(self, store: Store, there: Database) -> None:
        first, second, third = messages(3)

        store.quarantine(first)
        with store.transaction() as tx:
            tx.quarantine([second, replace(third, saga_id=None)])
            tx.quarantine([])

        assert there.quarantined() == [
            replace(third, id=3, saga_id=None),
            replace(second, id=2),
            replace(first, id=1),
        ]

    def test_a_message_with_anything_in_it_can_be_set_aside(self, store: Store, there: Database) -> None:
        # What cannot be stored would come again for ever.
        anything = Quarantined(
            queue="q" * 300,
            task="t\x00" * 300,
            headers={
                "when": NOON,
                "much": Decimal("1.5"),
                "raw": b"\xff",
                "nul\x00": "\x00",
                "half": "\ud800",
            },
            properties={"timestamp": NOON, "id": UUID(int=1)},
            body="\x00 \ud800",
            reason="r\x00",
            at=NOON,
            path="$." + "p" * 300,
            saga_id="s" * 100,
        )

        store.quarantine(anything)
        with store.transaction() as tx:
            tx.quarantine([anything])

        assert [message.task[:1] for message in there.quarantined()] == ["t", "t"]

    def test_a_beat_replaces_the_one_before(self, store: Store, there: Database) -> None:
        store.beat(Beat("w1", "timekeeper", NOON, after(1), "3 sagas"))
        store.beat(Beat("w1", "replies", NOON, after(1)))
        store.beat(Beat("w0", "timekeeper", NOON, after(1)))

        store.beat(Beat("w1", "timekeeper", after(5), after(9), "none"))

        assert there.beats() == [
            Beat("w0", "timekeeper", NOON, after(1)),
            Beat("w1", "replies", NOON, after(1)),
            Beat("w1", "timekeeper", after(5), after(9), "none"),
        ]

    # ---- queues -------------------------------------------------------------------------------------

    def test_queues_come_back_as_they_were_last_seen(self, store: Store, there: Database) -> None:
        store.note_queues([QueueSeen("b", NOON, 7, 2), QueueSeen("a", NOON, 0), QueueSeen("c", NOON, 1, 0)])

        store.note_queues([QueueSeen("b", after(2), 9, 3)])
        store.note_queues([])

        assert there.queues() == {
            "a": QueueSeen("a", NOON, 0, None, None),
            "b": QueueSeen("b", after(2), 9, 3, None),
            "c": QueueSeen("c", NOON, 1, 0, NOON),
        }

    def test_a_queue_is_unattended_since_the_first_look_that_found_nobody(
        self, store: Store, there: Database
    ) -> None:
        since = []

        for moment, consumers in ((0, 1), (2, 0), (4, 0), (6, 1), (8, 0), (10, 0), (300, 0), (302, None)):
            store.note_queues([QueueSeen("q", after(moment), 0, consumers)])
            since.append(there.queues()["q"].unattended_since)

        # Of what was between 10 s and 300 s nobody knows.
        assert since == [None, after(2), after(2), None, after(8), after(8), after(300), None]

    def test_a_look_that_is_older_than_the_one_noted_changes_nothing(
        self, store: Store, there: Database
    ) -> None:
        store.note_queues([QueueSeen("q", after(2), 0, 3)])

        store.note_queues([QueueSeen("q", after(1), 5, 0), QueueSeen("r", after(1), 5, 0)])

        assert there.queues()["q"] == QueueSeen("q", after(2), 0, 3)
        assert there.queues()["r"] == QueueSeen("r", after(1), 5, 0, after(1))

    def test_two_that_note_the_same_queues_at_once_leave_one_row_of_each(
        self, store: Store, there: Database
    ) -> None:
        names = [f"q{n}" for n in range(20)]
        gate = threading.Barrier(4)

        def note(number: int) -> None:
            gate.wait(BOUNDED)
            for turn in range(10):
                seen = [QueueSeen(name, after(turn), number, 1) for name in names]
                store.note_queues(seen if number % 2 else seen[::-1])

        running = [in_thread(lambda n=n: note(n)) for n in range(4)]  # type: ignore[misc]

        for one in running:
            one.result(BOUNDED)
        assert sorted(there.queues()) == sorted(names)
        assert {queue.seen_at for queue in there.queues().values()} == {after(9)}


class TestMemoryStore(StoreContract):
    """Its session is a dictionary, so what only a session can do is not asked of it."""

    @pytest.fixture
    def there(self) -> InMemory:
        return InMemory()

    def store_in(self, there: InMemory) -> Store:
        return MemoryStore(there.database)


class SqlStoreContract(StoreContract):
    """What a database adds: a real session for local steps, and moments when it is away."""

    def store_in(self, there: InSql) -> Store:
        return SqlStore(there.engine)

    def test_a_local_step_that_commits_its_session_commits_nothing_of_ours(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))

        def transaction() -> None:
            with store.transaction() as tx:
                tx.write([an_instance("a", revision=1)], [])
                with tx.savepoint() as session:
                    there.work(session, "committed too early")
                    session.commit()
                    there.work(session, "and after it")
                raise Stop

        with pytest.raises(Stop):
            transaction()

        assert there.worked() == []
        assert there.instance(saga_id("a")) == an_instance("a")

    def test_a_local_step_that_fails_after_it_committed_its_session_leaves_nothing(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))

        def step(tx: Any) -> None:
            with tx.savepoint() as session:
                there.work(session, "committed too early")
                session.commit()
                there.work(session, "and after it")
                raise Stop

        with store.transaction() as tx:
            with pytest.raises(Stop):
                step(tx)
            tx.write([an_instance("a", revision=1)], [])

        assert there.worked() == []
        assert there.instance(saga_id("a")) == an_instance("a", revision=1)

    def test_a_local_step_that_rolls_its_session_back_rolls_back_nothing_of_ours(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))

        with store.transaction() as tx:
            tx.write([an_instance("a", revision=1)], [])
            with tx.savepoint() as session:
                there.work(session, "taken back")
                session.rollback()
                there.work(session, "said again")
            with tx.savepoint() as session:
                there.work(session, "next")

        assert there.worked() == ["next", "said again"]
        assert there.instance(saga_id("a")) == an_instance("a", revision=1)

    def test_a_local_step_that_breaks_a_constraint_fails_alone(self, store: Store, there: InSql) -> None:
        there.seed(an_instance("a"))

        def step(session: Session) -> None:
            there.work(session, "twice")
            there.work(session, "twice")

        def local(tx: Any) -> None:
            with tx.savepoint() as session:
                step(session)

        with store.transaction() as tx:
            with pytest.raises(IntegrityError):
                local(tx)
            tx.write([an_instance("a", revision=1)], [])

        assert there.worked() == []
        assert there.instance(saga_id("a")) == an_instance("a", revision=1)

    def test_what_another_process_wrote_is_seen_by_the_one_that_wrote_before(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"), an_instance("b"))
        write(store, an_instance("a", revision=1), an_instance("b", revision=1))

        write(self.store_in(there), an_instance("a", revision=2))

        found = read(store, "a", "b")
        assert [found[saga_id(name)].revision for name in "ab"] == [2, 1]

    def test_what_a_person_changed_in_the_row_is_seen_by_the_one_that_wrote_before(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1, state={"n": 1}))

        with there.engine.begin() as connection:
            connection.execute(text("UPDATE saga_instance SET state = '{\"n\": 2}'"))

        assert read(store, "a")[saga_id("a")].state == {"n": 2}

    def test_what_was_rolled_back_is_not_remembered(self, store: Store, there: InSql) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1))

        def fail() -> None:
            with store.transaction() as tx:
                tx.write([an_instance("a", revision=2)], [])
                raise Stop

        remembered = store.remembered(saga_id("a"))
        with pytest.raises(Stop):
            fail()

        assert read(store, "a")[saga_id("a")].revision == 1
        assert store.remembered(saga_id("a")) is remembered

    @pytest.mark.parametrize("end", [Session.commit, Session.rollback, Session.close])
    def test_whoever_ends_the_transaction_of_a_shared_session_may_have_ended_the_work_of_others(
        self, store: Store, there: InSql, end: Callable[[Session], None]
    ) -> None:
        def transaction() -> None:
            with store.transaction() as tx:
                with tx.sharing() as session:
                    session.add(Work(value="left in the session"))
                with tx.sharing() as session:
                    session.execute(text("SELECT 1"))
                    end(session)

        with pytest.raises(Entangled):
            transaction()

        assert there.worked() == []

    def test_what_cannot_be_written_when_the_transaction_ends_is_nobodys_in_particular(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))

        def transaction() -> None:
            with store.transaction() as tx:
                for _ in range(2):
                    with tx.sharing() as session:
                        session.add(Work(value="twice"))
                tx.write([an_instance("a", revision=1)], [])

        with pytest.raises(Entangled):
            transaction()

        assert there.worked() == []
        assert there.instance(saga_id("a")) == an_instance("a")

    def test_what_steps_changed_of_rows_they_found_by_key_is_written_together(
        self, store: Store, there: InSql
    ) -> None:
        values = ["a", "b", "c"]
        written: list[str] = []
        with there.engine.begin() as connection:
            connection.execute(insert(Work), [{"value": value} for value in values])
        listen = partial(event.listens_for, there.engine, "before_cursor_execute")

        with store.transaction() as tx:
            listen()(lambda _c, _cursor, statement, *_: written.append(statement.partition(" ")[0]))
            for value in values:
                with tx.sharing() as session:
                    session.get_one(Work, value).note = "seen"

        assert written == ["SELECT", "SELECT", "SELECT", "UPDATE"]

    def test_rows_that_steps_will_get_are_read_at_once(self, store: Store, there: InSql) -> None:
        values = ["a", "b", "c"]
        said: list[str] = []
        with there.engine.begin() as connection:
            connection.execute(insert(Work), [{"value": value} for value in values])
        listen = partial(event.listens_for, there.engine, "before_cursor_execute")

        with store.transaction() as tx:
            listen()(lambda _c, _cursor, statement, *_: said.append(statement.partition(" ")[0]))
            tx.load([(Work, value) for value in [*values, "missing"]])
            for value in values:
                with tx.sharing() as session:
                    session.get_one(Work, value).note = "seen"

        assert said == ["SELECT", "UPDATE"]

    def test_a_step_finds_by_key_what_another_has_left_to_be_written(
        self, store: Store, there: InSql
    ) -> None:
        with store.transaction() as tx:
            with tx.sharing() as session:
                session.add_all([Work(value="new"), Work(value="old")])
            with tx.sharing() as session:
                found = session.get_one(Work, "new")
                session.flush()
                session.delete(session.get_one(Work, "old"))
                found.value = "newer"
            with tx.sharing() as session:
                assert session.get(Work, "old") is None
                assert session.get_one(Work, "newer") is found

        assert there.worked() == ["newer"]


class TestSqliteStore(SqlStoreContract):
    remembers = False

    @pytest.fixture
    def there(self, sqlite_url: str) -> Iterator[InSql]:
        with sqlite_database(sqlite_url) as there:
            yield there

    def test_a_file_that_another_process_holds_is_unavailable(self, sqlite_url: str) -> None:
        with sqlite_database(sqlite_url, busy_timeout=0.05) as there:
            store = SqlStore(there.engine)
            with there.engine.begin(), pytest.raises(StoreUnavailable), store.transaction():
                pytest.fail("began while another writes")
            with there.engine.begin(), pytest.raises(StoreUnavailable):
                store.beat(Beat("w", "timekeeper", NOON, NOON))
            assert store.next_due(MINE) is None  # reading waits for nobody

    def test_while_messages_are_sent_again_others_write(self, sqlite_url: str) -> None:
        with sqlite_database(sqlite_url, busy_timeout=0.05) as there:
            store = SqlStore(there.engine)
            store.quarantine(messages(1)[0])
            there.ask_replay(1, "ada")

            store.replay(Sender(meanwhile=lambda: store.beat(Beat("w", "timekeeper", NOON, NOON))))

            assert there.beats() == [Beat("w", "timekeeper", NOON, NOON)]
            assert there.quarantined() == []

    def test_what_was_sent_while_the_file_cannot_be_written_stays_asked_for(self, sqlite_url: str) -> None:
        with sqlite_database(sqlite_url, busy_timeout=0.05) as there:
            store = SqlStore(there.engine)
            store.quarantine(messages(1)[0])
            there.ask_replay(1, "ada")

            with there.engine.begin(), pytest.raises(StoreUnavailable):
                store.replay(Sender())

            assert [message.replay for message in there.quarantined()] == ["ada"]

    def test_a_file_that_cannot_be_opened_is_unavailable(self, tmp_path: Path, sqlite_url: str) -> None:
        with sqlite_database(sqlite_url) as there:
            store = SqlStore(there.engine)
            there.engine.dispose()
            for file in tmp_path.glob("database_0*"):
                file.unlink()
            (tmp_path / "database_0.sqlite").mkdir()

            with pytest.raises(StoreUnavailable), store.transaction():
                pytest.fail("opened a folder")


class TestPostgresStore(SqlStoreContract):
    @pytest.fixture
    def there(self, postgres_module_url: str) -> Iterator[InSql]:
        with postgres_database(postgres_module_url) as there:
            yield there

    @pytest.mark.parametrize("changes", [False, True])
    def test_a_swap_waits_for_who_has_the_row_and_is_none_if_it_was_changed(
        self, store: Store, there: InSql, changes: bool
    ) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1))
        before = store.remembered(saga_id("a"))
        assert before is not None

        with there.engine.begin() as connection:
            connection.execute(text("SELECT 1 FROM saga_instance FOR UPDATE"))
            swap = in_thread(lambda: store.swap(before, replace(before, revision=2), []))
            wait_until(lambda: self._waiting(there) == 1, "the swap waits", BOUNDED)
            if changes:  # by hand: neither its revision nor its moment tells
                connection.execute(text("UPDATE saga_instance SET state = '{\"n\": 2}'"))

        assert swap.result(BOUNDED) is not changes
        assert read(store, "a")[saga_id("a")].revision == (1 if changes else 2)

    def test_an_instance_that_has_grown_large_is_forgotten(self, store: Store, there: InSql) -> None:
        there.seed(an_instance("a"), an_instance("b"))
        large = {"text": "x" * 20_000}
        write(store, an_instance("a", revision=1), an_instance("b", revision=1))
        before = store.remembered(saga_id("a"))
        assert before is not None

        assert store.swap(before, replace(before, state=large), [])
        write(store, an_instance("b", revision=2, state=large))

        assert [store.remembered(saga_id(name)) for name in "ab"] == [None, None]
        found = read(store, "a", "b")
        assert [found[saga_id(name)].state for name in "ab"] == [large, large]

    def test_a_swap_that_came_too_late_is_not_tried_with_the_same_again(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(an_instance("a"))
        write(store, an_instance("a", revision=1))
        before = store.remembered(saga_id("a"))
        assert before is not None
        write(self.store_in(there), an_instance("a", revision=2))

        assert not store.swap(before, replace(before, revision=2), [])

        assert store.remembered(saga_id("a")) is None

    def test_a_table_is_not_read_whole_for_a_few_rows_however_it_has_grown(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(*(an_instance(str(n)) for n in range(500)))
        with there.engine.begin() as connection:
            connection.execute(text("ANALYZE saga_instance"))

        def write_and_swap(revision: int) -> None:
            write(store, *(an_instance(str(n), revision=revision) for n in range(4)))
            before = store.remembered(saga_id("0"))
            assert before is not None
            assert store.swap(before, replace(before, revision=revision), [])

        for revision in range(1, 12):  # until the session keeps a plan of each statement
            write_and_swap(revision)
        there.seed(*(an_instance(str(n)) for n in range(500, 1500)))
        read_whole = self._read_whole(there)
        write_and_swap(20)

        assert self._read_whole(there) == read_whole

    @staticmethod
    def _read_whole(there: InSql) -> int:
        """How often the instances were read from the first to the last until now."""
        with there.engine.begin() as connection:  # the only session there is
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
        told = text("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'saga_instance'")
        with there.engine.begin() as connection:
            return connection.scalar(told) or 0

    def test_due_instances_that_another_has_locked_are_skipped_without_waiting(
        self, store: Store, there: InSql
    ) -> None:
        there.seed(*(an_instance(str(n), due=after(n)) for n in range(4)))

        with store.transaction() as first, store.transaction() as second:
            mine = first.lock_due(after(9), MINE, 2)
            others = second.lock_due(after(9), MINE, 10)

        assert [instance.id for instance in mine] == [saga_id("0"), saga_id("1")]
        assert [instance.id for instance in others] == [saga_id("2"), saga_id("3")]

    def test_acts_and_replays_that_another_has_locked_are_skipped_without_waiting(
        self, store: Store, there: InSql
    ) -> None:
        there.add_act(an_act("a"))
        store.quarantine(messages(1)[0])
        there.ask_replay(1, "ada")

        with store.transaction() as first, store.transaction() as second:
            assert len(first.lock_acts(10)) == 1
            assert second.lock_acts(10) == []
        with there.engine.begin() as connection:
            connection.execute(text("SELECT * FROM saga_quarantine FOR UPDATE"))
            store.replay(never)
        assert [message.replay for message in there.quarantined()] == ["ada"]

    def test_while_one_worker_sends_a_message_again_the_others_are_not_given_it(
        self, store: Store, there: InSql
    ) -> None:
        for message in messages(3):
            store.quarantine(message)
        for number in (1, 2, 3):
            there.ask_replay(number, "ada")
        other = Sender()

        store.replay(Sender(meanwhile=lambda: store.replay(other)), 2)

        assert other.numbers == [[3]]
        assert there.quarantined() == []

    def test_two_first_beats_of_one_name_at_once_both_go_through(self, store: Store, there: InSql) -> None:
        with there.engine.connect() as connection:
            write_beat(connection, Beat("w", "timekeeper", NOON, after(1)))
            second = in_thread(lambda: store.beat(Beat("w", "timekeeper", NOON, after(2))))
            wait_until(lambda: self._waiting(there) == 1, "the second beat waits for the first", BOUNDED)
            connection.commit()

        second.result(BOUNDED)
        assert there.beats() == [Beat("w", "timekeeper", NOON, after(2))]

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

    def test_a_server_that_is_away_makes_the_store_unavailable(self) -> None:
        store = SqlStore(make_engine("postgresql://nobody@127.0.0.1:1/nothing"))

        with pytest.raises(StoreUnavailable), store.transaction():
            pytest.fail("connected")
        with pytest.raises(StoreUnavailable):
            store.next_due(MINE)
        with pytest.raises(StoreUnavailable):
            store.replay(never)
