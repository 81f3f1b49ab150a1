"""Starting, finding and waiting for sagas, on real databases."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from pydantic import BaseModel
from sqlalchemy import update
from sqlalchemy.orm import Session

from sagas_framework import (
    NOTHING_TO_UNDO,
    Act,
    ConfigurationError,
    Filter,
    KeyConflict,
    Queue,
    Saga,
    SagaNotEnded,
    SagaRun,
    Sagas,
    SagasError,
    Status,
    UnknownRun,
    UnknownSaga,
)
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.sagas import _digest, new_saga_id
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.tables import saga_instance
from sagas_framework.transport.envelope import WireMessage
from sagas_framework.transport.publisher import Load, Receipt
from sagas_framework.worker.orchestrating import check_declarations
from tests.integration.kitchen import Meal, MealSaga, OpenTicket
from tests.integration.kitchen import step as kitchen_step


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def sagas(request: pytest.FixtureRequest) -> Iterator[Sagas]:
    """The front door of a service with an empty database."""
    url: str = request.getfixturevalue(request.param)
    door = Sagas("orders", url, sagas=[MealSaga], reply_queue=Queue("meal_replies"))
    door.upgrade()
    yield door
    door.engine.dispose()


def start(sagas: Sagas, order: int, key: str | None = None) -> SagaRun:
    with Session(sagas.engine) as session, session.begin():
        return sagas.start(MealSaga, Meal(order_id=order), key=key, session=session)


def test_a_saga_is_started_by_the_callers_commit_and_not_before(sagas: Sagas) -> None:
    with Session(sagas.engine) as session:
        run = sagas.start(MealSaga, Meal(order_id=1), session=session)
        if sagas.engine.dialect.name == "postgresql":  # SQLite would wait for the writer
            with pytest.raises(UnknownRun):
                sagas.get(run.id)
        session.commit()

    assert sagas.get(run.id).state == {"order_id": 1, "ticket_id": None}


def test_a_rolled_back_caller_has_started_nothing(sagas: Sagas) -> None:
    with Session(sagas.engine) as session:
        run = sagas.start(MealSaga, Meal(order_id=1), session=session)
        session.rollback()

    with pytest.raises(UnknownRun, match=run.id):
        sagas.get(run.id)
    assert sagas.list() == []


def test_starting_twice_with_an_equal_state_gives_the_first_run(sagas: Sagas) -> None:
    first = start(sagas, 1, key="order-1")
    second = start(sagas, 1, key="order-1")

    assert first.new
    assert not second.new
    assert second.id == first.id
    assert len(sagas.list()) == 1


def test_a_key_used_again_with_another_state_is_a_conflict_and_starts_nothing(sagas: Sagas) -> None:
    first = start(sagas, 1, key="order-1")

    with pytest.raises(KeyConflict, match="another state") as conflict:
        start(sagas, 2, key="order-1")

    assert conflict.value.first_id == first.id
    assert [instance.id for instance in sagas.list()] == [first.id]


# ---- many at once -----------------------------------------------------------------------------------


def start_many(sagas: Sagas, *starts: tuple[str | None, int]) -> Sequence[SagaRun]:
    with Session(sagas.engine) as session, session.begin():
        meals = [(key, Meal(order_id=order)) for key, order in starts]
        return sagas.start_many(MealSaga, meals, session=session)


def test_many_that_are_started_at_once_are_each_as_if_started_alone(sagas: Sagas) -> None:
    old = start(sagas, 2, key="order-2")

    runs = start_many(sagas, ("order-3", 3), ("order-2", 2), (None, 7), ("order-1", 1), ("order-3", 3))

    assert [run.key for run in runs] == ["order-3", "order-2", runs[2].id, "order-1", "order-3"]
    assert [run.new for run in runs] == [True, False, True, True, False]
    assert runs[1].id == old.id
    assert runs[4].id == runs[0].id
    assert [sagas.get(run.id).state["order_id"] for run in runs] == [3, 2, 7, 1, 3]
    assert len(sagas.list()) == 4


def test_no_saga_at_all_can_be_started_at_once(sagas: Sagas) -> None:
    assert start_many(sagas) == []


def test_a_conflict_among_many_starts_none_of_them_and_leaves_the_transaction_usable(sagas: Sagas) -> None:
    first = start(sagas, 1, key="order-1")

    with Session(sagas.engine) as session, session.begin():
        meals = [(f"order-{order}", Meal(order_id=order + 100)) for order in (0, 1, 2)]
        with pytest.raises(KeyConflict, match="order-1") as conflict:
            sagas.start_many(MealSaga, meals, session=session)
        other = sagas.start(MealSaga, Meal(order_id=9), session=session)

    assert conflict.value.first_id == first.id
    assert {instance.id for instance in sagas.list()} == {first.id, other.id}


def test_ten_thousand_are_started_in_one_transaction(sagas: Sagas) -> None:
    with Session(sagas.engine) as session:
        meals = ((f"order-{order}", Meal(order_id=order)) for order in range(10_000))
        runs = sagas.start_many(MealSaga, meals, session=session)
        session.flush()
        session.rollback()

    assert len({run.id for run in runs}) == 10_000
    assert sagas.list() == []


def test_two_that_start_the_same_keys_at_once_in_other_orders_both_get_them_all(sagas: Sagas) -> None:
    starts = [(f"order-{order}", order) for order in range(50)]
    barrier = threading.Barrier(2)
    runs: dict[int, Sequence[SagaRun]] = {}

    def race(way: int) -> None:
        barrier.wait(30)
        runs[way] = start_many(sagas, *starts[::way])

    racers = [threading.Thread(target=race, args=(way,)) for way in (1, -1)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)

    assert [run.id for run in runs[1]] == [run.id for run in runs[-1]][::-1]
    assert sum(run.new for run in [*runs[1], *runs[-1]]) == 50


# ---- races and mistakes -----------------------------------------------------------------------------


def test_two_that_start_with_one_key_at_the_same_time_start_one_saga(sagas: Sagas) -> None:
    runs: list[SagaRun] = []
    barrier = threading.Barrier(4)

    def race() -> None:
        barrier.wait(30)
        runs.append(start(sagas, 1, key="order-1"))

    racers = [threading.Thread(target=race) for _ in range(4)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)

    assert len(runs) == 4
    assert len({run.id for run in runs}) == 1
    assert sum(run.new for run in runs) == 1


def test_a_saga_that_was_not_given_to_this_object_cannot_be_started(sagas: Sagas) -> None:
    empty = Sagas("orders", sagas.database.url, sagas=[], reply_queue=Queue("meal_replies"))

    with Session(sagas.engine) as session, pytest.raises(UnknownSaga, match="known: none"):
        empty.start(MealSaga, Meal(order_id=1), session=session)


def test_waiting_gives_up_and_says_how_the_saga_stands(sagas: Sagas) -> None:
    run = start(sagas, 1)

    with pytest.raises(SagaNotEnded, match=f"{run.id} is running after 0.05 s"):
        sagas.wait(run, timeout=timedelta(seconds=0.05))


def test_a_list_is_filtered_by_saga_status_key_and_age(sagas: Sagas) -> None:
    runs = [start(sagas, order, key=f"order-{order}") for order in range(3)]

    assert {i.id for i in sagas.list(Filter(saga="meal", status=Status.RUNNING))} == {run.id for run in runs}
    assert [i.id for i in sagas.list(Filter(key="order-1"))] == [runs[1].id]
    assert sagas.list(Filter(saga="other")) == []
    assert sagas.list(Filter(older_than=datetime(2020, 1, 1, tzinfo=UTC))) == []
    assert len(sagas.list(Filter(limit=2))) == 2


@pytest.mark.parametrize(("by", "reason"), [("", "because"), ("ann", " ")])
def test_an_act_without_a_name_or_a_reason_is_refused_at_the_door(sagas: Sagas, by: str, reason: str) -> None:
    run = start(sagas, 1)

    with pytest.raises(SagasError, match="a name and a reason"):
        sagas.act(run.id, Act.CANCEL, by=by, reason=reason)


def test_an_act_on_a_saga_that_does_not_exist_is_refused_at_the_door(sagas: Sagas) -> None:
    with pytest.raises(UnknownRun):
        sagas.act("no-such-saga", Act.CANCEL, by="ann", reason="because")


def test_ids_are_uuids_of_version_7_sorted_by_time() -> None:
    moments = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]

    ids = [UUID(new_saga_id(moment)) for moment in moments]

    assert {(i.version, i.variant) for i in ids} == {(7, "specified in RFC 4122")}
    assert ids == sorted(ids)
    assert len({new_saga_id(moments[0]) for _ in range(1000)}) == 1000


def test_a_worker_whose_saga_was_changed_under_the_same_version_does_not_start(sagas: Sagas) -> None:
    class Changed(Saga[Meal], name="meal", version=1):
        open_ticket = kitchen_step.command(
            OpenTicket, lambda meal: OpenTicket(order_id=meal.order_id), compensation=NOTHING_TO_UNDO
        )

    start(sagas, 1)
    check_declarations(sagas)
    changed = Sagas("orders", sagas.database.url, sagas=[Changed], reply_queue=Queue("meal_replies"))

    with pytest.raises(
        ConfigurationError, match="1 open sagas 'meal' version 1 were started with other steps"
    ):
        check_declarations(changed)
    changed.engine.dispose()


def test_a_worker_that_lacks_a_declaration_says_whose_sagas_nobody_moves(
    sagas: Sagas, caplog: pytest.LogCaptureFixture
) -> None:
    start(sagas, 1)
    empty = Sagas("orders", sagas.database.url, sagas=[], reply_queue=Queue("meal_replies"))

    check_declarations(empty)

    assert "1 open sagas are carried on by nobody here: No saga named 'meal' version 1" in caplog.text
    empty.engine.dispose()


def test_neither_a_default_nor_the_order_of_a_set_makes_another_state() -> None:
    class Cart(BaseModel):
        dishes: set[str]
        note: str | None = None

    words = {f"dish {number}" for number in range(50)}
    more = {f"drink {number}" for number in range(500)}
    shuffled = (words | more) - more  # equal, and iterated in another order

    assert list(words) != list(shuffled)
    assert _digest(Cart(dishes=words)) == _digest(Cart(dishes=shuffled, note=None))
    assert _digest(Cart(dishes=words)) != _digest(Cart(dishes={"dish 1"}))


def test_a_saga_started_with_other_steps_is_not_run_by_this_release(sagas: Sagas) -> None:
    run = start(sagas, 1)
    with sagas.engine.begin() as connection:
        connection.execute(update(saga_instance).values(shape="other"))
    orchestrator = Orchestrator(SqlStore(sagas.engine), sagas.definitions, Silence(), reply_to="meal_replies")

    orchestrator.fire_timers({})

    entries = [line.recorded for line in sagas.history(run.id)]
    assert [line.entry for line in entries] == ["stumbled"]
    assert "other steps" in entries[0].detail["message"]


class Silence:
    """A publisher to which nothing may be given."""

    def publish(self, messages: Sequence[WireMessage]) -> list[Receipt]:
        raise AssertionError(f"nothing should be sent: {messages}")

    def load(self, queue: str) -> Load | None:
        return None

    def close(self) -> None: ...
