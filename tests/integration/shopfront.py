"""The order service's web application on a database of the test's own, without any worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from sqlalchemy import text

import order_service
from order_service.orchestrator import sagas
from order_service.web import create_app
from sagas_framework.archiving import Archivist
from sagas_framework.storage.database import Database
from sagas_framework.storage.ports import Beat
from sagas_framework.storage.sql import SqlStore

MIGRATIONS: Final = Path(order_service.__file__).parent / "migrations"

Client: TypeAlias = Any
"""A `FlaskClient`, whose own type says of each answer that it may hold no JSON."""

ORDER: Final[dict[str, Any]] = {
    "consumer_id": 70,
    "card_id": 1,
    "price": "19.99",
    "items": [{"name": "Dish 1", "quantity": 2}, {"name": "Dish 2", "quantity": 1}],
}
"""An order that is approved."""


@contextmanager
def shopfront(url: str, monkeypatch: pytest.MonkeyPatch, *, upgrade: bool = True) -> Iterator[Client]:
    """A client of the application. Its sagas are started and stay where they are."""
    database = Database("order_service", url, MIGRATIONS)
    if upgrade:
        database.upgrade()
    monkeypatch.setattr(sagas, "database", database)
    yield create_app().test_client()
    database.engine.dispose()


def stored() -> dict[str, int]:
    """How many rows there are."""
    tables = ("orders", "order_items", "saga_instance")
    with sagas.engine.connect() as connection:
        return {
            table: connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one() for table in tables
        }


NOTHING: Final = {"orders": 0, "order_items": 0, "saga_instance": 0}


def archived(folder: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """When their time is over all sagas that have ended have gone to an archive; how many there were."""
    clock = sagas.clock
    with monkeypatch.context() as patch:
        patch.setattr(sagas, "archive", folder)
        patch.setattr(sagas, "clock", lambda: clock() + timedelta(days=90, minutes=1))
        archivist, count = Archivist(sagas), 0
        while (gone := archivist.turn()).more:
            count += gone.archived
        archivist.close()
    return count


def beat(*roles: str, seconds_ago: float = 0) -> None:
    """Let loops of an orchestrator turn."""
    at = sagas.clock() - timedelta(seconds=seconds_ago)
    for role in roles:
        SqlStore(sagas.engine).beat(Beat("order_service@box-17", role, at - timedelta(hours=1), at))


def post(client: Client, body: Any = ORDER, key: str | None = None) -> Any:
    """Post an order."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return client.post("/orders", json=body, headers=headers)
