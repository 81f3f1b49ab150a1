"""``saga show`` and ``saga history``: where one saga stands, and how it got there."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.listing import definition_of
from sagas_framework.cli.options import Option, options
from sagas_framework.cli.output import Screen, ago, aligned, compact, print_json
from sagas_framework.core.instance import Phase, SagaInstance, StepRecord, steps_to_json
from sagas_framework.core.why import in_words, quoted, times, why
from sagas_framework.saga import SagaDefinition
from sagas_framework.sagas import line_to_json, summary
from sagas_framework.storage.ports import ActRow, HistoryLine

_WORDS: Final = {
    Phase.PENDING: "not reached",
    Phase.RUNNING: "sent",
    Phase.PAUSING: "pausing",
    Phase.BLOCKED: "blocked",
    Phase.ANSWERED: "answered",
    Phase.SETTLING: "being settled",
    Phase.SUCCEEDED: "done",
    Phase.REFUSED: "refused",
    Phase.FAILED: "failed",
    Phase.UNKNOWN: "no answer",
    Phase.WITHDRAWN: "never happened",
    Phase.SKIPPED: "skipped",
    Phase.COMPENSATING: "being undone",
    Phase.UNDO_PAUSING: "undo pausing",
    Phase.HANDING_OVER: "handing over",
    Phase.HANDED_OVER: "handed over",
    Phase.COMPENSATED: "undone",
}


@click.command()
@click.argument("saga_id", metavar="ID")
@json_option
@pass_program
def show(program: Program, saga_id: str) -> None:
    """Show where a saga stands, why it waits, and what can be done.

    ID is a saga's id, the beginning of one, or a business key.
    """
    instance, sagas = program.one(saga_id), program.sagas
    now = program.now()
    definition = definition_of(sagas, instance)
    possible = options(definition, instance, now) if definition else []
    asked = [act for act in sagas.acts(instance.id) if act.handled_at is None or act.refused]
    if program.json:
        print_json(
            summary(instance)
            | {
                "why": why(instance, now, definition),
                "state": dict(instance.state),
                "steps": _steps_json(instance, definition),
                "history": [line_to_json(line) for line in sagas.history(instance.id)],
                "declared": definition is not None,
                "can_do": [option.to_json() for option in possible],
                "acts": [act_to_json(act) for act in asked],
            }
        )
        return
    screen = Screen()
    _print_head(screen, instance, now)
    screen.line()
    screen.line(why(instance, now, definition))
    if definition is None:
        known = (
            ", ".join(f"{name} version {version}" for name, version in sagas.definitions.known()) or "none"
        )
        screen.line(
            f"{program.name} does not declare {instance.saga} version {instance.version}, so its workers do "
            f"not move this saga. It declares: {known}."
        )
    screen.line()
    _print_steps(screen, instance, definition)
    screen.heading("State")
    screen.verbatim(json.dumps(dict(instance.state), indent=2, ensure_ascii=False))
    _print_asked(screen, asked, now)
    _print_options(screen, program, instance, saga_id, possible)


@click.command()
@click.argument("saga_id", metavar="ID")
@json_option
@pass_program
def history(program: Program, saga_id: str) -> None:
    """Show all that happened to a saga, oldest first.

    ID is a saga's id, the beginning of one, or a business key.
    """
    instance = program.one(saga_id)
    lines = program.sagas.history(instance.id)
    if program.json:
        print_json(summary(instance) | {"history": [line_to_json(line) for line in lines]})
        return
    screen, now = Screen(), program.now()
    screen.status(instance.status.value, before=f"{instance.key} is ")
    screen.line(why(instance, now, definition_of(program.sagas, instance)))
    screen.line()
    if not lines:
        screen.line("Nothing has happened yet.")
    print_history(screen, lines, instance.created_at, now)


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


def _records(instance: SagaInstance, definition: SagaDefinition | None) -> Iterable[StepRecord]:
    if not instance.steps and definition is not None:  # not started yet
        return [StepRecord(step.name) for step in definition.steps]
    return instance.steps.values()


def _steps_json(instance: SagaInstance, definition: SagaDefinition | None) -> list[dict[str, Any]]:
    """The steps as in the row, but with phase and counts always there."""
    always = (
        {"phase": r.phase.value, "attempts": r.attempts, "tries": r.tries}
        for r in _records(instance, definition)
    )
    rest = steps_to_json({record.name: record for record in _records(instance, definition)})
    return [{"name": own["name"]} | fixed | own for fixed, own in zip(always, rest, strict=True)]


def _print_steps(screen: Screen, instance: SagaInstance, definition: SagaDefinition | None) -> None:
    records = list(_records(instance, definition))
    rows = [["Step", "Phase", "Tries", "Undo tries"]]
    rows += [
        [_named(r, definition), _phase(r, definition), _count(r.attempts), _count(r.tries)] for r in records
    ]
    head, *lines = aligned(rows)
    screen.line(head)
    for record, line in zip(records, lines, strict=True):
        screen.line(line)
        if record.error:
            screen.line(quoted(record.error), indent=4)


def _named(record: StepRecord, definition: SagaDefinition | None) -> str:
    if definition is None:
        return record.name
    is_pivot = definition.index(record.name) == definition.pivot
    return f"{record.name} (pivot)" if is_pivot else record.name


def _phase(record: StepRecord, definition: SagaDefinition | None) -> str:
    word = _WORDS[record.phase]
    if record.phase is Phase.COMPENSATED and definition is not None:
        word = word if definition.steps[definition.index(record.name)].undoable else "nothing to undo"
    return f"{word}, parked" if record.parked else word


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


def _print_options(
    screen: Screen, program: Program, instance: SagaInstance, named: str, possible: Sequence[Option]
) -> None:
    if not possible:
        return
    screen.heading("What you can do")
    waiting = {option.step for option in possible if option.step}
    for option in possible:
        words = ["saga", "-A", str(program.name), option.act.value, named]
        if option.step and len(waiting) > 1:
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
    fields = schema.get("properties", {})
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
        if told := _details(line):
            screen.line(told, indent=4)


def _details(line: HistoryLine) -> str:
    detail = dict(line.recorded.detail)
    told = []
    error = {name: str(detail.pop(name)) for name in ("type", "message") if detail.get(name)}
    detail.pop("module", None)
    detail.pop("type", None)
    detail.pop("message", None)
    if "kind" in detail and "name" in detail:  # an outcome
        error = {"type": str(detail.pop("name")), **error}
        told.append(" at ".join(part for part in (detail.pop("kind"), detail.pop("step", "")) if part))
    if (by := detail.pop("by", None)) is not None:
        told.append(f'by {by}: "{detail.pop("reason", "")}"')
    told += [f"try {detail.pop(name)}" for name in ("attempt", "try") if name in detail]
    if "times" in detail:
        told.append(times(detail.pop("times")))
    if error.get("type") or error.get("message"):
        told.append(quoted(error))
    if (next_at := detail.pop("next_at", None)) is not None:
        told.append(f"again in {in_words(datetime.fromisoformat(next_at) - line.recorded.at)}")
    told += [str(detail.pop(name)) for name in ("why", "reason", "because") if name in detail]
    for name, value in detail.items():
        shown = value if isinstance(value, str) else compact(value)
        told.append(name.replace("_", " ") if value is True else f"{name}: {shown}")
    return "; ".join(told)


# ---- acts ---------------------------------------------------------------------------------------------


def act_to_json(act: ActRow) -> dict[str, Any]:
    """An operator's act, and what became of it: ``stored``, ``done`` or ``refused``."""
    became = "stored" if act.handled_at is None else "refused" if act.refused else "done"
    return {
        "number": act.id,
        "saga_id": act.saga_id,
        "act": act.act.value,
        "step": act.step,
        "by": act.by,
        "reason": act.reason,
        "force": act.force,
        "revision": act.revision,
        "created_at": act.created_at.isoformat(),
        "became": became,
        "answer": act.answer,
    }
