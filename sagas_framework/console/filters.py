"""What of all sagas a person wants to see, as it stands in an address."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from sagas_framework.console.problem import Problem
from sagas_framework.core.instance import Cause, OutcomeKind, SagaInstance, Status
from sagas_framework.storage.ports import Filter, is_storable

OPEN: Final = "open"
ALL: Final = "all"
TABS: Final = (
    *(OPEN, Status.PARKED.value, Status.COMPENSATING.value, Status.RUNNING.value),
    *(Status.COMPLETED.value, Status.COMPENSATED.value, ALL),
)
AGES: Final = {
    "1m": ("over 1 min ago", timedelta(minutes=1)),
    "1h": ("over 1 h ago", timedelta(hours=1)),
    "1d": ("over 1 d ago", timedelta(days=1)),
}
"""``word in the address -> (words, span)``."""
CAUSES: Final = {
    Cause.SIGNAL: "a signal",
    Cause.TIME: "its time",
    Cause.ANSWER: "an answer",
    Cause.PAUSE: "its next try",
    Cause.PERSON: "a person",
    Cause.START: "its start",
    Cause.TURN: "its turn",
}
"""What a saga can wait for, in words."""
LONGEST: Final = 255
"""Characters of anything that is looked for."""


@dataclass(frozen=True)
class Wanted:
    """Which sagas to list; None means any.

    Args:
        tab: one of `TABS`.
        key: a business key, an id or its beginning; then all statuses are looked through.
        older: one of `AGES`.
        waits: the task or the step that they wait for.
        cause: the kind of what they wait for.
        after: where the page begins.
    """

    tab: str = OPEN
    key: str | None = None
    saga: str | None = None
    outcome: OutcomeKind | None = None
    older: str | None = None
    waits: str | None = None
    cause: Cause | None = None
    after: str | None = None

    @classmethod
    def of(cls, given: Mapping[str, str], sagas: Collection[str]) -> Wanted:
        """What an address asks for; what is empty is any.

        Args:
            sagas: the names there are.

        Raises:
            Problem: 400; a value is none of those there are.
        """
        text = {name: value for name in cls.__annotations__ if (value := given.get(name, "").strip())}
        if status := given.get("status", "").strip():
            text["tab"] = _one_of("status", status, TABS)
        for name, value in text.items():
            if len(value) > LONGEST or not is_storable(value):
                raise Problem(
                    400,
                    f"Nothing can be looked for with this {name}: it has {len(value)} characters"
                    + ("" if len(value) > LONGEST else ", and some that no database keeps"),
                    f"Give at most {LONGEST} characters of plain text",
                )
        if "saga" in text:
            _one_of("saga", text["saga"], sagas)
        if "older" in text:
            _one_of("older", text["older"], AGES)
        if "outcome" in text:
            _one_of("outcome", text["outcome"], [kind.value for kind in OutcomeKind])
        if "cause" in text:
            _one_of("cause", text["cause"], [cause.value for cause in CAUSES])
        return cls(
            tab=ALL if "key" in text else text.get("tab", OPEN),
            key=text.get("key"),
            saga=text.get("saga"),
            outcome=OutcomeKind(text["outcome"]) if "outcome" in text else None,
            older=text.get("older"),
            waits=text.get("waits"),
            cause=Cause(text["cause"]) if "cause" in text else None,
            after=text.get("after"),
        )

    @property
    def narrowed(self) -> bool:
        """Whether anything but the tab is asked for."""
        return self != Wanted(self.tab, after=self.after)

    def filter(self, now: datetime, limit: int) -> Filter:
        """As the store takes it. The key is not in it: see `Sagas.find`."""
        return Filter(
            saga=self.saga,
            status=None if self.tab in (OPEN, ALL) else Status(self.tab),
            outcome=self.outcome,
            older_than=None if self.older is None else now - AGES[self.older][1],
            waits_for=self.waits,
            cause=self.cause,
            open_only=self.tab == OPEN,
            after=self.after,
            limit=limit,
        )

    def open_ones(self, now: datetime, limit: int) -> Filter:
        """Those of them that have not ended, from the first on; only for tabs that have such."""
        tab = OPEN if self.tab == ALL else self.tab
        return replace(self, tab=tab, after=None).filter(now, limit)

    def fits(self, instance: SagaInstance, now: datetime) -> bool:
        """Whether one that was found by its key is what is looked for."""
        outcome = instance.outcome and instance.outcome.kind
        waits = instance.waiting
        return (
            self.saga in (None, instance.saga)
            and self.outcome in (None, outcome)
            and self.waits in (None, waits and waits.what)
            and self.cause in (None, waits and waits.cause)
            and (self.older is None or instance.created_at < now - AGES[self.older][1])
        )

    def first(self, **changes: str | None) -> dict[str, Any]:
        """The address of the first page, as arguments of `url_for`; with changes by name."""
        return replace(self, after=None).args(**changes)

    def args(self, **changes: str | None) -> dict[str, Any]:
        """The address of this page, as arguments of `url_for`; with changes by name."""
        named = {
            "status": None if self.tab == OPEN or self.key else self.tab,
            "key": self.key,
            "saga": self.saga,
            "outcome": self.outcome and self.outcome.value,
            "older": self.older,
            "waits": self.waits,
            "cause": self.cause and self.cause.value,
            "after": self.after,
        }
        return {name: value for name, value in (named | changes).items() if value}


def _one_of(name: str, value: str, known: Collection[str]) -> str:
    if value not in known:
        raise Problem(
            400,
            f"There is no {name} {_short(value)!r}",
            f"Use one of these: {', '.join(known) or 'there is none'}",
        )
    return value


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
