"""Bringing a database to the schema of this release, and telling when it is not there."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.operations import Operations
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, column, inspect, select, table, text

from sagas_framework.errors import SchemaOutdated
from sagas_framework.storage.engine import masked, reading
from sagas_framework.storage.tables import metadata

LIBRARY_MIGRATIONS: Final = Path(__file__).parent / "migrations"
LIBRARY_VERSIONS: Final = "saga_alembic_version"
_UPGRADE_LOCK: Final = 7_205_759_403_792_794  # any number that no one else locks


def upgrade(
    engine: Engine, scripts: Path = LIBRARY_MIGRATIONS, version_table: str = LIBRARY_VERSIONS
) -> list[str]:
    """Run the migrations that the database lacks, in one transaction; their names, oldest first.

    Two services that upgrade the same database at once do so one after the other.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        directory = _directory(scripts)
        ran: list[str] = []

        def steps(revision: Any, _context: MigrationContext) -> list[Any]:
            todo = directory._upgrade_revs("heads", revision)
            ran.extend(f"{step.revision.revision} {step.doc}" for step in todo)
            return todo

        context = _context(connection, version_table, fn=steps)
        with Operations.context(context):
            context.run_migrations()
        return ran


def check_schema(
    engine: Engine, scripts: Path = LIBRARY_MIGRATIONS, version_table: str = LIBRARY_VERSIONS, *, how: str
) -> None:
    """Compare the database's version with this release's.

    Raises:
        SchemaOutdated: it is older (or newer than this release knows); the message has the command `how`.
    """
    with reading(engine) as connection:
        versions = table(version_table, column("version_num"))
        there = inspect(connection).has_table(version_table)
        current = set(connection.scalars(select(versions.c.version_num))) if there else set()
    wanted = set(_directory(scripts).get_heads())
    if current != wanted:
        have = ", ".join(sorted(current)) or "none"
        address = masked(engine.url.render_as_string(hide_password=False))
        raise SchemaOutdated(
            f"The database {address} is at schema {have} ({version_table}), and this release needs "
            f"{', '.join(sorted(wanted))}. Run: {how}"
        )


def difference(engine: Engine) -> list[Any]:
    """What the library's tables in the database lack against the declared ones; nothing after `upgrade`."""

    def ours(_object: object, name: str | None, type_: str, *_: object) -> bool:
        return type_ != "table" or name in metadata.tables

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        return list(compare_metadata(context, metadata))


def _directory(scripts: Path) -> ScriptDirectory:
    return ScriptDirectory(str(scripts), version_locations=[str(scripts / "versions")])


def _context(connection: Connection, version_table: str, **options: Any) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": version_table, **options})
