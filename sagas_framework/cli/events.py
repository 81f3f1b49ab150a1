"""``saga events``: what waits to be sent, and what waits for a subscriber or for a person."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click
from sqlalchemy import Engine

from sagas_framework.cli import acting
from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.output import Screen, ago, print_json
from sagas_framework.errors import SagasError
from sagas_framework.outbox import KEPT
from sagas_framework.storage.engine import reading
from sagas_framework.storage.event_inbox import EventRow, EventState, drop_events, read_events, retry_events
from sagas_framework.storage.outbox import Outbox, read_backlog, read_unsent
from sagas_framework.subscriber import Subscriber
from sagas_framework.transport.topics import unbind as unbind_topic

_MOST = 10_000


@click.group()
@json_option
def events() -> None:
    """List, retry and drop events that wait for subscribers; see and repeat what was published."""


@events.command("list")
@click.option("--parked", is_flag=True, help="Only those whose attempts are used up.")
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many."
)
@json_option
@pass_program
def list_events(program: Program, parked: bool, limit: int) -> None:
    """List the events that wait for a subscriber of this service, or for a person; the last ones first."""
    with reading(_engine(program)) as connection:
        found = read_events(connection, state=EventState.PARKED if parked else None, limit=limit + 1)
    shown, more = found[:limit], len(found) > limit
    if program.json:
        print_json({"events": [event_to_json(row) for row in shown], "more": more})
        return
    screen, now = Screen(), program.now()
    if not shown:
        screen.line("No event is parked." if parked else "No event waits for a subscriber.")
    for row in shown:
        screen.status(
            row.state.value, f", {_attempts(row, now)}", before=f"{row.event_id}  {row.subscriber}  "
        )
        screen.line(f"{row.topic}, published {ago(row.at, now)}", indent=4)
        if row.reason:
            screen.line(row.reason, indent=4)
    if more:
        screen.line("There are more: raise --limit to see them.")


@events.command("show")
@click.argument("event", metavar="EVENT")
@json_option
@pass_program
def show_event(program: Program, event: str) -> None:
    """Show an event, by its id or the beginning of it, and how it stands with each subscriber."""
    rows = _rows(program, event, None)
    if program.json:
        print_json({"events": [event_to_json(row) for row in rows]})
        return
    screen, now = Screen(), program.now()
    screen.line(f"Event {rows[0].event_id}: {rows[0].topic}, published {ago(rows[0].at, now)}")
    screen.line()
    for row in rows:
        screen.status(row.state.value, f", {_attempts(row, now)}", before=f"{row.subscriber}  ")
        if row.reason:
            screen.line(row.reason, indent=4)
    body = next((row.body for row in rows if row.body is not None), None)
    if body is not None:
        screen.heading("Fields")
        screen.verbatim(json.dumps(json.loads(body), indent=2, ensure_ascii=False))


@events.command()
@click.argument("event", metavar="[EVENT]", required=False)
@click.option("--subscriber", metavar="NAME", help="Only for this one.")
@click.option("--parked", is_flag=True, help="All that are parked, instead of one event.")
@json_option
@pass_program
def retry(program: Program, event: str | None, subscriber: str | None, parked: bool) -> None:
    """Have an event, or all that are parked, tried again now, with all attempts before them."""
    if parked == (event is not None):
        raise SagasError("Say which: the id of an event, or --parked for all that are parked.")
    if event is not None:
        rows = _rows(program, event, subscriber)
    else:
        with reading(_engine(program)) as connection:
            rows = read_events(connection, state=EventState.PARKED, limit=_MOST)
        rows = [row for row in rows if subscriber in (None, row.subscriber)]
    with _engine(program).begin() as connection:
        number = retry_events(connection, rows, program.now())
    if program.json:
        print_json({"retried": number})
    else:
        Screen().status("done", f": {_counted(number)} tried again; a worker takes them within a second.")


@events.command()
@click.argument("event", metavar="EVENT")
@click.option(
    "--subscriber", metavar="NAME", help="Only for this one; else for all that have not handled it."
)
@click.option("--reason", required=True, help="Why it is not needed.")
@click.option("--by", help="Who drops it.  [default: your login name]")
@json_option
@pass_program
def drop(program: Program, event: str, subscriber: str | None, reason: str, by: str | None) -> None:
    """Give an event up for its subscribers. They never handle it, also if it comes again."""
    who = acting.login_name() if by is None else by.strip()
    if not who or not reason.strip():
        raise SagasError("Dropping an event needs a name and a reason.")
    rows = _rows(program, event, subscriber)
    with _engine(program).begin() as connection:
        number = drop_events(connection, rows, f"dropped by {who}: {reason}", program.now())
    if program.json:
        print_json({"dropped": number, "by": who, "reason": reason})
    else:
        Screen().status("done", f": {_counted(number)} dropped, by {who}: {reason}.")


@events.command()
@click.argument("topic")
@json_option
@pass_program
def unbind(program: Program, topic: str) -> None:
    """Take a topic off this service's queue, after its last subscriber was taken out of the code.

    Needs the broker.
    """
    subscriber = _subscriber(program)
    if topic in subscriber.queue.topics:
        raise SagasError(
            f"{program.name} subscribes to {topic}: take its functions out of the code first, and restart "
            "the workers. Else the next one binds it again."
        )
    app = program.found.app_of(subscriber)
    if app is None:
        raise SagasError(f"{program.name} has no Celery app with this subscriber, so no broker is known.")
    unbind_topic(app.conf.broker_url, subscriber.queue, topic)
    if program.json:
        print_json({"unbound": topic, "queue": subscriber.queue.name})
    else:
        Screen().status("done", f": {topic} does not come to {subscriber.queue.name} any more.")


@events.command()
@click.option(
    "--limit", type=click.IntRange(1, _MOST), default=50, show_default=True, help="At most so many."
)
@json_option
@pass_program
def outbox(program: Program, limit: int) -> None:
    """List what this service has published and the broker has not confirmed yet, in the order of sending."""
    with reading(_engine(program)) as connection:
        backlog, unsent = read_backlog(connection), read_unsent(connection, limit)
    if program.json:
        listed = [
            {"event_id": row.event_id, "topic": row.topic, "number": row.number, "at": row.at.isoformat()}
            for row in unsent
        ]
        print_json({"unsent": backlog.events, "events": listed})
        return
    screen, now = Screen(), program.now()
    if not unsent:
        screen.line("Nothing waits to be sent.")
    for row in unsent:
        screen.line(f"{row.event_id}  {row.topic}, published {ago(row.at, now)}")
    if backlog.events > len(unsent):
        screen.line(f"There are {backlog.events - len(unsent)} more: raise --limit to see them.")


@events.command("send-again")
@click.option(
    "--since",
    type=Span(),
    required=True,
    help=f"How far back, as in 2h: events that were sent since then; they are kept {KEPT.days}d.",
)
@json_option
@pass_program
def send_again(program: Program, since: timedelta) -> None:
    """Send events once more, for a broker that has lost them. Nobody handles one twice."""
    number = Outbox(_engine(program)).send_again(program.now() - since)
    if program.json:
        print_json({"sent_again": number})
    else:
        Screen().status("done", f": {_counted(number)} to be sent again; a relay sends them within a second.")


def event_to_json(row: EventRow) -> dict[str, Any]:
    """An event with one subscriber, as plain JSON."""
    return {
        "event_id": row.event_id,
        "subscriber": row.subscriber,
        "topic": row.topic,
        "number": row.number,
        "at": row.at.isoformat(),
        "state": row.state.value,
        "attempt": row.attempt,
        "due_at": row.due_at and row.due_at.isoformat(),
        "reason": row.reason,
        "payload": None if row.body is None else json.loads(row.body),
    }


def _attempts(row: EventRow, now: datetime) -> str:
    told = f"{row.attempt} attempt{'' if row.attempt == 1 else 's'}"
    if row.due_at is not None and row.attempt and row.due_at > now:
        told += f", the next in {int((row.due_at - now).total_seconds())} s"
    return told


def _counted(number: int) -> str:
    return "1 event is" if number == 1 else f"{number} events are"


def _rows(program: Program, event: str, subscriber: str | None) -> Sequence[EventRow]:
    with reading(_engine(program)) as connection:
        rows = read_events(connection, event_id=event)
    ids = sorted({row.event_id for row in rows})
    if len(ids) > 1:
        raise SagasError(f"{event!r} fits more than one event. Write the id of one: {', '.join(ids)}.")
    rows = [row for row in rows if subscriber in (None, row.subscriber)]
    if not rows:
        whom = f" for {subscriber}" if subscriber else ""
        raise SagasError(
            f"No event {event!r}{whom} has come here; `saga -A {program.name} events list` shows what waits."
        )
    return rows


def _subscriber(program: Program) -> Subscriber:
    found = program.found.subscriber
    if found is None:
        raise SagasError(f"{program.name} subscribes to nothing: it has no Subscriber.")
    return found


def _engine(program: Program) -> Engine:
    database, *others = program.found.databases
    if others:
        raise SagasError(f"{program.name} has more than one database. Name one: -A module:attribute.")
    program.check(database)
    return database.engine
