"""Whether a service works: its database, and the loops that move sagas, read from the rows that they write.

No ping. A loop that turns writes it down; one whose server is away does not turn.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from sagas_framework.core.instance import Status
from sagas_framework.core.why import OVERDUE_AFTER, QueueSeen, clock_time, in_words
from sagas_framework.errors import SagasError, SchemaOutdated
from sagas_framework.participant import Participant
from sagas_framework.sagas import Sagas
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import is_refused, is_unavailable, reading
from sagas_framework.storage.event_inbox import EventCounts, count_events, count_overdue_events
from sagas_framework.storage.outbox import Backlog, read_backlog
from sagas_framework.storage.ports import Beat, StoreUnavailable
from sagas_framework.storage.reads import (
    count_open,
    count_overdue,
    count_quarantined,
    read_beats,
    read_queues,
)
from sagas_framework.subscriber import Subscriber

ALIVE_WITHIN: Final = timedelta(seconds=15)
"""Loops write down their turns every 2 s."""
SHOWN_FOR: Final = timedelta(days=1)

_ROLES: Final = {
    "orchestrator": ("consumer", "timekeeper"),
    "participant": ("participant",),
    "subscriber": ("subscriber",),
}
_PARTS: Final = {
    "orchestrator": ("database", "orchestrator", "broker"),
    "participant": ("database", "participant"),
    "subscriber": ("database", "subscriber"),
}


class NoDatabase(SchemaOutdated):
    """The SQLite file is not there yet; upgrading makes it."""


@dataclass(frozen=True)
class Trouble:
    """Why a part of the service is not well: ``database``, ``orchestrator``, ``participant``,
    ``subscriber``, ``broker``."""

    part: str
    reason: str


@dataclass
class Checkup:
    """What was found of one service. It is healthy when there are no `troubles`; none names a password.

    Args:
        kind: ``orchestrator``, ``participant`` or ``subscriber``.
        address: of its database, without the password.
        warnings: what needs a person, and would not be mended by a restart.
        beats: the last turns of the loops, of the last day.
        turning: the loops that some worker turns.
        sagas: how many are ``open``, ``parked`` and ``overdue``; None if unknown, or for a participant.
        quarantined: how many messages are set aside; None if unknown.
        outbox: what the service has published and no broker has confirmed; None if unknown.
        events: of a subscriber, what is not over; None if unknown.
        reachable, current: whether the database answers, and has this release's schema.
    """

    service: str
    kind: str
    address: str
    troubles: list[Trouble] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    turning: set[str] = field(default_factory=set)
    sagas: dict[str, int] | None = None
    quarantined: int | None = None
    outbox: Backlog | None = None
    events: list[EventCounts] | None = None
    reachable: bool = False
    current: bool = False

    @property
    def reasons(self) -> list[str]:
        """Why it is not healthy."""
        return [trouble.reason for trouble in self.troubles]

    @property
    def parts(self) -> dict[str, bool | None]:
        """Whether each part is well, None if that is not known: all is read from the database.

        The broker is seen through the orchestrator's eyes, so nothing is known of it when none turns.
        """
        unwell = {trouble.part for trouble in self.troubles}
        found: dict[str, bool | None] = {part: part not in unwell for part in _PARTS[self.kind]}
        if "database" in unwell:
            return dict.fromkeys(found) | {"database": False}
        if "broker" in found and not self.turning:
            found["broker"] = None
        return found

    def to_json(self, now: datetime) -> dict[str, Any]:
        """What ``saga health --json`` says of a service."""
        return {
            "service": self.service,
            "kind": self.kind,
            "healthy": not self.troubles,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "database": {"address": self.address, "reachable": self.reachable, "current": self.current},
            "sagas": self.sagas,
            "quarantine": self.quarantined,
            "outbox": self.outbox
            and {
                "unsent": self.outbox.events,
                "since": self.outbox.since and self.outbox.since.isoformat(),
            },
            **({} if self.events is None else {"events": [_counts_to_json(each) for each in self.events]}),
            "loops": [
                {
                    "worker": beat.worker,
                    "loop": beat.role,
                    "started_at": beat.started_at.isoformat(),
                    "turned_at": beat.turned_at.isoformat(),
                    "alive": is_alive(beat, now),
                }
                for beat in self.beats
            ],
        }

    def trouble(self, part: str, reason: str) -> None:
        """Note that a part is not well."""
        # An "@" in a password ends it too early for drivers, which then tell its rest as part of the host.
        self.troubles.append(Trouble(part, re.sub(r"[^\s\"'(/:]*@", "***@", reason)))


def check_orchestrator(sagas: Sagas, *, worker: str | None = None) -> Checkup:
    """See whether the sagas of this service are moved. Only reads, and gives up connecting after 3 s.

    Healthy: the database answers with this release's schema, and some timekeeper and some reply
    consumer turned within 15 s. A consumer turns only while it reaches the broker.

    Args:
        worker: the module to name in commands, as in ``celery -A``; by default ``<service>.worker``.
    """
    worker = worker or f"{sagas.service}.worker"
    now = sagas.clock()
    checkup = Checkup(sagas.service, "orchestrator", str(sagas.database))
    _reach(sagas.database, checkup, worker, now)
    if checkup.current:
        with _troubled(checkup), reading(sagas.database.impatient.engine) as connection:
            count = count_open(connection)
            overdue = count_overdue(connection, now - OVERDUE_AFTER)
            checkup.sagas = {
                "open": sum(count.values()),
                "parked": count.get(Status.PARKED, 0),
                "overdue": sum(overdue.values()),
            }
            _warn(checkup, overdue, sagas.definitions.known(), worker)
            checkup.warnings += _unattended(read_queues(connection).values(), now)
    return checkup


def check_participant(participant: Participant, *, worker: str | None = None) -> Checkup:
    """See whether the commands to this participant are handled; see `check_orchestrator`.

    Healthy: its database answers with this release's schema, and some worker turned within 15 s.
    """
    worker = worker or f"{participant.service.name}.worker"
    if participant.database is None:
        inbox = type(participant.inbox).__name__
        checkup = Checkup(participant.service.name, "participant", f"none: its inbox is a {inbox}")
        reason = f"its inbox is a {inbox}, not in an SQL database, so nothing can be read from here"
        checkup.trouble("database", reason)
        return checkup
    checkup = Checkup(participant.service.name, "participant", str(participant.database))
    _reach(participant.database, checkup, worker, participant.clock())
    return checkup


def check_subscriber(subscriber: Subscriber, *, worker: str | None = None) -> Checkup:
    """See whether the events that come to this service are handled; see `check_orchestrator`.

    Healthy: its database answers with this release's schema, and some consumer of events turned within 15 s.
    """
    worker = worker or f"{subscriber.service.name}.worker"
    now = subscriber.clock()
    checkup = Checkup(subscriber.service.name, "subscriber", str(subscriber.database))
    _reach(subscriber.database, checkup, worker, now)
    if checkup.current:
        with _troubled(checkup), reading(subscriber.database.impatient.engine) as connection:
            checkup.events = count_events(connection)
            overdue = count_overdue_events(connection, now - OVERDUE_AFTER)
        _warn_of_events(checkup, overdue, subscriber.subscriptions, worker)
    return checkup


def check_database(database: Database, worker: str) -> None:
    """See that the database is there, at this release's schema.

    Raises:
        SchemaOutdated: it is not; the message has the command for this worker.
        SQLAlchemyError, StoreUnavailable: it does not answer; see `database_trouble`.
    """
    how = f"saga -A {worker} db upgrade"
    file = database.engine.url.database
    is_file = database.engine.dialect.name == "sqlite" and file and not file.startswith((":", "file:"))
    if is_file and not Path(file or "").exists():  # connecting would leave an empty one behind
        raise NoDatabase(f"The database {database} does not exist.", how)
    try:
        database.check()
    except SchemaOutdated as outdated:
        raise SchemaOutdated(outdated.what, outdated.how and how) from None


def database_trouble(error: Exception, address: str) -> str:
    """What a database error means for a person."""
    cause = getattr(error, "orig", None) or error
    told = str(cause).strip().partition("\n")[0]
    if isinstance(error, DBAPIError) and is_refused(error):
        return f"The database {address} refuses us: {told}. Check user, password and database name."
    if isinstance(error, StoreUnavailable) or is_unavailable(error):
        hint = "Is it running, and is the address right?"
        if address.startswith("sqlite"):
            hint = "Does its folder exist, and may this process write there?"
        return f"The database {address} cannot be reached: {told}. {hint}"
    return f"The database {address} does not do what we ask: {type(cause).__name__}: {told}"


def is_alive(beat: Beat, now: datetime) -> bool:
    """Whether a loop turned a short time ago."""
    return now - beat.turned_at <= ALIVE_WITHIN


# ---- the parts --------------------------------------------------------------------------------------


def _reach(database: Database, checkup: Checkup, worker: str, now: datetime) -> None:
    """Read what every service's database has."""
    with _troubled(checkup):
        check_database(database.impatient, worker)
        with reading(database.impatient.engine) as connection:
            beats = read_beats(connection)
            checkup.quarantined = count_quarantined(connection)
            checkup.outbox = read_backlog(connection)
        checkup.reachable = checkup.current = True
        roles = _ROLES[checkup.kind]
        checkup.beats = [beat for beat in beats if beat.role in roles and now - beat.turned_at <= SHOWN_FOR]
        _look_at_loops(checkup, now)
        if (since := checkup.outbox.since) is not None and now - since > OVERDUE_AFTER:
            checkup.warnings.append(
                f"{_events(checkup.outbox.events)} published and not sent, the first {in_words(now - since)} "
                "ago: does a worker run, and does it reach the broker?"
            )


