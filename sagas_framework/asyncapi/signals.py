"""Signals in the documents: what another service may tell a saga that waits. Nobody answers one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sagas_framework.asyncapi import celery
from sagas_framework.asyncapi.celery import Schema
from sagas_framework.asyncapi.described import Described, Schemas
from sagas_framework.asyncapi.pieces import class_name, said
from sagas_framework.asyncapi.samples import Example, as_it_travels, read_back
from sagas_framework.errors import DefinitionError
from sagas_framework.messages import Signal, signal_task
from sagas_framework.saga import SagaDefinition
from sagas_framework.steps import WaitStep
from sagas_framework.transport.envelope import Envelope

SIGNAL_ID: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
KEY: Final = "order-7"
TAG: Final = ("signal", "Tells a saga what it waits for.")


@dataclass(frozen=True)
class Awaited:
    """A signal that a saga waits for.

    Args:
        signal: of its newest version that waits for it.
        steps: ``(version, step)`` of those that do.
    """

    saga: str
    signal: type[Signal]
    steps: tuple[tuple[int, str], ...]

    @property
    def task(self) -> str:
        """The name of the Celery task."""
        return signal_task(self.saga, self.signal.signal_name)


def awaited(definitions: Iterable[SagaDefinition]) -> list[Awaited]:
    """What sagas wait for, in the order of their steps; a signal that several wait for comes once.

    Raises:
        DefinitionError: two versions of a saga expect different things under one name.
    """
    found: dict[str, Awaited] = {}
    for definition in definitions:
        for step in definition.steps:
            if not isinstance(step, WaitStep):
                continue
            for one in step.signals:
                task = signal_task(definition.name, one.signal.signal_name)
                place = (definition.version, step.name)
                known = found.get(task)
                if known is None:
                    found[task] = Awaited(definition.name, one.signal, (place,))
                elif known.signal is one.signal:
                    found[task] = Awaited(definition.name, one.signal, (*known.steps, place))
                elif known.signal.model_json_schema() == one.signal.model_json_schema():
                    found[task] = Awaited(definition.name, known.signal, (*known.steps, place))
                else:
                    raise DefinitionError(
                        f"{known.signal.__qualname__} and {one.signal.__qualname__} are both the signal "
                        f"{task!r}, and differ. Give one of them another name."
                    )
    return list(found.values())


def signalling(one: Awaited, schemas: Schemas) -> Described:
    """A signal as a message of the document."""
    summary, description = said(one.signal)
    return Described(
        key=one.task,
        task=one.task,
        title=one.signal.__name__,
        summary=summary or one.signal.__name__,
        description=description,
        tag=TAG[0],
        trait=celery.SIGNAL,
        payload=celery.body(class_name(one.task), {"key": _key(), "payload": schemas[one.signal]}),
        examples=[_example(one)],
    )


def told(one: Awaited, described: Described) -> str:
    """What the operation says of itself."""
    lines = [described.description] if described.description else []
    waits = [f"- `{step}` of the saga `{one.saga}`, version {version}" for version, step in one.steps]
    lines.append("Waited for by these steps:\n\n" + "\n".join(waits))
    lines.append(
        "What comes before its saga waits for it, or before there is a saga with that key, is kept. Sent "
        "again under the same id it is the same signal. Nobody answers; what comes too late is in the saga's "
        "history."
    )
    return "\n\n".join(lines)


def _key() -> Schema:
    return {
        "title": "key",
        "type": "string",
        "minLength": 1,
        "maxLength": 200,
        "description": "`key`: the saga's business key; its id, if it was started without one.",
    }


def _example(one: Awaited) -> Example:
    sent = Envelope("", one.task, SIGNAL_ID, KEY, read_back(one.signal))
    return as_it_travels(sent, "typical", one.signal.__name__)
