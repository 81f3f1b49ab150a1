"""Makes the services' databases where there are none, and brings each to this release's schema.

``python -m app_common.migrate`` does it for all, as often as you like; ``make local`` begins with it.
Each service's worker must be stopped or of this release: one of another schema refuses to run.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import psycopg
from psycopg import errors, sql
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from app_common.running import SERVICES, CannotRun, upgrade
from app_common.settings import DATABASE_VARIABLE, SettingError, service_settings
from sagas_framework import SagasError

DEFAULT_DATABASE: Final = "postgresql+psycopg://some_user:some_password@localhost/{service}"


def main() -> int:
    """Do it and say what was done; the exit code."""
    os.environ.setdefault(DATABASE_VARIABLE, DEFAULT_DATABASE)
    try:
        for service in SERVICES:
            ran = migrate(service)
            print(f"{service}: {'ran ' + ', '.join(ran) if ran else 'nothing to do'}", flush=True)
    except (CannotRun, SettingError, SagasError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def migrate(service: str) -> list[str]:
    """Make the service's database if there is none, and upgrade it; the migrations that ran.

    Raises:
        CannotRun: the server does not answer, or refuses.
        SettingError: the address cannot be used.
    """
    url = make_url(service_settings(service).database)
    make_database(url)
    try:
        return upgrade(service)
    except SQLAlchemyError as error:
        raise CannotRun(f"The database {url} cannot be upgraded: {_first_line(error)}") from None


def make_database(url: URL) -> None:
    """Make the database if it cannot be opened and its server has none of this name.

    Raises:
        CannotRun: the server does not answer, or refuses.
    """
    if url.get_backend_name() != "postgresql":
        return
    try:
        psycopg.connect(_address(url), connect_timeout=5).close()
        return
    except psycopg.OperationalError:
        pass  # why, is told better by what follows
    server = url.set(database="postgres")
    try:
        with psycopg.connect(_address(server), connect_timeout=5, autocommit=True) as connection:
            known = "SELECT 1 FROM pg_database WHERE datname = %s"
            if connection.execute(known, [url.database]).fetchone() is None:
                name = sql.Identifier(url.database or "")
                connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    except (errors.DuplicateDatabase, errors.UniqueViolation):
        pass  # somebody else has made it at the same moment
    except psycopg.Error as error:
        raise CannotRun(
            f"The database {url} can neither be opened nor made: {_first_line(error)}\n"
            "See that PostgreSQL runs and that the user may make databases, or name another: "
            f"{DATABASE_VARIABLE}='postgresql://user:password@host/{{service}}'"
        ) from None


def _address(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


if __name__ == "__main__":
    sys.exit(main())
