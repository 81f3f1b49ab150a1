"""``saga plan`` and ``saga migrate``: what becomes of the open sagas when their declarations change."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

import click

from sagas_framework.cli.acting import login_name
from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, aligned, plain, print_json
from sagas_framework.core.evolving import Whereabouts
from sagas_framework.evolution import REASONS, Batch, Group, Missing, NotMovable, Plan, examples, more_reasons

STAY: Final = 1


@click.command()
@click.option("--saga", "saga_name", metavar="NAME", help="Only this saga.")
@json_option
@pass_program
def plan(program: Program, saga_name: str | None) -> None:
    """Say which open sagas the code at hand can carry on, and what the others lack.

    Reads the live database and changes nothing. Exits with 1 if there are some that cannot be carried
    on: run it with the new code before it is deployed.
    """
    found = program.sagas.plan(saga_name)
    if program.json:
        print_json(found.to_json())
    else:
        _print_plan(Screen(), program, found)
    if not found.whole:
        raise SystemExit(STAY)


@click.command()
@click.argument("saga_name", metavar="SAGA")
@click.option("--to", type=click.IntRange(min=2), required=True, metavar="N", help="The version to move to.")
@click.option("--from", "since", type=click.IntRange(min=1), metavar="N", help="Only those of this version.")
@click.option("--reason", required=True, help="Why; kept in each saga's history.")
@click.option("--by", help="Who; kept in each saga's history.  [default: your login name]")
@click.option("--leave-rest", is_flag=True, help="Move those that can be moved, and leave the others.")
@click.option("--dry-run", is_flag=True, help="Only say what would be moved.")
@json_option
@pass_program
def migrate(
    program: Program,
    saga_name: str,
    to: int,
    since: int | None,
    reason: str,
    by: str | None,
    leave_rest: bool,
    dry_run: bool,
) -> None:
    """Move the open sagas of former versions to another one, in one transaction: all, or none.

    The version's class declares how: migrations=[Migration(from_version=1, ...)].
    """
    try:
        batch = program.sagas.migrate(
            saga_name,
            to,
            by=login_name() if by is None else by,
            reason=reason,
            from_version=since,
            leave_rest=leave_rest,
            dry_run=dry_run,
        )
    except NotMovable as error:
        if program.json:
            missing = [lacks.to_json() for lacks in error.missing]
            none = Batch(saga_name, to, (), (), 0, dry_run).to_json()
            print_json(none | {"error": str(error), "cannot": error.count, "missing": missing})
        raise
    if program.json:
        print_json(batch.to_json())
        return
    screen = Screen()
    count = _sagas(len(batch.moved))
    if dry_run:
        screen.line(f"{count} of {saga_name} would be moved to version {to}. Nothing was changed.")
    else:
        screen.status("done", f": {count} of {saga_name} moved to version {to}.")
    if batch.left:
        keep = "keeps its version" if batch.left_count == 1 else "keep their version"
        screen.line(f"{_sagas(batch.left_count)} {keep}:")
        _print_missing(screen, batch.left)


# ---- the parts of a plan ------------------------------------------------------------------------------


def _print_plan(screen: Screen, program: Program, found: Plan) -> None:
    if not found.groups:
        screen.line("No saga is open: nothing has to be carried on.")
    for number, group in enumerate(found.groups):
        if number:
            screen.line()
        _print_group(screen, program, group)


def _print_group(screen: Screen, program: Program, group: Group) -> None:
    screen.line(f"{group.saga} version {group.version}: {group.count:,} in flight.")
    for line in aligned([_standing(at, count) for at, count in group.places]):
        screen.line(line, indent=4)
    if group.as_they_are:
        told = f"{_go_on(group.as_they_are)} as {_they(group.as_they_are, 'it is', 'they are')}."
        if group.movable and not group.by_moving:
            told += f" {group.movable:,} can be moved to version {group.to}."
        screen.line(told)
    if group.by_moving:
        screen.line(f"{_go_on(group.by_moving)} in version {group.to}, once moved there:")
        words = ["saga", "-A", str(program.name), "migrate", group.saga]
        words += ["--to", str(group.to), "--from", str(group.version)]
        words += ["--leave-rest"] if group.not_movable else []
        screen.verbatim(f"{shlex.join(words)} --reason '...'")
    if group.stay:
        screen.status(_they(group.stay, "1 cannot", f"{group.stay:,} cannot"), " be carried on:")
        _print_missing(screen, group.missing)


def _standing(at: Whereabouts, count: int) -> tuple[str, str, str]:
    """How many stand at which step, and how that stands."""
    return (f"{count:,}", at.step, at.words) if at.step else (f"{count:,}", at.words, "")


def _print_missing(screen: Screen, missing: Sequence[Missing]) -> None:
    for lacks in missing[:REASONS]:
        screen.line(f"{lacks.count:,}: {plain(lacks.why)} ({examples(lacks)}).", indent=4)
    if rest := more_reasons(missing):
        screen.line(f"{rest}.", indent=4)


def _sagas(count: int) -> str:
    return "1 saga" if count == 1 else f"{count:,} sagas"


def _go_on(count: int) -> str:
    return "1 goes on" if count == 1 else f"{count:,} go on"


def _they(count: int, one: str, many: str) -> str:
    return one if count == 1 else many
