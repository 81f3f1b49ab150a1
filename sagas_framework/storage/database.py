"""A service's database: its engine, made when first needed, and its schema."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, NullPool

from sagas_framework.storage.engine import make_engine, masked
from sagas_framework.storage.migrate import check_schema, upgrade

_SOON: Final = {"connect_timeout": 3, "tcp_user_timeout": 3_000}  # seconds; milliseconds


class Database:
    """The one database of a service: the library's tables and its own.

    Args:
        service: names the table that remembers the service's own migrations.
        migrations: folder of the service's own Alembic scripts, if it has any.
        options: of its engine; see `make_engine`.
    """

    def __init__(self, service: str, url: str, migrations: Path | None = None, **options: Any) -> None:
        self.service = service
        self.url = url
        self.migrations = migrations
        self._options = options

    @cached_property
    def engine(self) -> Engine:
        """Raises ConfigurationError: the address cannot be read."""
        return make_engine(self.url, **self._options)

    @cached_property
    def impatient(self) -> Database:
        """The same database, for whoever must answer soon.

        A PostgreSQL that does not answer is given up after 3 s, and connections are not kept, so that
        none is waited for and none is found dead. SQLite is a file, and the same object.

        Raises:
            ConfigurationError: the address cannot be read.
        """
        if self.engine.dialect.name != "postgresql" or self.engine.driver != "psycopg":
            return self
        return Database(self.service, self.url, self.migrations, poolclass=NullPool, connect_args=_SOON)

    @cached_property
    def apart(self) -> Database:
        """The same database by connections that nobody keeps: neither a pool nor a process that is forked.

        Raises:
            ConfigurationError: the address cannot be read.
        """
        return Database(self.service, self.url, self.migrations, poolclass=NullPool)

    def upgrade(self) -> list[str]:
        """Bring both schemas to this release; the migrations that ran."""
        ran = upgrade(self.engine)
        if self.migrations is not None:
            ran += upgrade(self.engine, self.migrations, self._own_versions)
        return ran

    def check(self) -> None:
        """Raises SchemaOutdated: a migration is missing, with the command that runs it."""
        how = f"saga -A {self.service}.worker db upgrade"
        check_schema(self.engine, how=how)
        if self.migrations is not None:
            check_schema(self.engine, self.migrations, self._own_versions, how=how)

    @property
    def _own_versions(self) -> str:
        return f"{self.service}_alembic_version"

    def __str__(self) -> str:
        return masked(self.url)
