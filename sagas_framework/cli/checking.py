"""``saga check``: what is wrong with the sagas before one of them runs. No broker, no database, no worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
from celery import Celery
from celery.app.routes import Router, prepare

from sagas_framework.check.checking import Checked, check_program, check_saga
from sagas_framework.check.drawing import drawing
from sagas_framework.check.findings import Finding, Severity
from sagas_framework.check.outcomes import outcomes, table
from sagas_framework.check.queues import Setup
from sagas_framework.check.walked import UNWALKED
from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.finding import Found
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.errors import UnknownSaga
from sagas_framework.messages import Queue, QueueType
from sagas_framework.saga import SagaDefinition
from sagas_framework.sagas import Sagas


@click.command()
@click.argument("names", metavar="[SAGA]...", nargs=-1)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings as well.")
@click.option("--diagram", is_flag=True, help="Print the saga as a Mermaid flowchart instead.")
@click.option("--outcomes", "all_outcomes", is_flag=True, help="Print a table of all its outcomes instead.")
@json_option
@pass_program
def check(program: Program, names: tuple[str, ...], strict: bool, diagram: bool, all_outcomes: bool) -> None:
    """Walk every path of every saga, and say what is wrong before one runs.

    Every answer, refusal, fault, silence and cancelling, at every step: on an example of the saga's state,
    with the function that decides on the real ones. Nothing is connected to, and no handler runs.

    SAGA is the name of one; without names all are checked. Exits with 1 if there is an error.
    """
    sagas = program.found.sagas
    if sagas is None:
        _nothing_to_check(program)
        return
    setup = _setup(program, sagas)
    checked = [check_saga(saga, setup.policy) for saga in _named(sagas, names)]
    if diagram or all_outcomes:
        _show(program, checked, diagram, all_outcomes)
        return
    between = check_program(list(sagas.definitions), setup)
    findings = [*between, *(finding for one in checked for finding in one.findings)]
    if program.json:
        print_json(_in_json(checked, between, findings))
    else:
        _print(Screen(), checked, between, findings)
    bad = {Severity.ERROR, Severity.WARNING} if strict else {Severity.ERROR}
    if any(finding.severity in bad for finding in findings):
        raise SystemExit(1)


def _nothing_to_check(program: Program) -> None:
    side = program.found.participant or program.found.subscriber
    assert side is not None
    kind = "participant" if program.found.participant else "subscriber"
    if program.json:
        print_json(_in_json([], [], []))
        return
    Screen().line(f"{program.name} is the {kind} {side.service.name}: it has no sagas to check.")


def _named(sagas: Sagas, names: Sequence[str]) -> list[SagaDefinition]:
    """The sagas of these names, in every version; all, if there are no names.

    Raises:
        UnknownSaga: there is none of such a name.
    """
    known = {saga.name for saga in sagas.definitions}
    for name in names:
        if name not in known:
            raise UnknownSaga(name, None, known)
    return [saga for saga in sagas.definitions if not names or saga.name in names]


# ---- what the program says beside its sagas ---------------------------------------------------------


def _setup(program: Program, sagas: Sagas) -> Setup:
    apps = _apps(program.found)
    participant = program.found.participant

    def routed(task: str) -> str | None:
        return next((queue for app in apps if (queue := _route(app, task))), None)

    return Setup(
        policy=sagas.policy,
        reply_queue=sagas.reply_queue,
        serves=[participant.service] if participant is not None else [],
        taken=list(dict.fromkeys(queue for app in apps for queue in _taken_by(app))),
        routed=routed,
    )


def _apps(found: Found) -> list[Celery]:
    """The module's Celery apps, without those that run other sagas or another participant."""
    ours = (None, found.sagas, found.participant)
    return [
        app
        for app in found.apps
        if getattr(app, "sagas", None) in ours and getattr(app, "participant", None) in ours
    ]


def _taken_by(app: Celery) -> list[Queue]:
    """The queues that the app's workers consume, unless they are told otherwise."""
    queues: Any = app.amqp.queues
    return [
        Queue(
            queue.name,
            QueueType.QUORUM
            if (queue.queue_arguments or {}).get("x-queue-type") == QueueType.QUORUM
            else QueueType.CLASSIC,
        )
        for queue in queues.values()
    ]


def _route(app: Celery, task: str) -> str | None:
    """Where the app's ``task_routes`` send the task, if they say so."""
    try:
        found: Any = Router(prepare(app.conf.task_routes), app=app).lookup_route(task)
    except Exception:
        return None  # a router of the team's own that wants to know more than the name
    queue = found.get("queue") if found else None
    return getattr(queue, "name", queue)


# ---- printing ---------------------------------------------------------------------------------------


def _show(program: Program, checked: Sequence[Checked], diagram: bool, all_outcomes: bool) -> None:
    if program.json:
        shown: list[dict[str, Any]] = []
        for one in checked:
            parts: dict[str, Any] = {"saga": one.saga.name, "version": one.saga.version}
            if diagram:
                parts["diagram"] = drawing(one.walk)
            if all_outcomes:
                parts["outcomes"] = [outcome.to_json() for outcome in outcomes(one.walk)]
            shown.append(parts)
        print_json({"sagas": shown})
        return
    screen = Screen()
    for number, one in enumerate(checked):
        for finding in one.findings:
            if finding.code in UNWALKED:
                click.echo(str(finding), err=True)
        if number:
            screen.line()
        if diagram:
            if len(checked) > 1:
                screen.verbatim(f"%% {one.saga.name} version {one.saga.version}")
            screen.verbatim(drawing(one.walk))
        if diagram and all_outcomes:
            screen.line()
        if all_outcomes:
            if len(checked) > 1:
                screen.verbatim(f"### {one.saga.name} version {one.saga.version}\n")
            screen.verbatim(table(one.walk))


def _print(
    screen: Screen, checked: Sequence[Checked], between: Sequence[Finding], findings: Sequence[Finding]
) -> None:
    for one in checked:
        ways = len(outcomes(one.walk))
        title = f"{one.saga.name} version {one.saga.version}: {_counted(ways, 'outcome')}"
        screen.line(f"{title}, {_summary(one.findings) or 'nothing wrong'}")
        _print_findings(screen, one.findings)
        screen.line()
    if between:
        screen.line(f"The program: {_summary(between)}")
        _print_findings(screen, between)
        screen.line()
    screen.line(_summary(findings) or "Nothing is wrong.")


def _print_findings(screen: Screen, findings: Sequence[Finding]) -> None:
    for finding in findings:
        at = f" at {finding.step}" if finding.step else ""
        screen.status(finding.severity.value, f" {finding.code}{at}", before="  ")
        screen.line(finding.what, indent=4)
        screen.line(finding.instead, indent=4)


def _summary(findings: Sequence[Finding]) -> str:
    counts = [(severity, sum(f.severity is severity for f in findings)) for severity in Severity]
    return ", ".join(_counted(count, severity.value) for severity, count in counts if count)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}{'' if count == 1 else 's'}"


def _in_json(
    checked: Sequence[Checked], between: Sequence[Finding], findings: Sequence[Finding]
) -> dict[str, Any]:
    return {
        "sagas": [
            {
                "saga": one.saga.name,
                "version": one.saga.version,
                "outcomes": len(outcomes(one.walk)),
                "findings": [finding.to_json() for finding in one.findings],
            }
            for one in checked
        ],
        "program": [finding.to_json() for finding in between],
        **{
            f"{severity.value}s": sum(finding.severity is severity for finding in findings)
            for severity in Severity
        },
    }
