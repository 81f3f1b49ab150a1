"""Work that is not guarded: written together, taken back together, and nobody harms the others'."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Protocol

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from sagas_framework.core.inbox import InboxRow, RowState
from sagas_framework.storage.ports import Entangled, InboxTurns
from sagas_framework.storage.sql import SqlStore
from sagas_framework.storage.sql_inbox import SqlInbox
from tests.contract.looking import NOON, InSql, postgres_database, sqlite_database


class Base(DeclarativeBase):
    pass


class Stock(Base):
    """A row whose id the database gives."""

    __tablename__ = "together_stock"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    left: Mapped[int] = mapped_column(default=0)


@pytest.fixture(params=["sqlite", "postgres"])
def there(request: pytest.FixtureRequest) -> Iterator[InSql]:
    open_database = {"sqlite": sqlite_database, "postgres": postgres_database}[request.param]
    with open_database(request.getfixturevalue(f"{request.param}_url")) as there:
        Base.metadata.create_all(there.engine)
        yield there


def row(key: str) -> InboxRow:
    return InboxRow(key, "saga-1", "shop.take", RowState.DONE)


def saved(there: InSql) -> list[str]:
    with there.engine.connect() as connection:
        return sorted(connection.scalars(text("SELECT key FROM saga_inbox")))


def stock(there: InSql) -> dict[str, int]:
    with there.engine.connect() as connection:
        return {row.name: row.left for row in connection.execute(select(Stock.name, Stock.left))}


@contextmanager
def batch(there: InSql, *keys: str) -> Iterator[InboxTurns]:
    with SqlInbox(there.engine).turns(keys, NOON) as turns:
        yield turns


def handle(
    turns: InboxTurns,
    key: str,
    handler: Callable[[Session], object],
    *,
    guarded: bool = False,
    then: Callable[[], None] | None = None,
) -> None:
    """As a participant does it for a handler that ends well."""
    turn = turns.get(key)
    assert turn is not None
    turn.guarded = guarded
    session = turn.session()
    assert session is not None
    handler(session)
    turn.finish_work(then)
    turn.save(row(key))


class Sharing(Protocol):
    """Has the code of several sagas share a session: call what it gives for each of them."""

    def __call__(self, there: InSql) -> AbstractContextManager[Callable[..., None]]: ...


@contextmanager
def commands(there: InSql) -> Iterator[Callable[..., None]]:
    with batch(there, *"abcde") as turns:
        keys = iter("abcde")
        yield lambda handler, **options: handle(turns, next(keys), handler, **options)


@contextmanager
def local_steps(there: InSql) -> Iterator[Callable[..., None]]:
    with SqlStore(there.engine).transaction() as tx:

        def step(hook: Callable[[Session], object], *, guarded: bool = False) -> None:
            with tx.savepoint() if guarded else tx.sharing() as session:
                hook(session)

        yield step


@pytest.fixture(params=[commands, local_steps])
def sharing(request: pytest.FixtureRequest) -> Sharing:
    chosen: Sharing = request.param
    return chosen


def adds(name: str) -> Callable[[Session], None]:
    return lambda session: session.add(Stock(name=name))


def test_what_all_have_added_is_written_with_one_statement(there: InSql) -> None:
    statements: list[str] = []
    event.listen(there.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    with batch(there, *"abc") as turns:
        for key in "abc":
            handle(turns, key, adds(key))

    at_once = there.engine.dialect.name == "postgresql"  # SQLite gives ids to one row at a time
    assert len([said for said in statements if "together_stock" in said]) == (1 if at_once else 3)
    assert not [said for said in statements if "SAVEPOINT" in said]
    assert stock(there) == {"a": 0, "b": 0, "c": 0}
    assert saved(there) == ["a", "b", "c"]


def test_who_waits_for_what_the_database_gives_is_called_when_it_is_there(there: InSql) -> None:
    ids: list[int] = []

    with batch(there, *"ab") as turns:
        for key in "ab":
            item = Stock(name=key)
            handle(turns, key, lambda s, item=item: s.add(item), then=lambda item=item: ids.append(item.id))  # type: ignore[misc]
        early = list(ids)
        turns.finish_work()
        late = list(ids)

    assert (early, late) == ([], [1, 2])
    assert ids == late


def test_one_by_one_it_is_called_at_once(there: InSql) -> None:
    for guarded in (True, False):
        ids: list[int] = []
        with SqlInbox(there.engine).turn(f"{guarded}", NOON) as turn:
            turn.guarded = guarded
            item = Stock(name=str(guarded))
            turn.session().add(item)
            turn.finish_work(lambda item=item, ids=ids: ids.append(item.id))  # type: ignore[misc]
            assert len(ids) == 1
            turn.save(row(str(guarded)))

    assert saved(there) == ["False", "True"]
    assert len(stock(there)) == 2


def test_what_a_handler_did_cannot_be_taken_back_alone(there: InSql) -> None:
    def fail() -> None:
        with batch(there, *"ab") as turns:
            handle(turns, "a", adds("a"))
            turn = turns.get("b")
            assert turn is not None
            turn.guarded = False
            turn.session()
            turn.undo_work()

    with pytest.raises(Entangled):
        fail()

    assert saved(there) == []
    assert stock(there) == {}


def test_a_handler_that_did_not_ask_for_its_session_has_nothing_to_take_back(there: InSql) -> None:
    with batch(there, *"ab") as turns:
        handle(turns, "a", adds("a"))
        turn = turns.get("b")
        assert turn is not None
        turn.guarded = False
        turn.undo_work()
        turn.save(row("b"))

    assert stock(there) == {"a": 0}
    assert saved(there) == ["a", "b"]


def test_who_was_waited_for_and_raises_takes_all_with_him(there: InSql) -> None:
    def fail() -> None:
        with batch(there, *"ab") as turns:
            handle(turns, "a", adds("a"))
            handle(turns, "b", adds("b"), then=lambda: print(1 // 0))

    with pytest.raises(Entangled):
        fail()

    assert stock(there) == {}


OTHERS_PAY: dict[str, Callable[[Session], object]] = {
    "commits": lambda session: session.commit(),
    "rolls back": lambda session: session.rollback(),
    "closes": lambda session: session.close(),
    "begins": lambda session: session.begin(),
    "forgets all": lambda session: session.expunge_all(),
    "expires all": lambda session: session.expire_all(),
    "resets": lambda session: session.reset(),
    "ends the transaction": lambda session: (session.connection(), session.get_transaction().close()),  # type: ignore[union-attr]
    "leaves a savepoint open": lambda session: session.begin_nested(),
}


@pytest.mark.parametrize("what", OTHERS_PAY)
def test_what_would_end_or_drop_the_others_work_ends_the_attempt(
    there: InSql, sharing: Sharing, what: str
) -> None:
    def harm(session: Session) -> None:
        session.add(Stock(name="b"))
        with suppress(Exception):  # swallowing it does not help
            OTHERS_PAY[what](session)

    def fail() -> None:
        with sharing(there) as share:
            share(adds("a"))
            share(harm)

    with pytest.raises(Entangled):
        fail()

    assert saved(there) == []
    assert stock(there) == {}


@pytest.mark.parametrize("last", [True, False])
def test_what_the_database_refuses_of_one_is_not_swallowed_by_another(
    there: InSql, sharing: Sharing, last: bool
) -> None:
    """The refused row is sent by whoever comes after, and who may expect just this error."""

    def tries(session: Session) -> None:
        with suppress(IntegrityError), session.begin_nested():
            session.add(Stock(name="c"))

    def fail() -> None:
        with sharing(there) as share:
            share(adds("twice"))
            share(adds("twice"))
            if not last:
                share(tries)

    with pytest.raises(Entangled):
        fail()

    assert stock(there) == {}


def test_a_refused_statement_that_is_swallowed_ends_the_attempt(there: InSql, sharing: Sharing) -> None:
    def swallows(session: Session) -> None:
        there.work(session, "x")
        with suppress(IntegrityError):
            there.work(session, "x")

    def fail() -> None:
        with sharing(there) as share:
            share(adds("a"))
            share(swallows)

    with pytest.raises(Entangled):
        fail()

    assert stock(there) == {}
    assert there.worked() == []


def test_what_fails_in_a_handlers_own_savepoint_is_its_own_affair(there: InSql, sharing: Sharing) -> None:
    def tries(session: Session) -> None:
        with suppress(IntegrityError), session.begin_nested():
            session.add(Stock(name="a"))

    with sharing(there) as share:
        share(adds("a"))
        share(tries)
        share(adds("c"))

    assert stock(there) == {"a": 0, "c": 0}


LOOKING: dict[str, Callable[[Session], list[str]]] = {
    "by the ORM": lambda session: list(session.scalars(select(Stock.name))),
    "by Core": lambda session: list(session.execute(select(Stock.__table__.c.name)).scalars()),
    "by hand": lambda session: list(session.scalars(text("SELECT name FROM together_stock"))),
    "by the connection": lambda session: list(
        session.connection().scalars(text("SELECT name FROM together_stock"))
    ),
    "without autoflush": lambda session: unflushed(session),
}


def unflushed(session: Session) -> list[str]:
    with session.no_autoflush:
        return list(session.scalars(select(Stock.name)))


@pytest.mark.parametrize("how", LOOKING)
def test_who_looks_finds_what_those_before_him_have_left(there: InSql, sharing: Sharing, how: str) -> None:
    seen: list[str] = []

    with sharing(there) as share:
        share(adds("a"))
        share(lambda session: seen.extend(LOOKING[how](session)))

    assert seen == ["a"]


@pytest.mark.parametrize("how", LOOKING)
def test_who_looks_finds_what_those_before_him_have_changed(there: InSql, sharing: Sharing, how: str) -> None:
    seen: list[str] = []
    with batch(there, "first") as turns:
        handle(turns, "first", adds("old"))

    with sharing(there) as share:
        share(lambda session: setattr(session.get_one(Stock, 1), "name", "new"))
        share(lambda session: seen.extend(LOOKING[how](session)))

    assert seen == ["new"]


def test_rows_found_by_key_are_changed_with_one_statement(there: InSql, sharing: Sharing) -> None:
    with batch(there, *"abc") as turns:
        for key in "abc":
            handle(turns, key, adds(key))
    statements: list[str] = []
    event.listen(there.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    with sharing(there) as share:
        for number in (1, 2, 3):
            share(lambda session, number=number: setattr(session.get_one(Stock, number), "left", 7))

    ours = [said.split()[0] for said in statements if "together_stock" in said]
    assert ours == ["SELECT", "SELECT", "SELECT", "UPDATE"]
    assert stock(there) == {"a": 7, "b": 7, "c": 7}


def test_a_row_that_another_has_deleted_is_not_found(there: InSql, sharing: Sharing) -> None:
    found: list[Stock | None] = []
    with batch(there, "first") as turns:
        handle(turns, "first", adds("a"))

    with sharing(there) as share:
        share(lambda session: session.delete(session.get_one(Stock, 1)))
        share(lambda session: found.append(session.get(Stock, 1)))

    assert found == [None]
    assert stock(there) == {}


def test_a_row_is_found_by_the_key_that_another_has_given_it(there: InSql, sharing: Sharing) -> None:
    found: list[str] = []
    with batch(there, "first") as turns:
        handle(turns, "first", adds("a"))

    with sharing(there) as share:
        share(lambda session: setattr(session.get_one(Stock, 1), "id", 5))
        share(lambda session: found.append(session.get_one(Stock, 5).name))

    assert found == ["a"]


def takes_one(session: Session) -> None:
    session.get_one(Stock, 1).left -= 1


CHANGES: dict[str, Callable[[Session], object]] = {
    "by hand": lambda session: session.execute(text('UPDATE together_stock SET "left" = 5')),
    "by the connection": lambda session: session.connection().execute(
        text('UPDATE together_stock SET "left" = 5')
    ),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("guarded", [True, False])
def test_a_row_that_another_changed_behind_the_session_is_read_anew(
    there: InSql, sharing: Sharing, how: str, guarded: bool
) -> None:
    with batch(there, "first") as turns:
        handle(turns, "first", adds("a"))

    kept: list[Stock] = []
    with sharing(there) as share:
        share(takes_one)
        share(lambda session: kept.append(session.get_one(Stock, 1)))  # the session has it for as long
        share(CHANGES[how], guarded=guarded)
        share(takes_one)
        share(takes_one)

    assert stock(there) == {"a": 3}


def test_a_row_that_was_loaded_is_read_anew_after_another_changed_it(there: InSql) -> None:
    with batch(there, "first") as turns:
        handle(turns, "first", adds("a"))

    with batch(there, *"ab") as turns:
        turns.load([(Stock, 1), (Stock, 1)])
        handle(turns, "a", CHANGES["by hand"])
        handle(turns, "b", takes_one)

    assert stock(there) == {"a": 4}


def test_rows_that_were_loaded_are_not_read_again(there: InSql) -> None:
    with batch(there, *"ab") as turns:
        handle(turns, "a", adds("a"))
        handle(turns, "b", adds("b"))
    statements: list[str] = []
    event.listen(there.engine, "before_cursor_execute", lambda *told: statements.append(told[2]))

    with batch(there, *"xyz") as turns:
        turns.load([(Stock, 1), (Stock, 2), (Stock, 2), (Stock, 9), (Stock, None)])
        for key, number in {"x": 1, "y": 2, "z": 2}.items():
            handle(turns, key, lambda s, n=number: setattr(s.get_one(Stock, n), "left", n))  # type: ignore[misc]

    ours = [said.split()[0] for said in statements if "together_stock" in said]
    assert ours == ["SELECT", "UPDATE"]
    assert stock(there) == {"a": 1, "b": 2}


def test_a_key_that_the_database_does_not_take_ends_the_attempt(there: InSql) -> None:
    def fail() -> None:
        with batch(there, "a") as turns:
            turns.load([(Stock, 2**80), (Stock, 1)])

    with pytest.raises(Entangled):
        fail()


def test_a_guarded_handler_among_others_sees_their_work_and_is_taken_back_alone(there: InSql) -> None:
    def copies(session: Session) -> None:
        session.add(Stock(name="copy of " + session.scalars(select(Stock.name)).one()))
        session.commit()

    with batch(there, *"abc") as turns:
        handle(turns, "a", adds("a"))
        turn = turns.get("b")
        assert turn is not None
        copies(turn.session())  # type: ignore[arg-type]
        turn.undo_work()
        turn.save(row("b"))
        handle(turns, "c", copies, guarded=True)

    assert stock(there) == {"a": 0, "copy of a": 0}
    assert saved(there) == ["a", "b", "c"]


LOCKING: dict[str, Callable[[Session], Stock]] = {
    "get": lambda session: session.get_one(Stock, 1, with_for_update=True),
    "select": lambda session: session.scalars(select(Stock).with_for_update()).one(),
    "execute": lambda session: session.execute(select(Stock).with_for_update()).scalar_one(),
    "scalar": lambda session: session.scalar(select(Stock).with_for_update()) or Stock(),
    "query": lambda session: session.query(Stock).with_for_update().one(),
}


@pytest.mark.parametrize("how", LOCKING)
@pytest.mark.parametrize("before", ["loaded", "got by another"])
def test_a_row_that_is_locked_is_as_others_have_committed_it(
    postgres_url: str, how: str, before: str
) -> None:
    kept: list[Stock] = []
    with postgres_database(postgres_url) as there:
        Base.metadata.create_all(there.engine)
        with batch(there, "first") as turns:
            handle(turns, "first", adds("a"))

        with batch(there, *"ab") as turns:
            if before == "loaded":
                turns.load([(Stock, 1), (Stock, 1)])
            else:
                handle(turns, "a", lambda session: kept.append(session.get_one(Stock, 1)))
            with there.engine.begin() as another:
                another.execute(text('UPDATE together_stock SET "left" = 5'))
            handle(
                turns, "b", lambda session: setattr(found := LOCKING[how](session), "left", found.left - 1)
            )

        assert stock(there) == {"a": 4}


@pytest.mark.parametrize("how", CHANGES)
def test_who_changes_a_row_by_hand_finds_it_changed(there: InSql, sharing: Sharing, how: str) -> None:
    with batch(there, "first") as turns:
        handle(turns, "first", adds("a"))
    kept: list[Stock] = []

    def changes(session: Session) -> None:
        CHANGES[how](session)
        takes_one(session)

    with sharing(there) as share:
        share(lambda session: kept.append(session.get_one(Stock, 1)))
        share(changes)

    assert stock(there) == {"a": 4}
