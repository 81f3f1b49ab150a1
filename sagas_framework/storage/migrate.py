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

    Raises:
        SchemaOutdated: the database is at a schema that only a newer release knows; nothing was changed.
    """
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
        directory = _directory(scripts)
        if unknown := _versions(connection, version_table) - _known(directory):
            raise _outdated(engine, version_table, unknown, directory, None)
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
        SchemaOutdated: it is older, with the command `how`, or newer than this release knows.
    """
    with reading(engine) as connection:
        current = _versions(connection, version_table)
    directory = _directory(scripts)
    if current != set(directory.get_heads()):
        known = current <= _known(directory)
        raise _outdated(engine, version_table, current, directory, how if known else None)


def difference(engine: Engine) -> list[Any]:
    """What the library's tables in the database lack against the declared ones; nothing after `upgrade`."""

    def ours(_object: object, name: str | None, type_: str, *_: object) -> bool:
        return type_ != "table" or name in metadata.tables

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        return list(compare_metadata(context, metadata))


def _versions(connection: Connection, version_table: str) -> set[str]:
    """The schemas that the database says it is at."""
    if not inspect(connection).has_table(version_table):
        return set()
    return set(connection.scalars(select(table(version_table, column("version_num")).c.version_num)))


def _known(directory: ScriptDirectory) -> set[str]:
    return {script.revision for script in directory.walk_revisions()}


def _outdated(
    engine: Engine, version_table: str, current: set[str], directory: ScriptDirectory, how: str | None
) -> SchemaOutdated:
    have = ", ".join(sorted(current)) or "none"
    address = masked(engine.url.render_as_string(hide_password=False))
    return SchemaOutdated(
        f"The database {address} is at schema {have} ({version_table}), and this release needs "
        f"{', '.join(sorted(directory.get_heads()))}.",
        how,
    )


def _directory(scripts: Path) -> ScriptDirectory:
    return ScriptDirectory(str(scripts), version_locations=[str(scripts / "versions")])


def _context(connection: Connection, version_table: str, **options: Any) -> MigrationContext:
    return MigrationContext.configure(connection, opts={"version_table": version_table, **options})
