"""``saga retry|skip|complete|withdraw|reschedule|cancel``: an act is a row, answered by an orchestrator."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.output import Screen, plain, print_json
from sagas_framework.cli.showing import print_history
from sagas_framework.core.events import Act
from sagas_framework.core.options import Option
from sagas_framework.errors import SagasError
from sagas_framework.storage.ports import ActRow, HistoryLine
from sagas_framework.view import SagaView, act_to_json, line_to_json, needs_reply, summary

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE: Final = timedelta(seconds=5)
"""How long to wait for an orchestrator's answer; a running one takes an act within a second."""

REFUSED: Final = 1
NOT_TAKEN: Final = 2


def _shared(*, step: bool) -> Callable[[F], F]:
    """What every act is asked with."""
    decorators = [
        click.argument("saga_id", metavar="ID"),
        click.option("--reason", required=True, help="Why; kept in the history."),
        click.option("--by", help="Who; kept in the history.  [default: your login name]"),
        click.option("--force", is_flag=True, help="Do not ask the participant first: it is gone for good."),
        click.option(
            "--revision",
            type=int,
            metavar="N",
            help="Refuse if the saga is not at revision N (see `show`) any more.  [default: as it stands]",
        ),
        click.option("--no-wait", is_flag=True, help="Do not wait for the orchestrator's answer."),
        json_option,
        pass_program,
    ]
    if step:
        decorators.insert(2, click.option("--step", metavar="NAME", help="Which, if more than one waits."))

    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)  # type: ignore[operator]
        return command

    return decorate


@click.command()
@_shared(step=True)
def retry(program: Program, **asked: Any) -> None:
    """Try a step, or undoing it, once more now.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.RETRY, **asked)


@click.command()
@_shared(step=True)
def skip(program: Program, **asked: Any) -> None:
    """Go on without a step, or leave its effect as it is.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.SKIP, **asked)


@click.command()
@click.option(
    "--reply",
    metavar="JSON",
    help="What the participant would have answered, as a JSON object; of a plain task any JSON.",
)
@_shared(step=True)
def complete(program: Program, reply: str | None, **asked: Any) -> None:
    """Count a step as done, or undone, by your own hand.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.COMPLETE, reply=None if reply is None else _json(reply), **asked)


@click.command()
@_shared(step=True)
def withdraw(program: Program, **asked: Any) -> None:
    """Say of a step with an unknown outcome that it did not happen.

    Only of one whose participant keeps no inbox and cannot be asked. The saga turns back and undoes
    what was done before it. If it did happen, complete it.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.WITHDRAW, **asked)


@click.command()
@click.option("--until", required=True, metavar="MOMENT", help="ISO 8601, like 2026-03-02T18:00+01:00.")
@_shared(step=False)
@click.argument("step", required=False)
def reschedule(program: Program, step: str | None, until: str, **asked: Any) -> None:
    """Move the moment until which STEP waits; without STEP, the saga's own deadline.

    ID is a saga's id, the beginning of one, or a business key. A moment without a time zone is UTC.
    """
    _act(program, Act.RESCHEDULE, step=step, until=_moment(until), **asked)


@click.command()
@_shared(step=False)
def cancel(program: Program, **asked: Any) -> None:
    """Turn a saga back: undo what it did. Only before its pivot.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.CANCEL, **asked)


def login_name() -> str:
    """Who acts, unless somebody is named.

    Raises:
        SagasError: this process has no login name (some containers have none).
    """
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise SagasError("Nobody is logged in here: say who acts with --by NAME.") from None


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise SagasError(
            f"--reply is no JSON ({error}). Write it like --reply '{{\"ticket_id\": 7}}'."
        ) from None


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise SagasError(f"--until {text!r} is no moment. Write it like 2026-03-02T18:00+01:00.") from None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _check_reply(reply: Any, view: SagaView, step: str | None) -> None:
    """A contract's reply is an object; only a plain task's result may be any JSON."""
    of_a_task = (o.reply is not None and "properties" not in o.reply for o in view.options if _fits(o, step))
    if not isinstance(reply, dict) and not any(of_a_task):
        raise SagasError("--reply must be a JSON object, like --reply '{\"ticket_id\": 7}'.")


def _fits(option: Option, step: str | None) -> bool:
    return option.act is Act.COMPLETE and step in (None, option.step)


def _act(
    program: Program,
    act: Act,
    *,
    saga_id: str,
    reason: str,
    by: str | None,
    force: bool,
    revision: int | None,
    no_wait: bool,
    step: str | None = None,
    reply: Any = None,
    until: datetime | None = None,
) -> None:
    instance, sagas = program.one(saga_id), program.sagas
    if reply is not None:
        _check_reply(reply, sagas.view(instance.id), step)
    number = sagas.act(
        instance.id,
        act,
        by=login_name() if by is None else by,
        reason=reason,
        revision=instance.revision if revision is None else revision,
        step=step,
        reply=reply,
        force=force,
        until=until,
    )
    row = sagas.act_answer(number, within=timedelta(0) if no_wait else PATIENCE)
    after = sagas.view(instance.id)
    since: list[HistoryLine] = []
    if row.refused and row.revision is not None and after.instance.revision != row.revision:
        since = list(sagas.history(instance.id, after_revision=row.revision))
    if program.json:
        print_json(
            act_to_json(row)
            | {"saga": summary(after.instance), "history": [line_to_json(line) for line in since]}
        )
    else:
        _tell(program, row, after, since, waited=not no_wait)
    if row.refused:
        raise SystemExit(REFUSED)
    if row.handled_at is None and not no_wait:
        raise SystemExit(NOT_TAKEN)


def _tell(program: Program, row: ActRow, view: SagaView, since: list[HistoryLine], *, waited: bool) -> None:
    screen, now, instance = Screen(), program.now(), view.instance
    if row.handled_at is None:
        told = ": no orchestrator has taken it yet; is a worker running?" if waited else "."
        screen.status("stored", f" as act {row.id}{told}")
        screen.line(
            f"It is taken when one runs, unless the saga has moved on from revision {row.revision} by then. "
            f"`saga -A {program.name} show {instance.key}` lists it until then."
        )
    elif row.refused:
        screen.status("refused", f": {row.answer}.")
        if since:
            screen.heading(f"Since revision {row.revision}")
            print_history(screen, since, instance.created_at, now)
        elif row.act is Act.COMPLETE and row.reply is None and needs_reply(view, row.act, row.step):
            screen.line(
                f"Give it with --reply. `saga -A {program.name} show {instance.key}` says what it looks like."
            )
    else:
        screen.status("done", f": {plain(row.answer or '')}.")
        screen.status(instance.status.value, before=f"{instance.key} is ")
        screen.line(view.why)
