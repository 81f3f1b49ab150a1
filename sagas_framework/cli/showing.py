"""``saga show`` and ``saga history``: where one saga stands, and how it got there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, ago, aligned, print_json
from sagas_framework.core.events import Act
from sagas_framework.core.instance import Phase, SagaInstance, StepRecord
from sagas_framework.core.telling import effect, line_in_words, phase_in_words
from sagas_framework.core.why import in_words, quoted
from sagas_framework.saga import SagaDefinition
from sagas_framework.storage.ports import ActRow, HistoryLine
from sagas_framework.view import SagaView, line_to_json, summary


@click.command()
@click.argument("saga_id", metavar="ID")
@click.option(
    "--archive",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Look there, too, for one that has gone from the database.",
)
@json_option
@pass_program
def show(program: Program, saga_id: str, folder: Path | None) -> None:
    """Show where a saga stands, why it waits, and what can be done.

    ID is a saga's id, the beginning of one, or a business key.
    """
    view, now = program.view(saga_id, folder), program.now()
    if program.json:
        print_json(view.to_json())
        return
    screen = Screen()
    _print_head(screen, view.instance, now)
    screen.line()
    screen.line(view.why)
    if view.saga is None and not view.instance.status.ended:
        screen.line(_undeclared(program, view.instance))
    screen.line()
    _print_steps(screen, view)
    screen.heading("State")
    screen.verbatim(json.dumps(dict(view.instance.state), indent=2, ensure_ascii=False))
    _print_asked(screen, view.acts, now)
    _print_options(screen, program, saga_id, view)


@click.command()
@click.argument("saga_id", metavar="ID")
@click.option(
    "--archive",
    "folder",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Look there, too, for one that has gone from the database.",
)
@json_option
@pass_program
def history(program: Program, saga_id: str, folder: Path | None) -> None:
    """Show all that happened to a saga, oldest first.

    ID is a saga's id, the beginning of one, or a business key.
    """
    view, now = program.view(saga_id, folder), program.now()
    if program.json:
        print_json(summary(view.instance) | {"history": [line_to_json(line) for line in view.history]})
        return
    screen = Screen()
    screen.status(view.instance.status.value, before=f"{view.instance.key} is ")
    screen.line(view.why)
    screen.line()
    if not view.history:
        screen.line("Nothing has happened yet.")
    print_history(screen, view.history, view.instance.created_at, now)


# ---- the parts of `show` ------------------------------------------------------------------------------


def _print_head(screen: Screen, instance: SagaInstance, now: datetime) -> None:
    screen.status(instance.status.value, before=f"{instance.key} is ")
    facts = [
        ["Saga", f"{instance.saga} version {instance.version}"],
        ["Id", instance.id],
        ["Started", ago(instance.created_at, now)],
    ]
    if instance.ended_at is not None:
        took = in_words(instance.ended_at - instance.created_at)
        facts.append(["Ended", f"{ago(instance.ended_at, now)}, after {took}"])
    else:
        facts.append(["Changed", ago(instance.updated_at, now)])
    facts.append(["Revision", str(instance.revision)])
    if instance.outcome is not None:
        at = f" at {instance.outcome.step}" if instance.outcome.step else ""
        facts.append(["Outcome", f"{instance.outcome.kind.value}{at}"])
    screen.line()
    screen.facts(facts)


def _undeclared(program: Program, instance: SagaInstance) -> str:
    known = program.sagas.definitions.known()
    named = f"{instance.saga} version {instance.version}"
    if (instance.saga, instance.version) in known:
        return (
            f"{program.name} declares {named} with other steps than this saga was started with, so its "
            "workers do not move it."
        )
    names = ", ".join(f"{name} version {version}" for name, version in known) or "none"
    return (
        f"{program.name} does not declare {named}, so its workers do not move this saga. "
        f"It declares: {names}."
    )


def _print_steps(screen: Screen, view: SagaView) -> None:
    rows = [["Step", "Phase", "Tries", "Undo tries", "Its effect now"]]
    rows += [
        [
            _named(record, view.saga),
            phase_in_words(record, view.saga),
            _count(record.attempts),
            _count(record.tries),
            effect(record, view.instance, view.saga).value,
        ]
        for record in view.records
    ]
    fits = screen.fits(aligned(rows))
    head, *lines = aligned(rows if fits else [row[:-1] for row in rows])
    screen.line(head)
    for record, line, row in zip(view.records, lines, rows[1:], strict=True):
        screen.line(line)
        if not fits and record.phase is not Phase.PENDING:
            screen.line(f"its effect now: {row[-1]}", indent=4)
        if record.error:
            screen.line(quoted(record.error), indent=4)


def _named(record: StepRecord, saga: SagaDefinition | None) -> str:
    is_pivot = saga is not None and saga.index(record.name) == saga.pivot
    return f"{record.name} (pivot)" if is_pivot else record.name


def _count(number: int) -> str:
    return str(number) if number else "-"


def _print_asked(screen: Screen, asked: Sequence[ActRow], now: datetime) -> None:
    if not asked:
        return
    screen.heading("Asked for")
    for act in asked:
        became = f"refused: {act.answer}" if act.refused else "no orchestrator has taken it yet"
        on = f" {act.step}" if act.step else ""
        told = f'{act.act.value}{on} by {act.by}, {ago(act.created_at, now)} ("{act.reason}"): {became}.'
        screen.line(told)


def _print_options(screen: Screen, program: Program, named: str, view: SagaView) -> None:
    possible = view.options
    if not (possible or view.signals):
        return
    screen.heading("What you can do")
    for record in view.records:
        for signal in view.awaited_by(record):
            words = ["saga", "-A", str(program.name), "signal", view.instance.saga, view.instance.key]
            line = shlex.join([*words, signal.signal_name])
            schema = signal.model_json_schema()
            if schema.get("required"):
                line += f" --payload '{_example(schema)}'"
            screen.verbatim(line)
            screen.line(f"{record.name}: takes the signal, and waits no longer.", indent=4)
    waiting = {option.step for option in possible if option.step}
    for option in possible:
        words = ["saga", "-A", str(program.name), option.act.value, named]
        if option.act is Act.RESCHEDULE:
            words += [*([option.step] if option.step else []), "--until", "MOMENT"]
        elif option.step and len(waiting) > 1:
            words += ["--step", option.step]
        if option.force:
            words.append("--force")
        line = shlex.join(words) + " --reason '...'"
        if option.reply is not None:
            line += f" --reply '{_example(option.reply)}'"
        screen.verbatim(line)
        told = f"{option.step}: {option.consequence}" if option.step else option.consequence.capitalize()
        screen.line(f"{told}.", indent=4)


def _example(schema: Mapping[str, Any]) -> str:
    """What a reply looks like: its required fields, with the kind of value that each takes."""
    if "properties" not in schema:
        return "<JSON>"  # a plain task's result
    fields = schema["properties"]
    named = schema.get("required", fields)
    return "{" + ", ".join(f'"{name}": <{fields[name].get("type", "value")}>' for name in named) + "}"


# ---- history ------------------------------------------------------------------------------------------


def print_history(screen: Screen, lines: Sequence[HistoryLine], start: datetime, now: datetime) -> None:
    """The lines with their age and the time since the start; what belongs to each stands under it."""
    rows = [
        [ago(line.recorded.at, now), f"+{in_words(line.recorded.at - start)}", line.recorded.entry]
        for line in lines
    ]
    for line, text in zip(lines, aligned(rows) if rows else [], strict=True):
        screen.line(text)
        if told := line_in_words(line.recorded):
            screen.line(told, indent=4)
