"""A service's database: its engine, made when first needed, and its schema."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine

from sagas_framework.storage.engine import make_engine, masked
from sagas_framework.storage.migrate import check_schema, upgrade


class Database:
    """The one database of a service: the library's tables and its own.

    Args:
        service: names the table that remembers the service's own migrations.
        migrations: folder of the service's own Alembic scripts, if it has any.
    """

    def __init__(self, service: str, url: str, migrations: Path | None = None) -> None:
        self.service = service
        self.url = url
        self.migrations = migrations

    @cached_property
    def engine(self) -> Engine:
        """Raises ConfigurationError: the address cannot be read."""
        return make_engine(self.url)

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
