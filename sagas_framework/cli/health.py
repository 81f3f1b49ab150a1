"""``saga health``: whether the loops turn that move sagas, read from the rows that they write. No ping."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import click
from sqlalchemy.exc import SQLAlchemyError

from sagas_framework.cli.base import NoDatabase, Program, database_trouble, json_option, pass_program
from sagas_framework.cli.output import Screen, ago, print_json
from sagas_framework.core.instance import Status
from sagas_framework.core.why import OVERDUE_AFTER
from sagas_framework.errors import SagasError, SchemaOutdated
from sagas_framework.participant import Participant
from sagas_framework.sagas import Sagas
from sagas_framework.storage.database import Database
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Beat, StoreUnavailable
from sagas_framework.storage.sql import count_open, count_overdue, count_quarantined, read_beats

ALIVE_WITHIN: Final = timedelta(seconds=15)
"""Loops write down their turns every 2 s."""
SHOWN_FOR: Final = timedelta(days=1)

_ROLES: Final = {"orchestrator": ("consumer", "timekeeper"), "participant": ("participant",)}


@dataclass
class Checkup:
    """What was found of one service. It is healthy when there are no `reasons`."""

    service: str
    kind: str
    address: str
    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    beats: list[Beat] = field(default_factory=list)
    sagas: dict[str, int] | None = None
    quarantined: int | None = None
    reachable: bool = False
    current: bool = False

    def to_json(self, now: datetime) -> dict[str, Any]:
        return {
            "service": self.service,
            "kind": self.kind,
            "healthy": not self.reasons,
            "reasons": self.reasons,
            "warnings": self.warnings,
            "database": {"address": self.address, "reachable": self.reachable, "current": self.current},
            "sagas": self.sagas,
            "quarantine": self.quarantined,
            "loops": [
                {
                    "worker": beat.worker,
                    "loop": beat.role,
                    "started_at": beat.started_at.isoformat(),
                    "turned_at": beat.turned_at.isoformat(),
                    "alive": _alive(beat, now),
                }
                for beat in self.beats
            ],
        }


@click.command()
@json_option
@pass_program
def health(program: Program) -> None:
    """Tell whether a worker turns, and what waits. Exits with 0 if healthy, else with 1."""
    found, now = program.found, program.now()
    checkups = []
    if found.sagas is not None:
        checkups.append(_orchestrator(program, found.sagas, now))
    if found.participant is not None:
        checkups.append(_participant(program, found.participant, now))
    well = not any(checkup.reasons for checkup in checkups)
    if program.json:
        print_json({"healthy": well, "services": [checkup.to_json(now) for checkup in checkups]})
    else:
        screen = Screen()
        for number, checkup in enumerate(checkups):
            if number:
                screen.line()
            _print(screen, checkup, now)
    if not well:
        raise SystemExit(1)


def _orchestrator(program: Program, sagas: Sagas, now: datetime) -> Checkup:
    checkup = Checkup(sagas.service, "orchestrator", str(sagas.database))
    if not _reach(program, sagas.database, checkup, now):
        return checkup
    with reading(sagas.engine) as connection:
        count = count_open(connection)
        overdue = count_overdue(connection, now - OVERDUE_AFTER)
    checkup.sagas = {
        "open": sum(count.values()),
        "parked": count.get(Status.PARKED, 0),
        "overdue": sum(overdue.values()),
    }
    known = sagas.definitions.known()
    for (saga, version), number in overdue.items():
        if (saga, version) not in known:
            checkup.warnings.append(
                f"{saga} version {version} has {_sagas(number)} due, and {program.name} does "
                "not declare it: no worker of it will move them"
            )
    if late := sum(number for saga, number in overdue.items() if saga in known):
        checkup.warnings.append(
            f"{_sagas(late)} should have been looked at more than {OVERDUE_AFTER.seconds} s ago: "
            "the timekeeper lags, or none turns"
        )
    if parked := checkup.sagas["parked"]:
        needs = "needs" if parked == 1 else "need"
        checkup.warnings.append(
            f"{_sagas(parked)} {needs} a person: saga -A {program.name} list --status parked"
        )
    return checkup


def _participant(program: Program, participant: Participant, now: datetime) -> Checkup:
    if participant.database is None:
        inbox = type(participant.inbox).__name__
        checkup = Checkup(participant.service.name, "participant", f"none: its inbox is a {inbox}")
        checkup.reasons.append(
            f"its inbox is a {inbox}, not in an SQL database, so nothing can be read from here"
        )
        return checkup
    checkup = Checkup(participant.service.name, "participant", str(participant.database))
    _reach(program, participant.database, checkup, now)
    return checkup


def _reach(program: Program, database: Database, checkup: Checkup, now: datetime) -> bool:
    """Read what every service's database has; whether it could be read."""
    try:
        program.check(database)
        checkup.reachable = checkup.current = True
        with reading(database.engine) as connection:
            beats = read_beats(connection)
            checkup.quarantined = count_quarantined(connection)
    except SchemaOutdated as error:
        checkup.reachable = not isinstance(error, NoDatabase)
        checkup.reasons.append(str(error))
        return False
    except (SQLAlchemyError, StoreUnavailable) as error:
        checkup.reachable = checkup.current = False
        checkup.reasons.append(database_trouble(error, checkup.address))
        return False
    except SagasError as error:  # an address that cannot be read
        checkup.reasons.append(str(error))
        return False
    roles = _ROLES[checkup.kind]
    checkup.beats = [beat for beat in beats if beat.role in roles and now - beat.turned_at <= SHOWN_FOR]
    for role in roles:
        turned = [beat.turned_at for beat in checkup.beats if beat.role == role]
        last = max(turned, default=None)
        if last is None:
            checkup.reasons.append(f"no {role} has turned within a day: is a worker running?")
        elif now - last > ALIVE_WITHIN:
            checkup.reasons.append(
                f"no {role} turns, the last one was seen {ago(last, now)}: is a worker running?"
            )
    return True


def _alive(beat: Beat, now: datetime) -> bool:
    return now - beat.turned_at <= ALIVE_WITHIN


def _print(screen: Screen, checkup: Checkup, now: datetime) -> None:
    screen.status("not healthy" if checkup.reasons else "healthy", before=f"{checkup.service} is ")
    for reason in checkup.reasons:
        screen.line(f"- {reason}", indent=2)
    for warning in checkup.warnings:
        screen.line(f"- {warning}", indent=2)
    screen.line()
    state = "schema current" if checkup.current else "old schema" if checkup.reachable else "not reached"
    facts = [["Database", f"{checkup.address} ({state})"]]
    if checkup.sagas is not None:
        facts.append(["Sagas", ", ".join(f"{number} {word}" for word, number in checkup.sagas.items())])
    if checkup.quarantined is not None:
        facts.append(
            ["Quarantine", f"{checkup.quarantined} message{'' if checkup.quarantined == 1 else 's'}"]
        )
    screen.facts(facts)
    if checkup.beats:
        screen.line()
        rows = [["Loop", "Last turn", "Worker"]]
        for beat in sorted(checkup.beats, key=lambda beat: beat.turned_at, reverse=True):
            seen = ago(beat.turned_at, now)
            rows.append([beat.role, seen if _alive(beat, now) else f"last seen {seen}", beat.worker])
        screen.table(rows)


def _sagas(number: int) -> str:
    return "1 saga" if number == 1 else f"{number} sagas"
