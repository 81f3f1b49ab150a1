"""``saga list``."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import click

from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.output import Screen, aligned, print_json
from sagas_framework.core.instance import SagaInstance, Status
from sagas_framework.core.why import in_words, why
from sagas_framework.errors import UnknownSaga
from sagas_framework.saga import SagaDefinition
from sagas_framework.sagas import Sagas, summary
from sagas_framework.storage.ports import Filter


@click.command("list")
@click.option("--status", type=click.Choice([s.value for s in Status]), help="Only those in this status.")
@click.option("--saga", "saga_name", metavar="NAME", help="Only those of this saga.")
@click.option("--key", help="Only those with this business key.")
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
    open_only: bool,
    older_than: timedelta | None,
    limit: int,
) -> None:
    """List sagas, those that need a person first, then the newest."""
    now = program.now()
    sagas = program.sagas
    wanted = Filter(
        saga=saga_name,
        status=Status(status) if status else None,
        key=key,
        older_than=None if older_than is None else now - older_than,
        open_only=open_only,
        limit=limit,
    )
    found = sagas.list(replace(wanted, limit=limit + 1))
    shown, more = found[:limit], len(found) > limit
    if program.json:
        listed = [summary(i) | {"why": why(i, now, definition_of(sagas, i))} for i in shown]
        print_json({"sagas": listed, "more": more})
        return
    screen = Screen()
    if not shown:
        anything = wanted == Filter(limit=limit)
        screen.line("There is no saga yet." if anything else "No saga is like that.")
    _print(screen, sagas, shown, now)
    if more:
        screen.line("There are more: raise --limit to see them.")


def _print(screen: Screen, sagas: Sagas, shown: Any, now: datetime) -> None:
    if not shown:
        return
    length = _telling(shown)
    rows = [["Status", "Key", "Saga", "Age", "Id"]]
    rows += [
        [i.status.value, i.key if i.key != i.id else "", i.saga, in_words(now - i.created_at), i.id[:length]]
        for i in shown
    ]
    head, *lines = aligned(rows)
    screen.line(head)
    for instance, line in zip(shown, lines, strict=True):
        word = instance.status.value
        screen.status(word, line[len(word) :])
        if instance.status is not Status.COMPLETED:
            screen.line(why(instance, now, definition_of(sagas, instance)), indent=4)


def _telling(shown: Any) -> int:
    """How much of an id tells each from the others here; at least its time, to the millisecond."""
    ids = {instance.id for instance in shown}
    return next((n for n in (13, 18, 23) if len({i[:n] for i in ids}) == len(ids)), 36)


def definition_of(sagas: Sagas, instance: SagaInstance) -> SagaDefinition | None:
    """The declaration that moves the instance, None if this module has none."""
    try:
        return sagas.definitions.get(instance.saga, instance.version)
    except UnknownSaga:
        return None
