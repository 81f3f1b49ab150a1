"""``saga doctor``: what is wrong with an installation before it costs an order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.finding import Found
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.doctor.examining import examine
from sagas_framework.doctor.findings import Examination, Finding, Report, Severity
from sagas_framework.doctor.installation import Installation
from sagas_framework.errors import SagasError

_WORDS: Final = {
    Severity.LOSES: "loses orders",
    Severity.WRONG: "wrong",
    Severity.NOTE: "note",
    Severity.UNKNOWN: "not examined",
}


@click.command()
@click.option("--strict", is_flag=True, help="Exit with 1 for notes as well.")
@json_option
@pass_program
def doctor(program: Program, strict: bool) -> None:
    """Connect to the broker, the database and the results as a worker would, and say what is wrong there.

    Nothing is changed, and nothing is taken from a queue. Exits with 0 if nothing loses an order and
    nothing is wrong, else with 1.
    """
    reports = [examine(installation) for installation in installations(program.found)]
    sound = all(report.sound(strict=strict) for report in reports)
    if program.json:
        print_json({"sound": sound, "services": [report.to_json() for report in reports]})
    else:
        screen = Screen()
        for number, report in enumerate(reports):
            if number:
                screen.line()
            _print(screen, report)
    if not sound:
        raise SystemExit(1)


def installations(found: Found) -> list[Installation]:
    """What of the module can be examined: its sagas, its participant, or both."""
    sides: list[Installation] = []
    if found.sagas is not None:
        app = found.app_of(found.sagas)
        sides.append(Installation(found.name, sagas=found.sagas, app=app, beside=found.participant))
    if found.participant is not None:
        app = found.app_of(found.participant)
        sides.append(Installation(found.name, participant=found.participant, app=app))
    if not sides:
        raise SagasError(
            f"{found.name} only subscribes to events, and nothing of that is examined here. "
            f"`saga -A {found.name} health` says whether they are handled."
        )
    for side in sides:
        _readable(side)
    return sides


def _readable(side: Installation) -> None:
    """See that the app's settings can be read at all.

    Raises:
        SagasError: they cannot; the message has Celery's reason.
    """
    if side.app is None:
        return
    try:
        _ = side.broker, side.pool, side.celery_queues
    except Exception as error:
        told = " ".join(str(error).split())
        raise SagasError(
            f"The settings of {side.app.main}'s Celery app cannot be read: {type(error).__name__}: {told}"
        ) from error


# ---- for people -------------------------------------------------------------------------------------


def _print(screen: Screen, report: Report) -> None:
    bad = not report.sound()
    screen.status("not sound" if bad else "sound", f" ({_counted(report)})", before=f"{report.service} is ")
    for examination in report.examinations:
        screen.heading(f"{examination.area.value.capitalize()}: {examination.subject}")
        for finding in _gravest_first(examination):
            _print_finding(screen, finding)
        for phrase in examination.in_order:
            screen.line(f"in order: {phrase}", indent=2)


def _counted(report: Report) -> str:
    counts = {severity: len(report.of(severity)) for severity in Severity}
    told = [f"{count} {_plural(severity, count)}" for severity, count in counts.items() if count]
    return ", ".join(told) or "nothing found"


def _plural(severity: Severity, count: int) -> str:
    if severity is Severity.LOSES:
        return "that loses orders" if count == 1 else "that lose orders"
    return "notes" if severity is Severity.NOTE and count > 1 else _WORDS[severity]


def _gravest_first(examination: Examination) -> Sequence[Finding]:
    order = list(Severity)
    return sorted(examination.findings, key=lambda finding: order.index(finding.severity))


def _print_finding(screen: Screen, finding: Finding) -> None:
    screen.line(f"{_WORDS[finding.severity]}: {finding.what} {finding.why} [{finding.rule.value}]", indent=2)
    screen.line(f"{finding.setting}: {finding.write}", indent=6)
