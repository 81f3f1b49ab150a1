"""What somebody asks of a saga, read from a form or from JSON, and checked before it is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from flask import Request

from sagas_framework.console.choices import Choice, choices, refusal
from sagas_framework.console.fields import Input, Read, check, moment, parse, parse_object, read
from sagas_framework.console.problem import Problem
from sagas_framework.console.steps import reply_model
from sagas_framework.core.events import Act
from sagas_framework.storage.ports import is_storable
from sagas_framework.view import SagaView

_MISSING: Final = object()


@dataclass(frozen=True)
class Given:
    """What was sent, as it came.

    Args:
        fields: ``act``, ``step``, ``reason``, ``by``, ``revision``, ``force``, ``reply``, ``until``; of a
            signal ``signal``, ``payload``, ``id``.
        form: all fields of a form; None for JSON.
        sure: the choices whose confirmation was ticked.
    """

    fields: Mapping[str, Any]
    form: Mapping[str, str] | None = None
    sure: Sequence[str] = ()

    @classmethod
    def of(cls, request: Request) -> Given:
        """What the request says.

        Raises:
            Problem: 400; it is no JSON object.
        """
        if not request.is_json:
            form = request.form.to_dict()
            act, _, step = form.get("act", "").partition(":")  # the button of a step names both
            return cls(
                form | {"act": act, "step": form.get("step") or step}, form, request.form.getlist("force")
            )
        return cls(parse_object(request.get_data(), _LIKE))

    @property
    def forced(self) -> bool | None:
        """Whether it was said that the participant is not to be asked; None if that is unclear."""
        if self.form is None:
            force = self.fields.get("force", False)
            return force if isinstance(force, bool) else None
        return any(sure in self.sure for sure in (self._value, "true", "on", "1"))

    @property
    def _value(self) -> str:
        step = self.fields.get("step")
        return f"{self.fields.get('act')}:{step}" if step else str(self.fields.get("act"))


_LIKE: Final = 'Send {"act": "retry", "step": ..., "reason": ..., "by": ..., "revision": ...}'


@dataclass(frozen=True)
class Chosen:
    """An act that can be stored, unless something is `wrong` with its fields.

    Args:
        choice: with what was typed, and what is wrong with it.
        until: the new moment of what is moved.
        wrong: ``field -> what is wrong``, of ``force``, ``reply`` and ``until``.
    """

    choice: Choice
    force: bool
    revision: int
    reply: Any = None
    until: datetime | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)


class MovedOn(Problem):
    """The act was decided on an older picture of the saga."""

    def __init__(self, seen: int, view: SagaView) -> None:
        super().__init__(
            409,
            f"The saga has moved on since: you decided on revision {seen}, and it is at "
            f"{view.instance.revision} by now. Nothing was changed",
            "See what happened since, then decide again",
        )
        self.seen = seen


def choose(view: SagaView, given: Given) -> Chosen:
    """What is asked for, as one of the saga's options.

    Raises:
        MovedOn: it was decided on another revision.
        Problem: 400, it makes no sense; 409, it cannot be done now.
    """
    act = _act(given)
    if view.instance.status.ended:
        raise Problem(
            409,
            f"The saga has ended: {view.instance.status.value}. Nothing can be done with it any more",
            "Its page says what became of every step",
        )
    if view.saga is None:
        raise Problem(
            409,
            f"{view.instance.saga} version {view.instance.version} is not declared here, so nobody here "
            "can act on it",
            "Act where it is declared, or give its class to Sagas(...) again",
        )
    revision = _revision(view, given)
    choice = _choice(view, act, _step(view, given))
    told = _reply(view, choice, given)
    force = given.forced
    wrong = {}
    if not told.ok:
        wrong["reply"] = in_a_line(told)
    if force is None:
        wrong["force"] = "force is true or false."
    elif choice.force and not force:
        wrong["force"] = "Confirm this: the participant is not asked."
    until = None
    if choice.until is not None:
        moved, until = _until(choice, choice.until, given)
        choice = replace(choice, until=moved)
        if moved.error:
            wrong["until"] = moved.error
    choice = replace(
        choice,
        inputs=told.inputs if choice.inputs is not None else None,
        trouble=told.trouble,
        unsure=wrong.get("force", ""),
        confirmed=bool(force),
    )
    return Chosen(choice, bool(force), revision, told.reply, until, wrong)


# ---- parts ----------------------------------------------------------------------------------------


def _act(given: Given) -> Act:
    asked = given.fields.get("act")
    for act in Act:
        if act.value == asked:
            return act
    told = f"There is no act {asked!r}" if asked else "No act is named"
    raise Problem(400, told, f"Acts are: {', '.join(act.value for act in Act)}")


def _revision(view: SagaView, given: Given) -> int:
    """The one that was decided on; from a program that names none, the one that it finds."""
    now, asked = view.instance.revision, given.fields.get("revision", _MISSING)
    if asked in (_MISSING, None) and given.form is None:
        return now
    try:
        seen = int(asked) if isinstance(asked, (str, int)) and not isinstance(asked, bool) else None
    except ValueError:
        seen = None
    if seen is None:
        told = "The revision is missing" if asked in (_MISSING, None, "") else f"{asked!r} is no revision"
        raise Problem(400, told, f"Open the saga's page again; it is at revision {now}")
    if seen != now:
        raise MovedOn(seen, view)
    return seen


def _step(view: SagaView, given: Given) -> str | None:
    step = given.fields.get("step") or None
    names = [record.name for record in view.records]
    if step is not None and step not in names:
        raise Problem(400, f"The saga has no step {step!r}", f"It has: {', '.join(names)}")
    return step


def _choice(view: SagaView, act: Act, step: str | None) -> Choice:
    offered = choices(view)
    found = [c for c in offered if c.act == act.value and (step is None or c.step in (None, step))]
    if act is Act.RESCHEDULE:  # without a step it is the saga's own deadline
        found = [choice for choice in found if choice.step == step]
    if len(found) > 1:
        raise Problem(
            400, "More than one step waits", f"Name one: {', '.join(str(choice.step) for choice in found)}"
        )
    if found:
        return found[0]
    why = refusal(view, act, step) or "it would not be obeyed"
    can = ", ".join(choice.value.replace(":", " ") for choice in offered) or "nothing"
    raise Problem(409, f"This cannot be done now: {why}. Nothing was changed", f"What can be done: {can}")


def _until(choice: Choice, field: Input, given: Given) -> tuple[Input, datetime | None]:
    """The field as it was filled in, and the moment that it says."""
    if given.form is None:
        typed = given.fields.get("until")
    else:
        typed = given.form.get(choice.field(field), given.form.get("until", ""))
    shown = replace(field, typed=typed if isinstance(typed, str) else "")
    try:
        return shown, moment(typed)
    except ValueError as error:
        return replace(shown, error=str(error) if typed else "Say until when."), None


def _reply(view: SagaView, choice: Choice, given: Given) -> Read:
    """The reply that the act needs, as it was typed or sent."""
    sent = given.fields.get("reply", _MISSING)
    if choice.inputs is None:
        spare = sent not in (_MISSING, None, "")
        return Read(None, [], f"{choice.act} takes no reply here." if spare else "")
    model = reply_model(view.saga, choice.step)
    if given.form is None:
        if sent is _MISSING:
            return Read(None, choice.inputs, "It needs the reply that the participant would have given.")
        told = check(sent, choice.inputs, model)
    elif isinstance(sent, str) and sent.strip():
        try:
            told = check(parse(sent), choice.inputs, model)
        except ValueError as error:
            told = Read(None, choice.inputs, str(error))
    else:
        typed = {its.name: given.form.get(choice.field(its), "") for its in choice.inputs}
        told = read(choice.inputs, typed, model)
    if told.ok and not storable(told.reply):
        return replace(told, trouble="The reply has characters that cannot be kept, such as NUL.")
    return told


def in_a_line(told: Read) -> str:
    """What is wrong with what was typed or sent."""
    parts = [told.trouble] if told.trouble else []
    parts += [f"{its.name}: {its.error}" if its.name else its.error for its in told.inputs if its.error]
    return " ".join(parts)


def storable(value: Any) -> bool:
    """Whether a database keeps every text in this JSON value."""
    match value:
        case str():
            return is_storable(value)
        case Mapping():
            return all(is_storable(str(name)) and storable(inner) for name, inner in value.items())
        case list():
            return all(map(storable, value))
        case _:
            return True
