"""Where the services of a run keep their rows: in memory, or on SQLite through the library's own SQL."""

from __future__ import annotations

import pickle
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Column, Integer, LargeBinary, MetaData, Table, delete, event, insert, select, update
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from sagas_framework.core.instance import SagaInstance
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.memory import MemoryDatabase, MemoryInbox, MemorySession, MemoryStore
from sagas_framework.storage.ports import ActRow, Inbox, SignalRow, Store
from sagas_framework.storage.reads import read_acts, read_history, read_instances, read_quarantine
from sagas_framework.storage.signals import insert_signal, read_signals
from sagas_framework.storage.sql import SqlStore, insert_acts, instance_values
from sagas_framework.storage.sql_inbox import SqlInbox, read_inbox
from sagas_framework.storage.tables import saga_inbox, saga_instance

_METADATA: Final = MetaData()
_ROWS: Final = Table(
    "simulation_rows",
    _METADATA,
    Column("id", Integer, primary_key=True),
    Column("rows", LargeBinary, nullable=False),
)


class Backing(Protocol):
    """One service's database in a run.

    Attributes:
        seen: what is in it, as of the last `look`.
    """

    seen: MemoryDatabase

    def store(self) -> Store: ...
    def inbox(self) -> Inbox: ...
    def begin(self, instance: SagaInstance) -> None:
        """A saga is started."""

    def ask(self, act: ActRow) -> int:
        """An operator acts; the act's number."""

    def say(self, signal: SignalRow) -> None:
        """Somebody signals a saga."""

    def forget(self, key: str) -> None:
        """An inbox row is deleted."""

    def look(self) -> None:
        """Read what has been committed."""

    def close(self) -> None:
        """Nothing more happens to it; what was `seen` stays."""


class InMemory:
    """See `Backing`."""

    def __init__(self) -> None:
        self.seen = MemoryDatabase()

    def store(self) -> Store:
        return MemoryStore(self.seen)

    def inbox(self) -> Inbox:
        return MemoryInbox(self.seen)

    def begin(self, instance: SagaInstance) -> None:
        self.seen.instances[instance.id] = instance

    def ask(self, act: ActRow) -> int:
        return self.seen.add_act(act).id

    def say(self, signal: SignalRow) -> None:
        self.seen.add_signal(signal)

    def forget(self, key: str) -> None:
        self.seen.inbox.pop(key, None)

    def look(self) -> None:
        """Nothing is to be read."""

    def close(self) -> None:
        """Nothing is open."""


class OnSqlite:
    """See `Backing`. A file for each run, so that what was rolled back was really written before.

    Nobody waits for a locked database: in virtual time that would be for ever.
    """

    def __init__(self, seen: MemoryDatabase) -> None:
        self.seen = seen
        self._folder = tempfile.TemporaryDirectory(prefix="saga-simulation-")
        file = Path(self._folder.name) / "service.sqlite"
        file.write_bytes(_empty())
        self._engine = make_engine(f"sqlite:///{file}?timeout=0", poolclass=QueuePool)
        event.listen(self._engine, "connect", _without_waiting_for_the_disk)
        with self._engine.begin() as connection:
            connection.execute(update(_ROWS).values(rows=pickle.dumps(seen.rows)))
        for instance in seen.instances.values():
            self.begin(instance)

    def store(self) -> Store:
        return SqlStore(self._engine)

    def inbox(self) -> Inbox:
        return SqlInbox(self._engine)

    def begin(self, instance: SagaInstance) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(saga_instance).values(instance_values(instance) | {"digest": ""}))
        self.look()

    def ask(self, act: ActRow) -> int:
        with self._engine.begin() as connection:
            (number,) = insert_acts(connection, [act])
        self.look()
        return number

    def say(self, signal: SignalRow) -> None:
        with self._engine.begin() as connection:
            insert_signal(connection, signal)
        self.look()

    def forget(self, key: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(saga_inbox).where(saga_inbox.c.key == key))
        self.look()

    def look(self) -> None:
        seen = self.seen
        with reading(self._engine) as connection:
            ids = connection.execute(select(saga_instance.c.id)).scalars().all()
            seen.instances = {one.id: one for one in read_instances(connection, ids)}
            seen.history = [line for saga_id in ids for line in read_history(connection, saga_id)]
            seen.acts = {act.id: act for saga_id in ids for act in reversed(read_acts(connection, saga_id))}
            signals = read_signals(connection, limit=1000)
            seen.signals = {signal.id: signal for signal in reversed(signals)}
            seen.inbox = {row.key: (row, at) for row, at in read_inbox(connection)}
            seen.quarantined = read_quarantine(connection, limit=1000)
            kept = connection.execute(select(_ROWS.c.rows)).scalar_one()
        seen.rows = pickle.loads(kept)

    def close(self) -> None:
        self._engine.dispose()
        self._folder.cleanup()


def _without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")  # processes die here; the power does not fail


class SqlRows(MemorySession):
    """A `MemorySession` whose rows are written through a real one, in its transaction."""

    def __init__(self, session: Session) -> None:
        super().__init__(pickle.loads(session.execute(select(_ROWS.c.rows)).scalar_one()))
        self._session = session

    def write(self) -> None:
        """Before the transaction commits."""
        self._session.execute(update(_ROWS).values(rows=pickle.dumps(self.rows)))


def rows_of(session: object) -> MemorySession:
    """What hooks and handlers get for the session of their transaction."""
    if isinstance(session, MemorySession):
        return session
    assert isinstance(session, Session)
    return SqlRows(session)


@cache
def _empty() -> bytes:
    """An SQLite file with this release's schema."""
    with tempfile.TemporaryDirectory(prefix="saga-simulation-") as folder:
        file = Path(folder) / "empty.sqlite"
        database = Database("simulation", f"sqlite:///{file}")
        database.upgrade()
        with database.engine.begin() as connection:
            _METADATA.create_all(connection)
            connection.execute(insert(_ROWS).values(id=1, rows=pickle.dumps({})))
        database.engine.dispose()
        return file.read_bytes()