@contextmanager
def _troubled(checkup: Checkup) -> Iterator[None]:
    """Note what the database's errors mean."""
    try:
        yield
    except SchemaOutdated as error:
        checkup.reachable = not isinstance(error, NoDatabase)
        checkup.trouble("database", str(error))
    except (SQLAlchemyError, StoreUnavailable) as error:
        checkup.reachable = checkup.current = False
        checkup.trouble("database", database_trouble(error, checkup.address))
    except SagasError as error:  # an address that cannot be read
        checkup.trouble("database", str(error))


def _look_at_loops(checkup: Checkup, now: datetime) -> None:
    roles = _ROLES[checkup.kind]
    checkup.turning = {beat.role for beat in checkup.beats if is_alive(beat, now)}
    for role in roles:
        if role in checkup.turning:
            continue
        last = max((beat.turned_at for beat in checkup.beats if beat.role == role), default=None)
        told = f"no {role} has turned within a day"
        if last is not None:
            told = f"no {role} turns, the last one was seen {in_words(now - last)} ago"
        if role == "consumer" and "timekeeper" in checkup.turning:
            cause = "the orchestrator does not reach the broker, or its consumer hangs"
            checkup.trouble("broker", f"{told}, while a timekeeper does: {cause}")
        else:
            checkup.trouble(checkup.kind, f"{told}: is a worker running?")


