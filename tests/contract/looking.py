"""What a contract needs beside the edge itself: to put rows there, and to look behind the adapter."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar, cast
from uuid import UUID, uuid5

from sqlalchemy import Engine, insert, text
from sqlalchemy.orm import Session

from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.core.why import QueueSeen
from sagas_framework.storage.engine import make_engine, reading
from sagas_framework.storage.memory import MemoryDatabase, MemorySession
from sagas_framework.storage.migrate import upgrade
from sagas_framework.storage.ports import ActRow, Beat, HistoryLine, Quarantined, SignalRow
from sagas_framework.storage.reads import (
    read_act,
    read_beats,
    read_history,
    read_instance,
    read_quarantine,
    read_queues,
)
from sagas_framework.storage.redis_inbox import RedisInbox
from sagas_framework.storage.signals import insert_signal, read_signals
from sagas_framework.storage.sql import act_row, ask_replay, drop_quarantined, instance_values
from sagas_framework.storage.tables import metadata, saga_act, saga_instance
from sagas_framework.transport.publisher import Publisher

T = TypeVar("T")

NOON: Final = datetime(2026, 3, 1, 12, tzinfo=UTC)
_IDS: Final = UUID("01890a5d-ac96-774b-bcce-b302099a8057")

BOUNDED: Final = 15.0
"""Seconds after which something that should happen in another thread or process counts as never."""


def saga_id(name: str) -> str:
    return str(uuid5(_IDS, name))


def an_instance(name: str, due: datetime | None = None, **changes: Any) -> SagaInstance:
    values: dict[str, Any] = {
        "id": saga_id(name),
        "saga": "create_order",
        "version": 1,
        "shape": "0123456789abcdef",
        "key": f"order-{name}",
        "status": Status.RUNNING,
        "state": {"order_id": 7},
        "created_at": NOON,
        "updated_at": NOON,
        "due_at": due,
    }
    return SagaInstance(**(values | changes))


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def in_thread(act: Callable[[], T]) -> Future[T]:
    """Begin it in a thread; its result, or what it raised, in time."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(act())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class Looking(ABC):
    """A look behind the adapter, and a service's own table `work` beside the library's."""

    @abstractmethod
    def quarantined(self) -> list[Quarantined]:
        """Newest first."""

    @abstractmethod
    def ask_replay(self, message_id: int, by: str) -> None: ...

    @abstractmethod
    def beats(self) -> list[Beat]: ...


class Database(Looking):
    """A look into a database in which handlers and local steps can work."""

    @abstractmethod
    def seed(self, *instances: SagaInstance) -> None: ...

    @abstractmethod
    def instance(self, saga_id: str) -> SagaInstance | None: ...

    @abstractmethod
    def history(self, saga_id: str) -> list[HistoryLine]: ...

    @abstractmethod
    def queues(self) -> dict[str, QueueSeen]:
        """As they were last noted, by name."""

    @abstractmethod
    def add_act(self, act: ActRow) -> ActRow: ...

    @abstractmethod
    def act(self, act_id: int) -> ActRow | None: ...

    @abstractmethod
    def say(self, signal: SignalRow) -> SignalRow: ...

    @abstractmethod
    def signals(self) -> list[SignalRow]:
        """In the order of storing."""

    @abstractmethod
    def work(self, session: Session, value: str) -> None:
        """What a handler does through its session."""

    @abstractmethod
    def worked(self) -> list[str]:
        """What handlers did and was committed."""


class InMemory(Database):
    def __init__(self) -> None:
        self.database = MemoryDatabase()

    def quarantined(self) -> list[Quarantined]:
        return list(reversed(self.database.quarantined))

    def ask_replay(self, message_id: int, by: str) -> None:
        known = self.database.quarantined
        self.database.quarantined = [replace(m, replay=by) if m.id == message_id else m for m in known]

    def beats(self) -> list[Beat]:
        return [beat for _, beat in sorted(self.database.beats.items())]

    def seed(self, *instances: SagaInstance) -> None:
        self.database.instances |= {instance.id: instance for instance in instances}

    def instance(self, saga_id: str) -> SagaInstance | None:
        return self.database.instances.get(saga_id)

    def history(self, saga_id: str) -> list[HistoryLine]:
        return [line for line in self.database.history if line.saga_id == saga_id]

    def queues(self) -> dict[str, QueueSeen]:
        return dict(self.database.queues)

    def add_act(self, act: ActRow) -> ActRow:
        return self.database.add_act(act)

    def act(self, act_id: int) -> ActRow | None:
        return self.database.acts.get(act_id)

    def say(self, signal: SignalRow) -> SignalRow:
        return self.database.add_signal(signal)

    def signals(self) -> list[SignalRow]:
        return [signal for _, signal in sorted(self.database.signals.items())]

    def work(self, session: Session, value: str) -> None:
        rows = cast(MemorySession, session).rows
        rows.setdefault("work", []).append(value)

    def worked(self) -> list[str]:
        return list(self.database.rows.get("work", []))


