"""What every command has: the module found by ``-A``, ``--json``, and errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeVar

import click
from sqlalchemy.exc import SQLAlchemyError

from sagas_framework.cli.finding import Found, find
from sagas_framework.core.instance import SagaInstance
from sagas_framework.errors import SagasError
from sagas_framework.health import check_database, database_trouble
from sagas_framework.sagas import Sagas
from sagas_framework.storage.archive import Archive
from sagas_framework.storage.database import Database
from sagas_framework.storage.ports import StoreUnavailable
from sagas_framework.storage.retiring import saga_from_archive
from sagas_framework.view import SagaView

F = TypeVar("F", bound=Callable[..., Any])


class Program:
    """One call of ``saga``: what ``-A`` and ``--json`` said, and what was found there."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.json = False

    @cached_property
    def found(self) -> Found:
        """What ``-A`` names.

        Raises:
            SagasError: it was not given, or leads nowhere.
        """
        if not self.name:
            raise SagasError(
                "Which service? Give its worker's module as to Celery: saga -A order_service.worker ..., "
                "or set SAGA_APP."
            )
        return find(self.name)

    @cached_property
    def sagas(self) -> Sagas:
        """The sagas, in a database that is there and at this release's schema.

        Raises:
            SagasError: there are none, or the schema is old.
        """
        sagas = self.found.sagas
        if sagas is None:
            side = self.found.participant or self.found.subscriber
            assert side is not None
            kind = "participant" if self.found.participant else "subscriber"
            raise SagasError(
                f"{self.name} is the {kind} {side.service.name}: it has an inbox and no sagas. Name the "
                "worker of the service that orchestrates them."
            )
        self.check(sagas.database)
        return sagas

    def now(self) -> datetime:
        """The moment, by the clock of the service."""
        return self.found.clock()

    def check(self, database: Database) -> None:
        """See that the database is there, at this release's schema.

        Raises:
            SchemaOutdated: it is not; the message has the command for this very ``-A``.
        """
        check_database(database, self.name or "")

    def one(self, named: str) -> SagaInstance:
        """The instance that is meant by an id, a business key or the beginning of an id.

        Raises:
            SagasError: there is none, or more than one.
        """
        found = self.sagas.find(named)
        if not found:
            raise UnknownHere(
                f"No saga has the id or the key {named!r} in this database; `saga -A {self.name} list` shows "
                "those there are."
            )
        if len(found) > 1:
            candidates = "".join(f"\n  {i.id}  {i.saga}  {i.status.value}  {i.key}" for i in found)
            raise SagasError(f"{named!r} fits more than one saga. Write the id of one of them:{candidates}")
        return found[0]

    def view(self, named: str, folder: Path | None) -> SagaView:
        """What is known of the instance that is meant: in the database, or else in the archive.

        Args:
            folder: of the archive, if it is not where the service says.

        Raises:
            SagasError: there is none, or more than one.
        """
        try:
            return self.sagas.view(self.one(named).id)
        except UnknownHere:
            if folder is not None and not folder.is_dir():
                raise SagasError(f"There is no archive at {folder}, and {named!r} is not here.") from None
            folder = folder or self.sagas.archive
            if folder is None or not folder.is_dir():
                raise
            archive = Archive(folder)
            found = archive.find(named)
        if not found and (row := archive.operation(named)) is not None:
            raise SagasError(
                f"{named!r} is no saga but one of its operations: {row['task']} ({row['state']}), "
                f"in the inbox rows of {folder}. Show the saga that it belongs to: "
                f"saga -A {self.name} show {row['saga_id']}"
            )
        if not found:
            raise SagasError(f"No saga has the id or the key {named!r} in this database, nor in {folder}.")
        if len(found) > 1:
            ids = "".join(f"\n  {row['id']}  {row['key']}" for row in found)
            raise SagasError(f"{named!r} fits more than one saga in {folder}. Write the id of one:{ids}")
        instance, history, acts = saga_from_archive(found[0])
        definition = self.sagas.definitions.find(instance.saga, instance.version)
        refused = [act for act in acts if act.refused]
        return SagaView(instance, definition, self.now(), history=history, acts=refused)


class UnknownHere(SagasError):
    """No saga in the database is meant."""


pass_program = click.make_pass_decorator(Program)


def _note_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(Program).json = True


def json_option(command: F) -> F:
    """``--json``, before or after the command."""
    return click.option(
        "--json", is_flag=True, expose_value=False, callback=_note_json, help="Print one JSON object instead."
    )(command)


# ---- errors -----------------------------------------------------------------------------------------


@contextmanager
def in_words_only(program: Program) -> Iterator[None]:
    """Turn what is expected to go wrong into a line that says what to do; wrong calls exit with 1, too."""
    try:
        yield
    except click.UsageError as error:
        # 2, click's own code for it, says here that an act was stored and nobody took it.
        error.exit_code = 1  # type: ignore[misc]
        raise
    except (SQLAlchemyError, StoreUnavailable) as error:
        raise click.ClickException(database_trouble(error, _addresses(program))) from error
    except SagasError as error:
        raise click.ClickException(str(error)) from error


def _addresses(program: Program) -> str:
    try:
        return " or ".join(str(database) for database in program.found.databases)
    except SagasError:
        return "of the service"


# ---- kinds of arguments -----------------------------------------------------------------------------

_UNITS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "min": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}

_LONGEST: Final = timedelta(days=36_500)


class Span(click.ParamType[timedelta]):
    """A span of time: ``90s``, ``10m``, ``2h``, ``1d``, ``1h30m``."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        parts = re.findall(r"(\d+)\s*(min|[smhd])", value)
        if not parts or re.sub(r"(\d+)\s*(min|[smhd])", "", value).strip():
            self.fail(f"{value!r} is no span of time: write 90s, 10m, 2h, 1d or 1h30m.", param, ctx)
        try:
            span = sum((int(count) * _UNITS[unit] for count, unit in parts), timedelta())
        except OverflowError:
            span = timedelta.max
        if span > _LONGEST:
            self.fail(f"{value!r} is too long: at most {_LONGEST.days}d.", param, ctx)
        return span


def patient_database() -> None:
    """A PostgreSQL that does not answer is given up after 5 s; the driver would wait for minutes."""
    os.environ.setdefault("PGCONNECT_TIMEOUT", "5")
