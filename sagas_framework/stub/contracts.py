"""Message classes made from a document, so that the library's own participant takes its commands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from pydantic import ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from sagas_framework.errors import Failure
from sagas_framework.messages import Command, Compensation, Reply, Service
from sagas_framework.stub.document import Refusal, Taken
from sagas_framework.stub.schemas import Schema

M = TypeVar("M", bound=Command[Any] | Compensation[Any])


class Example(Reply):
    """A reply of which only its JSON is known."""

    payload: Any

    def to_json(self) -> Any:
        return self.payload


def command(taken: Taken, service: Service, failures: Sequence[type[Failure]]) -> type[Command[Any]]:
    """The command as a class: its payload is held against the document's schema."""

    class Stubbed(Command[Example], service=service, name=taken.short, failures=failures):
        payload: Any

        @model_validator(mode="before")
        @classmethod
        def _fits(cls, said: Any) -> Any:
            return {"payload": _fitting(said, taken.payload, cls.__name__)}

    return _named(Stubbed, taken.short, taken.task)


def compensation(taken: Taken, service: Service) -> type[Compensation[Any]]:
    """The compensation as a class, with a command of its own: no document says which one it undoes.

    It need not: what is undone is found by the operation's id, in the inbox.
    """

    class Undone(Command[None], service=service, name="undone"):
        pass

    _named(Undone, f"what {taken.short} undoes", f"what {taken.task} undoes")

    class Stubbed(Compensation[Undone], service=service, name=taken.short):
        payload: Any

        @model_validator(mode="before")
        @classmethod
        def _fits(cls, said: Any) -> Any:
            return {"payload": _fitting(said, taken.payload, cls.__name__)}

    return _named(Stubbed, taken.short, taken.task)


def failure(refusal: Refusal) -> type[Failure]:
    """The failure as a class."""
    return type(refusal.name, (Failure,), {"wire_name": refusal.name, "__module__": refusal.module or "stub"})


def _named(made: type[M], name: str, task: str) -> type[M]:
    """Named in messages for people like its task; and for just this task, whatever the service's name is."""
    made.__name__ = made.__qualname__ = name
    made.contract = replace(made.contract, task=task)
    return made


def _fitting(said: Any, schema: Schema, name: str) -> Any:
    """What was said, if it fits.

    Raises:
        ValidationError: as pydantic raises it for the real service's classes.
    """
    troubles = schema.troubles(said)
    if troubles:
        raise ValidationError.from_exception_data(
            name,
            [
                InitErrorDetails(
                    type=PydanticCustomError("schema", "{told}", {"told": message}), loc=path, input=said
                )
                for path, message in troubles
            ],
        )
    return said
