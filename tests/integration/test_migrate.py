"""``python -m app_common.migrate``: databases and schemas for all services; Docker Compose runs it first."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from app_common.running import SERVICES
from tests.servers import Missing, PostgresServer, free_ports, skip_or_fail


@pytest.fixture
def databases(postgres_server: PostgresServer | Missing) -> Iterator[str]:
    """The address of databases that do not exist yet, with ``{service}`` in it; dropped afterwards."""
    if isinstance(postgres_server, Missing):
        skip_or_fail(postgres_server)
    with postgres_server.not_made_yet(SERVICES) as template:
        yield template


def begin(databases: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "app_common.migrate"],
        env=os.environ | {"APP_SQLALCHEMY_DATABASE_URI": databases},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """The exit code, and what was printed on either stream."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_databases_are_made_and_upgraded_and_a_second_run_changes_nothing(databases: str) -> None:
    first, second = end(begin(databases)), end(begin(databases))

    assert first[0] == 0, first
    for service, line in zip(SERVICES, first[1].splitlines(), strict=True):
        assert line.startswith(f"{service}: ran 0001 ")
    assert second == (0, "".join(f"{service}: nothing to do\n" for service in SERVICES), "")


def test_of_two_at_once_both_succeed(databases: str) -> None:
    running = [begin(databases) for _ in range(2)]

    ended = [end(process) for process in running]

    assert [code for code, _, _ in ended] == [0, 0], ended
    for service in SERVICES:
        told = [line for _, out, _ in ended for line in out.splitlines() if line.startswith(f"{service}:")]
        assert len(told) == 2
        assert any(": ran 0001 " in line for line in told)


def test_a_server_that_is_away_is_told_without_the_password() -> None:
    [port] = free_ports(1)

    code, out, err = end(begin(f"postgresql://ann:secret@127.0.0.1:{port}/{{service}}"))

    assert (code, out) == (1, "")
    assert err.startswith(
        f"The database postgresql+psycopg://ann:***@127.0.0.1:{port}/order_service can neither be opened "
    )
    assert "See that PostgreSQL runs and that the user may make databases" in err
    assert "secret" not in err


def test_a_database_that_may_not_be_written_is_told_in_a_line(databases: str) -> None:
    assert end(begin(databases))[0] == 0

    code, _, err = end(begin(f"{databases}?options=-csearch_path%3Dpg_catalog"))

    assert code == 1
    assert "order_service" in err
    assert "cannot be upgraded: " in err
    assert "Traceback" not in err
