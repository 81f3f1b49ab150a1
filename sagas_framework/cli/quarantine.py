"""``saga quarantine``: messages that could not be read or belong to nobody, set aside for a person."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from sqlalchemy import Engine

from sagas_framework.cli import acting
from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, ago, compact, print_json
from sagas_framework.errors import SagasError
from sagas_framework.storage.engine import reading
from sagas_framework.storage.ports import Quarantined
from sagas_framework.storage.reads import read_quarantine
from sagas_framework.storage.sql import ask_replay, drop_quarantined

_LONGEST_NAME = 100  # characters of `saga_quarantine.replay`


@click.group()
@json_option
def quarantine() -> None:
    """List, replay and drop messages that were set aside."""


@quarantine.command("list")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most so many."
)
@json_option
@pass_program
def list_messages(program: Program, limit: int) -> None:
    """List the messages that were set aside, newest first."""
    with reading(_engine(program)) as connection:
        found = read_quarantine(connection, limit + 1)
    shown, more = found[:limit], len(found) > limit
    if program.json:
        print_json({"messages": [message_to_json(message) for message in shown], "more": more})
        return
    screen, now = Screen(), program.now()
    if not shown:
        screen.line("The quarantine is empty.")
    for message in shown:
        saga = f", saga {message.saga_id}" if message.saga_id else ""
        screen.line(f"{message.id}  {message.task or 'no task'}, {ago(message.at, now)}{saga}")
        screen.line(f"{message.reason}{_asked(message)}", indent=4)
    if more:
        screen.line("There are more: raise --limit to see them.")


@quarantine.command("show")
@click.argument("number", metavar="ID", type=int)
@json_option
@pass_program
def show_message(program: Program, number: int) -> None:
    """Show a message as it came, and why it was set aside."""
    message = _one(_engine(program), number, program)
    if program.json:
        print_json(message_to_json(message))
        return
    screen = Screen()
    screen.line(f"Message {message.id}: {message.reason}{_asked(message)}")
    screen.line()
    facts = [
        ["Task", message.task or "none named"],
        ["Queue", message.queue],
        ["Set aside", ago(message.at, program.now())],
        ["Trouble at", message.path],
    ]
    if message.saga_id:
        facts.append(["Saga", message.saga_id])
    screen.facts(facts)
    screen.heading("Headers")
    for name, value in sorted(message.headers.items()):
        screen.line(f"{name}: {value if isinstance(value, str) else compact(value)}")
    screen.heading("Body")
    screen.verbatim(_pretty(message.body))


@quarantine.command()
@click.argument("number", metavar="ID", type=int)
@click.option("--by", help="Who wants it.  [default: your login name]")
@click.option("--reason", help="Why.")
@click.option("--no-wait", is_flag=True, help="Do not wait until a worker has sent it.")
@json_option
@pass_program
def replay(program: Program, number: int, by: str | None, reason: str | None, no_wait: bool) -> None:
    """Have a worker send a message to its queue again, as it came.

    It leaves the quarantine once the broker has it; what still cannot be handled comes back under another
    number. Exits with 1 if the broker did not take it.
    """
    engine = _engine(program)
    message = _one(engine, number, program)
    who = _who(by)
    asked_by = f"{who}: {reason}" if reason else who
    with engine.begin() as connection:
        there = ask_replay(connection, number, asked_by[:_LONGEST_NAME])
    became = "sent" if not there else "stored" if no_wait else _became(engine, number)
    why = _one(engine, number, program).reason if became == "refused" else None
    if program.json:
        print_json({"id": number, "became": became, "by": who, "reason": reason, "why": why})
    else:
        screen = Screen()
        match became:
            case "sent":
                screen.status("done", f": a worker took message {number} and sent it to {message.queue}.")
            case "refused":
                screen.status("refused", f": message {number} stays in the quarantine, under its number.")
                screen.line(f"{why}")
            case _:
                told = "." if no_wait else ": no worker has taken it yet; is one running?"
                screen.status("stored", told)
                screen.line("It is sent again when one runs.")
    if became == "refused":
        raise SystemExit(acting.REFUSED)
    if became == "stored" and not no_wait:
        raise SystemExit(acting.NOT_TAKEN)


@quarantine.command()
@click.argument("number", metavar="ID", type=int)
@click.option("--reason", required=True, help="Why it will never be needed.")
@click.option("--by", help="Who drops it.  [default: your login name]")
@json_option
@pass_program
def drop(program: Program, number: int, reason: str, by: str | None) -> None:
    """Delete a message for good. It is printed a last time, with name and reason: keep that if you must."""
    engine = _engine(program)
    message = _one(engine, number, program)
    who = _who(by)
    if not reason.strip():
        raise SagasError("Dropping a message needs a reason.")
    with engine.begin() as connection:
        drop_quarantined(connection, number)
    if program.json:
        print_json({"dropped": message_to_json(message), "by": who, "reason": reason})
        return
    screen = Screen()
    screen.status("done", f": message {number} is dropped for good, by {who}: {reason}.")
    screen.line("It was:")
    screen.verbatim(compact(message_to_json(message)))


def message_to_json(message: Quarantined) -> dict[str, Any]:
    """A message set aside, as plain JSON."""
    return {
        "id": message.id,
        "at": message.at.isoformat(),
        "queue": message.queue,
        "task": message.task,
        "saga_id": message.saga_id,
        "reason": message.reason,
        "path": message.path,
        "headers": dict(message.headers),
        "properties": dict(message.properties),
        "body": message.body,
        "replay": message.replay,
    }


def _engine(program: Program) -> Engine:
    """The one database whose quarantine is meant.

    Raises:
        SagasError: the inbox is no SQL database, or there are two databases.
    """
    participant = program.found.participant
    if not program.found.databases and participant is not None:
        raise SagasError(
            f"The participant {participant.service.name} keeps its inbox in a "
            f"{type(participant.inbox).__name__}, not in an SQL database: its quarantine cannot be "
            "listed, replayed or dropped from here."
        )
    database, *others = program.found.databases
    if others:
        raise SagasError(
            f"{program.name} has sagas and a participant with a database each. Name one: -A module:attribute."
        )
    program.check(database)
    return database.engine


def _one(engine: Engine, number: int, program: Program) -> Quarantined:
    with reading(engine) as connection:
        found = read_quarantine(connection, 1, number)
    if not found:
        raise SagasError(
            f"The quarantine has no message {number}; `saga -A {program.name} quarantine list` shows those "
            "there are."
        )
    return found[0]


def _who(by: str | None) -> str:
    who = acting.login_name() if by is None else by.strip()
    if not who:
        raise SagasError("Say who acts with --by NAME.")
    return who


def _became(engine: Engine, number: int) -> str:
    """What a worker made of a replay: sent, refused (by the broker), or still stored."""
    until = time.monotonic() + acting.PATIENCE.total_seconds()
    while time.monotonic() < until:
        with reading(engine) as connection:
            found = read_quarantine(connection, 1, number)
        if not found:
            return "sent"
        if found[0].replay is None:
            return "refused"
        time.sleep(0.1)
    return "stored"


def _asked(message: Quarantined) -> str:
    return f" (to be sent again, asked by {message.replay})" if message.replay else ""


def _pretty(body: str) -> str:
    try:
        return json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except ValueError:
        return body
