"""``saga contracts diff``: whether a release breaks a service that is not redeployed with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
from typing_extensions import override

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, print_json
from sagas_framework.contracts import CannotCompare, Change, Compared, Report, compare, read, tools
from sagas_framework.contracts.structure import MODULES_VARIABLE, NODE_VARIABLE

BREAKS: Final = 1
CANNOT_COMPARE: Final = 2


class _NoVerdictError(click.ClickException):
    """Nothing was compared, or not everything."""

    exit_code = CANNOT_COMPARE


class _Diff(click.Command):
    """A command whose wrong calls have their own exit code, because 1 is a verdict."""

    @override
    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            usage = f"{error.ctx.get_usage()}\n" if error.ctx is not None else ""
            raise _NoVerdictError(f"{error.format_message()}\n{usage}".rstrip()) from error


@click.group()
def contracts() -> None:
    """Compare what services say to each other."""


@contracts.command(cls=_Diff)
@click.argument("old", type=click.Path(path_type=Path))
@click.argument("new", type=click.Path(path_type=Path))
@click.option(
    "--new-service",
    "admitted",
    multiple=True,
    metavar="SERVICE",
    help="The last release did not have this service: it needs no older document. May be repeated.",
)
@click.option(
    "--allow-major", is_flag=True, help="A document may break others if its major info.version has grown."
)
@click.option("--node", metavar="PROGRAM", help=f"The program node. Or the environment's {NODE_VARIABLE}.")
@click.option(
    "--node-modules",
    metavar="FOLDER",
    help=f"The node_modules with @asyncapi/diff in it. Or the environment's {MODULES_VARIABLE}.",
)
@json_option
@pass_program
def diff(
    program: Program,
    old: Path,
    new: Path,
    admitted: Sequence[str],
    allow_major: bool,
    node: str | None,
    node_modules: str | None,
) -> None:
    """Say of each change whether it breaks a sender or a receiver that has not been redeployed.

    OLD and NEW are AsyncAPI 3 documents, as YAML or JSON, or folders of them: those of the last release, and
    those of the next one. No broker, no database, no worker.

    Exits with 0 if nothing breaks, with 1 if something does, and with 2 if something could not be compared.
    """
    try:
        report = compare(read(old), read(new), admitted=admitted, by=tools(node, node_modules))
    except CannotCompare as error:
        raise _NoVerdictError(str(error)) from error
    passes = report.passes(majors=allow_major)
    if program.json:
        print_json({"passes": passes, **report.to_json()})
    else:
        _print(Screen(), report, allow_major)
    if not passes:
        alone_missing = report.missing and not _refused(report, allow_major)
        raise SystemExit(CANNOT_COMPARE if alone_missing else BREAKS)


def _refused(report: Report, allow_major: bool) -> list[Compared]:
    return [one for one in report.compared if one.breaking and not (allow_major and one.major)]


# ---- for people -------------------------------------------------------------------------------------


def _print(screen: Screen, report: Report, allow_major: bool) -> None:
    for one in report.compared:
        screen.line(f"{one.service} {one.old} -> {one.new}: {_summary(one)}")
        for change in one.changes:
            _print_change(screen, change)
        if one.breaking and allow_major:
            screen.line(_of_version(one), indent=2)
        screen.line()
    for service in report.admitted:
        screen.line(f"{service}: new in this release, as said; nothing to compare.")
    for service, what in report.missing.items():
        screen.status("not compared", f": {service}. {what}")
    if report.admitted or report.missing:
        screen.line()
    screen.line(_verdict(report))


def _print_change(screen: Screen, change: Change) -> None:
    about = f"{change.message}, {change.field}" if change.field else change.message or change.pointer
    screen.status(change.effect.value, f" {change.code}{f' at {about}' if about else ''}", before="  ")
    screen.line(change.what, indent=4)
    if change.instead:
        screen.line(change.instead, indent=4)


def _summary(one: Compared) -> str:
    if not one.changes:
        return "no change"
    breaking = len(one.breaking)
    harmless = len(one.changes) - breaking
    told = []
    if breaking:
        told.append(f"{breaking} breaking")
    if harmless:
        told.append(f"{harmless} safe")
    return ", ".join(told)


def _of_version(one: Compared) -> str:
    if one.major:
        return f"Its major version has grown from {one.old} to {one.new}, so it may."
    return f"Its major version has not grown ({one.old} -> {one.new}); raise info.version if that is meant."


def _verdict(report: Report) -> str:
    breaking = len(report.breaking)
    if breaking:
        return f"{breaking} {'change breaks' if breaking == 1 else 'changes break'} what is not redeployed."
    if report.missing:
        return "Not everything could be compared."
    return "Nothing breaks."
