"""The program ``saga``: its options and its commands."""

from __future__ import annotations

from typing import Any

import click

from sagas_framework.cli.acting import cancel, complete, reschedule, retry, skip, withdraw
from sagas_framework.cli.archiving import archive
from sagas_framework.cli.base import Program, in_words_only, json_option, patient_database
from sagas_framework.cli.checking import check
from sagas_framework.cli.contracts import contracts
from sagas_framework.cli.costing import cost
from sagas_framework.cli.database import db
from sagas_framework.cli.doctoring import doctor
from sagas_framework.cli.events import events
from sagas_framework.cli.explaining import stuck, why
from sagas_framework.cli.health import health
from sagas_framework.cli.listing import list_sagas
from sagas_framework.cli.planning import migrate, plan
from sagas_framework.cli.quarantine import quarantine
from sagas_framework.cli.showing import history, show
from sagas_framework.cli.signalling import signal, signals
from sagas_framework.cli.stubbing import stub


class _Plain(click.Group):
    """A group whose commands' errors come out in words."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with in_words_only(Program()):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with in_words_only(ctx.ensure_object(Program)):
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as they were added, not by the alphabet


@click.group(cls=_Plain, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "-A",
    "--app",
    "name",
    envvar="SAGA_APP",
    metavar="MODULE[:ATTRIBUTE]",
    help="The service's worker, as for Celery: order_service.worker. Or the environment's SAGA_APP.",
)
@json_option
@click.pass_context
def saga(context: click.Context, name: str | None) -> None:
    """Look at sagas and act on them. Needs the service's database; `doctor` and `stub` need the broker."""
    context.ensure_object(Program).name = name
    patient_database()


for _command in (
    list_sagas,
    stuck,
    why,
    show,
    history,
    retry,
    skip,
    complete,
    withdraw,
    reschedule,
    cancel,
    signal,
    signals,
    quarantine,
    events,
    plan,
    migrate,
    check,
    contracts,
    doctor,
    stub,
    health,
    archive,
    cost,
    db,
):
    saga.add_command(_command)
