"""``saga signal`` and ``saga signals``: tell a saga what it waits for, and see what became of that."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import click

from sagas_framework.cli.acting import NOT_TAKEN, PATIENCE, REFUSED, login_name
from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, plain, print_json
from sagas_framework.errors import SagasError
from sagas_framework.storage.ports import Became, SignalRow
from sagas_framework.view import signal_to_json


@click.command()
@click.argument("saga")
@click.argument("key")
@click.argument("name")
@click.option("--payload", default="{}", metavar="JSON", help="What it says.  [default: {}]")
@click.option("--id", "said_id", metavar="ID", help="So that a repetition is the same signal.")
@click.option("--by", help="Who; kept in the history.  [default: your login name]")
@click.option("--reason", default="", help="Why; kept in the history.")
@click.option("--no-wait", is_flag=True, help="Do not wait for the orchestrator's answer.")
@json_option
@pass_program
def signal(
    program: Program,
    saga: str,
    key: str,
    name: str,
    payload: str,
    said_id: str | None,
    by: str | None,
    reason: str,
    no_wait: bool,
) -> None:
    """Tell the saga SAGA with the business key KEY the signal NAME.

    A saga without a key of its own has its id for one. What comes before its saga waits for it is kept.
    """
    who = login_name() if by is None else by
    sagas = program.sagas
    stored = sagas.signal(saga, (name, _payload(payload)), key=key, id=said_id, by=who, reason=reason)
    row = sagas.signal_answer(stored.id, within=timedelta(0) if no_wait else PATIENCE)
    if program.json:
        print_json(signal_to_json(row))
    else:
        _tell(row, waited=not no_wait)
    if row.too_late:
        raise SystemExit(REFUSED)
    if row.became is Became.STORED and not no_wait:
        raise SystemExit(NOT_TAKEN)


def _payload(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SagasError(
            f"--payload is no JSON ({error}). Write it like --payload '{{\"approved\": true}}'."
        ) from None


def _tell(row: SignalRow, *, waited: bool) -> None:
    screen = Screen()
    match row.became:
        case Became.TAKEN:
            screen.line(f"{row.signal} was taken by {row.saga} {row.key}.")
        case Became.TOO_LATE:
            screen.line(f"{row.signal} is too late: {plain(row.answer or '')}.")
        case Became.KEPT:
            screen.line(f"{row.signal} is kept until {row.saga} {row.key} waits for it.")
        case Became.STORED:
            told = ": no orchestrator has looked at it yet; is a worker running?" if waited else "."
            screen.line(f"{row.signal} is stored as signal {row.id}{told}")


@click.command()
@click.option("--saga", help="Only those for this saga.")
@click.option("--key", help="Only those for this business key.")
@click.option("--kept", is_flag=True, help="Only those that nobody has taken and that are not too late.")
@click.option("-n", "--limit", default=50, show_default=True, help="How many.")
@json_option
@pass_program
def signals(program: Program, saga: str | None, key: str | None, kept: bool, limit: int) -> None:
    """Signals and what became of them, newest first."""
    rows = program.sagas.signals(saga, key=key, kept_only=kept, limit=limit)
    if program.json:
        print_json({"signals": [signal_to_json(row) for row in rows]})
        return
    screen = Screen()
    for row in rows:
        why = f": {plain(row.answer)}" if row.answer else ""
        by = f" by {plain(row.by)}" if row.by else ""
        said = f"{row.said_at:%Y-%m-%d %H:%M:%S}"
        screen.line(f"{row.id}  {said}  {row.saga} {row.key}  {row.signal}{by}  {row.became.value}{why}")
    if not rows:
        screen.line("No signals.")