def _warn(
    checkup: Checkup, overdue: Mapping[tuple[str, int], int], known: Collection[tuple[str, int]], worker: str
) -> None:
    """Note what waits although the loops may turn."""
    for (saga, version), number in overdue.items():
        if (saga, version) not in known:
            checkup.warnings.append(
                f"{saga} version {version} has {_sagas(number)} due, and {worker} does "
                "not declare it: no worker of it will move them"
            )
    if late := sum(number for saga, number in overdue.items() if saga in known):
        checkup.warnings.append(
            f"{_sagas(late)} should have been looked at more than {OVERDUE_AFTER.seconds} s ago: "
            "the timekeeper lags, or none turns"
        )
    if parked := (checkup.sagas or {}).get("parked", 0):
        needs = "needs" if parked == 1 else "need"
        checkup.warnings.append(f"{_sagas(parked)} {needs} a person: saga -A {worker} list --status parked")


def _unattended(queues: Iterable[QueueSeen], now: datetime) -> Iterator[str]:
    """Of the queues in which commands wait and from which nobody takes them."""
    for seen in queues:
        if seen.unattended_since is not None and seen.messages and seen.is_fresh(now):
            since = clock_time(seen.unattended_since, now)
            waits = "1 message waits" if seen.messages == 1 else f"{seen.messages:,} messages wait"
            yield f"no worker has taken from {seen.queue} since {since}, and {waits} there"


def _warn_of_events(
    checkup: Checkup, overdue: Mapping[str, int], known: Collection[str], worker: str
) -> None:
    for count in checkup.events or ():
        if count.parked:
            told = f"{_events(count.parked)} parked that {count.subscriber} failed over"
            checkup.warnings.append(f"{told}: saga -A {worker} events list --parked")
        if count.waiting and count.subscriber not in known:
            told = f"{_events(count.waiting)} waiting for {count.subscriber}, which {worker} has not"
            checkup.warnings.append(f"{told}: give a function its name=, or drop them")
        elif late := overdue.get(count.subscriber, 0):
            told = f"{_events(late)} waiting for {count.subscriber} for more than {OVERDUE_AFTER.seconds} s"
            checkup.warnings.append(f"{told}: it is slow, or no worker runs")


def _counts_to_json(count: EventCounts) -> dict[str, Any]:
    since = count.since and count.since.isoformat()
    return {
        "subscriber": count.subscriber,
        "waiting": count.waiting,
        "parked": count.parked,
        "since": since,
    }


def _events(number: int) -> str:
    return "1 event is" if number == 1 else f"{number} events are"


def _sagas(number: int) -> str:
    return "1 saga" if number == 1 else f"{number} sagas"
