"""The service's database: whether it keeps what it has committed, and what the clocks say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any, Final

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sagas_framework.core.why import in_words
from sagas_framework.doctor.findings import Area, Examination, Finding, Rule, Severity
from sagas_framework.doctor.installation import ORCHESTRATOR, Installation, listed
from sagas_framework.errors import NEWER, ConfigurationError, SagasError, SchemaOutdated
from sagas_framework.health import check_database, database_trouble, is_alive
from sagas_framework.participant import CLOCK_SKEW
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import is_refused, reading
from sagas_framework.storage.ports import Beat, StoreUnavailable
from sagas_framework.storage.reads import read_beats

_NOTABLE_SKEW: Final = timedelta(seconds=30)
_THREADS: Final = 4
"""Connections of an orchestrator at once: consumer, timekeeper, the one that hears NOTIFY, one to spare."""

_FACTS: Final = text(
    """
    SELECT clock_timestamp() AS clock,
        current_setting('synchronous_commit') AS synchronous_commit,
        current_setting('fsync') AS fsync,
        current_setting('default_transaction_read_only') AS read_only,
        pg_is_in_recovery() AS standby,
        current_setting('transaction_isolation') AS isolation,
        current_setting('max_connections')::int
            - current_setting('superuser_reserved_connections')::int AS connections,
        (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user) AS role_connections,
        (SELECT datconnlimit FROM pg_database WHERE datname = current_database()) AS database_connections
    """
)


@dataclass(frozen=True)
class PostgresFacts:
    """What a PostgreSQL says of itself.

    Args:
        connections: that this service's user may have here; None if only the server's own limit holds.
        ahead: its clock of ours, in the middle of the question; negative if it is behind.
    """

    synchronous_commit: str = "on"
    fsync: str = "on"
    read_only: str = "off"
    standby: bool = False
    isolation: str = "read committed"
    connections: int = 97
    ahead: timedelta = timedelta(0)


def examine_database(installation: Installation) -> Examination | None:
    """See whether the service's database can be relied on; None if it has none."""
    database = installation.database
    if database is None:
        return None
    examination = Examination(Area.DATABASE, str(database))
    try:
        check_database(database.impatient, installation.worker)
        examination.in_order.append("it answers, at this release's schema")
        with reading(database.impatient.engine) as connection:
            if connection.dialect.name == "postgresql":
                _postgres(installation, connection, examination)
            else:
                examination.look(_sqlite(connection), "its journal is a WAL")
            examination.look(
                worker_rules(installation, read_beats(connection)),
                "no worker's clock is ahead of ours, and no other service's worker is here",
            )
    except SchemaOutdated as outdated:
        examination.add([_outdated(outdated, installation.worker)])
    except (SQLAlchemyError, StoreUnavailable, SagasError) as error:
        examination.add([_unreachable(error, database)])
    return examination


def _outdated(outdated: SchemaOutdated, worker: str) -> Finding:
    return Finding(
        Rule.SCHEMA,
        Severity.LOSES,
        outdated.what,
        "No worker of this release can keep a saga there.",
        "the schema",
        f"saga -A {worker} db upgrade" if outdated.how else NEWER,
    )


def _unreachable(error: Exception, database: Database) -> Finding:
    return Finding(
        Rule.DATABASE,
        Severity.WRONG,
        database_trouble(error, str(database)) if not isinstance(error, SagasError) else str(error),
        f"Nothing is known of it; {_meanwhile(error)}.",
        "the database's address",
        "one at which it answers; then ask again",
    )


def _meanwhile(error: Exception) -> str:
    if isinstance(error, ConfigurationError) or (isinstance(error, DBAPIError) and is_refused(error)):
        return "workers end at their start"
    return "workers wait until it is back"


def _sqlite(connection: Connection) -> Iterator[Finding]:
    journal = connection.exec_driver_sql("PRAGMA journal_mode").scalar_one()
    if journal != "wal" and connection.engine.url.database:
        yield Finding(
            Rule.DURABILITY,
            Severity.WRONG,
            f"The SQLite file has the journal mode {journal}: its file system has no shared memory.",
            "Readers and the writer hold each other up, and locks may not hold at all.",
            "the database's address",
            "a file on a local disk",
        )


# ---- PostgreSQL -------------------------------------------------------------------------------------


def _postgres(installation: Installation, connection: Connection, examination: Examination) -> None:
    try:
        facts = _ask(installation, connection)
    except DBAPIError as error:
        examination.add(
            [
                Finding(
                    Rule.DATABASE,
                    Severity.UNKNOWN,
                    "This server does not say how it is set up: "
                    + str(error.orig).strip().partition("\n")[0],
                    "Whether it keeps what it has committed is not known.",
                    "the database",
                    "PostgreSQL, which is what this library is tested with",
                )
            ]
        )
        connection.rollback()
        return
    examination.look(durability_rules(facts), "what it has committed, it keeps")
    examination.look(
        transaction_rules(facts), "it can be written to, each transaction seeing what is committed"
    )
    if (needs := connections_needed(installation)) is not None:
        examination.look(connection_rules(facts, *needs), "it has connections enough for this worker")
    examination.look(clock_rules(facts.ahead), "its clock agrees with ours")


