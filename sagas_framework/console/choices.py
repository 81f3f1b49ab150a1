"""What an operator can do with a saga now, as buttons: derived from the options, whatever acts there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Final

from sagas_framework.console.fields import Input, Kind, inputs_of
from sagas_framework.core.decide import decide
from sagas_framework.core.events import Act, OperatorActed
from sagas_framework.core.instance import Phase
from sagas_framework.core.options import Option
from sagas_framework.view import SagaView

_LABELS: Final = {
    Act.RETRY: "Retry",
    Act.SKIP: "Skip",
    Act.COMPLETE: "Complete by hand",
    Act.WITHDRAW: "It never happened",
    Act.RESCHEDULE: "Move the deadline",
    Act.CANCEL: "Cancel saga",
}


@dataclass(frozen=True, slots=True)
class Choice:
    """A button.

    Args:
        step: on which; None for the whole saga.
        look: ``main`` for the one to try first, ``danger`` for what turns the saga back.
        force: it is done without asking the participant, and must be confirmed.
        inputs: the reply that it needs; None if it needs none.
        until: the moment that it needs; None if it needs none.
        trouble, unsure: what was wrong with the reply as a whole, and with the confirmation.
    """

    act: str
    step: str | None
    label: str
    consequence: str
    look: str = ""
    force: bool = False
    inputs: Sequence[Input] | None = None
    until: Input | None = None
    trouble: str = ""
    unsure: str = ""
    confirmed: bool = False

    @property
    def value(self) -> str:
        """What the button sends: ``retry:authorize_card``, ``cancel``."""
        return f"{self.act}:{self.step}" if self.step else self.act

    @property
    def id(self) -> str:
        """Of its elements in the page."""
        return self.value.replace(":", "-")

    @property
    def plain(self) -> bool:
        """Whether it is a button and nothing else."""
        return not self.force and not self.inputs and self.until is None

    def field(self, of: Input) -> str:
        """Name of the form's field for this input: several steps may need a reply, or a moment."""
        return f"{of.name}:{self.step or ''}" if of is self.until else f"reply:{self.step}:{of.name}"


def choices(view: SagaView) -> list[Choice]:
    """The buttons, in the order of the options."""
    options = view.options
    first = next((o for o in options if o.act is Act.RETRY), None)
    return [_choice(view, option, main=option is first) for option in options]


def _choice(view: SagaView, option: Option, *, main: bool) -> Choice:
    told = f"{option.consequence[:1].upper()}{option.consequence[1:]}."
    look = "main" if main else "danger" if option.act in (Act.CANCEL, Act.WITHDRAW) else ""
    return Choice(
        act=option.act.value,
        step=option.step,
        label=_label(option),
        consequence=told,
        look=look,
        force=option.force,
        inputs=None if option.reply is None else inputs_of(option.reply),
        until=_until(view, option.step) if option.act is Act.RESCHEDULE else None,
    )


def _label(option: Option) -> str:
    if option.act is Act.RESCHEDULE and option.step is None:
        return "Move the saga's deadline"
    return _LABELS.get(option.act) or option.act.value.replace("_", " ").capitalize()


def _until(view: SagaView, step: str | None) -> Input:
    """The field for a new moment; in it stands the one that counts now."""
    moment = view.instance.deadline
    if step is not None:
        record = view.instance.steps[step]
        moment = record.deadline if record.phase is Phase.WAITING else record.resume_at
    typed = "" if moment is None else f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"
    return Input("until", Kind.MOMENT, required=True, hint="UTC", typed=typed)


def refusal(view: SagaView, act: Act, step: str | None = None) -> str | None:
    """Why the act would not be obeyed now; None if it would, or if its declaration is not here."""
    if view.saga is None:
        return None
    asked = OperatorActed(
        view.instance.id, view.now, act, by="nobody", reason="a question", step=step, until=view.now
    )
    decision = decide(view.saga, view.instance, asked)
    return decision.answer if decision.refused else None
