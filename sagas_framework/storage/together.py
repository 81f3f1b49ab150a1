"""One session for the code of several sagas in one transaction: what each writes is sent with the others'.

Participants' handlers share one, and so do local steps: both are handlers here. A savepoint for each costs
more than most of them do. Without one, no handler's work can be taken back by itself: whoever needs that
begins the transaction again, with a savepoint for each (`sagas_framework.storage.engine.guarded_session`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Final, NoReturn

from sqlalchemy import Column, Connection, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper, Session, SessionTransaction

from sagas_framework.storage.engine import is_unavailable
from sagas_framework.storage.ports import Entangled, Wanted

_LATER: Final = frozenset({"select", "raise", "raise_on_sql", "noload", "write_only", "dynamic"})
"""How related rows are loaded that are not loaded with the row itself."""


class Together:
    """The session that the handlers of a transaction share, and what waits until their work is written.

    It is made when the first of them asks for it.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session: _SharedSession | None = None
        self._waiting: list[Callable[[], None]] = []
        self._loaded: list[object] = []

    @contextmanager
    def lent(self) -> Iterator[Session]:
        """The session, for a handler that is the block.

        Raises:
            Entangled: an error left the block, or as of `leave`. Only of a database that is away it
                leaves as it is.
        """
        with _entangling():
            yield self.enter()
            self.leave()

    def enter(self) -> Session:
        """The session, for a handler that begins.

        Raises:
            Entangled: the database refused something that was left in it.
        """
        session = self._begun()
        with _entangling():
            session.enter()
        return session

    def leave(self, then: Callable[[], None] | None = None) -> None:
        """The handler that entered has ended well. `then` is called when its work is written.

        Raises:
            Entangled: it did what must not be done to the others' work, or the database refused something.
        """
        session = self._begun()
        session.check()
        if then is not None:
            self._waiting.append(then)
        if session.stale:
            self.forget()

    def write(self) -> None:
        """Have everything written, then call whoever waits for that.

        Raises:
            Entangled: the database does not take it, or one of those who waited raised.
        """
        if self._session is None:
            return
        self._session.check()
        with _entangling():
            self._session.flush()
            while self._waiting:
                then = self._waiting.pop(0)
                try:
                    then()
                except Exception as error:  # whoever is told of it, and may swallow it, is another
                    self._session.note(f"who waited for it raised {type(error).__name__}: {error}")
                    raise

    def forget(self) -> None:
        """Have everything written, and read anew what is asked for next: somebody may have changed it."""
        if self._session is not None:
            self.write()
            self._loaded.clear()
            self._session.forget()

    def load(self, wanted: Iterable[Wanted]) -> None:
        """Read these rows now, a class at a time, so that `Session.get` has them later.

        Raises:
            Entangled: the database refuses.
        """
        keys: dict[type, list[Any]] = {}
        for entity, key in wanted:
            if key is not None:
                keys.setdefault(entity, []).append(key)
        for entity, found in keys.items():
            columns: Any = inspect(entity).primary_key
            if len(found) == 1 or len(columns) > 1:  # one alone is read as cheaply by whoever needs it
                continue
            rows: Any = select(entity).where(columns[0].in_(dict.fromkeys(found)))
            with _entangling():
                self._loaded.extend(Session.scalars(self._begun(), rows))

    def close(self) -> None:
        """The transaction ends; whatever was not written is dropped."""
        if self._session is not None:
            self._session.over = True
            self._session.close()

    def _begun(self) -> _SharedSession:
        if self._session is None:
            self._session = _SharedSession(self._connection)
        return self._session


@contextmanager
def _entangling() -> Iterator[None]:
    """Raise `Entangled` for whatever is raised, but for a database that is away."""
    try:
        yield
    except Entangled:
        raise
    except Exception as error:
        if is_unavailable(error):
            raise
        raise Entangled(f"{type(error).__name__}: {error}") from error


