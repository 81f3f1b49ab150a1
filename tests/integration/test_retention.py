"""Ended sagas and old inbox rows leave the database when their time is over, and nothing else does."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, event, select, text

from sagas_framework import (
    ConfigurationError,
    EmbeddedWorkers,
    Outcome,
    OutcomeKind,
    Participant,
    Queue,
    Retention,
    Saga,
    Sagas,
    Status,
    Steps,
    orchestrator_app,
)
from sagas_framework.archiving import Archivist
from sagas_framework.core.events import Recorded
from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.sagas import new_saga_id
from sagas_framework.storage.archive import Archive, ArchiveWriter
from sagas_framework.storage.dropping import Gone
from sagas_framework.storage.retiring import saga_from_archive, still_there
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.tables import saga_act, saga_history, saga_inbox, saga_instance
from tests.contract.looking import (
    NOON,
    InSql,
    an_instance,
    in_thread,
    postgres_database,
    saga_id,
    sqlite_database,
)
from tests.contract.test_store import an_act
from tests.servers import wait_until
from tests.unit.core.stories import CreateOrderSaga, OrderState, restaurant_service

DAY = timedelta(days=1)
WEEK = Retention(timedelta(days=7))


@pytest.fixture(params=["sqlite_url", "postgres_module_url"])
def there(request: pytest.FixtureRequest) -> Iterator[InSql]:
    """An empty database."""
    url: str = request.getfixturevalue(request.param)
    with sqlite_database(url) if url.startswith("sqlite") else postgres_database(url) as there:
        yield there


class House:
    """A service with a database, an archive, and a clock that is moved by hand."""

    def __init__(self, there: InSql, folder: Path) -> None:
        self.there = there
        self.folder = folder
        self.now = NOON + 100 * DAY
        self.made: list[Sagas] = []
        self.archivists: list[Archivist] = []

    def sagas(self, retention: Retention = WEEK, **options: Any) -> Sagas:
        url = self.there.engine.url.render_as_string(hide_password=False)
        made = Sagas(
            "order_service",
            url,
            sagas=options.pop("sagas", [CreateOrderSaga]),
            reply_queue=Queue("order_service.replies"),
            retention=retention,
            archive=self.folder,
            clock=lambda: self.now,
            **options,
        )
        self.made.append(made)
        return made

    def archivist(self, sagas: Sagas | None = None, **options: Any) -> Archivist:
        self.archivists.append(Archivist(sagas or self.sagas(), **options))
        return self.archivists[-1]

    def close(self) -> None:
        for archivist in self.archivists:
            archivist.close()
        for made in self.made:
            made.engine.dispose()

    def ended(self, name: str, days_ago: float, status: Status = Status.COMPLETED, **changes: Any) -> str:
        """An instance that ended so long ago, with a history of two lines; its id."""
        at = self.now - timedelta(days=days_ago)
        values: dict[str, Any] = {
            "id": new_saga_id(at - timedelta(minutes=1)),
            "status": status,
            "outcome": Outcome(OutcomeKind.OK),
            "created_at": at - timedelta(minutes=1),
            "updated_at": at,
            "ended_at": at if status.ended else None,
        }
        instance = an_instance(name, **(values | changes))
        self.there.seed(instance)
        with SqlStore(self.there.engine).transaction() as tx:
            lines = [Recorded(at, "started"), Recorded(at, "step.succeeded", "step", {"reply": {"id": 7}})]
            tx.write([], [(instance.id, 1, line) for line in lines])
        return instance.id

    def left(self) -> list[str]:
        """Keys of the instances in the database."""
        with self.there.engine.connect() as connection:
            return sorted(connection.scalars(select(saga_instance.c.key)))

    def archived(self) -> list[dict[str, Any]]:
        """All that can be read in the archive."""
        found: list[dict[str, Any]] = []
        for file in Archive(self.folder).files():
            found += [json.loads(line) for line in gzip.decompress(file.read_bytes()).splitlines()]
        return found

    def rows(self) -> dict[str, int]:
        tables = (saga_instance, saga_history, saga_act)
        with self.there.engine.connect() as connection:
            return {table.name: len(connection.execute(select(table)).all()) for table in tables}


@pytest.fixture
def house(there: InSql, tmp_path: Path) -> Iterator[House]:
    house = House(there, tmp_path / "archive")
    yield house
    house.close()


def all_of(archivist: Archivist) -> Gone:
    total = Gone()
    while (gone := archivist.turn()).more:
        total += gone
    archivist.close()
    return replace(total, more=False)


def test_an_ended_saga_goes_to_the_archive_with_its_history_and_acts(house: House) -> None:
    old = house.ended("old", 8)
    act = house.there.add_act(replace(an_act("old"), saga_id=old))
    with SqlStore(house.there.engine).transaction() as tx:
        tx.answer_act(act.id, "it has ended", refused=True, at=house.now)
    before = house.there.instance(old), house.there.history(old), house.there.act(act.id)

    gone = all_of(house.archivist())

    assert gone == Gone(archived=1)
    assert house.rows() == {"saga_instance": 0, "saga_history": 0, "saga_act": 0}
    (told,) = Archive(house.folder).find("order-old")
    instance, history, acts = saga_from_archive(told)
    assert (instance, history, acts[0]) == before


def test_what_has_not_ended_or_not_long_ago_stays(house: House) -> None:
    house.ended("old", 8)
    house.ended("undone", 8, Status.COMPENSATED)
    house.ended("young", 6)
    for status in (Status.RUNNING, Status.COMPENSATING, Status.PARKED):
        house.ended(status.value, 50, status)
    long = house.now - 50 * DAY
    house.ended("long", 6, id=new_saga_id(long), created_at=long)

    all_of(house.archivist())

    assert house.left() == [
        f"order-{name}" for name in ("compensating", "long", "parked", "running", "young")
    ]


def test_each_saga_is_kept_as_it_says_itself_and_others_as_the_service_says(house: House) -> None:
    class Quick(
        Saga[OrderState], name="quick", version=1, retention=Retention(timedelta(hours=1), archive=False)
    ):
        note = Steps(OrderState).local(lambda state, session: None)

    class Precious(Saga[OrderState], name="precious", version=1, retention=Retention(None)):
        note = Steps(OrderState).local(lambda state, session: None)

    house.ended("undeclared", 8, saga="a_saga_of_former_times")
    house.ended("quick", 1, saga="quick")
    house.ended("precious", 99, saga="precious")
    house.ended("default", 1)

    gone = all_of(house.archivist(house.sagas(sagas=[CreateOrderSaga, Quick, Precious])))

    assert gone == Gone(archived=1, dropped=1)
    assert house.left() == ["order-default", "order-precious"]


def test_for_ever_is_what_holds_if_nothing_is_said(house: House) -> None:
    house.ended("old", 99)

    assert all_of(house.archivist(house.sagas(Retention(None)))) == Gone()

    assert house.left() == ["order-old"]


def test_dropped_sagas_leave_no_archive(house: House) -> None:
    house.ended("old", 8)

    assert all_of(house.archivist(house.sagas(Retention(7 * DAY, archive=False)))) == Gone(dropped=1)

    assert house.left() == []
    assert not house.folder.exists()


def test_an_archive_that_has_no_place_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"archives them then, but where\?"):
        Sagas("s", "sqlite:///s.sqlite3", sagas=[], reply_queue=Queue("s.replies"), retention=WEEK)


def test_a_turn_takes_no_more_than_its_batch(house: House) -> None:
    for number in range(5):
        house.ended(str(number), 8 + number)

    archivist = house.archivist(batch=2)

    assert [archivist.turn() for _ in range(4)] == [
        Gone(archived=2, more=True),
        Gone(archived=2, more=True),
        Gone(archived=1, more=True),
        Gone(),
    ]


def test_those_that_an_act_waits_for_stay_until_it_is_answered(house: House) -> None:
    old = house.ended("old", 8)
    act = house.there.add_act(replace(an_act("old"), saga_id=old))
    archivist = house.archivist()

    all_of(archivist)
    assert house.left() == ["order-old"]

    with SqlStore(house.there.engine).transaction() as tx:
        tx.answer_act(act.id, "it has ended", refused=True, at=house.now)
    all_of(archivist)
    assert house.left() == []


def test_time_passes_and_one_goes_after_the_other(house: House) -> None:
    for days in (8, 6, 4):
        house.ended(str(days), days)
    archivist, left = house.archivist(), []

    for _ in range(4):
        all_of(archivist)
        left.append(len(house.left()))
        house.now += 2 * DAY

    assert left == [2, 1, 0, 0]


def test_one_that_started_early_and_ended_late_goes_too(house: House) -> None:
    house.ended("first", 8)
    early = house.now - 9 * DAY
    slow = house.ended("slow", 0, Status.RUNNING, id=new_saga_id(early), created_at=early)
    archivist = house.archivist()
    all_of(archivist)

    instance = house.there.instance(slow)
    assert instance is not None
    with SqlStore(house.there.engine).transaction() as tx:
        tx.write([replace(instance, status=Status.COMPLETED, ended_at=house.now)], [])
    house.now += 8 * DAY
    all_of(archivist)
    all_of(archivist)

    assert house.left() == []


def test_what_could_not_be_written_stays(house: House) -> None:
    house.ended("old", 8)
    house.folder.parent.mkdir(exist_ok=True)
    house.folder.write_text("not a folder")
    archivist = house.archivist()

    with pytest.raises(OSError, match="archive"):
        archivist.turn()

    assert house.left() == ["order-old"]
    house.folder.unlink()
    while house.left():
        archivist.turn()
    assert len(house.archived()) == 1


class Cut(Exception):
    """The process dies."""


def test_a_process_that_dies_before_its_commit_leaves_each_saga_in_one_place(house: House) -> None:
    house.ended("old", 8)
    house.ended("older", 9)
    dying = house.sagas()

    def dies(connection: Any) -> None:
        raise Cut

    first = house.archivist(dying, batch=1)
    first.turn()
    event.listen(dying.engine, "commit", dies)
    with pytest.raises(Cut):
        first.turn()
    assert len(house.left()) == 1
    assert len(house.archived()) == 2

    all_of(house.archivist())

    assert house.left() == []
    assert sorted(one["key"] for one in house.archived()) == ["order-old", "order-older"]
    assert all(one.trouble is None and not one.twice for one in Archive(house.folder).check())


@pytest.mark.parametrize("committed", [True, False])
def test_a_deletion_that_the_server_is_still_about_to_commit_is_waited_for(
    house: House, committed: bool
) -> None:
    if house.there.engine.dialect.name != "postgresql":
        return  # SQLite's transactions end with their process
    old = house.ended("old", 8)
    engine = house.there.engine
    dying = ArchiveWriter(house.folder, "order_service-sagas", still_there(engine, saga_instance))
    dying.prepare()
    with engine.connect() as server, engine.connect() as looking:
        server.execute(delete(saga_instance).where(saga_instance.c.id == old))
        dying.add([{"id": old, "key": "order-old"}], house.now)
        dying.doubt()  # the process is gone, and its transaction is not

        adopting = in_thread(
            ArchiveWriter(house.folder, "order_service-sagas", still_there(engine, saga_instance)).adopt
        )
        waits = text(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        looking = looking.execution_options(isolation_level="AUTOCOMMIT")
        wait_until(lambda: looking.execute(waits).scalar_one() > 0, "the writer waits for the transaction")
        server.commit() if committed else server.rollback()
        adopting.result(30)

    assert len(house.archived()) == (1 if committed else 0)
    assert house.left() == ([] if committed else ["order-old"])


def test_two_at_once_take_each_saga_once(house: House) -> None:
    for number in range(30):
        house.ended(str(number), 8 + number)

    takers = [in_thread(lambda: all_of(house.archivist(batch=2))) for _ in range(3)]
    taken = sum(taker.result(30).archived for taker in takers)
    taken += all_of(house.archivist()).archived  # what each had found while another held it

    assert taken == 30
    assert house.left() == []
    assert len(house.archived()) == 30
    assert sum(one.twice for one in Archive(house.folder).check()) == 0


def test_what_an_orchestrator_holds_is_left_to_it(house: House) -> None:
    if house.there.engine.dialect.name != "postgresql":
        return  # SQLite has one lock for the whole file
    held = house.ended("held", 9)
    house.ended("free", 8)
    archivist = house.archivist()

    with SqlStore(house.there.engine).transaction() as tx:
        tx.lock([held])
        all_of(archivist)
        assert house.left() == ["order-held"]

    all_of(archivist)
    assert house.left() == []


def test_an_orchestrators_worker_takes_them_out_by_itself(house: House) -> None:
    house.ended("old", 8)
    house.ended("young", 6)

    app = orchestrator_app(house.sagas(), broker="memory://localhost/retention")
    with EmbeddedWorkers([app]):
        wait_until(lambda: house.left() == ["order-young"], "the archivist's first turn")

    assert [one["key"] for one in house.archived()] == ["order-old"]
    assert [(one.open, one.trouble) for one in Archive(house.folder).check()] == [(False, None)]


# ---- inboxes ----------------------------------------------------------------------------------------


@pytest.fixture
def participant(house: House) -> Iterator[Callable[..., Participant]]:
    url = house.there.engine.url.render_as_string(hide_password=False)
    made: list[Participant] = []

    def make(**options: Any) -> Participant:
        made.append(Participant(restaurant_service, database=url, clock=lambda: house.now, **options))
        return made[-1]

    yield make
    for one in made:
        one.close_archive()
        one.engine.dispose()


def handled(house: House, participant: Participant, name: str, days_ago: float) -> None:
    row = InboxRow(saga_id(name), saga_id("saga"), "restaurant_service.create_ticket", RowState.DONE, 1)
    at: datetime = house.now - timedelta(days=days_ago)
    with participant.inbox.turn(row.key, at) as turn:
        turn.save(row)


def keys(house: House) -> list[str]:
    with house.there.engine.connect() as connection:
        return list(connection.scalars(select(saga_inbox.c.key)))


def test_inbox_rows_past_their_retention_go_to_the_archive(
    house: House, participant: Callable[..., Participant]
) -> None:
    restaurant = participant(archive=house.folder)
    handled(house, restaurant, "old", 31)
    handled(house, restaurant, "young", 29)

    assert restaurant.forget_old() == 1

    assert keys(house) == [saga_id("young")]
    told = Archive(house.folder).operation(saga_id("old"))
    assert told is not None
    assert told["task"] == "restaurant_service.create_ticket"
    assert told["updated_at"] == (house.now - 31 * DAY).isoformat()


def test_without_an_archive_they_just_go(house: House, participant: Callable[..., Participant]) -> None:
    restaurant = participant()
    handled(house, restaurant, "old", 31)

    assert restaurant.forget() == Gone(dropped=1)

    assert keys(house) == []
    assert not house.folder.exists()


def test_a_row_that_is_being_handled_is_left(house: House, participant: Callable[..., Participant]) -> None:
    if house.there.engine.dialect.name != "postgresql":
        return  # SQLite has one lock for the whole file
    restaurant = participant(archive=house.folder)
    handled(house, restaurant, "held", 31)

    with house.there.engine.begin() as connection:
        connection.execute(text("SELECT 1 FROM saga_inbox FOR UPDATE"))
        assert restaurant.forget() == Gone()

    assert restaurant.forget() == Gone(archived=1)
