"""``saga archive``: what is kept how long, taking out what is past it, and whether the archive is sound."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from sagas_framework.archiving import Archivist
from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.core.why import MOST, in_words
from sagas_framework.errors import SagasError
from sagas_framework.participant import Participant
from sagas_framework.retention import Retention
from sagas_framework.sagas import Sagas
from sagas_framework.storage.archive import Archive
from sagas_framework.storage.dropping import Gone
from sagas_framework.storage.engine import reading
from sagas_framework.storage.retiring import count_ended, count_operations


@click.group()
@json_option
def archive() -> None:
    """See how long ended sagas and inbox rows are kept, and take out what is past it."""


@archive.command()
@json_option
@pass_program
def status(program: Program) -> None:
    """Show how long what is kept, how much there is, and how much of it is past its time."""
    told = [*_of_sagas(program), *_of_inbox(program)]
    if program.json:
        print_json({"kept": told})
        return
    rows = [["What", "Kept for", "Then", "Ended", "Past it"]]
    rows += [
        [
            one["what"],
            "ever" if one["seconds"] is None else in_words(timedelta(seconds=one["seconds"])),
            one["then"] or "-",
            _up_to_most(one["ended"]),
            _up_to_most(one["past"]),
        ]
        for one in told
    ]
    Screen().table(rows)


@archive.command()
@click.option("--at-most", type=click.IntRange(min=1), metavar="N", help="Stop after about so many.")
@json_option
@pass_program
def run(program: Program, at_most: int | None) -> None:
    """Take out now what is past its time, in small batches, beside the workers that do so by themselves."""
    sagas, participant = _sides(program)
    gone = Gone()
    try:
        if sagas is not None:
            gone += _taken(Archivist(sagas), at_most)
        if participant is not None:
            gone += _forgotten(participant, at_most)
    except OSError as error:
        raise SagasError(f"The archive cannot be written, and what was to go there stays: {error}") from error
    if program.json:
        print_json({"archived": gone.archived, "dropped": gone.dropped})
    else:
        Screen().line(f"{gone.archived:,} archived, {gone.dropped:,} dropped")


@archive.command()
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@json_option
@pass_program
def check(program: Program, folder: Path | None) -> None:
    """Read every file of the archive and hold it against its checksum. Exits with 0 if all are sound.

    FOLDER is that of the service, unless it is given.
    """
    found = list(Archive(archive_of(program, folder)).check())
    sound = all(one.trouble is None for one in found)
    if program.json:
        files = [
            {
                "file": one.file,
                "rows": one.rows,
                "bytes": one.bytes,
                "twice": one.twice,
                "open": one.open,
                "trouble": one.trouble,
            }
            for one in found
        ]
        print_json({"sound": sound, "files": files})
    else:
        screen = Screen()
        for one in found:
            told = one.trouble or ("still written, or left by a process that died" if one.open else "sound")
            twice = f", {one.twice:,} of them a second time" if one.twice else ""
            screen.line(f"{one.file}: {one.rows:,} rows{twice}, {one.bytes:,} bytes: {told}")
        if not found:
            screen.line("There is nothing in the archive yet.")
    if not sound:
        raise SystemExit(1)


def archive_of(program: Program, folder: Path | None) -> Path:
    """The folder that was given, or that of the service.

    Raises:
        SagasError: there is none, or it cannot be read.
    """
    if folder is None:
        side = program.found.sagas or program.found.participant
        folder = None if side is None else side.archive
    if folder is None:
        raise SagasError(f"{program.name} names no archive: give the folder.")
    if not folder.is_dir():
        raise SagasError(f"There is no archive at {folder} on this machine: give the folder that holds it.")
    return folder


# ---- sagas and inboxes ------------------------------------------------------------------------------


def _sides(program: Program) -> tuple[Sagas | None, Participant | None]:
    """What of the service is in a database that is there, at this release's schema.

    Raises:
        SagasError: neither is.
    """
    sagas, participant = program.found.sagas, program.found.participant
    for database in program.found.databases:
        program.check(database)
    if sagas is None and participant is None:
        raise SagasError(
            f"{program.name} only subscribes to events: what was handled goes by itself, after the "
            "subscriber's retention, and into no archive."
        )
    if sagas is None and (participant is None or participant.database is None):
        raise SagasError(f"{program.name} has no SQL database; rows of an inbox in Redis go by themselves.")
    return sagas, participant if participant is not None and participant.database is not None else None


def _taken(archivist: Archivist, at_most: int | None) -> Gone:
    total = Gone()
    try:
        while (gone := archivist.turn()).more:
            total += gone
            if at_most is not None and total.archived + total.dropped >= at_most:
                break
    finally:
        archivist.close()
    return total


def _forgotten(participant: Participant, at_most: int | None) -> Gone:
    total = Gone()
    try:
        while (gone := participant.forget()).archived + gone.dropped:
            total += gone
            if at_most is not None and total.archived + total.dropped >= at_most:
                break
    finally:
        participant.close_archive()
    return total


def _of_sagas(program: Program) -> list[dict[str, Any]]:
    sagas, _ = _sides(program)
    if sagas is None:
        return []
    now = program.now()
    with reading(sagas.engine) as connection:
        declared = [name for name in sagas.retentions if name is not None]
        return [
            _told(
                "all others" if name is None else name,
                kept,
                count_ended(connection, name, declared, None, MOST),
                0 if kept.keep is None else count_ended(connection, name, declared, now - kept.keep, MOST),
            )
            for name, kept in sagas.retentions.items()
        ]


def _of_inbox(program: Program) -> list[dict[str, Any]]:
    _, participant = _sides(program)
    if participant is None:
        return []
    kept = Retention(participant.retention, archive=participant.archive is not None)
    before: datetime = program.now() - participant.retention
    with reading(participant.engine) as connection:
        return [
            _told(
                f"inbox of {participant.service.name}",
                kept,
                count_operations(connection, None, MOST),
                count_operations(connection, before, MOST),
            )
        ]


def _told(what: str, kept: Retention, ended: int, past: int) -> dict[str, Any]:
    then = None if kept.keep is None else "archived" if kept.archive else "dropped"
    seconds = None if kept.keep is None else kept.keep.total_seconds()
    return {"what": what, "seconds": seconds, "then": then, "ended": ended, "past": past}


def _up_to_most(count: int) -> str:
    return f"more than {MOST:,}" if count > MOST else f"{count:,}"
