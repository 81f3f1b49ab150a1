"""``saga retry|skip|complete|cancel``: an act is a row; an orchestrator takes it and answers there."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, TypeVar

import click

from sagas_framework.cli.base import Program, json_option, pass_program
from sagas_framework.cli.listing import definition_of
from sagas_framework.cli.options import options
from sagas_framework.cli.output import Screen, plain, print_json
from sagas_framework.cli.showing import act_to_json, print_history
from sagas_framework.core.events import Act
from sagas_framework.core.instance import SagaInstance
from sagas_framework.core.why import why
from sagas_framework.errors import SagasError
from sagas_framework.sagas import Sagas, line_to_json, summary
from sagas_framework.storage.ports import ActRow, HistoryLine

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE: Final = timedelta(seconds=5)
"""How long to wait for an orchestrator's answer; a running one takes an act within a second."""
_LOOK_EVERY: Final = 0.1  # seconds

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
@click.option("--reply", metavar="JSON", help="What the participant would have answered, as a JSON object.")
@_shared(step=True)
def complete(program: Program, reply: str | None, **asked: Any) -> None:
    """Count a step as done, or undone, by your own hand.

    ID is a saga's id, the beginning of one, or a business key.
    """
    _act(program, Act.COMPLETE, reply=None if reply is None else _object(reply), **asked)


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


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise SagasError(
            f"--reply is no JSON ({error}). Write it like --reply '{{\"ticket_id\": 7}}'."
        ) from None
    if not isinstance(value, dict):
        raise SagasError("--reply must be a JSON object, like --reply '{\"ticket_id\": 7}'.")
    return value


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
    reply: dict[str, Any] | None = None,
) -> None:
    instance, sagas = program.one(saga_id), program.sagas
    number = sagas.act(
        instance.id,
        act,
        by=login_name() if by is None else by,
        reason=reason,
        revision=instance.revision if revision is None else revision,
        step=step,
        reply=reply,
        force=force,
    )
    row = sagas.act_answer(number) if no_wait else _answer(sagas, number)
    after = sagas.get(instance.id)
    since: list[HistoryLine] = []
    if row.refused and row.revision is not None and after.revision != row.revision:
        since = list(sagas.history(instance.id, after_revision=row.revision))
    if program.json:
        print_json(
            act_to_json(row) | {"saga": summary(after), "history": [line_to_json(line) for line in since]}
        )
    else:
        _tell(program, row, after, since, waited=not no_wait)
    if row.refused:
        raise SystemExit(REFUSED)
    if row.handled_at is None and not no_wait:
        raise SystemExit(NOT_TAKEN)


def _answer(sagas: Sagas, number: int) -> ActRow:
    """The act once it was taken, or as it is when patience ends."""
    until = time.monotonic() + PATIENCE.total_seconds()
    while (row := sagas.act_answer(number)).handled_at is None and time.monotonic() < until:
        time.sleep(_LOOK_EVERY)
    return row


def _needs_reply(program: Program, instance: SagaInstance) -> bool:
    definition = definition_of(program.sagas, instance)
    return definition is not None and any(o.reply for o in options(definition, instance, program.now()))


def _tell(
    program: Program, row: ActRow, instance: SagaInstance, since: list[HistoryLine], *, waited: bool
) -> None:
    screen, now = Screen(), program.now()
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
        elif row.act is Act.COMPLETE and row.reply is None and _needs_reply(program, instance):
            screen.line(
                f"Give it with --reply. `saga -A {program.name} show {instance.key}` says what it looks like."
            )
    else:
        screen.status("done", f": {plain(row.answer or '')}.")
        screen.status(instance.status.value, before=f"{instance.key} is ")
        screen.line(why(instance, now, definition_of(program.sagas, instance)))
