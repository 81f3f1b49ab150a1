"""One saga in a line of a list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from markupsafe import Markup

from sagas_framework.console.story import pips
from sagas_framework.core.instance import Phase, SagaInstance
from sagas_framework.core.why import in_words
from sagas_framework.view import SagaView, summary

LONGEST_WHY: Final = 180
"""Characters after which only the first sentences of a reason are shown."""


@dataclass(frozen=True)
class Line:
    """What a list shows of a saga."""

    view: SagaView

    @property
    def instance(self) -> SagaInstance:
        return self.view.instance

    @property
    def open(self) -> bool:
        return not self.instance.status.ended

    @property
    def age(self) -> str:
        return in_words(self.view.now - self.instance.created_at)

    @property
    def until(self) -> datetime | None:
        """The next moment at which time alone moves it: a deadline, the end of a pause; None if none does."""
        instance = self.instance
        moments = [
            moment
            for record in instance.steps.values()
            for moment in (record.deadline, record.resume_at)
            if moment is not None
        ]
        if instance.deadline is not None and instance.outcome is None and not instance.late:
            moments.append(instance.deadline)
        return min(moments, default=None) if self.open else None

    @property
    def left(self) -> str:
        """The time until then; ``over`` if nobody has looked at the clock yet."""
        assert self.until is not None
        left = self.until - self.view.now
        return in_words(left) if left > timedelta(0) else "over"

    @property
    def step(self) -> str:
        """At which step it is; empty if at none."""
        records = list(self.instance.steps.values())
        for record in records:
            if record.parked:
                return record.name
        for record in records:
            moves = record.flight is not None or record.resume_at is not None
            if moves or record.phase is Phase.WAITING:
                return record.name
        outcome = self.instance.outcome
        return "" if outcome is None else outcome.step

    @property
    def why(self) -> str:
        """Why it is there; not naming the step once more if it begins with it."""
        told, step = self.view.why, self.step
        for opening in (f"{step} ", f"{step}: "):
            if step and told.startswith(opening):
                told = told[len(opening) :]
                told = told[:1].upper() + told[1:]
        return shortened(told)

    @property
    def pips(self) -> Markup:
        return Markup(pips(self.instance, self.view.saga))  # drawn by us: its texts are escaped

    def to_json(self) -> dict[str, Any]:
        return summary(self.instance) | {"why": self.view.why}


def shortened(why: str) -> str:
    """The first sentences of a reason that is long; at least one, and at most twice `LONGEST_WHY`."""
    if len(why) <= LONGEST_WHY:
        return why
    shown, rest = "", why
    while rest:
        sentence, stop, rest = rest.partition(". ")
        if shown and len(shown) + len(sentence) > LONGEST_WHY:
            break
        shown += sentence + stop
    shown = shown.rstrip()
    return shown if len(shown) <= 2 * LONGEST_WHY else f"{shown[: 2 * LONGEST_WHY - 1]}…"
