"""``saga list``."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import click

from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.output import Screen, aligned, print_json
from sagas_framework.core.instance import OutcomeKind, SagaInstance, Status
from sagas_framework.core.why import in_words
from sagas_framework.storage.ports import Filter
from sagas_framework.view import SagaView, summary


@click.command("list")
@click.option("--status", type=click.Choice([s.value for s in Status]), help="Only those in this status.")
@click.option("--saga", "saga_name", metavar="NAME", help="Only those of this saga.")
@click.option("--key", help="Only those with this business key.")
@click.option(
    "--outcome",
    type=click.Choice([kind.value for kind in OutcomeKind]),
    help="Only those that ended, or turned back, for this reason.",
)
@click.option(
    "--waits-for",
    metavar="WHAT",
    help="Only those that wait for this task (accounting_service.authorize_card), or at this step.",
)
@click.option("--open", "open_only", is_flag=True, help="Only those that have not ended.")
@click.option("--older-than", type=Span(), metavar="SPAN", help="Only those started longer ago: 10m, 2h, 1d.")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@json_option
@pass_program
def list_sagas(
    program: Program,
    status: str | None,
    saga_name: str | None,
    key: str | None,
    outcome: str | None,
    waits_for: str | None,
    open_only: bool,
    older_than: timedelta | None,
    limit: int,
) -> None:
    """List sagas: those that need a person first, then the newest; with --open then the oldest."""
    now = program.now()
    sagas = program.sagas
    wanted = Filter(
        saga=saga_name,
        status=Status(status) if status else None,
        outcome=OutcomeKind(outcome) if outcome else None,
        key=key,
        older_than=None if older_than is None else now - older_than,
        waits_for=waits_for,
        open_only=open_only,
        limit=limit,
    )
    page = sagas.page(wanted)
    if program.json:
        listed = [summary(view.instance) | {"why": view.why} for view in page.views]
        print_json({"sagas": listed, "more": page.next is not None})
        return
    screen = Screen()
    if not page.views:
        anything = wanted == Filter(limit=limit)
        screen.line("There is no saga yet." if anything else "No saga is like that.")
    _print(screen, page.views, now)
    if page.next is not None:
        screen.line("There are more: raise --limit to see them.")


def _print(screen: Screen, views: Sequence[SagaView], now: datetime) -> None:
    if not views:
        return
    shown = [view.instance for view in views]
    length = _telling(shown)
    rows = [["Status", "Key", "Saga", "Age", "Id"]]
    rows += [
        [i.status.value, i.key if i.key != i.id else "", i.saga, in_words(now - i.created_at), i.id[:length]]
        for i in shown
    ]
    head, *lines = aligned(rows)
    screen.line(head)
    for view, line in zip(views, lines, strict=True):
        word = view.instance.status.value
        screen.status(word, line[len(word) :])
        if view.instance.status is not Status.COMPLETED:
            screen.line(view.why, indent=4)


def _telling(shown: Sequence[SagaInstance]) -> int:
    """How much of an id tells each from the others here; at least its time, to the millisecond."""
    ids = {instance.id for instance in shown}
    return next((n for n in (13, 18, 23) if len({i[:n] for i in ids}) == len(ids)), 36)
