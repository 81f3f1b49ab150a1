"""``POST /<saga>/signals``: tell a saga what one of its steps waits for, or will."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from uuid import uuid4

from sagas_framework.console.asking import Given, in_a_line, storable
from sagas_framework.console.fields import Input, Kind, check, inputs_of, read
from sagas_framework.console.problem import Problem
from sagas_framework.core.waiting import too_late
from sagas_framework.errors import InvalidSignal, SagasError, SignalConflict, UnknownSignal
from sagas_framework.messages import Signal
from sagas_framework.saga import SagaDefinition
from sagas_framework.storage.ports import Became, SignalRow
from sagas_framework.view import SagaView

_LIKE: Final = 'Send {"signal": "approval", "payload": {...}, "reason": ..., "by": ...}'


@dataclass(frozen=True)
class SignalForm:
    """A signal that can be said now.

    Args:
        name: of the signal.
        told: what its class says of itself, in a line.
        awaited: whether a step waits for it; else it is kept until one does.
        inputs: its fields.
        id: of what is said with this form, so that a second click says nothing new.
        trouble: what was wrong with it as a whole.
    """

    name: str
    told: str
    awaited: bool
    inputs: Sequence[Input]
    id: str = field(default_factory=lambda: str(uuid4()))
    trouble: str = ""

    def field(self, of: Input) -> str:
        """Name of the form's field for this input: several signals have their fields in one form."""
        return f"signal:{self.name}:{of.name}"

    @property
    def id_field(self) -> str:
        """Name of the form's field for the id."""
        return f"signal:{self.name}"


@dataclass(frozen=True)
class Said:
    """What somebody wants to say, unless something is `wrong` with it.

    Args:
        form: as it was filled in.
        id: the sender's; None: there will be no repetition.
        wrong: ``field -> what is wrong``.
    """

    form: SignalForm
    payload: Any
    id: str | None
    wrong: Mapping[str, str]


def forms(view: SagaView) -> list[SignalForm]:
    """What can be said to the saga: what it waits for first, then what would be kept."""
    saga, instance = view.saga, view.instance
    if saga is None:
        return []
    awaited = list(dict.fromkeys(view.signals))
    later = [
        name
        for name in saga.signals
        if name not in awaited
        and too_late(saga, instance.status, instance.outcome, instance.steps, name) is None
    ]
    return [
        *(_form(saga, name, awaited=True) for name in awaited),
        *(_form(saga, name, awaited=False) for name in later),
    ]


def said(view: SagaView, given: Given) -> Said:
    """What the request says.

    Raises:
        Problem: 400, it makes no sense; 409, nobody here can say whether it fits.
    """
    instance = view.instance
    if view.saga is None:
        raise Problem(
            409,
            f"{instance.saga} version {instance.version} is not declared here, so its signals are unknown",
            "Say it where it is declared, or give its class to Sagas(...) again",
        )
    name = given.fields.get("signal")
    if name not in view.saga.signals:
        what = f"No step waits for a signal {name!r}" if name else "No signal is named"
        known = ", ".join(view.saga.signals) or "none"
        raise Problem(400, what, f"Signals of {instance.saga} are: {known}. {_LIKE}")
    form = _form(view.saga, str(name), awaited=name in view.signals)
    model = view.saga.signal(str(name))
    if given.form is None:
        sent, said_id = given.fields.get("payload", {}), given.fields.get("id")
        told = check(sent, form.inputs, model)
    else:
        sent, said_id = given.form, given.form.get(form.id_field)
        told = read(form.inputs, {its.name: sent.get(form.field(its), "") for its in form.inputs}, model)
    if told.ok and not storable(told.reply):
        told = replace(told, trouble="It has characters that cannot be kept, such as NUL.")
    form = replace(form, inputs=told.inputs, trouble=told.trouble)
    wrong = {} if told.ok else {"payload": in_a_line(told)}
    if said_id is not None and not isinstance(said_id, str):
        wrong["id"] = "id is text."
    return Said(form, told.reply, said_id or None, wrong)


def refused(error: SagasError) -> Problem:
    """Why it was not even stored."""
    told, _, do = str(error).partition(". ")
    match error:
        case SignalConflict():
            return Problem(409, told, do.rstrip(".") or "Say it with an id of its own")
        case InvalidSignal() | UnknownSignal():
            return Problem(400, told.rstrip("."), do.rstrip(".") or _LIKE)
        case _:
            return Problem(409, told.rstrip("."), do.rstrip(".") or "Look at the saga again")


def became_in_words(row: SignalRow) -> tuple[str, str, str]:
    """`(tone, what became of it, what comes next)`."""
    match row.became:
        case Became.TAKEN:
            return "done", f"{row.signal} was taken.", ""
        case Became.TOO_LATE:
            return "refused", f"{row.signal} is too late: {row.answer}.", ""
        case Became.KEPT:
            return "stored", f"{row.signal} is kept.", "It is taken when the saga waits for it."
        case Became.STORED:
            return (
                "stored",
                f"{row.signal} is stored: no orchestrator has looked at it yet.",
                "It is taken when one runs, if the saga waits for it then.",
            )


# ---- parts ----------------------------------------------------------------------------------------


def _form(saga: SagaDefinition, name: str, *, awaited: bool) -> SignalForm:
    model = saga.signal(name)
    assert model is not None  # it is one of the saga's
    schema = model.model_json_schema()
    inputs = [_not_forgotten(its) for its in inputs_of({"properties": {}} | schema)]
    return SignalForm(name, _said_of(model), awaited, inputs)


def _not_forgotten(field: Input) -> Input:
    """A box that is not ticked says no, and that must not happen by itself."""
    return replace(field, kind=Kind.YES_OR_NO) if field.kind is Kind.CHECKBOX and field.required else field


def _said_of(model: type[Signal]) -> str:
    first, _, _ = (model.__dict__.get("__doc__") or "").strip().partition("\n\n")
    return " ".join(first.split())
