"""The orchestrator's shell on real databases: one bad saga never fails its neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import event, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sagas_framework import NOTHING_TO_UNDO, Act, Queue, Saga, Sagas, Status, Steps
from sagas_framework.core.events import Event, OperatorActed, Started
from sagas_framework.orchestrator import Orchestrator
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.sql import SqlStore
from tests.integration.nowhere import Nowhere
from tests.unit.core.stories import VerifyConsumer


class Note(BaseModel):
    number: int


step = Steps(Note)
trouble: dict[int, Any] = {}


def write_note(note: Note, session: Session) -> None:
    """Write the number; what `trouble` says of it happens then."""
    session.execute(
        text("INSERT INTO notes (number, page) VALUES (:number, :page)"), {"number": note.number, "page": 1}
    )
    if note.number in trouble:
        trouble[note.number](session)


class NoteSaga(Saga[Note], name="note", version=1):
    write = step.local(write_note)


class Pages(BaseModel):
    number: int
    lines: dict[str, Any] = {"page 1": []}


def write_line(pages: Pages, session: Session) -> None:
    """What is inside of a field of type Any is changed, not assigned."""
    pages.lines["page 1"].append(pages.number)
    if pages.number in trouble:
        trouble[pages.number](session)


class PagesSaga(Saga[Pages], name="pages", version=1):
    write = Steps(Pages).local(write_line)


def verify_nobody(note: Note) -> VerifyConsumer:
    return VerifyConsumer(consumer_id=[10, 20][note.number])


class LetterSaga(Saga[Note], name="letter", version=1):
    verify = step.command(
        VerifyConsumer, verify_nobody, compensation=NOTHING_TO_UNDO, timeout=timedelta(minutes=1)
    )


class Base(DeclarativeBase): ...


class Shelf(Base):
    __tablename__ = "shelves"

    number: Mapped[int] = mapped_column(primary_key=True)
    books: Mapped[int]


asked: list[int] = []


def lends(note: Note) -> bool:
    asked.append(note.number)
    return True


def its_shelf(note: Note) -> tuple[type[Shelf], int]:
    if note.number in trouble:
        raise ValueError("it cannot say")
    return Shelf, note.number


def lend_book(note: Note, session: Session) -> None:
    session.get_one(Shelf, note.number).books -= 1


class LendingSaga(Saga[Note], name="lending", version=1):
    lend = step.local(lend_book, when=lends, loads=its_shelf)


class Office:
    """An orchestrator of `NoteSaga`s and a clock moved by hand."""

    def __init__(self, url: str) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.sagas = Sagas(
            "notes",
            url,
            sagas=[NoteSaga, LetterSaga, PagesSaga, LendingSaga],
            reply_queue=Queue("replies"),
            clock=lambda: self.now,
        )
        self.sagas.upgrade()
        with self.sagas.engine.begin() as connection:
            Base.metadata.create_all(connection)
            connection.execute(text("CREATE TABLE pages (id INTEGER PRIMARY KEY)"))
            connection.execute(text("INSERT INTO pages VALUES (1)"))
            connection.execute(
                text(
                    "CREATE TABLE notes (number INTEGER, page INTEGER "
                    "REFERENCES pages (id) DEFERRABLE INITIALLY DEFERRED)"
                )
            )
        store = SqlStore(self.sagas.engine)
        self.orchestrator = Orchestrator(
            store, self.sagas.definitions, Nowhere(), reply_to="replies", clock=lambda: self.now
        )

    def start(self, *numbers: int) -> list[str]:
        with Session(self.sagas.engine) as session, session.begin():
            return [self.sagas.start(NoteSaga, Note(number=n), session=session).id for n in numbers]

    def lend(self, *numbers: int) -> list[str]:
        """Start the lending of a book from each of these shelves, which have two."""
        with Session(self.sagas.engine) as session, session.begin():
            session.add_all([Shelf(number=number, books=2) for number in set(numbers)])
            notes = [(n, Note(number=number)) for n, number in enumerate(numbers)]
            started = [self.sagas.start(LendingSaga, note, key=f"{n}", session=session) for n, note in notes]
            return [run.id for run in started]

    def process(self, ids: list[str]) -> list[str]:
        """Decide a batch; the statements that look at shelves."""
        said: list[str] = []
        event.listen(self.sagas.engine, "before_cursor_execute", lambda *told: said.append(told[2]))
        self.orchestrator.process([Started(saga_id, self.now) for saga_id in ids])
        return [statement for statement in said if "FROM shelves" in statement]

    def books(self) -> dict[int, int]:
        with Session(self.sagas.engine) as session:
            return {shelf.number: shelf.books for shelf in session.query(Shelf)}

    def statuses(self, ids: list[str]) -> list[Status]:
        return [self.sagas.get(saga_id).status for saga_id in ids]

    def notes(self) -> list[int]:
        with self.sagas.engine.connect() as connection:
            return [row[0] for row in connection.execute(text("SELECT number FROM notes ORDER BY number"))]


@pytest.fixture(params=["sqlite_url", "postgres_url"])
def office(request: pytest.FixtureRequest) -> Iterator[Office]:
    """An office with an empty database."""
    office = Office(request.getfixturevalue(request.param))
    yield office
    office.sagas.engine.dispose()
    trouble.clear()
    asked.clear()


def no_such_page(session: Session) -> None:
    """Found out only when the transaction commits."""
    session.execute(text("UPDATE notes SET page = 99 WHERE number = 2"))


def database_away(_session: Session) -> None:
    raise StoreUnavailable("as if the disk were full for this one")


def our_own_bug(_session: Session) -> None:
    raise ZeroDivisionError("a bug")


def test_a_saga_that_cannot_be_committed_holds_up_no_other(office: Office) -> None:
    trouble[2] = no_such_page
    ids = office.start(1, 2, 3)

    for _ in range(3):
        office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.COMPLETED, Status.RUNNING, Status.COMPLETED]
    assert office.notes() == [1, 3]
    trouble.clear()
    office.now += timedelta(minutes=2)
    office.orchestrator.fire_timers({})
    assert office.statuses(ids) == [Status.COMPLETED] * 3


def test_a_database_that_is_away_for_one_saga_holds_up_no_other(office: Office) -> None:
    trouble[1] = database_away
    ids = office.start(1, 2)

    for _ in range(3):
        office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.RUNNING, Status.COMPLETED]
    assert office.notes() == [2]


def test_a_local_step_that_raises_is_rolled_back_alone_and_turns_its_saga_back(office: Office) -> None:
    trouble[2] = our_own_bug
    ids = office.start(1, 2, 3)

    office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.COMPLETED, Status.COMPENSATED, Status.COMPLETED]
    assert office.notes() == [1, 3]
    outcome = office.sagas.get(ids[1]).outcome
    assert outcome is not None
    assert (outcome.name, outcome.message, outcome.step) == ("ZeroDivisionError", "a bug", "write")


def test_a_local_step_that_raises_has_changed_nothing_in_the_state(office: Office) -> None:
    trouble[2] = our_own_bug
    with Session(office.sagas.engine) as session, session.begin():
        ids = [office.sagas.start(PagesSaga, Pages(number=n), session=session).id for n in (1, 2)]

    office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.COMPLETED, Status.COMPENSATED]
    assert [office.sagas.get(saga_id).state["lines"] for saga_id in ids] == [{"page 1": [1]}, {"page 1": []}]


def test_a_local_step_that_failed_has_a_session_of_its_own_the_next_time(office: Office) -> None:
    ran: list[int] = []
    trouble.update({number: lambda _session, number=number: ran.append(number) for number in (1, 3, 4, 6)})
    trouble[2] = trouble[5] = our_own_bug
    office.start(1, 2, 3)
    office.orchestrator.fire_timers({})
    ran.clear()
    ids = office.start(4, 5, 6)

    office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.COMPLETED, Status.COMPENSATED, Status.COMPLETED]
    assert sorted(ran) == [4, 6]  # nobody twice
    assert office.notes() == [1, 3, 4, 6]


def test_where_a_sagas_own_code_raised_is_in_the_log(
    office: Office, caplog: pytest.LogCaptureFixture
) -> None:
    with Session(office.sagas.engine) as session, session.begin():
        saga_id = office.sagas.start(LetterSaga, Note(number=7), session=session).id

    office.orchestrator.fire_timers({})

    assert office.statuses([saga_id]) == [Status.COMPENSATED]
    (told,) = [line for line in caplog.records if line.name == "sagas_framework.orchestrator"]
    assert told.getMessage() == f"saga {saga_id}: our own code for verify raised"
    assert told.exc_info is not None
    assert "in verify_nobody" in caplog.text


def test_an_act_that_cannot_be_committed_is_declined_and_the_others_are_carried_out(office: Office) -> None:
    ids = office.start(1, 2)
    acts = [office.sagas.act(saga_id, Act.CANCEL, by="ann", reason="test") for saga_id in ids]
    decide = office.orchestrator._decide

    def stumble(tx: Any, batch: Any, instance: Any, event: Event, *rest: Any) -> Any:
        if isinstance(event, OperatorActed) and event.saga_id == ids[0]:
            raise RuntimeError("cannot")
        return decide(tx, batch, instance, event, *rest)

    office.orchestrator._decide = stumble  # type: ignore[assignment, method-assign]

    office.orchestrator.obey_acts()

    answers = [office.sagas.act_answer(act) for act in acts]
    assert [answer.refused for answer in answers] == [True, False]
    assert "cannot be carried out: RuntimeError: cannot" in str(answers[0].answer)
    assert office.statuses(ids)[1] is Status.COMPENSATED


def test_replies_of_a_batch_are_decided_one_by_one_when_it_cannot_be_committed_as_one(office: Office) -> None:
    trouble[2] = no_such_page
    ids = office.start(1, 2, 3)

    left = office.orchestrator.process([Started(saga_id, office.now) for saga_id in ids])

    assert [event.saga_id for event in left] == [ids[1]]
    assert office.statuses(ids) == [Status.COMPLETED, Status.RUNNING, Status.COMPLETED]


@pytest.mark.parametrize(
    "error",
    [OSError("caf\udce9.txt"), ValueError("a NUL: \0"), RuntimeError("plain")],
    ids=["surrogate", "nul", "plain"],
)
def test_whatever_a_local_step_raises_can_be_told(office: Office, error: Exception) -> None:
    def fail(_session: Session) -> None:
        raise error

    trouble[1] = fail
    ids = office.start(1)

    office.orchestrator.fire_timers({})

    assert office.statuses(ids) == [Status.COMPENSATED]


def test_what_cannot_be_committed_is_told_in_the_history(office: Office) -> None:
    trouble[2] = no_such_page
    ids = office.start(2)

    office.orchestrator.fire_timers({})

    (line,) = [line.recorded for line in office.sagas.history(ids[0]) if line.recorded.entry == "stumbled"]
    assert line.detail["type"] == "IntegrityError"


def test_an_act_for_which_the_database_is_away_holds_up_no_other(office: Office) -> None:
    ids = office.start(1, 2)
    acts = [office.sagas.act(saga_id, Act.CANCEL, by="ann", reason="test") for saga_id in ids]
    decide = office.orchestrator._decide

    def away(tx: Any, batch: Any, instance: Any, event: Event, *rest: Any) -> Any:
        if isinstance(event, OperatorActed) and event.saga_id == ids[0]:
            raise StoreUnavailable("for this one alone")
        return decide(tx, batch, instance, event, *rest)

    office.orchestrator._decide = away  # type: ignore[assignment, method-assign]

    office.orchestrator.obey_acts()

    assert [office.sagas.act_answer(act).refused for act in acts] == [True, False]
    assert office.statuses(ids)[1] is Status.COMPENSATED


def test_bad_replies_at_the_head_of_a_batch_hold_up_no_other(office: Office) -> None:
    trouble[1] = trouble[2] = database_away
    ids = office.start(1, 2, 3)

    left = office.orchestrator.process([Started(saga_id, office.now) for saga_id in [*ids[:2], *ids]])

    assert {event.saga_id for event in left} == set(ids[:2])
    assert office.statuses(ids)[2] is Status.COMPLETED


def test_rows_that_local_steps_say_they_will_get_are_read_at_once(office: Office) -> None:
    ids = office.lend(1, 2, 3, 3)

    looks = office.process(ids)

    assert len(looks) == 1
    assert office.statuses(ids) == [Status.COMPLETED] * 4
    assert office.books() == {1: 1, 2: 1, 3: 0}


def test_what_is_read_at_once_is_decided_once(office: Office) -> None:
    ids = office.lend(1, 2, 3)
    asked.clear()

    office.process(ids)

    assert sorted(asked) == [1, 2, 3]


def test_a_local_step_that_cannot_say_which_row_it_will_get_gets_it_all_the_same(office: Office) -> None:
    trouble[2] = "no telling"
    ids = office.lend(1, 2, 3)

    looks = office.process(ids)

    assert len(looks) == 2
    assert office.statuses(ids) == [Status.COMPLETED] * 3


def test_a_row_that_is_not_there_fails_its_own_step_alone(office: Office) -> None:
    ids = office.lend(1, 2, 3)
    with Session(office.sagas.engine) as session, session.begin():
        session.delete(session.get_one(Shelf, 2))

    office.process(ids)

    assert office.statuses(ids) == [Status.COMPLETED, Status.COMPENSATED, Status.COMPLETED]
    assert office.books() == {1: 1, 3: 1}
