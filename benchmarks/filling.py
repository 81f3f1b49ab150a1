"""Fills the order platform's databases set-wise with sagas like one that ran: finished, and some in flight.

Rows are copies of real ones, with ids, keys and moments of their own, so that their sizes are real, too.
What is in flight waits for an answer, and is not looked at before the measurement is long over.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

from benchmarks.asked import PARTICIPANTS
from sagas_framework.storage.tables import saga_history, saga_inbox, saga_instance

CHUNK: Final = 50_000
"""Sagas in a statement."""

_AT: Final = "now() - interval '{days} days' + {n} * (interval '{days} days' - interval '2 hours') / {of}"
"""When the n-th was started: evenly over the time before, until two hours ago."""
_ID: Final = (
    "(lpad(to_hex((extract(epoch FROM {at}) * 1000)::bigint), 12, '0') || '7' || substr(md5({seed}), 1, 3)"
    " || '8' || substr(md5({seed}), 4, 15))::uuid::text"
)


def database_of(database: str, service: str) -> str:
    """The address of a service's database beside the run's own."""
    parts = urlsplit(database)
    return urlunsplit(parts._replace(path=f"{parts.path}_{service}"))


def fill(database: str, sagas: int, in_flight: int, *, days: int = 30) -> None:
    """Fill the databases of a run, in which at least one saga has completed.

    Args:
        database: the run's own; those of services have its name in front.
        sagas: that have ended, with their histories and their rows in inboxes.
        in_flight: that wait for their first answer.
        days: over which they were started.
    """
    began = time.monotonic()
    with _connected(database_of(database, "order_service")) as connection:
        template = connection.execute(
            "SELECT id FROM saga_instance WHERE status = 'completed' ORDER BY id DESC LIMIT 1"
        ).fetchone()
        assert template is not None, "no saga has completed here, of which there could be copies"
        for first, last in _chunks(sagas):
            _copy_finished(connection, template[0], first, last, sagas, days)
            _say(f"{last:,} of {sagas:,} finished", began)
        for first, last in _chunks(in_flight):
            _copy_open(connection, template[0], first, last, in_flight, days)
        _say(f"{in_flight:,} in flight", began)
        connection.execute("VACUUM ANALYZE")
    for service in PARTICIPANTS:
        with _connected(database_of(database, service)) as connection:
            for first, last in _chunks(sagas):
                _copy_operations(connection, template[0], first, last, sagas, days)
            connection.execute("VACUUM ANALYZE")
        _say(f"inbox of {service}", began)
    with _connected(database) as connection:
        connection.execute("CHECKPOINT")
    _say("filled", began)


def _connected(url: str) -> psycopg.Connection[Any]:
    # What is lost in a crash is filled anew.
    return psycopg.connect(url, autocommit=True, options="-c synchronous_commit=off")


def _chunks(count: int) -> Iterator[tuple[int, int]]:
    for first in range(1, count + 1, CHUNK):
        yield first, min(first + CHUNK - 1, count)


def _say(what: str, began: float) -> None:
    print(f"  {time.monotonic() - began:5.0f} s: {what}", file=sys.stderr, flush=True)


def _numbered(kind: str, of: int, days: int) -> tuple[str, str]:
    """`(moment, id)` of the n-th, as SQL."""
    at = _AT.format(days=days, n="n", of=of)
    return at, _ID.format(at=at, seed=f"'{kind}' || n")


def _series(at: str, saga_id: str) -> str:
    """The numbers of a chunk, as a table that gives each its moment and id."""
    numbers = "generate_series(%(first)s::int, %(last)s::int) AS n"
    return f"(SELECT n, {at} AS at, {saga_id} AS made FROM {numbers}) AS new"


def _insert(
    connection: psycopg.Connection[Any],
    table: str,
    values: Mapping[str, str],
    source: str,
    given: dict[str, Any],
) -> None:
    """Insert rows of expressions."""
    names = ", ".join(f'"{name}"' for name in values)
    text = f"INSERT INTO {table} ({names}) SELECT {', '.join(values.values())} FROM {source}"
    connection.execute(sql.SQL(re.sub(r"%(?!\()", "%%", text)), given)


def _copy_finished(
    connection: psycopg.Connection[Any], template: str, first: int, last: int, of: int, days: int
) -> None:
    at, saga_id = _numbered("finished", of, days)
    given = {"template": template, "first": first, "last": last}
    copied = {column.name: f't."{column.name}"' for column in saga_instance.c}
    numbered = _series(at, saga_id)
    changed = {
        "id": "new.made",
        "key": "'finished-' || new.n",
        "created_at": "new.at",
        "updated_at": "new.at + (t.updated_at - t.created_at)",
        "ended_at": "new.at + (t.ended_at - t.created_at)",
    }
    where = "saga_instance AS t WHERE t.id = %(template)s"
    _insert(connection, "saga_instance", copied | changed, f"{numbered}, {where}", given)
    lines = {column.name: f'h."{column.name}"' for column in saga_history.c if column.name != "seq"}
    changed = {"saga_id": "new.made", "at": "new.at + (h.at - t.created_at)"}
    where = (
        "saga_instance AS t, saga_history AS h WHERE t.id = %(template)s AND h.saga_id = t.id "
        "ORDER BY new.n, h.seq"
    )
    _insert(connection, "saga_history", lines | changed, f"{numbered}, {where}", given)


def _copy_open(
    connection: psycopg.Connection[Any], template: str, first: int, last: int, of: int, days: int
) -> None:
    at, saga_id = _numbered("open", of, days)
    given = {"template": template, "first": first, "last": last}
    copied = {column.name: f't."{column.name}"' for column in saga_instance.c}
    changed = {
        "id": "new.made",
        "key": "'open-' || new.n",
        "status": "'running'",
        "outcome": "NULL",
        "outcome_kind": "NULL",
        "created_at": "new.at",
        "updated_at": "new.at",
        "ended_at": "NULL",
        # Not before the measurement is over: each look is work, and what is measured is the rows' own.
        "due_at": "now() + interval '1 day' + new.n * interval '100 ms'",
        "cause": "'answer'",
        "waits_for": "'accounting_service.authorize_card'",
        "waits_since": "new.at",
    }
    numbered = _series(at, saga_id)
    where = "saga_instance AS t WHERE t.id = %(template)s"
    _insert(connection, "saga_instance", copied | changed, f"{numbered}, {where}", given)


def _copy_operations(
    connection: psycopg.Connection[Any], template: str, first: int, last: int, of: int, days: int
) -> None:
    """Rows of an inbox, as many for each saga as the template has."""
    at, saga_id = _numbered("finished", of, days)
    given = {"template": template, "first": first, "last": last}
    copied = {column.name: f't."{column.name}"' for column in saga_inbox.c}
    changed = {
        "key": "md5(t.key || new.n)::uuid::text",
        "saga_id": "new.made",
        "updated_at": "new.at",
    }
    numbered = _series(at, saga_id)
    where = "saga_inbox AS t WHERE t.saga_id = %(template)s"
    _insert(connection, "saga_inbox", copied | changed, f"{numbered}, {where}", given)
