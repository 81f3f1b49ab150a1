"""``saga why`` and ``saga stuck``: what one saga waits for, and what all of them do."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import timedelta

import click

from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.core.instance import Cause
from sagas_framework.core.why import in_words
from sagas_framework.view import StuckView, summary


@click.command()
@click.argument("saga_id", metavar="ID")
@json_option
@pass_program
def why(program: Program, saga_id: str) -> None:
    """Say why a saga stands where it stands, and nothing else.

    What it waits for and since when, who takes from that queue, how many other sagas wait for the same,
    and what comes next. Times of day are UTC.

    ID is a saga's id, the beginning of one, or a business key.
    """
    view = program.sagas.view(program.one(saga_id).id)
    if program.json:
        told = summary(view.instance)
        named = ("id", "saga", "key", "status", "waits")
        print_json({name: told[name] for name in named} | view.why_in_json())
        return
    Screen().line(view.why)


@click.command()
@click.option(
    "--waiting",
    type=Span(),
    default="1m",
    show_default=True,
    metavar="SPAN",
    help="Only what is waited for longer than this: 10m, 2h, 1d. What needs a person is always told.",
)
@json_option
@pass_program
def stuck(program: Program, waiting: timedelta) -> None:
    """Tell what open sagas wait for, grouped by it: what needs a person first.

    Exits with 1 if there is anything, else with 0, so that cron can tell somebody. Where a step may take
    its time, say with --waiting how long. Times of day are UTC.
    """
    groups = program.sagas.stuck_views(waiting=waiting)
    if program.json:
        print_json({"stuck": [group.to_json() for group in groups]})
    else:
        _print(Screen(), program, groups, waiting)
    if groups:
        raise SystemExit(1)


def _print(screen: Screen, program: Program, groups: Sequence[StuckView], waiting: timedelta) -> None:
    if not groups:
        screen.line(
            f"Nothing is stuck: no saga is parked, and none has waited for a service for longer than "
            f"{in_words(waiting)}. One that waits for a signal or a moment is not stuck; "
            f"`saga -A {program.name} list --open` has it, too."
        )
    for number, group in enumerate(groups):
        if number:
            screen.line()
        screen.line(group.why)
        screen.verbatim(_command(program, "list", *_listing(group)))
        if group.example is not None:
            screen.verbatim(_command(program, "show", group.example.instance.key))


def _listing(group: StuckView) -> list[str]:
    """What `saga list` is to be asked for to show them all."""
    stuck = group.stuck
    which = ["--status", "parked"] if stuck.cause is Cause.PERSON else ["--open"]
    return [*which, "--saga", stuck.saga, *(["--waits-for", stuck.what] if stuck.what else [])]


def _command(program: Program, *words: str) -> str:
    return shlex.join(["saga", "-A", str(program.name), *words])