class InSql(Database):
    def __init__(self, url: str) -> None:
        self.engine: Engine = make_engine(url)
        upgrade(self.engine)
        with self.engine.begin() as connection:
            connection.execute(text("CREATE TABLE IF NOT EXISTS work (value TEXT UNIQUE, note TEXT)"))

    def quarantined(self) -> list[Quarantined]:
        with reading(self.engine) as connection:
            return read_quarantine(connection)

    def ask_replay(self, message_id: int, by: str) -> None:
        with self.engine.begin() as connection:
            assert ask_replay(connection, message_id, by)

    def drop(self, message_id: int) -> bool:
        with self.engine.begin() as connection:
            return drop_quarantined(connection, message_id)

    def beats(self) -> list[Beat]:
        with reading(self.engine) as connection:
            return read_beats(connection)

    def seed(self, *instances: SagaInstance) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                insert(saga_instance), [instance_values(one) | {"digest": "d" * 64} for one in instances]
            )

    def instance(self, saga_id: str) -> SagaInstance | None:
        with reading(self.engine) as connection:
            return read_instance(connection, saga_id)

    def history(self, saga_id: str) -> list[HistoryLine]:
        with reading(self.engine) as connection:
            return read_history(connection, saga_id)

    def queues(self) -> dict[str, QueueSeen]:
        with reading(self.engine) as connection:
            return read_queues(connection)

    def add_act(self, act: ActRow) -> ActRow:
        values = {
            "saga_id": act.saga_id,
            "act": act.act.value,
            "by": act.by,
            "reason": act.reason,
            "revision": act.revision,
            "step": act.step,
            "reply": act.reply,
            "force": act.force,
            "created_at": act.created_at,
            "refused": False,
        }
        with self.engine.begin() as connection:
            return act_row(connection.execute(insert(saga_act).values(values).returning(saga_act)).one())

    def act(self, act_id: int) -> ActRow | None:
        with reading(self.engine) as connection:
            return read_act(connection, act_id)

    def say(self, signal: SignalRow) -> SignalRow:
        with self.engine.begin() as connection:
            return insert_signal(connection, signal)

    def signals(self) -> list[SignalRow]:
        with reading(self.engine) as connection:
            return read_signals(connection)[::-1]

    def work(self, session: Session, value: str) -> None:
        session.execute(text("INSERT INTO work (value) VALUES (:value)"), {"value": value})

    def worked(self) -> list[str]:
        with reading(self.engine) as connection:
            return list(connection.scalars(text("SELECT value FROM work ORDER BY value")))

    def clear(self) -> None:
        """Empty every table; numbers begin at 1 again (PostgreSQL only)."""
        names = ", ".join([*(f'"{table}"' for table in metadata.tables), "work"])
        with self.engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {names} RESTART IDENTITY"))


class InRedis(Looking):
    def __init__(self, inbox: RedisInbox) -> None:
        self.inbox = inbox

    def quarantined(self) -> list[Quarantined]:
        return self.inbox.read_quarantine()

    def ask_replay(self, message_id: int, by: str) -> None:
        assert self.inbox.ask_replay(message_id, by)

    def beats(self) -> list[Beat]:
        return self.inbox.read_beats()


@contextmanager
def sqlite_database(url: str, *, busy_timeout: float = BOUNDED) -> Iterator[InSql]:
    """A SQLite file with the tables; `busy_timeout`: seconds that a writer waits for another."""
    there = InSql(f"{url}?timeout={busy_timeout}")
    yield there
    there.engine.dispose()


@contextmanager
def postgres_database(url: str) -> Iterator[InSql]:
    """A PostgreSQL database with empty tables."""
    there = InSql(url)
    there.clear()
    yield there
    there.engine.dispose()


def messages(count: int) -> Sequence[Quarantined]:
    """Messages to set aside."""
    return [
        Quarantined(
            queue="restaurant_service.commands",
            task="restaurant_service.create_ticket",
            headers={"id": f"m{number}", "saga_attempt": 1},
            properties={"content_type": "application/json"},
            body='[["s", {}], {}, null]',
            reason="no task of this name",
            at=after(number),
            path="$[0]",
            saga_id=saga_id("a"),
        )
        for number in range(1, count + 1)
    ]


def depth(publisher: Publisher, queue: str) -> int | None:
    """How many messages wait in the queue."""
    load = publisher.load(queue)
    return None if load is None else load.messages
