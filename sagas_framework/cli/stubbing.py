"""``saga stub``: a worker made from an AsyncAPI document, in place of a service that does not exist yet."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import click
from typing_extensions import override

from sagas_framework.cli.base import Program, Span, json_option, pass_program
from sagas_framework.cli.output import Screen, compact, plain
from sagas_framework.errors import SagasError
from sagas_framework.transport.connecting import masked_broker

if TYPE_CHECKING:
    from sagas_framework.stub.behaviour import Behaviour
    from sagas_framework.stub.document import Document
    from sagas_framework.stub.participant import Told

V = TypeVar("V")

BROKER: Final = "CELERY_BROKER"
"""The environment's variable with the broker's address, as the workers of services have it."""


LONGEST_DELAY: Final = timedelta(days=1)
"""So long a delay is silence."""


class _Pair(click.ParamType[tuple[str, V]], Generic[V]):
    """``TASK=VALUE``; the task is a command of the document, by its name or the last part of it."""

    name = "pair"
    example = ""

    def value(self, text: str) -> V:
        """Read the value.

        Raises:
            ValueError: it is none.
        """
        raise NotImplementedError

    def alone(self) -> V:
        """The value of a task without one.

        Raises:
            ValueError: it needs one.
        """
        raise ValueError

    @override
    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, V]:
        if isinstance(value, tuple):
            return value
        task, equals, text = value.partition("=")
        try:
            if not task:
                raise ValueError
            return task, self.value(text) if equals else self.alone()
        except ValueError:
            self.fail(f"{value!r} should be written like {self.example}.", param, ctx)


class _Failure(_Pair[str]):
    example = "create_ticket=RestaurantClosed"

    @override
    def value(self, text: str) -> str:
        if not text:
            raise ValueError
        return text


class _Times(_Pair[float]):
    example = "create_ticket (always), or create_ticket=2 (the first two attempts)"

    @override
    def value(self, text: str) -> float:
        times = int(text)
        if times < 1:
            raise ValueError
        return times

    @override
    def alone(self) -> float:
        return inf


class _Json(_Pair[str]):
    example = """create_ticket='{"ticket_id": 7}'"""

    @override
    def value(self, text: str) -> str:
        return text


class _Delay(_Pair[timedelta]):
    example = "create_ticket=3 (seconds), or create_ticket=2m"

    @override
    def value(self, text: str) -> timedelta:
        try:
            delay = timedelta(seconds=float(text))
        except OverflowError:
            raise ValueError from None
        except ValueError:
            try:
                delay = Span().convert(text, None, None)
            except click.BadParameter:
                raise ValueError from None
        if not timedelta(0) <= delay <= LONGEST_DELAY:
            raise ValueError
        return delay


@click.command()
@click.argument("document", type=click.Path(path_type=Path), metavar="DOCUMENT")
@click.option("--broker", metavar="URL", help=f"The broker's address. Or the environment's {BROKER}.")
@click.option("--answer", type=_Json(), multiple=True, metavar="TASK=JSON", help="Succeed with this payload.")
@click.option(
    "--refuse", type=_Failure(), multiple=True, metavar="TASK=FAILURE", help="Refuse with a declared failure."
)
@click.option(
    "--fail", type=_Times(), multiple=True, metavar="TASK[=N]", help="Fail always, or the first N attempts."
)
@click.option("--silent", multiple=True, metavar="TASK", help="Take it, do nothing, and never answer.")
@click.option(
    "--delay", type=_Delay(), multiple=True, metavar="TASK=SPAN", help="Answer later: 3 (seconds), 2m."
)
@click.option("--queue", metavar="NAME", help="Which queue, if the document receives on several.")
@click.option(
    "--inbox",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Keep the inbox in this SQLite file, for the next start.",
)
@json_option
@pass_program
def stub(
    program: Program,
    document: Path,
    broker: str | None,
    answer: tuple[tuple[str, str], ...],
    refuse: tuple[tuple[str, str], ...],
    fail: tuple[tuple[str, float], ...],
    silent: tuple[str, ...],
    delay: tuple[tuple[str, timedelta], ...],
    queue: str | None,
    inbox: Path | None,
) -> None:
    """Stand in for a service of which there is only the AsyncAPI document DOCUMENT.

    A worker takes the commands of the document's `receive` operations and answers each with a valid
    example, or as the options say, until Ctrl-C. Whatever comes twice or late, undoes or settles, is
    answered as the real service would. TASK is a task's name or the last part of it.
    """
    _see_extra()
    from sagas_framework.stub.behaviour import Options, behaviours
    from sagas_framework.stub.document import read_document
    from sagas_framework.stub.running import see_broker, serve, stub_app

    read = read_document(document, queue)
    behave = behaviours(read, Options(answer, refuse, fail, silent, delay))
    address, whence = _broker(read, broker)
    see_broker(address, whence)
    teller = Teller(as_json=program.json)
    with stub_app(read, behave, broker=address, tell=teller.message, inbox=inbox) as app:
        teller.beginning(read, behave, address, _consumers(app, read))
        code = serve(app)
        teller.end()
    if code:
        raise SystemExit(code)


def _see_extra() -> None:
    """Say which extra is missing, before a module of it is."""
    try:
        import jsonschema  # noqa: F401
        import yaml  # noqa: F401
    except ModuleNotFoundError as missing:
        raise SagasError(
            f"`saga stub` needs {missing.name}, which comes with an extra. "
            "Run: pip install 'sagas-framework[cli,asyncapi]'"
        ) from None


def _broker(document: Document, given: str | None) -> tuple[str, str]:
    """`(address, who gave it)`.

    Raises:
        SagasError: nobody did.
    """
    if given:
        return given, "from --broker"
    if named := os.environ.get(BROKER):
        return named, f"from {BROKER}"
    if document.broker:
        return document.broker, f"the server of {document.source}; no --broker, no {BROKER}"
    raise SagasError(
        f"No broker: {document.source} has no AMQP server, and neither --broker nor {BROKER} is given. "
        "Write --broker amqp://user:password@host:5672/vhost."
    )


def _consumers(app: Any, document: Document) -> int:
    """How many workers take from the queue already."""
    from sagas_framework.stub.running import others

    load = others(app, document)
    return 0 if load is None else load.consumers or 0


class Teller:
    """Prints what the stub does: a line for each message, or with ``--json`` an object in a line."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._screen = Screen()
        self._messages = 0

    def beginning(
        self, document: Document, behaviours: dict[str, Behaviour], broker: str, consumers: int
    ) -> None:
        where = f"{document.queue.name} at {masked_broker(broker)}"
        beside = (
            f"{consumers} {'worker takes' if consumers == 1 else 'workers take'} from this queue already, "
            "and will get some of the commands. Stop them, if the stub is to get all."
        )
        if self._as_json:
            if consumers:
                click.echo(f"Warning: {beside}", err=True)
            return
        self._screen.line(f"A stub of {document.title} {document.version}".rstrip() + f", on {where}")
        for task, behaviour in behaviours.items():
            self._screen.line(f"{task} {behaviour.told}", indent=2)
        if consumers:
            self._screen.status("warning", f": {beside}")
        self._screen.line("Ctrl-C stops it.")
        sys.stdout.flush()

    def message(self, told: Told) -> None:
        self._messages += 1
        # Composed first and written at once: delayed answers come from other threads.
        line = json.dumps(_object(told), ensure_ascii=False) if self._as_json else plain(_line(told))
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def end(self) -> None:
        if not self._as_json:
            self._screen.line(
                f"Stopped. {self._messages} {'message' if self._messages == 1 else 'messages'}."
            )


def _line(told: Told) -> str:
    attempt = f" (attempt {told.attempt})" if told.attempt > 1 else ""
    said = told.result
    if told.result == "success":
        said += f" {compact(told.payload)}"
    elif isinstance(told.payload, dict):
        said += f" {told.payload.get('type')}: {told.payload.get('message')}"
    if told.why:
        said += f", {told.why}" if told.payload is not None or told.result == "success" else f": {told.why}"
    time = told.at.strftime("%H:%M:%S")
    return f"{time}  {told.saga_id or '-'}  {told.task or '-'}{attempt}  {said}"


def _object(told: Told) -> dict[str, Any]:
    return {
        "at": told.at.isoformat(),
        "saga_id": told.saga_id or None,
        "task": told.task or None,
        "attempt": told.attempt,
        "result": told.result,
        "payload": told.payload,
        "why": told.why or None,
    }