class _SharedSession(Session):
    """A session of several handlers, one after the other, none of whom can harm the others' work.

    Whoever executes a statement finds what those before him have left, also where SQLAlchemy by itself
    would not flush. What would drop or end their work raises `Entangled`, and so does everything later.
    """

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection, join_transaction_mode="rollback_only")
        self.over = False
        self.stale = False
        self._others = False  # those before have left what is not written
        self._theirs = False  # rows may be known because others looked at them
        self._getting: tuple[Any, bool] | None = None
        self._spoilt: str | None = None

    def enter(self) -> None:
        """A handler begins."""
        self._others = self._theirs = True
        self.autoflush = True
        if self.deleted:  # until they are, they would be found by their keys
            self.flush()

    def check(self) -> None:
        """See that nothing happened that others pay for.

        Raises:
            Entangled: it did.
        """
        if self._spoilt is None and self.in_nested_transaction():
            self.note("a savepoint was left open")
        if self._spoilt is not None:
            raise Entangled(self._spoilt)

    def forget(self) -> None:
        """Know no row any more."""
        super().expunge_all()
        self.stale = False

    # ---- looking: what others have left is written first -------------------------------------------------

    def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        with self._looking(_changing(statement)):
            return super().execute(statement, *args, **self._as_it_is(statement, options))

    def scalar(self, statement: Any, *args: Any, **options: Any) -> Any:
        with self._looking(_changing(statement)):
            return super().scalar(statement, *args, **self._as_it_is(statement, options))

    def scalars(self, statement: Any, *args: Any, **options: Any) -> Any:
        with self._looking(_changing(statement)):
            return super().scalars(statement, *args, **self._as_it_is(statement, options))

    def _as_it_is(self, statement: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Have a row that is locked be read, also if the session knows it: from before it was locked."""
        if getattr(statement, "_for_update_arg", None) is None:
            return options
        if self.identity_map._modified:  # what is read must not go over it
            self.flush()
        given = options.get("execution_options") or {}
        return {**options, "execution_options": {**given, "populate_existing": True}}

    def connection(self, *args: Any, **options: Any) -> Connection:
        with self._looking(changing=True):
            return super().connection(*args, **options)

    def refresh(self, *args: Any, **options: Any) -> None:
        self.flush()
        super().refresh(*args, **options)

    def get(self, entity: Any, ident: Any, **options: Any) -> Any:
        """A row by its primary key. It alone is known to change nothing behind the session's back."""
        before, self._getting = self._getting, (entity, any(options.values()))
        try:
            return super().get(entity, ident, **options)
        finally:
            self._getting = before

    @contextmanager
    def _looking(self, changing: bool = False) -> Iterator[None]:
        apart = self._getting is not None and self._apart(*self._getting)
        if self._others and not apart:
            self._others = False
            self.flush()
        if changing and self._theirs:
            self._theirs = False
            # Whoever changes a row by hand, and then gets it, is to find it changed.
            for known in self.identity_map.values():
                if not inspect(known).modified:
                    super().expire(known)
        # A statement may change rows that the session knows, or call what changes them.
        self.stale = self.stale or self._getting is None
        autoflush, self.autoflush = self.autoflush, self.autoflush and not apart
        try:
            yield
        except DBAPIError as error:
            self._fail(error)
            raise
        finally:
            self.autoflush = autoflush

    def _apart(self, entity: Any, special: bool) -> bool:
        """Whether a row of this class, found by its key, is the same before and after what is to be written.

        Otherwise each who gets one would write, in a statement of its own, what the one before it has
        changed. New and deleted rows make a difference. A changed one is another row, or in the session
        already; unless its key was changed, more is loaded than one row, or it is locked or read anew
        (`special`).
        """
        mapper = inspect(entity, raiseerr=False)
        if special or self.new or self.deleted or not isinstance(mapper, Mapper) or not _one_row(mapper):
            return False
        return not any(
            key.key in state.committed_state
            for state in self.identity_map._modified
            for key in state.mapper._identity_key_props
        )

    def flush(self, objects: Sequence[Any] | None = None) -> None:
        try:
            super().flush(objects)
        except BaseException as error:
            self._fail(error)
            raise

    def _fail(self, error: BaseException) -> None:
        # A handler's own savepoint takes back what failed in it: the others' work was written before it.
        if not self.in_nested_transaction():
            self.note(f"the database refused: {error}")

    # ---- what would end or drop the work of others -------------------------------------------------------

    def note(self, what: str) -> None:
        """Something happened that others pay for; the first counts."""
        self._spoilt = self._spoilt or what

    def spoil(self, what: str) -> NoReturn:
        self.note(what)
        raise Entangled(what)

    def begin(self, nested: bool = False) -> SessionTransaction:
        if not nested:
            self.spoil("a handler begins a transaction of its own")
        return super().begin(nested)


def _changing(statement: Any) -> bool:
    """Whether it may change rows: all that are not known to read only."""
    return not getattr(statement, "is_select", False)


@cache
def _one_row(mapper: Mapper[Any]) -> bool:
    """Whether loading an object of this class looks at one row and no other."""
    return all(related.lazy in _LATER for related in mapper.relationships) and all(
        isinstance(part, Column) for attribute in mapper.column_attrs for part in attribute.columns
    )


def _spoiling(name: str) -> Callable[..., Any]:
    inherited = getattr(Session, name)

    def method(self: _SharedSession, *args: Any, **options: Any) -> Any:
        if not self.over:
            self.spoil(f"a handler calls {name}()")
        return inherited(self, *args, **options)

    method.__name__ = name
    return method


_SPOILING: Final = (
    *("commit", "rollback", "close", "reset", "invalidate", "prepare"),
    *("expunge", "expunge_all", "expire", "expire_all"),
    *("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings"),
)
for _name in _SPOILING:
    setattr(_SharedSession, _name, _spoiling(_name))


@event.listens_for(_SharedSession, "after_transaction_end")
def _note_end(session: _SharedSession, transaction: SessionTransaction) -> None:
    if transaction.parent is None and not session.over:
        session.note("the transaction was ended")
