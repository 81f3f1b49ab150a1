"""``saga health``: whether the loops turn that move sagas, read from the rows that they write. No ping."""

from __future__ import annotations

from datetime import datetime

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, ago, print_json
from sagas_framework.health import (
    Checkup,
    check_orchestrator,
    check_participant,
    check_subscriber,
    is_alive,
)


@click.command()
@json_option
@pass_program
def health(program: Program) -> None:
    """Tell whether a worker turns, and what waits. Exits with 0 if healthy, else with 1."""
    found, now = program.found, program.now()
    checkups = []
    if found.sagas is not None:
        checkups.append(check_orchestrator(found.sagas, worker=program.name))
    if found.participant is not None:
        checkups.append(check_participant(found.participant, worker=program.name))
    if found.subscriber is not None:
        checkups.append(check_subscriber(found.subscriber, worker=program.name))
    well = not any(checkup.troubles for checkup in checkups)
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


def _print(screen: Screen, checkup: Checkup, now: datetime) -> None:
    screen.status("not healthy" if checkup.troubles else "healthy", before=f"{checkup.service} is ")
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
    if checkup.outbox is not None and checkup.outbox.events:
        unsent = f"{checkup.outbox.events} unsent"
        facts.append(["Outbox", f"{unsent}, the oldest {ago(checkup.outbox.since or now, now)}"])
    if checkup.events is not None:
        waiting = sum(count.waiting for count in checkup.events)
        facts.append(["Events", f"{waiting} waiting, {sum(count.parked for count in checkup.events)} parked"])
    screen.facts(facts)
    if checkup.beats:
        screen.line()
        rows = [["Loop", "Last turn", "Worker"]]
        for beat in sorted(checkup.beats, key=lambda beat: beat.turned_at, reverse=True):
            seen = ago(beat.turned_at, now)
            rows.append([beat.role, seen if is_alive(beat, now) else f"last seen {seen}", beat.worker])
        screen.table(rows)