def _ask(installation: Installation, connection: Connection) -> PostgresFacts:
    before = installation.clock()
    row: Any = connection.execute(_FACTS).one()
    after = installation.clock()
    limits = [row.connections, row.role_connections, row.database_connections]
    return PostgresFacts(
        row.synchronous_commit,
        row.fsync,
        row.read_only,
        row.standby,
        row.isolation,
        min(limit for limit in limits if limit is not None and limit >= 0),
        row.clock.astimezone(UTC) - (before + (after - before) / 2),
    )


def durability_rules(facts: PostgresFacts) -> Iterator[Finding]:
    """Of a server that confirms a commit before it is on its disk."""
    for setting, value, why in (
        (
            "synchronous_commit",
            facts.synchronous_commit,
            "A crash of the server takes the last commits with it; what followed from them is on its way.",
        ),
        (
            "fsync",
            facts.fsync,
            "A crash of its machine takes commits with it, or the whole database.",
        ),
    ):
        if value == "off":
            yield Finding(
                Rule.DURABILITY,
                Severity.LOSES,
                f"PostgreSQL has {setting}=off here.",
                why,
                f"{setting} (PostgreSQL; of the server, the database or the role)",
                "on",
            )


def transaction_rules(facts: PostgresFacts) -> Iterator[Finding]:
    """Of a server that takes no writes, or isolates more than rows need here."""
    if facts.standby or facts.read_only == "on":
        yield Finding(
            Rule.READ_ONLY,
            Severity.WRONG,
            "The server is a standby." if facts.standby else "default_transaction_read_only is on.",
            "Nothing can be written: no saga moves, and messages wait until it can.",
            "the database's address" if facts.standby else "default_transaction_read_only (PostgreSQL)",
            "that of the primary" if facts.standby else "off",
        )
    if facts.isolation != "read committed":
        yield Finding(
            Rule.ISOLATION,
            Severity.WRONG,
            f"Transactions are {facts.isolation}.",
            "Two messages of one saga then abort each other, and are taken again and again.",
            "default_transaction_isolation (PostgreSQL)",
            "'read committed'",
        )


def connections_needed(installation: Installation) -> tuple[int, str] | None:
    """How many connections a worker opens at once, and who; None if its processes are not known."""
    if installation.kind == ORCHESTRATOR:
        return _THREADS, f"the orchestrator's threads open {_THREADS}"
    if installation.started:
        processes = installation.started.processes
    elif installation.app is not None and str(installation.conf.worker_concurrency).isdecimal():
        processes = int(installation.conf.worker_concurrency)
    else:
        return None
    return processes + 1, f"{processes} processes and their parent open one each"


def connection_rules(facts: PostgresFacts, needed: int, told: str) -> Iterator[Finding]:
    """Of a server that has fewer connections than one worker opens. What others need is not known."""
    if needed > facts.connections:
        yield Finding(
            Rule.CONNECTIONS,
            Severity.WRONG,
            f"PostgreSQL gives this user {facts.connections} connections, and {told}.",
            "Commands wait for a free one, and come again.",
            "max_connections (PostgreSQL), or --concurrency",
            f"at least {needed} for each such worker",
        )


# ---- clocks and company -----------------------------------------------------------------------------


def clock_rules(ahead: timedelta) -> Iterator[Finding]:
    """Of a database's clock that goes otherwise than this machine's."""
    skew = abs(ahead)
    if skew < _NOTABLE_SKEW:
        return
    way = "ahead of" if ahead > timedelta(0) else "behind"
    yield Finding(
        Rule.CLOCK,
        Severity.WRONG if skew > CLOCK_SKEW else Severity.NOTE,
        f"The database's clock is {in_words(skew)} {way} this machine's.",
        f"One of them is wrong; clocks of workers that differ by more than {in_words(CLOCK_SKEW)} can have "
        "an operation done twice.",
        "the clock of this machine, or of the database's",
        "NTP on both",
    )


def worker_rules(installation: Installation, beats: list[Beat]) -> Iterator[Finding]:
    """What the workers' last turns tell: clocks that are ahead of ours, and services that do not belong."""
    now = installation.clock()
    ahead = [beat for beat in beats if beat.turned_at - now >= _NOTABLE_SKEW]
    if ahead:
        most = max(ahead, key=lambda beat: beat.turned_at)
        skew = most.turned_at - now
        yield Finding(
            Rule.CLOCK,
            Severity.WRONG if skew > CLOCK_SKEW else Severity.NOTE,
            f"The worker {most.worker} wrote its last turn {in_words(skew)} in our future.",
            f"One of the clocks is wrong; more than {in_words(CLOCK_SKEW)} can have an operation done twice.",
            "the clocks of the workers' machines",
            "NTP on all",
        )
    roles = ("timekeeper", "consumer") if installation.kind == ORCHESTRATOR else ("participant",)
    others = {
        service
        for beat in beats
        if beat.role in roles and is_alive(beat, now)
        if (service := beat.worker.partition("@")[0]) != installation.service
    }
    if others:
        yield Finding(
            Rule.SHARED,
            Severity.WRONG,
            f"Workers of {listed(sorted(others))} keep their rows here, too.",
            "What one service forgets, sets aside or sends again is the other's.",
            "the database's address, or RedisInbox(prefix=...)",
            "one for each service",
        )
