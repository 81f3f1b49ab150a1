"""``saga db upgrade|check``: bring a service's database to this release's schema, or see that it is there."""

from __future__ import annotations

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.errors import SagasError, SchemaOutdated
from sagas_framework.storage.database import Database


@click.group()
@json_option
def db() -> None:
    """Upgrade or check the schema of the service's database."""


@db.command()
@json_option
@pass_program
def upgrade(program: Program) -> None:
    """Run the migrations that the database lacks: the library's, and the service's own."""
    ran = [(database, database.upgrade()) for database in _databases(program)]
    if program.json:
        listed = [{"service": d.service, "address": str(d), "ran": names} for d, names in ran]
        print_json({"databases": listed})
        return
    screen = Screen()
    for database, names in ran:
        screen.line(f"{database}: {'ran' if names else 'nothing to do'}")
        for name in names:
            screen.line(name, indent=4)


@db.command()
@json_option
@pass_program
def check(program: Program) -> None:
    """See whether the database is at this release's schema. Exits with 0 if so, else with 1."""
    found: list[tuple[Database, str | None]] = []
    for database in _databases(program):
        try:
            program.check(database)
            found.append((database, None))
        except SchemaOutdated as outdated:
            found.append((database, str(outdated)))
    wrong = [reason for _, reason in found if reason is not None]
    if program.json:
        listed = [
            {"service": d.service, "address": str(d), "current": reason is None, "reason": reason}
            for d, reason in found
        ]
        print_json({"databases": listed})
    else:
        for database, reason in found:
            if reason is None:
                Screen().line(f"{database}: at this release's schema")
        for reason in wrong:
            click.echo(f"Error: {reason}", err=True)
    if wrong:
        raise SystemExit(1)


def _databases(program: Program) -> list[Database]:
    """The databases of the service.

    Raises:
        SagasError: it has none.
    """
    databases = program.found.databases
    if not databases:
        raise SagasError(f"{program.name} has no SQL database: there is no schema to look after.")
    return databases
